//! A file system that a test can fill.

/// A file system of its own, gone when the test ends; none where that needs rights that are not there.
pub struct SmallFileSystem(tempfile::TempDir);

impl SmallFileSystem {
    pub fn new(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let mounted = directory.path().join("mounted");
        std::fs::create_dir(&mounted).unwrap();
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
            let output = std::process::Command::new(program).args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        let made = run(
            "mkfs.ext4",
            &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), image.as_os_str()],
        ) && run(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), mounted.as_os_str()],
        );
        made.then_some(Self(directory))
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.0.path().join("mounted")
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

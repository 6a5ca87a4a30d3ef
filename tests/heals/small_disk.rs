//! A file system that a test can fill, in a mount namespace of the test's own, where this machine allows one: root is
//! not needed, nothing outside sees it, and it is gone with the test's processes however they end.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::skipped;

/// Set where the test is in its own namespace: a file to be made by it, since a test of no such name is no failure.
const INSIDE: &str = "VSTACK_INSIDE_A_MOUNT_NAMESPACE";

/// Far more seconds than the test takes.
const LIMIT_SECONDS: &str = "300";

/// Ways to a namespace: for root, and for others where they may be root in one of theirs.
const WAYS: [&[&str]; 2] = [
    &["unshare", "--mount", "--"],
    &["unshare", "--user", "--map-root-user", "--mount", "--"],
];

/// True in a namespace of the test's own. Elsewhere runs `test` in one, or says that there can be none.
pub fn is_inside(test: &str) -> bool {
    if let Some(begun) = std::env::var_os(INSIDE) {
        File::create(begun).expect("a sign that the test began");
        return true;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let allowed = WAYS.iter().find(|way| {
        let mut probe = Command::new(way[0]);
        probe
            .args(&way[1..])
            .args(["mount", "-t", "tmpfs", "-o", "size=1m", "probe"]);
        let probe = probe.arg(directory.path()).stdin(Stdio::null()).output();
        probe.is_ok_and(|probe| probe.status.success())
    });
    let Some(way) = allowed else {
        skipped(
            test,
            "this machine gives it no mount namespace with a file system in it",
        );
        return false;
    };
    let begun = directory.path().join("begun");
    let status = Command::new("timeout")
        .args(["--kill-after=20", LIMIT_SECONDS])
        .args(*way)
        .arg(std::env::current_exe().expect("the test's own path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &begun)
        .status()
        .expect("it starts");
    assert!(status.success(), "{test} in a namespace of its own: {status}");
    assert!(begun.exists(), "there is no test called {test}");
    false
}

/// A file system of its own.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// With room for so many bytes; only where [`is_inside`] is true.
    pub fn new(bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "small-disk"])
            .arg(directory.path())
            .output()
            .expect("mount starts");
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(mounted.status.success(), "mount: {said}");
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Bytes that nobody has.
    pub fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(self.path()).expect("it is there");
        space.f_bavail * space.f_frsize
    }

    /// Takes the last byte, as others do who write beside a node.
    pub fn fill(&self) {
        let mut ballast = File::create(self.path().join("ballast")).expect("room for a name");
        for block in [1 << 20, 4096] {
            let block = vec![1_u8; block];
            let full = std::iter::repeat_with(|| ballast.write_all(&block)).find_map(Result::err);
            let full = full.map(|error| error.kind());
            assert_eq!(full, Some(std::io::ErrorKind::StorageFull));
        }
    }

    /// Gives it all back.
    pub fn make_room(&self) {
        std::fs::remove_file(self.path().join("ballast")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Else the directory below it could not be removed.
        let _gone = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

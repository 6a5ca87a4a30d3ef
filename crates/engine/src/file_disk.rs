//! A directory of the real filesystem as a [`Disk`].

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    data_file::DataFile,
    disk::{Disk, Usage},
};

/// File whose advisory lock (flock) keeps a second process out. It is never removed: two processes could each
/// hold a lock on another file of that name.
const LOCK_NAME: &str = "lock";

/// Small reads that keep a solid-state disk busy and do not drown a spinning one.
const READS_AT_ONCE: usize = 16;

type TellUsage = dyn Fn(Usage) -> Usage + Send + Sync;

/// A data directory.
#[derive(Clone)]
pub struct FileDisk {
    root: PathBuf,
    usage: Option<Arc<TellUsage>>,
    only_reads: bool,
    lends: bool,
}

impl fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileDisk")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// Others are kept out of a data directory as long as this lives.
///
/// It is unlocked and not only closed: a child process that another thread starts has a copy of every descriptor until
/// it runs its program, and a lock ends by closing only with its last copy.
#[derive(Debug)]
pub struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // A lock that cannot be given up ends with its descriptors.
        let _ = self.0.unlock();
    }
}

/// Makes `dir` and the parents it lacks. A directory is there after a power cut when the one it stands in is synced.
fn make_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        let what = format!("{} is no directory", dir.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, what));
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_durably(parent)?;
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    File::open(parent)?.sync_all()
}

/// A pipe or a device under a name of ours would be waited for, without end.
fn open_regular(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = how.custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        let name = path.display();
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name} is no regular file"),
        ));
    }
    Ok(file)
}

impl FileDisk {
    /// The directory `root`, made with its parents when it is not there.
    ///
    /// # Errors
    /// Of the filesystem.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        make_durably(&root)?;
        Ok(Self {
            root,
            usage: None,
            only_reads: false,
            lends: true,
        })
    }

    /// The directory `root` as it is: nothing is made, not even a lock, and nothing is written.
    pub fn as_it_is(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            usage: None,
            only_reads: true,
            lends: false,
        }
    }

    /// A node makes the file that it locks, so where there is none nobody is to be kept out; the directory says so to
    /// others who only look.
    fn file_to_lock(&self, path: &Path) -> io::Result<File> {
        if !self.only_reads {
            let mut how = OpenOptions::new();
            return open_regular(how.create(true).truncate(false).write(true), path);
        }
        match open_regular(OpenOptions::new().read(true), path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(&self.root),
            opened => opened,
        }
    }

    /// The same, saying of its usage what `told` makes of the filesystem's: for a share of a disk, and for tests of
    /// full ones.
    #[must_use]
    pub fn with_usage(self, told: impl Fn(Usage) -> Usage + Send + Sync + 'static) -> Self {
        Self {
            usage: Some(Arc::new(told)),
            ..self
        }
    }

    /// The same, whose bytes are all read into memory of the reader's and never lent from the page cache: for readers that
    /// look at them, as encryption does.
    #[must_use]
    pub fn that_lends_nothing(self) -> Self {
        Self { lends: false, ..self }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Disk for FileDisk {
    type File = DataFile;
    type Lock = Locked;

    fn lock(&self) -> io::Result<Locked> {
        let path = self.root.join(LOCK_NAME);
        if !self.only_reads {
            // Superblocks and the checkpoint are made there, which may be long after a start.
            use rustix::fs::Access;
            rustix::fs::access(&self.root, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?;
        }
        let file = self.file_to_lock(&path)?;
        file.try_lock()?;
        Ok(Locked(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && name != LOCK_NAME
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<DataFile> {
        let path = self.root.join(name);
        let mut how = OpenOptions::new();
        let file = open_regular(how.read(true).write(!self.only_reads), &path)?;
        Ok(DataFile::new(file, path, self.lends))
    }

    fn create(&self, name: &str) -> io::Result<DataFile> {
        let path = self.root.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(DataFile::new(file, path, self.lends))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }

    fn reads_at_once(&self) -> usize {
        READS_AT_ONCE
    }

    fn usage(&self) -> io::Result<Usage> {
        let stat = rustix::fs::statvfs(&self.root)?;
        // As df(1) does: what is reserved for root counts neither as used nor as usable.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let usage = Usage {
            used_bytes: used.saturating_mul(stat.f_frsize),
            total_bytes: used.saturating_add(stat.f_bavail).saturating_mul(stat.f_frsize),
        };
        Ok(self.usage.as_ref().map_or(usage, |told| told(usage)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_though_a_copy_of_its_descriptor_lives() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(dir.path()).unwrap();
        let lock = disk.lock().unwrap();
        let as_in_a_child = lock.0.try_clone().unwrap();
        assert_eq!(disk.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        let again = disk.lock().unwrap();
        drop((again, as_in_a_child));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let (kind, mode) = (
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        );
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        for disk in [FileDisk::new(dir.path()).unwrap(), FileDisk::as_it_is(dir.path())] {
            assert_eq!(disk.open("checkpoint").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let beneath = FileDisk::new(path.join("data")).unwrap_err();
        assert_eq!(beneath.kind(), io::ErrorKind::NotADirectory);
    }
}

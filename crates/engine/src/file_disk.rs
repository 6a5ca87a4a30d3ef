//! A directory of the real filesystem as a [`Disk`].

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::disk::{Disk, DiskFile, Usage};

/// File whose advisory lock (flock) keeps a second process out. It is never removed: two processes could each
/// hold a lock on another file of that name.
const LOCK_NAME: &str = "lock";

type TellUsage = dyn Fn(Usage) -> Usage + Send + Sync;

/// A data directory.
#[derive(Clone)]
pub struct FileDisk {
    root: PathBuf,
    usage: Option<Arc<TellUsage>>,
}

impl fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileDisk")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// Makes `dir` and the parents it lacks. A directory is there after a power cut when the one it stands in is synced.
fn make_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
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

impl FileDisk {
    /// The directory `root`, made with its parents when it is not there.
    ///
    /// # Errors
    /// Of the filesystem.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        make_durably(&root)?;
        Ok(Self { root, usage: None })
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

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Turns read-ahead off. Items are read whole, in one call, so it brings nothing; and what it reads of space that
/// was never written counts as data from then on, so that the end of the log would be found only by reading it all.
fn read_as_asked(file: &File) {
    #[cfg(target_os = "linux")]
    // A hint: without it everything is the same, only slower.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

impl Disk for FileDisk {
    type File = File;
    type Lock = File;

    fn lock(&self) -> io::Result<File> {
        let path = self.root.join(LOCK_NAME);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.try_lock()?;
        Ok(file)
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

    fn open(&self, name: &str) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(self.root.join(name))?;
        read_as_asked(&file);
        Ok(file)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.root.join(name))
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

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    #[cfg(target_os = "linux")]
    fn preallocate(&self, len: u64) -> io::Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // tmpfs in old kernels, NFS before 4.2, FUSE: a sparse file does, only that it may run out of space later.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Self::set_len(self, len.max(self.size()?)),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn preallocate(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len.max(self.size()?))
    }

    #[cfg(target_os = "linux")]
    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        use rustix::{fs::SeekFrom, io::Errno};
        // Space that is allocated and was never written counts as a hole: a fresh superblock is skipped unread.
        // The file's cursor moves, but nobody uses it.
        match rustix::fs::seek(self, SeekFrom::Data(from)) {
            Ok(offset) => Ok(Some(offset)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((from < self.size()?).then_some(from)),
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

//! Where files lie while they are worked on: one directory per upload under `TEMP_DIR`.
//!
//! A directory is removed when its [`Spool`] is dropped, whatever the reason, so that a client that goes away or an
//! upload that fails leaves nothing behind. Only a crash does; the next start finds it. The lock on `TEMP_DIR` keeps a
//! second uploader from taking a living upload for a crashed one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// Why `TEMP_DIR` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It cannot be made or opened.
    #[error("cannot use TEMP_DIR {dir}")]
    Open {
        /// Which directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another uploader uses it.
    #[error("TEMP_DIR {dir} is in use by another uploader; give each its own")]
    Taken {
        /// Which directory.
        dir: PathBuf,
    },
}

/// `TEMP_DIR`, locked.
#[derive(Debug)]
pub struct SpoolRoot {
    dir: PathBuf,
    lock: File,
}

impl Drop for SpoolRoot {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is being started has a copy of the descriptor until it runs its
        // program. A lock that cannot be given up ends with the last of them.
        let _ = self.lock.unlock();
    }
}

impl SpoolRoot {
    /// Makes and locks the directory.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Open {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let lock = File::open(&dir).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, lock }),
            Err(fs::TryLockError::WouldBlock) => Err(SpoolError::Taken { dir }),
            Err(fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes that may still be written to its disk.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// A directory for the upload `id`.
    pub fn create(&self, id: Uuid) -> io::Result<Spool> {
        let spool = Spool {
            dir: self.dir.join(id.to_string()),
        };
        fs::create_dir_all(spool.work_dir())?;
        Ok(spool)
    }

    /// What earlier processes left: every directory named like an upload.
    pub fn left_behind(&self) -> io::Result<Vec<(Uuid, Spool)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok());
            if let Some(id) = id
                && entry.file_type()?.is_dir()
            {
                found.push((id, Spool { dir: entry.path() }));
            }
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        Ok(found)
    }
}

/// One upload's directory.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file as it was sent. Its name is ours, whatever the sender called it.
    pub fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    /// An empty directory for ffmpeg to run in.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Removes all but the journal.
    pub async fn shrink(&self) {
        let (source, work_dir) = (self.source(), self.work_dir());
        let shrink = move || {
            let _may_be_gone = fs::remove_file(source);
            let _may_be_gone = fs::remove_dir_all(work_dir);
        };
        // It only panics when the process stops, and the next one removes the rest.
        let _done = vstack_service::aside(shrink).await;
    }

    /// Keeps the journal for the next start.
    pub async fn leave(self) {
        self.shrink().await;
        std::mem::forget(self);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.dir.display(), %error, "a spool directory could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_goes_when_it_is_dropped_and_stays_after_a_crash() {
        let temp = tempfile::tempdir().unwrap();
        let root = SpoolRoot::open(&temp.path().join("spool")).unwrap();
        assert!(matches!(
            SpoolRoot::open(&temp.path().join("spool")),
            Err(SpoolError::Taken { .. })
        ));
        assert!(root.free_bytes().unwrap() > 0);
        let (gone, crashed) = (Uuid::new_v4(), Uuid::new_v4());
        let spool = root.create(gone).unwrap();
        fs::write(spool.source(), b"bytes").unwrap();
        drop(spool);
        std::mem::forget(root.create(crashed).unwrap());
        fs::create_dir(temp.path().join("spool/lost+found")).unwrap();
        let left: Vec<_> = root.left_behind().unwrap().into_iter().map(|(id, _spool)| id).collect();
        assert_eq!(left, [crashed]);
        let names: Vec<_> = fs::read_dir(temp.path().join("spool"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["lost+found"]);
    }
}

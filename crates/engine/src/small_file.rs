//! Small files of a data directory, read whole and replaced atomically.

use std::io;

use crate::disk::{Disk, DiskFile};

/// Far more than any of them ever holds.
const BYTES_MAX: u64 = 4096;

/// Its contents; none when there is no such file.
pub(crate) fn read<D: Disk>(disk: &D, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let len = usize::try_from(file.size()?.min(BYTES_MAX)).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Makes `name` hold `bytes`, durably: after a power cut it holds these or what it held before.
pub(crate) fn replace<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    // Left over when a process ended before the rename.
    forget(disk, &new)?;
    let file = disk.create(&new)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&new, name)?;
    disk.sync_dir()
}

/// Removes `name`, durably.
pub(crate) fn remove<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    forget(disk, name)?;
    disk.sync_dir()
}

fn forget<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

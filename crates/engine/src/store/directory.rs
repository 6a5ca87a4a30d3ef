//! A data directory before anything of it is read: whose it is, who uses it, and whether it may be written to.

use std::io;

use super::OpenError;
use crate::{
    checkpoint, claim,
    disk::Disk,
    identity,
    recovery::{self, Damage, OpenReport},
    renewal, reserve, scrub_position,
    superblock::{HeadRead, file_name, file_number},
};

/// What is in a data directory beside superblocks and is needed at a start.
const OTHER_FILES: [&str; 3] = [identity::NAME, claim::NAME, checkpoint::NAME];

/// What nobody needs at a start: where a scrub was, room that is kept, and that its name is to be given up.
const SPARE_FILES: [&str; 3] = [scrub_position::NAME, reserve::NAME, renewal::NAME];

/// Numbers of the superblocks of `disk`, sorted.
pub(crate) fn superblocks<D: Disk>(disk: &D) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = disk.list()?.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

pub(crate) fn lock<D: Disk>(disk: &D) -> Result<D::Lock, OpenError> {
    disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ if is_not_permitted(&error) => OpenError::NotWritable {
            name: "the lock".to_owned(),
            source: error,
        },
        _ => OpenError::Io(error),
    })
}

/// Whether the disk gives it, and the process may not have it.
fn is_not_permitted(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// A node makes itself at home only where nobody is.
pub(super) fn is_nobody_elses<D: Disk>(disk: &D) -> Result<(), OpenError> {
    let names = disk.list()?;
    let ours = |name: &str| {
        let old = name.strip_suffix(".new").unwrap_or(name);
        OTHER_FILES.contains(&old) || SPARE_FILES.contains(&old) || file_number(name).is_some()
    };
    if names
        .iter()
        .any(|name| name == identity::NAME || file_number(name).is_some())
    {
        return Ok(());
    }
    match names.into_iter().find(|name| !ours(name)) {
        Some(name) => Err(OpenError::NotEmpty { name }),
        None => Ok(()),
    }
}

/// Before anything is read: a file that may not be opened looks like one that is lost, and with it votes.
pub(super) fn may_be_written<D: Disk>(disk: &D) -> Result<(), OpenError> {
    for name in disk.list()? {
        if file_number(&name).is_none() && !OTHER_FILES.contains(&name.as_str()) {
            continue;
        }
        match disk.open(&name) {
            Err(source) if is_not_permitted(&source) => return Err(OpenError::NotWritable { name, source }),
            _ => {}
        }
    }
    Ok(())
}

/// A lost superblock may only stand under another one's name, and its own be somebody else's.
pub(super) fn name_swapped<D: Disk>(disk: &D, report: &OpenReport) {
    for damage in &report.damage {
        let Damage::Superblock { number } = damage else {
            continue;
        };
        let name = file_name(*number);
        if let Ok(file) = disk.open(&name)
            && let Ok(HeadRead::Valid { head, .. }) = recovery::read_head(&file, *number)
            && head.number != *number
        {
            let belongs = file_name(head.number);
            tracing::error!(
                name,
                belongs,
                "a superblock has another one's name: rename the files back and start again"
            );
        }
    }
}

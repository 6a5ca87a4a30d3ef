//! Small text files of a data directory, read whole and replaced atomically.
//!
//! The last line is a checksum of those before it: what such a file says is believed to the letter, or not at all.

use std::io;

use crate::{
    disk::{Disk, DiskFile},
    record::crc32c,
};

/// Far more than any of them ever holds.
const BYTES_MAX: u64 = 4096;

const CHECKSUM: &str = "crc ";

/// What is under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Small {
    /// No such file.
    Absent,
    /// The text that was written.
    Whole(String),
    /// Something else.
    Damaged,
}

/// Its contents.
pub(crate) fn read<D: Disk>(disk: &D, name: &str) -> io::Result<Small> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Small::Absent),
        other => other?,
    };
    let len = usize::try_from(file.size()?.min(BYTES_MAX)).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)?;
    Ok(text(&bytes).map_or(Small::Damaged, |text| Small::Whole(text.to_owned())))
}

/// The lines before the checksum, when it is theirs.
fn text(bytes: &[u8]) -> Option<&str> {
    let all = std::str::from_utf8(bytes).ok()?;
    let text = &all[..all.strip_suffix('\n')?.rfind('\n')? + 1];
    (all == with_checksum(text)).then_some(text)
}

fn with_checksum(text: &str) -> String {
    format!("{text}{CHECKSUM}{:08x}\n", crc32c(&[text.as_bytes()]))
}

/// Makes `name` hold `text`, whole lines, durably: after a power cut it holds these or what it held before.
pub(crate) fn replace<D: Disk>(disk: &D, name: &str, text: &str) -> io::Result<()> {
    let new = format!("{name}.new");
    // Left over when a process ended before the rename.
    forget(disk, &new)?;
    let file = disk.create(&new)?;
    file.write_at(with_checksum(text).as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(&new, name)?;
    disk.sync_dir()
}

fn forget<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mem_disk::MemDisk;

    #[test]
    fn every_changed_byte_and_every_cut_is_seen() {
        let disk = MemDisk::default();
        assert_eq!(read(&disk, "x").unwrap(), Small::Absent);
        replace(&disk, "x", "log_seq 17\nmore\n").unwrap();
        let whole = disk.contents("x");
        assert_eq!(read(&disk, "x").unwrap(), Small::Whole("log_seq 17\nmore\n".to_owned()));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                disk.plant("x", &flipped);
                assert_eq!(read(&disk, "x").unwrap(), Small::Damaged, "bit {bit} of byte {at}");
            }
            disk.plant("x", &whole[..at]);
            assert_eq!(read(&disk, "x").unwrap(), Small::Damaged, "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_is_damage(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let disk = MemDisk::default();
            disk.plant("x", &bytes);
            prop_assert_eq!(read(&disk, "x").unwrap(), Small::Damaged);
        }
    }
}

//! The log sequence number that this disk claims where it registers: the `claim` file of a data directory.
//!
//! A disk that went back in time is known by a log sequence number below one it was seen with before. But its log
//! grows on, with every start and by bytes that need no vote, and would pass that number. So the number it had when it
//! was opened is written down, and it claims no other, start after start, until it is accepted with that one.

use std::io;

use crate::{disk::Disk, small_file};

const NAME: &str = "claim";
const FIELD: &str = "log_seq ";

/// What it has to claim; none when it was accepted. A file that cannot be read claims nothing.
pub(crate) fn load<D: Disk>(disk: &D) -> io::Result<Option<u64>> {
    let bytes = small_file::read(disk, NAME)?;
    Ok(bytes.map(|bytes| parse(&bytes).unwrap_or(0)))
}

fn parse(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes)
        .ok()?
        .strip_prefix(FIELD)?
        .strip_suffix('\n')?
        .parse()
        .ok()
}

/// Writes it down, or that it is over.
pub(crate) fn save<D: Disk>(disk: &D, log_seq: Option<u64>) -> io::Result<()> {
    match log_seq {
        Some(log_seq) => small_file::replace(disk, NAME, format!("{FIELD}{log_seq}\n").as_bytes()),
        None => small_file::remove(disk, NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem_disk::MemDisk;

    #[test]
    fn a_claim_outlives_a_crash_until_it_is_accepted() {
        let disk = MemDisk::default();
        assert_eq!(load(&disk).unwrap(), None);
        save(&disk, Some(17)).unwrap();
        disk.crash(1);
        assert_eq!(load(&disk).unwrap(), Some(17));
        disk.plant(NAME, b"log_seq 1");
        assert_eq!(load(&disk).unwrap(), Some(0), "cut short");
        save(&disk, None).unwrap();
        disk.crash(2);
        assert_eq!(load(&disk).unwrap(), None);
        save(&disk, None).unwrap();
    }
}

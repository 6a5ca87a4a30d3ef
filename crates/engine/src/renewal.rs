//! A disk that lost votes votes no more. Asked to by its cluster, it gives up its name at the next start and goes on under
//! a new one, with the bytes it has: the `renewal` file of a data directory says so.
//!
//! A file, because the name is given up where nothing else uses the directory. It names the disk that is to go: once that
//! is another one, the file says nothing any more.

use std::io;

use vstack_types::{NodeUuid, Timestamp};

use crate::{
    adopt::{AdoptError, Adoption},
    disk::Disk,
    identity::Identity,
    reader::Reader,
    small_file::{self, Small},
};

pub(crate) const NAME: &str = "renewal";

/// Most that a superblock file ever has: what one that is gone may have held.
const SUPERBLOCK_BYTES_MAX: u64 = u32::MAX as u64;

fn written(uuid: NodeUuid) -> String {
    format!("gives-up {uuid}\n")
}

impl<D: Disk> Reader<D> {
    /// Has the disk give up its name at the next start, durably. Blocks on the disk.
    ///
    /// # Errors
    /// Of the disk; then it is unknown whether it will.
    pub fn ask_for_renewal(&self) -> io::Result<()> {
        small_file::replace(&self.0.disk, NAME, &written(self.me().uuid))
    }
}

/// Gives the disk the name `new` if it was asked to give up the one it has; says which one that was. Nobody else may use it
/// meanwhile.
///
/// # Errors
/// When it cannot be adopted: it has its old name then, and votes no more.
pub fn renew<D: Disk + Clone>(disk: &D, new: NodeUuid, at: Timestamp) -> Result<Option<NodeUuid>, AdoptError> {
    let Small::Whole(text) = small_file::read(disk, NAME)? else {
        return Ok(None);
    };
    let Some(old) = Identity::load(disk)?.map(|identity| identity.node.uuid) else {
        return Ok(None);
    };
    if text != written(old) {
        // It has a new name already.
        disk.remove(NAME)?;
        return Ok(None);
    }
    Adoption::look(disk.clone(), SUPERBLOCK_BYTES_MAX, at)?.adopt(new)?;
    disk.remove(NAME)?;
    Ok(Some(old))
}

#[cfg(test)]
mod tests {
    use vstack_types::{Monotonic, NodeRef};

    use super::*;
    use crate::{
        mem_disk::MemDisk,
        op::Now,
        store::{Store, StoreOptions},
    };

    const OLD: NodeUuid = NodeUuid::from_bytes([1; 16]);
    const NEW: NodeUuid = NodeUuid::from_bytes([2; 16]);
    const AT: Timestamp = Timestamp(1_700_000_000_000);

    fn opened(disk: &MemDisk) -> Store<MemDisk> {
        let options = StoreOptions {
            superblock_bytes: 8 << 20,
            new_uuid: OLD,
            ..StoreOptions::new()
        };
        let now = Now {
            monotonic: Monotonic::default(),
            wall: AT,
        };
        Store::open(disk.clone(), options, now).unwrap()
    }

    #[test]
    fn a_disk_gives_up_its_name_once_and_only_when_asked() {
        let disk = MemDisk::default();
        drop(opened(&disk));
        assert_eq!(renew(&disk, NEW, AT).unwrap(), None);
        let store = opened(&disk);
        store.reader().ask_for_renewal().unwrap();
        drop(store);
        assert_eq!(renew(&disk, NEW, AT).unwrap(), Some(OLD));
        assert_eq!(opened(&disk).reader().me(), NodeRef::first(NEW));
        assert_eq!(renew(&disk, OLD, AT).unwrap(), None, "it was asked once");
        // A stop between the new name and the end of it.
        small_file::replace(&disk, NAME, &written(OLD)).unwrap();
        assert_eq!(renew(&disk, OLD, AT).unwrap(), None);
        assert_eq!(opened(&disk).reader().me(), NodeRef::first(NEW));
    }
}

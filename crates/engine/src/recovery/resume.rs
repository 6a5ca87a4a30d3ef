//! Going on from a checkpoint: what it speaks for is checked from outside, and only what is behind it is read.

use std::sync::Arc;

use vstack_types::planted;

use super::{AT_THE_FIRST_RECORD, Begin, Reading, Recovered, Recovery, finish_emptying, read_head};
use crate::{
    checkpoint::{self, Checkpoint},
    disk::{Disk, DiskFile},
    identity::Identity,
    index::Index,
    store::OpenError,
    superblock::{self, Copies, Head, HeadRead},
    superblocks::Superblock,
};

/// Goes on from a checkpoint, or says why that is not possible; then everything has to be read.
pub(super) fn resume<D: Disk>(
    disk: &D,
    identity: &Identity,
    reading: Reading,
    numbers: &[u32],
    checkpoint: Checkpoint,
) -> Result<Result<Recovered<D::File>, String>, OpenError> {
    let position = checkpoint.position;
    let index = Index::new(checkpoint.key, identity.node);
    let mut recovery = Recovery::new(identity, reading, index);
    if position.superblock < identity.first_superblock() {
        return Ok(Err("it is older than the disk's name".to_owned()));
    }
    if !checkpoint.is_current {
        return Ok(Err(
            "it is of an earlier version; the next one is written in this one's".to_owned(),
        ));
    }
    recovery.retired = &[];
    recovery.into.retired_at = None;
    let last = numbers.last().copied();
    let (before, behind): (Vec<u32>, Vec<u32>) = numbers.iter().partition(|number| **number < position.superblock);
    let mut expected = checkpoint.superblocks.iter().map(|known| known.number).peekable();
    // Emptied ones too: without their heads it is not known what the numbers held that they speak for.
    let mut spoken_for = identity.first_superblock();
    let hides = planted!("a checkpoint hides a superblock that is gone");
    for number in before {
        let Some(head) = recovery.head_behind_checkpoint(disk, identity, number)? else {
            return Ok(Err(format!("superblock {number} cannot be read")));
        };
        let first = head.first_number();
        if first > spoken_for && !hides {
            return Ok(Err(format!("superblock {spoken_for} is gone")));
        }
        spoken_for = spoken_for.max(number + 1);
        while expected
            .next_if(|known| *known < number && (first..=number).contains(known))
            .is_some()
        {}
        if head.emptied.is_some() {
            let _ = expected.next_if_eq(&number);
        } else if expected.next_if_eq(&number).is_none() && !hides {
            return Ok(Err(format!("it does not know superblock {number}")));
        }
    }
    if expected.next_if(|known| *known < position.superblock).is_some() && !hides {
        return Ok(Err("a superblock that it knows is gone".to_owned()));
    }
    let file = match disk.open(&superblock::file_name(position.superblock)) {
        Ok(file) => Arc::new(file),
        Err(error) => {
            return Ok(Err(format!(
                "superblock {} cannot be opened: {error}",
                position.superblock
            )));
        }
    };
    let mut goes_on = true;
    let read = read_head(&*file, position.superblock);
    if matches!(&read, Ok(HeadRead::Valid { head, .. }) if head.first_number() > spoken_for) {
        return Ok(Err(format!("superblock {spoken_for} is gone")));
    }
    match read {
        Ok(HeadRead::Valid { head, .. }) if head.emptied.is_some() && Some(position.superblock) != last => {
            // Emptied since: everything it held is behind it, from its first record on.
            recovery.into.next_lsn = head.first_lsn;
            goes_on = false;
        }
        Ok(HeadRead::Valid {
            head,
            copies: Copies::Both,
        }) if head.number == position.superblock && head.uuid == identity.node.uuid && head.emptied.is_none() => {
            if !checkpoint::is_at(&*file, &head, position) && !planted!("a checkpoint of another log is used") {
                return Ok(Err("the log has no such end".to_owned()));
            }
            recovery.into.next_lsn = position.lsn + 1;
        }
        Ok(_) => return Ok(Err("the superblock it ends in is damaged".to_owned())),
        Err(error) => return Ok(Err(format!("the superblock it ends in cannot be read: {error}"))),
    }
    recovery.next_number = position.superblock;
    let known = |number: u32| {
        (number == position.superblock && goes_on)
            || recovery.into.superblocks.get(number).is_some()
            || planted!("a checkpoint points into an emptied superblock")
    };
    checkpoint.restore(&recovery.into.index, known);
    recovery.into.report.checkpoint = Some(position.lsn);
    recovery.resume_at(disk, identity, &behind, last, &checkpoint)?;
    recovery.finish(disk).map(Ok)
}

impl<F: DiskFile> Recovery<'_, F> {
    /// Takes a superblock that a checkpoint speaks for; none when it has to be read.
    fn head_behind_checkpoint<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        identity: &Identity,
        number: u32,
    ) -> Result<Option<Head>, OpenError> {
        let Ok(file) = disk.open(&superblock::file_name(number)) else {
            return Ok(None);
        };
        let (Ok(read), Ok(size)) = (read_head(&file, number), file.size()) else {
            return Ok(None);
        };
        match read {
            HeadRead::Valid { head, copies } if head.number == number && head.uuid == identity.owner(number) => {
                self.follows(&head);
                if head.emptied.is_some() {
                    if copies == Copies::One {
                        return Ok(None);
                    }
                    finish_emptying(&file, &head, copies)?;
                    self.into.emptied.insert(number, head);
                } else if copies == Copies::Both {
                    let superblock = Superblock::new(head, Arc::new(file), size);
                    self.into.superblocks.insert(Arc::new(superblock));
                } else {
                    return Ok(None);
                }
                Ok(Some(head))
            }
            _ => Ok(None),
        }
    }

    /// Reads what is behind a checkpoint: the rest of its superblock and those after it.
    fn resume_at<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        identity: &Identity,
        numbers: &[u32],
        last: Option<u32>,
        checkpoint: &Checkpoint,
    ) -> Result<(), OpenError> {
        let position = checkpoint.position;
        for number in numbers.iter().copied() {
            let begin = if number == position.superblock {
                Begin {
                    offset: position.offset,
                    last_lsn: position.lsn,
                }
            } else {
                AT_THE_FIRST_RECORD
            };
            self.file(disk, identity, number, last == Some(number), begin)?;
        }
        for known in &checkpoint.superblocks {
            if let Some(superblock) = self.into.superblocks.get(known.number) {
                superblock.put_milestones_first(&known.milestones);
            }
        }
        Ok(())
    }
}

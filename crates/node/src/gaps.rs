//! What this node may have held and cannot tell: superblocks that were lost, or could not be read when it started.
//!
//! "Not here" would be a guess then, and whoever hears it may think the chunk gone for good. Of superblocks from before
//! the directory was adopted it is none: what they held was placed on a disk that is no more, and not on this one.

use vstack_engine::{Damage, OpenReport};

/// Known since the start, and until the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// Numbers, in order.
    pub superblocks: Vec<u32>,
    /// The disk did not give something, perhaps not even in which superblock.
    unreadable: bool,
}

impl Gaps {
    pub(crate) fn of(report: &OpenReport) -> Self {
        let number = |damage: &Damage| match damage {
            Damage::Superblock { number } => Some(*number),
            Damage::Stretch { superblock, .. } if report.unreadable => Some(*superblock),
            _ => None,
        };
        let own = |number: &u32| *number >= report.first_superblock;
        let mut superblocks: Vec<u32> = report.damage.iter().filter_map(number).filter(own).collect();
        superblocks.sort_unstable();
        superblocks.dedup();
        Self {
            superblocks,
            unreadable: report.unreadable,
        }
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.unreadable || !self.superblocks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_counts_when_the_disk_did_not_give_it() {
        let stretch = |superblock| Damage::Stretch {
            superblock,
            from: 8192,
            to: 12_288,
        };
        let mut report = OpenReport {
            damage: vec![stretch(4), Damage::Superblock { number: 2 }, Damage::Head { number: 1 }],
            ..OpenReport::default()
        };
        assert_eq!(Gaps::of(&report).superblocks, [2]);
        report.unreadable = true;
        assert_eq!(Gaps::of(&report).superblocks, [2, 4]);
        assert!(Gaps::of(&report).any() && !Gaps::of(&OpenReport::default()).any());
    }

    #[test]
    fn a_superblock_of_a_name_given_up_is_none() {
        let of = |first_superblock, unreadable| {
            Gaps::of(&OpenReport {
                damage: vec![Damage::Superblock { number: 2 }, Damage::Superblock { number: 3 }],
                first_superblock,
                unreadable,
                ..OpenReport::default()
            })
        };
        assert_eq!(of(2, false).superblocks, [2, 3]);
        assert_eq!(of(3, false).superblocks, [3]);
        assert!(of(3, false).any() && !of(4, false).any());
        assert!(of(4, true).any(), "the disk may still give it");
    }
}

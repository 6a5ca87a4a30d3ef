//! Why a chunk is mended, for people: which of its nodes has what to do with it; and in one word, for metrics.

use vstack_types::NodeRef;
use vstack_upkeep::{
    census::{Census, Row, Seat},
    plan::Job,
    standing::Seen,
};

use super::{Attendance, Purpose};

/// What is the matter at a node. The gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    Lost,
    Gone,
    LostVotes,
    Harmed,
    Missing,
    NoneOfIt,
    NotTaken,
    Leaves,
    Differs,
}

impl Matter {
    /// What it is, after the name of the node.
    const fn text(self) -> &'static str {
        match self {
            Self::Lost => "is lost for good",
            Self::Gone => "does not come back",
            Self::LostVotes => "lost its votes",
            Self::Harmed => "has a harmed copy",
            Self::Missing => "lacks its copy",
            Self::NoneOfIt => "has a shard that is none of it",
            Self::NotTaken => "did not take its copy again",
            Self::Leaves => "is to go",
            Self::Differs => "says something else of it",
        }
    }
}

/// Nodes, each with what is the matter there. Nothing is where nodes are only evened out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reason(Vec<(NodeRef, Matter)>);

impl Reason {
    /// Of what is to be done about `row`, while these nodes are to go.
    pub(super) fn of(
        job: &Job,
        (census, row): (&Census, &Row),
        attendance: &Attendance,
        is_to_go: impl Fn(NodeRef) -> bool,
    ) -> Self {
        let mut reason = Self::default();
        for item in &row.items {
            let Some(node) = census.node(item.node) else { continue };
            let is_kept = |to: &[NodeRef]| to.contains(&node);
            let matter = match job {
                Job::Read { differing } => differing.contains(&node).then_some(Matter::Differs),
                Job::Restore { node: at, tag } if *at == node && item.tag == *tag => match item.seen {
                    Seen::Damaged => Some(Matter::Harmed),
                    _ => Some(Matter::Missing),
                },
                Job::Correct { .. } if item.seen == Seen::Wrong => Some(Matter::NoneOfIt),
                Job::Move { to } if is_kept(to) => None,
                Job::Move { .. } | Job::Salvage | Job::TurnBack if attendance.lost.contains(&node) => {
                    Some(Matter::Lost)
                }
                Job::Move { .. } | Job::TurnBack if attendance.gone.contains(&node) => Some(Matter::Gone),
                Job::Move { .. } if is_to_go(node) => Some(Matter::Leaves),
                Job::Move { .. } | Job::Salvage if item.seat == Seat::Abstains => Some(Matter::LostVotes),
                Job::Move { .. } | Job::TurnBack if item.seen != Seen::Whole => Some(Matter::NotTaken),
                _ => None,
            };
            let matter = matter.map(|matter| (node, matter));
            if let Some(new) = matter.filter(|new| !reason.0.contains(new)) {
                reason.0.push(new);
            }
        }
        reason
    }

    /// With nodes as `label` calls them.
    pub(crate) fn text(&self, label: impl Fn(NodeRef) -> String) -> String {
        let each = self
            .0
            .iter()
            .map(|(node, matter)| format!("{} {}", label(*node), matter.text()));
        each.collect::<Vec<_>>().join(", ")
    }

    /// In one word, of the gravest: there are few, whatever there is to be mended.
    pub(super) fn word(&self, purpose: Purpose) -> &'static str {
        let gravest = self.0.iter().map(|(_, matter)| *matter).min();
        match (purpose, gravest) {
            (Purpose::EvensOut, _) => "uneven",
            (Purpose::Migrates, _) => "form",
            (Purpose::Mends, Some(Matter::Lost)) => "lost",
            (Purpose::Mends, Some(Matter::Gone)) => "gone",
            (Purpose::Mends, Some(Matter::LostVotes)) => "lost_votes",
            (Purpose::Mends, Some(Matter::Harmed)) => "damaged",
            (Purpose::Mends, Some(Matter::Missing)) => "missing",
            (Purpose::Mends, Some(Matter::NoneOfIt)) => "wrong",
            (Purpose::Mends, Some(Matter::NotTaken)) => "not_taken",
            (Purpose::Mends, Some(Matter::Leaves)) => "leaves",
            (Purpose::Mends, Some(Matter::Differs)) => "differs",
            (Purpose::Mends, None) => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    #[test]
    fn a_repair_has_one_word_for_its_reason_that_of_the_gravest() {
        let node = |n: u8| NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let reason = Reason(vec![
            (node(1), Matter::Leaves),
            (node(2), Matter::Gone),
            (node(3), Matter::NotTaken),
        ]);
        assert_eq!(reason.word(Purpose::Mends), "gone");
        assert_eq!(reason.word(Purpose::EvensOut), "uneven");
        assert_eq!(reason.word(Purpose::Migrates), "form");
        assert_eq!(Reason::default().word(Purpose::Mends), "other");
        let text = reason.text(|node| node.uuid.to_string()[..2].to_owned());
        assert_eq!(
            text,
            "01 is to go, 02 does not come back, 03 did not take its copy again"
        );
    }
}

//! Why a chunk is mended, for people: which of its nodes has what to do with it.

use vstack_types::NodeRef;
use vstack_upkeep::{
    census::{Census, Row, Seat},
    plan::Job,
    standing::Seen,
};

use super::Attendance;

/// Nodes, each with what is the matter there. Nothing is where nodes are only evened out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reason(Vec<(NodeRef, &'static str)>);

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
                Job::Read { differing } => differing.contains(&node).then_some("says something else of it"),
                Job::Restore { node: at, tag } if *at == node && item.tag == *tag => match item.seen {
                    Seen::Damaged => Some("has a harmed copy"),
                    _ => Some("lacks its copy"),
                },
                Job::Correct { .. } if item.seen == Seen::Wrong => Some("has a shard that is none of it"),
                Job::Move { to } if is_kept(to) => None,
                Job::Move { .. } | Job::Salvage | Job::TurnBack if attendance.lost.contains(&node) => {
                    Some("is lost for good")
                }
                Job::Move { .. } | Job::TurnBack if attendance.gone.contains(&node) => Some("does not come back"),
                Job::Move { .. } if is_to_go(node) => Some("is to go"),
                Job::Move { .. } | Job::Salvage if item.seat == Seat::Abstains => Some("lost its votes"),
                Job::Move { .. } | Job::TurnBack if item.seen != Seen::Whole => Some("did not take its copy again"),
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
        let each = self.0.iter().map(|(node, matter)| format!("{} {matter}", label(*node)));
        each.collect::<Vec<_>>().join(", ")
    }
}

//! Which nodes can be given chunks now, and why others cannot.

use std::fmt;

use vstack_types::{NodeRef, limits::DISK_PERCENT_WARNING};

use crate::group::{Candidate, Liveness, latest};

/// Why a node is given nothing that is made anew or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It did not prove that it belongs to the cluster.
    Untrusted,
    /// It is being emptied, or its disk votes no more.
    Leaving,
    /// It was not heard of lately, or nothing is expected of it any more.
    Silent,
    /// Its disk is nearly full: it would be full before the next one is there.
    NearlyFull,
}

impl Candidate {
    /// Why it is given nothing that is made anew or moved; none when it can take chunks. A first group is less choosy: an
    /// upload does not wait.
    pub fn obstacle(&self) -> Option<Obstacle> {
        if !self.trusted {
            Some(Obstacle::Untrusted)
        } else if self.leaving {
            Some(Obstacle::Leaving)
        } else if self.liveness != Liveness::Healthy {
            Some(Obstacle::Silent)
        } else if self.disk_percent < DISK_PERCENT_WARNING {
            None
        } else {
            Some(Obstacle::NearlyFull)
        }
    }
}

/// How many nodes can be given chunks, and why others cannot, each counted once. Who never proved to belong to the cluster
/// is none of them. Displays as part of a sentence, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Takers {
    /// These can.
    pub able: usize,
    /// These are being emptied.
    pub leaving: usize,
    /// Of these nothing is heard.
    pub silent: usize,
    /// The disks of these have hardly any room left.
    pub nearly_full: usize,
}

impl Takers {
    /// Of these, of which nothing is expected of those that are `gone`.
    pub fn of(candidates: &[Candidate], gone: &[NodeRef]) -> Self {
        let mut takers = Self::default();
        for candidate in latest(candidates) {
            let is_gone = gone.contains(&candidate.node).then_some(Obstacle::Silent);
            let count = match candidate.obstacle().or(is_gone) {
                None => &mut takers.able,
                Some(Obstacle::Leaving) => &mut takers.leaving,
                Some(Obstacle::Silent) => &mut takers.silent,
                Some(Obstacle::NearlyFull) => &mut takers.nearly_full,
                Some(Obstacle::Untrusted) => continue,
            };
            *count += 1;
        }
        takers
    }
}

impl fmt::Display for Takers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            able,
            leaving,
            silent,
            nearly_full,
        } = *self;
        let all = able + leaving + silent + nearly_full;
        let nodes = if all == 1 { "node" } else { "nodes" };
        if able == all {
            return write!(f, "{able} {nodes} can take chunks now");
        }
        let others: Vec<String> = [
            (leaving, "being emptied"),
            (silent, "silent"),
            (nearly_full, "nearly full"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{count} {} {how}", if count == 1 { "is" } else { "are" }))
        .collect();
        write!(f, "{able} of {all} {nodes} can take chunks now ({})", others.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    fn candidate(n: u8) -> Candidate {
        Candidate::healthy(NodeRef::first(NodeUuid::from_bytes([n; 16])))
    }

    #[test]
    fn it_is_said_how_many_can_take_chunks_and_why_others_cannot() {
        let said = |candidates: &[Candidate], gone: &[NodeRef]| Takers::of(candidates, gone).to_string();
        assert_eq!(said(&[], &[]), "0 nodes can take chunks now");
        let mut nodes = vec![candidate(1)];
        assert_eq!(said(&nodes, &[]), "1 node can take chunks now");
        assert_eq!(
            said(&nodes, &[nodes[0].node]),
            "0 of 1 node can take chunks now (1 is silent)"
        );
        nodes.extend((2..=7).map(candidate));
        assert_eq!(said(&nodes, &[]), "7 nodes can take chunks now");
        nodes[1].leaving = true;
        nodes[1].liveness = Liveness::Down;
        nodes[2].liveness = Liveness::Degraded;
        nodes[3].disk_percent = DISK_PERCENT_WARNING;
        nodes[4].disk_percent = 99.0;
        nodes[5].trusted = false;
        assert_eq!(
            said(&nodes, &[nodes[6].node]),
            "1 of 6 nodes can take chunks now (1 is being emptied, 2 are silent, 2 are nearly full)"
        );
    }
}

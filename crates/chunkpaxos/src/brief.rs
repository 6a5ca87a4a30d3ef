//! What a register comes to, in four bytes: by these a million of them are compared without being read.
//!
//! Two registers that differ come to the same once in four thousand million times, so that they agree is no proof;
//! whoever needs one reads the register.

use vstack_types::{Digest, NodeRef};

use crate::{Placement, Register};

/// What a register comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Brief(u32);

impl Brief {
    /// It accepted nothing.
    pub const NOTHING: Self = Self(0);
    /// It knows that the chunk is deleted.
    pub const DELETED: Self = Self(1);
    /// It knows that the chunk is with others now.
    pub const ELSEWHERE: Self = Self(2);
    /// Something it vouched for is lost, or its votes are: it abstains.
    pub const ABSTAINS: Self = Self(3);

    /// As it is sent.
    pub const fn code(self) -> u32 {
        self.0
    }

    /// As it was sent.
    pub const fn from_code(code: u32) -> Self {
        Self(code)
    }

    fn of(decided: bool, placement: &Placement) -> Self {
        let mut bytes = placement.encode();
        bytes.push(u8::from(decided));
        let digest = Digest::of(&bytes);
        let [a, b, c, d, ..] = *digest.as_bytes();
        Self(u32::from_le_bytes([a, b, c, d]).max(Self::ABSTAINS.0 + 1))
    }
}

impl Placement {
    /// What the register of an acceptor comes to that knows this placement to be decided.
    pub fn brief(&self) -> Brief {
        if self.layout.is_deleted() {
            return Brief::DELETED;
        }
        Brief::of(true, self)
    }
}

impl Register {
    /// What it comes to, at `me`. Ballots do not count, nor what was promised.
    pub fn brief(&self, me: NodeRef) -> Brief {
        let Some(vote) = &self.accepted else {
            return if self.damaged { Brief::ABSTAINS } else { Brief::NOTHING };
        };
        // Who forgot votes may be told all the same that nothing is expected here any more.
        if self.decided && vote.placement.layout.is_deleted() {
            Brief::DELETED
        } else if self.decided && !vote.placement.names(me) {
            Brief::ELSEWHERE
        } else if self.damaged {
            Brief::ABSTAINS
        } else {
            Brief::of(self.decided, &vote.placement)
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;
    use crate::{Ballot, Layout, Vote};

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn register(layout: Layout, version: u64) -> Register {
        let placement = Placement {
            version,
            size: 3,
            sha256: Digest::of(b"abc"),
            layout,
            prev: None,
            back: false,
        };
        Register {
            promised: None,
            accepted: Some(Vote {
                ballot: Ballot {
                    round: 1,
                    proposer: vstack_types::ProcessUuid::from_bytes([7; 16]),
                },
                placement,
            }),
            decided: true,
            damaged: false,
        }
    }

    #[test]
    fn registers_that_differ_in_what_counts_come_to_different_things() {
        let on = |nodes: &[u8]| Layout::Replicated {
            nodes: nodes.iter().map(|n| node(*n)).collect(),
        };
        let here = register(on(&[1, 2]), 1);
        assert_eq!(here.brief(node(1)), here.accepted.as_ref().unwrap().placement.brief());
        assert_eq!(here.brief(node(1)), here.brief(node(2)));
        assert_eq!(here.brief(node(3)), Brief::ELSEWHERE);
        assert_eq!(Register::default().brief(node(1)), Brief::NOTHING);
        assert_eq!(Register::lost().brief(node(1)), Brief::ABSTAINS);
        let nodes = vec![node(1), node(2)];
        let deleted = register(Layout::Deleted { nodes }, 2);
        assert_eq!([1, 3].map(|n| deleted.brief(node(n))), [Brief::DELETED; 2]);
        let forgot = |register: &Register| Register {
            damaged: true,
            ..register.clone()
        };
        assert_eq!(forgot(&here).brief(node(1)), Brief::ABSTAINS);
        assert_eq!(forgot(&here).brief(node(3)), Brief::ELSEWHERE);
        assert_eq!(forgot(&deleted).brief(node(1)), Brief::DELETED);
        let later = register(on(&[1, 2]), 2);
        let undecided = Register {
            decided: false,
            ..here.clone()
        };
        let other = register(on(&[2, 1]), 1);
        let all = [&here, &later, &undecided, &other].map(|register| register.brief(node(1)));
        for (at, brief) in all.iter().enumerate() {
            assert!(*brief > Brief::ABSTAINS && !all[..at].contains(brief), "{all:?}");
        }
    }
}

//! A state of the model: numbers of real registers, proposers and messages.

use std::fmt;

use crate::names::{Mask, NODES_MAX};

/// Most rivals of a scope.
pub const RIVALS_MAX: usize = 5;

/// No rival yet.
pub const NOT_STARTED: u32 = 0;
/// A rival that is through, gave up or died.
pub const DONE: u32 = 1;

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Standing {
    /// It does.
    #[default]
    Up = 0,
    /// A name not given to any disk yet.
    Unborn = 1,
    /// Its disk is gone for good.
    Gone = 2,
    /// It went back in time and was refused: it learns and serves, and votes no more.
    Abstains = 3,
    /// It is to leave.
    Sealed = 4,
    /// No register names it any more.
    Cleared = 5,
    /// Vote records of it are lost, nobody knows which: it learns and serves, and neither votes nor deletes any more.
    Forgot = 6,
}

/// One node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Node {
    /// Number of its register.
    pub register: u16,
    /// Items it has, verified.
    pub items: u8,
    /// Whether it takes part.
    pub standing: Standing,
    /// A copy of its disk: register and items.
    pub old: Option<(u16, u8)>,
    /// Items that a fault took and that did not come back.
    pub taken: u8,
    /// It accepted or was told of something in a higher ballot than its register now says.
    pub knew_later: bool,
}

/// A decided placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decision {
    /// Its number.
    pub value: u16,
    /// The lowest ballot that decided it, as [`crate::names::rank`] has it.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

impl Decision {
    /// Whether a majority in the ballot of this rank would be news.
    pub const fn lacks(&self, rank: u16) -> bool {
        rank < self.lowest || rank > self.highest
    }
}

/// Of a rival that cannot settle anything.
pub const SETTLES_NOTHING: Mask = Mask::MAX;

/// A message that was sent, for ever deliverable where it may still matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mail {
    /// Number of the request.
    pub request: u16,
    /// To whom it may still be delivered.
    pub to: Mask,
    /// Who answered it with `Accepted`; forgotten once its value is decided.
    pub voters: Mask,
}

/// What happened and bounds what else may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Spent {
    /// Faults that took a copy.
    pub faults: u8,
    /// Nodes that began to leave.
    pub leaving: u8,
    /// Disks were copied.
    pub copied: bool,
    /// Stray bytes were stored.
    pub strayed: bool,
    /// A new group began.
    pub regrouped: bool,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// By number; those beyond the scope's are default.
    pub nodes: [Node; NODES_MAX],
    /// Numbers of proposers, [`NOT_STARTED`] or [`DONE`].
    pub rivals: [u32; RIVALS_MAX],
    /// Sorted by request.
    pub mail: Vec<Mail>,
    /// The decided placements, oldest first.
    pub chain: Vec<Decision>,
    /// Nodes that had lost something when this rival began, if it wishes to settle; else [`SETTLES_NOTHING`].
    pub settles_without: [Mask; RIVALS_MAX],
    /// Settled placements for which it was counted who holds what when these nodes had lost something already: they
    /// are no excuse for it. Sorted.
    pub counted_without: Vec<(u16, Mask)>,
    /// Bounds.
    pub spent: Spent,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl State {
    /// The bytes that tell it from every other state of the same search.
    pub fn write(&self, nodes: usize, out: &mut Vec<u8>) {
        out.clear();
        for node in &self.nodes[..nodes] {
            out.extend_from_slice(&node.register.to_le_bytes());
            out.extend_from_slice(&[node.items, node.standing as u8]);
            match node.old {
                None => out.push(0),
                Some((register, items)) => {
                    out.push(1);
                    out.extend_from_slice(&register.to_le_bytes());
                    out.push(items);
                }
            }
            out.extend_from_slice(&[node.taken, u8::from(node.knew_later)]);
        }
        for rival in self.rivals {
            out.extend_from_slice(&rival.to_le_bytes());
        }
        let spent = &self.spent;
        out.extend_from_slice(&[
            spent.faults,
            spent.leaving,
            u8::from(spent.copied) | u8::from(spent.strayed) << 1 | u8::from(spent.regrouped) << 2,
        ]);
        out.push(u8::try_from(self.chain.len()).unwrap_or(u8::MAX));
        for decision in &self.chain {
            for number in [decision.value, decision.lowest, decision.highest] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.settles_without);
        out.push(u8::try_from(self.counted_without.len()).unwrap_or(u8::MAX));
        for (value, without) in &self.counted_without {
            out.extend_from_slice(&value.to_le_bytes());
            out.push(*without);
        }
        for mail in &self.mail {
            out.extend_from_slice(&mail.request.to_le_bytes());
            out.extend_from_slice(&[mail.to, mail.voters]);
        }
    }

    /// The number of the last decision.
    pub fn latest(&self) -> Option<u16> {
        self.chain.last().map(|decision| decision.value)
    }

    /// Where in the chain this placement is.
    pub fn decided(&self, value: u16) -> Option<usize> {
        self.chain.iter().position(|decision| decision.value == value)
    }

    /// Nodes that a fault took something from.
    pub fn harmed(&self) -> Mask {
        (0u8..)
            .zip(&self.nodes)
            .filter(|(_, node)| node.taken != 0)
            .fold(0, |mask, (n, _)| mask | crate::names::bit(n))
    }

    /// Who is reachable and has a disk.
    pub fn present(&self, n: u8) -> bool {
        !matches!(self.nodes[usize::from(n)].standing, Standing::Unborn | Standing::Gone)
    }
}

//! One thing that may happen.

use std::fmt;

use crate::{machines::Kind, names, scope::Wish, world::World};

/// One thing that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A message is heard, and its reply too if a rival waits for it.
    Deliver {
        /// Number of the request.
        request: u16,
        /// By whom.
        node: u8,
        /// Who gets the reply.
        rival: Option<u8>,
    },
    /// A rival starts, and its first message is heard. Before, it might as well not exist.
    Start {
        /// Which.
        rival: u8,
        /// With what.
        wish: Wish,
        /// The placement it learned before, by number.
        knowing: Option<u16>,
        /// By whom.
        node: u8,
    },
    /// A rival waits no longer.
    Silence {
        /// Which.
        rival: u8,
    },
    /// A node deletes an item that it may delete.
    Delete {
        /// Which node.
        node: u8,
        /// Which item.
        item: u8,
    },
    /// A disk is lost.
    LoseDisk(u8),
    /// An item rots, and the scrub finds it.
    Rot {
        /// Which node.
        node: u8,
        /// Which item.
        item: u8,
    },
    /// What a node lost is brought back to it.
    Restore(u8),
    /// Both copies of a vote record are lost.
    LoseVotes(u8),
    /// What a node's vote record says now is what will be left of it.
    Remember(u8),
    /// The newer ones are lost in both places.
    LoseNewestVotes(u8),
    /// A disk is copied.
    Copy(u8),
    /// The copy is put in the disk's place.
    PutBack(u8),
    /// A disk that may not vote is adopted under a new name, bytes and no votes.
    Adopt(u8),
    /// A node that no register names is sealed.
    Seal(u8),
    /// It is looked for again, and not found.
    Clear(u8),
    /// It is wiped.
    Wipe(u8),
    /// A client stores other bytes under the same id.
    Stray(u8),
    /// Later chunks get another group.
    Regroup,
    /// Planted: a node forgets a deletion.
    Forget(u8),
}

/// A step with what it refers to.
pub struct Shown<'a>(pub &'a Step, pub &'a World);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, world) = *self;
        match *step {
            Step::Deliver { request, node, rival } => {
                let parts = world.machines.parts(request);
                let value = parts.value.map(|value| names::show(world.machines.values.get(value)));
                let kind = match parts.kind {
                    Kind::Put0 => "put",
                    Kind::Prepare => "prepare",
                    Kind::Accept => "accept",
                    Kind::Decided => "decided",
                };
                let ballot = names::show_ballot(parts.ballot);
                let value = value.unwrap_or_default();
                let heard = if rival.is_some() { "" } else { " (no reply heard)" };
                write!(f, "n{} hears {kind}({ballot}) {value}{heard}", node + 1)
            }
            Step::Start {
                rival,
                wish,
                knowing,
                node,
            } => {
                let told = knowing.map(|value| format!(" told of {}", names::show(world.machines.values.get(value))));
                let (told, rival, node) = (told.unwrap_or_default(), rival + 1, node + 1);
                write!(f, "rival {rival} starts to {wish:?}{told}; n{node} hears its prepare")
            }
            Step::Silence { rival } => write!(f, "rival {} waits no longer", rival + 1),
            Step::Delete { node, item } => write!(f, "n{} deletes {}", node + 1, item_name(item)),
            Step::LoseDisk(n) => write!(f, "the disk of n{} is lost", n + 1),
            Step::Rot { node, item } => write!(f, "{} rots on n{}", item_name(item), node + 1),
            Step::Restore(n) => write!(f, "n{} is given back what it lost", n + 1),
            Step::LoseVotes(n) => write!(f, "n{} loses its vote records in both places", n + 1),
            Step::Remember(n) => write!(f, "n{} writes what will be left of its vote record", n + 1),
            Step::LoseNewestVotes(n) => write!(f, "n{} loses the newest vote records in both places", n + 1),
            Step::Copy(n) => write!(f, "the disk of n{} is copied", n + 1),
            Step::PutBack(n) => write!(f, "the copy takes the place of n{}'s disk", n + 1),
            Step::Adopt(n) => write!(f, "n{}'s bytes are adopted under a new name", n + 1),
            Step::Seal(n) => write!(f, "n{} is sealed", n + 1),
            Step::Clear(n) => write!(f, "the second census finds n{} nowhere", n + 1),
            Step::Wipe(n) => write!(f, "n{} is wiped", n + 1),
            Step::Stray(n) => write!(f, "a client stores Y on n{}", n + 1),
            Step::Regroup => write!(f, "a new group begins with the next chunk"),
            Step::Forget(n) => write!(f, "n{} forgets the deletion", n + 1),
        }
    }
}

fn item_name(item: u8) -> String {
    match item {
        names::X => "X".into(),
        names::Y => "Y".into(),
        shard => format!("shard {}", shard - names::SHARD),
    }
}

//! What must always hold, said without the protocol's code.

use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::planted;

use crate::{
    names::{self, Mask, bit, index},
    state::State,
};

/// The promises of `docs/chunk-paxos.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A ballot carries one value.
    OneValue,
    /// One chain of decided placements, each made from the one before.
    A1OneChain,
    /// What is decided can be read, and when settled also after one more lost disk.
    A2Readable,
    /// Nobody deletes what the current decision names and he vouched for or was told of.
    A3NotDeleted,
    /// Nothing is decided after a deletion.
    A4Tombstone,
    /// Nobody is told of a decision that is none; a reader never gets an older one.
    A5Learner,
    /// One proposer with the needed majorities finishes.
    A6Finishes,
    /// Who is to leave gives no vote that would leave with him.
    Sealed,
    /// What a node promised, accepted and answered stays true of it while it votes.
    Forward,
}

impl Rule {
    /// As in the document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneValue => "one value a ballot",
            Self::A1OneChain => "A1 one chain",
            Self::A2Readable => "A2 readable",
            Self::A3NotDeleted => "A3 not deleted",
            Self::A4Tombstone => "A4 tombstone",
            Self::A5Learner => "A5 learner",
            Self::A6Finishes => "A6 finishes",
            Self::Sealed => "sealed nodes do not vote",
            Self::Forward => "registers go forward",
        }
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self {
            rule,
            what: what.into(),
        }
    }
}

/// Whether `next` may be decided when `latest` is the last decision.
///
/// # Errors
/// What they would break.
pub fn may_follow(latest: Option<&Placement>, next: &Placement, begun_coded: bool) -> Result<(), Violation> {
    let broken = |rule| {
        let from = latest.map_or_else(|| "nothing".into(), names::show);
        Err(Violation::new(
            rule,
            format!("{} is decided after {from}", names::show(next)),
        ))
    };
    let Some(latest) = latest else {
        // A coded first version may be given up without ever having been decided.
        let given_up = begun_coded && next.version == 2 && next.prev.is_none() && next.layout.is_deleted();
        let first = next.version == 1 && next.prev.as_ref().is_none_or(Layout::is_nothing);
        return if first || given_up {
            Ok(())
        } else {
            broken(Rule::A1OneChain)
        };
    };
    if latest.layout.is_deleted() && latest.prev.is_none() {
        return broken(Rule::A4Tombstone);
    }
    let same_nodes = || next.layout.nodes() == latest.layout.nodes();
    let step = match (&latest.prev, &next.prev) {
        // Nor does a fault show that changes acceptors in one step, if the step is unlawful by itself.
        (None, None) if planted!("acceptors change without a joint, on what is undecided") => true,
        (None, None) => next.layout.is_deleted() && same_nodes(),
        (None, Some(prev)) => *prev == latest.layout && !next.back,
        (Some(old), None) if old.is_nothing() && next.layout.is_deleted() => same_nodes(),
        // Were this lawful, two chains would grow from it: that is what the fault has to show.
        (Some(old), None) if next.layout == *old && planted!("a joint is cancelled straight to the old set") => true,
        (Some(_), None) => next.layout == latest.layout,
        (Some(old), Some(prev)) => next.back && !latest.back && next.layout == *old && *prev == latest.layout,
    };
    let same_chunk = next.sha256 == latest.sha256 && next.size == latest.size;
    if step && same_chunk && next.version == latest.version + 1 {
        Ok(())
    } else {
        broken(Rule::A1OneChain)
    }
}

/// Whether the bytes can be had from the nodes that one of its layouts names, without those in `without`.
pub fn readable(state: &State, placement: &Placement, without: Mask) -> bool {
    let has = |n: u8, item: u8| {
        without & bit(n) == 0 && state.present(n) && state.nodes[usize::from(n)].items & bit(item) != 0
    };
    let whole = || names::item(placement.sha256);
    std::iter::once(&placement.layout)
        .chain(&placement.prev)
        .any(|layout| match layout {
            Layout::Deleted { nodes } => !nodes.is_empty(),
            Layout::Replicated { nodes } => nodes.iter().any(|node| has(index(*node), whole())),
            Layout::Coded { data, shards, .. } => {
                let here = |shard: &&vstack_chunkpaxos::Shard| has(index(shard.node), names::item(shard.sha256));
                shards.iter().filter(here).count() >= usize::from(*data)
            }
        })
}

/// How many of the nodes that hold it may be lost: of copies all but one of a majority, of shards one. While joint it
/// is the old half that is whole.
pub fn may_lose(placement: &Placement) -> usize {
    let whole = match &placement.prev {
        Some(prev) if !placement.back && !prev.is_nothing() => prev,
        _ => &placement.layout,
    };
    match whole {
        Layout::Replicated { nodes } | Layout::Deleted { nodes } => nodes.len() / 2,
        Layout::Coded { .. } => 1,
    }
}

/// A2 for the last decision, of which `lost` nodes lost what it names for them. Nobody was told of a coded first version
/// before it is settled.
///
/// # Errors
/// When it cannot be read, or could not if as many more were lost as it has to bear.
pub fn check_readable(state: &State, current: &Placement, nodes: u8, lost: usize) -> Result<(), Violation> {
    if current.is_first_coded() && !planted!("a coded first version is acknowledged before it is settled") {
        return Ok(());
    }
    let Some(more) = may_lose(current).checked_sub(lost) else {
        return Ok(());
    };
    let losses = (0..=u8::MAX >> (8 - nodes)).filter(|without| without.count_ones() as usize == more);
    for without in losses {
        if !readable(state, current, without) {
            let lost: Vec<_> = names::members(without).map(|n| (n + 1).to_string()).collect();
            let after = match lost.is_empty() {
                true => String::new(),
                false => format!(" once node {} is lost", lost.join(" and ")),
            };
            let what = format!("{} cannot be read{after}", names::show(current));
            return Err(Violation::new(Rule::A2Readable, what));
        }
    }
    Ok(())
}

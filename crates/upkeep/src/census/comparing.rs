//! What is expected of a node beside what it holds, both in the order of its fingerprints.

use std::collections::BTreeSet;

use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted};
use vstack_chunkpaxos::Brief;
use vstack_types::planted;

use super::rows::{Item, Seat};
use crate::standing::Seen;

/// Something that is placed at the node that holds it, and that nobody expects there: of a video that is gone, or placed
/// by a decision that nobody told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stranger {
    /// An item.
    Item(HeldItem),
    /// A register.
    Register(HeldRegister),
}

impl Stranger {
    /// Of its chunk, as its node makes them.
    pub const fn fingerprint(self) -> u64 {
        match self {
            Self::Item(item) => item.fingerprint,
            Self::Register(register) => register.fingerprint,
        }
    }
}

/// Something that is expected of a node, and where it is noted what was seen.
pub(super) struct Expected<'a> {
    pub fingerprint: u64,
    pub brief: Brief,
    /// It was learned just now.
    pub young: bool,
    pub item: &'a mut Item,
}

/// What comparing came to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// What nobody expects, by fingerprint.
    pub strangers: Vec<Stranger>,
    /// Buckets of items of which it is not known yet whether they are there, or what their registers say.
    pub late: BTreeSet<u16>,
    /// Something was seen otherwise than before.
    pub is_news: bool,
}

fn seen(expected: &[Expected<'_>]) -> Vec<(Seen, Seat)> {
    expected.iter().map(|one| (one.item.seen, one.item.seat)).collect()
}

/// Notes of all that is expected what is held of it. `holdings` are sorted, and of the same fingerprints.
pub(super) fn compare(mut expected: Vec<Expected<'_>>, holdings: &Holdings) -> Compared {
    expected.sort_unstable_by_key(|one| (one.fingerprint, one.item.tag));
    let before = seen(&expected);
    let mut strangers = count_items(&mut expected, &holdings.items);
    strangers.extend(count_registers(&mut expected, &holdings.registers));
    strangers.sort_by_key(|stranger| (stranger.fingerprint(), *stranger));
    let is_late = |one: &&Expected<'_>| one.item.seen == Seen::NotCounted || one.item.seat == Seat::NotCounted;
    Compared {
        strangers,
        late: expected.iter().filter(is_late).map(|one| one.item.bucket).collect(),
        is_news: seen(&expected) != before,
    }
}

fn count_items(expected: &mut [Expected<'_>], held: &[HeldItem]) -> Vec<Stranger> {
    let mut strangers = Vec::new();
    let mut held = held.iter().copied().peekable();
    let mut last: Option<((u64, u32), Seen)> = None;
    for one in expected {
        let key = (one.fingerprint, one.item.tag);
        // Shards that are alike are one item of their node.
        if let Some((_, seen)) = last.filter(|(before, _)| *before == key) {
            one.item.seen = one.item.seen.then(seen);
            continue;
        }
        while let Some(before) = held.next_if(|item| (item.fingerprint, item.tag) < key) {
            strangers.extend(stranger(before));
        }
        let seen = match held.next_if(|item| (item.fingerprint, item.tag) == key) {
            Some(item) if item.damaged && !planted!("a damaged copy counts as a whole one") => Seen::Damaged,
            Some(_) => Seen::Whole,
            None if one.young => Seen::NotCounted,
            None => Seen::Absent,
        };
        one.item.seen = one.item.seen.then(seen);
        last = Some((key, seen));
    }
    strangers.extend(held.filter_map(stranger));
    strangers
}

/// What waits for a vote, and what is to be collected, is its node's own affair.
fn stranger(item: HeldItem) -> Option<Stranger> {
    (item.wanted == Wanted::Placed).then_some(Stranger::Item(item))
}

/// A node has one register of a chunk, however many items of it.
fn count_registers(expected: &mut [Expected<'_>], held: &[HeldRegister]) -> Vec<Stranger> {
    let mut strangers = Vec::new();
    let mut held = held.iter().copied().peekable();
    let mut last: Option<(u64, Seat)> = None;
    for one in expected {
        while let Some(before) = held.next_if(|register| register.fingerprint < one.fingerprint) {
            strangers.extend(strange(before));
        }
        let again = last.filter(|(fingerprint, _)| *fingerprint == one.fingerprint);
        one.item.seat = match (again, held.next_if(|register| register.fingerprint == one.fingerprint)) {
            (Some((_, seat)), _) => seat,
            (None, Some(register)) if register.brief == one.brief => Seat::Agrees,
            (None, Some(register)) if register.brief == Brief::ABSTAINS => Seat::Abstains,
            (None, _) if one.young => Seat::NotCounted,
            (None, Some(_)) if planted!("a register that says something else counts as agreeing") => Seat::Agrees,
            (None, Some(_)) => Seat::Differs,
            (None, None) => Seat::Empty,
        };
        last = Some((one.fingerprint, one.item.seat));
    }
    strangers.extend(held.filter_map(strange));
    strangers
}

/// Registers are kept for ever. One that says nothing, or that the chunk is gone or with others, is only remembered.
fn strange(register: HeldRegister) -> Option<Stranger> {
    let remembered = [Brief::NOTHING, Brief::DELETED, Brief::ELSEWHERE];
    (!remembered.contains(&register.brief)).then_some(Stranger::Register(register))
}

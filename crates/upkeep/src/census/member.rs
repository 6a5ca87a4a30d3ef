//! What is known of one node: how much is expected of it, what it has to be asked for, and what it holds besides.
//!
//! Which buckets of a node's fingerprints an item is in is known under the node's key alone, and that from the first whole
//! count on. From then on everything that becomes expected there, or is to be counted again, puts its bucket among those
//! that are due; a count takes out those that it was told of, unless something came behind the question.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use vstack_api::holdings::{Buckets, Told, bucket_of};
use vstack_types::{ChunkId, FingerprintKey, NodeRef};

use super::comparing::Stranger;

/// What a node is to be asked for.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// Buckets that are to be told whether or not anything changed in them.
    pub due: Buckets,
    /// The key that those are by. None where the node was not counted under any: then everything is to be told.
    pub key: Option<FingerprintKey>,
    /// How much was noted by then.
    pub(super) noted: u64,
}

/// A node that is expected to hold something, or was counted.
#[derive(Debug)]
pub(super) struct Member {
    pub node: NodeRef,
    /// When something was last learned that concerns it.
    pub learned: u64,
    /// Items that are expected of it.
    pub expected: u64,
    /// By which the buckets of all its items are known.
    key: Option<FingerprintKey>,
    /// When something was last noted of it, by the census' own count of notes.
    noted: u64,
    /// Buckets that are due, and when that was noted last.
    due: BTreeMap<u16, u64>,
    /// What it holds and nobody expects, in order.
    strangers: Vec<Stranger>,
}

impl Member {
    pub fn new(node: NodeRef) -> Self {
        Self {
            node,
            learned: 0,
            expected: 0,
            key: None,
            noted: 0,
            due: BTreeMap::new(),
            strangers: Vec::new(),
        }
    }

    /// The bucket of a chunk there. None in particular as long as the key is not known: the count that makes it known
    /// finds it.
    pub fn bucket(&self, id: &ChunkId) -> u16 {
        self.key.map_or(0, |key| bucket_of(key.of(id)))
    }

    /// Something in a bucket is to be counted, whether or not anything changes there.
    pub fn note(&mut self, bucket: u16, at: u64) {
        self.noted = at;
        if self.key.is_some() {
            self.due.insert(bucket, at);
        }
    }

    /// Nothing that was counted of it is known any more.
    pub fn forget(&mut self, at: u64) {
        self.noted = at;
        self.key = None;
        self.due.clear();
        self.strangers.clear();
    }

    pub fn asking(&self, noted: u64) -> Asking {
        Asking {
            due: self.due.keys().copied().collect(),
            key: self.key,
            noted,
        }
    }

    pub fn has_uncounted(&self) -> bool {
        match self.key {
            Some(_) => !self.due.is_empty(),
            None => self.expected > 0,
        }
    }

    pub fn strangers(&self) -> &[Stranger] {
        &self.strangers
    }

    /// Whether what was told under `key` can be compared with what is known.
    pub fn can_take(&self, told: &Told, key: FingerprintKey) -> bool {
        match told {
            Told::Everything => true,
            Told::Buckets(_) => self.key == Some(key),
        }
    }

    /// It was counted, by what it told of when it was asked at `asked`: these are strangers of that, sorted, and `late`
    /// holds what is not known yet. Says whether there are other strangers than before.
    pub fn counted(
        &mut self,
        told: &Told,
        key: FingerprintKey,
        asked: u64,
        strangers: Vec<Stranger>,
        late: &BTreeSet<u16>,
    ) -> bool {
        let is_news = match told {
            Told::Everything => {
                if self.key == Some(key) {
                    self.due.retain(|_, noted| *noted > asked);
                } else {
                    // What was noted behind the question is in buckets of another key, or in none: everything is asked for
                    // once more.
                    self.due.clear();
                    self.key = (self.noted <= asked).then_some(key);
                }
                let is_news = self.strangers != strangers;
                self.strangers = strangers;
                is_news
            }
            Told::Buckets(buckets) => {
                self.due.retain(|bucket, noted| *noted > asked || !buckets.has(*bucket));
                let is_told = |stranger: &Stranger| told.has(stranger.fingerprint());
                let (before, others): (Vec<_>, Vec<_>) = mem::take(&mut self.strangers).into_iter().partition(is_told);
                let is_news = before != strangers;
                self.strangers = others;
                self.strangers.extend(strangers);
                self.strangers
                    .sort_by_key(|stranger| (stranger.fingerprint(), *stranger));
                is_news
            }
        };
        if self.key.is_some() {
            for bucket in late {
                self.due.entry(*bucket).or_insert(asked);
            }
        }
        is_news
    }
}

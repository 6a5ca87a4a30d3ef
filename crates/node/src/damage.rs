//! What the metadata service is told of damaged chunks, and what it has heard already. No I/O.
//!
//! It hears a little with every sign of life, until it has heard all. Each process begins anew, so that whatever got lost
//! between two of them is made up for.

use std::collections::BTreeSet;

use vstack_api::metadata::{DamageTold, DamagedChunk, TOLD_CHUNKS_MAX};
use vstack_types::{ChunkId, Digest};

/// Chunks kept track of; of more than these only the number is told.
pub(crate) const TRACKED_MAX: usize = 10_000;

type Chunks = BTreeSet<(ChunkId, Digest)>;

/// What was heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// None until something was.
    chunks: Option<Chunks>,
}

fn told<'a>(chunks: impl Iterator<Item = &'a (ChunkId, Digest)>, max: usize) -> Vec<DamagedChunk> {
    let some = chunks.take(max).cloned();
    some.map(|(chunk_id, sha256)| DamagedChunk { chunk_id, sha256 })
        .collect()
}

impl Heard {
    /// What is to be told next, when `damaged` are; `all` says whether there are no more. None when everything was heard.
    pub(crate) fn next(&self, damaged: &Chunks, all: bool) -> Option<DamageTold> {
        let Some(heard) = &self.chunks else {
            return Some(DamageTold {
                anew: true,
                damaged: told(damaged.iter(), TOLD_CHUNKS_MAX),
                whole: Vec::new(),
            });
        };
        let new = told(damaged.difference(heard), TOLD_CHUNKS_MAX);
        let room = if all { TOLD_CHUNKS_MAX - new.len() } else { 0 };
        let whole = told(heard.difference(damaged), room);
        (!new.is_empty() || !whole.is_empty()).then_some(DamageTold {
            anew: false,
            damaged: new,
            whole,
        })
    }

    /// It was heard.
    pub(crate) fn note(&mut self, told: DamageTold) {
        let heard = self.chunks.get_or_insert_default();
        for chunk in told.damaged {
            heard.insert((chunk.chunk_id, chunk.sha256));
        }
        for chunk in told.whole {
            heard.remove(&(chunk.chunk_id, chunk.sha256));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(numbers: std::ops::Range<usize>) -> Chunks {
        let one = |number: usize| {
            let id = format!("c{number:05}");
            let sha256 = Digest::of(id.as_bytes());
            (id.parse().expect("a chunk id"), sha256)
        };
        numbers.map(one).collect()
    }

    /// Tells until all was heard; says how often it took.
    fn tell(heard: &mut Heard, damaged: &Chunks, service: &mut Chunks) -> usize {
        let mut times = 0;
        while let Some(told) = heard.next(damaged, true) {
            assert!(told.damaged.len() + told.whole.len() <= TOLD_CHUNKS_MAX);
            if told.anew {
                service.clear();
            }
            service.extend(told.damaged.iter().map(|one| (one.chunk_id.clone(), one.sha256)));
            for one in &told.whole {
                service.remove(&(one.chunk_id.clone(), one.sha256));
            }
            heard.note(told);
            times += 1;
        }
        times
    }

    #[test]
    fn everything_is_heard_in_the_end_and_whole_chunks_are_forgotten() {
        let mut service = chunks(900..950);
        let mut heard = Heard::default();
        assert_eq!(tell(&mut heard, &Chunks::new(), &mut service), 1);
        assert!(service.is_empty(), "what an earlier process told is over");
        let many = chunks(0..3 * TOLD_CHUNKS_MAX + 1);
        assert_eq!(tell(&mut heard, &many, &mut service), 4);
        assert_eq!(service, many);
        let fewer = chunks(10..3 * TOLD_CHUNKS_MAX + 5);
        tell(&mut heard, &fewer, &mut service);
        assert_eq!(service, fewer);
        assert_eq!(tell(&mut heard, &fewer, &mut service), 0);
        let mut again = Heard::default();
        assert!(tell(&mut again, &fewer, &mut service) >= 3);
        assert_eq!(service, fewer);
    }

    #[test]
    fn what_is_only_out_of_sight_is_not_called_whole() {
        let mut heard = Heard::default();
        heard.note(heard.next(&chunks(0..5), true).expect("anew"));
        assert_eq!(heard.next(&chunks(0..3), false), None);
        let told = heard.next(&chunks(0..3), true).expect("two are whole");
        assert_eq!((told.damaged.len(), told.whole.len()), (0, 2));
    }
}

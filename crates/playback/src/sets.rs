//! Which sets of shards are tried where some, each as it is listed, do not give their piece: whoever made them was wrong.
//! A pure function, shared with the browser's player through `vectors/sets.json`.

use crate::ShardId;

/// Sets of `needed` shards with different indexes, each with the last of `here`, at most `most`: those without it were tried
/// before it came. The others of a set are chosen in the order of dictionaries, by when they came.
pub fn sets_with_the_last(here: &[ShardId], needed: usize, most: usize) -> Vec<Vec<ShardId>> {
    let Some((last, others)) = here.split_last() else {
        return Vec::new();
    };
    if needed == 0 || most == 0 {
        return Vec::new();
    }
    let mut sets = Sets {
        size: needed,
        most,
        found: Vec::new(),
    };
    sets.fill(&mut vec![*last], others);
    sets.found
}

struct Sets {
    size: usize,
    most: usize,
    found: Vec<Vec<ShardId>>,
}

impl Sets {
    /// Finds those that begin with `chosen` and go on with some of `rest`.
    fn fill(&mut self, chosen: &mut Vec<ShardId>, rest: &[ShardId]) {
        if chosen.len() == self.size {
            self.found.push(chosen.clone());
            return;
        }
        // Without this, twins would have it go through many beginnings that nothing can come of.
        if chosen.len() + indexes(chosen, rest) < self.size {
            return;
        }
        for (at, one) in rest.iter().enumerate() {
            if self.found.len() >= self.most {
                return;
            }
            if chosen.iter().all(|other| other.index != one.index) {
                chosen.push(*one);
                self.fill(chosen, &rest[at + 1..]);
                chosen.pop();
            }
        }
    }
}

/// How many indexes `rest` adds to those of `chosen`.
fn indexes(chosen: &[ShardId], rest: &[ShardId]) -> usize {
    let mut added: Vec<u8> = rest.iter().map(|one| one.index).collect();
    added.retain(|index| chosen.iter().all(|other| other.index != *index));
    added.sort_unstable();
    added.dedup();
    added.len()
}

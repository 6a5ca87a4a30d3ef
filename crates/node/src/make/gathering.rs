//! Gathers shards until some of them give their chunk.
//!
//! Each shard is as it is listed: its SHA-256 is compared, here and where it comes from. That does not make it one of the
//! chunk: whoever made it may have been wrong, and no audit may have come by since. So where as many as are needed do not
//! give the chunk, one further shard is fetched after the other, and those sets are tried that have it, as players do. Were
//! the same few asked for each time, what can be made of the others would never be made.

use std::{slice, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, timeout, timeout_at};
use vstack_api::ErrorCode;
use vstack_client::{NodeClient, ShardAt};
use vstack_erasure::{ReadError, ReedSolomon, Shape, TooFew, read};
use vstack_playback::{ShardId, sets_with_the_last};
use vstack_service::{ApiError, ApiResult, aside};
use vstack_types::{ChunkId, Digest, Hashed};

use super::own;
use crate::{
    app::Shared,
    pull::{HOLDER_TIMEOUT, NEXT_AFTER},
};

/// Sets that are tried at most beside the first, as players do. Each takes some milliseconds.
const OTHER_SETS_MAX: usize = 64;
/// Of the shards that a chunk is read from, as many times are held at once: so what is held and what is made of it fit the
/// place that stands for them, of every code.
const HELD_TIMES: usize = 2;
/// Others are sought no longer than this once the first did not give the chunk, so that whoever waits for it is told.
const OTHERS_WITHIN: Duration = Duration::from_secs(30);

/// The chunk of this size and SHA-256, made of shards out of `of`.
pub(super) async fn gathered(
    app: &Shared,
    id: &ChunkId,
    (size, sha256): (usize, Digest),
    (shape, of): (Shape, &[ShardAt]),
) -> ApiResult<Hashed> {
    let mut sources = Sources {
        app,
        id,
        len: shape.shard_len(size),
        own: of.iter(),
        elsewhere: of.iter(),
        asked: FuturesUnordered::new(),
    };
    let mut here = Here::of(shape);
    let code = Arc::new(ReedSolomon::new(shape));
    let (mut others_until, mut why) = (None, None);
    while !here.is_given_up() {
        let next = sources.next(&here);
        let next = match others_until {
            Some(until) => timeout_at(until, next).await.ok().flatten(),
            None => next.await,
        };
        let Some((shard, bytes)) = next else { break };
        for set in here.add(shard, bytes) {
            let code = Arc::clone(&code);
            let read = aside(move || read(&*code, size, sha256, &set)).await;
            match read.map_err(ApiError::internal)? {
                Ok(chunk) => return Ok(chunk),
                Err(error) => why = Some(error),
            }
            others_until.get_or_insert_with(|| Instant::now() + OTHERS_WITHIN);
        }
    }
    let why = why.unwrap_or_else(|| {
        let (have, need) = (here.indexes(), here.needed);
        ReadError::TooFew(TooFew { have, need })
    });
    if why == ReadError::Digest {
        tracing::warn!(%id, "shards do not give their chunk, though each is as it is listed");
    }
    Err(ApiError::new(ErrorCode::NeedBytes, why.to_string()))
}

/// Shards that came, and how many sets of them may still be tried.
struct Here {
    needed: usize,
    total: usize,
    /// In the order in which they came.
    shards: Vec<(ShardId, Bytes)>,
    sets_left: usize,
}

impl Here {
    fn of(shape: Shape) -> Self {
        Self {
            needed: shape.data().into(),
            total: shape.total(),
            shards: Vec::new(),
            sets_left: 1 + OTHER_SETS_MAX,
        }
    }

    /// Whether this one could be of use.
    fn wants(&self, id: ShardId) -> bool {
        usize::from(id.index) < self.total && self.shards.iter().all(|(here, _)| *here != id)
    }

    /// Places in the code of which there is any shard.
    fn indexes(&self) -> usize {
        let mut indexes: Vec<u8> = self.shards.iter().map(|(id, _)| id.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.len()
    }

    /// Shards without which there is nothing more to try.
    fn missing(&self) -> usize {
        self.needed.saturating_sub(self.indexes()).max(1)
    }

    fn is_given_up(&self) -> bool {
        self.sets_left == 0
    }

    /// One more came: sets to be tried now.
    fn add(&mut self, id: ShardId, bytes: Bytes) -> Vec<Vec<(u8, Bytes)>> {
        if self.shards.len() >= HELD_TIMES * self.needed {
            // All sets with it and those that came until now were tried.
            self.shards.remove(0);
        }
        self.shards.push((id, bytes));
        let ids: Vec<ShardId> = self.shards.iter().map(|(id, _)| *id).collect();
        let sets = sets_with_the_last(&ids, self.needed, self.sets_left);
        self.sets_left -= sets.len();
        let with_bytes = |set: &Vec<ShardId>| -> Vec<(u8, Bytes)> {
            let these = self.shards.iter().filter(|(id, _)| set.contains(id));
            these.map(|(id, bytes)| (id.index, bytes.clone())).collect()
        };
        sets.iter().map(with_bytes).collect()
    }
}

/// Where shards can still be had: those that are here first, then as many others at once as are missing, and one more
/// whenever one fails or is slow.
struct Sources<'a> {
    app: &'a Shared,
    id: &'a ChunkId,
    /// Of a shard, in bytes.
    len: usize,
    own: slice::Iter<'a, ShardAt>,
    elsewhere: slice::Iter<'a, ShardAt>,
    asked: FuturesUnordered<BoxFuture<'static, Option<(ShardId, Bytes)>>>,
}

impl Sources<'_> {
    /// The next shard that may be of use beside those that are here; none when there is no other.
    async fn next(&mut self, here: &Here) -> Option<(ShardId, Bytes)> {
        let me = self.app.me();
        for shard in self.own.by_ref().filter(|shard| shard.at.node == me) {
            if here.wants(named(shard))
                && let Some(item) = own(self.app, self.id, shard.sha256).await
                && item.bytes().len() == self.len
            {
                return Some((named(shard), item.into_bytes()));
            }
        }
        while self.asked.len() < here.missing() && self.ask_another(here) {}
        loop {
            let wait = if self.elsewhere.len() > 0 {
                NEXT_AFTER
            } else {
                HOLDER_TIMEOUT
            };
            match timeout(wait, self.asked.next()).await {
                Ok(Some(Some((id, bytes)))) if here.wants(id) => return Some((id, bytes)),
                Ok(None) if !self.ask_another(here) => return None,
                Ok(None) => {}
                // This one has failed, is here already, or is slow: on to the next.
                Ok(Some(_)) | Err(_) => {
                    self.ask_another(here);
                }
            }
        }
    }

    /// Asks for another one; says whether there was any.
    fn ask_another(&mut self, here: &Here) -> bool {
        let me = self.app.me();
        let next = self
            .elsewhere
            .find(|shard| shard.at.node != me && here.wants(named(shard)));
        let Some(shard) = next else { return false };
        let asked = ask(self.app.peers.clone(), shard.clone(), self.id.clone(), self.len);
        self.asked.push(Box::pin(asked));
        true
    }
}

fn named(shard: &ShardAt) -> ShardId {
    ShardId {
        index: shard.index,
        sha256: shard.sha256,
    }
}

async fn ask(peers: NodeClient, shard: ShardAt, id: ChunkId, len: usize) -> Option<(ShardId, Bytes)> {
    match timeout(HOLDER_TIMEOUT, peers.item(&shard.at, &id, shard.sha256)).await {
        Ok(Ok(item)) if item.bytes().len() == len => return Some((named(&shard), item.into_bytes())),
        Ok(Ok(_)) => tracing::warn!(%id, from = %shard.at.url, "a shard of another size"),
        Ok(Err(error)) => tracing::info!(%id, from = %shard.at.url, %error, "a shard could not be had"),
        Err(_) => tracing::info!(%id, from = %shard.at.url, "a shard was not given in time"),
    }
    None
}

#[cfg(test)]
mod tests {
    use vstack_erasure::encode;

    use super::*;

    const SIZE: usize = 10_001;

    fn chunk() -> Bytes {
        (0..=250_u8).cycle().take(SIZE).collect()
    }

    /// The shards of a chunk, of which those that are `wrong` are of something else, as they are listed.
    fn listed(shape: Shape, wrong: &[usize]) -> Vec<(ShardId, Bytes)> {
        let mut shards = encode(&ReedSolomon::new(shape), &chunk());
        for at in wrong {
            shards[*at] = Bytes::from(vec![u8::try_from(*at).unwrap(); shards[*at].len()]);
        }
        let id = |(index, bytes): (u8, Bytes)| {
            let sha256 = Digest::of(&bytes);
            (ShardId { index, sha256 }, bytes)
        };
        (0..).zip(shards).map(id).collect()
    }

    /// How many shards came until some gave the chunk, and how many sets were tried; none where none do. No more is held,
    /// and no more tried, than may be.
    fn came(shape: Shape, wrong: &[usize]) -> (Option<usize>, usize) {
        let code = ReedSolomon::new(shape);
        let (mut here, mut tried) = (Here::of(shape), 0);
        for (came, (id, bytes)) in (1..).zip(listed(shape, wrong)) {
            if here.is_given_up() {
                break;
            }
            assert!(here.wants(id));
            let sets = here.add(id, bytes);
            assert!(!here.wants(id), "not again");
            tried += sets.len();
            assert!(here.shards.len() <= HELD_TIMES * here.needed);
            assert!(tried <= 1 + OTHER_SETS_MAX);
            let gives = |set: &Vec<(u8, Bytes)>| read(&code, SIZE, Digest::of(&chunk()), set).is_ok();
            if sets.iter().any(gives) {
                return (Some(came), tried);
            }
        }
        (None, tried)
    }

    #[test]
    fn shards_that_were_made_wrongly_are_done_without_as_long_as_others_give_the_chunk() {
        let shape = |data, parity| Shape::new(data, parity).unwrap();
        assert_eq!(
            came(shape(3, 2), &[]),
            (Some(3), 1),
            "no more are asked for than are needed"
        );
        for one in 0..3 {
            assert_eq!(came(shape(3, 2), &[one]).0, Some(4), "{one}");
            assert_eq!(came(shape(3, 2), &[one, 3]).0, Some(5), "{one} and another");
        }
        assert_eq!(came(shape(3, 2), &[0, 1, 2]), (None, 10), "all sets there are");
        for one in 0..16 {
            assert_eq!(came(shape(16, 16), &[one]).0, Some(17), "{one}");
        }
        let first: Vec<usize> = (0..15).collect();
        assert_eq!(came(shape(1, 15), &first).0, Some(16), "of copies, one after the other");
    }

    #[test]
    fn what_is_tried_and_held_is_bounded() {
        let shape = Shape::new(16, 16).unwrap();
        let every_second: Vec<usize> = (0..32).step_by(2).collect();
        assert_eq!(came(shape, &every_second), (None, 1 + OTHER_SETS_MAX));
        let all: Vec<usize> = (0..18).collect();
        let (found, tried) = came(Shape::new(2, 16).unwrap(), &all);
        assert_eq!((found, tried <= 1 + OTHER_SETS_MAX), (None, true));
    }

    #[test]
    fn what_is_no_shard_of_the_code_is_not_asked_for() {
        let here = Here::of(Shape::new(3, 2).unwrap());
        let of = |index| ShardId {
            index,
            sha256: Digest::of(b"a shard"),
        };
        assert!(here.wants(of(4)));
        assert!(!here.wants(of(5)));
        assert_eq!((here.missing(), here.indexes()), (3, 0));
    }
}

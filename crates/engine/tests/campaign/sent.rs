//! What a node would send of a disk, piece by piece, beside what reading it whole comes to.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use vstack_engine::{Engine, Item, MemDisk, Now, ReadError, Runs, StoreOptions, Which};
use vstack_types::{Clock, Digest, Monotonic, Timestamp};

use super::{NAMES, VARIANTS, Verdict, contents, damage};
use crate::support::sending::{Sent, in_memory, send_in_all_ways};

/// A clock that stands still.
pub struct Still(pub Now);

impl Clock for Still {
    fn monotonic(&self) -> Monotonic {
        self.0.monotonic
    }

    fn wall(&self) -> Timestamp {
        self.0.wall
    }
}

/// Does `work` on a runtime of its own, in this thread.
pub fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// Opens a copy of `disk` and sends everything it has, before anything of it was read otherwise; then it is read whole,
/// which comes to the same. Says how many items were whole; a disk that is refused sends none.
pub fn sends_what_it_has(disk: &MemDisk, options: &StoreOptions, now: Now) -> Verdict<usize> {
    alone(async {
        let runs = Runs::AsATask(Arc::new(|| Duration::ZERO));
        let copy = damage::copy(disk);
        match Engine::open_as(copy, options.clone(), Arc::new(Still(now)), runs) {
            Ok(engine) => sends(&engine, now).await,
            Err(_) => Ok(0),
        }
    })
}

/// Every item that a history may put, by its digest.
pub fn put() -> &'static BTreeMap<Digest, Item> {
    static PUT: OnceLock<BTreeMap<Digest, Item>> = OnceLock::new();
    PUT.get_or_init(|| {
        let items = (0..NAMES).flat_map(|name| (0..VARIANTS).map(move |variant| contents(name, variant)));
        items.map(|item| (item.sha256(), item)).collect()
    })
}

async fn sends(engine: &Engine<MemDisk>, now: Now) -> Verdict<usize> {
    let (reader, mut count) = (engine.reader(), 0);
    let listed = reader.list_items(0, usize::MAX, None).unwrap().entries;
    for (way, listed) in listed.into_iter().enumerate() {
        let Ok(found) = reader.find(&listed.id, Which::Exact(listed.sha256)) else {
            continue;
        };
        let Some(item) = put().get(&listed.sha256) else {
            return Err(format!("{} {} was never put", listed.id, listed.sha256));
        };
        let is_right = |range: &Range<u64>, sent: &[u8]| item.bytes().get(in_memory(range)) == Some(sent);
        let sent = send_in_all_ways(engine, &found, way, is_right).await?;
        let read = match reader.read(&found, None, now.monotonic) {
            Ok(bytes) if bytes == *item.bytes() => Sent::Whole,
            Ok(_) => return Err(format!("{} is served with wrong bytes", listed.id)),
            Err(ReadError::Corrupt) => Sent::Refused,
            Err(ReadError::Io(error)) => return Err(format!("{} cannot be read: {error}", listed.id)),
        };
        if sent != read {
            return Err(format!(
                "{}: sent in pieces it is {sent:?}, read whole {read:?}",
                listed.id
            ));
        }
        count += usize::from(sent == Sent::Whole);
    }
    Ok(count)
}

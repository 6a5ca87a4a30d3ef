//! What one scrub of a disk comes to, beside what reading everything came to.

use std::{sync::Arc, time::Duration};

use vstack_engine::{Engine, MemDisk, Now, Runs, Scrubbed, StoreOptions, Which};
use vstack_types::Digest;

use super::{
    Verdict, damage,
    sent::{Still, alone},
    told::Told,
};

/// Scrubs a copy of `disk`: nothing that reads well is called damaged, and what is left after it reads well. Says how many
/// items it read; of a disk that is refused, none.
pub fn scrub(disk: &MemDisk, options: &StoreOptions, now: Now, told: &Told) -> Verdict<usize> {
    alone(async {
        let runs = Runs::AsATask(Arc::new(|| Duration::ZERO));
        let copy = damage::copy(disk);
        match Engine::open_as(copy, options.clone(), Arc::new(Still(now)), runs) {
            Ok(engine) => scrubs(&engine, now, told).await,
            Err(_) => Ok(0),
        }
    })
}

async fn scrubs(engine: &Engine<MemDisk>, now: Now, told: &Told) -> Verdict<usize> {
    let mut all = Scrubbed::default();
    for number in engine.reader().superblock_numbers() {
        match engine.scrub(number, u64::MAX, |_| {}).await {
            Ok(scrubbed) => all.add(scrubbed),
            Err(error) => return Err(format!("superblock {number} is not scrubbed: {error}")),
        }
    }
    if !told.harmed && (!all.damaged.is_empty() || all.mended + all.unnamed + all.stretches > 0) {
        return Err(format!("a scrub finds what nobody did: {all:?}"));
    }
    if let Some((id, sha256)) = all.damaged.iter().find(|(id, sha256)| told.holds(id, *sha256)) {
        return Err(format!("a scrub calls {id} {sha256} damaged, which was read"));
    }
    let reader = engine.reader();
    for listed in reader.list_items(0, usize::MAX, None).unwrap().entries {
        let Ok(found) = reader.find(&listed.id, Which::Exact(listed.sha256)) else {
            continue;
        };
        let read = reader.read(&found, None, now.monotonic);
        if !read.is_ok_and(|bytes| Digest::of(&bytes) == listed.sha256) {
            return Err(format!("{} {} is not what a scrub found", listed.id, listed.sha256));
        }
    }
    usize::try_from(all.items).map_err(|error| error.to_string())
}

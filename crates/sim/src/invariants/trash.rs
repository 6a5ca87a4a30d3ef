//! What was deleted can be restored for as long as it was said: until then nothing of it is given up.

use std::{collections::BTreeSet, time::Duration};

use vstack_metadata::store::{Reap, Store};
use vstack_types::{ChunkId, VideoId};

use crate::{calls::short, ledger::FilmRecord};

/// A wall clock that is set forward by little, now and then, is taken for one that goes fast.
const CLOCK_SLACK: Duration = Duration::from_secs(10);

/// Whether `film` can be restored for certain, of which the bytes are kept for so long after its deletion.
pub(crate) fn is_promised(film: &FilmRecord, trash: Duration) -> bool {
    film.trashed.is_some_and(|since| since.elapsed() + CLOCK_SLACK < trash)
}

/// Whether `film` can be restored as long as that is promised: its bytes are not on their way out, and none of its chunks
/// are among those that were `ended`.
///
/// # Errors
/// The promise that was broken.
pub(crate) async fn check(
    store: &dyn Store,
    (video, film): (VideoId, &FilmRecord),
    trash: Duration,
    ended: &BTreeSet<ChunkId>,
) -> Result<(), String> {
    // Who ends its chunks by himself asks nobody.
    if film.condemned || !is_promised(film, trash) {
        return Ok(());
    }
    let Ok(Some(row)) = store.video(video).await else {
        return Ok(());
    };
    if matches!(row.reap, Reap::Due { .. } | Reap::Done) {
        return Err(format!(
            "video {video} can be restored for a while yet, and its bytes are given up: {:?}",
            row.reap
        ));
    }
    let chunks = store.video_chunks(video, None, u32::MAX).await.unwrap_or_default();
    match chunks.iter().find(|chunk| ended.contains(&chunk.id)) {
        Some(chunk) => Err(format!(
            "{}: it is deleted, and its video can be restored for a while yet",
            short(&chunk.id)
        )),
        None => Ok(()),
    }
}

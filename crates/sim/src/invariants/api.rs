//! What was acknowledged to people stays so: a completed video is active until somebody deletes it, and a deleted one
//! never returns.

use vstack_api::metadata::VideoStatus;
use vstack_metadata::store::Store;
use vstack_types::VideoId;

use crate::ledger::{Deletion, FilmRecord, Known};

/// Looks at one film.
///
/// # Errors
/// The promise that was broken.
pub(crate) async fn check(store: &dyn Store, video: VideoId, film: &FilmRecord) -> Result<(), String> {
    let Ok(row) = store.video(video).await else {
        return Ok(());
    };
    let status = row.map(|row| row.status);
    let legal = match (film.known, film.deletion) {
        (_, Deletion::Acknowledged) => matches!(status, None | Some(VideoStatus::Deleted)),
        (Known::Completed, Deletion::None) => status == Some(VideoStatus::Active),
        (Known::Completed, Deletion::Asked) => {
            matches!(status, None | Some(VideoStatus::Active | VideoStatus::Deleted))
        }
        (Known::Failed, _) => status != Some(VideoStatus::Active),
        (Known::UnderWay, _) => true,
    };
    if legal {
        Ok(())
    } else {
        Err(format!(
            "video {video} is {status:?}; its sender was told {:?}, its deletion was {:?}",
            film.known, film.deletion
        ))
    }
}

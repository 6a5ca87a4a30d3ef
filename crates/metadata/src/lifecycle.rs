//! Which statuses of a video may follow which.

use vstack_api::metadata::VideoStatus;

/// Whether a video that stands at `from` may be set to `to` by hand. An upload of ours becomes active only through
/// its owner, who knows when it is whole; `owned` says whether it is one.
pub const fn may_become(from: VideoStatus, to: VideoStatus, owned: bool) -> bool {
    match (from, to) {
        (VideoStatus::Uploading, VideoStatus::Active) => !owned,
        (VideoStatus::Uploading, VideoStatus::Failed)
        | (VideoStatus::Uploading | VideoStatus::Active | VideoStatus::Failed, VideoStatus::Deleted) => true,
        // What was whole or gone stays so; what failed has lost chunks.
        (_, VideoStatus::Uploading)
        | (
            VideoStatus::Active | VideoStatus::Failed | VideoStatus::Deleted,
            VideoStatus::Active | VideoStatus::Failed,
        )
        | (VideoStatus::Deleted, VideoStatus::Deleted) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_only_ever_goes_forward() {
        use VideoStatus::{Active, Deleted, Failed, Uploading};
        let all = [Uploading, Active, Failed, Deleted];
        let legal = [
            (Uploading, Active),
            (Uploading, Failed),
            (Uploading, Deleted),
            (Active, Deleted),
            (Failed, Deleted),
        ];
        for from in all {
            for to in all {
                assert_eq!(
                    may_become(from, to, false),
                    legal.contains(&(from, to)),
                    "{from:?} {to:?}"
                );
                let owned = legal[1..].contains(&(from, to));
                assert_eq!(may_become(from, to, true), owned, "{from:?} {to:?}");
            }
        }
    }
}

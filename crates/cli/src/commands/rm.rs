//! `vstack rm`.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{StatusSet, VideoInfo, VideoStatus};
use vstack_client::{ClientError, MetadataClient};
use vstack_types::VideoId;

use super::{Cluster, consent};
use crate::output::{self, bytes, say};

/// Deleted videos asked for at once.
const PAGE: usize = 1_000;
/// Videos named of those that an interruption left as they were.
const NAMED: usize = 10;

/// What to take out.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Ids of the videos, as `vstack ls` shows them.
    #[arg(required_unless_present = "trash", value_name = "VIDEO_ID")]
    videos: Vec<VideoId>,
    /// Restore them instead: possible for a while after they were taken out (TRASH_TIME of the metadata service).
    #[arg(long, conflicts_with_all = ["purge", "trash"])]
    undo: bool,
    /// Without a way back: their bytes go at once, also of those that were taken out before.
    #[arg(long)]
    purge: bool,
    /// With --purge: every video that was taken out and can still be restored.
    #[arg(long, requires = "purge", conflicts_with = "videos")]
    trash: bool,
    /// Do not ask before all of the trash is purged.
    #[arg(long, short, requires = "trash")]
    yes: bool,
    /// As JSON; with --trash it asks nothing, so --yes is needed.
    #[arg(long)]
    json: bool,
}

/// Takes videos out, or brings them back; the bytes of those that are out for long are collected in the background.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let videos = if options.trash {
        let chosen = stop.run_until_cancelled(trash(&metadata, &options)).await;
        match chosen.transpose()?.flatten() {
            Some(videos) => videos,
            None => {
                say!("nothing was purged");
                return Ok(ExitCode::FAILURE);
            }
        }
    } else {
        options.videos.clone()
    };
    let mut done = Vec::new();
    let mut failed = false;
    let mut left = videos.as_slice();
    while let [video, others @ ..] = left {
        if stop.is_cancelled() {
            say_interrupted(None, left);
            break;
        }
        left = others;
        let Some(set) = stop.run_until_cancelled(change(&metadata, &options, *video)).await else {
            say_interrupted(Some(*video), left);
            break;
        };
        match set {
            Ok(set) => {
                if !options.json {
                    say!("{}", told(&options, &set));
                }
                done.push(set);
            }
            Err(error) => {
                failed = true;
                say!("error: {video}: {error}");
            }
        }
    }
    if options.json {
        output::json(&done)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn change(metadata: &MetadataClient, options: &Options, video: VideoId) -> Result<StatusSet, ClientError> {
    if options.undo {
        metadata.restore_video(video).await
    } else if options.purge {
        metadata.purge_video(video).await
    } else {
        metadata.delete_video(video).await
    }
}

/// What was done to a video, and the way back if there is one.
fn told(options: &Options, set: &StatusSet) -> String {
    let video = set.video_id;
    if options.undo {
        return format!("restored {video}");
    }
    match set.restorable_until {
        Some(until) => format!(
            "deleted {video}: `vstack rm --undo` restores it until {until}, `vstack rm --purge` frees its bytes now"
        ),
        None => format!("deleted {video} for good"),
    }
}

/// What was done was said when it was. A call that was not waited for may have come through.
fn say_interrupted(begun: Option<VideoId>, left: &[VideoId]) {
    if let Some(video) = begun {
        say!("interrupted: whether it was done to {video} is not known; again does no harm");
    }
    if left.is_empty() {
        return;
    }
    let named: Vec<String> = left.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match left.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    say!("interrupted: not done to {}{more}", named.join(", "));
}

/// Every video that was taken out and can still be restored; none when nobody agrees that they go.
async fn trash(metadata: &MetadataClient, options: &Options) -> anyhow::Result<Option<Vec<VideoId>>> {
    let videos = restorable(metadata).await?;
    if !videos.is_empty() && !options.yes && !agreed(options.json, &videos).await? {
        return Ok(None);
    }
    if videos.is_empty() {
        say!("no deleted video can be restored: there is nothing to purge");
    }
    Ok(Some(videos.iter().map(|video| video.video_id).collect()))
}

async fn restorable(metadata: &MetadataClient) -> Result<Vec<VideoInfo>, ClientError> {
    let mut all = Vec::new();
    loop {
        let before = all.len();
        let query = [
            ("status", VideoStatus::Deleted.as_str().to_owned()),
            ("limit", PAGE.to_string()),
            ("offset", before.to_string()),
        ];
        all.extend(metadata.videos(&query).await?);
        if all.len() - before < PAGE {
            break;
        }
    }
    all.retain(|video| video.restorable_until.is_some());
    Ok(all)
}

/// Whether a person at a terminal says yes.
async fn agreed(json: bool, videos: &[VideoInfo]) -> anyhow::Result<bool> {
    anyhow::ensure!(
        consent::is_anybody_there(json),
        "nobody to ask: say --yes to purge every deleted video"
    );
    let size = bytes(videos.iter().map(|video| video.size_bytes).sum());
    consent::says_yes(format!(
        "Purge {} deleted videos, {size} a copy, for good?",
        videos.len()
    ))
    .await
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        let command = Options::augment_args(clap::Command::new("rm").no_binary_name(true));
        Options::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn the_way_back_is_said() {
        const VIDEO: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";
        let set = |until: Option<&str>| -> StatusSet {
            serde_json::from_value(serde_json::json!({
                "video_id": VIDEO, "status": "deleted", "restorable_until": until,
            }))
            .expect("an answer")
        };
        let until = set(Some("2026-01-02T03:04:05Z"));
        let plain = options(&[VIDEO]).expect("options");
        assert_eq!(
            told(&plain, &until),
            format!(
                "deleted {VIDEO}: `vstack rm --undo` restores it until 2026-01-02T03:04:05.000Z, `vstack rm --purge` \
                 frees its bytes now"
            )
        );
        for for_good in [&plain, &options(&[VIDEO, "--purge"]).expect("options")] {
            assert_eq!(told(for_good, &set(None)), format!("deleted {VIDEO} for good"));
        }
        let undo = options(&[VIDEO, "--undo"]).expect("options");
        assert_eq!(told(&undo, &set(None)), format!("restored {VIDEO}"));
    }

    #[test]
    fn the_trash_is_purged_as_a_whole_and_never_by_accident() {
        const VIDEO: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";
        for good in [
            &["--purge", "--trash"][..],
            &["--purge", "--trash", "--yes"],
            &[VIDEO, "--purge"],
        ] {
            assert!(options(good).is_ok(), "{good:?}");
        }
        for bad in [
            &["--purge"][..],
            &[],
            &["--trash"],
            &["--trash", "--purge", VIDEO],
            &["--undo", "--trash"],
            &[VIDEO, "--yes"],
        ] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
    }
}

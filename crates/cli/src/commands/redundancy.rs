//! `vstack redundancy`: how videos are kept, as copies or as shards, and asking for either.

mod asking;
mod words;

use std::{collections::HashSet, io::IsTerminal as _, process::ExitCode, time::Duration};

use anyhow::anyhow;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorCode,
    metadata::RedundancyConfig,
    redundancy::{
        EfficiencyReport, KeepingOfVideo, Keepings, Migration, Recommendation, StorageOverhead, VideoKeeping,
    },
};
use vstack_client::{ClientError, MetadataClient};
use vstack_types::VideoId;

use self::asking::Wish;
use super::Cluster;
use crate::output::{self, out, say};

/// For `--help`.
pub const EXAMPLES: &str = "\
Examples:
  vstack redundancy
      what is stored as copies and as shards, the policy in force, and how each video is kept
  vstack redundancy VIDEO_ID --watch
      one video, again and again while its chunks are brought into another form
  vstack redundancy VIDEO_ID --set erasure_coding --wait
      have it kept as shards, whatever its views, and wait until it is
  vstack redundancy VIDEO_ID --set policy
      leave it to the policy again
  vstack redundancy --pause
      bring nothing into another form until `vstack redundancy --resume`

Exit code 0: shown, or as was asked for; 1: refused, or not known.";

/// What to show or to ask for.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Only this one, in detail, with what is recommended for it; its id as `vstack ls` shows it.
    #[arg(value_name = "VIDEO_ID")]
    video: Option<VideoId>,
    /// Ask for a form of this video, or leave it to the policy again.
    #[arg(long, value_name = "FORM", requires = "video")]
    set: Option<Wish>,
    /// With --set: wait until every chunk of it has that form. Ctrl-C stops waiting, nothing else.
    #[arg(long, requires = "set")]
    wait: bool,
    /// Bring nothing into another form until --resume; what was begun is ended.
    #[arg(long, conflicts_with_all = ["video", "resume"])]
    pause: bool,
    /// Go on after --pause.
    #[arg(long, conflicts_with = "video")]
    resume: bool,
    /// Videos to list at most, those with most to be done first.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    limit: usize,
    /// Show again every two seconds, until Ctrl-C.
    #[arg(long, short, conflicts_with_all = ["set", "pause", "resume"])]
    watch: bool,
    /// As JSON; with --watch one document a line.
    #[arg(long)]
    json: bool,
}

/// Between two looks of `--watch`.
const SHOW_EVERY: Duration = Duration::from_secs(2);
/// Videos asked for at once, as many as are answered at most.
const PAGE: usize = 1_000;

/// Everything, and how each video is kept.
#[derive(Debug, Serialize)]
struct Overview {
    #[serde(flatten)]
    report: EfficiencyReport,
    overhead: StorageOverhead,
    config: RedundancyConfig,
    /// None when that is not known.
    repairs_enabled: Option<bool>,
    #[serde(flatten)]
    keepings: Keepings,
}

/// One video.
#[derive(Debug, Serialize)]
struct One {
    #[serde(flatten)]
    keeping: VideoKeeping,
    recommendation: Recommendation,
    migration: Migration,
}

/// Shows how videos are kept, or asks for something.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    if options.pause || options.resume {
        return switch(&metadata, &options, &stop).await;
    }
    if let (Some(video), Some(wish)) = (options.video, options.set) {
        return asking::ask(&metadata, &options, (video, wish), &stop).await;
    }
    loop {
        let Some(shown) = stop.run_until_cancelled(Box::pin(show(&metadata, &options))).await else {
            return Ok(ExitCode::SUCCESS);
        };
        shown?;
        if !options.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(SHOW_EVERY) => {}
        }
    }
}

async fn show(metadata: &MetadataClient, options: &Options) -> anyhow::Result<()> {
    match options.video {
        Some(video) => print(options, &one(metadata, video).await?, words::one),
        None => {
            let overview = overview(metadata, options.limit).await.map_err(hinted)?;
            print(options, &overview, words::all)
        }
    }
}

fn print<T: Serialize>(options: &Options, told: &T, in_words: impl Fn(&T) -> String) -> anyhow::Result<()> {
    if options.json && options.watch {
        out!("{}", serde_json::to_string(told)?);
        return Ok(());
    }
    if options.json {
        return output::json(told);
    }
    if options.watch && std::io::stdout().is_terminal() {
        out!("\x1b[H\x1b[2J");
    }
    out!("{}", in_words(told));
    Ok(())
}

async fn overview(metadata: &MetadataClient, limit: usize) -> Result<Overview, ClientError> {
    Ok(Overview {
        report: metadata.redundancy_efficiency().await?,
        overhead: metadata.storage_overhead().await?,
        config: metadata.redundancy_config().await?,
        repairs_enabled: metadata.repairs().await.ok().map(|repairs| repairs.enabled),
        keepings: listed(metadata, limit).await?,
    })
}

/// Where things change meanwhile, one may be missing; none is there twice.
async fn listed(metadata: &MetadataClient, limit: usize) -> Result<Keepings, ClientError> {
    let mut listed = metadata.keepings(0, limit.min(PAGE)).await?;
    let mut known: HashSet<VideoId> = listed.videos.iter().map(|keeping| keeping.video_id).collect();
    let mut offset = PAGE;
    while offset < limit && (offset as u64) < listed.total {
        let more = metadata.keepings(offset, (limit - offset).min(PAGE)).await?.videos;
        let new = more.into_iter().filter(|keeping| known.insert(keeping.video_id));
        listed.videos.extend(new);
        offset += PAGE;
    }
    Ok(listed)
}

async fn one(metadata: &MetadataClient, video: VideoId) -> anyhow::Result<One> {
    let KeepingOfVideo { keeping, migration } = metadata.keeping_of(video).await.map_err(hinted)?;
    let recommendation = metadata.recommendation(video).await.map_err(hinted)?;
    Ok(One {
        keeping,
        recommendation,
        migration,
    })
}

/// Pauses, or goes on.
async fn switch(metadata: &MetadataClient, options: &Options, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let asked = async {
        if options.pause {
            metadata.pause_migration().await
        } else {
            metadata.resume_migration().await
        }
    };
    let Some(migration) = stop.run_until_cancelled(asked).await else {
        say!("interrupted: what came of it is not known; again does no harm");
        return Ok(ExitCode::FAILURE);
    };
    let migration = migration.map_err(hinted)?;
    if options.json {
        output::json(&migration)?;
    } else {
        say!("{}", words::switched(&migration));
    }
    Ok(ExitCode::SUCCESS)
}

/// With what to do next.
fn hinted(error: ClientError) -> anyhow::Error {
    match error.code() {
        Some(ErrorCode::NotFound) => anyhow!("{error}; `vstack ls` lists the videos"),
        Some(ErrorCode::Unprocessable) => anyhow!("{error}; `vstack status` shows the nodes, and which are down"),
        None if matches!(error, ClientError::Unreachable { .. }) => {
            anyhow!("{error}; is the cluster up? `vstack up` starts one, and --metadata-url names another")
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use vstack_api::ErrorBody;

    use super::*;

    const VIDEO: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        let command = Options::augment_args(clap::Command::new("redundancy").no_binary_name(true));
        Options::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn a_form_is_asked_for_of_one_video_and_pausing_is_for_all() {
        for good in [
            &["--watch", "--json"][..],
            &[],
            &[VIDEO],
            &[VIDEO, "--set", "replication"],
            &[VIDEO, "--set", "erasure_coding", "--wait"],
            &[VIDEO, "--set", "policy", "--json"],
            &["--pause"],
            &["--resume"],
        ] {
            assert!(options(good).is_ok(), "{good:?}");
        }
        for bad in [
            &["--set", "replication"][..],
            &[VIDEO, "--wait"],
            &[VIDEO, "--set", "mirrors"],
            &[VIDEO, "--set", "policy", "--watch"],
            &[VIDEO, "--pause"],
            &["--pause", "--resume"],
            &["not an id"],
        ] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do_next() {
        let refused = |code: ErrorCode, detail: &str| {
            let body = ErrorBody {
                detail: detail.to_owned(),
                code,
            };
            let status = code.status();
            hinted(ClientError::Refused { status, body }).to_string()
        };
        let too_few = refused(ErrorCode::Unprocessable, "erasure coding needs 3 nodes");
        assert!(
            too_few.starts_with("erasure coding needs 3 nodes; `vstack status`"),
            "{too_few}"
        );
        let unknown = refused(ErrorCode::NotFound, "there is no video x");
        assert!(unknown.ends_with("`vstack ls` lists the videos"), "{unknown}");
        assert_eq!(refused(ErrorCode::Internal, "ours"), "ours");
    }
}

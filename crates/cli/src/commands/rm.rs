//! `vstack rm`.

use std::process::ExitCode;

use vstack_types::VideoId;

use super::Cluster;
use crate::output::{self, say};

/// What to take out.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Ids of the videos, as `vstack ls` shows them.
    #[arg(required = true, value_name = "VIDEO_ID")]
    videos: Vec<VideoId>,
    /// Restore them instead: possible for a while after they were taken out (TRASH_TIME of the metadata service).
    #[arg(long, conflicts_with = "purge")]
    undo: bool,
    /// Without a way back: their bytes go at once.
    #[arg(long)]
    purge: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Takes videos out, or brings them back; the bytes of those that are out for long are collected in the background.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let mut done = Vec::new();
    let mut failed = false;
    for video in options.videos {
        let done_to = if options.undo {
            metadata.restore_video(video).await
        } else if options.purge {
            metadata.purge_video(video).await
        } else {
            metadata.delete_video(video).await
        };
        match done_to {
            Ok(status) => {
                if !options.json && options.undo {
                    say!("restored {video}");
                } else if !options.json {
                    say!("deleted {video}");
                }
                done.push(status);
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

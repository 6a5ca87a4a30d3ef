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
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Takes videos out; their bytes are collected in the background.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let mut done = Vec::new();
    let mut failed = false;
    for video in options.videos {
        match metadata.delete_video(video).await {
            Ok(status) => {
                if !options.json {
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

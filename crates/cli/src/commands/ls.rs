//! `vstack ls`.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use vstack_api::metadata::VideoStatus;

use super::{Cluster, survival};
use crate::output::{self, out, say};

/// What to list.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Only videos whose title contains this.
    #[arg(value_name = "TEXT")]
    query: Option<String>,
    /// Only videos of this status: active, uploading, failed or deleted; of these also until when `vstack rm --undo`
    /// restores them.
    #[arg(long, default_value = "active", value_parser = |text: &str| text.parse::<VideoStatus>().map_err(|()| "active, uploading, failed or deleted"))]
    status: VideoStatus,
    /// Most videos to list.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Skip so many.
    #[arg(long, default_value_t = 0)]
    offset: u32,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Lists the videos.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let mut query = vec![
        ("limit", options.limit.to_string()),
        ("offset", options.offset.to_string()),
        ("status", options.status.as_str().to_owned()),
    ];
    query.extend(options.query.map(|text| ("q", text)));
    let metadata = options.cluster.metadata()?;
    let Some(videos) = stop.run_until_cancelled(metadata.videos(&query)).await.transpose()? else {
        return Ok(ExitCode::FAILURE);
    };
    if options.json {
        output::json(&videos)?;
        return Ok(ExitCode::SUCCESS);
    }
    if videos.is_empty() {
        say!("no videos; `vstack upload FILE` brings one");
        return Ok(ExitCode::SUCCESS);
    }
    let mut header = vec!["VIDEO", "DURATION", "SIZE", "VIEWS", "STATUS", "TITLE"];
    let is_trash = options.status == VideoStatus::Deleted;
    if is_trash {
        header.insert(5, "RESTORABLE UNTIL");
    }
    let is_active = options.status == VideoStatus::Active;
    if is_active {
        header.insert(5, "SURVIVES");
    }
    let mut table = output::table(&header);
    for video in videos {
        let mut row = vec![
            video.video_id.to_string(),
            output::duration(video.duration_sec),
            output::bytes(video.size_bytes),
            video.view_count.to_string(),
            video.status.as_str().to_owned(),
            output::plain(&video.title),
        ];
        if is_trash {
            let until = video.restorable_until;
            row.insert(5, until.map_or("-".to_owned(), |until| until.to_string()));
        }
        if is_active {
            let survives = survival::of_video(video.failures_survived, video.survival_counted);
            row.insert(5, survives);
        }
        table.add_row(row);
    }
    out!("{table}");
    Ok(ExitCode::SUCCESS)
}

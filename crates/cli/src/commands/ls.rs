//! `vstack ls`.

use std::process::ExitCode;

use vstack_api::metadata::VideoStatus;

use super::Cluster;
use crate::output::{self, out, say};

/// What to list.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Only videos whose title contains this.
    #[arg(value_name = "TEXT")]
    query: Option<String>,
    /// Only videos of this status: active, uploading, failed or deleted.
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
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut query = vec![
        ("limit", options.limit.to_string()),
        ("offset", options.offset.to_string()),
        ("status", options.status.as_str().to_owned()),
    ];
    query.extend(options.query.map(|text| ("q", text)));
    let videos = options.cluster.metadata()?.videos(&query).await?;
    if options.json {
        output::json(&videos)?;
        return Ok(ExitCode::SUCCESS);
    }
    if videos.is_empty() {
        say!("no videos; `vstack upload FILE` brings one");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = output::table(&["VIDEO", "DURATION", "SIZE", "VIEWS", "STATUS", "TITLE"]);
    for video in videos {
        table.add_row([
            video.video_id.to_string(),
            output::duration(video.duration_sec),
            output::bytes(video.size_bytes),
            video.view_count.to_string(),
            video.status.as_str().to_owned(),
            output::plain(&video.title),
        ]);
    }
    out!("{table}");
    Ok(ExitCode::SUCCESS)
}

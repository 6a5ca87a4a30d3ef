//! `vstack upload`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::{io::ReaderStream, sync::CancellationToken};
use vstack_api::{
    metadata::{RedundancyMode, VideoSurvival},
    uploader::{UploadStage, UploadStatus},
};
use vstack_client::{ClientError, MetadataClient, UploaderClient};

use super::{Cluster, survival::lost_nodes, uploader};
use crate::output::{self, out, say};

/// The video is there by then: for what it survives nobody waits longer.
const SURVIVAL_WITHIN: Duration = Duration::from_secs(3);

/// What to upload.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Video files: MP4, AVI, MOV, MKV, WebM or FLV.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Title; only with one file. Without it the file's name is the title.
    #[arg(long)]
    title: Option<String>,
    /// Keep it as `replication`, fast to read by many, or `erasure_coding`, which takes about half the space, from the
    /// first chunk on. It then stays so for good, whatever its views, until `vstack redundancy VIDEO_ID --set` says
    /// otherwise; without this flag its views decide.
    #[arg(long, value_name = "FORM", value_parser = form)]
    redundancy: Option<RedundancyMode>,
    /// Return as soon as the file was sent, without waiting until it can be played.
    #[arg(long)]
    no_wait: bool,
    /// As JSON, one document with every upload's last status.
    #[arg(long)]
    json: bool,
    /// Uploader.
    #[arg(
        long,
        env = "UPLOADER_SERVICE_URL", value_parser = vstack_service::settings::url,
        default_value = "http://127.0.0.1:8084",
        value_name = "URL"
    )]
    uploader_url: String,
    #[command(flatten)]
    cluster: Cluster,
}

/// What came of an upload.
#[derive(Debug, Serialize)]
struct Uploaded {
    #[serde(flatten)]
    status: UploadStatus,
    #[serde(flatten)]
    survives: Survives,
}

/// How many nodes the video may lose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Survives {
    /// None where that is not known: the upload did not complete or was not waited for, copies are still to be made, or
    /// the metadata service did not say.
    failures_survived: Option<u32>,
    /// By copies and shards that were counted, not only by where they are placed.
    survival_counted: bool,
}

impl Survives {
    /// Where copies are still to be made, what is placed says nothing before it is counted.
    const fn of(status: &UploadStatus, told: &VideoSurvival) -> Self {
        if told.survival_counted || status.under_replicated == 0 {
            Self {
                failures_survived: told.failures_survived,
                survival_counted: told.survival_counted,
            }
        } else {
            Self {
                failures_survived: None,
                survival_counted: false,
            }
        }
    }

    fn in_words(self, status: &UploadStatus) -> String {
        match (self.failures_survived, status.under_replicated) {
            (Some(nodes), _) => format!("survives {}", lost_nodes(nodes.into())),
            (None, 0) => "cannot be read now; `vstack census` says why".to_owned(),
            (None, lacking) => format!(
                "{lacking} of its chunks lack copies, which are made in the background; `vstack ls` tells what it survives"
            ),
        }
    }
}

fn form(text: &str) -> Result<RedundancyMode, &'static str> {
    text.parse().map_err(|()| "a form is replication or erasure_coding")
}

/// Uploads one file after the other. Exit code 1 when any of them failed.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    if options.title.is_some() && options.files.len() > 1 {
        bail!("--title goes with one file; without it each video is named after its file");
    }
    let clients = (uploader(&options.uploader_url)?, options.cluster.metadata()?);
    let mut results = Vec::new();
    let mut failed = false;
    for file in &options.files {
        match upload(&clients, file, &options, &stop).await {
            Ok(uploaded) => {
                failed |= uploaded.status.status == UploadStage::Failed;
                results.push(uploaded);
            }
            Err(error) => {
                failed = true;
                say!("error: {}: {error:#}", file.display());
            }
        }
        if stop.is_cancelled() {
            break;
        }
    }
    if options.json {
        output::json(&results)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn upload(
    (client, metadata): &(UploaderClient, MetadataClient),
    path: &Path,
    options: &Options,
    stop: &CancellationToken,
) -> anyhow::Result<Uploaded> {
    let name = path
        .file_name()
        .map_or_else(|| "video".into(), |name| name.to_string_lossy().into_owned());
    let bar = send_bar(&name);
    let accepted = tokio::select! {
        accepted = send(client, path, &name, (options.title.as_deref(), options.redundancy), &bar) => accepted?,
        () = stop.cancelled() => bail!("interrupted; nothing was kept"),
    };
    bar.finish_and_clear();
    if options.no_wait {
        if !options.json {
            out!("{}  {}", accepted.video_id, output::plain(&accepted.title));
        }
        return Ok(Uploaded {
            status: client.status(&accepted.upload_session_id).await?,
            survives: Survives::default(),
        });
    }
    let status = follow(client, &accepted.upload_session_id, &name, stop).await?;
    match status.status {
        UploadStage::Completed if !options.json => out!("{}  {}", status.video_id, output::plain(&status.title)),
        UploadStage::Failed => say!("error: {name}: {}", status.error.as_deref().unwrap_or("failed")),
        _ => {}
    }
    for warning in &status.warnings {
        say!("note: {name}: {warning}");
    }
    let mut uploaded = Uploaded {
        status,
        survives: Survives::default(),
    };
    if uploaded.status.status == UploadStage::Completed
        && let Some((survives, words)) = stop.run_until_cancelled(survives(metadata, &uploaded.status)).await
    {
        if !options.json {
            say!("{name}: {words}");
        }
        uploaded.survives = survives;
    }
    Ok(uploaded)
}

/// What a video that was just uploaded survives, and that in words.
async fn survives(metadata: &MetadataClient, status: &UploadStatus) -> (Survives, String) {
    let unknown = |why: String| (Survives::default(), format!("what it survives is not known: {why}"));
    match timeout(SURVIVAL_WITHIN, metadata.survival(status.video_id)).await {
        Ok(Ok(told)) => {
            let survives = Survives::of(status, &told);
            (survives, survives.in_words(status))
        }
        Ok(Err(error)) => unknown(error.to_string()),
        Err(_elapsed) => unknown("the metadata service does not answer".to_owned()),
    }
}

fn send_bar(name: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:30!} {bar:30} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta}");
    let bar = ProgressBar::new(0).with_message(format!("sending {name}"));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

async fn send(
    client: &UploaderClient,
    path: &Path,
    name: &str,
    what: (Option<&str>, Option<RedundancyMode>),
    bar: &ProgressBar,
) -> anyhow::Result<vstack_api::uploader::UploadAccepted> {
    let file = tokio::fs::File::open(path).await.context("cannot open it")?;
    let metadata = file.metadata().await.context("cannot look at it")?;
    if !metadata.is_file() {
        bail!("it is not a file");
    }
    bar.set_length(metadata.len());
    let counter = bar.clone();
    let stream = ReaderStream::with_capacity(file, 256 * 1024).inspect(move |part| {
        if let Ok(part) = part {
            counter.inc(part.len() as u64);
        }
    });
    client
        .upload(name, what, stream, metadata.len())
        .await
        .map_err(|error| match error {
            ClientError::Unreachable { url, reason } => {
                anyhow::anyhow!(
                    "cannot reach the uploader at {url} ({reason}); is the cluster up? `vstack up` starts one"
                )
            }
            error => error.into(),
        })
}

async fn follow(
    client: &UploaderClient,
    session: &str,
    name: &str,
    stop: &CancellationToken,
) -> anyhow::Result<UploadStatus> {
    let style = ProgressStyle::with_template("{msg:30!} {bar:30} {pos:>3} % {prefix}");
    let bar = ProgressBar::new(100).with_message(name.to_owned());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut misses = 0;
    loop {
        match client.status(session).await {
            Ok(status) => {
                misses = 0;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
                bar.set_position(status.progress.clamp(0.0, 100.0) as u64);
                bar.set_prefix(stage_text(&status));
                if status.status.is_final() {
                    bar.finish_and_clear();
                    return Ok(status);
                }
            }
            // The uploader may be restarting; it then says that the upload failed.
            Err(error) if error.is_transient() && misses < 60 => misses += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = stop.cancelled() => {
                bar.finish_and_clear();
                client.cancel(session).await.context("could not give the upload up")?;
                bail!("interrupted; the upload was given up");
            }
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
    }
}

fn stage_text(status: &UploadStatus) -> String {
    match status.status {
        UploadStage::Queued => format!("waiting, place {}", status.queue_position.unwrap_or(1)),
        UploadStage::Uploading => "arriving".to_owned(),
        UploadStage::Processing => "looking at the file".to_owned(),
        UploadStage::Chunking => "cutting".to_owned(),
        UploadStage::Registering => "registering".to_owned(),
        UploadStage::UploadingChunks => format!("storing, {} chunks", status.total_chunks),
        UploadStage::Finalizing => "finishing".to_owned(),
        UploadStage::Completed => "done".to_owned(),
        UploadStage::Failed => "failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";

    fn status(under_replicated: u32) -> UploadStatus {
        serde_json::from_value(serde_json::json!({
            "video_id": VIDEO, "upload_session_id": "s", "title": "t", "filename": "f.mp4", "status": "completed",
            "progress": 100.0, "started_at": "2026-01-02T03:04:05Z", "total_chunks": 3, "error": null,
            "under_replicated": under_replicated,
        }))
        .expect("a status")
    }

    #[test]
    fn what_an_upload_survives_is_told_and_not_assumed_where_copies_are_missing() {
        let told = |failures_survived, survival_counted| VideoSurvival {
            video_id: VIDEO.parse().expect("an id"),
            failures_survived,
            survival_counted,
        };
        let is_placed_alone = "2 of its chunks lack copies, which are made in the background";
        for (lacking, told, survives, words) in [
            (0, told(Some(2), true), Some(2), "survives 2 lost nodes"),
            (0, told(Some(1), false), Some(1), "survives 1 lost node"),
            (2, told(Some(1), true), Some(1), "survives 1 lost node"),
            // It is placed on three nodes, and not on all of them yet.
            (2, told(Some(2), false), None, is_placed_alone),
            (0, told(None, true), None, "cannot be read now"),
        ] {
            let status = status(lacking);
            let of = Survives::of(&status, &told);
            assert_eq!(of.failures_survived, survives, "{told:?}");
            let said = of.in_words(&status);
            assert!(said.starts_with(words), "{said}");
        }
    }

    #[test]
    fn json_has_it_beside_the_status() {
        let uploaded = Uploaded {
            status: status(0),
            survives: Survives {
                failures_survived: Some(2),
                survival_counted: true,
            },
        };
        let json = serde_json::to_value(&uploaded).expect("JSON");
        assert_eq!(
            (&json["video_id"], &json["status"]),
            (&VIDEO.into(), &"completed".into())
        );
        assert_eq!(
            (&json["failures_survived"], &json["survival_counted"]),
            (&2.into(), &true.into())
        );
    }
}

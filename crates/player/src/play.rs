//! `vstack play`: plays one video, shows how it goes, and saves it when asked to.

use std::{io::Write as _, path::PathBuf, sync::Arc};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vstack_api::web::{PlayerPerformance, PlayerStatus};
use vstack_client::ClientError;
use vstack_playback::{Settings, Speed};
use vstack_types::VideoId;

use crate::{
    PlayError, Snapshot,
    display::Display,
    driver::{NotYet, Order, Outcome, Services, drive},
    sink::Target,
};

/// What to play, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct PlayOptions {
    /// The video to play; `vstack ls` lists them.
    #[arg(value_name = "VIDEO_ID")]
    pub video_id: VideoId,
    /// Write the video to this file, or to standard output when it is `-`.
    #[arg(short, long, value_name = "FILE|-")]
    pub output: Option<PathBuf>,
    /// `1` plays in real time, `2` twice as fast, `max` as fast as the nodes give.
    #[arg(long, default_value = "1", value_name = "FACTOR|max")]
    pub speed: Speed,
    /// Print a report as JSON on standard output at the end.
    #[arg(long)]
    pub json: bool,
    /// Show no status.
    #[arg(short, long)]
    pub quiet: bool,
    /// Where the metadata service is; several are separated by commas.
    #[arg(
        long,
        env = "METADATA_SERVICE_URL", value_parser = vstack_service::settings::urls,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub metadata_url: String,
}

/// How a session went.
#[derive(Debug, Clone, Serialize)]
pub struct PlayReport {
    /// It was played to its end; otherwise it was interrupted.
    pub completed: bool,
    /// As `/api/status`.
    #[serde(flatten)]
    pub status: PlayerStatus,
    /// As `/api/performance`.
    pub performance: PlayerPerformance,
}

/// Plays a video to its end or until `shutdown`. The status block goes to stderr, the report to stdout with `--json`. A
/// metadata service that does not answer yet is waited for: half a minute at most, where nobody is heard three seconds.
///
/// # Errors
/// When the video is unknown or not active, when no node or no metadata service can be reached, when every replica of
/// a chunk fails for half a minute, and when the output cannot be written. An interruption is no error: see
/// [`PlayReport::completed`].
pub async fn play(options: PlayOptions, shutdown: CancellationToken) -> Result<PlayReport, PlayError> {
    play_with(options, Settings::default(), shutdown).await
}

/// As [`play`], with other limits than the usual ones.
///
/// # Errors
/// As [`play`].
pub async fn play_with(
    options: PlayOptions,
    settings: Settings,
    shutdown: CancellationToken,
) -> Result<PlayReport, PlayError> {
    let target = match options.output {
        None => Target::Nowhere,
        Some(path) if path.as_os_str() == "-" => Target::Stdout,
        Some(path) => Target::File(path),
    };
    if options.json && target == Target::Stdout {
        return Err(PlayError::Usage(
            "--json and `--output -` both want standard output: choose one",
        ));
    }
    let services = Services::new(&options.metadata_url)?;
    let not_yet: NotYet = if options.quiet { |_, _| {} } else { tell_not_yet };
    let tagged = tokio::select! {
        tagged = services.manifest(options.video_id, not_yet) => tagged?,
        () = shutdown.cancelled() => return Ok(report(false, &Snapshot::default())),
    };
    let order = Order {
        tagged,
        settings,
        speed: options.speed,
        target,
    };
    let (snapshots, watching) = watch::channel(Arc::new(Snapshot::default()));
    let display = (!options.quiet).then(|| Display::start(watching.clone()));
    let outcome = Box::pin(drive(services, order, &snapshots, &shutdown)).await;
    drop(snapshots);
    if let Some(display) = display {
        display.finish().await;
    }
    let report = report(matches!(outcome, Ok(Outcome::Played)), &watching.borrow());
    if options.json {
        print_json(&report);
    }
    outcome.map(|_| report)
}

/// Whoever waits is to know what for.
fn tell_not_yet(url: &str, error: &ClientError) {
    let line = format!("the metadata service at {url} does not answer yet, and is asked again: {error}");
    // A closed stderr is no reason not to play.
    let _closed = writeln!(std::io::stderr().lock(), "{line}");
}

fn report(completed: bool, snapshot: &Snapshot) -> PlayReport {
    PlayReport {
        completed,
        status: snapshot.status.clone(),
        performance: snapshot.performance.clone(),
    }
}

fn print_json(report: &PlayReport) {
    let mut stdout = std::io::stdout().lock();
    let written = serde_json::to_writer_pretty(&mut stdout, report).map_err(std::io::Error::from);
    if let Err(error) = written.and_then(|()| writeln!(stdout)) {
        tracing::warn!(%error, "the report could not be written");
    }
}

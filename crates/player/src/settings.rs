//! Settings of `vstack client`.

use std::time::Duration;

use vstack_playback::{BufferSettings, MonitorSettings, SchedulerSettings};
use vstack_service::Common;

/// How the smart client's service runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Address, logs, secret.
    #[command(flatten)]
    pub common: Common,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, env = "PORT", default_value_t = 8086)]
    pub port: u16,
    /// Where the metadata service is; several are separated by commas.
    #[arg(
        long,
        env = "METADATA_SERVICE_URL", value_parser = vstack_service::settings::urls,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub metadata_service_url: String,
    /// Seconds between two pings of a node.
    #[arg(long, env = "MONITORING_INTERVAL", default_value = "3", value_parser = seconds, value_name = "SECONDS")]
    pub monitoring_interval: Duration,
    /// Seconds of video the buffer is filled to.
    #[arg(long, env = "TARGET_BUFFER_SEC", default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub target_buffer_sec: Duration,
    /// Seconds of video below which the buffer is low.
    #[arg(long, env = "LOW_WATER_MARK_SEC", default_value = "15", value_parser = seconds, value_name = "SECONDS")]
    pub low_water_mark_sec: Duration,
    /// Seconds of video with which playback starts.
    #[arg(long, env = "START_PLAYBACK_SEC", default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub start_playback_sec: Duration,
    /// Most chunks fetched at a time, 1 to 64.
    #[arg(long, env = "MAX_CONCURRENT_DOWNLOADS", default_value_t = 4, value_parser = parallel, value_name = "COUNT")]
    pub max_concurrent_downloads: usize,
}

/// Why settings cannot go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("START_PLAYBACK_SEC and LOW_WATER_MARK_SEC must not be more than TARGET_BUFFER_SEC")]
pub struct SettingsError;

impl Settings {
    /// For the playback core.
    pub(crate) fn playback(&self) -> Result<vstack_playback::Settings, SettingsError> {
        if self.start_playback_sec.max(self.low_water_mark_sec) > self.target_buffer_sec {
            return Err(SettingsError);
        }
        let scheduler = SchedulerSettings::default();
        Ok(vstack_playback::Settings {
            monitor: MonitorSettings {
                interval: self.monitoring_interval,
                ..MonitorSettings::default()
            },
            scheduler: SchedulerSettings {
                parallel_max: self.max_concurrent_downloads,
                ..scheduler
            },
            buffer: BufferSettings {
                target: self.target_buffer_sec,
                low_water: self.low_water_mark_sec,
                start: self.start_playback_sec,
                resume: self.start_playback_sec / 2,
            },
        })
    }
}

/// A day is more than any buffer; the lower end keeps a typing error from pinging nodes without pause.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if !(0.1..=86_400.0).contains(&seconds) {
        return Err("a number of seconds from 0.1 to 86400".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn parallel(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=64).contains(count));
    count.ok_or_else(|| "a number from 1 to 64".to_owned())
}

//! Settings of a storage node. Each is a flag, an environment variable and a key of the configuration file.

use std::{path::PathBuf, time::Duration};

use vstack_engine::Waste;
use vstack_types::limits::CHUNK_BYTES_MAX;

use crate::housekeeping::Habits;

/// What a storage node is told at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Address, logs, secret.
    #[command(flatten)]
    pub common: vstack_service::Common,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, env = "PORT", default_value_t = 8081, value_name = "PORT")]
    pub port: u16,
    /// Label of this node in lists and pages; made from the disk's UUID when not given.
    #[arg(long, env = "NODE_ID", value_name = "NAME", value_parser = label)]
    pub node_id: Option<String>,
    /// How the other services reach this node; the address it listens on when not given.
    #[arg(long, env = "NODE_URL", value_name = "URL", value_parser = vstack_service::settings::url)]
    pub node_url: Option<String>,
    /// How browsers and clients outside reach this node; NODE_URL when not given.
    #[arg(long, env = "NODE_PUBLIC_URL", value_name = "URL", value_parser = vstack_service::settings::url)]
    pub node_public_url: Option<String>,
    /// Where chunks and votes are kept; no other node may use it.
    #[arg(long, env = "DATA_DIR", default_value = "data/node", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the metadata service is; a comma-separated list when there are several. Without it the node runs alone.
    #[arg(long, env = "METADATA_SERVICE_URL", value_parser = urls_or_none, value_name = "URL,...")]
    pub metadata_service_url: Option<String>,
    /// Bytes of a superblock file.
    #[arg(long, env = "MAX_SUPERBLOCK_SIZE", default_value_t = 1 << 30, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(8 << 20..=u64::from(u32::MAX)))]
    pub max_superblock_size: u64,
    /// Most bytes of a chunk.
    #[arg(long, env = "MAX_CHUNK_SIZE", default_value_t = default_chunk_size(), value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(default_chunk_size())))]
    pub max_chunk_size: u32,
    /// Seconds that bytes without a vote are kept.
    #[arg(long, env = "STAGING_TTL", default_value_t = 86_400, value_name = "SECONDS")]
    pub staging_ttl: u64,
    /// Seconds that bytes are kept after a decision named them no more, for readers that have not heard of it.
    #[arg(long, env = "GC_GRACE", default_value_t = 60, value_name = "SECONDS")]
    pub gc_grace: u64,
    /// Seconds between looks for bytes that may go.
    #[arg(long, env = "GC_INTERVAL", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub gc_interval: u64,
    /// Seconds in which everything stored is read again and compared with its digest; 0 for never.
    #[arg(long, env = "SCRUB_PERIOD", default_value_t = 604_800, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub scrub_period: u64,
    /// Seconds after which bytes that were hashed are hashed again before they are served.
    #[arg(long, env = "REVERIFY_AFTER", default_value_t = 86_400, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub reverify_after: u64,
    /// Most bytes a second that are read and written so that superblocks can be emptied.
    #[arg(long, env = "COMPACT_RATE", default_value_t = 64 << 20, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1 << 16..=1 << 40))]
    pub compact_rate: u64,
    /// Percent of a superblock that have to be waste to have the rest of it written again while the node has nothing else
    /// to do; beside its work it is 30. And of a whole superblock at least half as many percent, or a sixteenth where that
    /// is less: of 1 GiB at 10 no less than 51 MiB. Less waste costs more writing: at 10, up to nine bytes are written again
    /// for each that comes back.
    #[arg(long, env = "COMPACT_IDLE_PERCENT", default_value_t = 10, value_name = "PERCENT",
          value_parser = clap::value_parser!(u64).range(1..=100))]
    pub compact_idle_percent: u64,
    /// Records of the log after which the index is written down anew.
    #[arg(long, env = "CHECKPOINT_RECORDS", default_value_t = 20_000, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub checkpoint_records: u64,
    /// Seconds between heartbeats to the metadata service.
    #[arg(long, env = "HEARTBEAT_INTERVAL", default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub heartbeat_interval: u64,
    /// Seconds in which a chunk's bytes must have arrived.
    #[arg(long, env = "BODY_TIMEOUT", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub body_timeout: u64,
    /// Seconds that a chunk's bytes may pause; BODY_TIMEOUT, where that is less.
    #[arg(long, env = "BODY_PAUSE", default_value_t = 15, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub body_pause: u64,
    /// Chunks that may be arriving at once, each with MAX_CHUNK_SIZE of memory; more wait.
    #[arg(long, env = "MAX_CONCURRENT_BODIES", default_value_t = 32, value_name = "NUMBER",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub max_concurrent_bodies: u16,
    /// Bytes of chunks that may be on their way to readers at once; more reads wait.
    #[arg(long, env = "MAX_SENDING_BYTES", default_value_t = 256 << 20, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 40))]
    pub max_sending_bytes: u64,
    /// Failure domain of this node.
    #[arg(long, env = "ZONE", value_name = "NAME")]
    pub zone: Option<String>,
    /// Origins whose pages may read from this node, separated by commas; * for any.
    #[arg(
        long,
        env = "CORS_ORIGINS", value_parser = vstack_service::settings::origin,
        default_value = "http://localhost:8085,http://127.0.0.1:8085",
        value_delimiter = ',',
        value_name = "ORIGIN,..."
    )]
    pub cors_origins: Vec<String>,
}

#[expect(clippy::cast_possible_truncation, reason = "2 MiB")]
const fn default_chunk_size() -> u32 {
    CHUNK_BYTES_MAX as u32
}

fn label(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=100).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("1 to 100 of the characters A-Z a-z 0-9 . _ -".to_owned())
    }
}

/// Nothing means that the node runs alone.
fn urls_or_none(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Ok(String::new())
    } else {
        vstack_service::settings::urls(text)
    }
}

impl Settings {
    /// None when the node runs alone.
    pub(crate) fn metadata_services(&self) -> Option<&str> {
        self.metadata_service_url.as_deref().filter(|urls| !urls.is_empty())
    }

    pub(crate) fn habits(&self) -> Habits {
        Habits {
            interval: self.gc_interval(),
            grace: self.gc_grace(),
            staging_ttl: self.staging_ttl(),
            superblock_bytes: self.max_superblock_size,
            compact_rate: self.compact_rate,
            idle_waste: Waste::percent(self.compact_idle_percent),
            checkpoint_records: self.checkpoint_records,
            scrub_period: (self.scrub_period > 0).then(|| Duration::from_secs(self.scrub_period)),
        }
    }

    pub(crate) const fn staging_ttl(&self) -> Duration {
        Duration::from_secs(self.staging_ttl)
    }

    pub(crate) const fn gc_grace(&self) -> Duration {
        Duration::from_secs(self.gc_grace)
    }

    pub(crate) const fn gc_interval(&self) -> Duration {
        Duration::from_secs(self.gc_interval)
    }

    pub(crate) const fn reverify_after(&self) -> Duration {
        Duration::from_secs(self.reverify_after)
    }

    pub(crate) const fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_interval)
    }

    pub(crate) const fn body_pause(&self) -> Duration {
        Duration::from_secs(self.body_pause)
    }

    pub(crate) const fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_urls_are_checked() {
        assert!(label("node-1.a_B").is_ok());
        for bad in ["", "a/b", "a b", "ä", &"x".repeat(101)] {
            assert!(label(bad).is_err(), "{bad}");
        }
        assert_eq!(urls_or_none(" "), Ok(String::new()));
        for bad in ["", "a:1", "ftp://a", "http://", "http://a b"] {
            assert!(vstack_service::settings::url(bad).is_err(), "{bad}");
        }
    }
}

//! The service's settings: flags and environment variables.

use std::time::Duration;

use vstack_api::metadata::RedundancyConfig;
use vstack_redundancy::{Adaptive, Policy, Rules, Threshold};
use vstack_types::limits::{CODED_BYTES_MIN, LAYOUT_NODES_MAX};

use crate::store::DatabaseUrl;

/// How it is decided which videos are hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RedundancyPolicy {
    /// By all views there ever were.
    Threshold,
    /// By the views to be expected in the next week, from those of the last ones.
    Adaptive,
}

/// Settings of the metadata service.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Address, logs, secret.
    #[command(flatten)]
    pub common: vstack_service::Common,
    /// Port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Where the database is: a file path or `sqlite://PATH`.
    #[arg(long, env = "DATABASE_URL", default_value = "data/metadata.db", value_name = "URL")]
    pub database_url: DatabaseUrl,
    /// Seconds between the heartbeats of a storage node, and between looks after nodes that send none.
    #[arg(long, env = "HEARTBEAT_INTERVAL", default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub heartbeat_interval: u32,
    /// Seconds of silence after which a storage node is down; degraded after half of them.
    #[arg(long, env = "NODE_TIMEOUT", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(2..=86_400))]
    pub node_timeout: u32,
    /// Seconds of silence after which the uploads of a process have failed.
    #[arg(long, env = "OWNER_TIMEOUT", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub owner_timeout: u32,
    /// Views past which a video is hot.
    #[arg(long, env = "POPULARITY_THRESHOLD", default_value_t = 1_000, value_name = "VIEWS")]
    pub popularity_threshold: u64,
    /// How it is decided which videos are hot: by all views there ever were, or by those to be expected in a week.
    #[arg(long, env = "REDUNDANCY_POLICY", default_value = "threshold", value_name = "POLICY")]
    pub redundancy_policy: RedundancyPolicy,
    /// Seconds for which a new video stays replicated whatever its views, and until it may become cold.
    #[arg(long, env = "COLD_AFTER", default_value_t = 86_400, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    pub cold_after: u32,
    /// Seconds for which a video that was moved to another form stays there, unless somebody asks for another.
    #[arg(long, env = "REDUNDANCY_DWELL", default_value_t = 86_400, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    pub redundancy_dwell: u32,
    /// Shards that a coded chunk is read from.
    #[arg(long, env = "ERASURE_DATA_SHARDS", default_value_t = 3, value_name = "SHARDS", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub erasure_data_shards: u8,
    /// Shards of a coded chunk beyond those.
    #[arg(long, env = "ERASURE_PARITY_SHARDS", default_value_t = 2, value_name = "SHARDS", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub erasure_parity_shards: u8,
    /// Bytes below which a chunk stays as copies.
    #[arg(long, env = "ERASURE_MIN_BYTES", default_value_t = u32::try_from(CODED_BYTES_MIN).unwrap_or(u32::MAX), value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub erasure_min_bytes: u32,
    /// Bytes a second that may go from node to node, or be written where that is more, for another form, when nothing is to be repaired.
    #[arg(long, env = "MIGRATION_RATE", default_value_t = 20_000_000, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(100_000..=100_000_000_000))]
    pub migration_rate: u64,
    /// Copies of a replicated chunk.
    #[arg(long, env = "REPLICATION_FACTOR", default_value_t = 3, value_name = "COPIES", value_parser = replication_factor)]
    pub replication_factor: usize,
    /// Whether chunks are mended and evened out; they are counted in any case.
    #[arg(long, env = "REPAIRS", default_value_t = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub repairs: bool,
    /// Seconds of silence after which a storage node counts as lost, and what it held is made anew on others.
    #[arg(long, env = "REPAIR_GRACE", default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub repair_grace: u32,
    /// Bytes a second that repairs may move from node to node.
    #[arg(long, env = "REPAIR_RATE", default_value_t = 100_000_000, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(100_000..=100_000_000_000))]
    pub repair_rate: u64,
    /// Bytes a second that may go from fuller nodes to emptier ones, so that disks fill up evenly; only while no chunk is to be repaired.
    #[arg(long, env = "REBALANCE_RATE", default_value_t = 20_000_000, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(100_000..=100_000_000_000))]
    pub rebalance_rate: u64,
    /// Seconds in which each chunk that is kept as shards is audited once, whether all of them give it; 0 for never.
    #[arg(long, env = "AUDIT_EVERY", default_value_t = 2_592_000, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    pub audit_every: u32,
    /// Seconds for which a deleted video can be restored, before its bytes go; 0 for not at all.
    #[arg(long, env = "TRASH_TIME", default_value_t = 86_400, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    pub trash_time: u32,
    /// URLs of nodes to look for besides those that register, separated by commas.
    #[arg(long, env = "STORAGE_NODES", value_parser = vstack_service::settings::url, value_delimiter = ',', value_name = "URL,...")]
    pub storage_nodes: Vec<String>,
}

fn replication_factor(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(copies) if (1..=LAYOUT_NODES_MAX).contains(&copies) => Ok(copies),
        _ => Err(format!("a number from 1 to {LAYOUT_NODES_MAX}")),
    }
}

impl Settings {
    /// After so much silence a node is down.
    pub fn node_timeout(&self) -> Duration {
        Duration::from_secs(self.node_timeout.into())
    }

    /// After so much silence the uploads of a process have failed.
    pub fn owner_timeout(&self) -> Duration {
        Duration::from_secs(self.owner_timeout.into())
    }

    /// After so much silence what a node held is made anew on others.
    pub fn repair_grace(&self) -> Duration {
        Duration::from_secs(self.repair_grace.into())
    }

    /// In so long each chunk that is kept as shards is audited once; zero for never.
    pub fn audit_every(&self) -> Duration {
        Duration::from_secs(self.audit_every.into())
    }

    /// For so long a deleted video can be restored.
    pub fn trash_time(&self) -> Duration {
        Duration::from_secs(self.trash_time.into())
    }

    /// Between looks after the nodes.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_interval.into())
    }

    /// Scores videos.
    pub fn policy(&self) -> Box<dyn Policy + Send + Sync> {
        match self.redundancy_policy {
            RedundancyPolicy::Threshold => Box::new(Threshold),
            RedundancyPolicy::Adaptive => Box::new(Adaptive),
        }
    }

    /// The rules around the policy.
    pub fn rules(&self) -> Rules {
        Rules {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a threshold needs no more than the 52 bits a float has"
            )]
            threshold: self.popularity_threshold as f64,
            cold_after: Duration::from_secs(self.cold_after.into()),
            dwell: if vstack_types::planted!("what was moved may move again at once") {
                Duration::ZERO
            } else {
                Duration::from_secs(self.redundancy_dwell.into())
            },
        }
    }

    /// The redundancy parameters in force.
    pub const fn redundancy(&self) -> RedundancyConfig {
        RedundancyConfig {
            popularity_threshold: self.popularity_threshold,
            replication_factor: self.replication_factor,
            erasure_data_shards: self.erasure_data_shards as usize,
            erasure_parity_shards: self.erasure_parity_shards as usize,
            erasure_total_shards: self.erasure_data_shards as usize + self.erasure_parity_shards as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(args: &[&str]) -> Result<Settings, clap::Error> {
        Command::try_parse_from(std::iter::once(&"metadata").chain(args)).map(|command| command.settings)
    }

    #[test]
    fn flags_are_read_and_nonsense_is_refused_with_its_name() {
        let settings = parse(&["--storage-nodes", "http://a:1,http://b:2", "--node-timeout", "8"]).unwrap();
        assert_eq!(settings.storage_nodes, ["http://a:1", "http://b:2"]);
        assert_eq!(settings.node_timeout(), Duration::from_secs(8));
        for bad in [
            ["--database-url", "postgres://u@h/db"],
            ["--replication-factor", "0"],
            ["--node-timeout", "0"],
            ["--port", "70000"],
        ] {
            let error = parse(&bad).expect_err(bad[1]).to_string();
            assert!(error.contains(bad[0]), "{error}");
        }
        let error = parse(&["--database-url", "postgres://u@h/db"])
            .expect_err("refused")
            .to_string();
        assert!(error.contains("PostgreSQL is not supported by this version"), "{error}");
    }
}

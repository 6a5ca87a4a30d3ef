//! The node that is killed, and what its log and directory say of what the kill hit.

use std::{
    net::UdpSocket,
    path::PathBuf,
    time::{Duration, Instant},
};

use rand::{RngExt as _, rngs::StdRng};
use tokio::time::sleep;

use crate::harness::{
    service::{Service, free_port},
    try_http, wait_for,
};

/// Signs the calls of this test.
pub const SECRET: &str = "a secret of the test that kills a node";

/// How often it is looked whether the moment has come.
const POLL: Duration = Duration::from_millis(1);

/// For the index to be written down: some records do, which takes a busy machine its time.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(20);

/// When to kill.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    After(Duration),
    /// While the index is being written down, or at once when it is not within some seconds.
    Checkpoint,
    /// While a superblock is being emptied, or at once when none is for so long.
    Compaction(Duration),
}

/// What is known of one run of the process.
#[derive(Debug, Default)]
pub struct Seen {
    pub in_compaction: bool,
    pub in_checkpoint: bool,
    pub was_torn: bool,
    pub resumed: bool,
    pub emptied: u64,
}

pub struct Victim {
    directory: tempfile::TempDir,
    port: String,
    compact_rate: String,
    _sign: UdpSocket,
    service: Option<Service>,
    runs: u64,
}

impl Victim {
    pub fn new(compact_rate: &str) -> Self {
        let (port, sign) = free_port();
        Self {
            directory: tempfile::Builder::new().prefix("vstack-test-").tempdir().unwrap(),
            port,
            compact_rate: compact_rate.to_owned(),
            _sign: sign,
            service: None,
            runs: 0,
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("node")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join(format!("run-{}.log", self.runs % 2))
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) {
        self.runs += 1;
        let _ = std::fs::remove_file(self.log());
        let data = self.data();
        let env = [
            ("PORT", self.port.as_str()),
            ("DATA_DIR", data.to_str().unwrap()),
            ("MAX_SUPERBLOCK_SIZE", "8388608"),
            ("COMPACT_RATE", &self.compact_rate),
            ("GC_INTERVAL", "1"),
            ("GC_GRACE", "0"),
            ("CHECKPOINT_RECORDS", "50"),
            ("SCRUB_PERIOD", "1"),
        ];
        let service = Service::start("storage-node", &self.log(), SECRET, &env);
        self.service = Some(service);
        let ready = format!("{}/ready", self.url());
        let wait = move || {
            wait_for("the node to answer", || {
                try_http("GET", &ready, |request| request.timeout(Duration::from_secs(2)))
                    .is_ok_and(|answer| answer.status == 200)
                    .then_some(())
            });
        };
        if let Err(panic) = tokio::task::spawn_blocking(wait).await {
            panic!("it did not start ({panic}): {}", self.log_text());
        }
    }

    /// Nothing was found damaged: kills damage nothing.
    pub fn assert_unharmed(&self) {
        let text = self.log_text();
        let wrong = [
            "damage on disk",
            "found damaged",
            "is damaged",
            "could not be written down",
            "could not be emptied",
            "could not be scrubbed",
            "panicked",
        ];
        for said in wrong {
            assert!(!text.contains(said), "{said}: {text}");
        }
    }

    /// SIGKILL at the moment that `aim` says.
    pub async fn kill_at(&mut self, aim: Aim, rng: &mut StdRng) {
        let limit = match aim {
            Aim::After(duration) => duration,
            Aim::Checkpoint => CHECKPOINT_WITHIN,
            Aim::Compaction(limit) => limit,
        };
        let deadline = Instant::now() + limit;
        let new_checkpoint = self.data().join("checkpoint.new");
        while Instant::now() < deadline {
            let has_come = match aim {
                Aim::After(_) => false,
                Aim::Checkpoint => new_checkpoint.exists(),
                Aim::Compaction(_) => self.is_inside_compaction(rng).await,
            };
            if has_come {
                break;
            }
            sleep(POLL).await;
        }
        self.service = None;
        self.assert_unharmed();
    }

    /// Whether a superblock is being emptied, and still is some time later: any part of it is hit.
    async fn is_inside_compaction(&self, rng: &mut StdRng) -> bool {
        if !is_compacting(&self.log_text()) {
            return false;
        }
        let spread = [1, 10, 100, 400][rng.random_range(0..4)];
        sleep(Duration::from_millis(rng.random_range(0..spread))).await;
        is_compacting(&self.log_text())
    }

    /// What the run that was killed last did, and what the kill hit.
    pub fn seen(&self) -> Seen {
        let text = self.log_text();
        Seen {
            in_compaction: is_compacting(&text),
            in_checkpoint: self.data().join("checkpoint.new").exists(),
            was_torn: text.contains("was cut off"),
            resumed: text.contains("opened from a checkpoint"),
            emptied: text.matches("superblock emptied").count() as u64,
        }
    }
}

fn is_compacting(log: &str) -> bool {
    let begun = log.matches("a superblock is being emptied").count();
    let ended = log.matches("superblock emptied").count() + log.matches("it stays").count();
    begun > ended
}

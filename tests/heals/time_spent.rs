//! How long is spent on mending which chunk, by what `GET /repairs` tells of jobs that ended.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{harness::try_http, shared::Filled};

/// Between two looks: to look is work for the service that mends, and it tells of the last two hundred jobs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Follows what is mended.
#[derive(Debug, Default)]
pub struct TimeSpent {
    last: Option<Instant>,
    /// Seconds that jobs took that ended: of which chunk, and when each began.
    jobs: BTreeMap<(String, String), f64>,
}

/// What some jobs took, together.
#[derive(Debug, Default)]
pub struct Spent {
    pub jobs: usize,
    pub seconds: f64,
}

impl TimeSpent {
    /// To be called all the while. Who does not answer just now is asked another time.
    pub fn look(&mut self, filled: &Filled) {
        if self.last.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let url = format!("{}/repairs", filled.cluster.url("metadata"));
        let Ok(answer) = try_http("GET", &url, |request| request.timeout(Duration::from_secs(10))) else {
            return;
        };
        if answer.status == 200 {
            self.note(&answer.json());
        }
    }

    fn note(&mut self, repairs: &Value) {
        for job in repairs["recent"].as_array().unwrap() {
            let text = |name: &str| job[name].as_str().unwrap().to_owned();
            let took = job["took_sec"].as_f64().unwrap_or_default();
            self.jobs.insert((text("chunk_id"), text("began")), took);
        }
    }

    /// On these chunks.
    pub fn on(&self, is_one: impl Fn(&str) -> bool) -> Spent {
        let jobs = self.jobs.iter().filter(|((chunk, _), _)| is_one(chunk));
        jobs.fold(Spent::default(), |spent, (_, seconds)| Spent {
            jobs: spent.jobs + 1,
            seconds: spent.seconds + seconds,
        })
    }
}

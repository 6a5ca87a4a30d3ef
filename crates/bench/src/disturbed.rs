//! What readers notice while a node is busy with something of its own: requests at a set rate, in short windows, of
//! which those count in which the node's own counters say that it was at work.

use std::time::{Duration, Instant};

use vstack_client::HttpClient;

use crate::{
    load::Worker,
    metrics,
    open_loop::{Paced, Plan, open_loop},
};

/// Counters of a node that rise while it is at work.
#[derive(Debug)]
pub struct Signs {
    http: HttpClient,
    url: String,
    names: &'static [&'static str],
}

impl Signs {
    /// Of the node at `host`.
    pub fn new(http: HttpClient, host: &str, names: &'static [&'static str]) -> Self {
        Self {
            http,
            url: format!("http://{host}"),
            names,
        }
    }

    /// Their sum; none when the node has none of them.
    pub async fn sum(&self) -> anyhow::Result<Option<f64>> {
        metrics::sum(self.http.transport(), &self.url, self.names).await
    }
}

/// How long work is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until it begins.
    pub begins_within: Duration,
    /// Without any, until it is over.
    pub over_after: Duration,
    /// In all.
    pub at_most: Duration,
}

/// What was seen of the work and of requests beside it.
#[derive(Debug, Default)]
pub struct Disturbed {
    /// Requests of windows with work in them.
    pub paced: Paced,
    /// How long those windows were together.
    pub seconds: f64,
    /// By how much the counters rose.
    pub work: f64,
    /// It was given up before the work was over.
    pub unfinished: bool,
}

/// Sends requests, a window after the other as `plan` says, until the work is over. `before` is the sum of the counters
/// from before whatever causes the work. None when no work was seen.
pub async fn while_at_work<W: Worker>(
    mut workers: Vec<W>,
    plan: Plan,
    signs: &Signs,
    before: f64,
    patience: Patience,
) -> anyhow::Result<Option<Disturbed>> {
    let started = Instant::now();
    let mut found = Disturbed::default();
    let (mut last, mut last_work) = (before, None::<Instant>);
    for window in 0.. {
        let began = Instant::now();
        let plan = Plan {
            seed: plan.seed.wrapping_add(window),
            ..plan
        };
        let (paced, idle) = open_loop(workers, plan).await?;
        workers = idle;
        let now = signs.sum().await?.unwrap_or(last);
        if now > last {
            found.paced.add(&paced);
            found.seconds += began.elapsed().as_secs_f64();
            found.work += now - last;
            last_work = Some(Instant::now());
        }
        last = now;
        match last_work {
            None if started.elapsed() > patience.begins_within => return Ok(None),
            Some(seen) if seen.elapsed() > patience.over_after => break,
            _ if started.elapsed() > patience.at_most => {
                found.unfinished = true;
                break;
            }
            None | Some(_) => {}
        }
    }
    Ok(Some(found).filter(|found| found.seconds > 0.0))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use axum::{Router, routing::get};
    use vstack_client::Timeouts;

    use super::*;
    use crate::open_loop::Pace;

    struct Nothing;

    impl Worker for Nothing {
        async fn once(&mut self) -> anyhow::Result<Duration> {
            Ok(Duration::ZERO)
        }
    }

    const PLAN: Plan = Plan {
        pace: Pace::Fixed,
        rate: 500.0,
        duration: Duration::from_millis(20),
        seed: 1,
    };
    const PATIENCE: Patience = Patience {
        begins_within: Duration::from_millis(200),
        over_after: Duration::from_millis(100),
        at_most: Duration::from_secs(60),
    };

    /// A node that does ten pieces of work, one for each time it is asked, and then nothing more.
    async fn node(pieces: u64) -> String {
        let asked = Arc::new(AtomicU64::new(0));
        let said = move || {
            let done = asked.fetch_add(1, Ordering::Relaxed).min(pieces);
            async move { format!("work_total {done}\nother_total 5\n# EOF\n") }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let router = Router::new().route("/metrics", get(said));
        tokio::spawn(async move { axum::serve(listener, router).await });
        host
    }

    async fn measured(pieces: u64, names: &'static [&'static str]) -> (Option<f64>, Option<Disturbed>) {
        let http = HttpClient::new(None, Timeouts::default()).unwrap();
        let signs = Signs::new(http, &node(pieces).await, names);
        let before = signs.sum().await.unwrap();
        let found = while_at_work(vec![Nothing], PLAN, &signs, before.unwrap_or(0.0), PATIENCE);
        (before, found.await.unwrap())
    }

    #[tokio::test]
    async fn only_windows_with_work_in_them_count() {
        let (before, found) = measured(10, &["work_total", "other_total", "missing"]).await;
        assert_eq!(before, Some(5.0));
        let found = found.unwrap();
        assert!((found.work - 10.0).abs() < 1e-9 && !found.unfinished, "{found:?}");
        assert_eq!(found.paced.latency.count(), 10 * 9, "ten windows of nine requests");
    }

    #[tokio::test]
    async fn work_that_does_not_come_is_not_waited_for_for_ever() {
        let (before, found) = measured(0, &["work_total"]).await;
        assert_eq!(before, Some(0.0));
        assert!(found.is_none());
        assert_eq!(measured(10, &["missing"]).await.0, None);
    }
}

//! When a cluster counts as up: every service answers, and every storage node is accepted by the metadata service.
//!
//! Who does not answer yet is waited for as long as its process lives: a storage node that was not stopped in order reads
//! its whole disk first, however long that takes. Who ended too often is not waited for.
//!
//! A storage node that does not get there is left out after a while, as long as another one does: the point of several
//! nodes is that one may be missing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::bail;
use futures_util::future::join_all;
use tokio::time::sleep;
use vstack_client::{HttpClient, MetadataClient, Timeouts};
use vstack_types::Timestamp;

use super::plan::{NODE_NAME, Urls};
use crate::output::say;

/// How long the others wait for storage nodes that are not about to come.
const NODES_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take until one of the nodes that answer is accepted.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two lines that say who is waited for.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How far it is.
struct Look<'a> {
    /// Services that do not answer yet, and may.
    silent: Vec<&'a str>,
    /// Services that do not answer, and ended so often that nobody waits for them.
    ended: Vec<&'a str>,
    /// Nodes that answer and are not accepted.
    refused: Vec<&'a str>,
    /// Nodes that are accepted.
    accepted: usize,
}

/// What a look comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nobody is missing.
    Complete,
    /// Somebody who lives does not answer yet.
    Starting,
    /// Only storage nodes are missing, not all of them, and none is about to come.
    Enough,
    /// Storage nodes answer, and none is accepted.
    Refused,
    /// Somebody is not going to come without whom it does not go.
    Hopeless,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Wait,
    Up,
    UpWithout,
    GiveUp,
}

fn is_node(name: &str) -> bool {
    name.starts_with(NODE_NAME)
}

impl Look<'_> {
    fn standing(&self) -> Standing {
        if self.silent.is_empty() && self.ended.is_empty() && self.refused.is_empty() {
            return Standing::Complete;
        }
        let any_node_may_come =
            self.accepted > 0 || !self.refused.is_empty() || self.silent.iter().any(|name| is_node(name));
        if !any_node_may_come || !self.ended.iter().all(|name| is_node(name)) {
            Standing::Hopeless
        } else if !self.silent.is_empty() {
            Standing::Starting
        } else if self.accepted > 0 {
            Standing::Enough
        } else {
            Standing::Refused
        }
    }

    /// Whether only storage nodes are missing, and not all of them.
    fn is_enough(&self) -> bool {
        self.accepted > 0 && self.silent.iter().chain(&self.ended).all(|name| is_node(name))
    }

    /// When it stood like this for `unchanged`, `waited` after it began, with `limit` on that.
    fn decide(&self, unchanged: Duration, waited: Duration, limit: Option<Duration>) -> Decision {
        let is_over = limit.is_some_and(|limit| waited >= limit);
        match self.standing() {
            Standing::Complete => Decision::Up,
            Standing::Hopeless => Decision::GiveUp,
            _ if is_over && self.is_enough() => Decision::UpWithout,
            _ if is_over => Decision::GiveUp,
            Standing::Enough if unchanged >= NODES_PATIENCE => Decision::UpWithout,
            Standing::Refused if unchanged >= ACCEPTED_WITHIN => Decision::GiveUp,
            Standing::Starting | Standing::Enough | Standing::Refused => Decision::Wait,
        }
    }

    /// A line for each that is missing.
    fn complaints(&self) -> Vec<String> {
        let all = [
            (&self.silent, "does not answer"),
            (&self.ended, "does not start"),
            (&self.refused, "is not accepted by the metadata service"),
        ];
        let lines = all.into_iter().flat_map(|(names, what)| {
            let line = move |name: &&str| format!("{name} {what}: `vstack logs {name}` says why");
            names.iter().map(line)
        });
        lines.collect()
    }

    /// A line about who is waited for.
    fn progress(&self, waited: Duration) -> String {
        let mut parts = Vec::new();
        if !self.silent.is_empty() {
            let why = if self.silent.iter().any(|name| is_node(name)) {
                ": a node that was not stopped in order reads its whole disk"
            } else {
                ""
            };
            parts.push(format!("{}{why}", self.silent.join(", ")));
        }
        if !self.refused.is_empty() {
            parts.push(format!("the metadata service to accept {}", self.refused.join(", ")));
        }
        if !self.ended.is_empty() {
            parts.push(format!("{} to start after all", self.ended.join(", ")));
        }
        format!(
            "still waiting for {} ({} s so far)",
            parts.join("; for "),
            waited.as_secs()
        )
    }
}

/// Waits until the cluster, begun at `started`, is up, for `limit` at most if there is one; says what comes up, and who
/// is waited for. Gives the number of storage nodes in use.
///
/// # Errors
/// When it does not come up; with the names of what is missing.
pub async fn wait(
    urls: &Urls,
    started: Timestamp,
    limit: Option<Duration>,
    is_given_up: impl Fn(&str) -> bool,
) -> anyhow::Result<usize> {
    let http = HttpClient::new(
        None,
        Timeouts {
            control: ANSWER_TIMEOUT,
            ..Timeouts::default()
        },
    )?;
    let began = Instant::now();
    let mut told = began;
    let mut answered = BTreeSet::new();
    let mut before: Option<(Standing, Instant)> = None;
    loop {
        let look = look(&http, urls, started, &mut answered, &is_given_up).await;
        let standing = look.standing();
        let since = match before {
            Some((same, since)) if same == standing => since,
            _ => Instant::now(),
        };
        before = Some((standing, since));
        let waited = began.elapsed();
        match look.decide(since.elapsed(), waited, limit) {
            Decision::Wait => {}
            Decision::Up => return Ok(look.accepted),
            Decision::UpWithout => {
                for complaint in look.complaints() {
                    say!("{complaint}");
                }
                say!("Going on without; it is still tried, and joins when it can.");
                return Ok(look.accepted);
            }
            Decision::GiveUp => bail!(
                "not ready after {} s:\n  {}",
                waited.as_secs(),
                look.complaints().join("\n  ")
            ),
        }
        if told.elapsed() >= TELL_EVERY {
            say!("{}", look.progress(waited));
            told = Instant::now();
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn look<'a>(
    http: &HttpClient,
    urls: &'a Urls,
    started: Timestamp,
    answered: &mut BTreeSet<&'a str>,
    is_given_up: &impl Fn(&str) -> bool,
) -> Look<'a> {
    let silent: Vec<&'a (String, String)> = urls
        .all
        .iter()
        .filter(|(name, _)| !answered.contains(name.as_str()))
        .collect();
    // Side by side: who is busy with its disk takes connections and keeps each of them waiting.
    let asked = silent
        .into_iter()
        .map(|(name, url)| async move { answers(http, url).await.then_some((name, url)) });
    for (name, url) in join_all(asked).await.into_iter().flatten() {
        say!("  {name:<16} {url}");
        answered.insert(name);
    }
    let known = MetadataClient::new(http.clone(), &urls.metadata).nodes().await;
    let accepted: BTreeSet<String> = known
        .unwrap_or_default()
        .into_iter()
        .filter(|node| node.trusted && node.last_heartbeat.is_some_and(|time| time.0 >= started))
        .map(|node| node.node_id)
        .collect();
    let names = || urls.all.iter().map(|(name, _)| name.as_str());
    let (ended, silent): (Vec<&str>, Vec<&str>) = names()
        .filter(|name| !answered.contains(name))
        .partition(|name| is_given_up(name));
    Look {
        silent,
        ended,
        refused: names()
            .filter(|name| is_node(name) && answered.contains(name) && !accepted.contains(*name))
            .collect(),
        accepted: names().filter(|name| is_node(name) && accepted.contains(*name)).count(),
    }
}

async fn answers(http: &HttpClient, url: &str) -> bool {
    let ready = http.transport().get(format!("{url}/ready")).timeout(ANSWER_TIMEOUT);
    ready.send().await.is_ok_and(|answer| answer.status().is_success())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;
    const HOURS: Duration = Duration::from_secs(9 * 3600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn look(
        silent: &[&'static str],
        ended: &[&'static str],
        refused: &[&'static str],
        accepted: usize,
    ) -> Look<'static> {
        Look {
            silent: silent.to_vec(),
            ended: ended.to_vec(),
            refused: refused.to_vec(),
            accepted,
        }
    }

    #[test]
    fn a_node_may_be_missing_another_service_may_not() {
        assert_eq!(look(&[], &[], &[], 3).standing(), Standing::Complete);
        for (missing, enough) in [
            (look(&["storage-node-2"], &[], &[], 2), true),
            (look(&[], &["storage-node-2"], &[], 2), true),
            (look(&[], &[], &["storage-node-2"], 2), true),
            (look(&[], &[], &["storage-node-1"], 0), false),
            (look(&["uploader"], &[], &[], 3), false),
            (look(&["web", "storage-node-2"], &[], &[], 2), false),
            (look(&["storage-node-2"], &["web"], &[], 2), false),
        ] {
            assert_ne!(missing.standing(), Standing::Complete);
            assert_eq!(missing.is_enough(), enough, "{:?}", missing.complaints());
        }
    }

    #[test]
    fn who_lives_is_waited_for_and_who_ended_is_not() {
        use Decision::{GiveUp, Up, UpWithout, Wait};
        let (one, two) = ("storage-node-1", "storage-node-2");
        for (look, at_once, after_hours) in [
            (look(&[], &[], &[], 2), Up, Up),
            // However long a disk takes, and whoever else is there.
            (look(&[one, two], &[], &[], 0), Wait, Wait),
            (look(&[two], &[], &[], 1), Wait, Wait),
            (look(&["metadata"], &[], &[one, two], 0), Wait, Wait),
            (look(&[one], &[two], &[], 0), Wait, Wait),
            // One may be missing.
            (look(&[], &[two], &[], 1), Wait, UpWithout),
            (look(&[], &[], &[two], 1), Wait, UpWithout),
            // Not every one.
            (look(&[], &[two], &[one], 0), Wait, GiveUp),
            (look(&[], &[one, two], &[], 0), GiveUp, GiveUp),
            (look(&["web"], &[one, two], &[], 0), GiveUp, GiveUp),
            // And no other service.
            (look(&[], &["uploader"], &[], 2), GiveUp, GiveUp),
            (look(&[one], &["uploader"], &[], 1), GiveUp, GiveUp),
        ] {
            let said = look.complaints();
            assert_eq!(look.decide(NO_TIME, NO_TIME, None), at_once, "{said:?}");
            assert_eq!(look.decide(HOURS, HOURS, None), after_hours, "{said:?}");
        }
    }

    #[test]
    fn patience_begins_when_nobody_is_about_to_come_any_more() {
        let missing = look(&[], &["storage-node-2"], &[], 1);
        assert_eq!(missing.decide(NODES_PATIENCE / 2, HOURS, None), Decision::Wait);
        assert_eq!(missing.decide(NODES_PATIENCE, HOURS, None), Decision::UpWithout);
        let refused = look(&[], &[], &["storage-node-1"], 0);
        assert_eq!(refused.decide(ACCEPTED_WITHIN / 2, HOURS, None), Decision::Wait);
        assert_eq!(refused.decide(ACCEPTED_WITHIN, HOURS, None), Decision::GiveUp);
    }

    #[test]
    fn a_limit_ends_the_wait_for_who_lives() {
        let at = |look: Look<'_>, waited| look.decide(NO_TIME, waited, Some(MINUTE));
        let all = || look(&["storage-node-1", "storage-node-2"], &[], &[], 0);
        let one = || look(&["storage-node-2"], &[], &[], 1);
        assert_eq!(
            (at(all(), MINUTE / 2), at(one(), MINUTE / 2)),
            (Decision::Wait, Decision::Wait)
        );
        assert_eq!(
            (at(all(), MINUTE), at(one(), MINUTE)),
            (Decision::GiveUp, Decision::UpWithout)
        );
        assert_eq!(at(look(&[], &[], &[], 2), HOURS), Decision::Up);
    }

    #[test]
    fn who_is_missing_is_named_with_the_next_step() {
        assert_eq!(
            look(&["uploader"], &["storage-node-1"], &["storage-node-2"], 2).complaints(),
            [
                "uploader does not answer: `vstack logs uploader` says why",
                "storage-node-1 does not start: `vstack logs storage-node-1` says why",
                "storage-node-2 is not accepted by the metadata service: `vstack logs storage-node-2` says why",
            ]
        );
    }

    #[test]
    fn who_is_waited_for_is_named_with_the_time_it_took() {
        let waited = Duration::from_secs(73);
        assert_eq!(
            look(&["storage-node-1", "storage-node-2"], &[], &[], 0).progress(waited),
            "still waiting for storage-node-1, storage-node-2: a node that was not stopped in order reads its whole disk \
             (73 s so far)"
        );
        assert_eq!(
            look(&["uploader"], &[], &[], 3).progress(waited),
            "still waiting for uploader (73 s so far)"
        );
        assert_eq!(
            look(&["web"], &["storage-node-1"], &["storage-node-2"], 1).progress(waited),
            "still waiting for web; for the metadata service to accept storage-node-2; for storage-node-1 to start after \
             all (73 s so far)"
        );
    }
}

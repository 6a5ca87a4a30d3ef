//! Rounds of the scrub, by what the nodes say of when they last read everything again.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::shared::Filled;

/// Between two looks: to look is work for the nodes that scrub.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Has the node of a data directory that nobody uses begin a round anew, as where nothing is known of the one before:
/// the end of one that it is in the middle of would say nothing of what happened to what it has read already.
pub fn begin_anew(directory: &Path) {
    match std::fs::remove_file(directory.join("scrub")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", directory.display()),
        _ => {}
    }
}

/// Follows when rounds end at some nodes.
#[derive(Debug)]
pub struct Rounds {
    /// In seconds since 1970. Rounds that ended before say nothing.
    since: f64,
    last_look: Option<Instant>,
    /// In seconds since 1970, of each node the rounds that were seen to end, in order.
    ended: BTreeMap<String, Vec<f64>>,
}

impl Rounds {
    /// From now on.
    pub fn from_now(nodes: impl IntoIterator<Item = String>) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self {
            // Nodes tell whole seconds.
            since: now.as_secs() as f64,
            last_look: None,
            ended: nodes.into_iter().map(|node| (node, Vec::new())).collect(),
        }
    }

    /// To be called all the while; says whether it was time for a look. Who does not answer just now is asked another time.
    pub fn look(&mut self, filled: &Filled) -> bool {
        if self.last_look.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return false;
        }
        self.last_look = Some(Instant::now());
        for (node, ended) in &mut self.ended {
            if let Some(at) = filled.metric(node, "vstack_scrub_completed_seconds") {
                note(ended, at, self.since);
            }
        }
        true
    }

    /// When the last of them ended its first round, once each has.
    pub fn all_had_one(&self) -> Option<f64> {
        let mut firsts = self.ended.values().map(|ended| ended.first().copied());
        firsts.try_fold(0.0, |latest: f64, first| Some(latest.max(first?)))
    }

    /// Which of these nodes ended a further round after all had had one.
    pub fn had_another(&self, nodes: &[String]) -> Option<&str> {
        let all = self.all_had_one()?;
        let mut these = self.ended.iter().filter(|(node, _)| nodes.contains(node));
        let (node, _) = these.find(|(_, ended)| ended.len() > 1 && ended.last() > Some(&all))?;
        Some(node)
    }
}

fn note(ended: &mut Vec<f64>, at: f64, since: f64) {
    if at >= since && ended.last().is_none_or(|last| at > *last) {
        ended.push(at);
    }
}

#[test]
fn a_further_round_is_one_after_all_had_one() {
    let names = ["a", "b"].map(str::to_owned);
    let mut rounds = Rounds::from_now(names.clone());
    rounds.since = 100.0;
    let mut tell = |node: &str, at: f64| {
        note(rounds.ended.get_mut(node).unwrap(), at, rounds.since);
        let further = rounds.had_another(&names).map(str::to_owned);
        (rounds.all_had_one(), further)
    };
    assert_eq!(tell("a", 99.0), (None, None), "of before");
    assert_eq!(tell("a", 0.0), (None, None), "it was started again, and knows of none");
    assert_eq!(tell("a", 130.0), (None, None));
    assert_eq!(tell("a", 131.0), (None, None), "the other one had none yet");
    assert_eq!(tell("b", 140.0), (Some(140.0), None));
    assert_eq!(tell("b", 140.0), (Some(140.0), None), "the same");
    assert_eq!(tell("b", 190.0), (Some(140.0), Some("b".to_owned())));
    assert_eq!(rounds.had_another(&names[..1]), None, "asked of the other one");
}

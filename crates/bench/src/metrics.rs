//! Reads counters of a service's `/metrics`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

/// Requests answered so far, by method and route.
pub type Requests = BTreeMap<(String, String), u64>;

/// What a node counted that consensus is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests answered.
    pub requests: Requests,
    /// Batches of the log, each written with one sync before anything in it is answered.
    pub batches: u64,
    /// Syncs; beyond those of batches they are marks of the log's end, made when nothing else is to be done.
    pub syncs: u64,
    /// Decisions that came one by one and were noted.
    pub noted: u64,
}

impl Counters {
    /// Those of another node.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.requests {
            *self.requests.entry(key.clone()).or_default() += count;
        }
        self.batches += other.batches;
        self.syncs += other.syncs;
        self.noted += other.noted;
    }

    /// What came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            requests: since(&before.requests, &self.requests),
            batches: self.batches.saturating_sub(before.batches),
            syncs: self.syncs.saturating_sub(before.syncs),
            noted: self.noted.saturating_sub(before.noted),
        }
    }

    fn read(text: &str) -> Self {
        Self {
            requests: parse(text),
            batches: sample(text, "vstack_engine_batches_total"),
            syncs: sample(text, "vstack_engine_syncs_total"),
            noted: sample(text, "vstack_paxos_replies_total{kind=\"noted\"}"),
        }
    }
}

/// The value of the sample that a line begins with; 0 when there is none yet.
fn sample(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Asks a node for what it counted.
pub async fn counters(http: &reqwest::Client, url: &str) -> anyhow::Result<Counters> {
    Ok(Counters::read(&text(http, url).await?))
}

/// Asks a service.
pub async fn requests(http: &reqwest::Client, url: &str) -> anyhow::Result<Requests> {
    Ok(parse(&text(http, url).await?))
}

/// Asks a node for one sample, a counter's or a gauge's. None when it has no such sample.
pub async fn value(http: &reqwest::Client, url: &str, name: &str) -> anyhow::Result<Option<f64>> {
    Ok(number(&text(http, url).await?, name))
}

/// Asks a node for the sum of samples. None when it has none of them.
pub async fn sum(http: &reqwest::Client, url: &str, names: &[&str]) -> anyhow::Result<Option<f64>> {
    let text = text(http, url).await?;
    let values = names.iter().filter_map(|name| number(&text, name));
    Ok(values.reduce(|sum, value| sum + value))
}

fn number(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.parse().ok()
}

async fn text(http: &reqwest::Client, url: &str) -> anyhow::Result<String> {
    let answer = http
        .get(format!("{url}/metrics"))
        .timeout(std::time::Duration::from_secs(5))
        .send()
        .await?;
    ensure!(
        answer.status().is_success(),
        "{url}/metrics answered {}",
        answer.status()
    );
    answer.text().await.context("no text from /metrics")
}

/// What came after `before`; counters of a restarted service start again.
pub fn since(before: &Requests, now: &Requests) -> Requests {
    let new = now
        .iter()
        .map(|(key, count)| (key.clone(), count.saturating_sub(before.get(key).copied().unwrap_or(0))));
    new.filter(|(_, count)| *count > 0).collect()
}

/// Lines `vstack_http_requests_total{method="PUT",route="/chunk/{id}",status="201"} 5`; statuses are added up.
fn parse(text: &str) -> Requests {
    let mut requests = Requests::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("vstack_http_requests_total{") else {
            continue;
        };
        let Some((labels, count)) = rest.rsplit_once("} ") else {
            continue;
        };
        if let (Some(method), Some(route), Ok(count)) =
            (label(labels, "method"), label(labels, "route"), count.parse::<u64>())
        {
            *requests.entry((method.to_owned(), route.to_owned())).or_default() += count;
        }
    }
    requests
}

/// Routes and methods hold no quotes, so none is escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_method_and_route() {
        let text = "# TYPE vstack_http_requests counter\n\
            vstack_http_requests_total{method=\"PUT\",route=\"/chunk/{id}\",status=\"201\"} 5\n\
            vstack_http_requests_total{method=\"PUT\",route=\"/chunk/{id}\",status=\"200\"} 2\n\
            vstack_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"200\"} 1\n\
            vstack_http_request_seconds_count{route=\"/metrics\"} 1\n# EOF\n";
        let now = parse(text);
        let key = |method: &str, route: &str| (method.to_owned(), route.to_owned());
        assert_eq!(now[&key("PUT", "/chunk/{id}")], 7);
        assert_eq!(now[&key("GET", "/metrics")], 1);
        assert_eq!(now.len(), 2);
        let before = Requests::from([(key("PUT", "/chunk/{id}"), 3), (key("GET", "/metrics"), 1)]);
        assert_eq!(since(&before, &now), Requests::from([(key("PUT", "/chunk/{id}"), 4)]));
    }

    #[test]
    fn what_consensus_is_made_of_is_read_and_added_up() {
        let text = "# HELP vstack_engine_syncs Syncs of data.\nvstack_engine_syncs_total 9\n\
            vstack_engine_batches_total 7\nvstack_paxos_replies_total{kind=\"accepted\"} 4\n\
            vstack_paxos_replies_total{kind=\"noted\"} 3\n# EOF\n";
        let one = Counters::read(text);
        assert_eq!((one.syncs, one.batches, one.noted), (9, 7, 3));
        let mut both = one.clone();
        both.add(&one);
        assert_eq!((both.syncs, both.batches, both.noted), (18, 14, 6));
        assert_eq!(both.since(&one), one);
        assert_eq!(Counters::read("").syncs, 0);
        assert_eq!(number(text, "vstack_engine_batches_total"), Some(7.0));
        assert_eq!(number(text, "vstack_engine"), None, "not a part of a name");
    }
}

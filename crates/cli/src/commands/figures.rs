//! What a storage node measured since its start, read from its `/metrics`.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::Table;
use serde::Serialize;
use tokio::time::timeout;
use vstack_client::NodeClient;

use crate::output::{self, bytes, plain};

/// A node that is slower is shown without figures.
const PATIENCE: Duration = Duration::from_secs(3);

/// Half of what took place was faster, and all but a hundredth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    p50_ms: f64,
    p99_ms: f64,
}

/// Figures of one node since its start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    put: Option<Times>,
    get_first_byte: Option<Times>,
    get: Option<Times>,
    sync: Option<Times>,
    paxos: Option<Times>,
    collect: Option<Times>,
    #[serde(rename = "move")]
    moving: Option<Times>,
    checkpoint: Option<Times>,
    /// Bytes of items.
    written_bytes: Option<u64>,
    read_bytes: Option<u64>,
    /// Looks at the index that memory answered, and that read the disk.
    index_hits: Option<u64>,
    index_misses: Option<u64>,
    /// Pieces of chunks that were in the page cache, and that the disk was waited for.
    pieces_cached: Option<u64>,
    pieces_waited: Option<u64>,
    batch_operations_mean: Option<f64>,
    batch_bytes_mean: Option<f64>,
    queue_operations: Option<u64>,
    queue_bytes: Option<u64>,
    space_allocated_bytes: Option<u64>,
    space_live_bytes: Option<u64>,
    /// Log sequence numbers since the index was written down.
    checkpoint_age_records: Option<u64>,
    /// Seconds since 1970; none when it is not known that everything was read again.
    scrub_completed_s: Option<u64>,
    /// Damage that the scrub found.
    scrub_findings: u64,
    /// Items found damaged, by whomever.
    quarantined: Option<u64>,
    /// Everything that the node's `/metrics` says of its engine and its votes, but for the buckets of histograms.
    series: BTreeMap<String, serde_json::Number>,
}

/// Asks a node; none when it does not answer.
pub async fn of(client: &NodeClient, url: &str) -> Option<Figures> {
    let text = timeout(PATIENCE, client.metrics(url)).await.ok()?.ok()?;
    Some(Figures::read(&text))
}

impl Figures {
    fn read(text: &str) -> Self {
        let samples = Samples(text);
        let times = |operation: &str| {
            let buckets = samples.buckets("vstack_operation_seconds", &format!("operation=\"{operation}\""));
            Some(Times {
                p50_ms: quantile(&buckets, 0.5)? * 1000.0,
                p99_ms: quantile(&buckets, 0.99)? * 1000.0,
            })
        };
        let log_seq = samples.whole("vstack_log_seq");
        let checkpoint = samples.whole("vstack_checkpoint_seq");
        Self {
            put: times("put"),
            get_first_byte: times("get_first_byte"),
            get: times("get"),
            sync: times("sync"),
            paxos: times("paxos"),
            collect: times("collect"),
            moving: times("move"),
            checkpoint: times("checkpoint"),
            written_bytes: samples.whole("vstack_engine_written_bytes_total"),
            read_bytes: samples.whole("vstack_engine_read_bytes_total"),
            index_hits: samples.whole("vstack_index_hits_total"),
            index_misses: samples.whole("vstack_index_misses_total"),
            pieces_cached: samples.whole("vstack_engine_pieces_cached_total"),
            pieces_waited: samples.whole("vstack_engine_pieces_waited_total"),
            batch_operations_mean: samples.mean("vstack_batch_operations"),
            batch_bytes_mean: samples.mean("vstack_batch_bytes"),
            queue_operations: samples.whole("vstack_queue_operations"),
            queue_bytes: samples.whole("vstack_queue_bytes"),
            space_allocated_bytes: samples.whole("vstack_space_allocated_bytes"),
            space_live_bytes: samples.whole("vstack_space_live_bytes"),
            checkpoint_age_records: log_seq
                .zip(checkpoint)
                .map(|(log_seq, checkpoint)| log_seq.saturating_sub(checkpoint)),
            scrub_completed_s: samples.whole("vstack_scrub_completed_seconds").filter(|at| *at > 0),
            scrub_findings: samples.sum("vstack_scrub_findings_total{"),
            quarantined: samples.whole("vstack_engine_quarantined_total"),
            series: samples.all(),
        }
    }
}

/// Lines `name{label="value"} number`.
struct Samples<'a>(&'a str);

impl<'a> Samples<'a> {
    fn lines(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.lines().filter_map(|line| line.rsplit_once(' '))
    }

    fn number(&self, name: &str) -> Option<f64> {
        let (_, value) = self.lines().find(|(series, _)| *series == name)?;
        value.parse().ok()
    }

    fn whole(&self, name: &str) -> Option<u64> {
        let (_, value) = self.lines().find(|(series, _)| *series == name)?;
        value.parse().ok()
    }

    fn all(&self) -> BTreeMap<String, serde_json::Number> {
        let wanted = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            name.starts_with("vstack_") && !name.starts_with("vstack_http_") && !name.ends_with("_bucket")
        };
        let number = |value: &str| match value.parse::<u64>() {
            Ok(whole) => Some(whole.into()),
            Err(_) => serde_json::Number::from_f64(value.parse().ok()?),
        };
        let series = self.lines().filter(|(series, _)| wanted(series));
        series
            .filter_map(|(series, value)| Some((series.to_owned(), number(value)?)))
            .collect()
    }

    /// Of all series that begin like this.
    fn sum(&self, begin: &str) -> u64 {
        let series = self.lines().filter(|(series, _)| series.starts_with(begin));
        series.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    fn mean(&self, name: &str) -> Option<f64> {
        let (sum, count) = (
            self.number(&format!("{name}_sum"))?,
            self.number(&format!("{name}_count"))?,
        );
        (count > 0.0).then_some(sum / count)
    }

    /// Bounds of a histogram with a label, and how many values are at most that.
    fn buckets(&self, name: &str, label: &str) -> Vec<(f64, f64)> {
        let begin = format!("{name}_bucket{{");
        let of_it = self.lines().filter_map(|(series, value)| {
            let labels = series.strip_prefix(&begin)?.strip_suffix('}')?;
            let mut labels = labels.split(',');
            let bound = labels.clone().find_map(|one| one.strip_prefix("le=\""))?;
            let bound = match bound.strip_suffix('"')? {
                "+Inf" => f64::INFINITY,
                number => number.parse().ok()?,
            };
            labels.any(|one| one == label).then_some((bound, value.parse().ok()?))
        });
        of_it.collect()
    }
}

/// The value that `share` of all are below, with those of a bucket spread evenly over it; none when there are none.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let (_, all) = *buckets.last()?;
    if all <= 0.0 {
        return None;
    }
    let rank = share * all;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (below, before) = at.checked_sub(1).map_or((0.0, 0.0), |at| buckets[at]);
    let (bound, count) = buckets[at];
    if bound.is_infinite() {
        return Some(below);
    }
    Some(below + (bound - below) * (rank - before) / (count - before))
}

/// A row for each node.
pub fn table(nodes: &[(&str, &Figures)]) -> Table {
    let mut table = output::table(&[
        "NODE",
        "PUT P50/P99",
        "GET P50/P99",
        "SYNC P99",
        "BATCH",
        "QUEUE",
        "LIVE/ALLOCATED",
        "CHECKPOINT",
        "SCRUBBED",
        "DAMAGED",
    ]);
    let none = || "-".to_owned();
    let both = |times: Option<Times>| {
        times.map_or_else(none, |times| {
            format!("{} / {} ms", short(times.p50_ms), short(times.p99_ms))
        })
    };
    for (name, figures) in nodes {
        let space = figures.space_live_bytes.zip(figures.space_allocated_bytes);
        table.add_row([
            plain(name),
            both(figures.put),
            both(figures.get),
            figures
                .sync
                .map_or_else(none, |sync| format!("{} ms", short(sync.p99_ms))),
            figures
                .batch_operations_mean
                .map_or_else(none, |mean| format!("{mean:.1}")),
            figures
                .queue_operations
                .map_or_else(none, |waiting| waiting.to_string()),
            space.map_or_else(none, |(live, allocated)| {
                format!("{} / {}", bytes(live), bytes(allocated))
            }),
            figures
                .checkpoint_age_records
                .map_or_else(none, |records| format!("{records} records ago")),
            figures.scrub_completed_s.map_or_else(|| "not yet".to_owned(), moment),
            (figures.scrub_findings.max(figures.quarantined.unwrap_or(0))).to_string(),
        ]);
    }
    table
}

/// What went in and out, a row for each node, and how much of it memory knew.
pub fn traffic(nodes: &[(&str, &Figures)]) -> Table {
    let mut table = output::table(&[
        "NODE",
        "WRITTEN",
        "READ",
        "INDEX HITS",
        "INDEX MISSES",
        "PIECES CACHED",
        "PIECES WAITED",
    ]);
    let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
    let count = |number: Option<u64>| or_none(number.map(|number| number.to_string()));
    for (name, figures) in nodes {
        table.add_row([
            plain(name),
            or_none(figures.written_bytes.map(bytes)),
            or_none(figures.read_bytes.map(bytes)),
            count(figures.index_hits),
            count(figures.index_misses),
            count(figures.pieces_cached),
            count(figures.pieces_waited),
        ]);
    }
    table
}

/// Three figures.
fn short(milliseconds: f64) -> String {
    match milliseconds {
        small if small < 10.0 => format!("{small:.2}"),
        some if some < 100.0 => format!("{some:.1}"),
        many => format!("{many:.0}"),
    }
}

fn moment(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().map(jiff::Timestamp::from_second);
    moment
        .and_then(Result::ok)
        .map_or_else(|| "?".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_samples() {
        let text = "# TYPE vstack_log_seq gauge\nvstack_log_seq 120\nvstack_checkpoint_seq 100\n\
            vstack_operation_seconds_sum{operation=\"put\"} 0.5\n\
            vstack_operation_seconds_bucket{le=\"0.001\",operation=\"put\"} 0\n\
            vstack_operation_seconds_bucket{le=\"0.002\",operation=\"put\"} 50\n\
            vstack_operation_seconds_bucket{le=\"0.004\",operation=\"put\"} 100\n\
            vstack_operation_seconds_bucket{le=\"+Inf\",operation=\"put\"} 100\n\
            vstack_operation_seconds_bucket{le=\"0.001\",operation=\"get\"} 0\n\
            vstack_operation_seconds_bucket{le=\"+Inf\",operation=\"get\"} 0\n\
            vstack_batch_operations_sum 30.0\nvstack_batch_operations_count 10\n\
            vstack_scrub_completed_seconds 0\n\
            vstack_scrub_findings_total{kind=\"item\"} 2\nvstack_scrub_findings_total{kind=\"mended\"} 1\n# EOF\n";
        let found = Figures::read(text);
        let put = found.put.unwrap();
        assert!((put.p50_ms - 2.0).abs() < 1e-9, "{put:?}");
        assert!((put.p99_ms - 3.96).abs() < 1e-9, "{put:?}");
        assert_eq!((found.get, found.sync), (None, None));
        assert_eq!(found.batch_operations_mean, Some(3.0));
        assert_eq!(found.checkpoint_age_records, Some(20));
        assert_eq!((found.scrub_completed_s, found.scrub_findings), (None, 3));
        assert!(table(&[("a", &found)]).to_string().contains("2.00 / 3.96 ms"));
    }

    /// Names of metrics that `docs/metrics.md` has from `begin` on, up to the next heading of the same rank, without
    /// labels.
    fn documented(begin: &str) -> Vec<&'static str> {
        let document = include_str!("../../../../docs/metrics.md");
        let (_, section) = document.split_once(begin).unwrap();
        let rank = format!("\n{} ", begin.split(' ').next().unwrap());
        let section = section.split(&rank).next().unwrap();
        let names = section.split('`').skip(1).step_by(2);
        names
            .filter(|name| name.starts_with("vstack_"))
            .map(|name| name.split('{').next().unwrap())
            .collect()
    }

    /// `docs/metrics.md` says that `vstack status --json` has all of it, and lists what the tables show.
    #[test]
    fn everything_that_is_documented_of_a_node_is_shown() {
        let names = [
            documented("### Storage nodes"),
            documented("## The storage engine of a node"),
        ]
        .concat();
        assert!(names.len() > 30, "{names:?}");
        let mut text = String::new();
        for (at, name) in names.iter().enumerate() {
            // Histograms have other series; they are in the other tests.
            text += &format!("{name} {}\n", 1000 + at);
        }
        let found = Figures::read(&text);
        let told = serde_json::to_value(&found).unwrap();
        for name in &names {
            assert!(told["series"][name].is_u64(), "{name} is not told");
        }
        let shown = traffic(&[("a", &found)]).to_string();
        for (field, name) in [
            ("written_bytes", "vstack_engine_written_bytes_total"),
            ("read_bytes", "vstack_engine_read_bytes_total"),
            ("index_hits", "vstack_index_hits_total"),
            ("index_misses", "vstack_index_misses_total"),
            ("pieces_cached", "vstack_engine_pieces_cached_total"),
            ("pieces_waited", "vstack_engine_pieces_waited_total"),
        ] {
            let value = told["series"][name].as_u64().unwrap();
            assert_eq!(told[field], value, "{field}");
            let seen = if name.contains("bytes") {
                bytes(value)
            } else {
                value.to_string()
            };
            assert!(shown.contains(&seen), "{field} is not in\n{shown}");
        }
    }

    #[test]
    fn series_are_told_as_they_are_and_buckets_are_not() {
        let text = "vstack_http_requests_total{route=\"/\"} 3\nvstack_batch_bytes_sum 1.5\n\
            vstack_batch_bytes_bucket{le=\"1\"} 4\nvstack_scrub_findings_total{kind=\"item\"} 2\n\
            vstack_odd NaN\nother 1\n# EOF\n";
        let told = serde_json::to_value(Figures::read(text).series).unwrap();
        let expected = serde_json::json!({
            "vstack_batch_bytes_sum": 1.5, "vstack_scrub_findings_total{kind=\"item\"}": 2,
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_above_all_bounds_is_at_least_the_last() {
        let buckets = [(1.0, 1.0), (f64::INFINITY, 10.0)];
        assert_eq!(quantile(&buckets, 0.99), Some(1.0));
        assert_eq!(quantile(&buckets, 0.05), Some(0.5));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn rubbish_has_no_figures() {
        let found = Figures::read("vstack_log_seq x\nvstack_operation_seconds_bucket{le=\"\n \n}{ 3");
        assert_eq!((found.put, found.checkpoint_age_records), (None, None));
    }
}

//! Two of five nodes die. Chunks with data shards on neither of them are read as before, from the three others; of
//! chunks with data shards on both, one data shard and both parity shards are read, from the same three nodes, and
//! decoded. Both by turns, by one reader that knows by then who is dead.

use anyhow::Context as _;
use vstack_api::metadata::ManifestChunk;
use vstack_player::OneMore;

use super::{Reader, Size, data_nodes};
use crate::{
    bare_cluster::BareCluster,
    measure::{Latencies, LatencyMs, ratios},
    report::{Row, Section},
    scenarios::Bench,
    targets,
};

/// Pairs that are read before a round counts: the reader has its connections, and knows all nodes.
const WARM_PAIRS: usize = 24;

/// Two nodes, and chunks that are read.
#[derive(Debug)]
struct Sets<'a> {
    /// Their labels.
    dead: [&'a str; 2],
    /// Without a data shard on them.
    whole: Vec<&'a ManifestChunk>,
    /// With one on each.
    degraded: Vec<&'a ManifestChunk>,
}

impl<'a> Sets<'a> {
    /// With as many chunks of either kind as there can be. None where there are none of one kind, whoever dies.
    fn choose(chunks: &'a [ManifestChunk], nodes: &[&'a str]) -> Option<Self> {
        let all = nodes.iter().enumerate();
        let pairs = all.flat_map(move |(at, one)| nodes[at + 1..].iter().map(move |other| [*one, *other]));
        let best = pairs.map(|dead| Self::without(chunks, dead));
        let best = best.max_by_key(Self::fewest);
        best.filter(|sets| sets.fewest() > 0)
    }

    fn without(chunks: &'a [ManifestChunk], dead: [&'a str; 2]) -> Self {
        let with = |gone: usize| {
            let lost = |chunk: &ManifestChunk| data_nodes(chunk).filter(|node| dead.contains(node)).count();
            chunks.iter().filter(|chunk| lost(chunk) == gone).collect()
        };
        Self {
            dead,
            whole: with(0),
            degraded: with(2),
        }
    }

    fn fewest(&self) -> usize {
        self.whole.len().min(self.degraded.len())
    }
}

/// What rounds showed of either kind.
#[derive(Debug, Default)]
struct Rounds {
    whole: Vec<LatencyMs>,
    degraded: Vec<LatencyMs>,
}

fn medians(rounds: &[LatencyMs]) -> Vec<f64> {
    rounds.iter().map(|round| round.p50).collect()
}

pub(super) async fn measure(
    section: &mut Section,
    cluster: &BareCluster,
    chunks: &[ManifestChunk],
    size: Size,
) -> anyhow::Result<()> {
    let nodes: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
    let sets = Sets::choose(chunks, &nodes)
        .context("there are no two nodes of which some chunks have two data shards and others none")?;
    let reader = Reader::start(OneMore::default())?;
    let before = rounds(&reader, &sets, size).await?;
    for node in sets.dead {
        cluster.kill(node)?;
    }
    let after = rounds(&reader, &sets, size).await?;
    tell(section, &sets, &before, &after);
    Ok(())
}

async fn rounds(reader: &Reader, sets: &Sets<'_>, size: Size) -> anyhow::Result<Rounds> {
    let mut rounds = Rounds::default();
    by_turns(reader, sets, WARM_PAIRS).await?;
    for _ in 0..Bench::ROUNDS {
        let (whole, degraded) = by_turns(reader, sets, size.pairs).await?;
        rounds.whole.extend(whole.summary());
        rounds.degraded.extend(degraded.summary());
    }
    Ok(rounds)
}

/// Reads a chunk of either kind, so many times; which comes first changes.
async fn by_turns(reader: &Reader, sets: &Sets<'_>, pairs: usize) -> anyhow::Result<(Latencies, Latencies)> {
    let (mut whole, mut degraded) = (Latencies::default(), Latencies::default());
    for pair in 0..pairs {
        let one = sets.whole[pair % sets.whole.len()];
        let other = sets.degraded[pair % sets.degraded.len()];
        if pair % 2 == 0 {
            whole.record(reader.read(one).await?);
            degraded.record(reader.read(other).await?);
        } else {
            degraded.record(reader.read(other).await?);
            whole.record(reader.read(one).await?);
        }
    }
    Ok((whole, degraded))
}

fn tell(section: &mut Section, sets: &Sets<'_>, before: &Rounds, after: &Rounds) {
    let mut row = |name: &str, rounds: &[LatencyMs]| {
        let row = Row::new(name, "ms", medians(rounds)).with_latency(rounds.to_vec());
        section.rows.push(row);
    };
    row("all five nodes there: whole", &before.whole);
    row("all five nodes there: those that are degraded then", &before.degraded);
    row("two nodes dead: whole", &after.whole);
    row("two nodes dead: degraded", &after.degraded);
    let ratio = ratios(&medians(&after.degraded), &medians(&after.whole));
    section.judge_rounds(targets::DEGRADED_MEDIAN, "by turns, two nodes dead", &ratio);
    let ratio = ratios(&medians(&after.degraded), &medians(&before.degraded));
    section.judge_rounds(
        targets::DEGRADED_MEDIAN,
        "the same chunks, to when all five were there",
        &ratio,
    );
    let [one, other] = sets.dead;
    section.note(format!(
        "{one} and {other} are killed: {} chunks have data shards on neither and are read whole, {} on both and are decoded; all \
         are read from the same three nodes then, which the reader has found out before rounds count",
        sets.whole.len(),
        sets.degraded.len()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::degraded::tests::coded;

    #[test]
    fn those_die_who_leave_most_of_either_kind() {
        let chunks = [
            coded(["a", "b", "c", "d", "e"]),
            coded(["c", "a", "b", "e", "d"]),
            coded(["d", "e", "a", "b", "c"]),
            coded(["e", "c", "d", "a", "b"]),
            coded(["a", "d", "b", "c", "e"]),
        ];
        let sets = Sets::choose(&chunks, &["a", "b", "c", "d", "e"]).unwrap();
        assert_eq!(sets.dead, ["d", "e"]);
        assert_eq!((sets.whole.len(), sets.degraded.len()), (2, 2));
        assert!(sets.whole.iter().all(|chunk| data_nodes(chunk).all(|node| node < "d")));
        assert!(
            sets.degraded
                .iter()
                .all(|chunk| data_nodes(chunk).filter(|node| *node > "c").count() == 2)
        );
        assert!(Sets::choose(&chunks[..1], &["a", "b", "c", "d", "e"]).is_none());
    }
}

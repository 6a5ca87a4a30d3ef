//! A node becomes five times as slow as the others while somebody reads: a reader that has exactly as many shards on
//! their way as are needed, one that asks for one more when one is late, and one that asks for it at once. Each comes to
//! it anew, having read from all nodes while all were alike.
//!
//! From then on every reader goes by what it measures. So what counts at p99 are the first reads, before it is known who
//! is slow: they are more than one in a hundred.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use vstack_api::metadata::{Fragment, ManifestChunk};
use vstack_client::{HttpClient, NodeClient, Timeouts};
use vstack_player::OneMore;

use super::{FILMS, Reader, Size, data_nodes, fetch, median_ms, shards};
use crate::{
    bare_cluster::{BareCluster, Node},
    delay::{Delay, Relay},
    measure::{Latencies, LatencyMs, ratios},
    report::{Beside, Row, Section},
    scenarios::Bench,
    targets,
};

/// To every node and back each: a round trip as to a machine in the same country.
const ONE_WAY: Duration = Duration::from_millis(10);
/// A shard of the slow node takes so many times as long as one of the others.
const TIMES_AS_LONG: u32 = 5;
/// Shards that are fetched to know how long one takes.
const SHARDS_TRIED: usize = 15;

/// What readers differ in.
const READERS: [(&str, OneMore); 3] = [
    ("exactly k", OneMore::Never),
    ("k+1 when one is late", OneMore::WhenLate),
    ("k+1 at once", OneMore::AtOnce),
];

/// What is between the reader and the nodes, by their labels.
struct Network(BTreeMap<String, (Relay, Delay)>);

impl Network {
    /// To every node it is as far.
    async fn before(nodes: &[Node]) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for node in nodes {
            let target: SocketAddr = node
                .url
                .trim_start_matches("http://")
                .parse()
                .context("a node's address")?;
            let delay = Delay::default();
            delay.set(ONE_WAY);
            all.insert(node.name.clone(), (Relay::before(target, delay.clone()).await?, delay));
        }
        Ok(Self(all))
    }

    fn set(&self, node: &str, one_way: Duration) -> anyhow::Result<()> {
        let (_, delay) = self.0.get(node).context("nobody is behind no relay")?;
        delay.set(one_way);
        Ok(())
    }

    /// The chunk as it is to be had through it.
    fn through(&self, chunk: &ManifestChunk) -> anyhow::Result<ManifestChunk> {
        let mut chunk = chunk.clone();
        for shard in chunk.fragments.iter_mut().flat_map(|fragments| &mut fragments.shards) {
            let (relay, _) = self.0.get(&shard.node_id).context("a shard at no node")?;
            shard.node_url = format!("http://{}", relay.host);
        }
        Ok(chunk)
    }
}

/// What a node is like that becomes slow.
struct Slow<'a> {
    node: &'a str,
    /// Then.
    one_way: Duration,
    /// Chunks with a data shard there.
    chunks: Vec<&'a ManifestChunk>,
}

pub(super) async fn measure(
    section: &mut Section,
    cluster: &BareCluster,
    chunks: &[ManifestChunk],
    size: Size,
) -> anyhow::Result<()> {
    let network = Network::before(&cluster.nodes).await?;
    let chunks: Vec<ManifestChunk> = chunks
        .iter()
        .map(|chunk| network.through(chunk))
        .collect::<anyhow::Result<_>>()?;
    let has_data = |chunk: &ManifestChunk, node: &str| data_nodes(chunk).any(|name| name == node);
    let names = cluster.nodes.iter().map(|node| node.name.as_str());
    let node = names.max_by_key(|node| chunks.iter().filter(|chunk| has_data(chunk, node)).count());
    let node = node.context("there is no node")?;
    let mut slow = Slow {
        node,
        one_way: ONE_WAY,
        chunks: chunks.iter().filter(|chunk| has_data(chunk, node)).collect(),
    };
    ensure!(!slow.chunks.is_empty(), "no node has data shards");
    let (alike, longer) = become_slow(&network, &mut slow).await?;
    section.rows.push(Row::new(
        "a shard through the relays, of nodes that are alike",
        "ms",
        vec![alike],
    ));
    section.rows.push(Row::new(
        "a shard through the relays, of the slow node",
        "ms",
        vec![longer],
    ));
    let mut found: [Vec<LatencyMs>; READERS.len()] = Default::default();
    for _ in 0..Bench::ROUNDS {
        let mut took: [Latencies; READERS.len()] = Default::default();
        for episode in 0..size.episodes {
            for turn in 0..READERS.len() {
                let reader = (episode + turn) % READERS.len();
                let (_, one_more) = READERS[reader];
                let story = Story {
                    network: &network,
                    all: &chunks,
                    slow: &slow,
                    size,
                };
                story.episode(episode, one_more, &mut took[reader]).await?;
            }
        }
        for (found, took) in found.iter_mut().zip(&took) {
            found.extend(took.summary());
        }
    }
    tell(section, &found, node);
    Ok(())
}

/// Finds out how much longer the way has to be, from how long a shard takes; gives that, and how long one takes then.
async fn become_slow(network: &Network, slow: &mut Slow<'_>) -> anyhow::Result<(f64, f64)> {
    let nodes = NodeClient::new(HttpClient::new(None, Timeouts::default())?);
    let there = slow.chunks.iter().copied().flat_map(shards);
    let there: Vec<&Fragment> = there
        .filter(|shard| shard.node_id == slow.node)
        .take(SHARDS_TRIED)
        .collect();
    let mut took = Vec::with_capacity(SHARDS_TRIED);
    for _ in 0..2 {
        // The first ones make connections.
        took.clear();
        for shard in &there {
            took.push(fetch(&nodes, shard).await?);
        }
    }
    let alike = median_ms(&mut took)?;
    let more = Duration::from_secs_f64(alike / 1e3) * (TIMES_AS_LONG - 1) / 2;
    slow.one_way = ONE_WAY + more;
    network.set(slow.node, slow.one_way)?;
    took.clear();
    for shard in &there {
        took.push(fetch(&nodes, shard).await?);
    }
    network.set(slow.node, ONE_WAY)?;
    Ok((alike, median_ms(&mut took)?))
}

/// What happens to readers.
struct Story<'a> {
    network: &'a Network,
    /// Film by film.
    all: &'a [ManifestChunk],
    slow: &'a Slow<'a>,
    size: Size,
}

impl Story<'_> {
    /// A reader that knows all nodes as they were reads on when one of them has become slow.
    async fn episode(&self, number: usize, one_more: OneMore, took: &mut Latencies) -> anyhow::Result<()> {
        let reader = Reader::start(one_more)?;
        // A chunk of each film: their data shards are on all nodes.
        for film in 0..FILMS {
            let of_film = self.size.chunks_of_a_film;
            reader.read(&self.all[film * of_film + number % of_film]).await?;
        }
        let Slow { node, one_way, chunks } = self.slow;
        self.network.set(node, *one_way)?;
        for read in 0..self.size.reads {
            let chunk = chunks[(number * self.size.reads + read) % chunks.len()];
            took.record(reader.read(chunk).await?);
        }
        self.network.set(node, ONE_WAY)
    }
}

fn tell(section: &mut Section, found: &[Vec<LatencyMs>; READERS.len()], node: &str) {
    let columns = READERS.iter().map(|(name, _)| *name).collect();
    let mut table = Beside::new("a node becomes slow: reads from then on", columns);
    let figures = |of: fn(&LatencyMs) -> f64| -> Vec<Vec<f64>> {
        let readers = found.iter();
        readers.map(|rounds| rounds.iter().map(of).collect()).collect()
    };
    table.line("p50", "ms", figures(|round| round.p50));
    table.line("p90", "ms", figures(|round| round.p90));
    table.line("p99", "ms", figures(|round| round.p99));
    table.line("max", "ms", figures(|round| round.max));
    section.beside.push(table);
    let p99s = figures(|round| round.p99);
    for (p99s_of_more, (name, _)) in p99s.iter().zip(READERS).skip(1) {
        let ratio = ratios(p99s_of_more, &p99s[0]);
        section.judge_rounds(targets::ONE_MORE_P99, name, &ratio);
    }
    section.note(format!(
        "through relays that add a round trip of {:?} to every node, and as much to {node}, once it is slow, that a shard takes \
         {TIMES_AS_LONG} times as long; every chunk read then has a data shard there. Each reader starts anew, and has read a \
         chunk of each film before, while all nodes were alike; a connection is made without a round trip here",
        2 * ONE_WAY
    ));
    section.note(
        "k+1 when one is late is what the player and the gateway do ahead of time; k+1 at once is what they do for what is \
         waited for; exactly k is a setting for this comparison",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_more_is_held_against_who_does_not() {
        let rounds = |ms: f64| {
            let round = LatencyMs {
                p50: ms,
                p90: ms,
                p99: ms,
                p999: ms,
                max: ms,
            };
            vec![round; 3]
        };
        let mut section = Section::new("degraded", "");
        tell(&mut section, &[rounds(100.0), rounds(70.0), rounds(110.0)], "node-1");
        let verdicts: Vec<_> = section
            .verdicts
            .iter()
            .map(|verdict| (verdict.at.as_str(), verdict.reached))
            .collect();
        assert_eq!(verdicts, [("k+1 when one is late", true), ("k+1 at once", false)]);
    }
}

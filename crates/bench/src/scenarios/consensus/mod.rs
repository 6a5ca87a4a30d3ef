//! ChunkPaxos beside textbook Paxos and a Raft log: messages, syncs, round trips, latency, throughput, in one harness.
//!
//! All of them are three node processes and one client process on this machine, with the same HTTP/1.1, the same MACs and
//! the same storage engine, which syncs before it answers and shares a sync between all that waits. The client hashes each
//! chunk and every copy is hashed where it is stored.

mod chunkpaxos;
mod committer;
mod protocol;
mod raft;
mod rounds;
mod tally;
mod textbook;
mod trio;

use std::time::Duration;

use vstack_types::limits::CHUNK_BYTES_MAX;

use self::{
    protocol::Protocol,
    rounds::{Level, counted, level, round_trips},
    tally::Tally,
    trio::{NODES, Trio},
};
use super::{Bench, Length};
use crate::{
    disk,
    payload::Payload,
    report::{Beside, Section},
    targets,
};

/// Sizes of chunks: their bytes and what they are called.
const SIZES: [(usize, &str); 2] = [(4 << 10, "4 KiB"), (CHUNK_BYTES_MAX, "2 MiB")];
/// More than the copies on three nodes take in a second, at any concurrency.
const BYTES_PER_SECOND_MAX: u64 = 2 << 30;
/// Room for logs that are laid out ahead, and for the file system.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    /// In flight, and for how long.
    levels: &'static [usize],
    level: Duration,
    /// Chunks counted one after the other.
    counted: u32,
    /// Chunks sent through relays that hold back.
    delayed: usize,
}

impl Plan {
    const fn of(length: Length) -> Self {
        match length {
            Length::Full => Self {
                rounds: Bench::ROUNDS,
                levels: &[1, 8, 64],
                level: Duration::from_millis(2500),
                counted: 30,
                delayed: 9,
            },
            Length::Quick => Self {
                rounds: Bench::ROUNDS,
                levels: &[1, 8, 64],
                level: Duration::from_millis(350),
                counted: 10,
                delayed: 3,
            },
            Length::Smoke => Self {
                rounds: 1,
                levels: &[1, 8],
                level: Duration::from_millis(200),
                counted: 10,
                delayed: 5,
            },
        }
    }

    /// What one protocol may write in one go on three nodes.
    fn free_bytes(self) -> u64 {
        let levels = self.levels.len() as u64;
        let millis = u64::try_from(self.level.as_millis()).unwrap_or(u64::MAX);
        FREE_BYTES_MIN + (BYTES_PER_SECOND_MAX / 1000).saturating_mul(levels.saturating_mul(millis))
    }
}

/// All rounds of one protocol at one size.
#[derive(Default)]
struct Measured {
    round_trips: Vec<f64>,
    counted: Vec<Tally>,
    /// By concurrency, as in the plan.
    levels: Vec<Vec<Level>>,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let plan = Plan::of(bench.length);
    disk::require_free(&bench.directory, plan.free_bytes())?;
    let about = format!(
        "chunks committed on three nodes by four protocols, {} alternated rounds of {:?} at each concurrency, on fresh disks",
        plan.rounds, plan.level
    );
    let mut section = Section::new("consensus", about);
    let payload = Payload::make();
    let mut all: Vec<Vec<Measured>> = SIZES
        .iter()
        .map(|_| Protocol::ALL.iter().map(|_| Measured::default()).collect())
        .collect();
    for round in 0..plan.rounds {
        for (measured, (bytes, _)) in all.iter_mut().zip(SIZES) {
            for turn in 0..Protocol::ALL.len() {
                // Everybody is first, second, third and last in turn.
                let which = (turn + round) % Protocol::ALL.len();
                let one = &mut measured[which];
                measure(bench, plan, Protocol::ALL[which], bytes, &payload, one).await?;
            }
        }
    }
    for (measured, (bytes, _)) in all.iter_mut().zip(SIZES) {
        for (one, protocol) in measured.iter_mut().zip(Protocol::ALL) {
            one.round_trips = round_trips(bench, plan.delayed, protocol, bytes, &payload).await?;
        }
    }
    for (measured, (_, size)) in all.iter().zip(SIZES) {
        section.beside.push(table(plan, measured, size));
    }
    judge(&mut section, plan, &all);
    explain(&mut section);
    Ok(section)
}

/// One round of one protocol.
async fn measure(
    bench: &Bench,
    plan: Plan,
    protocol: Protocol,
    bytes: usize,
    payload: &Payload,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let trio = Trio::start(protocol, &bench.binary, &bench.directory, None).await?;
    let committer = rounds::warm(protocol, &trio, payload, bytes).await?;
    measured.counted.push(counted(plan.counted, &trio, &committer).await?);
    for (index, concurrency) in plan.levels.iter().enumerate() {
        let level = level(plan.level, *concurrency, &trio, &committer).await?;
        if measured.levels.len() <= index {
            measured.levels.push(Vec::new());
        }
        measured.levels[index].push(level);
    }
    drop(committer);
    drop(trio);
    disk::settle().await
}

fn table(plan: Plan, measured: &[Measured], size: &str) -> Beside {
    let columns = Protocol::ALL.map(Protocol::name).to_vec();
    let mut table = Beside::new(
        format!("a chunk of {size}, every copy synced before it is vouched for"),
        columns,
    );
    let tallies = |get: fn(&Tally) -> f64| move |one: &Measured| one.counted.iter().map(get).collect::<Vec<_>>();
    let line = |table: &mut Beside, figure: String, unit, get: &dyn Fn(&Measured) -> Vec<f64>| {
        table.line(figure, unit, measured.iter().map(get).collect());
    };
    line(
        &mut table,
        "messages until decided, 1 in flight".into(),
        "",
        &tallies(|tally| tally.deciding_messages),
    );
    line(
        &mut table,
        "messages that tell of it afterwards, 1 in flight".into(),
        "",
        &tallies(|tally| tally.news_messages),
    );
    line(
        &mut table,
        "fsyncs, 1 in flight".into(),
        "",
        &tallies(|tally| tally.fsyncs),
    );
    line(&mut table, "round trips waited for".into(), "", &|one| {
        one.round_trips.clone()
    });
    for (index, concurrency) in plan.levels.iter().enumerate() {
        let of = |get: fn(&Level) -> f64| move |one: &Measured| one.levels[index].iter().map(get).collect::<Vec<_>>();
        if *concurrency == 1 {
            line(
                &mut table,
                "latency until decided, p50, 1 in flight".into(),
                "ms",
                &of(|level| level.latency.summary().map_or(f64::NAN, |ms| ms.p50)),
            );
            line(
                &mut table,
                "latency until decided, p99, 1 in flight".into(),
                "ms",
                &of(|level| level.latency.summary().map_or(f64::NAN, |ms| ms.p99)),
            );
        }
        line(
            &mut table,
            format!("committed, {concurrency} in flight"),
            "/s",
            &of(|level| level.rate),
        );
        if *concurrency > 1 {
            line(
                &mut table,
                format!("fsyncs, {concurrency} in flight"),
                "",
                &of(|level| level.tally.fsyncs),
            );
        }
        line(
            &mut table,
            format!("processor time of the nodes, {concurrency} in flight"),
            "ms",
            &of(|level| level.nodes_cpu_ms),
        );
        line(
            &mut table,
            format!("processor time of the client, {concurrency} in flight"),
            "ms",
            &of(|level| level.client_cpu_ms),
        );
    }
    table
}

fn judge(section: &mut Section, plan: Plan, all: &[Vec<Measured>]) {
    // Sizes and protocols are in the order of their lists: small, then large; the fast path first.
    let (small, large) = (&all[0][0], &all[1][0]);
    let rates = |one: &Measured, concurrency: usize| -> Vec<f64> {
        let at = plan.levels.iter().position(|level| *level == concurrency);
        let levels = at.map(|at| one.levels[at].as_slice()).unwrap_or_default();
        levels.iter().map(|level| level.rate).collect()
    };
    section.judge_rounds(targets::COMMIT_RATE, "ChunkPaxos fast path", &rates(large, 8));
    section.judge_rounds(targets::SMALL_COMMIT_RATE, "a later target", &rates(small, 64));
    for (one, (_, size)) in [small, large].into_iter().zip(SIZES) {
        let messages: Vec<_> = one.counted.iter().map(|tally| tally.deciding_messages).collect();
        section.judge_rounds(
            targets::COMMIT_MESSAGES,
            format!("ChunkPaxos fast path, {size}"),
            &messages,
        );
        section.judge_rounds(
            targets::COMMIT_ROUND_TRIPS,
            format!("ChunkPaxos fast path, {size}"),
            &one.round_trips,
        );
    }
}

fn explain(section: &mut Section) {
    section.note(format!(
        "{NODES} node processes and one client process on this machine, HTTP/1.1 with MACs, one storage engine: group commit, \
         fdatasync before each answer; the client hashes every chunk, and every copy is hashed where it is stored"
    ));
    section.note(
        "ChunkPaxos fast: bytes and vote in one PUT to all three. Classic: PUT to all three, then prepare, accept and the \
         news of the decision, each to all three; nobody waits for the answers to the news. Both on `vstack storage-node`",
    );
    section.note(
        "textbook Paxos: one decree a chunk; data to all three, prepare, accept; each phase waits for a majority; nobody is \
         told. Raft: the client sends the chunk to the leader, openraft's log carries it to both followers, the log is \
         where it stays",
    );
    section.note(
        "in Raft's favour: the leader is elected beforehand and never changes, the log is not compacted, chunks that wait \
         share an entry (openraft 0.9 syncs entry by entry), and a commit counts with two copies, where the others wait for \
         the third",
    );
    section.note(
        "not comparable: ChunkPaxos and textbook Paxos send a chunk three times from the client, Raft once from the client \
         and twice from the leader: on one machine all of these share its processors and its disk, on a network they \
         would not; only Raft orders chunks among each other; only ChunkPaxos needs no leader and vouches for the bytes",
    );
    section.note(
        "messages and fsyncs are counted by the nodes; round trips are what a chunk takes longer through relays that hold \
         everything back, per round trip held back; latency is until decided",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_path_at_both_sizes_is_where_it_is_judged() {
        assert_eq!(Protocol::ALL[0], Protocol::Fast);
        assert_eq!(SIZES.map(|(bytes, _)| bytes), [4096, CHUNK_BYTES_MAX]);
    }
}

//! Latency of hot GETs at a set rate: shares of what a closed loop found, from one storage node running alone.

use super::{
    Bench,
    contenders::Contenders,
    get::CHUNKS,
    gets::{Gets, check, fill},
};
use crate::{
    cluster::LoneNode,
    load::closed_loop,
    measure::{LatencyMs, Spread, ratios},
    nginx::Nginx,
    open_loop::{Pace, Paced, Plan, open_loop},
    payload::Payload,
    report::{Beside, Row, Section, figure},
};

/// Shares of the throughput that the node and the better nginx both have, in percent.
const SHARES_PERCENT: [u32; 2] = [50, 80];
/// At which the throughput is found.
const FOUND_AT: usize = 8;
/// Connections of the open loop; what comes due while all are busy waits.
const CONNECTIONS: usize = 64;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let about = format!(
        "hot GET of 2 MiB at a set rate (open loop, Poisson, {CONNECTIONS} connections, latency from the moment a request is due), {} alternated rounds of {:?}",
        Bench::ROUNDS,
        bench.round()
    );
    let mut section = Section::new("paced", about);
    let payload = Payload::make();
    let node = LoneNode::start(&bench.binary, &bench.directory).await?;
    fill(&node.host, &payload, CHUNKS).await?;
    let nginx = Nginx::start(&bench.directory, &payload, CHUNKS).await?;
    let contenders = Contenders::new(&node.host, nginx.as_ref(), &mut section);
    for (_, host) in &contenders.hosts {
        check(host, &payload, CHUNKS).await?;
    }
    let rate = throughput(bench, &mut section, &contenders).await?;
    for percent in SHARES_PERCENT {
        let rate = rate * f64::from(percent) / 100.0;
        share(bench, &mut section, &contenders, percent, rate).await?;
    }
    Ok(section)
}

/// Requests a second that every contender can do: the lesser of the node's and the better nginx mode's.
async fn throughput(bench: &Bench, section: &mut Section, contenders: &Contenders) -> anyhow::Result<f64> {
    let mut measured = contenders.measured();
    for _ in 0..Bench::ROUNDS {
        for ((_, host), rounds) in contenders.hosts.iter().zip(&mut measured) {
            let workers = Gets::workers(host, CHUNKS, FOUND_AT).await?;
            rounds.push(&closed_loop(workers, bench.round()).await?);
        }
    }
    contenders.tell(section, &format!("closed loop, c{FOUND_AT}"), "chunks/s", &measured);
    let medians = measured.iter().filter_map(|rounds| Spread::of(&rounds.rates));
    let medians: Vec<f64> = medians.map(|spread| spread.median).collect();
    let (ours, theirs) = medians.split_first().expect("the node is always measured");
    let better = theirs.iter().copied().reduce(f64::max);
    // Of a round in which nothing ended no share can be asked for.
    Ok(better.map_or(*ours, |better| better.min(*ours)).max(1.0))
}

async fn share(
    bench: &Bench,
    section: &mut Section,
    contenders: &Contenders,
    percent: u32,
    rate: f64,
) -> anyhow::Result<()> {
    let mut measured: Vec<Vec<Paced>> = vec![Vec::new(); contenders.hosts.len()];
    for round in 0..Bench::ROUNDS {
        // The same times for everybody.
        let plan = Plan {
            pace: Pace::Poisson,
            rate,
            duration: bench.round(),
            seed: round as u64,
        }
        .with_requests();
        for ((_, host), rounds) in contenders.hosts.iter().zip(&mut measured) {
            let workers = Gets::workers(host, CHUNKS, CONNECTIONS).await?;
            rounds.push(open_loop(workers, plan).await?.0);
        }
    }
    let title = format!("at {percent} % = {}/s", figure(rate));
    section.beside.push(table(title, contenders.names(), &measured));
    for ((name, _), theirs) in contenders.hosts.iter().zip(&measured).skip(1) {
        let ratios = p99_ratios(&measured[0], theirs);
        let name = format!("node / {name}, p99 at {percent} %");
        section.rows.push(Row::new(name, "x", ratios));
    }
    for (name, rounds) in contenders.names().iter().zip(&measured) {
        for (round, paced) in rounds.iter().enumerate() {
            if let Some(trouble) = paced.trouble() {
                section.note(format!("{name} at {percent} %, round {}: {trouble}", round + 1));
            }
        }
    }
    Ok(())
}

/// Latencies of several contenders at one rate.
pub fn table(title: String, names: Vec<&'static str>, measured: &[Vec<Paced>]) -> Beside {
    let mut beside = Beside::new(title, names);
    let mut percentile = |name: &str, of: fn(LatencyMs) -> f64| {
        let figures = |rounds: &Vec<Paced>| {
            let summaries = rounds.iter().filter_map(|paced| paced.latency.summary());
            summaries.map(of).collect()
        };
        beside.line(name, "ms", measured.iter().map(figures).collect());
    };
    percentile("p50", |latency| latency.p50);
    percentile("p90", |latency| latency.p90);
    percentile("p99", |latency| latency.p99);
    percentile("p99.9", |latency| latency.p999);
    percentile("max", |latency| latency.max);
    let each = |of: fn(&Paced) -> f64| {
        let figures = |rounds: &Vec<Paced>| rounds.iter().map(of).collect();
        measured.iter().map(figures).collect()
    };
    beside.line("answered", "", each(|paced| paced.latency.count() as f64));
    beside.line("found every connection busy", "%", each(Paced::waited_percent));
    beside
}

/// Round by round, the p99 of `ours` over that of `theirs`.
pub fn p99_ratios(ours: &[Paced], theirs: &[Paced]) -> Vec<f64> {
    let p99s = |rounds: &[Paced]| rounds.iter().filter_map(Paced::p99_ms).collect::<Vec<_>>();
    ratios(&p99s(ours), &p99s(theirs))
}

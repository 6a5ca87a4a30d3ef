//! GET of 2 MiB chunks that are in the page cache, from one storage node running alone.

use super::{
    Bench,
    contenders::{Contenders, Ratios},
    gets::{Gets, check, fill},
};
use crate::{
    cluster::LoneNode,
    load::closed_loop,
    nginx::Nginx,
    payload::Payload,
    report::{Row, Section},
    targets,
};

const CONCURRENCIES: [usize; 3] = [1, 8, 64];
/// Chunks asked for in turn: 64 MiB, more than any cache of a processor.
pub const CHUNKS: usize = 32;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let about = format!(
        "hot GET of 2 MiB from one node, {} alternated rounds of {:?} at each concurrency, reads of 1 MiB",
        Bench::ROUNDS,
        bench.round()
    );
    let mut section = Section::new("get", about);
    let payload = Payload::make();
    let node = LoneNode::start(&bench.binary, &bench.directory).await?;
    fill(&node.host, &payload, CHUNKS).await?;
    let nginx = Nginx::start(&bench.directory, &payload, CHUNKS).await?;
    let contenders = Contenders::new(&node.host, nginx.as_ref(), &mut section);
    for (_, host) in &contenders.hosts {
        check(host, &payload, CHUNKS).await?;
    }
    for concurrency in CONCURRENCIES {
        level(bench, &mut section, &contenders, concurrency).await?;
    }
    Ok(section)
}

async fn level(
    bench: &Bench,
    section: &mut Section,
    contenders: &Contenders,
    concurrency: usize,
) -> anyhow::Result<()> {
    let mut measured = contenders.measured();
    for _ in 0..Bench::ROUNDS {
        for ((_, host), rounds) in contenders.hosts.iter().zip(&mut measured) {
            let workers = Gets::workers(host, CHUNKS, concurrency).await?;
            rounds.push(&closed_loop(workers, bench.round()).await?);
        }
    }
    let at = format!("c{concurrency}");
    for ((name, _), rounds) in contenders.hosts.iter().zip(&measured) {
        section.rows.push(rounds.row(format!("{name}, {at}"), "chunks/s"));
    }
    let found = Ratios::of(&measured);
    section.judge_rounds(targets::GET_RATE, at.as_str(), &found.rates);
    section.judge_rounds(targets::GET_P99, at.as_str(), &found.p99s);
    if concurrency == 1 {
        let first_bytes: Vec<f64> = measured[0].part_ms.iter().map(|part| part.p99).collect();
        section.rows.push(Row::new(
            "vstack node, c1, p99 of the first byte",
            "ms",
            first_bytes.clone(),
        ));
        section.judge_rounds(targets::GET_FIRST_BYTE_P99, "", &first_bytes);
    }
    Ok(())
}

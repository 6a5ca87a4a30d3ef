//! GET of parts of chunks that are in the page cache, at random places, from one storage node running alone.

use super::{
    Bench,
    contenders::Contenders,
    get::CHUNKS,
    gets::{RangeGets, check, fill},
};
use crate::{cluster::LoneNode, load::closed_loop, nginx::Nginx, payload::Payload, report::Section};

const CONCURRENCIES: [usize; 3] = [1, 8, 64];
/// Of a part: what a player asks for when it looks into a chunk.
const PART_BYTES: usize = 64 * 1024;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let about = format!(
        "GET of 64 KiB at random places of hot chunks, {} alternated rounds of {:?} at each concurrency",
        Bench::ROUNDS,
        bench.round()
    );
    let mut section = Section::new("range", about);
    let payload = Payload::make();
    let node = LoneNode::start(&bench.binary, &bench.directory).await?;
    fill(&node.host, &payload, CHUNKS).await?;
    let nginx = Nginx::start(&bench.directory, &payload, CHUNKS).await?;
    let contenders = Contenders::new(&node.host, nginx.as_ref(), &mut section);
    for (_, host) in &contenders.hosts {
        check(host, &payload, CHUNKS).await?;
    }
    for concurrency in CONCURRENCIES {
        let mut measured = contenders.measured();
        for _ in 0..Bench::ROUNDS {
            for ((_, host), rounds) in contenders.hosts.iter().zip(&mut measured) {
                let workers = RangeGets::workers(host, CHUNKS, PART_BYTES, concurrency).await?;
                rounds.push(&closed_loop(workers, bench.round()).await?);
            }
        }
        contenders.tell(&mut section, &format!("c{concurrency}"), "parts/s", &measured);
    }
    Ok(section)
}

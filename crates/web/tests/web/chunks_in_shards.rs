//! Chunks in shards through the gateway: made of whatever can be had, verified, and kept for the next reader.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{join, join_all},
    stream::FuturesUnordered,
};
use reqwest::{StatusCode, header};
use serde::Deserialize;
use vstack_api::metadata::{Fragment, Fragments, Manifest, RedundancyMode};
use vstack_types::{ChunkId, Digest};

use crate::fakes::{Contents, Footage, Stage, stage_of};

/// One of those that every implementation of the code is tested with.
#[derive(Deserialize)]
struct Vector {
    shape: String,
    chunk: String,
    shards: Vec<String>,
}

fn from_hex(hex: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// A chunk and its shards.
#[derive(Clone)]
struct Coded {
    data: u8,
    parity: u8,
    chunk: Bytes,
    shards: Vec<Bytes>,
}

/// The longest that there is of a shape.
fn coded(shape: &str) -> Coded {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../../erasure/vectors.json")).unwrap();
    let of_shape = vectors.into_iter().filter(|vector| vector.shape == shape);
    let vector = of_shape.max_by_key(|vector| vector.chunk.len()).unwrap();
    let (data, parity) = shape.split_once('+').unwrap();
    Coded {
        data: data.parse().unwrap(),
        parity: parity.parse().unwrap(),
        chunk: from_hex(&vector.chunk),
        shards: vector.shards.iter().map(|shard| from_hex(shard)).collect(),
    }
}

/// Another of the same length.
fn other(shard: &Bytes) -> Bytes {
    let mut other = shard.to_vec();
    other[0] ^= 1;
    other.into()
}

/// A node for each shard, which has another with its index, too, and so many nodes with copies behind them.
async fn film(chunks: Vec<Coded>, copies: usize, change: impl FnOnce(&mut Manifest)) -> Stage {
    let footage = Footage::new(chunks.iter().map(|coded| coded.chunk.clone()).collect());
    let of_shards = chunks.iter().map(|coded| coded.shards.len()).max().unwrap();
    let shard_id = |at: u32, index: usize| format!("{}-frag-{index}", ChunkId::of_video(footage.video, at));
    let mut held: Vec<Contents> = Vec::new();
    for index in 0..of_shards {
        let of_each = (0..).zip(&chunks);
        let of_each = of_each.filter_map(|(at, coded)| Some((shard_id(at, index), coded.shards.get(index)?)));
        let both = of_each.map(|(id, shard)| (id, vec![shard.clone(), other(shard)]));
        held.push(both.chain([footage.init_item()]).collect());
    }
    held.extend((0..copies).map(|_| footage.copies()));
    stage_of(footage, held, |footage, urls| {
        let mut manifest = footage.manifest(urls);
        for (chunk, coded) in manifest.chunks.iter_mut().zip(&chunks) {
            chunk.redundancy_mode = RedundancyMode::ErasureCoding;
            chunk.replicas = urls[of_shards..].to_vec();
            chunk.replica_ids.drain(..of_shards);
            let shards = (0_u8..).zip(&coded.shards).zip(urls);
            let listed = shards.map(|((index, shard), url)| Fragment {
                fragment_id: format!("{}-frag-{index}", chunk.chunk_id),
                fragment_index: index,
                checksum: Digest::of(shard).prefixed(),
                node_url: url.clone(),
                node_id: format!("node-{index}"),
            });
            chunk.fragments = Some(Fragments {
                data_shards: coded.data,
                parity_shards: coded.parity,
                size_bytes: coded.shards[0].len() as u64,
                shards: listed.collect(),
            });
        }
        change(&mut manifest);
        manifest
    })
    .await
}

fn as_it_is(_: &mut Manifest) {}

/// Has the first chunk's shards with these indexes listed as others than the code makes.
fn wrongly(coded: &Coded, indexes: &[usize]) -> impl FnOnce(&mut Manifest) {
    let wrong: Vec<(usize, String)> = indexes
        .iter()
        .map(|index| (*index, Digest::of(&other(&coded.shards[*index])).prefixed()))
        .collect();
    move |manifest: &mut Manifest| {
        let listed = &mut manifest.chunks[0].fragments.as_mut().unwrap().shards;
        for (index, checksum) in wrong {
            listed[index].checksum = checksum;
        }
    }
}

async fn chunk(stage: &Stage, sequence: u32) -> (StatusCode, Bytes) {
    let chunk = ChunkId::of_video(stage.video, sequence);
    let answer = stage.get(&format!("/gateway/{}/{chunk}", stage.video)).await;
    (answer.status(), answer.bytes().await.unwrap())
}

async fn assert_given(stage: &Stage, sequence: u32, why: &str) {
    let (status, bytes) = chunk(stage, sequence).await;
    assert_eq!(status, StatusCode::OK, "{why}");
    assert!(bytes == stage.chunks[usize::try_from(sequence).unwrap()], "{why}");
}

fn put_down(stage: &Stage, nodes: impl IntoIterator<Item = usize>) {
    for node in nodes {
        stage.nodes[node].down.store(true, SeqCst);
    }
}

fn served(stage: &Stage) -> u64 {
    stage.nodes.iter().map(|node| node.served.load(SeqCst)).sum()
}

#[tokio::test]
async fn any_three_of_five_shards_give_the_chunk() {
    for first in 0..5 {
        for second in 0..first {
            let stage = film(vec![coded("3+2")], 0, as_it_is).await;
            put_down(&stage, [first, second]);
            assert_given(&stage, 0, &format!("without {first} and {second}")).await;
        }
    }
}

#[tokio::test]
async fn codes_of_other_shapes_bear_as_many_losses_as_they_have_parity_shards() {
    for shape in ["1+1", "2+2", "4+1", "10+4", "16+16"] {
        let coded = coded(shape);
        let stage = film(vec![coded.clone()], 0, as_it_is).await;
        put_down(&stage, 0..usize::from(coded.parity));
        assert_given(&stage, 0, shape).await;
    }
}

#[tokio::test]
async fn a_node_that_lies_is_no_better_than_one_that_is_down() {
    let stage = film(vec![coded("3+2")], 0, as_it_is).await;
    stage.nodes[0].corrupt.store(true, SeqCst);
    put_down(&stage, [1]);
    assert_given(&stage, 0, "with one that lies").await;
}

#[tokio::test]
async fn too_few_shards_are_an_error_and_never_wrong_bytes() {
    let stage = film(vec![coded("3+2")], 0, as_it_is).await;
    put_down(&stage, [0, 2, 4]);
    let (status, bytes) = chunk(&stage, 0).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(body["code"], "unavailable", "{body}");
}

#[tokio::test]
async fn parts_are_given_of_chunks_in_shards_and_across_them() {
    let stage = film(vec![coded("3+2"), coded("4+1"), coded("3+2")], 0, as_it_is).await;
    put_down(&stage, [0]);
    let (file, path) = (stage.file(), format!("/video/{}/download", stage.video));
    // Behind 100 bytes come 768, 50 and 768.
    for (start, end) in [
        (100, 100),
        (110, 500),
        (355, 357),
        (860, 870),
        (868, 917),
        (900, 1_000),
        (1_685, 1_685),
    ] {
        let range = stage
            .http
            .get(stage.url(&path))
            .header(header::RANGE, format!("bytes={start}-{end}"));
        let part = range.send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{start} to {end}");
        assert_eq!(part.bytes().await.unwrap(), &file[start..=end], "{start} to {end}");
    }
    let whole = stage.get(&path).await;
    assert_eq!(whole.bytes().await.unwrap(), file);
}

#[tokio::test]
async fn what_was_made_of_shards_is_kept_and_asks_no_node_again() {
    let stage = film(vec![coded("3+2")], 0, as_it_is).await;
    put_down(&stage, [0, 1]);
    assert_given(&stage, 0, "it has to be decoded").await;
    let before = served(&stage);
    assert!(before >= 3);
    put_down(&stage, 0..5);
    assert_given(&stage, 0, "nobody is there any more").await;
    assert_eq!(served(&stage), before);
}

#[tokio::test]
async fn readers_of_one_chunk_share_its_shards() {
    let stage = film(vec![coded("3+2")], 0, as_it_is).await;
    let readers = (0..20).map(|_| assert_given(&stage, 0, "with others"));
    join_all(readers).await;
    let served = served(&stage);
    // One more than is needed, for they wait.
    assert!((3..=4).contains(&served), "{served}");
}

/// Nodes that are asked for a shard, one after the other, while all of them trickle.
fn asked(stage: &Stage) -> FuturesUnordered<impl Future<Output = usize>> {
    let numbered = stage.nodes.iter().enumerate();
    let asked = numbered.map(|(at, node)| async move {
        let mut trickling = node.trickling.subscribe();
        trickling.wait_for(|bodies| *bodies > 0).await.unwrap();
        at
    });
    asked.collect()
}

/// Of exactly as many shards as are needed none would come before its node has given all of it, which takes longer than this
/// test: nobody would know that one is late.
#[tokio::test]
async fn who_waits_for_a_chunk_waits_for_no_slow_node() {
    const SOON: Duration = Duration::from_secs(8);
    let stage = film(vec![coded("3+2")], 0, as_it_is).await;
    for node in &stage.nodes {
        node.trickles.send_replace(true);
    }
    let all_but_one = async {
        // Before any of them has given a shard, nothing says that one is late.
        let asked: Vec<usize> = asked(&stage).take(4).collect().await;
        for quick in &asked[1..] {
            stage.nodes[*quick].trickles.send_replace(false);
        }
        &stage.nodes[asked[0]]
    };
    let given = join(all_but_one, assert_given(&stage, 0, "with one slow node"));
    let (slow, ()) = tokio::time::timeout(SOON, given).await.expect("one more is asked for");
    assert!(*slow.trickles.borrow(), "it is slow still");
    let mut trickling = slow.trickling.subscribe();
    let given_up = trickling.wait_for(|bodies| *bodies == 0);
    let given_up = tokio::time::timeout(Duration::from_secs(3), given_up).await;
    given_up.expect("it is not waited for").unwrap();
}

#[tokio::test]
async fn shards_that_were_made_wrongly_are_done_without() {
    for wrong in [&[0][..], &[2], &[4], &[0, 1], &[1, 3], &[3, 4]] {
        let coded = coded("3+2");
        let stage = film(vec![coded.clone()], 0, wrongly(&coded, wrong)).await;
        assert_given(&stage, 0, &format!("{wrong:?}")).await;
    }
}

#[tokio::test]
async fn shards_that_do_not_give_their_chunk_are_an_error_until_others_are_listed() {
    let coded = coded("3+2");
    let stage = film(vec![coded.clone()], 0, wrongly(&coded, &[0, 1, 3])).await;
    assert_eq!(chunk(&stage, 0).await.0, StatusCode::SERVICE_UNAVAILABLE);
    {
        let mut manifest = stage.metadata.manifest.lock().unwrap();
        manifest.version += 1;
        let listed = &mut manifest.chunks[0].fragments.as_mut().unwrap().shards;
        listed[3].checksum = Digest::of(&coded.shards[3]).prefixed();
    }
    // Though the old manifest is still fresh.
    assert_given(&stage, 0, "three of them are right").await;
}

#[tokio::test]
async fn two_shards_with_one_index_at_one_node_are_told_apart() {
    for is_first in [true, false] {
        let coded = coded("3+2");
        let twin = Digest::of(&other(&coded.shards[1])).prefixed();
        let list_twice = |manifest: &mut Manifest| {
            let listed = &mut manifest.chunks[0].fragments.as_mut().unwrap().shards;
            let mut also = listed[1].clone();
            also.checksum = twin;
            listed.insert(if is_first { 1 } else { 2 }, also);
        };
        let stage = film(vec![coded], 0, list_twice).await;
        // There is no way around the right one.
        put_down(&stage, [3, 4]);
        assert_given(&stage, 0, &format!("the other is listed first: {is_first}")).await;
    }
}

#[tokio::test]
async fn shards_take_the_place_of_copies_and_copies_that_of_shards_without_a_newer_manifest() {
    let stage = film(vec![coded("3+2"), coded("4+1")], 2, as_it_is).await;
    let init = stage.get(&format!("/hls/{}/init.mp4", stage.video)).await;
    assert_eq!(init.bytes().await.unwrap(), stage.init, "the manifest is known");
    stage.metadata.down.store(true, SeqCst);
    put_down(&stage, [5, 6]);
    assert_given(&stage, 0, "in shards").await;
    put_down(&stage, 0..5);
    for copy in [5, 6] {
        stage.nodes[copy].down.store(false, SeqCst);
    }
    assert_given(&stage, 1, "whole").await;
}

//! The disk of a node has no room for a byte more: uploads go on elsewhere, everything is read, and when there is room again,
//! by whatever means, everything becomes whole without a command. Room is also what a film leaves that is purged.

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Value, json};

use crate::{
    harness::{Answer, Cluster, get, media, wait_at_most},
    load::Uploads,
    shared::{Filled, QUICK, QUICKLY, SETTINGS, is_on, items_placed, join_on},
    small_disk::{self, SmallDisk},
};

const DISK_BYTES: u64 = 256 << 20;
/// For two films of 40 MB, and so small that either of them is much of it.
const DISK_OF_FILMS_BYTES: u64 = 160 << 20;
/// Small beside the disk, so that it fills up little by little.
const SUPERBLOCK_BYTES: &str = "16777216";
/// On the small disk.
const FULL: &str = "storage-node-4";
/// Dies while that is full.
const DEAD: &str = "storage-node-1";
/// Videos uploaded while it is known to be full.
const UPLOADED: usize = 3;

#[test]
fn a_full_disk_is_left_out_and_filled_when_there_is_room_again() {
    if !small_disk::is_inside("full_disk::a_full_disk_is_left_out_and_filled_when_there_is_room_again") {
        return;
    }
    let disk = SmallDisk::new(DISK_BYTES);
    let settings: Vec<_> = SETTINGS.into_iter().chain(QUICK).collect();
    let cluster = Cluster::start_with(&["--nodes", "3", "--no-restart"], &settings);
    let mut filled = Filled::nothing_yet(cluster, 4, 4);
    let node = join_on(&filled.cluster, FULL, &disk.path().join("node"), SUPERBLOCK_BYTES);
    filled.cluster.wait_healthy(4);
    wait_at_most(QUICKLY, "chunks on the small disk", || {
        filled.upload();
        let last = filled.videos.last()?;
        filled.chunks(last).iter().any(|chunk| is_on(chunk, FULL)).then_some(())
    });

    wait_at_most(QUICKLY, "every copy of them", || {
        let mut chunks = filled.videos.iter().flat_map(|video| filled.chunks(video));
        let is_everywhere = |chunk: Value| copies(&chunk).values().all(|copy| copy.status == 200);
        chunks.all(is_everywhere).then_some(())
    });

    // While two upload, and may have been told to send their chunks there.
    let uploads = Uploads::start(&filled.cluster, &filled.film, 2);
    disk.fill();
    let began = Instant::now();
    is_read_from_the_full_disk(&filled);
    wait_at_most(QUICKLY, "the full disk to be known", || {
        let percent = filled.registered(FULL)?["disk_usage_percent"].as_f64()?;
        (percent > 95.0).then_some(())
    });
    for _ in 0..UPLOADED {
        filled.upload();
        for chunk in filled.chunks(filled.videos.last().unwrap()) {
            let nodes = chunk["replica_ids"].as_array().unwrap().len();
            assert!(nodes == 3 && !is_on(&chunk, FULL), "{chunk}");
        }
    }
    filled.all_can_be_had();
    let (uploaded, failed) = uploads.stop();
    assert!(uploaded > 0 && failed == 0, "{uploaded} uploads, {failed} failed");

    // Another node dies: who could take its place has no room, and that is said. Nothing is out of reach.
    assert!(filled.cluster.kill(DEAD));
    let without_room = wait_at_most(QUICKLY, "chunks that have nowhere to go", || {
        let census = filled.try_census()?;
        let mut waits = census["waits"].as_array()?.iter();
        let have_nowhere_to_go = waits.any(|waiting| waiting["nodes"] == json!([]));
        have_nowhere_to_go.then_some(census)
    });
    let tally = &without_room["tally"];
    assert!(tally["under_replicated"].as_u64() > Some(0), "{tally}");
    assert_eq!((&tally["out_of_reach"], &tally["lost"]), (&json!(0), &json!(0)));
    let full_for = began.elapsed();

    disk.make_room();
    let began = Instant::now();
    let census = filled.is_healthy_within(QUICKLY);
    println!(
        "a disk without a byte of room for {full_for:.1?}: {uploaded} uploads beside it and {UPLOADED} that knew of it, \
         {failed} failed; whole {:.1?} after there was room: {} chunks, {} of them on that disk",
        began.elapsed(),
        census["tally"]["chunks"],
        items_placed(&census, FULL).unwrap_or_default()
    );
    assert_eq!(census["tally"]["whole"], census["tally"]["chunks"]);
    assert_eq!(census["waits"], json!([]));
    // Three nodes are left for three copies.
    assert_eq!(items_placed(&census, FULL), census["tally"]["chunks"].as_u64());
    assert_eq!(items_placed(&census, DEAD), Some(0));
    filled.upload();
    for chunk in filled.chunks(filled.videos.last().unwrap()) {
        assert!(is_on(&chunk, FULL), "{chunk}");
    }
    filled.all_can_be_had();
    drop(node);
}

/// Nobody else could take what is on the full disk, and nobody makes room beside it.
#[test]
fn a_film_that_is_purged_makes_room_on_a_full_disk() {
    if !small_disk::is_inside("full_disk::a_film_that_is_purged_makes_room_on_a_full_disk") {
        return;
    }
    let disk = SmallDisk::new(DISK_OF_FILMS_BYTES);
    let settings: Vec<_> = SETTINGS.into_iter().chain(QUICK).collect();
    let cluster = Cluster::start_with(&["--nodes", "2", "--no-restart"], &settings);
    let mut filled = Filled::nothing_yet(cluster, 40, 8);
    let node = join_on(&filled.cluster, FULL, &disk.path().join("node"), SUPERBLOCK_BYTES);
    filled.cluster.wait_healthy(3);
    for _ in 0..2 {
        filled.upload();
    }
    let chunks = filled.is_healthy_within(QUICKLY)["tally"]["chunks"].as_u64();
    disk.fill();
    wait_at_most(QUICKLY, "the full disk to be known", || {
        let percent = filled.registered(FULL)?["disk_usage_percent"].as_f64()?;
        (percent > 95.0).then_some(())
    });
    assert_eq!(items_placed(&filled.try_census().unwrap(), FULL), chunks);

    let purged = filled.videos.remove(0);
    let film_bytes = filled.film.metadata().unwrap().len();
    let began = Instant::now();
    filled.cluster.ok(&["rm", "--purge", &purged]);
    let free = wait_at_most(QUICKLY, "the space of a film", || {
        // Of some of it the next superblock may be made at once.
        let free = disk.free_bytes();
        (free >= film_bytes / 2).then_some(free)
    });
    let free_after = began.elapsed();
    wait_at_most(QUICKLY, "the disk to be known to have room", || {
        let percent = filled.registered(FULL)?["disk_usage_percent"].as_f64()?;
        (percent <= 95.0).then_some(())
    });
    let small = media::busy_clip(filled.cluster.scratch("").as_path(), "small.mp4", 4, 4);
    let status = filled.cluster.upload(&small);
    assert_eq!(status["status"], "completed", "{status}");
    for chunk in filled.chunks(status["video_id"].as_str().unwrap()) {
        assert!(is_on(&chunk, FULL), "{chunk}");
        wait_at_most(QUICKLY, "a new chunk on the disk that was full", || {
            (copies(&chunk)[FULL].status == 200).then_some(())
        });
    }
    println!(
        "a film of {:.1} MB was purged on a full disk: {:.1} MB were free after {free_after:.1?}, and new chunks there \
         after {:.1?}",
        film_bytes as f64 / 1e6,
        free as f64 / 1e6,
        began.elapsed()
    );
    filled.is_healthy_within(QUICKLY);
    filled.all_can_be_had();
    drop(node);
}

/// What each node that a manifest names for a chunk answers, by its label.
fn copies(chunk: &Value) -> BTreeMap<String, Answer> {
    let id = chunk["chunk_id"].as_str().unwrap();
    let list = |name: &str| -> Vec<String> { serde_json::from_value(chunk[name].clone()).unwrap() };
    let nodes = list("replica_ids").into_iter().zip(list("replicas"));
    nodes
        .map(|(node, url)| (node, get(&format!("{url}/chunk/{id}"))))
        .collect()
}

/// What was stored there before it was full is read from there. Soon it is elsewhere: a disk without room is relieved.
fn is_read_from_the_full_disk(filled: &Filled) {
    let chunks = filled.videos.iter().flat_map(|video| filled.chunks(video));
    let mut read = 0;
    for chunk in chunks.filter(|chunk| is_on(chunk, FULL)) {
        let copies = copies(&chunk);
        for (node, copy) in &copies {
            let same = copy.status == 200 && copy.body == copies[FULL].body;
            assert!(same, "{node} answered {} to {chunk}", copy.status);
        }
        read += 1;
    }
    assert!(read > 0);
}

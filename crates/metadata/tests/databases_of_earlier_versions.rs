//! A database of every version there was is opened by this one, and keeps what it knows.
//!
//! Of videos, groups and chunks: everything. A reaping that was under way before passes were counted as confirming is
//! not taken for confirmed. What is in the trash is kept as long as it was to be, and a script that is at a video has
//! the whole time again. Of nodes: label, addresses, disk, trust, when they were last heard of; of their disks, how far
//! the log reached and that it went back, from then on whoever takes their place. A disk that never told of its log
//! leaves no trace. No process is known of any, so that each registers again at its next heartbeat. What they hold is not
//! known until they tell. Of shards: which are none of their chunk, since that is written down. Of how videos are kept: what
//! was decided, since that is, and when chunks changed their form, which was counted later.

#![allow(clippy::unwrap_used, reason = "a failure of the store fails the test")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;
use vstack_api::metadata::{ChunkPlace, NodeRole, VideoStatus};
use vstack_chunkpaxos::{Layout, Placement};
use vstack_metadata::{
    admission::Refusal,
    store::{
        Chunk, Chunks as _, DiskLog, Group, Harms as _, HeldTotals, Keeping, Keepings as _, Known, Node, NodeBeat,
        Nodes as _, OpenError, Reap, SqliteStore, Turns, Videos as _,
    },
};
use vstack_redundancy::{Changed, Decision, Heat, Mode, Why};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid, ProcessUuid, Timestamp, VideoId};
use vstack_upkeep::{census::Part, harm::WrongShard};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The versions there were, each by how the checksum of its migration begins. What was released is never edited: a
/// database that has it would be refused.
const VERSIONS: [(i64, &str); 15] = [
    (1, "5d930956"),
    (2, "89110456"),
    (3, "c96bc1f8"),
    (4, "09097c3a"),
    (5, "048c441c"),
    (6, "e51de7cc"),
    (7, "fee44e3c"),
    (8, "6e2c7667"),
    (9, "e61e9a39"),
    (10, "90707146"),
    (11, "c474f083"),
    (12, "426c7557"),
    (13, "7e729b17"),
    (14, "4538ac0b"),
    (15, "a9e7f8ea"),
];

/// A node; `log_seq` stood beside it before version 4.
const NODE: &str = "INSERT INTO nodes (node_id, node_url, public_url, disk_uuid, incarnation, zone, version, \
     last_heartbeat, disk_percent, chunk_count, trusted) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)";
const NODE_WITH_LOG: &str = "INSERT INTO nodes (node_id, node_url, public_url, disk_uuid, incarnation, zone, version, \
     last_heartbeat, disk_percent, chunk_count, trusted, log_seq) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)";

/// A video that plays, one that failed, and one that a script is at: the same in every version so far.
const VIDEOS: &str = "INSERT INTO videos (video_id, title, title_folded, duration_sec, status, version, created_at, \
     fail_reason, reap_state, reap_attempts, reap_next_at) VALUES \
     ('01010101-0101-0101-0101-010101010101', 'Plays', 'plays', 5, 'active', 3, 1000, NULL, 'not_due', 0, 0), \
     ('02020202-0202-0202-0202-020202020202', 'Failed', 'failed', 0, 'failed', 2, 2000, 'no audio', 'due', 4, 9000), \
     ('03030303-0303-0303-0303-030303030303', 'Begun', 'begun', 0, 'uploading', 1, 3000, NULL, 'not_due', 0, 0)";

/// A shard that was found to be none of its chunk, since that is written down.
const WRONG: &str = "INSERT INTO wrong_shards (video_id, part, disk_uuid, incarnation, tag) VALUES \
     ('01010101-0101-0101-0101-010101010101', 0, '02020202-0202-0202-0202-020202020202', 0, 4294967295)";

/// What was decided of the video that plays, since that is written down.
const KEPT: &str = "INSERT INTO keeping (video_id, mode, since, why, heat_fast, heat_slow, heat_at, heat_views) VALUES \
     ('01010101-0101-0101-0101-010101010101', 'erasure_coding', 77, 'cold', 0.5, 0.25, 88, 7)";
/// And how often its chunks changed their form, the last time after that was looked at.
const TURNED: &str = "UPDATE keeping SET to_shards_at = 99, turns_to_shards = 5";
const TURNS: &str = "UPDATE videos SET turns_to_shards = 6 WHERE status = 'active'";

/// One in the trash, since there is one.
const TRASHED: &str = "INSERT INTO videos (video_id, title, title_folded, duration_sec, status, version, created_at, \
     trash_until) VALUES \
     ('04040404-0404-0404-0404-040404040404', 'Deleted', 'deleted', 5, 'deleted', 4, 4000, 40000000000)";

const PLAYS: VideoId = VideoId::from_bytes([1; 16]);
const FAILED: VideoId = VideoId::from_bytes([2; 16]);
const BEGUN: VideoId = VideoId::from_bytes([3; 16]);
const DELETED: VideoId = VideoId::from_bytes([4; 16]);

fn disk(n: u8) -> NodeUuid {
    NodeUuid::from_bytes([n; 16])
}

fn group() -> Group {
    Group {
        from_seq: 0,
        members: [1, 2].map(disk).map(NodeRef::first).to_vec(),
    }
}

fn chunk() -> Chunk {
    Chunk {
        id: ChunkId::of_video(PLAYS, 0),
        place: Some(ChunkPlace {
            sequence_num: 0,
            segment: 0,
            start_sec: 0.0,
            duration_sec: 5.0,
            independent: true,
        }),
        placement: Placement {
            version: 1,
            size: 100,
            sha256: Digest::of(b"x"),
            layout: Layout::Replicated { nodes: group().members },
            prev: None,
            back: false,
        },
    }
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.unwrap();
}

async fn write_node(database: &mut SqliteConnection, version: i64, node: &Node) {
    let disk = node.acceptor.map(|acceptor| acceptor.uuid.to_string());
    let log_seq = i64::try_from(node.log_seq).unwrap();
    let row = sqlx::query(if version < 4 { NODE_WITH_LOG } else { NODE })
        .bind(&node.label)
        .bind(&node.url)
        .bind(&node.public_url)
        .bind(&disk)
        .bind(&node.zone)
        .bind(&node.version)
        .bind(node.last_heartbeat.map(|at| at.0))
        .bind(node.disk_percent)
        .bind(i64::try_from(node.chunk_count).unwrap())
        .bind(node.trusted);
    let row = if version < 4 { row.bind(log_seq) } else { row };
    row.execute(&mut *database).await.unwrap();
    if version >= 4 && log_seq > 0 {
        sqlx::query("INSERT INTO disks (disk_uuid, log_seq, went_back) VALUES (?, ?, 0)")
            .bind(disk)
            .bind(log_seq)
            .execute(database)
            .await
            .unwrap();
    }
}

async fn write_video(database: &mut SqliteConnection) {
    run(database, VIDEOS).await;
    let members: Vec<_> = group().members.iter().map(NodeRef::to_string).collect();
    sqlx::query("INSERT INTO groups (video_id, from_seq, members) VALUES (?, 0, ?)")
        .bind(PLAYS.to_string())
        .bind(members.join(" "))
        .execute(&mut *database)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO chunks (chunk_id, video_id, sequence_num, segment, start_sec, duration_sec, independent, \
         size_bytes, sha256, placement_version, placement, mode, copies, physical_bytes) \
         VALUES (?, ?, 0, 0, 0, 5, 1, 100, ?, 1, ?, 'replication', 2, 200)",
    )
    .bind(chunk().id.to_string())
    .bind(PLAYS.to_string())
    .bind(chunk().placement.sha256.as_bytes().to_vec())
    .bind(chunk().placement.encode())
    .execute(database)
    .await
    .unwrap();
}

/// What a service of the version had written.
async fn fill(database: &mut SqliteConnection, version: i64) {
    for node in nodes(false) {
        write_node(database, version, &node).await;
    }
    write_video(database).await;
    if version >= 3 {
        run(database, "UPDATE videos SET reap_confirms = 1 WHERE reap_state = 'due'").await;
    }
    if version >= 8 {
        run(database, TRASHED).await;
    }
    if version >= 11 {
        run(
            database,
            "UPDATE videos SET touched_at = 3500 WHERE status = 'uploading'",
        )
        .await;
        run(database, "UPDATE videos SET trashed_at = 5000 WHERE status = 'deleted'").await;
    }
    if version >= 12 {
        run(database, KEPT).await;
    }
    if version >= 14 {
        run(database, WRONG).await;
    }
    if version >= 15 {
        run(database, TURNED).await;
        run(database, TURNS).await;
    }
    let went_back = match version {
        1 => return,
        2 | 3 => "UPDATE nodes SET went_back = 1 WHERE node_id = 'b'",
        _ => "UPDATE disks SET went_back = 1 WHERE log_seq = 30",
    };
    run(database, went_back).await;
}

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.connect().await.unwrap()
}

/// A database as the version left it.
async fn left_by(version: i64) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.db");
    let mut database = connect(&path).await;
    let until_then = MIGRATIONS.iter().filter(|migration| migration.version <= version);
    let migrator = Migrator::with_migrations(until_then.cloned().collect());
    migrator.run(&mut database).await.unwrap();
    fill(&mut database, version).await;
    database.close().await.unwrap();
    (directory, path)
}

/// What is remembered of a disk.
async fn remembered(store: &SqliteStore, disk: NodeUuid) -> Option<DiskLog> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let look = move |known: Known<'_>| {
        sender.send(known.disk).unwrap();
        Err(Refusal::Label)
    };
    let refused = store.register_node(Some(disk), Box::new(look)).await.unwrap();
    assert_eq!(refused, Err(Refusal::Label));
    receiver.recv().unwrap()
}

/// The nodes that were written: one that proved itself; one that lost its trust, because its disk went back in time, as
/// far as that was written down; one that never told of its log; one without a disk.
fn nodes(went_back_known: bool) -> [Node; 4] {
    let node = |label: &str, n: u8, zone: &str| Node {
        label: label.into(),
        url: format!("http://{label}:1"),
        public_url: format!("http://public:{n}"),
        acceptor: Some(NodeRef::first(disk(n))),
        log_seq: 0,
        process: None,
        zone: zone.into(),
        version: "0.1.0".into(),
        last_heartbeat: Some(Timestamp(i64::from(n) * 1_000)),
        disk_percent: 0.0,
        disk_free: None,
        chunk_count: 0,
        trusted: false,
        went_back: false,
        role: NodeRole::Active,
    };
    [
        Node {
            log_seq: 70,
            disk_percent: 12.5,
            chunk_count: 3,
            trusted: true,
            ..node("a", 1, "here")
        },
        Node {
            log_seq: 30,
            went_back: went_back_known,
            ..node("b", 2, "there")
        },
        node("c", 3, "there"),
        Node {
            acceptor: None,
            last_heartbeat: None,
            ..node("d", 4, "")
        },
    ]
}

#[tokio::test]
async fn its_nodes_are_known_as_they_were() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.nodes().await.unwrap(), nodes(version >= 2), "version {version}");
        store.close().await;
        // The second time there is nothing left to do.
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.nodes().await.unwrap(), nodes(version >= 2), "version {version}");
        store.close().await;
    }
}

#[tokio::test]
async fn its_disks_are_remembered_whoever_takes_their_place() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        // Another disk at the URL of the first and under the label of the second.
        let other = Node {
            label: "b".into(),
            url: "http://a:1".into(),
            acceptor: Some(NodeRef::first(disk(9))),
            ..nodes(false)[0].clone()
        };
        let decided = store.register_node(Some(disk(9)), Box::new(|_| Ok(other))).await;
        assert!(decided.unwrap().is_ok());
        let labels: Vec<_> = store
            .nodes()
            .await
            .unwrap()
            .into_iter()
            .map(|node| node.label)
            .collect();
        assert_eq!(labels, ["b", "c", "d"], "version {version}");
        let log = |log_seq, went_back| {
            Some(DiskLog {
                log_seq,
                went_back,
                role: NodeRole::Active,
            })
        };
        assert_eq!(remembered(&store, disk(1)).await, log(70, false), "version {version}");
        assert_eq!(
            remembered(&store, disk(2)).await,
            log(30, version >= 2),
            "version {version}"
        );
        assert_eq!(remembered(&store, disk(3)).await, None, "version {version}");
        store.close().await;
    }
}

#[tokio::test]
async fn its_nodes_register_again_before_their_heartbeats_count() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        let beat = |process| NodeBeat {
            disk_percent: 50.0,
            disk_free: None,
            chunk_count: 5,
            held: None,
            log_seq: Some(80),
            at: Timestamp(5_000),
            disk: Some(disk(1)),
            process,
        };
        let process = ProcessUuid::random();
        let heard = store.beat("a".into(), beat(Some(process))).await.unwrap();
        assert_eq!(heard, None, "version {version}");
        assert_eq!(remembered(&store, disk(1)).await.unwrap().log_seq, 70);
        let registered = Node {
            process: Some(process),
            ..nodes(false)[0].clone()
        };
        let decided = store.register_node(Some(disk(1)), Box::new(|_| Ok(registered))).await;
        assert!(decided.unwrap().is_ok());
        let heard = store.beat("a".into(), beat(Some(process))).await.unwrap().unwrap();
        assert_eq!((heard.log_seq, heard.trusted), (80, true), "version {version}");
        store.close().await;
    }
}

#[tokio::test]
async fn what_its_nodes_hold_is_not_known_until_they_tell() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        let totals = store.totals().await.unwrap();
        // The two that ever told of their logs.
        let unknown = HeldTotals {
            nodes: 2,
            ..HeldTotals::default()
        };
        assert_eq!(totals.held, unknown, "version {version}");
        assert_eq!(
            (totals.placed_bytes, totals.physical_bytes(), totals.disk_bytes()),
            (200, None, None),
            "version {version}"
        );
        store.close().await;
    }
}

#[tokio::test]
async fn its_videos_groups_and_chunks_are_all_there() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        let plays = store.video(PLAYS).await.unwrap().unwrap();
        assert_eq!(
            (&*plays.title, plays.status, plays.version),
            ("Plays", VideoStatus::Active, 3)
        );
        assert_eq!(plays.reap, Reap::NotDue);
        assert_eq!(store.groups(PLAYS).await.unwrap(), [group()], "version {version}");
        assert_eq!(
            store.video_chunks(PLAYS, None, 10).await.unwrap(),
            [chunk()],
            "version {version}"
        );
        let failed = store.video(FAILED).await.unwrap().unwrap();
        assert_eq!(
            (failed.status, failed.fail_reason.as_deref()),
            (VideoStatus::Failed, Some("no audio"))
        );
        let due = Reap::Due {
            attempts: 4,
            confirms: version >= 3,
            next_at: Timestamp(9_000),
        };
        assert_eq!(failed.reap, due, "version {version}");
        store.close().await;
    }
}

#[tokio::test]
async fn its_trash_and_its_scripts_have_their_time() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        let touched_at = store.video(BEGUN).await.unwrap().unwrap().touched_at;
        if version >= 11 {
            assert_eq!(touched_at, Timestamp(3_500));
        } else {
            // It was migrated just now, in this decade or a later one.
            assert!(touched_at > Timestamp(1_577_836_800_000), "version {version}");
        }
        let deleted = store.video(DELETED).await.unwrap();
        let trashed = Reap::Trashed {
            since: Timestamp(if version >= 11 { 5_000 } else { 8_464_000_000 }),
            until: Timestamp(40_000_000_000),
        };
        let expected = (version >= 8).then_some(trashed);
        assert_eq!(deleted.map(|video| video.reap), expected, "version {version}");
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_found_to_be_none_of_its_chunk_is_known_still() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        let known = WrongShard {
            video: PLAYS,
            part: Part::Chunk(0),
            node: NodeRef::first(disk(2)),
            tag: u32::MAX,
        };
        let expected: BTreeSet<WrongShard> = (version >= 14).then_some(known).into_iter().collect();
        assert_eq!(store.harms().await.unwrap().wrong, expected, "version {version}");
        store.close().await;
    }
}

#[tokio::test]
async fn how_its_videos_are_kept_is_known_still() {
    for (version, _) in VERSIONS {
        let (_directory, path) = left_by(version).await;
        let store = SqliteStore::open(&path).await.unwrap();
        let [plays] = store.watched(None, 10).await.unwrap()[..] else {
            panic!("one plays");
        };
        let turns = |to_shards| Turns {
            to_copies: 0,
            to_shards: if version >= 15 { to_shards } else { 0 },
        };
        let kept = Keeping {
            decision: Decision {
                mode: Mode::Coded,
                since: Timestamp(77),
                why: Why::Cold,
            },
            heat: Heat {
                fast: 0.5,
                slow: 0.25,
                at: Timestamp(88),
            },
            heat_views: 7,
            changed: Changed {
                to_copies: None,
                to_shards: (version >= 15).then_some(Timestamp(99)),
            },
            turns: turns(5),
        };
        assert_eq!(plays.keeping, (version >= 12).then_some(kept), "version {version}");
        assert_eq!(plays.turns, turns(6), "version {version}");
        store.close().await;
    }
}

#[test]
fn what_was_released_is_not_edited() {
    let found: Vec<_> = MIGRATIONS
        .iter()
        .map(|migration| {
            let checksum = &migration.checksum[..4];
            (
                migration.version,
                format!("{:08x}", u32::from_be_bytes(checksum.try_into().unwrap())),
            )
        })
        .collect();
    let versions: Vec<_> = VERSIONS
        .map(|(version, checksum)| (version, checksum.to_owned()))
        .into();
    assert_eq!(
        found, versions,
        "a new one is added here, with what is in a database of its version"
    );
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_and_left_alone() {
    let (_directory, path) = left_by(4).await;
    let mut database = connect(&path).await;
    run(
        &mut database,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'of the future', 1, x'00', 0)",
    )
    .await;
    database.close().await.unwrap();
    let refused = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Migrate(MigrateError::VersionMissing(99))),
        "{refused:?}"
    );
    let mut database = connect(&path).await;
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM nodes")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(count, 4);
    database.close().await.unwrap();
}

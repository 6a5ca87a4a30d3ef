//! What every store must do, run against each that there is.

#![allow(clippy::unwrap_used, reason = "a failure of the store fails the test")]

mod changes;
mod chunks;
mod groups;
mod harm;
mod keeping;
mod nodes;
mod reaping;
mod records;
mod salvage;
mod videos;

use std::{future::Future, sync::Arc};

use vstack_metadata::store::{MemoryStore, SqliteStore, Store};

use crate::{
    nodes::{labels, node, put},
    records::{chunk, create, group, init, learn, version},
};

type Shared = Arc<dyn Store>;

/// Runs a test on a store of its own kind; whatever it leaves on disk goes with the guard.
fn on_memory<F: Future<Output = ()>>(test: impl FnOnce(Shared) -> F) {
    block_on(test(Arc::new(MemoryStore::default())));
}

fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Shared) -> F) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("nested/metadata.db");
    block_on(async move {
        let store = SqliteStore::open(&path).await.expect("a new database");
        test(Arc::new(store.clone())).await;
        store.close().await;
    });
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future);
}

/// Every test of every subject, on each store.
macro_rules! conformance {
    ($($subject:ident: $($test:ident)*;)*) => {
        mod memory { $($(#[test] fn $test() { super::on_memory(super::$subject::$test); })*)* }
        mod sqlite { $($(#[test] fn $test() { super::on_sqlite(super::$subject::$test); })*)* }
    };
}

conformance! {
    videos:
        a_video_reads_back_as_it_was_created
        lists_are_filtered_sorted_and_paged
        a_status_changes_only_from_where_it_was_expected
        only_the_owner_keeps_its_videos_alive
        a_video_of_a_script_is_touched_or_untouched
        views_and_overrides_stay
        a_video_completes_only_when_whole;
    reaping:
        ending_a_video_makes_its_chunks_due
        reaping_is_taken_up_in_order_and_ends
        what_comes_after_the_end_is_reaped_too
        a_deleted_video_can_be_restored_until_its_time
        one_that_is_purged_leaves_the_others_in_the_trash
        what_a_clock_noted_that_was_ahead_is_set_right;
    groups:
        the_first_group_stands
        a_group_never_changes_acceptors_of_chunks_before_it
        racing_groups_agree_on_one;
    chunks:
        a_placement_is_replaced_only_by_a_higher_version
        a_conflict_teaches_nothing_of_its_batch
        what_is_learned_at_once_is_learned_each_by_itself
        a_closed_video_learns_nothing_but_deletions
        chunks_come_in_playing_order_page_by_page
        chunks_are_forgotten_only_once_the_video_ended
        chunks_are_counted_without_being_read
        totals_are_those_of_the_placements;
    changes:
        news_are_told_once_and_in_order
        a_video_that_ends_is_nobodys_concern_any_more;
    keeping:
        what_was_decided_of_active_videos_reads_back
        changes_of_form_are_counted_once_each_has_ended
        a_pause_stays;
    harm:
        what_is_found_is_entered_once_and_leaves_once
        which_shards_are_none_of_their_chunk_is_kept_until_they_are_right;
    salvage:
        what_a_salvage_asks_first_is_written_down_once
        what_was_salvaged_takes_the_place_of_what_was_lost
        nothing_of_a_video_that_ended_is_salvaged;
    nodes:
        a_node_stands_for_its_label_its_url_and_its_disk
        a_heartbeat_refreshes_and_never_goes_back
        a_heartbeat_counts_for_its_own_disk_and_process
        what_disks_hold_is_summed_as_each_last_told
        what_is_known_of_a_disk_outlives_its_place
        a_registration_sees_what_it_replaces
        trust_belongs_to_the_disk
        a_role_belongs_to_the_disk_and_the_last_one_is_for_good
        a_stranger_is_forgotten_and_nobody_else
        damage_is_known_by_disk_until_it_is_whole;
}

/// Beyond conformance: what only a durable store promises.
#[test]
fn sqlite_keeps_everything_over_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("metadata.db");
    block_on(async {
        let store = SqliteStore::open(&path).await.expect("a new database");
        let shared: Shared = Arc::new(store.clone());
        let id = create(&shared, "one").await;
        shared.insert_group(id, group(0, &[1, 2, 3])).await.unwrap();
        learn(&shared, id, vec![init(id), chunk(id, 0)]).await;
        put(&shared, node("node-a", 1, Some(1))).await;
        // Not closed: the process is gone with its connections, the log stays behind.
        drop((shared, store));
        let again: Shared = Arc::new(SqliteStore::open(&path).await.expect("the same database"));
        assert_eq!(
            again.video_chunks(id, None, 10).await.unwrap(),
            [init(id), chunk(id, 0)]
        );
        assert_eq!(again.groups(id).await.unwrap(), [group(0, &[1, 2, 3])]);
        assert_eq!(labels(&again).await, ["node-a"]);
        assert_eq!(version(&again, id).await, 2);
    });
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("metadata.db");
    std::fs::write(&path, vec![b'x'; 8_192]).expect("a file");
    block_on(async {
        assert!(SqliteStore::open(&path).await.is_err());
        assert_eq!(
            std::fs::read(&path).expect("the file").len(),
            8_192,
            "and left as it was"
        );
    });
}

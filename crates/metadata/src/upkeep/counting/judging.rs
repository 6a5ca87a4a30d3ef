//! Sums a count up, and plans what is to be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use vstack_placement::Liveness;
use vstack_types::{NodeRef, VideoId};
use vstack_upkeep::{
    balance::{Shift, are_even, placed, shifts, spread, zones_of},
    census::{Part, Row},
    harm::{Book, Changes},
    migrate::{Migrations, Tried, Wished, migrations},
    plan::{Cluster, Due, Job, Outlook, Stuck},
    report::{Report, report},
    standing::Standing,
};

use super::{Seen, valid_until};
use crate::{
    app::App,
    upkeep::{Counted, Harmed, Mourned, Planned, Purpose, Summary},
};

/// Things to mend that are kept at once: more come with the next count.
const PLAN_MAX: usize = 10_000;
/// Chunks that are moved between two counts so that nodes hold more nearly the same.
const SHIFTS_MAX: usize = 512;
/// Chunks that are brought into another form between two counts.
const MIGRATIONS_MAX: usize = 512;

/// What judging came to.
pub(super) struct Judged {
    /// Something is to be done, or is being done.
    pub(super) unsettled: bool,
    /// To be written into the book.
    pub(super) harm: Changes,
}

/// Sums everything up, and plans what is to be done.
pub(super) fn judge(app: &App, seen: &Seen, book: &Book) -> Judged {
    let attendance = &seen.attendance;
    let now = app.clock.monotonic();
    let tries = app.upkeep.mending.tries(now);
    // Nothing new goes to who did not take it lately, as long as there are others.
    let mut candidates = seen.candidates.clone();
    for candidate in candidates.iter_mut().filter(|it| tries.resting.contains(&it.node)) {
        candidate.liveness = candidate.liveness.max(Liveness::Degraded);
    }
    let cluster = Cluster {
        nodes: &candidates,
        gone: &attendance.gone,
        lost: &attendance.lost,
        copies: app.settings.replication_factor,
    };
    let lent = app.upkeep.strays.lent();
    let mut state = app.upkeep.state();
    let kept = |node: &NodeRef| attendance.up.contains(node) || attendance.silent.contains(node);
    state.counted.retain(|node, _| kept(node));
    for (_, counted) in state
        .counted
        .iter_mut()
        .filter(|(node, _)| !attendance.up.contains(node))
    {
        // What it holds when it is back is to be asked for anew.
        counted.version = None;
        counted.trouble.get_or_insert_with(|| "it does not answer".to_owned());
    }
    let outlook = Outlook::new(&state.census, cluster).with_lent(&lent);
    let report = report(&outlook);
    let mut book = book.clone();
    let mut harm = Changes::default();
    if seen.caught_up {
        harm = book.compare(&outlook);
        book.apply(&harm);
    }
    let harmed = Harmed {
        totals: book.totals,
        open: book.open.len() as u64,
        beyond_repair: book.beyond_repair(&outlook),
    };
    let mut plan: Vec<Planned> = Vec::new();
    let (mut stuck, mut penned) = (BTreeMap::new(), BTreeMap::new());
    for (video, row) in state.census.rows() {
        let key = (video, row.part);
        let avoided = tries.avoided.get(&key).map_or(&[][..], Vec::as_slice);
        // What is left for a while takes no room from what is not.
        if tries.held_back.contains(&key) {
            continue;
        }
        let (standing, job) = outlook.judge(video, row, avoided);
        let Some(job) = job else {
            note_stuck(&mut stuck, &mut penned, &outlook, (row, standing));
            continue;
        };
        plan.push(Planned {
            video,
            part: row.part,
            id: state.census.id(video, row.part),
            version: row.version,
            due: Due { standing, job },
            purpose: Purpose::Mends,
        });
        if plan.len() > 2 * PLAN_MAX {
            keep_worst(&mut plan);
        }
    }
    keep_worst(&mut plan);
    // Forgotten as soon as all is well: what comes then is another matter.
    app.upkeep.mending.keep_tried(now, |(video, part)| {
        let row = state.census.row(*video, *part);
        let is_well = |row| outlook.standing(row) == Standing::Whole && outlook.due(*video, row, &[]).is_none();
        row.is_some_and(|row| !is_well(row))
    });
    // Once nothing can be done about anything that is wrong.
    let at_rest = plan.is_empty() && !tries.any_moved;
    let held_back = |video, part| tries.held_back.contains(&(video, part));
    let shifts = if at_rest {
        evening_out(&outlook, held_back)
    } else {
        Vec::new()
    };
    let tried = Tried {
        held_back,
        avoided: &tries.avoided,
    };
    let migrations = migrating(&outlook, &seen.decided.wished, &shifts, tried);
    let migrates = plan.is_empty() && !seen.decided.paused;
    let zones = zones_of(&outlook);
    let all_are_counted = |node: &NodeRef| {
        let counted = state.counted.get(node);
        counted.is_some_and(|counted| counted.trouble.is_none() && counted.at.is_some())
    };
    for (node, _) in state.counted.iter().filter(|(_, counted)| counted.has_nothing_else()) {
        app.upkeep.strays.explain(*node);
    }
    let complete = seen.caught_up
        && attendance.complete
        // Who does not come back has nothing to be compared with.
        && attendance.silent.iter().all(|node| attendance.lost.contains(node))
        && attendance.up.iter().all(all_are_counted)
        && attendance.up.iter().all(|node| app.upkeep.strays.is_explained(*node))
        && report.tally.uncounted == 0;
    // Also where somebody is missed: what can be evened out is. What is brought into another form may have some chunks on
    // their way for weeks, of which nothing is counted yet: nobody waits for them where nodes hold their share.
    let is_spread = || zones.is_none_or(|zones| zones.crowded == 0);
    let is_known = || report.tally.uncounted == 0 || (is_spread() && are_even(&outlook));
    if at_rest && seen.caught_up && attendance.complete && shifts.is_empty() && is_known() {
        app.upkeep.hurried.store(false, Ordering::Relaxed);
    }
    let uneven = shifts.len();
    let is_mute = |node: &&NodeRef| state.counted.get(*node).is_some_and(|counted| counted.is_mute);
    // Its bytes may be the last good ones of what names it, however whole the other copies were when they were last read.
    // What nobody expects there may be of a film that only a newer database than this knows.
    let is_empty = |node: &&NodeRef| state.counted.get(*node).is_some_and(Counted::has_nothing_else);
    let mute = attendance.up.iter().filter(|_| complete).filter(is_mute);
    let mut empty = mute.filter(is_empty).peekable();
    let named = empty.peek().is_some().then(|| state.census.nodes());
    let dispensable = named.map_or_else(Vec::new, |named| {
        empty.filter(|node| !named.contains(node)).copied().collect()
    });
    let migrating = migrations.next.iter().filter(|_| migrates).map(|migration| Planned {
        video: migration.video,
        part: migration.part,
        id: state.census.id(migration.video, migration.part),
        version: migration.version,
        due: Due {
            standing: Standing::Whole,
            job: migration.job.clone(),
        },
        purpose: Purpose::Migrates,
    });
    let evening_out = shifts.into_iter().map(|shift| Planned {
        video: shift.video,
        part: shift.part,
        id: state.census.id(shift.video, shift.part),
        version: shift.version,
        due: Due {
            standing: Standing::Whole,
            job: Job::Move { to: shift.to },
        },
        purpose: Purpose::EvensOut,
    });
    if seen.hurried {
        // Somebody waits for it.
        plan.extend(evening_out.chain(migrating));
    } else {
        plan.extend(in_turns(migrating, evening_out));
    }
    let summary = Summary {
        at: Some(app.now()),
        complete,
        nodes: state.counted.clone(),
        valid_until: valid_until(app),
        attendance: Arc::clone(attendance),
        placed: state.caught_up.then(|| placed(&state.census)),
        uneven,
        harmed,
        dispensable,
        stuck,
        penned,
        mourned: mourned(&outlook, &report),
        report: Arc::new(report),
        zones,
        migrations: Arc::new(migrations),
    };
    drop(state);
    // The worst is taken from the end.
    plan.reverse();
    let (any, waiting) = (!plan.is_empty(), plan.len() as u64);
    *app.upkeep.plan() = plan;
    let orphans = summary.nodes.values().map(|counted| counted.orphans).sum();
    let tally = &summary.report.tally;
    app.upkeep.metrics.counted(tally, summary.complete, orphans, waiting);
    app.upkeep.metrics.harmed(&summary.harmed);
    app.upkeep.metrics.kept(&summary, app.settings.replication_factor);
    app.upkeep.set_summary(summary);
    if any {
        app.upkeep.planned.notify_one();
    }
    Judged {
        unsettled: any || !tries.held_back.is_empty() || !tries.resting.is_empty() || !tries.avoided.is_empty(),
        harm,
    }
}

/// What to move so that nodes hold more nearly the same.
fn evening_out(outlook: &Outlook<'_>, held_back: impl Fn(VideoId, Part) -> bool + Copy) -> Vec<Shift> {
    // Over zones first: there is more to lose there.
    let spread = spread(outlook, SHIFTS_MAX, held_back);
    if spread.is_empty() {
        shifts(outlook, SHIFTS_MAX, held_back)
    } else {
        spread
    }
}

/// What to bring into another form meanwhile: it may go on for weeks, and a new node would be empty for as long. Never what
/// is moved.
fn migrating(
    outlook: &Outlook<'_>,
    wished: &BTreeMap<VideoId, Wished>,
    moved: &[Shift],
    tried: Tried<'_, impl Fn(VideoId, Part) -> bool>,
) -> Migrations {
    let moved: BTreeSet<(VideoId, Part)> = moved.iter().map(|shift| (shift.video, shift.part)).collect();
    let tried = Tried {
        held_back: |video: VideoId, part: Part| (tried.held_back)(video, part) || moved.contains(&(video, part)),
        avoided: tried.avoided,
    };
    migrations(outlook, wished, MIGRATIONS_MAX, tried)
}

/// One of these, one of those, as long as there are any: neither waits for all of the others.
fn in_turns<T>(mut these: impl Iterator<Item = T>, mut those: impl Iterator<Item = T>) -> Vec<T> {
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(these.next());
        turns.extend(those.next());
        if turns.len() == before {
            return turns;
        }
    }
}

/// Different reasons that are told apart; they are as many as there are sets of nodes that may be missed together.
const REASONS_MAX: usize = 200;

/// Notes why nothing is done about a chunk, and which nodes that are to go it stays on.
fn note_stuck(
    stuck: &mut BTreeMap<Stuck, u64>,
    penned: &mut BTreeMap<NodeRef, u64>,
    outlook: &Outlook<'_>,
    (row, standing): (&Row, Standing),
) {
    let Some(why) = outlook.stuck(row, standing) else {
        return;
    };
    if why == Stuck::NowhereToGo {
        for node in row.items.iter().filter_map(|item| outlook.census.node(item.node)) {
            *penned.entry(node).or_default() += 1;
        }
    }
    if stuck.len() < REASONS_MAX || stuck.contains_key(&why) {
        *stuck.entry(why).or_default() += 1;
    }
}

/// Of each node that a chunk names that is lost: how many such chunks do, and whether any other does.
fn mourned(outlook: &Outlook<'_>, report: &Report) -> BTreeMap<NodeRef, Mourned> {
    let mut mourned: BTreeMap<NodeRef, Mourned> = BTreeMap::new();
    if report.tally.lost == 0 {
        return mourned;
    }
    for (_, row) in outlook.census.rows() {
        let is_lost = outlook.standing(row) == Standing::Lost;
        for node in row.items.iter().filter_map(|item| outlook.census.node(item.node)) {
            let of_node = mourned.entry(node).or_default();
            of_node.lost += u64::from(is_lost);
            of_node.any_other |= !is_lost;
        }
    }
    mourned
}

/// The worst first, and no more than are kept.
fn keep_worst(plan: &mut Vec<Planned>) {
    plan.sort_by_key(|planned| (planned.due.standing, planned.video, planned.part));
    plan.truncate(PLAN_MAX);
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
    use vstack_chunkpaxos::{Layout, Placement};
    use vstack_placement::Candidate;
    use vstack_types::{ChunkId, Digest, FingerprintKey, NodeUuid};
    use vstack_upkeep::census::Census;

    use super::*;

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);
    const KEY: FingerprintKey = FingerprintKey::from_bytes([1; 16]);

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    /// A film of which each chunk is whole, on the first three nodes.
    fn film(chunks: u32) -> Census {
        let mut census = Census::default();
        let nodes = [1, 2, 3].map(node);
        let mut held = Holdings::default();
        for sequence in 0..chunks {
            let placement = Placement {
                version: 1,
                size: 300_000,
                sha256: Digest::of(&sequence.to_le_bytes()),
                layout: Layout::Replicated { nodes: nodes.to_vec() },
                prev: None,
                back: false,
            };
            let id = ChunkId::of_video(VIDEO, sequence);
            census.learn(VIDEO, Part::Chunk(sequence), &id, &placement, 0);
            let (fingerprint, brief) = (KEY.of(&id), placement.brief());
            held.items.push(HeldItem {
                fingerprint,
                tag: tag_of(placement.sha256),
                damaged: false,
                wanted: Wanted::Placed,
            });
            held.registers.push(HeldRegister { fingerprint, brief });
        }
        held.sort();
        for node in nodes {
            census.count(node, &held, KEY, 0);
        }
        census
    }

    #[test]
    fn nodes_are_evened_out_while_films_change_their_form_and_no_chunk_is_planned_twice() {
        let census = film(600);
        let nodes: Vec<Candidate> = (1..=6).map(|n| Candidate::healthy(node(n))).collect();
        let cluster = Cluster {
            nodes: &nodes,
            gone: &[],
            lost: &[],
            copies: 3,
        };
        let outlook = Outlook::new(&census, cluster);
        let shards = Wished::Shards {
            data: NonZeroU8::new(3).unwrap(),
            parity: 2,
            bytes_min: 1,
            asked: false,
        };
        let running = |_: VideoId, part: Part| part == Part::Chunk(7);
        let shifts = evening_out(&outlook, running);
        let tried = Tried {
            held_back: running,
            avoided: &BTreeMap::new(),
        };
        let migrations = migrating(&outlook, &BTreeMap::from([(VIDEO, shards)]), &shifts, tried);
        // Three nodes are empty, and each is to have as much as the others.
        assert_eq!(shifts.len(), SHIFTS_MAX);
        assert_eq!(migrations.next.len(), 600 - SHIFTS_MAX - 1);
        assert_eq!(migrations.waiting[&VIDEO].chunks, 600);
        let shifted = shifts.iter().map(|shift| shift.part);
        let planned: BTreeSet<Part> = shifted.chain(migrations.next.iter().map(|next| next.part)).collect();
        assert_eq!(planned.len(), 599);
        assert!(!planned.contains(&Part::Chunk(7)), "it is being moved");
    }

    #[test]
    fn neither_waits_for_all_of_the_others() {
        let turns = |these: &[u8], those: &[u8]| in_turns(these.iter().copied(), those.iter().copied());
        assert_eq!(turns(&[1, 3, 5], &[2, 4, 6, 7, 8]), [1_u8, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(turns(&[], &[1, 2]), [1_u8, 2]);
        assert_eq!(turns(&[1, 2], &[]), [1_u8, 2]);
        assert!(turns(&[], &[]).is_empty());
    }
}

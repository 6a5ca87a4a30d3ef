//! Sums a count up, and plans what is to be done.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use vstack_placement::Liveness;
use vstack_types::NodeRef;
use vstack_upkeep::{
    balance::{are_even, placed, zones_of},
    census::Row,
    harm::{Book, Changes},
    migrate::Tried,
    plan::{Cluster, Due, Job, Outlook, Stuck},
    report::{Report, report},
    standing::Standing,
};

use super::{Seen, valid_until};
use crate::{
    app::App,
    upkeep::{
        Counted, Harmed, Mourned, Planned, Purpose, Summary,
        bettering::{Bettering, SOON, in_turns},
    },
};

/// Things to mend that are kept at once: more come with the next count.
const PLAN_MAX: usize = 10_000;

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
    state.are_up(&attendance.up);
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
    let migrates = plan.is_empty() && !seen.decided.paused;
    let bettering = Bettering {
        wished: &seen.decided.wished,
        evens_out: at_rest,
        // As many bytes as may go from node to node for it until it is looked at again.
        migrated_soon: if migrates {
            let wait = Duration::from_millis(app.upkeep.wait_ms.load(Ordering::Relaxed));
            app.settings.migration_rate.saturating_mul(SOON.max(wait).as_secs())
        } else {
            0
        },
    };
    let tried = Tried {
        held_back,
        avoided: &tries.avoided,
    };
    let (shifts, migrations) = bettering.plan(&outlook, tried);
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
    use vstack_chunkpaxos::{Layout, Shard};
    use vstack_placement::Candidate;
    use vstack_types::{Digest, VideoId};
    use vstack_upkeep::census::Part;

    use super::*;
    use crate::upkeep::fixtures::{copies, counted, node, placed};

    /// Of chunk `sequence`, one on each of five nodes, of which any three give it.
    fn shards(sequence: u8) -> Layout {
        let shard = |index: u8| Shard {
            index,
            node: node(index + 1),
            sha256: Digest::of(&[sequence, index]),
        };
        Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..5).map(shard).collect(),
        }
    }

    /// Who has what of each chunk is named: the rest has lost its part.
    #[test]
    fn the_most_endangered_come_first_whatever_their_form() {
        let table: [(Layout, &[u8]); 5] = [
            (copies(), &[1, 3]),
            (shards(1), &[1, 2, 3, 4]),
            (shards(2), &[2, 4, 5]),
            (copies(), &[2]),
            (shards(4), &[1, 2, 3, 4, 5]),
        ];
        let placements = table.map(|(layout, there)| (placed(Digest::of(b"chunk"), layout), there));
        let census = counted(&placements, 5);
        let nodes: Vec<Candidate> = (1..=5).map(|n| Candidate::healthy(node(n))).collect();
        let cluster = Cluster {
            nodes: &nodes,
            gone: &[],
            lost: &[],
            copies: 3,
        };
        let outlook = Outlook::new(&census, cluster);
        let due = |(video, row): (VideoId, &Row)| {
            Some(Planned {
                video,
                part: row.part,
                id: census.id(video, row.part),
                version: row.version,
                due: outlook.due(video, row, &[])?,
                purpose: Purpose::Mends,
            })
        };
        let mut plan: Vec<Planned> = census.rows().filter_map(due).collect();
        plan.reverse();
        keep_worst(&mut plan);
        let order: Vec<(Part, Standing)> = plan
            .iter()
            .map(|planned| (planned.part, planned.due.standing))
            .collect();
        let under = Standing::Under { survives: 1 };
        // Three of five shards that are left are as few as one of three copies; four are as many as two.
        let expected = [
            (Part::Chunk(2), Standing::Endangered),
            (Part::Chunk(3), Standing::Endangered),
            (Part::Chunk(0), under),
            (Part::Chunk(1), under),
        ];
        assert_eq!(order, expected);
    }
}

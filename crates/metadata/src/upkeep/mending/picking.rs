//! Which of what is planned is taken on next, and what it takes.

use vstack_types::NodeRef;
use vstack_upkeep::{
    census::Item,
    migrate::{bytes_moved, bytes_written},
    plan::Job,
    standing::{Form, Seen},
};

use super::{Mended, Task};
use crate::{
    app::App,
    upkeep::{Planned, Purpose, reason::Reason},
};

/// Looked at for one that may be taken on now.
const LOOKED_AT: usize = 256;

/// What may be done now besides mending.
#[derive(Debug, Clone, Copy)]
pub(super) struct May {
    pub(super) even_out: bool,
    pub(super) migrate: bool,
}

impl May {
    const fn allows(self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Mends => true,
            Purpose::EvensOut => self.even_out,
            Purpose::Migrates => self.migrate,
        }
    }
}

/// The most endangered chunk of the plan that may be taken on now. Those that may not stay in the plan.
pub(super) fn take(app: &App, may: May) -> Option<Task> {
    let now = app.clock.monotonic();
    let mut plan = app.upkeep.plan();
    let busy = app.upkeep.mending.ledger().busy(now);
    let (mut at, mut looks) = (plan.len(), LOOKED_AT);
    while at > 0 && looks > 0 {
        at -= 1;
        let planned = &plan[at];
        // What may not be done yet keeps nothing behind it waiting, and is no look: there are no more than are planned at once.
        if !may.allows(planned.purpose) {
            continue;
        }
        // However many there are for one node, others wait behind them only as long as bytes take.
        if matches!(&planned.due.job, Job::Restore { node, .. } if busy.contains(node)) {
            continue;
        }
        looks -= 1;
        let key = (planned.video, planned.part);
        let Some(Known {
            moves,
            spends,
            to,
            reason,
        }) = known(app, planned)
        else {
            // It is gone, or something else is to be done about it.
            plan.remove(at);
            continue;
        };
        let mut ledger = app.upkeep.mending.ledger();
        let Some(tries) = ledger.may_begin(key, now) else {
            plan.remove(at);
            continue;
        };
        if ledger.is_busy(&to) {
            continue;
        }
        let planned = plan.remove(at);
        let task = Task {
            reason: reason.word(planned.purpose),
            planned,
            moves,
            spends,
            to,
            tries,
        };
        let begun = Mended {
            chunk: task.planned.id.clone(),
            video: task.planned.video,
            what: task.what(),
            why: task.planned.due.standing,
            began: app.now(),
            took: None,
            bytes: 0,
            failed: None,
            purpose: task.planned.purpose,
            reason,
            copies: !task.to.is_empty(),
            to: task.to.clone(),
        };
        ledger.running.insert(key, begun);
        return Some(task);
    }
    None
}

/// Of a planned chunk that is as it was.
struct Known {
    /// Bytes that go from node to node for it.
    moves: u64,
    /// Those, or what nodes write for it where that is more.
    spends: u64,
    /// Who gets them.
    to: Vec<NodeRef>,
    reason: Reason,
}

fn known(app: &App, planned: &Planned) -> Option<Known> {
    let attendance = app.upkeep.attendance();
    let state = app.upkeep.state();
    let row = state.census.row(planned.video, planned.part)?;
    if row.version != planned.version || state.census.id(planned.video, planned.part) != planned.id {
        return None;
    }
    let has = |node: &NodeRef| row.items.iter().any(|item| state.census.node(item.node) == Some(*node));
    let size = u64::from(row.size);
    let times = |count: usize| size.saturating_mul(count as u64);
    let (to, moves): (Vec<NodeRef>, u64) = match &planned.due.job {
        Job::Restore { node, .. } => (vec![*node], size),
        Job::Move { to } if row.form == Form::Replicated => {
            let to: Vec<NodeRef> = to.iter().copied().filter(|node| !has(node)).collect();
            let moves = times(to.len());
            (to, moves)
        }
        Job::Move { to } => {
            let changed = row.of_layout().zip(to).filter_map(|(item, to)| {
                let from = state.census.node(item.node)?;
                (from != *to).then_some((from, *to))
            });
            let changed: Vec<(NodeRef, NodeRef)> = changed.collect();
            // A shard goes as it is, or is made of as many others as are read.
            let cost = |from: &NodeRef| {
                if attendance.up.contains(from) {
                    row.form.item_bytes(row.size)
                } else {
                    size
                }
            };
            let moves = changed.iter().map(|(from, _)| cost(from)).sum();
            (changed.into_iter().map(|(_, to)| to).collect(), moves)
        }
        Job::Correct { to } => {
            let changed = row.of_layout().zip(to);
            let is_made =
                |(item, to): &(&Item, &NodeRef)| item.seen == Seen::Wrong || state.census.node(item.node) != Some(**to);
            let to: Vec<NodeRef> = changed.filter(is_made).map(|(_, to)| *to).collect();
            // Each is made of as many others as are read.
            let moves = times(to.len());
            (to, moves)
        }
        job @ (Job::Encode { to, .. } | Job::Decode { to }) => (to.clone(), bytes_moved(&state.census, row, job)),
        Job::Salvage => (Vec::new(), times(app.settings.replication_factor)),
        Job::Read { .. } | Job::Settle | Job::TurnBack => (Vec::new(), 0),
    };
    let is_to_go = |node| app.upkeep.stays_because(node).is_some();
    let reason = Reason::of(&planned.due.job, (&state.census, row), &attendance, is_to_go);
    Some(Known {
        moves,
        spends: moves.max(bytes_written(row, &planned.due.job)),
        to,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vstack_types::{Monotonic, VideoId};
    use vstack_upkeep::census::Part;

    use super::*;
    use crate::upkeep::mending::{Key, Mending};

    const KEY: Key = (VideoId::from_bytes([1; 16]), Part::Chunk(0));

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn what_changes_its_form_does_not_keep_nodes_from_being_evened_out() {
        let mending = Mending::default();
        let begin = |sequence: u32, purpose: Purpose| {
            let begun = Mended::begun(purpose, &[]);
            mending.ledger().running.insert((KEY.0, Part::Chunk(sequence)), begun);
        };
        begin(0, Purpose::Migrates);
        assert!(!mending.tries(at(0)).any_moved);
        for purpose in [Purpose::Mends, Purpose::EvensOut] {
            begin(1, purpose);
            assert!(mending.tries(at(0)).any_moved, "{purpose:?}");
        }
        assert_eq!(mending.tries(at(0)).held_back.len(), 2, "none is begun twice");
        // Neither is looked at when its bytes of a second are used up, and the other is.
        let (even_out, migrate) = (Purpose::EvensOut, Purpose::Migrates);
        for (may, allowed) in [((true, false), even_out), ((false, true), migrate)] {
            let may = May {
                even_out: may.0,
                migrate: may.1,
            };
            let purposes = [Purpose::Mends, even_out, migrate];
            let those: Vec<Purpose> = purposes.into_iter().filter(|purpose| may.allows(*purpose)).collect();
            assert_eq!(those, [Purpose::Mends, allowed]);
        }
    }
}

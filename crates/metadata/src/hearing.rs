//! Who was heard of, and when, in memory. A sign of life counts from when it came, however long the database takes to write
//! it down, or whether it can: on a disk that syncs for seconds, or is full, nodes would be called gone that are there.
//!
//! What is written down is for the next process. While nothing else is new it is written seldom, since each sync holds up
//! whatever else is decided. Pure but for its lock: moments are arguments.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use vstack_types::{NodeUuid, ProcessUuid, Timestamp};

use crate::store::{HEARTBEAT_AHEAD_MS, Held, NODES_MAX, Node, NodeBeat};

/// What is written down is no older than this, however long nodes may be silent: what they hold is told with its age.
const WRITTEN_EVERY_MAX: Duration = Duration::from_secs(20);
/// Free bytes and their share change all the time by what others do on the same disk: by less than this it is no news.
const FREE_NOISE: u64 = 64 << 20;
const PERCENT_NOISE: f64 = 0.5;

/// What was heard since this service started.
#[derive(Debug, Default)]
pub(crate) struct Hearing(Mutex<Heard>);

/// The same as of one moment: of each disk, as each process served it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(BTreeMap<(NodeUuid, Option<ProcessUuid>), Sign>);

/// The last sign of life.
#[derive(Debug, Clone)]
struct Sign {
    label: String,
    at: Timestamp,
    /// What its disk holds, as it was written down last.
    held: Option<Held>,
}

impl Hearing {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As of now.
    pub(crate) fn heard(&self) -> Heard {
        self.lock().clone()
    }

    /// A sign of life came, of a disk that it names and under the cluster secret.
    pub(crate) fn note(&self, label: &str, beat: &NodeBeat) {
        self.lock().note(label, beat);
    }

    /// It was written down.
    pub(crate) fn wrote(&self, beat: &NodeBeat) {
        let Some(disk) = beat.disk else { return };
        if let Some(sign) = self.lock().0.get_mut(&(disk, beat.process)) {
            sign.held = beat.held;
        }
    }

    /// Whether anything in a sign of life of this node, as it is written down, is to be written down, too.
    pub(crate) fn is_news(&self, known: &Node, beat: &NodeBeat, node_timeout: Duration) -> bool {
        let held = beat.disk.and_then(|disk| {
            let heard = self.lock();
            heard.0.get(&(disk, beat.process)).and_then(|sign| sign.held)
        });
        let every = (node_timeout / 3).min(WRITTEN_EVERY_MAX);
        let is_fresh = |last: Timestamp| last <= beat.at && beat.at.since(last) < every;
        let is_near = match (known.disk_free, beat.disk_free) {
            (Some(known), Some(told)) => known.abs_diff(told) < FREE_NOISE,
            (known, told) => known == told,
        };
        let is_known = is_of(known, beat.disk, beat.process)
            && known.last_heartbeat.is_some_and(is_fresh)
            // How far a log reaches is remembered to the last record that was told of.
            && beat.log_seq.is_none_or(|log_seq| log_seq <= known.log_seq)
            && beat.chunk_count == known.chunk_count
            && (beat.held.is_none() || beat.held == held)
            && is_near
            && (beat.disk_percent - known.disk_percent).abs() < PERCENT_NOISE;
        !is_known
    }
}

impl Heard {
    fn note(&mut self, label: &str, beat: &NodeBeat) {
        let Some(disk) = beat.disk else { return };
        let key = (disk, beat.process);
        if let Some(sign) = self.0.get_mut(&key) {
            sign.at = latest(Some(sign.at), beat.at);
            label.clone_into(&mut sign.label);
            return;
        }
        if self.0.len() >= NODES_MAX {
            // Of processes that ended long ago nobody asks any more.
            let oldest = self.0.iter().min_by_key(|(_, sign)| sign.at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        let sign = Sign {
            label: label.to_owned(),
            at: beat.at,
            held: None,
        };
        self.0.insert(key, sign);
    }

    /// A node as it is written down, with when it was last heard of.
    pub(crate) fn over(&self, node: Node) -> Node {
        let Some(disk) = node.acceptor.map(|acceptor| acceptor.uuid) else {
            return node;
        };
        let signs = [None, node.process]
            .into_iter()
            .filter_map(|process| self.0.get(&(disk, process)));
        let at = signs.filter(|sign| sign.label == node.label).map(|sign| sign.at).max();
        let last_heartbeat = at.map_or(node.last_heartbeat, |at| Some(latest(node.last_heartbeat, at)));
        Node { last_heartbeat, ..node }
    }
}

/// Whether a sign of life of this disk and process, as far as they are said, is one of this node.
fn is_of(node: &Node, disk: Option<NodeUuid>, process: Option<ProcessUuid>) -> bool {
    let its_disk = node.acceptor.map(|acceptor| acceptor.uuid);
    disk.is_none_or(|disk| its_disk == Some(disk)) && process.is_none_or(|process| node.process == Some(process))
}

/// The later one, but for what a clock noted that was set back since.
fn latest(known: Option<Timestamp>, at: Timestamp) -> Timestamp {
    let is_possible = |known: &Timestamp| known.0 <= at.0.saturating_add(HEARTBEAT_AHEAD_MS);
    known.filter(is_possible).map_or(at, |known| known.max(at))
}

#[cfg(test)]
mod tests {
    use vstack_api::metadata::NodeRole;
    use vstack_types::NodeRef;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const HELD: Held = Held {
        item_bytes: 700,
        allocated_bytes: 4_096,
    };

    const fn disk(n: u8) -> NodeUuid {
        NodeUuid::from_bytes([n; 16])
    }

    const fn process(n: u8) -> ProcessUuid {
        ProcessUuid::from_bytes([n; 16])
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(1_700_000_000_000 + seconds * 1_000)
    }

    /// Of disk and process 1, as it is written down at 100.
    fn node() -> Node {
        Node {
            label: "a".into(),
            url: "http://host:1".into(),
            public_url: "http://host:1".into(),
            acceptor: Some(NodeRef::first(disk(1))),
            log_seq: 20,
            process: Some(process(1)),
            zone: String::new(),
            version: "1".into(),
            last_heartbeat: Some(at(100)),
            disk_percent: 40.0,
            disk_free: Some(1 << 40),
            chunk_count: 7,
            trusted: true,
            went_back: false,
            role: NodeRole::Active,
        }
    }

    /// Of the same, with nothing new in it.
    fn beat(seconds: i64) -> NodeBeat {
        NodeBeat {
            disk_percent: 40.0,
            disk_free: Some(1 << 40),
            chunk_count: 7,
            held: Some(HELD),
            log_seq: Some(20),
            at: at(seconds),
            disk: Some(disk(1)),
            process: Some(process(1)),
        }
    }

    fn last_heard(hearing: &Hearing, node: Node) -> Option<Timestamp> {
        hearing.heard().over(node).last_heartbeat
    }

    #[test]
    fn who_is_heard_is_so_at_once_and_as_himself_alone() {
        let hearing = Hearing::default();
        assert_eq!(last_heard(&hearing, node()), Some(at(100)), "what is written down");
        hearing.note("a", &beat(130));
        assert_eq!(last_heard(&hearing, node()), Some(at(130)));
        let others = [
            Node {
                label: "b".into(),
                ..node()
            },
            Node {
                acceptor: Some(NodeRef::first(disk(2))),
                ..node()
            },
            Node {
                acceptor: None,
                ..node()
            },
            Node {
                process: Some(process(2)),
                ..node()
            },
            Node {
                process: None,
                ..node()
            },
        ];
        for other in others {
            assert_eq!(last_heard(&hearing, other.clone()), Some(at(100)), "{other:?}");
        }
        // Of a copy of the disk that runs beside it, each is heard for itself.
        let of_copy = NodeBeat {
            process: Some(process(2)),
            ..beat(150)
        };
        hearing.note("a", &of_copy);
        assert_eq!(last_heard(&hearing, node()), Some(at(130)));
        // Who does not say which process it is, is any.
        let nameless = NodeBeat {
            process: None,
            ..beat(160)
        };
        hearing.note("a", &nameless);
        assert_eq!(last_heard(&hearing, node()), Some(at(160)));
        let of_no_disk = NodeBeat {
            disk: None,
            ..beat(190)
        };
        hearing.note("a", &of_no_disk);
        assert_eq!(last_heard(&hearing, node()), Some(at(160)));
    }

    #[test]
    fn it_never_goes_back_but_with_the_clock() {
        let hearing = Hearing::default();
        for (seconds, expected) in [(130, 130), (120, 130), (900, 900), (150, 150)] {
            hearing.note("a", &beat(seconds));
            assert_eq!(last_heard(&hearing, node()), Some(at(expected)), "at {seconds}");
        }
        let late = |seconds| Node {
            last_heartbeat: Some(at(seconds)),
            ..node()
        };
        assert_eq!(last_heard(&hearing, late(160)), Some(at(160)), "as it registered again");
        assert_eq!(
            last_heard(&hearing, late(900)),
            Some(at(150)),
            "written down by a clock that was ahead"
        );
        let never = Node {
            last_heartbeat: None,
            ..node()
        };
        assert_eq!(last_heard(&hearing, never), Some(at(150)));
    }

    #[test]
    fn what_says_nothing_new_is_written_down_now_and_then() {
        let hearing = Hearing::default();
        let is_news = |beat: &NodeBeat| hearing.is_news(&node(), beat, TIMEOUT);
        hearing.note("a", &beat(101));
        assert!(is_news(&beat(101)), "nothing is known of what was written down before");
        hearing.wrote(&beat(101));
        assert!(!is_news(&beat(101)));
        assert!(!is_news(&beat(109)));
        assert!(is_news(&beat(110)), "a third of the time that a node may be silent");
        assert!(is_news(&beat(99)), "the clock was set back");
        let long = Duration::from_secs(3_600);
        assert!(!hearing.is_news(&node(), &beat(119), long) && hearing.is_news(&node(), &beat(120), long));
        let other = |change: fn(&mut NodeBeat)| {
            let mut beat = beat(101);
            change(&mut beat);
            is_news(&beat)
        };
        let all_news: [fn(&mut NodeBeat); 8] = [
            |beat| beat.log_seq = Some(21),
            |beat| beat.chunk_count = 8,
            |beat| beat.disk_percent = 41.0,
            |beat| beat.disk_free = Some((1 << 40) - (1 << 30)),
            |beat| beat.disk_free = None,
            |beat| {
                beat.held = Some(Held {
                    item_bytes: 701,
                    ..HELD
                });
            },
            // Those are refused, which the database says.
            |beat| beat.disk = Some(disk(2)),
            |beat| beat.process = Some(process(2)),
        ];
        assert!(all_news.into_iter().all(other));
        let no_news: [fn(&mut NodeBeat); 5] = [
            |beat| beat.log_seq = Some(19),
            |beat| beat.log_seq = None,
            |beat| beat.disk_percent = 40.1,
            |beat| beat.disk_free = Some((1 << 40) - (1 << 20)),
            |beat| beat.held = None,
        ];
        assert!(!no_news.into_iter().any(other));
    }

    #[test]
    fn however_many_processes_there_were_few_are_remembered() {
        let hearing = Hearing::default();
        let count = u16::try_from(NODES_MAX).expect("few") + 10;
        for n in 0..count {
            let mut bytes = [1; 16];
            bytes[..2].copy_from_slice(&n.to_le_bytes());
            let of_process = NodeBeat {
                process: Some(ProcessUuid::from_bytes(bytes)),
                ..beat(n.into())
            };
            hearing.note("a", &of_process);
        }
        assert_eq!(hearing.heard().0.len(), NODES_MAX);
        let of_last = hearing.heard().0.into_values().map(|sign| sign.at).max();
        assert_eq!(of_last, Some(at(i64::from(count) - 1)), "the last ones");
    }
}

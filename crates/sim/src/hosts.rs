//! The machines of a history and the processes on them: started, cut off, started again on what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use vstack_engine::{BoxedDisk, MemDisk, OpenReport, Reader};
use vstack_node::Queues;
use vstack_types::{NodeRef, NodeUuid};

use crate::{clock::Skew, dice::Dice, life::Life, rot::Rot};

/// A machine, or whoever sends requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostId(pub u8);

/// Who watches, uploads by hand and deletes.
pub(crate) const USERS: HostId = HostId(200);
/// The metadata service's machine.
pub(crate) const METADATA: HostId = HostId(100);
const UPLOADERS: u8 = 110;
const RIVALS: u8 = 210;

impl HostId {
    /// Storage node `n`, from 1.
    pub(crate) const fn node(n: u8) -> Self {
        Self(n)
    }

    /// Uploader `n`, from 1.
    pub(crate) const fn uploader(n: u8) -> Self {
        Self(UPLOADERS + n)
    }

    /// A rival proposer, from 1.
    pub(crate) const fn rival(n: u8) -> Self {
        Self(RIVALS + n)
    }

    /// The host with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "meta" => return Some(METADATA),
            "users" => return Some(USERS),
            _ => {}
        }
        let (kind, number) = name.split_at_checked(1)?;
        let number: u8 = number.parse().ok()?;
        match kind {
            "n" => Some(Self::node(number)),
            "u" => Some(Self::uploader(number)),
            "r" => Some(Self::rival(number)),
            _ => None,
        }
    }

    /// Where it is reached.
    pub(crate) fn url(self) -> String {
        format!("http://{self}")
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            100 => f.write_str("meta"),
            200 => f.write_str("users"),
            n if n > RIVALS => write!(f, "r{}", n - RIVALS),
            n if n > UPLOADERS => write!(f, "u{}", n - UPLOADERS),
            n => write!(f, "n{n}"),
        }
    }
}

/// A node's process.
pub(crate) struct RunningNode {
    pub life: Life,
    pub me: NodeRef,
    pub reader: Reader<BoxedDisk>,
    /// What it found when it started.
    pub report: OpenReport,
    /// What waits in it.
    pub queues: Box<dyn Fn() -> Queues + Send>,
}

/// A machine with a storage node.
pub(crate) struct NodeHost {
    pub disk: MemDisk,
    pub skew: Skew,
    pub slowness: Slowness,
    /// Faults of its disk that were ever planned.
    pub planned: usize,
    /// Who it was when it last started.
    pub me: Option<NodeRef>,
    /// It works on a copy of a disk, and gives this name as its own: it counts for nothing.
    pub copy: Option<HostId>,
    pub running: Option<RunningNode>,
}

/// A write or a sync of a slow disk takes at least so long, one of another disk never.
pub(crate) const SLOW_FROM: Duration = Duration::from_millis(50);

/// How long a disk takes.
#[derive(Debug)]
pub(crate) struct Slowness {
    dice: Dice,
    /// Of 100 writes and syncs, those that take long.
    pub percent: u32,
}

impl Slowness {
    fn draw(&mut self) -> Duration {
        if self.dice.chance(self.percent) {
            self.dice.millis(50, 5_000)
        } else {
            self.dice.millis(0, 3)
        }
    }
}

impl NodeHost {
    pub(crate) fn new(dice: Dice) -> Self {
        Self {
            disk: MemDisk::default(),
            skew: Skew::default(),
            slowness: Slowness { dice, percent: 0 },
            planned: 0,
            me: None,
            copy: None,
            running: None,
        }
    }

    /// Its process, as long as that lives.
    pub(crate) fn alive(&self) -> Option<&RunningNode> {
        self.running.as_ref().filter(|running| !running.life.is_over())
    }
}

/// The metadata service's machine.
#[derive(Default)]
pub(crate) struct MetadataHost {
    pub skew: Skew,
    pub running: Option<Life>,
}

/// A machine with an uploader.
pub(crate) struct UploaderHost {
    pub skew: Skew,
    /// Its `TEMP_DIR`; the next process gets a copy, so that what is left of this one cannot touch it.
    pub dir: Arc<tempfile::TempDir>,
    pub running: Option<RunningUploader>,
}

/// An uploader's process.
pub(crate) struct RunningUploader {
    pub life: Life,
    pub uploader: vstack_uploader::Uploader,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Hosts {
    pub nodes: BTreeMap<HostId, NodeHost>,
    pub metadata: MetadataHost,
    pub uploaders: BTreeMap<HostId, UploaderHost>,
    /// Disks that the simulation itself took away or damaged: what they lack is no fault of anybody.
    pub harmed: BTreeSet<NodeUuid>,
    /// Of them, those on which an earlier moment was put back, after a later one was told of.
    pub went_back: BTreeSet<NodeUuid>,
    /// Disks on which something rotted, and how much.
    pub rotten: BTreeMap<NodeUuid, Rot>,
    /// New names of disks that gave up those under which they were harmed.
    pub adopted: BTreeSet<NodeUuid>,
    /// Of those that were harmed, the ones that stay in use: what they lack is to be there again in the end.
    pub kept: BTreeSet<NodeUuid>,
    /// Disks of which an operator said that they do not come back, or is about to; and those that he has taken out. Who is
    /// silent of them counts as lost for good.
    pub given_up: BTreeSet<NodeUuid>,
    /// Those that were taken out.
    pub removed: BTreeSet<NodeUuid>,
}

impl Hosts {
    /// Whether this disk was harmed and does not stay in use under this name: nothing may depend on it in the end.
    pub(crate) fn is_gone(&self, disk: NodeUuid) -> bool {
        self.harmed.contains(&disk) && !self.kept.contains(&disk)
    }

    /// Whether the metadata service may go on without this disk, whether or not it is there.
    pub(crate) fn is_given_up(&self, disk: NodeUuid) -> bool {
        self.is_gone(disk) || self.given_up.contains(&disk)
    }

    /// Whether something was done to this disk, or may lie on it unseen that was.
    pub(crate) fn is_suspect(&self, disk: NodeUuid) -> bool {
        self.harmed.contains(&disk) || self.rotten.contains_key(&disk)
    }

    /// The running node that is this acceptor.
    pub(crate) fn acceptor(&self, node: NodeRef) -> Option<&RunningNode> {
        self.running_nodes()
            .map(|(_, running)| running)
            .find(|running| running.me == node)
    }

    /// All nodes that run, but for copies. Of a process that ended by itself nothing can be read any more.
    pub(crate) fn running_nodes(&self) -> impl Iterator<Item = (HostId, &RunningNode)> {
        self.nodes
            .iter()
            .filter(|(_, host)| host.copy.is_none())
            .filter_map(|(id, host)| Some((*id, host.alive()?)))
    }

    /// The life of the process on `host`; none when none was started since it was cut off.
    pub(crate) fn life(&self, host: HostId) -> Option<&Life> {
        if host == METADATA {
            return self.metadata.running.as_ref();
        }
        if let Some(node) = self.nodes.get(&host) {
            return node.running.as_ref().map(|running| &running.life);
        }
        let uploader = self.uploaders.get(&host)?;
        uploader.running.as_ref().map(|running| &running.life)
    }

    /// How long a write or a sync of `node`'s disk takes now.
    pub(crate) fn pause(&mut self, node: HostId) -> Duration {
        let Some(host) = self.nodes.get_mut(&node) else {
            return Duration::ZERO;
        };
        host.slowness.draw()
    }
}

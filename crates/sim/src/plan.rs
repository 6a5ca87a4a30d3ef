//! What a seed stands for: how large the cluster is, what is done with it, and what goes wrong.

use std::time::Duration;

use vstack_metadata::ReaperPace;

use crate::{dice::Dice, doubles::Double, harm::Harm, hosts::HostId, network::Weather};

/// So many times as long as a short history is a long one.
const LONG: u32 = 10;

/// How fast the services work through what can wait.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub superblock_bytes: u64,
    pub gc_interval: Duration,
    pub gc_grace: Duration,
    pub staging_ttl: Duration,
    pub heartbeat: Duration,
    /// Records after which a node writes its index down.
    pub checkpoint_records: u64,
    /// In which a node reads everything again.
    pub scrub_period: Duration,
    /// From which percent of waste on a node that has nothing else to do makes order. Doing so, it gives up what is damaged:
    /// where it does not, only who keeps count can tell.
    pub idle_percent: u64,
    /// In which each chunk in shards is audited; none where that takes longer than any history.
    pub audit_every: Option<Duration>,
    pub reaper: ReaperPace,
    /// After so much silence what a node held is made anew.
    pub repair_grace: Duration,
}

/// How films are kept that nobody asks anything for: by their views, within the time of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// For so long a new film stays as copies.
    pub cold_after: Duration,
    /// What was moved to another form stays there for so long.
    pub dwell: Duration,
    /// More views than these are many.
    pub views: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub seed: u64,
    /// So many times the length of a short history.
    pub stretch: u32,
    pub nodes: u8,
    pub uploaders: u8,
    pub films: u32,
    /// People who publish a film by a script.
    pub scripts: u32,
    /// Somebody ends registers of a film one by one.
    pub condemns: bool,
    /// An operator drains nodes and thinks better of it.
    pub operates: bool,
    /// An operator takes a node out for good.
    pub removes: bool,
    /// Failure domains that nodes are spread over; 0 where they are told of none.
    pub zones: u8,
    /// For so long what was deleted can be restored.
    pub trash: Duration,
    /// Chunks are moved to coded layouts.
    pub codes: bool,
    /// The form of films follows from their views, and nobody asks for one; none where all are new for as long as they are
    /// looked at.
    pub policy: Option<Policy>,
    /// Shards are listed that are none of their chunk, one of a chunk at a time.
    pub forges: bool,
    /// Rival proposers.
    pub rivals: u8,
    /// Copies of a chunk.
    pub copies: usize,
    /// How long things go wrong.
    pub trouble: Duration,
    pub weather: Weather,
    /// Mean time between two faults.
    pub fault_every: Duration,
    /// What is done to one of the disks for good.
    pub harm: Option<Harm>,
    /// A copy of a disk is started.
    pub double: Option<Double>,
    /// A node that is there only from then on.
    pub joins_after: Option<Duration>,
    pub pace: Pace,
}

impl Plan {
    /// That of `seed`, ten times as long when it is to be `long`.
    pub(crate) fn of(seed: u64, long: bool) -> Self {
        let mut short = Self::short(seed);
        if short.harm.is_none() {
            let doubles = [Some(Double::Used), Some(Double::Retired), None, None, None];
            short.double = doubles[Dice::of(seed, "doubles").index(5)];
        }
        // It is not to leave a copy of its disk behind.
        let may_lose_one = usize::from(short.nodes) > short.copies && short.double.is_none();
        short.removes = may_lose_one && Dice::of(seed, "removes").chance(40);
        // With a disk lost besides, too few shards of a chunk might be right; and nobody finds those that are not but audits.
        let loses_none = short.harm.is_none() && short.double.is_none() && !short.removes;
        let has_shards = short.codes || short.policy.is_some();
        short.forges = loses_none && has_shards && short.pace.audit_every.is_some();
        if !long {
            return short;
        }
        Self {
            stretch: LONG,
            films: short.films * LONG,
            scripts: short.scripts * LONG,
            trouble: short.trouble * LONG,
            joins_after: short.joins_after.map(|after| after * LONG),
            ..short
        }
    }

    /// The failure domain of a node; none where nodes are told of none.
    pub(crate) fn zone(&self, node: HostId) -> Option<String> {
        let number = node.0.checked_rem(self.zones)?;
        Some(format!("z{number}"))
    }

    fn short(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "plan");
        let nodes = [3, 3, 3, 4, 5, 5, 7][dice.index(7)];
        // Half of all histories have a good network, so that what they find is due to something else.
        let weather = if dice.chance(50) {
            Weather::default()
        } else {
            Weather {
                lost: [0, 2, 10][dice.index(3)],
                slow: [0, 5, 20][dice.index(3)],
                doubled: [0, 5, 20][dice.index(3)],
                hung_up: [0, 50][dice.index(2)],
            }
        };
        // Drawn apart, so that all else stays what it was before there was harm.
        let mut harms = Dice::of(seed, "harm and growth");
        let codes = Dice::of(seed, "codes").chance(40);
        Self {
            seed,
            stretch: 1,
            double: None,
            harm: [
                None,
                None,
                None,
                Some(Harm::Rot),
                Some(Harm::Wiped),
                Some(Harm::WentBack),
            ][harms.index(6)],
            joins_after: harms.chance(20).then(|| harms.millis(5_000, 30_000)),
            nodes,
            uploaders: if dice.chance(60) { 1 } else { 2 },
            films: u32::try_from(dice.between(2, 4)).unwrap_or(2),
            scripts: [0, 0, 1, 1, 2][Dice::of(seed, "scripts").index(5)],
            condemns: Dice::of(seed, "condemned").chance(30),
            operates: Dice::of(seed, "operates").chance(30),
            removes: false,
            zones: [0, 0, 0, 2, 3][Dice::of(seed, "zones").index(5)],
            trash: Duration::from_secs([0, 0, 0, 20, 40][Dice::of(seed, "trash").index(5)]),
            codes,
            policy: policy(seed).filter(|_| !codes),
            forges: false,
            rivals: [0, 1, 2][dice.index(3)],
            copies: if nodes >= 5 && dice.chance(30) { 5 } else { 3 },
            trouble: dice.millis(20_000, 60_000),
            weather,
            fault_every: dice.millis(1_500, 8_000),
            pace: Pace {
                superblock_bytes: 64 * 1024,
                gc_interval: Duration::from_secs(dice.between(1, 5)),
                gc_grace: Duration::from_secs(dice.between(1, 10)),
                // Some nodes are quick to drop what nobody placed.
                staging_ttl: Duration::from_secs([10, 24 * 3600][Dice::of(seed, "staging").index(2)]),
                heartbeat: Duration::from_secs(dice.between(2, 8)),
                checkpoint_records: [5, 50, 1_000_000][Dice::of(seed, "checkpoint").index(3)],
                scrub_period: Duration::from_secs([10, 604_800][Dice::of(seed, "scrub").index(2)]),
                idle_percent: [1, 10, 100, 100][Dice::of(seed, "order").index(4)],
                audit_every: audit_every(seed),
                reaper: ReaperPace::default(),
                // Some clusters replace who is away soon, others wait for all the trouble to be over.
                repair_grace: Duration::from_secs([15, 45, 900][Dice::of(seed, "repairs").index(3)]),
            },
        }
    }
}

/// Short enough for a film to become cold, and hot again, while things go wrong.
fn policy(seed: u64) -> Option<Policy> {
    let mut dice = Dice::of(seed, "policy");
    dice.chance(40).then(|| Policy {
        cold_after: Duration::from_secs(dice.between(3, 8)),
        dwell: Duration::from_secs(dice.between(15, 40)),
        views: 1,
    })
}

fn audit_every(seed: u64) -> Option<Duration> {
    let mut dice = Dice::of(seed, "audits");
    dice.chance(60).then(|| Duration::from_secs(dice.between(40, 120)))
}

//! Goes around all chunks that are kept as shards, so that it is looked once in a while whether the shards of each give it.
//!
//! How far it came is in memory alone: whoever restarts begins anew, at a place drawn at random.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    time::Duration,
};

use vstack_erasure::decodings;
use vstack_types::{Monotonic, VideoId};

use crate::{
    census::{Census, Part, Row},
    report::Kept,
    standing::Form,
};

/// Between two chunks, however few there are: one that is restarted often gets around, too.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Bytes a second that are read for it at most: half of what evening nodes out may move, unless somebody says otherwise.
const RATE_MAX: u64 = 10_000_000;
/// While something else is to be done, so many times fewer bytes a second are read: a hundredth of what repairs may move, unless
/// somebody says otherwise.
const BESIDE: u64 = 10;
/// Chunks that are remembered to be looked at besides. Where there are more, the round comes by.
const LATER_MAX: usize = 10_000;

/// How far it came.
#[derive(Debug, Default)]
pub struct Round {
    /// The chunk that was looked at last; none before the first.
    after: Option<(VideoId, Part)>,
    /// To be looked at besides, from when on, in that order.
    later: VecDeque<(Monotonic, VideoId, Part)>,
    /// It is the round's turn, whatever else is to be looked at: it gets around, too.
    goes_on: bool,
}

impl Round {
    /// A chunk is to be looked at besides, from `at` on, which is no earlier than what was said of others before. If that was
    /// said of it already, nothing changes.
    pub fn again(&mut self, video: VideoId, part: Part, at: Monotonic) {
        let is_known = || self.later.iter().any(|(_, of, known)| (*of, *known) == (video, part));
        if self.later.len() < LATER_MAX && !is_known() {
            self.later.push_back((at, video, part));
        }
    }

    /// The chunk to be looked at next; none where there are no shards. `draw` says where to begin.
    pub fn next<'c>(
        &mut self,
        census: &'c Census,
        kept: &BTreeMap<VideoId, Kept>,
        now: Monotonic,
        draw: impl FnOnce() -> u64,
    ) -> Option<(VideoId, &'c Row)> {
        let goes_on = std::mem::replace(&mut self.goes_on, false);
        while !goes_on && self.later.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, video, part) = self.later.pop_front()?;
            if let Some(row) = census.row(video, part).filter(|row| is_due(row)) {
                self.goes_on = true;
                return Some((video, row));
            }
        }
        let after = match self.after {
            Some(after) => after,
            None => drawn(census, kept, draw)?,
        };
        let (video, row) = behind(census, kept, after)?;
        self.after = Some((video, row.part));
        Some((video, row))
    }
}

/// What is being moved is looked at when it is there.
const fn is_due(row: &Row) -> bool {
    matches!(row.form, Form::Coded { .. }) && !row.joint
}

/// A place to begin behind: any of all chunks that are shards.
fn drawn(census: &Census, kept: &BTreeMap<VideoId, Kept>, draw: impl FnOnce() -> u64) -> Option<(VideoId, Part)> {
    let all = chunks(kept);
    if all == 0 {
        return None;
    }
    let mut number = draw() % all;
    for (video, kept) in kept {
        if let Some(of_others) = number.checked_sub(kept.shards.chunks) {
            number = of_others;
            continue;
        }
        let mut rows = census.rows_of(*video).iter().filter(|row| is_due(row));
        let row = rows.nth(usize::try_from(number).unwrap_or(usize::MAX));
        return Some((*video, row.map_or(Part::Init, |row| row.part)));
    }
    None
}

/// The first chunk behind another one; behind the last is the first.
fn behind<'c>(
    census: &'c Census,
    kept: &BTreeMap<VideoId, Kept>,
    (video, part): (VideoId, Part),
) -> Option<(VideoId, &'c Row)> {
    let mut rest = census.rows_of(video).iter();
    if let Some(row) = rest.find(|row| row.part > part && is_due(row)) {
        return Some((video, row));
    }
    let others = kept.range((Bound::Excluded(video), Bound::Unbounded));
    let around = others.chain(kept.range(..=video));
    // Of a million chunks, those of videos that have none are passed over together.
    let mut coded = around.filter(|(_, kept)| kept.shards.chunks > 0);
    coded.find_map(|(video, _)| {
        let row = census.rows_of(*video).iter().find(|row| is_due(row))?;
        Some((*video, row))
    })
}

/// Chunks that are shards.
pub fn chunks(kept: &BTreeMap<VideoId, Kept>) -> u64 {
    kept.values().map(|kept| kept.shards.chunks).sum()
}

/// Bytes that are read to look at a chunk: it is made of as few shards as give it, as many times as it takes to use each.
pub fn bytes_read(row: &Row) -> u64 {
    let data = u8::try_from(row.form.needed()).unwrap_or(u8::MAX);
    let indexes: Vec<u8> = (0..).zip(row.of_layout()).map(|(index, _)| index).collect();
    let times = decodings(data, row.size.into(), &indexes).len();
    u64::from(row.size).saturating_mul(times as u64)
}

/// Between a chunk of which so many bytes are read and the next one, where `chunks` are gone around in `every`.
pub fn pause(every: Duration, chunks: u64, bytes: u64) -> Duration {
    let share = every / u32::try_from(chunks.max(1)).unwrap_or(u32::MAX);
    let at_rate = Duration::from_millis(bytes.saturating_mul(1_000) / RATE_MAX);
    share.min(PAUSE_MAX).max(at_rate)
}

/// When the next chunk is looked at: where nothing else is to be done, once its turn comes; else once it is overdue. There
/// may always be something else to do, as while a large library changes its form, and audits are then not left for later.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    every: Duration,
    /// When the last one was looked at.
    at: Monotonic,
    /// Bytes that were read for it.
    bytes: u64,
}

impl Pace {
    /// Of rounds that take `every`, from now on.
    pub const fn new(every: Duration, now: Monotonic) -> Self {
        Self {
            every,
            at: now,
            bytes: 0,
        }
    }

    /// For how long none is looked at yet, of so many `chunks`.
    pub fn wait(&self, is_idle: bool, chunks: u64, now: Monotonic) -> Duration {
        if is_idle {
            return Duration::ZERO;
        }
        let beside = pause(self.every, chunks, self.bytes.saturating_mul(BESIDE));
        beside.saturating_sub(now.since(self.at))
    }

    /// One was looked at, from `at` on; gives how long it is from then to the next where nothing else is to be done.
    pub fn looked_at(&mut self, chunks: u64, bytes: u64, at: Monotonic) -> Duration {
        (self.at, self.bytes) = (at, bytes);
        pause(self.every, chunks, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use vstack_chunkpaxos::{Layout, Placement};
    use vstack_types::{ChunkId, Digest};

    use super::*;
    use crate::{
        fixtures::{copies, shards, video},
        report::InForm,
    };

    fn learn(census: &mut Census, of: u8, sequence: u32, layout: Layout, prev: Option<Layout>) {
        let placement = Placement {
            version: 1,
            size: 2_000_000,
            sha256: Digest::of(b"chunk"),
            layout,
            prev,
            back: false,
        };
        let id = ChunkId::of_video(video(of), sequence);
        census.learn(video(of), Part::Chunk(sequence), &id, &placement, 0);
    }

    fn kept(of: &[(u8, u64)]) -> BTreeMap<VideoId, Kept> {
        let kept = |chunks| Kept {
            shards: InForm {
                chunks,
                ..InForm::default()
            },
            ..Kept::default()
        };
        of.iter().map(|(of, chunks)| (video(*of), kept(*chunks))).collect()
    }

    /// Video 1 has two chunks that are shards, video 2 none, video 3 one, and one that becomes shards.
    fn some() -> (Census, BTreeMap<VideoId, Kept>) {
        let mut census = Census::default();
        learn(&mut census, 1, 0, shards(), None);
        learn(&mut census, 1, 1, copies(), None);
        learn(&mut census, 1, 2, shards(), None);
        learn(&mut census, 2, 0, copies(), None);
        learn(&mut census, 3, 0, shards(), None);
        learn(&mut census, 3, 1, shards(), Some(copies()));
        (census, kept(&[(1, 2), (2, 0), (3, 2)]))
    }

    const START: Monotonic = Monotonic::from_start(Duration::ZERO);

    #[test]
    fn every_chunk_in_shards_is_come_by_once_in_a_round_wherever_it_begins() {
        let (census, kept) = some();
        let expected = BTreeSet::from([
            (video(1), Part::Chunk(0)),
            (video(1), Part::Chunk(2)),
            (video(3), Part::Chunk(0)),
        ]);
        let mut begun = BTreeSet::new();
        for draw in 0..9 {
            let mut round = Round::default();
            let mut next = || {
                let (video, row) = round.next(&census, &kept, START, || draw).expect("there are some");
                (video, row.part)
            };
            let once = [next(), next(), next()];
            assert_eq!(BTreeSet::from(once), expected);
            assert_eq!([next(), next(), next()], once, "and around again");
            begun.insert(once[0]);
        }
        assert_eq!(begun, expected, "it begins anywhere");
    }

    #[test]
    fn where_there_are_no_shards_there_is_nothing_to_do() {
        let mut census = Census::default();
        learn(&mut census, 2, 0, copies(), None);
        let mut round = Round::default();
        assert_eq!(round.next(&census, &kept(&[(2, 0)]), START, || 1), None);
        // They were counted, and are gone since.
        assert_eq!(round.next(&census, &kept(&[(1, 2)]), START, || 1), None);
    }

    #[test]
    fn however_much_is_to_be_looked_at_besides_the_round_goes_on() {
        let (census, kept) = some();
        let mut round = Round::default();
        let mut seen = BTreeSet::new();
        for _ in 0..6 {
            // What is due again and again.
            round.again(video(3), Part::Chunk(0), START);
            let next = round.next(&census, &kept, START, || 0);
            seen.extend(next.map(|(video, row)| (video, row.part)));
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }

    #[test]
    fn what_could_not_be_had_is_come_by_besides_once_it_is_time() {
        let (census, kept) = some();
        let at = |seconds| Monotonic::from_start(Duration::from_secs(seconds));
        let mut round = Round::default();
        for (of, sequence) in [(3, 0), (1, 1), (3, 0), (9, 0)] {
            round.again(video(of), Part::Chunk(sequence), at(60));
        }
        let mut next = |seconds| {
            let next = round.next(&census, &kept, at(seconds), || 0);
            next.map(|(video, row)| (video, row.part))
        };
        assert_eq!(next(59), Some((video(1), Part::Chunk(2))));
        assert_eq!(next(60), Some((video(3), Part::Chunk(0))));
        // What is no shards any more, or gone, is not; and the round goes on where it was.
        assert_eq!(next(60), Some((video(3), Part::Chunk(0))));
        assert_eq!(next(60), Some((video(1), Part::Chunk(0))));
    }

    /// A migration without end, and so many chunks of so many bytes: how many are audited in a month, by who looks whenever he
    /// is told to.
    #[test]
    fn audits_go_on_while_there_is_always_something_else_to_do() {
        let month = Duration::from_secs(30 * 86_400);
        let audited = |is_idle: bool, chunks: u64, bytes: u64| {
            let (mut now, mut audited) = (START, 0_u64);
            let mut pace = Pace::new(month, now);
            while now < START + month {
                let wait = pace.wait(is_idle, chunks, now);
                if wait.is_zero() {
                    audited += 1;
                    let next = pace.looked_at(chunks, bytes, now);
                    assert!(!next.is_zero(), "one at a time");
                    now = now + next;
                } else {
                    now = now + wait;
                }
            }
            audited
        };
        for (chunks, bytes) in [(10, 4_000_000), (10_000, 4_000_000), (500_000, 4_000_000)] {
            let beside = audited(false, chunks, bytes);
            assert!(
                (chunks - 1..=chunks.max(4_320) + 1).contains(&beside),
                "{chunks}: {beside}"
            );
        }
        // More bytes than may be read beside other things: a megabyte a second, and ten where there is nothing else to do.
        let megabyte_a_second: u64 = 30 * 86_400 * 1_000_000 / 4_000_000;
        let of_many = |is_idle| audited(is_idle, 100_000_000, 4_000_000);
        assert!(
            (megabyte_a_second - 2..=megabyte_a_second).contains(&of_many(false)),
            "{}",
            of_many(false)
        );
        assert!(of_many(true) > 9 * megabyte_a_second, "{}", of_many(true));
        // None is overdue as soon as a service has started, and what is idle is not kept waiting.
        let pace = Pace::new(month, START);
        assert_eq!(pace.wait(false, 1_000, START), Duration::from_secs(600));
        assert_eq!(pace.wait(true, 1_000, START), Duration::ZERO);
    }

    #[test]
    fn a_round_takes_its_time_and_neither_hurries_nor_stands_still() {
        let month = Duration::from_secs(30 * 86_400);
        let table = [
            // So many chunks, each of so many bytes, and seconds between them.
            (1_000_000, 4_000_000, 2.592),
            (10, 4_000_000, 600.0),
            (0, 0, 600.0),
            (100_000_000, 4_000_000, 0.4),
        ];
        for (chunks, bytes, seconds) in table {
            assert_eq!(pause(month, chunks, bytes), Duration::from_secs_f64(seconds));
        }
        let (census, _) = some();
        let row = census.row(video(1), Part::Chunk(0)).expect("it is known");
        // Three of the shards, and then the two others with one of them.
        assert_eq!(bytes_read(row), 4_000_000);
    }
}

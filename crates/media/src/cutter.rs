//! Packing fragments into chunks and segments.
//!
//! A chunk is a run of whole fragments and never longer than its limit; a segment is a run of chunks that starts at a
//! keyframe wherever the source has one. The rules, with a nominal length of 10 s:
//!
//! 1. a chunk closes before the fragment that would take it past the limit;
//! 2. a key fragment starts a new segment once the segment has 8 s, or 4 s when it has more than one chunk already;
//! 3. without a keyframe, a chunk (not the segment) closes at 12 s. At 10.5 s sources with a keyframe every 10.7 s
//!    would leave a runt of 0.2 s after every chunk;
//! 4. a single fragment beyond the limit (one huge frame) is split by bytes into parts.
//!
//! Invariants: the chunks' bytes, concatenated, are the fragments' bytes; chunks of one segment are consecutive; starts
//! never fall; the durations add up to the end less the first start.
//! It does not know what is in a fragment, nor where chunks go.

use bytes::{Bytes, BytesMut};
use vstack_types::{Digest, limits::CHUNK_BYTES_MAX};

use crate::fmp4::Fragment;

/// What chunks are to be like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CutLimits {
    /// Most bytes in a chunk, at least 1.
    pub chunk_bytes_max: usize,
    /// Nominal length of a segment, in seconds.
    pub nominal_sec: f64,
}

impl Default for CutLimits {
    fn default() -> Self {
        Self {
            chunk_bytes_max: CHUNK_BYTES_MAX,
            nominal_sec: f64::from(vstack_types::limits::SEGMENT_SECONDS_NOMINAL),
        }
    }
}

/// One chunk, ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct CutChunk {
    /// From 0, without gaps.
    pub index: u32,
    /// Index of its segment, from 0, without gaps.
    pub segment: u32,
    /// The bytes, at least one.
    pub bytes: Bytes,
    /// Of the bytes.
    pub sha256: Digest,
    /// When its first picture is shown, in seconds.
    pub start_sec: f64,
    /// Until the next chunk's start or the end, in seconds.
    pub duration_sec: f64,
    /// It begins with a keyframe.
    pub independent: bool,
    /// Which piece of a split fragment it is, from 0; 0 for a chunk of whole fragments.
    pub part: u32,
}

/// What was cut, over all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CutTotals {
    /// Chunks made.
    pub chunks: u32,
    /// Segments made.
    pub segments: u32,
    /// Bytes of all chunks.
    pub bytes: u64,
    /// First start to last end, in seconds.
    pub duration_sec: f64,
    /// The longest segment, in seconds: what a player must fetch to seek into it.
    pub segment_sec_max: f64,
    /// The largest segment, in bytes.
    pub segment_bytes_max: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Cutter {
    limits: CutLimits,
    totals: CutTotals,
    first_start: Option<f64>,
    last_end: f64,
    open: Option<OpenChunk>,
    segment: OpenSegment,
}

#[derive(Debug)]
struct OpenChunk {
    fragments: Vec<Bytes>,
    bytes: usize,
    start: f64,
    independent: bool,
}

#[derive(Debug, Default)]
struct OpenSegment {
    start: f64,
    closed_chunks: u32,
    bytes: u64,
}

impl Cutter {
    /// Before the first fragment.
    pub fn new(limits: CutLimits) -> Self {
        Self {
            limits: CutLimits {
                chunk_bytes_max: limits.chunk_bytes_max.max(1),
                ..limits
            },
            totals: CutTotals::default(),
            first_start: None,
            last_end: 0.0,
            open: None,
            segment: OpenSegment::default(),
        }
    }

    /// Adds the next fragment; yields the chunks it closes.
    pub fn push(&mut self, fragment: Fragment) -> Vec<CutChunk> {
        // Reordered pictures can make a one-frame fragment begin before the one that precedes it in the file.
        let start = fragment.start.max(self.open.as_ref().map_or(0.0, |open| open.start));
        self.first_start.get_or_insert(start);
        self.last_end = self.last_end.max(fragment.end).max(start);
        let closed = match self.boundary(&fragment, start) {
            Boundary::None => Vec::new(),
            Boundary::Chunk => self.close_chunk(start),
            Boundary::Segment => {
                let closed = self.close_chunk(start);
                self.close_segment(start);
                closed
            }
        };
        let size = fragment.bytes.len();
        match &mut self.open {
            Some(open) => {
                open.bytes += size;
                open.fragments.push(fragment.bytes);
            }
            None => {
                if self.segment.closed_chunks == 0 {
                    self.segment.start = start;
                }
                let independent = fragment.independent;
                self.open = Some(OpenChunk {
                    fragments: vec![fragment.bytes],
                    bytes: size,
                    start,
                    independent,
                });
            }
        }
        closed
    }

    /// Closes what is open.
    pub fn finish(mut self) -> (Vec<CutChunk>, CutTotals) {
        let end = self.last_end;
        let closed = self.close_chunk(end);
        if self.segment.closed_chunks > 0 {
            self.close_segment(end);
        }
        self.totals.duration_sec = end - self.first_start.unwrap_or(end);
        (closed, self.totals)
    }

    fn boundary(&self, fragment: &Fragment, start: f64) -> Boundary {
        let Some(open) = &self.open else { return Boundary::None };
        let segment_sec = start - self.segment.start;
        let several = self.segment.closed_chunks > 0;
        let nominal = self.limits.nominal_sec;
        if fragment.independent && (segment_sec >= 0.8 * nominal || (several && segment_sec >= 0.4 * nominal)) {
            Boundary::Segment
        } else if open.bytes + fragment.bytes.len() > self.limits.chunk_bytes_max || start - open.start >= 1.2 * nominal
        {
            Boundary::Chunk
        } else {
            Boundary::None
        }
    }

    /// Closes the open chunk, which lasts until `end`.
    fn close_chunk(&mut self, end: f64) -> Vec<CutChunk> {
        let Some(open) = self.open.take() else {
            return Vec::new();
        };
        let whole = match <[Bytes; 1]>::try_from(open.fragments) {
            Ok([only]) => only,
            Err(fragments) => {
                let mut whole = BytesMut::with_capacity(open.bytes);
                fragments.iter().for_each(|fragment| whole.extend_from_slice(fragment));
                whole.freeze()
            }
        };
        let parts = whole.len().div_ceil(self.limits.chunk_bytes_max);
        let mut chunks = Vec::with_capacity(parts);
        let mut rest = whole;
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(self.limits.chunk_bytes_max));
            let part = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            // The picture can be shown when its last part is there.
            let duration_sec = if rest.is_empty() { end - open.start } else { 0.0 };
            chunks.push(CutChunk {
                index: self.totals.chunks,
                segment: self.totals.segments,
                sha256: Digest::of(&bytes),
                start_sec: open.start,
                duration_sec,
                independent: open.independent && part == 0,
                part,
                bytes,
            });
            self.totals.chunks += 1;
            self.segment.closed_chunks += 1;
        }
        self.segment.bytes += open.bytes as u64;
        self.totals.bytes += open.bytes as u64;
        chunks
    }

    fn close_segment(&mut self, end: f64) {
        self.totals.segments += 1;
        self.totals.segment_sec_max = self.totals.segment_sec_max.max(end - self.segment.start);
        self.totals.segment_bytes_max = self.totals.segment_bytes_max.max(self.segment.bytes);
        self.segment = OpenSegment {
            start: end,
            ..OpenSegment::default()
        };
    }
}

enum Boundary {
    None,
    Chunk,
    Segment,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(start: f64, duration: f64, size: usize, independent: bool) -> Fragment {
        Fragment {
            bytes: Bytes::from(vec![7; size]),
            start,
            end: start + duration,
            independent,
        }
    }

    fn cut(limits: CutLimits, fragments: impl IntoIterator<Item = Fragment>) -> (Vec<CutChunk>, CutTotals) {
        let mut cutter = Cutter::new(limits);
        let mut chunks: Vec<_> = fragments
            .into_iter()
            .flat_map(|fragment| cutter.push(fragment))
            .collect();
        let (last, totals) = cutter.finish();
        chunks.extend(last);
        (chunks, totals)
    }

    /// `(segment, start, duration, independent, bytes, part)` of each chunk.
    type Row = (u32, f64, f64, bool, usize, u32);

    fn rows(chunks: &[CutChunk]) -> Vec<Row> {
        let row = |c: &CutChunk| {
            (
                c.segment,
                c.start_sec,
                c.duration_sec,
                c.independent,
                c.bytes.len(),
                c.part,
            )
        };
        chunks.iter().map(row).collect()
    }

    /// Fragments of one second, a keyframe every `gop` of them, `size` bytes each.
    fn seconds(count: u32, gop: u32, size: usize) -> Vec<Fragment> {
        (0..count)
            .map(|n| fragment(f64::from(n), 1.0, size, n % gop == 0))
            .collect()
    }

    #[test]
    fn the_four_rules() {
        let limits = CutLimits {
            chunk_bytes_max: 100,
            nominal_sec: 10.0,
        };
        let table: [(&str, Vec<Fragment>, Vec<Row>); 6] = [
            (
                "a key fragment after 8 s starts a segment",
                seconds(18, 2, 1),
                vec![
                    (0, 0.0, 8.0, true, 8, 0),
                    (1, 8.0, 8.0, true, 8, 0),
                    (2, 16.0, 2.0, true, 2, 0),
                ],
            ),
            (
                "a full chunk closes within its segment; then 4 s are enough",
                seconds(8, 4, 40),
                vec![
                    (0, 0.0, 2.0, true, 80, 0),
                    (0, 2.0, 2.0, false, 80, 0),
                    (1, 4.0, 2.0, true, 80, 0),
                    (1, 6.0, 2.0, false, 80, 0),
                ],
            ),
            (
                "without a keyframe a chunk closes at 12 s, the segment does not",
                seconds(25, 100, 1),
                vec![
                    (0, 0.0, 12.0, true, 12, 0),
                    (0, 12.0, 12.0, false, 12, 0),
                    (0, 24.0, 1.0, false, 1, 0),
                ],
            ),
            (
                "keyframes every 11 s leave no runts",
                seconds(22, 11, 1),
                vec![(0, 0.0, 11.0, true, 11, 0), (1, 11.0, 11.0, true, 11, 0)],
            ),
            (
                "a huge fragment is split by bytes",
                vec![
                    fragment(0.0, 1.0, 10, true),
                    fragment(1.0, 1.0, 250, true),
                    fragment(2.0, 1.0, 10, false),
                ],
                vec![
                    (0, 0.0, 1.0, true, 10, 0),
                    (0, 1.0, 0.0, true, 100, 0),
                    (0, 1.0, 0.0, false, 100, 1),
                    (0, 1.0, 1.0, false, 50, 2),
                    (0, 2.0, 1.0, false, 10, 0),
                ],
            ),
            ("nothing gives nothing", vec![], vec![]),
        ];
        for (rule, fragments, expected) in table {
            let (chunks, totals) = cut(limits, fragments);
            assert_eq!(rows(&chunks), expected, "{rule}");
            assert_eq!(totals.chunks as usize, expected.len(), "{rule}");
            assert_eq!(totals.segments, expected.last().map_or(0, |row| row.0 + 1), "{rule}");
        }
    }

    #[test]
    fn totals_tell_the_largest_segment() {
        let (_, totals) = cut(
            CutLimits {
                chunk_bytes_max: 100,
                nominal_sec: 10.0,
            },
            seconds(40, 30, 5),
        );
        assert_eq!(totals.segments, 2);
        assert!((totals.segment_sec_max - 30.0).abs() < 1e-9);
        assert_eq!(totals.segment_bytes_max, 150);
        assert_eq!(totals.bytes, 200);
        assert!((totals.duration_sec - 40.0).abs() < 1e-9);
    }

    fn any_fragments() -> impl Strategy<Value = Vec<Fragment>> {
        let step = (1_u32..4000, 1_usize..700, any::<bool>(), any::<u8>());
        proptest::collection::vec(step, 0..120).prop_map(|steps| {
            let mut at = 0.083;
            let make = |(millis, size, independent, fill): (u32, usize, bool, u8)| {
                let start = at;
                at += f64::from(millis) / 1000.0;
                Fragment {
                    bytes: Bytes::from(vec![fill; size]),
                    start,
                    end: at,
                    independent,
                }
            };
            steps.into_iter().map(make).collect()
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_in_goes_out_within_the_limits(fragments in any_fragments(), max in 1_usize..900) {
            let limits = CutLimits { chunk_bytes_max: max, nominal_sec: 10.0 };
            let (chunks, totals) = cut(limits, fragments.clone());
            let input: Vec<u8> = fragments.iter().flat_map(|fragment| fragment.bytes.to_vec()).collect();
            let output: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
            prop_assert_eq!(&input, &output);
            let length = fragments.last().map_or(0.0, |fragment| fragment.end - 0.083);
            let sum: f64 = chunks.iter().map(|chunk| chunk.duration_sec).sum();
            prop_assert!((sum - length).abs() < 1e-6);
            prop_assert!((totals.duration_sec - length).abs() < 1e-6);
            for (index, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(chunk.index as usize, index);
                prop_assert!(!chunk.bytes.is_empty() && chunk.bytes.len() <= max);
                prop_assert_eq!(chunk.sha256, Digest::of(&chunk.bytes));
            }
            for pair in chunks.windows(2) {
                prop_assert!(pair[1].start_sec >= pair[0].start_sec);
                let next_segment = pair[1].segment == pair[0].segment + 1;
                prop_assert!(next_segment || pair[1].segment == pair[0].segment);
                prop_assert!(!next_segment || pair[1].independent, "a segment starts at a keyframe");
            }
        }
    }
}

//! The init segment and all chunks seen as one file.
//!
//! Only lengths are known here; whoever serves the file fetches the pieces a range falls into.

use vstack_types::ByteRange;

/// What a stretch of the file is cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The init segment.
    Init,
    /// The chunk of this index.
    Chunk(usize),
}

/// A stretch of the file within one stored piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which piece.
    pub source: Source,
    /// First byte, counted in the piece.
    pub offset: u64,
    /// Bytes, at least one.
    pub len: u64,
}

/// The layout of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMp4 {
    /// Where each piece ends in the file: the init segment first, then the chunks.
    ends: Vec<u64>,
}

impl VirtualMp4 {
    /// A file of an init segment and chunks of these lengths, in bytes.
    pub fn new(init_len: u64, chunk_lens: impl IntoIterator<Item = u64>) -> Self {
        let mut end = 0_u64;
        let add = |len: u64| {
            end = end.saturating_add(len);
            end
        };
        Self {
            ends: std::iter::once(init_len).chain(chunk_lens).map(add).collect(),
        }
    }

    /// Length of the file, in bytes.
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// What `range` is made of, in order. Bytes past the end are left out.
    pub fn pieces(&self, range: ByteRange) -> impl Iterator<Item = Piece> + '_ {
        let first = self.ends.partition_point(|end| *end <= range.start);
        let starts = |index: usize| if index == 0 { 0 } else { self.ends[index - 1] };
        (first..self.ends.len())
            .take_while(move |index| starts(*index) <= range.end)
            .filter_map(move |index| {
                let (start, end) = (starts(index), self.ends[index]);
                let from = start.max(range.start);
                let until = end.min(range.end.saturating_add(1));
                let source = if index == 0 {
                    Source::Init
                } else {
                    Source::Chunk(index - 1)
                };
                (from < until).then(|| Piece {
                    source,
                    offset: from - start,
                    len: until - from,
                })
            })
    }

    /// What the whole file is made of.
    pub fn all(&self) -> impl Iterator<Item = Piece> + '_ {
        self.pieces(ByteRange {
            start: 0,
            end: self.total().saturating_sub(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_fall_into_pieces() {
        let file = VirtualMp4::new(10, [5, 20, 1]);
        assert_eq!(file.total(), 36);
        let piece = |source, offset, len| Piece { source, offset, len };
        let table = [
            ((0, 0), vec![piece(Source::Init, 0, 1)]),
            ((9, 10), vec![piece(Source::Init, 9, 1), piece(Source::Chunk(0), 0, 1)]),
            (
                (14, 15),
                vec![piece(Source::Chunk(0), 4, 1), piece(Source::Chunk(1), 0, 1)],
            ),
            ((16, 20), vec![piece(Source::Chunk(1), 1, 5)]),
            ((35, 99), vec![piece(Source::Chunk(2), 0, 1)]),
            ((36, 99), vec![]),
        ];
        for ((start, end), expected) in table {
            assert_eq!(
                file.pieces(ByteRange { start, end }).collect::<Vec<_>>(),
                expected,
                "{start}-{end}"
            );
        }
        assert_eq!(VirtualMp4::new(0, []).all().count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_are_exactly_the_range(
            init in 0_u8..9, lens in proptest::collection::vec(0_u8..9, 0..12), start in 0_u8..60, len in 1_u8..60,
        ) {
            let bytes = |len: u8, salt: u8| (0..len).map(|n| salt * 16 + n).collect::<Vec<u8>>();
            let init_bytes = bytes(init, 0);
            let chunks: Vec<Vec<u8>> = (1..).zip(&lens).map(|(salt, len)| bytes(*len, salt)).collect();
            let whole: Vec<u8> = init_bytes.iter().chain(chunks.iter().flatten()).copied().collect();
            let file = VirtualMp4::new(u64::from(init), lens.iter().copied().map(u64::from));
            let range = ByteRange { start: u64::from(start), end: u64::from(start + len - 1) };
            let got: Vec<u8> = file.pieces(range).flat_map(|piece| {
                let from = match piece.source { Source::Init => &init_bytes, Source::Chunk(n) => &chunks[n] };
                let offset = usize::try_from(piece.offset).unwrap();
                from[offset..][..usize::try_from(piece.len).unwrap()].to_vec()
            }).collect();
            let from = whole.len().min(usize::from(start));
            let until = whole.len().min(usize::from(start + len));
            prop_assert_eq!(got, whole[from..until].to_vec());
        }
    }
}

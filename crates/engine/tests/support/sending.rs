//! An item as a node sends it: piece by piece, each lent from the page cache where it is, else read.

use std::ops::Range;

use vstack_engine::{BufferPool, Disk, Engine, Found, Pieces, ReadError};

/// What came of sending an item in several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Each time it was what it should be.
    Whole,
    /// It was refused as damaged, and nothing of it was given after that.
    Refused,
}

fn piece(rest: &Range<u64>, step: usize) -> Range<u64> {
    rest.start..rest.end.min(rest.start + step as u64)
}

async fn first<D: Disk>(
    engine: &Engine<D>,
    found: &Found,
    part: Range<u64>,
    pool: &BufferPool,
    sent: &mut Vec<u8>,
) -> Result<Pieces<D>, ReadError> {
    if let Some((pieces, lent)) = engine.cached_pieces(found, part.clone())? {
        sent.extend_from_slice(&lent);
        return Ok(pieces);
    }
    let (pieces, buffer) = engine.read_pieces(found, part, pool.take().await).await?;
    sent.extend_from_slice(buffer.bytes());
    Ok(pieces)
}

/// The bytes `range` of an item in pieces as long as the pool's buffers, as they go to a connection.
pub async fn send<D: Disk>(
    engine: &Engine<D>,
    found: &Found,
    range: Range<u64>,
    pool: &BufferPool,
) -> Result<Vec<u8>, ReadError> {
    let (mut sent, step) = (Vec::new(), pool.buffer_bytes());
    let begin = piece(&range, step);
    let mut pieces = first(engine, found, begin.clone(), pool, &mut sent).await?;
    let mut rest = begin.end..range.end;
    while !rest.is_empty() {
        let part = piece(&rest, step);
        rest.start = part.end;
        if let Some(lent) = pieces.cached(part.clone())? {
            sent.extend_from_slice(&lent);
            continue;
        }
        let buffer = pieces.read(pool.take().await, part).await?;
        sent.extend_from_slice(buffer.bytes());
    }
    Ok(sent)
}

/// Sends an item in pieces of 8 to 64 KiB, as `way` says: all of it, a part, and all of it again, which is verified by
/// then and may be lent; a part comes first for every other `way`.
pub async fn send_in_all_ways<D: Disk>(
    engine: &Engine<D>,
    found: &Found,
    way: usize,
    is_right: impl Fn(&Range<u64>, &[u8]) -> bool,
) -> Result<Sent, String> {
    let id = found.id().clone();
    let pool = BufferPool::new(8192 << (way / 2 % 4), 1);
    let (whole, size) = (0..found.size(), found.size());
    let part = size / 3..size - size / 4;
    let ranges = match way % 2 {
        0 => [whole.clone(), part, whole],
        _ => [part.clone(), whole, part],
    };
    let mut refused = 0;
    for range in &ranges {
        match send(engine, found, range.clone(), &pool).await {
            Ok(_) if refused > 0 => return Err(format!("{id} was refused as damaged and {range:?} of it is sent")),
            Ok(bytes) if is_right(range, &bytes) => {}
            Ok(_) => return Err(format!("{id} is sent with wrong bytes, {range:?}")),
            Err(ReadError::Corrupt) => refused += 1,
            Err(ReadError::Io(error)) => return Err(format!("{id} cannot be sent: {error}")),
        }
    }
    match refused {
        0 => Ok(Sent::Whole),
        3 => Ok(Sent::Refused),
        _ => Err(format!("{id} is refused only when it is sent again")),
    }
}

/// Where a range of an item begins and ends in memory.
pub fn in_memory(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

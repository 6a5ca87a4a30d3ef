//! One fault on the medium, where and of which kind is asked.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use super::image::{Files, Image, PAGE, Piece, Place};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One bit is another.
    Flip,
    /// The file ends there.
    Truncation,
    /// Whole pages are zeros.
    Hole,
    /// The bytes stand in each other's place.
    Swap,
    /// The file is gone.
    Deletion,
}

/// Every kind at every place where there is such a thing.
pub const ALL: [(Place, Kind); 22] = {
    use Kind::{Deletion, Flip, Hole, Swap, Truncation};
    use Place::{Checkpoint, Commit, Head, Header, Payload};
    [
        (Head, Flip),
        (Head, Truncation),
        (Head, Hole),
        (Head, Swap),
        (Head, Deletion),
        (Header, Flip),
        (Header, Truncation),
        (Header, Hole),
        (Header, Swap),
        (Payload, Flip),
        (Payload, Truncation),
        (Payload, Hole),
        (Payload, Swap),
        (Commit, Flip),
        (Commit, Truncation),
        (Commit, Hole),
        (Commit, Swap),
        (Checkpoint, Flip),
        (Checkpoint, Truncation),
        (Checkpoint, Hole),
        (Checkpoint, Swap),
        (Checkpoint, Deletion),
    ]
};

fn offset_in(piece: &Piece, rng: &mut StdRng) -> usize {
    rng.random_range(piece.from..piece.to)
}

/// `image` with one fault, and a word on where it is.
pub fn plant(image: &Image, place: Place, kind: Kind, rng: &mut StdRng) -> (Files, String) {
    let mut files = image.files.clone();
    let there: Vec<&Piece> = image.pieces.iter().filter(|piece| piece.place == place).collect();
    let piece = *there.choose(rng).unwrap();
    let at = offset_in(piece, rng);
    let file = &piece.file;
    let mut told = format!("{place:?} {kind:?} {file} at {at} in {}..{}", piece.from, piece.to);
    match kind {
        Kind::Flip => files.get_mut(file).unwrap()[at] ^= 1 << rng.random_range(0..8),
        Kind::Truncation => files.get_mut(file).unwrap().truncate(at),
        Kind::Hole => {
            let bytes = files.get_mut(file).unwrap();
            let from = at / PAGE * PAGE;
            let to = (from + rng.random_range(1..4) * PAGE).min(bytes.len());
            bytes[from..to].fill(0);
        }
        Kind::Swap => {
            // Two parts of the one file, or two pieces of a kind.
            let (other, from, to, len) = if place == Place::Checkpoint {
                let len = 16;
                let last = (piece.to - len) / len;
                let (a, b) = (rng.random_range(0..last), rng.random_range(0..last));
                (piece, a * len, b * len, if a == b { 0 } else { len })
            } else {
                let other = *there.choose(rng).unwrap();
                let len = (piece.to - piece.from).min(other.to - other.from);
                (other, piece.from, other.from, len)
            };
            told = format!("{told} with {} at {to}", other.file);
            let (a, b) = (
                image.files[file][from..from + len].to_vec(),
                image.files[&other.file][to..to + len].to_vec(),
            );
            files.get_mut(file).unwrap()[from..from + len].copy_from_slice(&b);
            files.get_mut(&other.file).unwrap()[to..to + len].copy_from_slice(&a);
        }
        Kind::Deletion => {
            files.remove(file);
        }
    }
    (files, told)
}

/// Whether what differs from the image is of no account: bytes between records, of items that are gone, and the mark
/// that ends the log. A checkpoint that is gone is made again from the log.
pub fn is_of_no_account(image: &Image, files: &Files) -> bool {
    image.files.iter().all(|(name, before)| {
        let Some(after) = files.get(name) else {
            return name == "checkpoint";
        };
        let alive: Vec<&Piece> = image
            .pieces
            .iter()
            .filter(|piece| piece.file == *name && !piece.is_dead)
            .collect();
        let changed = (0..before.len()).filter(|at| before.get(*at) != after.get(*at));
        let mut changed = changed.peekable();
        if changed.peek().is_none() {
            return true;
        }
        changed.all(|at| alive.iter().all(|piece| !(piece.from..piece.to).contains(&at)))
    })
}

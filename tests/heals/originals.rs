//! Films as they were uploaded: what comes of them later, from whichever nodes and in whichever form, is that to the byte.
//!
//! A manifest names the SHA-256 of every piece. The one that is asked for as soon as a film is there is kept here, so that
//! what is compared later does not follow from what became of the film since.

use serde_json::Value;
use vstack_types::Digest;

use crate::reader::Part;

/// The init segment of a film, or a chunk of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    bytes: usize,
    /// As manifests have it: `sha256:<hex>`.
    checksum: String,
}

impl Piece {
    fn of(chunk: &Value) -> Self {
        Self {
            bytes: chunk["size_bytes"].as_u64().unwrap().try_into().unwrap(),
            checksum: chunk["checksum"].as_str().unwrap().to_owned(),
        }
    }

    /// Whether these bytes are it.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.bytes && Digest::of(bytes).prefixed() == self.checksum
    }
}

/// A film as it was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// In the order in which a saved file has them.
    parts: Vec<(Part, Piece)>,
}

impl Original {
    /// By its manifest.
    pub fn of(manifest: &Value) -> Self {
        let chunks = manifest["chunks"].as_array().unwrap().iter().enumerate();
        let chunks = chunks.map(|(at, chunk)| (Part::Chunk(at), Piece::of(chunk)));
        let init = (Part::Init, Piece::of(&manifest["init"]));
        Self {
            parts: std::iter::once(init).chain(chunks).collect(),
        }
    }

    /// Everything that is stored of it.
    pub fn parts(&self) -> &[(Part, Piece)] {
        &self.parts
    }

    /// Whether this is all of it, as `vstack play` saves it: each byte belongs to one piece, and each piece has the SHA-256
    /// that it had. Says what is not so.
    pub fn compare(&self, saved: &[u8]) -> Result<(), String> {
        let mut rest = saved;
        for (part, piece) in &self.parts {
            let Some((bytes, behind)) = rest.split_at_checked(piece.bytes) else {
                return Err(format!("it ends in {part:?}: {} bytes in all", saved.len()));
            };
            if !piece.is(bytes) {
                return Err(format!("{part:?} is another than was uploaded"));
            }
            rest = behind;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(format!("{} bytes more than were uploaded", rest.len()))
        }
    }
}

#[test]
fn a_saved_file_is_compared_to_the_byte() {
    let [init, first, second] = [&b"init"[..], b"the first", b"the next!"];
    let piece = |bytes: &[u8]| serde_json::json!({"size_bytes": bytes.len(), "checksum": Digest::of(bytes).prefixed()});
    let manifest = serde_json::json!({"init": piece(init), "chunks": [piece(first), piece(second)]});
    let original = Original::of(&manifest);
    let whole = [init, first, second].concat();
    assert_eq!(original.compare(&whole), Ok(()));
    let mut flipped = whole.clone();
    flipped[6] ^= 1;
    let others = [
        flipped,
        [init, second, first].concat(),
        [init, first].concat(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"!"].concat(),
        Vec::new(),
    ];
    for other in others {
        assert!(original.compare(&other).is_err(), "{}", String::from_utf8_lossy(&other));
    }
}

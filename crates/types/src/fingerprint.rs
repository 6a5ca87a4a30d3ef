//! Chunk ids in eight bytes, under a key.

use crate::{ChunkId, DigestBuilder, VideoId};

/// Bits of a fingerprint that all chunks of a video have in common; those that ids without a video have are their own.
/// Neither the lowest nor the highest ones: tables are divided by the former and ordered by the latter.
const OF_VIDEO: u64 = 0xffff << 8;

/// Makes fingerprints of chunk ids that nobody without it can foresee, so that nobody can choose ids that collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FingerprintKey([u8; 16]);

impl FingerprintKey {
    /// Of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight bytes of SHA-256(key, id), little-endian, of which the second and third are those of SHA-256(key,
    /// video) where the id is that of a video's chunk. In sixteen million chunks of one video, two would share one about
    /// every second time, and in four thousand million of different ones.
    pub fn of(&self, id: &ChunkId) -> u64 {
        let own = self.hash(id.as_str().as_bytes());
        id.video()
            .map_or(own, |video| own & !OF_VIDEO | self.hash(video.as_bytes()) & OF_VIDEO)
    }

    /// Whether a fingerprint may be that of a chunk of this video, as those of few others may.
    pub fn may_be_of(&self, video: VideoId) -> impl Fn(u64) -> bool + use<> {
        let of_video = self.hash(video.as_bytes()) & OF_VIDEO;
        move |fingerprint| fingerprint & OF_VIDEO == of_video
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut digest = DigestBuilder::default();
        digest.update(&self.0);
        digest.update(bytes);
        let digest = digest.finish();
        u64::from_le_bytes(std::array::from_fn(|i| digest.as_bytes()[i]))
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn chunks_of_a_video_are_told_by_their_fingerprints_from_nearly_all_others() {
        let key = FingerprintKey::from_bytes([7; 16]);
        let (video, other) = (VideoId::generate(), VideoId::generate());
        let is_of = key.may_be_of(video);
        let prints: std::collections::BTreeSet<u64> = (0..1_000)
            .map(|sequence| key.of(&ChunkId::of_video(video, sequence)))
            .collect();
        assert_eq!(prints.len(), 1_000, "each its own");
        assert!(prints.iter().all(|print| is_of(*print)));
        let salvaged = ChunkId::of_video(video, 7).salvaged(1).unwrap();
        assert!(is_of(key.of(&ChunkId::init_of_video(video))) && is_of(key.of(&salvaged)));
        let begins_with_its_hash = key.hash(video.as_bytes()) & OF_VIDEO == key.hash(other.as_bytes()) & OF_VIDEO;
        assert_eq!(is_of(key.of(&ChunkId::of_video(other, 0))), begins_with_its_hash);
        // What tables are divided and ordered by is spread as ever.
        for part in [|print: &u64| print & 0xff, |print: &u64| print >> 56] {
            let parts: std::collections::BTreeSet<u64> = prints.iter().map(part).collect();
            assert!(parts.len() > 200, "{} of 256", parts.len());
        }
    }

    #[test]
    fn a_fingerprint_is_the_begin_of_a_digest_of_key_and_id() {
        let id: ChunkId = "a-chunk".parse().unwrap();
        let key = FingerprintKey::from_bytes(*b"0123456789abcdef");
        let digest = Digest::of(b"0123456789abcdefa-chunk");
        assert_eq!(key.of(&id).to_le_bytes()[..], digest.as_bytes()[..8]);
        assert_ne!(key.of(&id), FingerprintKey::from_bytes([0; 16]).of(&id));
    }
}

//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights after Schindelhauer and Schomaker 2005):
//! every node draws a number for a video, the highest draws win, and the chance to win follows the weight. When a
//! node joins or leaves, only the draws it takes part in change.

use vstack_types::{Digest, NodeUuid, VideoId};

/// The draw of `node` for `video`: higher wins. `weight` is positive; a node of twice the weight wins twice as often.
pub(crate) fn draw(video: VideoId, node: NodeUuid, weight: f64) -> f64 {
    let mut key = [0; 32];
    key[..16].copy_from_slice(video.as_bytes());
    key[16..].copy_from_slice(node.as_bytes());
    let hash = Digest::of(&key);
    let mut head = [0; 8];
    head.copy_from_slice(&hash.as_bytes()[..8]);
    // 52 bits fit a float exactly; the half keeps the number off 0 and 1, where the logarithm has no use.
    let bits = u64::from_le_bytes(head) >> 12;
    #[expect(clippy::cast_precision_loss, reason = "52 bits are exact in an f64")]
    let uniform = (bits as f64 + 0.5) / (1_u64 << 52) as f64;
    weight / -uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wins_follow_the_weights() {
        let (light, heavy) = (NodeUuid::from_bytes([1; 16]), NodeUuid::from_bytes([2; 16]));
        let videos = 4_000_u32;
        let heavy_wins = (0..videos)
            .filter(|n| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&n.to_le_bytes());
                let video = VideoId::from_bytes(bytes);
                draw(video, heavy, 3.0) > draw(video, light, 1.0)
            })
            .count();
        // Three quarters of 4000, give or take five standard deviations.
        assert!((2_863..=3_137).contains(&heavy_wins), "{heavy_wins}");
    }
}

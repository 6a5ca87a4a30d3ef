//! Shards that a decision lists are what the code makes of the chunk, each under its own index: whoever has them listed
//! proved that first. Only a machine whose memory fails lists others.

use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, Digest};

use crate::{calls::short, ledger::Ledger, shards::encode};

/// Looks at what `placement` lists of `chunk`, where it is known what was sent.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn check(ledger: &Ledger, chunk: &ChunkId, placement: &Placement) -> Result<(), String> {
    let Layout::Coded { data, parity, shards } = &placement.layout else {
        return Ok(());
    };
    let Some(sent) = ledger.stands_as(chunk, placement.sha256) else {
        return Ok(());
    };
    let right = encode(sent, *data, *parity);
    let both = shards.iter().zip(&right);
    let mut wrong = both.filter(|(shard, right)| shard.sha256 != Digest::of(right) && !ledger.is_forged(shard.sha256));
    match wrong.next() {
        None => Ok(()),
        Some((shard, _)) => Err(format!(
            "{}: what is listed as shard {} is none of it: {placement:?}",
            short(chunk),
            shard.index
        )),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vstack_chunkpaxos::Shard;
    use vstack_types::{NodeRef, NodeUuid, VideoId};

    use super::*;

    #[test]
    fn each_shard_has_its_own_index() {
        let video = VideoId::from_bytes([3; 16]);
        let (chunk, bytes) = (ChunkId::of_video(video, 0), Bytes::from_static(b"some bytes of a film"));
        let mut ledger = Ledger::default();
        ledger.sent(video, vec![(chunk.clone(), bytes.clone())]);
        let digests: Vec<Digest> = encode(&bytes, 2, 1).iter().map(|shard| Digest::of(shard)).collect();
        let listed = |digests: &[Digest]| Placement {
            version: 1,
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
            layout: Layout::Coded {
                data: 2,
                parity: 1,
                shards: (0..)
                    .zip(digests)
                    .map(|(index, sha256)| Shard {
                        index,
                        node: NodeRef::first(NodeUuid::from_bytes([index; 16])),
                        sha256: *sha256,
                    })
                    .collect(),
            },
            prev: Some(Layout::nothing()),
            back: false,
        };
        assert_eq!(check(&ledger, &chunk, &listed(&digests)), Ok(()));
        let exchanged = [digests[1], digests[0], digests[2]];
        assert!(check(&ledger, &chunk, &listed(&exchanged)).is_err());
        let forged = Digest::of(b"forged");
        let wrong = listed(&[digests[0], forged, digests[2]]);
        assert!(check(&ledger, &chunk, &wrong).is_err());
        ledger.forge(&chunk, 1, forged);
        assert_eq!(check(&ledger, &chunk, &wrong), Ok(()));
        let of_another = Placement {
            sha256: Digest::of(b"other bytes"),
            ..listed(&exchanged)
        };
        assert_eq!(check(&ledger, &chunk, &of_another), Ok(()), "nobody sent that");
    }
}

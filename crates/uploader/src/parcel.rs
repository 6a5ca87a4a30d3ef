//! What is sent of a chunk: its first placement, and to each node the items that it assigns to that.

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use vstack_api::metadata::CodedForm;
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_client::Holder;
use vstack_erasure::{Code, ReadError, ReedSolomon, Shape, encode, prove};
use vstack_service::aside;
use vstack_types::{Digest, NodeRef};

/// Times a chunk is coded at most: what a processor or memory got wrong once it may get right.
const CODED_AT_MOST: usize = 2;

/// A chunk made ready to be sent.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Its first: copies on all nodes of the group, or shards spread over them.
    pub placement: Placement,
    items: Vec<(Digest, Bytes)>,
}

impl Parcel {
    /// Copies of a chunk for every node of `group`.
    pub fn copies(bytes: Bytes, sha256: Digest, group: &[Holder]) -> Self {
        let nodes = group.iter().map(|holder| holder.node).collect();
        Self {
            placement: first(bytes.len(), sha256, Layout::Replicated { nodes }, None),
            items: vec![(sha256, bytes)],
        }
    }

    /// Shards of a chunk, in turns to the nodes of `group`, which are no more than there are shards: all of them are the
    /// chunk's first acceptors.
    ///
    /// # Errors
    /// When coding ended badly, or the shards do not give the chunk.
    pub async fn shards(bytes: Bytes, sha256: Digest, shape: Shape, group: &[Holder]) -> io::Result<Self> {
        let size = bytes.len();
        let coded = move || proven(&ReedSolomon::new(shape), &bytes, sha256);
        let items = aside(coded).await?.map_err(io::Error::other)?;
        let nodes = group.iter().map(|holder| holder.node).cycle();
        let shards = (0..).zip(nodes).zip(&items);
        let layout = Layout::Coded {
            data: shape.data(),
            parity: shape.parity(),
            shards: shards
                .map(|((index, node), (sha256, _))| Shard {
                    index,
                    node,
                    sha256: *sha256,
                })
                .collect(),
        };
        Ok(Self {
            placement: first(size, sha256, layout, Some(Layout::nothing())),
            items,
        })
    }

    /// What `node` is to hold.
    pub fn items_of(&self, node: NodeRef) -> Vec<(Digest, Bytes)> {
        let of_node = self.placement.items_of(&self.placement.layout, node);
        let items = self.items.iter().filter(|(sha256, _)| of_node.contains(sha256));
        // Shards of the same bytes are one item.
        let items: BTreeMap<Digest, Bytes> = items.cloned().collect();
        items.into_iter().collect()
    }
}

/// The shards of a chunk, each with its SHA-256, once they were shown to give it. Nodes compare what they are sent with that
/// alone: of shards that were made wrongly nobody would know before the chunk is to be read, and nothing else is left of it.
///
/// # Errors
/// They do not give the chunk, however often they are made, or it is not what it was.
fn proven(code: &dyn Code, chunk: &Bytes, sha256: Digest) -> Result<Vec<(Digest, Bytes)>, ReadError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let shards = encode(code, chunk);
        match prove(code, chunk, sha256, &shards) {
            Ok(()) => return Ok(shards.into_iter().map(|shard| (Digest::of(&shard), shard)).collect()),
            Err(error) if tries >= CODED_AT_MOST => return Err(error),
            Err(error) => tracing::error!(%sha256, %error, "shards were made wrongly; they are made again"),
        }
    }
}

fn first(size: usize, sha256: Digest, layout: Layout, prev: Option<Layout>) -> Placement {
    Placement {
        version: 1,
        size: size as u64,
        sha256,
        layout,
        prev,
        back: false,
    }
}

/// The code of a chunk of so many bytes, when it is to be coded.
pub fn shape_for(form: Option<CodedForm>, bytes: usize) -> Option<Shape> {
    let form = form.filter(|form| bytes as u64 >= form.chunk_bytes_min.max(1))?;
    Shape::new(form.data_shards, form.parity_shards).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use vstack_erasure::TooFew;
    use vstack_types::NodeUuid;

    use super::*;

    /// Makes the last byte of the last shard wrong, so many times.
    #[derive(Debug)]
    struct Miscalculates {
        code: ReedSolomon,
        times: usize,
        called: AtomicUsize,
    }

    impl Miscalculates {
        fn so_often(times: usize) -> Self {
            Self {
                code: ReedSolomon::new(Shape::new(3, 2).expect("is one")),
                times,
                called: AtomicUsize::new(0),
            }
        }
    }

    impl Code for Miscalculates {
        fn shape(&self) -> Shape {
            self.code.shape()
        }

        fn parity(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
            self.code.parity(data, parity);
            let is_wrong = self.called.fetch_add(1, SeqCst) < self.times;
            let last = parity.last_mut().and_then(|shard| shard.last_mut());
            if let Some(byte) = last.filter(|_| is_wrong) {
                *byte ^= 1;
            }
        }

        fn data(&self, shards: &mut [(&mut [u8], bool)]) -> Result<(), TooFew> {
            self.code.data(shards)
        }
    }

    #[test]
    fn shards_that_do_not_give_their_chunk_are_made_again_and_never_sent() {
        let chunk = Bytes::from((0..100_u8).collect::<Vec<u8>>());
        let sha256 = Digest::of(&chunk);
        let made = |times| proven(&Miscalculates::so_often(times), &chunk, sha256);
        let right = made(0).expect("they are right");
        assert_eq!(right.len(), 5);
        assert!(right.iter().all(|(sha256, shard)| *sha256 == Digest::of(shard)));
        assert_eq!(made(1).as_ref(), Ok(&right));
        assert_eq!(made(CODED_AT_MOST), Err(ReadError::Digest));
        let before = Digest::of(b"what it was");
        let changed = proven(&Miscalculates::so_often(0), &chunk, before);
        assert_eq!(changed, Err(ReadError::Digest), "it is another chunk by now");
    }

    fn group(nodes: u8) -> Vec<Holder> {
        let holder = |n: u8| Holder {
            node: NodeRef::first(NodeUuid::from_bytes([n; 16])),
            url: format!("http://{n}"),
        };
        (1..=nodes).map(holder).collect()
    }

    #[tokio::test]
    async fn shards_are_spread_in_turns_and_give_the_chunk() {
        let shape = Shape::new(3, 2).expect("is one");
        for nodes in 1..=5 {
            let bytes = Bytes::from((0..100_u8).collect::<Vec<u8>>());
            let sha256 = Digest::of(&bytes);
            let group = group(nodes);
            let parcel = Parcel::shards(bytes.clone(), sha256, shape, &group)
                .await
                .expect("codes");
            assert_eq!(parcel.placement.check(), Ok(()));
            assert!(parcel.placement.is_first_coded());
            let counts: Vec<usize> = group.iter().map(|holder| parcel.items_of(holder.node).len()).collect();
            let expected: &[usize] = match nodes {
                1 => &[5],
                2 => &[3, 2],
                3 => &[2, 2, 1],
                4 => &[2, 1, 1, 1],
                _ => &[1, 1, 1, 1, 1],
            };
            assert_eq!(counts, expected);
            assert_eq!(parcel.placement.may_settle(|_| true), nodes > 2);
            let have: Vec<(u8, Bytes)> = (0..)
                .zip(parcel.items)
                .skip(2)
                .map(|(n, (_, bytes))| (n, bytes))
                .collect();
            let read = vstack_erasure::read(&ReedSolomon::new(shape), 100, sha256, &have).expect("three are enough");
            assert_eq!(read.into_bytes(), bytes);
        }
    }

    #[tokio::test]
    async fn shards_that_are_alike_are_one_item() {
        let bytes = Bytes::from(vec![0; 90]);
        let (sha256, shape) = (Digest::of(&bytes), Shape::new(3, 2).expect("is one"));
        let parcel = Parcel::shards(bytes, sha256, shape, &group(3)).await.expect("codes");
        for holder in group(3) {
            assert_eq!(parcel.items_of(holder.node).len(), 1);
        }
    }

    #[test]
    fn only_large_chunks_are_coded_and_only_when_asked_for() {
        let form = |chunk_bytes_min| CodedForm {
            data_shards: 3,
            parity_shards: 2,
            chunk_bytes_min,
        };
        assert_eq!(shape_for(None, 100), None);
        assert_eq!(shape_for(Some(form(101)), 100), None);
        assert_eq!(shape_for(Some(form(0)), 0), None, "of nothing there are no shards");
        assert!(shape_for(Some(form(100)), 100).is_some());
    }
}

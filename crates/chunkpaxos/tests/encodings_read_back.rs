//! Every value survives its encoding, and no bytes whatever make the decoder panic or accept nonsense.

use proptest::prelude::*;
use vstack_chunkpaxos::{Ballot, Layout, LayoutError, Placement, Register, Reply, Request, Shard, Vote};
use vstack_types::{Digest, Incarnation, NodeRef, NodeUuid, ProcessUuid, limits::VOTE_BYTES_MAX};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn nodes(most: usize) -> impl Strategy<Value = Vec<NodeRef>> {
    prop::collection::btree_map(any::<[u8; 16]>(), any::<u32>(), 1..=most).prop_map(|nodes| {
        let node = |(uuid, incarnation)| NodeRef {
            uuid: NodeUuid::from_bytes(uuid),
            incarnation: Incarnation(incarnation),
        };
        nodes.into_iter().map(node).collect()
    })
}

fn coded() -> impl Strategy<Value = Layout> {
    (nodes(32), 1u8..=16, 0u8..=16, digest()).prop_map(|(nodes, data, parity, sha256)| {
        let shards = (0..data + parity).map(|index| Shard {
            index,
            node: nodes[usize::from(index) % nodes.len()],
            sha256,
        });
        Layout::Coded {
            data,
            parity,
            shards: shards.collect(),
        }
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![
        nodes(32).prop_map(|nodes| Layout::Replicated { nodes }),
        coded(),
        nodes(32).prop_map(|nodes| Layout::Deleted { nodes }),
    ]
}

prop_compose! {
    fn placement()(version: u64, size: u64, sha256 in digest(), layout in layout(), prev in prop::option::of(layout()), back: bool) -> Placement {
        Placement { version, size, sha256, layout, prev, back }
    }
}

prop_compose! {
    fn coded_first()(size: u64, sha256 in digest(), layout in coded()) -> Placement {
        Placement { version: 1, size, sha256, layout, prev: Some(Layout::nothing()), back: false }
    }
}

prop_compose! {
    fn ballot()(round: u64, proposer: [u8; 16]) -> Ballot {
        Ballot { round, proposer: ProcessUuid::from_bytes(proposer) }
    }
}

prop_compose! {
    fn vote()(ballot in ballot(), placement in placement()) -> Vote {
        Vote { ballot, placement }
    }
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (ballot(), placement()).prop_map(|(ballot, placement)| Request::Put0 { ballot, placement }),
        ballot().prop_map(|ballot| Request::Prepare { ballot }),
        (ballot(), placement()).prop_map(|(ballot, placement)| Request::Accept { ballot, placement }),
        (ballot(), placement()).prop_map(|(ballot, placement)| Request::Decided { ballot, placement }),
        Just(Request::Read),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        ballot().prop_map(|ballot| Reply::Accepted { ballot }),
        (ballot(), prop::option::of(vote()), any::<bool>(), any::<bool>()).prop_map(
            |(ballot, accepted, decided, holds)| Reply::Promise {
                ballot,
                accepted,
                decided,
                holds
            }
        ),
        prop::option::of(ballot()).prop_map(|promised| Reply::Nack { promised }),
        prop::collection::vec(digest(), 0..=32).prop_map(|items| Reply::NeedBytes { items }),
        Just(Reply::Damaged),
        Just(Reply::WrongNode),
        Just(Reply::Noted),
        (prop::option::of(ballot()), prop::option::of(vote()), any::<[bool; 3]>()).prop_map(
            |(promised, accepted, [decided, damaged, holds])| Reply::State {
                promised,
                accepted,
                decided,
                damaged,
                holds
            }
        ),
    ]
}

proptest! {
    #[test]
    fn requests_read_back(request in request()) {
        let bytes = request.encode();
        prop_assert!(bytes.len() <= VOTE_BYTES_MAX);
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
    }

    #[test]
    fn replies_read_back(reply in reply()) {
        let bytes = reply.encode();
        prop_assert!(bytes.len() <= VOTE_BYTES_MAX);
        prop_assert_eq!(Reply::decode(&bytes), Ok(reply));
    }

    #[test]
    fn registers_read_back(promised in prop::option::of(ballot()), accepted in prop::option::of(vote()), decided: bool, damaged: bool) {
        let register = Register { promised, accepted, decided, damaged };
        prop_assert_eq!(Register::decode(&register.encode()), Ok(register));
    }

    #[test]
    fn only_a_coded_first_version_is_made_from_nothing(first in coded_first(), nodes in nodes(8), version in 2u64..) {
        prop_assert_eq!(Placement::decode(&first.encode()), Ok(first.clone()));
        let refused = Err(LayoutError::FromNothing.into());
        let later = Placement { version, ..first.clone() };
        prop_assert_eq!(Placement::decode(&later.encode()), refused.clone());
        let copies = Placement { layout: Layout::Replicated { nodes }, ..first.clone() };
        prop_assert_eq!(Placement::decode(&copies.encode()), refused.clone());
        let back = Placement { back: true, ..first.clone() };
        prop_assert_eq!(Placement::decode(&back.encode()), refused);
        let nowhere = Placement { layout: Layout::nothing(), prev: None, ..first };
        prop_assert_eq!(Placement::decode(&nowhere.encode()), Err(LayoutError::Empty.into()));
    }

    #[test]
    fn cut_and_changed_bytes_are_refused_or_mean_something_else(request in request(), at: prop::sample::Index, flip in 1u8..) {
        let bytes = request.encode();
        prop_assert!(Request::decode(&bytes[..at.index(bytes.len())]).is_err());
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] ^= flip;
        prop_assert_ne!(Request::decode(&changed), Ok(request.clone()));
        let mut longer = bytes;
        longer.push(flip);
        prop_assert!(Request::decode(&longer).is_err());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _any = (Request::decode(&bytes), Reply::decode(&bytes), Register::decode(&bytes), Placement::decode(&bytes));
    }
}

//! Which of the items under an id a reader gets. A pure function of the entry.

use vstack_chunkpaxos::{Layout, Shard};
use vstack_types::{ChunkId, Digest, NodeRef};

use crate::index::{Entry, StoredItem};

/// What a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What the id stands for.
    Public,
    /// The item with this digest.
    Exact(Digest),
}

/// Why there is nothing to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No such item here.
    #[error("no such chunk on this node")]
    NotFound,
    /// Several byte strings are staged under the id.
    #[error("several items are staged under this id: choose one with ?sha256=")]
    Ambiguous,
    /// Only shards of it are here.
    #[error("only shards of this chunk are on this node: read its fragments")]
    Coded,
    /// It was here and is damaged.
    #[error("the copy on this node is damaged")]
    Corrupt,
    /// The disk does not give what is known of it.
    #[error("what is known of this chunk cannot be read from the disk")]
    Unreadable,
}

fn good(item: &StoredItem) -> Result<&StoredItem, Missing> {
    if item.is_corrupt() {
        Err(Missing::Corrupt)
    } else {
        Ok(item)
    }
}

/// Chooses what `entry` has for `which`.
pub(crate) fn select(entry: &Entry, me: NodeRef, which: Which) -> Result<&StoredItem, Missing> {
    match which {
        Which::Exact(sha256) => match entry.item(sha256) {
            Some(item) => good(item),
            None if entry.lost(sha256) => Err(Missing::Corrupt),
            None => Err(Missing::NotFound),
        },
        Which::Public => select_public(entry, me),
    }
}

fn select_public(entry: &Entry, me: NodeRef) -> Result<&StoredItem, Missing> {
    let mut shards = Vec::new();
    let mut decided = None;
    if let Some(stored) = &entry.register
        && let Some(vote) = &stored.register.accepted
    {
        let placement = &vote.placement;
        if placement.layout.is_deleted() && stored.register.decided {
            return Err(Missing::NotFound);
        }
        decided = stored.register.decided.then_some(placement.sha256);
        for layout in std::iter::once(&placement.layout).chain(&placement.prev) {
            let assigned = placement.items_of(layout, me);
            if matches!(layout, Layout::Coded { .. }) {
                shards.extend(assigned);
            } else if let Some(sha256) = assigned.first() {
                match entry.item(*sha256).map(good) {
                    Some(Ok(item)) => return Ok(item),
                    // What this node vouched for and has no more is damage, not absence.
                    Some(Err(_)) => return Err(Missing::Corrupt),
                    None if stored.register.damaged => return Err(Missing::Corrupt),
                    None => {}
                }
            }
        }
    }
    // Staged bytes that contradict a decision are not the chunk.
    let is_whole = |item: &&StoredItem| !shards.contains(&item.sha256) && decided.is_none_or(|d| d == item.sha256);
    let mut live = entry.live().filter(is_whole);
    match (live.next(), live.next()) {
        (Some(item), None) => Ok(item),
        (Some(_), Some(_)) => Err(Missing::Ambiguous),
        (None, _) if entry.items.iter().any(|item| is_whole(&item)) => Err(Missing::Corrupt),
        (None, _) if entry.items.iter().any(|item| shards.contains(&item.sha256)) => Err(Missing::Coded),
        (None, _) if !entry.gone.is_empty() => Err(Missing::Corrupt),
        (None, _) => Err(Missing::NotFound),
    }
}

/// Takes a fragment's public id `{chunk_id}-frag-{i}` apart; none when it is not one.
pub(crate) fn fragment_of(id: &ChunkId) -> Option<(ChunkId, u8)> {
    let (chunk, index) = id.as_str().rsplit_once("-frag-")?;
    let canonical = index == "0" || !index.starts_with('0');
    let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && digits)
        .then(|| Some((chunk.parse().ok()?, index.parse().ok()?)))
        .flatten()
}

/// The shard `index` of the accepted placement, when it is `me` who has it. A shard that was moved away, or whose chunk has
/// another form by now, is given as long as it is here to whoever names its digest: manifests from before still do.
pub(crate) fn select_fragment(entry: &Entry, me: NodeRef, index: u8, which: Which) -> Result<&StoredItem, Missing> {
    let vote = entry
        .register
        .as_ref()
        .and_then(|stored| stored.register.accepted.as_ref());
    let layouts = || {
        vote.iter()
            .flat_map(|vote| std::iter::once(&vote.placement.layout).chain(&vote.placement.prev))
    };
    for shards in layouts().filter_map(shards_of) {
        let shard = shards.iter().find(|shard| shard.index == index && shard.node == me);
        let shard = shard.filter(|shard| !matches!(which, Which::Exact(sha256) if sha256 != shard.sha256));
        if let Some(item) = shard.and_then(|shard| entry.item(shard.sha256)) {
            return good(item);
        }
    }
    let Which::Exact(sha256) = which else {
        return Err(Missing::NotFound);
    };
    let is_whole = vote.is_some_and(|vote| vote.placement.sha256 == sha256);
    let is_another = |shard: &Shard| shard.index != index && shard.sha256 == sha256;
    if is_whole || layouts().filter_map(shards_of).flatten().any(is_another) {
        return Err(Missing::NotFound);
    }
    select(entry, me, which)
}

fn shards_of(layout: &Layout) -> Option<&[Shard]> {
    match layout {
        Layout::Coded { shards, .. } => Some(shards),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Ballot, Placement, Register, Vote};
    use vstack_types::{NodeUuid, ProcessUuid, Timestamp};

    use super::*;
    use crate::{
        index::{Logged, Origin, Place, State},
        record::{Change, Kind},
    };

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn entry(items: &[u8], register: Option<(Layout, Option<Layout>, bool)>) -> Entry {
        let mut entry = Entry::default();
        let logged = Logged {
            lsn: 1,
            time: Timestamp(0),
            place: Place::new(0, 8192),
            payload_at: 12288,
            record_len: 8192,
            origin: Origin::Arrived,
        };
        let register = register.map(|(layout, prev, decided)| {
            let ballot = Ballot {
                round: 1,
                proposer: ProcessUuid::from_bytes([1; 16]),
            };
            let placement = Placement {
                version: 1,
                size: 1,
                sha256: digest(1),
                layout,
                prev,
                back: false,
            };
            Register {
                promised: Some(ballot),
                accepted: Some(Vote { ballot, placement }),
                decided,
                damaged: false,
            }
        });
        for item in items {
            let change = Change {
                kind: Kind::Item,
                id: "a".parse().unwrap(),
                sha256: digest(*item),
                size: 1,
                register: None,
            };
            entry.apply(&change, logged);
        }
        let vote = Change {
            kind: Kind::Vote,
            id: "a".parse().unwrap(),
            sha256: digest(0),
            size: 0,
            register,
        };
        entry.apply(&vote, logged);
        entry
    }

    fn replicated(nodes: &[u8]) -> Layout {
        Layout::Replicated {
            nodes: nodes.iter().map(|n| node(*n)).collect(),
        }
    }

    fn coded() -> Layout {
        let shard = |index: u8, n: u8| Shard {
            index,
            node: node(n),
            sha256: digest(10 + index),
        };
        Layout::Coded {
            data: 2,
            parity: 1,
            shards: vec![shard(0, 1), shard(1, 2), shard(2, 1)],
        }
    }

    #[test]
    fn the_register_says_what_an_id_stands_for() {
        let me = node(1);
        let chosen = |entry: &Entry| select(entry, me, Which::Public).map(|item| item.sha256);
        let gone = Layout::Deleted { nodes: vec![node(1)] };
        let table = [
            ("nothing", entry(&[], None), Err(Missing::NotFound)),
            ("one staged", entry(&[2], None), Ok(digest(2))),
            ("two staged", entry(&[2, 3], None), Err(Missing::Ambiguous)),
            (
                "placed wins over staged",
                entry(&[2, 1], Some((replicated(&[1, 2]), None, false))),
                Ok(digest(1)),
            ),
            (
                "placed elsewhere, one left",
                entry(&[1], Some((replicated(&[2]), None, true))),
                Ok(digest(1)),
            ),
            (
                "joint, bytes of the old half",
                entry(&[1, 10], Some((coded(), Some(replicated(&[1])), false))),
                Ok(digest(1)),
            ),
            (
                "joint, bytes of the new half",
                entry(&[1, 10], Some((replicated(&[1]), Some(coded()), false))),
                Ok(digest(1)),
            ),
            (
                "shards only",
                entry(&[10, 12], Some((coded(), None, true))),
                Err(Missing::Coded),
            ),
            (
                "decided on other bytes",
                entry(&[2], Some((replicated(&[1]), None, true))),
                Err(Missing::NotFound),
            ),
            (
                "deleted, before collection",
                entry(&[1], Some((gone.clone(), None, true))),
                Err(Missing::NotFound),
            ),
            (
                "deletion not decided",
                entry(&[1], Some((gone, None, false))),
                Ok(digest(1)),
            ),
        ];
        for (name, entry, expected) in table {
            assert_eq!(chosen(&entry), expected, "{name}");
        }
        let two = entry(&[2, 3], None);
        assert_eq!(select(&two, me, Which::Exact(digest(3))).unwrap().sha256, digest(3));
        assert_eq!(
            select(&two, me, Which::Exact(digest(4))).unwrap_err(),
            Missing::NotFound
        );
    }

    fn corrupt(entry: &mut Entry, sha256: Digest) {
        let item = entry.items.iter_mut().find(|item| item.sha256 == sha256);
        item.unwrap().state = State::CORRUPT;
    }

    #[test]
    fn what_is_damaged_is_never_chosen() {
        let mut placed = entry(&[1, 2], Some((replicated(&[1]), None, true)));
        corrupt(&mut placed, digest(1));
        assert_eq!(select(&placed, node(1), Which::Public).unwrap_err(), Missing::Corrupt);
        assert_eq!(
            select(&placed, node(1), Which::Exact(digest(1))).unwrap_err(),
            Missing::Corrupt
        );
        let mut staged = entry(&[2, 3], None);
        corrupt(&mut staged, digest(2));
        assert_eq!(select(&staged, node(1), Which::Public).unwrap().sha256, digest(3));
    }

    #[test]
    fn fragments_are_items_of_their_chunk() {
        let id = |text: &str| text.parse::<ChunkId>().unwrap();
        assert_eq!(fragment_of(&id("v-chunk-001-frag-2")), Some((id("v-chunk-001"), 2)));
        for other in ["v-chunk-001", "v-frag-", "v-frag-02", "v-frag-x", "v-frag-300"] {
            assert_eq!(fragment_of(&id(other)), None, "{other}");
        }
        let entry = entry(&[10, 11, 12], Some((coded(), None, true)));
        for which in [Which::Public, Which::Exact(digest(12))] {
            assert_eq!(select_fragment(&entry, node(1), 2, which).unwrap().sha256, digest(12));
        }
        let another = Which::Exact(digest(10));
        assert_eq!(
            select_fragment(&entry, node(1), 2, another).unwrap_err(),
            Missing::NotFound,
            "of another shard"
        );
        assert_eq!(
            select_fragment(&entry, node(1), 1, Which::Public).unwrap_err(),
            Missing::NotFound,
            "another node's"
        );
    }

    #[test]
    fn a_shard_that_is_left_is_given_to_who_names_its_digest() {
        let copies = replicated(&[1, 2, 3]);
        let mut left = entry(&[1, 10, 12], Some((copies, None, true)));
        let given = |entry: &Entry, index, which| select_fragment(entry, node(1), index, which).map(|item| item.sha256);
        assert_eq!(given(&left, 2, Which::Exact(digest(12))), Ok(digest(12)));
        for (which, why) in [
            (Which::Public, "which it was is known no more"),
            (Which::Exact(digest(1)), "a copy is no shard"),
            (Which::Exact(digest(13)), "it is not here"),
        ] {
            assert_eq!(given(&left, 2, which), Err(Missing::NotFound), "{why}");
        }
        corrupt(&mut left, digest(12));
        assert_eq!(given(&left, 2, Which::Exact(digest(12))), Err(Missing::Corrupt));
    }
}

//! Who and what there is in a model: a handful of nodes, rivals and items, and their real ids.

use std::sync::LazyLock;

use vstack_chunkpaxos::{Ballot, Layout, Placement, Shard};
use vstack_types::{Digest, NodeRef, NodeUuid, ProcessUuid};

/// Most nodes of a scope: sets of nodes are masks of eight bits.
pub const NODES_MAX: usize = 8;

/// The nodes of a scope, or a choice of them: bit `n` is node `n`, which is written `n + 1`.
pub type Mask = u8;

/// What can be stored, a bit each: the chunk's two possible contents, then the shards of the first.
pub const X: u8 = 0;
/// Other bytes that somebody stores under the same id.
pub const Y: u8 = 1;
/// The first shard.
pub const SHARD: u8 = 2;
/// Shards are the items from [`SHARD`] on.
pub const ITEMS: u8 = 8;

/// Lengths differ, so that a copy that is asked for with another value's length is noticed.
const CONTENT: [&[u8]; 2] = [b"x", b"yyyyy"];

/// Node `n`.
pub fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n + 1; 16]))
}

/// Which node that is.
pub fn index(node: NodeRef) -> u8 {
    node.uuid.as_bytes()[0] - 1
}

/// The process of rival `rival`; later ones win ties.
pub fn process(rival: u8) -> ProcessUuid {
    ProcessUuid::from_bytes([rival + 1; 16])
}

/// The process that created the video.
pub fn owner() -> Ballot {
    Ballot::zero(ProcessUuid::from_bytes([0xee; 16]))
}

/// The mask of these nodes.
pub fn mask(nodes: impl IntoIterator<Item = NodeRef>) -> Mask {
    nodes.into_iter().fold(0, |mask, node| mask | bit(index(node)))
}

/// The mask of one node, or of one item.
pub const fn bit(n: u8) -> u8 {
    1 << n
}

/// The members of a mask, lowest first.
pub fn members(mask: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |n| mask & bit(*n) != 0)
}

static DIGESTS: LazyLock<[Digest; ITEMS as usize]> = LazyLock::new(|| {
    [0, 1, 2, 3, 4, 5, 6, 7].map(|item| match item {
        X | Y => Digest::of(CONTENT[usize::from(item)]),
        shard => Digest::of(&[b's', shard]),
    })
});

/// The digest of an item.
pub fn digest(item: u8) -> Digest {
    DIGESTS[usize::from(item)]
}

/// Which item has this digest.
pub fn item(of: Digest) -> u8 {
    let found = (0..ITEMS).find(|item| digest(*item) == of);
    found.unwrap_or_else(|| panic!("a digest that the model does not have"))
}

/// Bytes of a content.
pub fn size(content: u8) -> u64 {
    CONTENT[usize::from(content)].len() as u64
}

/// The nodes as a scope writes them: from 1.
pub fn refs(nodes: &[u8]) -> Vec<NodeRef> {
    nodes.iter().map(|n| node(n - 1)).collect()
}

/// Full copies on `nodes`.
pub fn replicated(nodes: &[u8]) -> Layout {
    Layout::Replicated { nodes: refs(nodes) }
}

/// A shard on each of `nodes`, of which any `data` are enough; a node may be named more than once.
pub fn coded(data: u8, nodes: &[u8]) -> Layout {
    let shards: Vec<_> = (0u8..)
        .zip(refs(nodes))
        .map(|(index, node)| Shard {
            index,
            node,
            sha256: digest(SHARD + index),
        })
        .collect();
    Layout::Coded {
        data,
        parity: u8::try_from(shards.len()).unwrap_or(u8::MAX) - data,
        shards,
    }
}

/// Version 1 of `content`.
pub fn first(content: u8, layout: Layout) -> Placement {
    let prev = matches!(layout, Layout::Coded { .. }).then(Layout::nothing);
    Placement {
        version: 1,
        size: size(content),
        sha256: digest(content),
        layout,
        prev,
        back: false,
    }
}

/// As people write it: `v2 123>145` is a joint on its way from 1, 2, 3 to 1, 4, 5.
pub fn show(placement: &Placement) -> String {
    let content = match placement.sha256 {
        sha256 if sha256 == digest(X) => "X",
        sha256 if sha256 == digest(Y) => "Y",
        _ => "",
    };
    let from = placement.prev.as_ref().map(|prev| format!("{}>", show_layout(prev)));
    let back = if placement.back { " back" } else { "" };
    format!(
        "v{}{content} {}{}{back}",
        placement.version,
        from.unwrap_or_default(),
        show_layout(&placement.layout)
    )
}

fn show_layout(layout: &Layout) -> String {
    if layout.is_nothing() {
        return "nothing".into();
    }
    let nodes: String = layout
        .nodes()
        .iter()
        .map(|node| (index(*node) + 1).to_string())
        .collect();
    match layout {
        Layout::Replicated { .. } => nodes,
        Layout::Coded { data, parity, .. } => format!("{data}+{parity}@{nodes}"),
        Layout::Deleted { .. } => format!("gone@{nodes}"),
    }
}

/// Ballots in their order, as small numbers.
pub fn rank(ballot: Ballot) -> u16 {
    let round = u8::try_from(ballot.round).unwrap_or_else(|_| panic!("more rounds than a scope may have"));
    u16::from(round) << 8 | u16::from(ballot.proposer.as_bytes()[0])
}

/// The rival whose ballot this is; none is the owner.
pub fn rival_of(ballot: Ballot) -> Option<u8> {
    (ballot != owner()).then(|| ballot.proposer.as_bytes()[0] - 1)
}

/// `2.1` is round 2 of rival 1; `0` is the owner's.
pub fn show_ballot(ballot: Ballot) -> String {
    if ballot == owner() {
        "0".into()
    } else {
        format!("{}.{}", ballot.round, ballot.proposer.as_bytes()[0])
    }
}

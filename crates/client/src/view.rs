//! Placements as people read them.

use std::fmt;

use vstack_api::consensus::PlacementView;
use vstack_chunkpaxos::{Layout, Placement};

/// The form of a placement without the names in it; small enough to be kept by the thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementShape {
    layout: LayoutShape,
    prev: Option<LayoutShape>,
    back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayoutShape {
    Replicated(u8),
    Coded(u8, u8),
    Deleted(u8),
}

impl From<&Layout> for LayoutShape {
    fn from(layout: &Layout) -> Self {
        // A layout names at most 32.
        let count = |nodes: &[_]| u8::try_from(nodes.len()).unwrap_or(u8::MAX);
        match layout {
            Layout::Replicated { nodes } => Self::Replicated(count(nodes)),
            Layout::Deleted { nodes } => Self::Deleted(count(nodes)),
            Layout::Coded { data, parity, .. } => Self::Coded(*data, *parity),
        }
    }
}

impl From<&Placement> for PlacementShape {
    fn from(placement: &Placement) -> Self {
        Self {
            layout: LayoutShape::from(&placement.layout),
            prev: placement.prev.as_ref().map(LayoutShape::from),
            back: placement.back,
        }
    }
}

impl fmt::Display for LayoutShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicated(count) => write!(f, "replicated {count}"),
            Self::Coded(data, parity) => write!(f, "coded {data}+{parity}"),
            Self::Deleted(count) => write!(f, "deleted {count}"),
        }
    }
}

impl fmt::Display for PlacementShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layout)?;
        match self.prev {
            Some(prev) if self.back => write!(f, ", back from {prev}"),
            Some(prev) => write!(f, ", was {prev}"),
            None => Ok(()),
        }
    }
}

/// A placement with its names.
pub fn placement_view(placement: &Placement) -> PlacementView {
    PlacementView {
        version: placement.version,
        size: placement.size,
        sha256: placement.sha256,
        layout: PlacementShape::from(placement).to_string(),
        nodes: placement.layout.nodes(),
        prev_nodes: placement.prev.as_ref().map(Layout::nodes).unwrap_or_default(),
        back: placement.back,
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Shard;
    use vstack_types::{Digest, NodeRef, NodeUuid};

    use super::*;

    #[test]
    fn a_shape_says_what_a_placement_is() {
        let nodes: Vec<_> = (1..=3).map(|n| NodeRef::first(NodeUuid::from_bytes([n; 16]))).collect();
        let sha256 = Digest::of(b"x");
        let shards = (0..3).map(|index| Shard {
            index,
            node: nodes[usize::from(index)],
            sha256,
        });
        let replicated = Layout::Replicated { nodes: nodes.clone() };
        let coded = Layout::Coded {
            data: 2,
            parity: 1,
            shards: shards.collect(),
        };
        let table = [
            (replicated.clone(), None, false, "replicated 3"),
            (
                coded.clone(),
                Some(replicated.clone()),
                false,
                "coded 2+1, was replicated 3",
            ),
            (replicated, Some(coded), true, "replicated 3, back from coded 2+1"),
            (Layout::Deleted { nodes }, None, false, "deleted 3"),
        ];
        for (layout, prev, back, expected) in table {
            let placement = Placement {
                version: 2,
                size: 1,
                sha256,
                layout,
                prev,
                back,
            };
            assert_eq!(PlacementShape::from(&placement).to_string(), expected);
            assert_eq!(placement_view(&placement).layout, expected);
        }
    }
}

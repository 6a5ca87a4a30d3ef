//! The protocols that are compared.

use crate::peer;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// ChunkPaxos, round 0: the vote rides on the bytes.
    Fast,
    /// ChunkPaxos by a proposer that is not the owner.
    Classic,
    /// Single-decree Paxos, data sent first.
    Textbook,
    /// A Raft log with a stable leader.
    Raft,
}

impl Protocol {
    /// In the order of the columns.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Classic, Self::Textbook, Self::Raft];

    /// Head of its column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "ChunkPaxos fast",
            Self::Classic => "ChunkPaxos classic",
            Self::Textbook => "textbook Paxos",
            Self::Raft => "Raft (openraft)",
        }
    }

    /// What runs on the nodes; none for the real storage node.
    pub const fn peer(self) -> Option<peer::Protocol> {
        match self {
            Self::Fast | Self::Classic => None,
            Self::Textbook => Some(peer::Protocol::SingleDecree),
            Self::Raft => Some(peer::Protocol::Raft),
        }
    }
}

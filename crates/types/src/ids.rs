//! Identifiers. Each has a private field, one parser behind `FromStr`, and serde through that parser,
//! so that an id in hand is an id that was checked.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ambient;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// A chunk id outside `[A-Za-z0-9][A-Za-z0-9._-]{0,199}`.
    #[error("a chunk id is 1 to 200 characters of A-Z a-z 0-9 . _ - and starts with a letter or digit")]
    ChunkId,
    /// Not a UUID where one is needed.
    #[error("not a UUID")]
    Uuid,
    /// Not `<uuid>/<incarnation>`.
    #[error("a node reference is <uuid>/<incarnation>")]
    NodeRef,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that is already known to name this kind of thing.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// A new random (version 4) identifier.
            pub fn random() -> Self {
                Self(ambient::uuid())
            }

            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The 16 bytes, in RFC 9562 order.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From 16 bytes in RFC 9562 order.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError::Uuid)
            }
        }
    };
}

uuid_id! {
    /// A video.
    VideoId
}
uuid_id! {
    /// A storage node, which is a disk: made when a data directory is initialised, lost with the disk.
    NodeUuid
}
uuid_id! {
    /// A proposer: one per process start, so that a restarted process is never mistaken for the one before.
    ProcessUuid
}

impl VideoId {
    /// A new video id. Version 7, so that ids made later sort later and inserts stay at the end of an index.
    pub fn generate() -> Self {
        Self(ambient::uuid_by_time())
    }
}

/// How often a node lost votes of its own for some register and was named again afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Incarnation(pub u32);

/// An acceptor: a disk and its incarnation. Written `<uuid>/<incarnation>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    /// The disk.
    pub uuid: NodeUuid,
    /// Which life of the disk.
    pub incarnation: Incarnation,
}

impl NodeRef {
    /// The first incarnation of a disk.
    pub const fn first(uuid: NodeUuid) -> Self {
        Self {
            uuid,
            incarnation: Incarnation(0),
        }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.uuid, self.incarnation.0)
    }
}

impl FromStr for NodeRef {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (uuid, incarnation) = text.split_once('/').ok_or(ParseIdError::NodeRef)?;
        let incarnation = incarnation.parse().map_err(|_| ParseIdError::NodeRef)?;
        Ok(Self {
            uuid: uuid.parse()?,
            incarnation: Incarnation(incarnation),
        })
    }
}

impl Serialize for NodeRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The name of a register and of the bytes it places: `[A-Za-z0-9][A-Za-z0-9._-]{0,199}`.
///
/// Chunks of videos are named `{video_id}-chunk-{seq:03}`, with more digits past 999.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ChunkId(Box<str>);

impl ChunkId {
    /// Longest id, in bytes (all of them ASCII).
    pub const LEN_MAX: usize = 200;

    /// The id of chunk `sequence` of `video`.
    pub fn of_video(video: VideoId, sequence: u32) -> Self {
        Self(format!("{video}-chunk-{sequence:03}").into())
    }

    /// The id of `video`'s init segment, a register like every chunk's.
    pub fn init_of_video(video: VideoId) -> Self {
        Self(format!("{video}-init").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id under which what is left of this chunk is salvaged for the `times`-th time: `-r{times}` at its end. None when
    /// that is too long.
    pub fn salvaged(&self, times: u32) -> Option<Self> {
        let (first, _) = self.split_salvaged();
        format!("{first}-r{times}").parse().ok()
    }

    /// How often it was salvaged, by its id.
    pub fn times_salvaged(&self) -> u32 {
        self.split_salvaged().1
    }

    fn split_salvaged(&self) -> (&str, u32) {
        let split = self.0.rsplit_once("-r").and_then(|(first, times)| {
            let canonical = !times.starts_with('0') && !first.is_empty();
            Some((first, times.parse().ok().filter(|_| canonical)?))
        });
        split.unwrap_or((&self.0, 0))
    }

    /// The video this id was made for, when it has the form our uploader gives.
    pub fn video(&self) -> Option<VideoId> {
        let (head, tail) = self.0.split_at_checked(36)?;
        tail.starts_with('-').then(|| head.parse().ok()).flatten()
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ChunkId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes = text.as_bytes();
        let first_ok = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        let rest_ok = bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if first_ok && rest_ok && bytes.len() <= Self::LEN_MAX {
            Ok(Self(text.into()))
        } else {
            Err(ParseIdError::ChunkId)
        }
    }
}

impl<'de> Deserialize<'de> for ChunkId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_ids_follow_the_grammar() {
        for good in ["a", "0", "A.b_c-9", &"x".repeat(200)] {
            assert_eq!(good.parse::<ChunkId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "_a", "a/b", "a b", "ä", "a%2f", "..", &"x".repeat(201)] {
            assert_eq!(bad.parse::<ChunkId>(), Err(ParseIdError::ChunkId), "{bad:?}");
        }
    }

    #[test]
    fn a_chunk_id_knows_its_video() {
        let video = VideoId::generate();
        let chunk = ChunkId::of_video(video, 7);
        assert_eq!(chunk.as_str(), format!("{video}-chunk-007"));
        assert_eq!(ChunkId::of_video(video, 12345).as_str(), format!("{video}-chunk-12345"));
        assert_eq!(chunk.video(), Some(video));
        assert_eq!(ChunkId::init_of_video(video).video(), Some(video));
        assert_eq!("plain".parse::<ChunkId>().unwrap().video(), None);
    }

    #[test]
    fn a_salvaged_chunk_tells_how_often_it_was() {
        let id = |text: &str| text.parse::<ChunkId>().unwrap();
        let first = id("v-chunk-007");
        assert_eq!(
            (first.times_salvaged(), first.salvaged(1)),
            (0, Some(id("v-chunk-007-r1")))
        );
        let twelfth = id("v-chunk-007-r12");
        assert_eq!(
            (twelfth.times_salvaged(), twelfth.salvaged(13)),
            (12, Some(id("v-chunk-007-r13")))
        );
        for other in ["v-r0", "v-r01", "v-r", "v-rx", "v-r99999999999"] {
            assert_eq!(id(other).times_salvaged(), 0, "{other}");
        }
        assert_eq!(id(&"x".repeat(199)).salvaged(1), None);
    }

    #[test]
    fn a_node_reference_reads_back() {
        let node = NodeRef {
            uuid: NodeUuid::random(),
            incarnation: Incarnation(3),
        };
        assert_eq!(node.to_string().parse(), Ok(node));
        assert_eq!(
            serde_json::from_str::<NodeRef>(&serde_json::to_string(&node).unwrap()).unwrap(),
            node
        );
        assert!("nonsense".parse::<NodeRef>().is_err());
    }
}

//! The one byte encoding of everything agreed: on disk in vote records, on the wire in requests and replies.
//!
//! Little-endian, explicit widths, no padding. Every count is checked against its limit before anything is
//! allocated for it, and a decoder that has bytes left over refuses. `docs/wire.md` has the tables.

use vstack_types::{Digest, Incarnation, NodeRef, NodeUuid, ProcessUuid, limits::LAYOUT_NODES_MAX};

use crate::{
    acceptor::Register,
    message::{Reply, Request, Vote},
    placement::{Ballot, Layout, LayoutError, Placement, Shard},
};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("cut short")]
    Short,
    /// They go on too long.
    #[error("{0} bytes too many")]
    TooLong(usize),
    /// A tag or flag has no meaning.
    #[error("unknown {what} {value}")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// What it held.
        value: u8,
    },
    /// A placement that cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown { what, value }),
        }
    }

    fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag(what)? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A count of nodes, shards or items: one byte, within the limit every list of ours has.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
        let count = usize::from(self.u8()?);
        if count > LAYOUT_NODES_MAX {
            return Err(LayoutError::TooLarge.into());
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn digest(&mut self) -> Result<Digest, DecodeError> {
        self.take().map(Digest::from_bytes)
    }

    fn node(&mut self) -> Result<NodeRef, DecodeError> {
        let uuid = NodeUuid::from_bytes(self.take()?);
        let incarnation = Incarnation(u32::from_le_bytes(self.take()?));
        Ok(NodeRef { uuid, incarnation })
    }

    fn ballot(&mut self) -> Result<Ballot, DecodeError> {
        Ok(Ballot {
            round: self.u64()?,
            proposer: ProcessUuid::from_bytes(self.take()?),
        })
    }

    fn layout(&mut self) -> Result<Layout, DecodeError> {
        match self.u8()? {
            1 => Ok(Layout::Replicated {
                nodes: self.list(Self::node)?,
            }),
            2 => {
                let (data, parity) = (self.u8()?, self.u8()?);
                let shards = self.list(|reader| {
                    Ok(Shard {
                        index: reader.u8()?,
                        node: reader.node()?,
                        sha256: reader.digest()?,
                    })
                })?;
                Ok(Layout::Coded { data, parity, shards })
            }
            3 => Ok(Layout::Deleted {
                nodes: self.list(Self::node)?,
            }),
            value => Err(DecodeError::Unknown { what: "layout", value }),
        }
    }

    fn placement(&mut self) -> Result<Placement, DecodeError> {
        let placement = Placement {
            version: self.u64()?,
            size: self.u64()?,
            sha256: self.digest()?,
            layout: self.layout()?,
            prev: self.option("prev flag", Self::layout)?,
            back: self.flag("back flag")?,
        };
        placement.check()?;
        Ok(placement)
    }

    fn vote(&mut self) -> Result<Vote, DecodeError> {
        Ok(Vote {
            ballot: self.ballot()?,
            placement: self.placement()?,
        })
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TooLong(self.0.len()))
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        let count = u8::try_from(items.len()).unwrap_or(u8::MAX);
        assert!(
            usize::from(count) == items.len() && items.len() <= LAYOUT_NODES_MAX,
            "checked where it was made"
        );
        self.0.push(count);
        items.iter().for_each(|item| write(self, item));
    }

    fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(digest.as_bytes());
    }

    fn node(&mut self, node: &NodeRef) {
        self.0.extend_from_slice(node.uuid.as_bytes());
        self.0.extend_from_slice(&node.incarnation.0.to_le_bytes());
    }

    fn ballot(&mut self, ballot: &Ballot) {
        self.0.extend_from_slice(&ballot.round.to_le_bytes());
        self.0.extend_from_slice(ballot.proposer.as_bytes());
    }

    fn layout(&mut self, layout: &Layout) {
        match layout {
            Layout::Replicated { nodes } => {
                self.0.push(1);
                self.list(nodes, Self::node);
            }
            Layout::Coded { data, parity, shards } => {
                self.0.extend_from_slice(&[2, *data, *parity]);
                self.list(shards, |writer, shard| {
                    writer.0.push(shard.index);
                    writer.node(&shard.node);
                    writer.digest(&shard.sha256);
                });
            }
            Layout::Deleted { nodes } => {
                self.0.push(3);
                self.list(nodes, Self::node);
            }
        }
    }

    fn placement(&mut self, placement: &Placement) {
        self.0.extend_from_slice(&placement.version.to_le_bytes());
        self.0.extend_from_slice(&placement.size.to_le_bytes());
        self.digest(&placement.sha256);
        self.layout(&placement.layout);
        self.option(placement.prev.as_ref(), Self::layout);
        self.0.push(u8::from(placement.back));
    }

    fn vote(&mut self, vote: &Vote) {
        self.ballot(&vote.ballot);
        self.placement(&vote.placement);
    }
}

fn decoded<T>(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    let mut reader = Reader(bytes);
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn encoded(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer(Vec::with_capacity(256));
    write(&mut writer);
    writer.0
}

impl Placement {
    /// The bytes that stand for it, on disk, on the wire and in the metadata database.
    pub fn encode(&self) -> Vec<u8> {
        encoded(|writer| writer.placement(self))
    }

    /// Reads what [`Placement::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly a placement that can be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decoded(bytes, |reader| reader.placement())
    }
}

impl Register {
    /// The bytes of a vote record.
    pub fn encode(&self) -> Vec<u8> {
        encoded(|writer| {
            writer.option(self.promised.as_ref(), Writer::ballot);
            writer.option(self.accepted.as_ref(), Writer::vote);
            writer
                .0
                .extend_from_slice(&[u8::from(self.decided), u8::from(self.damaged)]);
        })
    }

    /// Reads what [`Register::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly a register.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decoded(bytes, |reader| {
            Ok(Self {
                promised: reader.option("promised flag", Reader::ballot)?,
                accepted: reader.option("accepted flag", Reader::vote)?,
                decided: reader.flag("decided flag")?,
                damaged: reader.flag("damaged flag")?,
            })
        })
    }
}

impl Request {
    /// The bytes sent.
    pub fn encode(&self) -> Vec<u8> {
        encoded(|writer| match self {
            Self::Put0 { ballot, placement } => {
                writer.0.push(1);
                writer.ballot(ballot);
                writer.placement(placement);
            }
            Self::Prepare { ballot } => {
                writer.0.push(2);
                writer.ballot(ballot);
            }
            Self::Accept { ballot, placement } => {
                writer.0.push(3);
                writer.ballot(ballot);
                writer.placement(placement);
            }
            Self::Decided { ballot, placement } => {
                writer.0.push(4);
                writer.ballot(ballot);
                writer.placement(placement);
            }
            Self::Read => writer.0.push(5),
        })
    }

    /// Reads what [`Request::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decoded(bytes, |reader| match reader.u8()? {
            1 => Ok(Self::Put0 {
                ballot: reader.ballot()?,
                placement: reader.placement()?,
            }),
            2 => Ok(Self::Prepare {
                ballot: reader.ballot()?,
            }),
            3 => Ok(Self::Accept {
                ballot: reader.ballot()?,
                placement: reader.placement()?,
            }),
            4 => Ok(Self::Decided {
                ballot: reader.ballot()?,
                placement: reader.placement()?,
            }),
            5 => Ok(Self::Read),
            value => Err(DecodeError::Unknown { what: "request", value }),
        })
    }
}

impl Reply {
    /// The bytes sent.
    pub fn encode(&self) -> Vec<u8> {
        encoded(|writer| match self {
            Self::Accepted { ballot } => {
                writer.0.push(1);
                writer.ballot(ballot);
            }
            Self::Promise {
                ballot,
                accepted,
                decided,
                holds,
            } => {
                writer.0.push(2);
                writer.ballot(ballot);
                writer.option(accepted.as_ref(), Writer::vote);
                writer.0.extend_from_slice(&[u8::from(*decided), u8::from(*holds)]);
            }
            Self::Nack { promised } => {
                writer.0.push(3);
                writer.option(promised.as_ref(), Writer::ballot);
            }
            Self::NeedBytes { items } => {
                writer.0.push(4);
                writer.list(items, Writer::digest);
            }
            Self::Damaged => writer.0.push(5),
            Self::WrongNode => writer.0.push(6),
            Self::Noted => writer.0.push(7),
            Self::State {
                promised,
                accepted,
                decided,
                damaged,
                holds,
            } => {
                writer.0.push(8);
                writer.option(promised.as_ref(), Writer::ballot);
                writer.option(accepted.as_ref(), Writer::vote);
                writer
                    .0
                    .extend_from_slice(&[u8::from(*decided), u8::from(*damaged), u8::from(*holds)]);
            }
        })
    }

    /// Reads what [`Reply::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly a reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decoded(bytes, |reader| match reader.u8()? {
            1 => Ok(Self::Accepted {
                ballot: reader.ballot()?,
            }),
            2 => Ok(Self::Promise {
                ballot: reader.ballot()?,
                accepted: reader.option("accepted flag", Reader::vote)?,
                decided: reader.flag("decided flag")?,
                holds: reader.flag("holds flag")?,
            }),
            3 => Ok(Self::Nack {
                promised: reader.option("promised flag", Reader::ballot)?,
            }),
            4 => Ok(Self::NeedBytes {
                items: reader.list(Reader::digest)?,
            }),
            5 => Ok(Self::Damaged),
            6 => Ok(Self::WrongNode),
            7 => Ok(Self::Noted),
            8 => Ok(Self::State {
                promised: reader.option("promised flag", Reader::ballot)?,
                accepted: reader.option("accepted flag", Reader::vote)?,
                decided: reader.flag("decided flag")?,
                damaged: reader.flag("damaged flag")?,
                holds: reader.flag("holds flag")?,
            }),
            value => Err(DecodeError::Unknown { what: "reply", value }),
        })
    }
}

//! What a search may do: how many nodes, which wishes, which faults, and how often.

use vstack_chunkpaxos::{Change, Layout};

use crate::names::{Mask, Y, coded, digest, mask, refs, replicated, size};

/// Nodes, numbered from 1.
pub type Nodes = &'static [u8];

/// A form to place the chunk in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Full copies.
    Copies(Nodes),
    /// A shard on each, any so many of which are enough.
    Shards(u8, Nodes),
}

impl Form {
    /// The layout it stands for.
    pub fn layout(self) -> Layout {
        match self {
            Self::Copies(nodes) => replicated(nodes),
            Self::Shards(data, nodes) => coded(data, nodes),
        }
    }
}

/// What a rival may wish for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Learn.
    Read,
    /// Place the other bytes.
    Create,
    /// Give a first version up.
    Abort,
    /// Take the chunk out.
    Delete,
    /// Begin a move.
    Move(Form),
    /// End it.
    Settle,
    /// Decide it once more, in a newer ballot.
    Renew,
    /// Undo it.
    TurnBack,
}

impl Wish {
    /// As the proposer takes it.
    pub fn change(self) -> Change {
        match self {
            Self::Read => Change::Read,
            Self::Create => Change::Create {
                size: size(Y),
                sha256: digest(Y),
            },
            Self::Abort => Change::Abort,
            Self::Delete => Change::Delete,
            Self::Move(form) => Change::Move { to: form.layout() },
            Self::Settle => Change::Settle,
            Self::Renew => Change::Renew,
            Self::TurnBack => Change::TurnBack,
        }
    }
}

/// How a history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Nothing was sent.
    Empty,
    /// The owner has sent its first version to every node of it; any of these messages may arrive at any time.
    Sent(Form),
    /// The first version is decided, and everybody knows.
    Stored,
    /// A move to this form is decided, and everybody has it and knows.
    Moving(Form),
    /// It is settled too, and what it left behind is deleted.
    Moved(Form),
}

/// How often which fault may happen in one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Faults that take a copy, of all kinds together.
    pub total: u8,
    /// Disks may be lost.
    pub lost: bool,
    /// Items may rot, be found damaged, and be restored.
    pub rot: bool,
    /// Vote records may be lost in both places: the disk knows that it forgot something and not what, so it votes no
    /// more, about any chunk.
    pub votes: bool,
    /// The newest of them may be lost and an older one be left, with the same outcome.
    pub newest_votes: bool,
    /// Votes may be lost of one register that is known to have had some. An engine that could tell which registers
    /// these are would abstain for them alone.
    pub register_votes: bool,
    /// Disks may be copied, and put back later as they were.
    pub old: bool,
    /// Nobody notices that a disk went back: what its log had was not known elsewhere yet. The protocol does not bear
    /// that; to see all of what comes of it takes [`Scope::unpruned`].
    pub unnoticed: bool,
    /// A disk that lost votes or went back is adopted under this number.
    pub heir: Option<u8>,
    /// Nodes may leave: sealed, looked for in every register, wiped.
    pub leaving: u8,
    /// Nodes delete what they may.
    pub gc: bool,
    /// A client may store other bytes under the same id.
    pub strays: bool,
    /// A new group may begin, from the next chunk on.
    pub group: Option<Nodes>,
}

/// The bounds of a search.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Short and unique.
    pub name: &'static str,
    /// Nodes there are.
    pub nodes: u8,
    /// Those of version 1.
    pub initial: Nodes,
    /// The start.
    pub begin: Begin,
    /// What rivals may wish; each chooses when it starts.
    pub wishes: Vec<Wish>,
    /// Proposers of the classic path, each a process of its own.
    pub rivals: u8,
    /// Ballots each of them may use.
    pub attempts: u8,
    /// Who completed what it found has another ballot for what it wished.
    pub completing: bool,
    /// Nodes on which the other bytes are staged.
    pub staged: Nodes,
    /// Rivals may have learned any decision before they start.
    pub knowing: bool,
    /// Replies may be lost while their request was heard, and promises that no longer count are still made.
    /// Otherwise both are left out, which loses nothing: see `docs/chunk-paxos.md`.
    pub exact: bool,
    /// Messages that change nothing now stay deliverable all the same: how it is shown that leaving them out loses
    /// nothing, and needed where registers may go back under a node that goes on voting.
    pub unpruned: bool,
    /// Faults.
    pub faults: Faults,
    /// States after which the search stops, if it is to stop.
    pub states_max: Option<usize>,
}

impl Scope {
    /// A scope with one attempt per rival and no faults.
    pub fn new(name: &'static str, nodes: u8, initial: Nodes, begin: Begin, rivals: u8, wishes: &[Wish]) -> Self {
        Self {
            name,
            nodes,
            initial,
            begin,
            wishes: wishes.to_vec(),
            rivals,
            attempts: 1,
            completing: false,
            staged: &[],
            knowing: false,
            exact: false,
            unpruned: false,
            faults: Faults::default(),
            states_max: None,
        }
    }

    /// With these faults.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// With so many ballots for each rival.
    #[must_use]
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.attempts = attempts;
        self
    }

    /// With another ballot for who completed what it found.
    #[must_use]
    pub fn completing(mut self) -> Self {
        self.completing = true;
        self
    }

    /// With the other bytes staged on these.
    #[must_use]
    pub fn staged(mut self, nodes: Nodes) -> Self {
        self.staged = nodes;
        self
    }

    /// With rivals that may have learned decisions.
    #[must_use]
    pub fn knowing(mut self) -> Self {
        self.knowing = true;
        self
    }

    /// With every message kept for ever.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// With messages kept that change nothing now.
    #[must_use]
    pub fn unpruned(mut self) -> Self {
        self.unpruned = true;
        self
    }

    /// Cut off after so many states.
    #[must_use]
    pub fn cut(mut self, states_max: usize) -> Self {
        self.states_max = Some(states_max);
        self
    }

    /// The nodes of version 1, as a mask.
    pub fn initial_mask(&self) -> Mask {
        mask(refs(self.initial))
    }

    /// Whether the first version is coded.
    pub fn begins_coded(&self) -> bool {
        matches!(self.begin, Begin::Sent(Form::Shards(..)))
    }

    /// Every form that a placement may take.
    pub fn forms(&self) -> Vec<Form> {
        let wished = self.wishes.iter().filter_map(|wish| match wish {
            Wish::Move(form) => Some(*form),
            _ => None,
        });
        let begun = match self.begin {
            Begin::Sent(form) | Begin::Moving(form) | Begin::Moved(form) => Some(form),
            Begin::Empty | Begin::Stored => None,
        };
        wished.chain(begun).collect()
    }

    /// Shards that are enough to make the chunk from, where there are shards. A scope has one code.
    pub fn shards_needed(&self) -> Option<u8> {
        self.forms().into_iter().find_map(|form| match form {
            Form::Shards(data, _) => Some(data),
            Form::Copies(_) => None,
        })
    }

    /// Faults in a few words, for the table.
    pub fn faults_in_words(&self) -> String {
        let faults = &self.faults;
        let named = [
            (faults.lost, "lost disk"),
            (faults.rot, "rot"),
            (faults.votes, "lost votes"),
            (faults.newest_votes, "lost newest votes"),
            (faults.register_votes, "lost votes of one chunk"),
            (faults.old, "old disk"),
            (faults.unnoticed, "unnoticed"),
            (faults.heir.is_some(), "adopted"),
            (faults.leaving > 0, "leaving"),
            (faults.gc, "gc"),
            (faults.strays, "strays"),
            (faults.group.is_some(), "groups"),
            (self.exact, "lost replies"),
            (self.knowing, "told"),
        ];
        let words: Vec<_> = named.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        let words = words.join(", ");
        match faults.total {
            _ if words.is_empty() => "-".into(),
            0 | 1 => words,
            total => format!("up to {total}: {words}"),
        }
    }
}

//! Callers: each wishes for one thing after the other, about the few registers that all of them are busy with.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::{task::JoinSet, time::timeout};
use vstack_chunkpaxos::{Ballot, Change, Layout, Placement, Proposer, Reply, Request, Shard};
use vstack_client::{Holder, NodeClient, NodeUrls, propose};
use vstack_linear::{Answer, Call, Operation};
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid, VideoId};

use crate::{
    board::{Board, Subject},
    contents::{CONTENTS, content, items, shards, with_digest},
    recorder::Recorder,
    script::{Outcome, Script},
};

/// A call without an outcome by then is given up, and its outcome unknown. A caller waits 3 s for one silent node.
const CALL_DEADLINE: Duration = Duration::from_millis(3_500);

/// Calls that the metadata service made for a caller are told apart by their process: this much higher.
pub const FOR_SERVICE: u32 = 1_000;

/// One process, with its own way to every node.
pub struct Caller {
    pub number: u32,
    pub calls: NodeClient,
    /// Each node, where this caller reaches it.
    pub holders: Vec<Holder>,
    pub script: Script,
    pub recorder: Recorder,
    pub board: Arc<Board>,
    pub rng: StdRng,
}

impl Caller {
    /// The next call.
    pub async fn step(&mut self) {
        let subject = self.board.pick(self.number, &mut self.rng);
        if let Some(video) = subject.video.filter(|_| subject.ask_service) {
            return self.ask_service(&subject, video).await;
        }
        if subject.owner == Some(self.number) {
            return self.owners_put(&subject).await;
        }
        let change = self.choose(&subject);
        self.prepare_bytes(&subject, &change).await;
        let seen = subject.seen.as_ref();
        let expected = seen.map(|seen| seen.version).filter(|_| self.rng.random_bool(0.4));
        let known = seen.cloned().filter(|_| self.rng.random_bool(0.3));
        self.wish(&subject.chunk, &subject.initial, change, expected, known)
            .await;
    }

    /// One proposal, recorded.
    pub async fn wish(
        &mut self,
        chunk: &ChunkId,
        initial: &[NodeRef],
        change: Change,
        expected: Option<u64>,
        known: Option<Placement>,
    ) -> Option<Answer> {
        let process = ProcessUuid::random();
        let mut proposer = Proposer::new(process, initial.to_vec(), change.clone());
        if let Some(version) = expected {
            proposer = proposer.expecting(version);
        }
        if let Some(known) = known {
            proposer = proposer.knowing(known);
        }
        let urls: NodeUrls = self
            .holders
            .iter()
            .map(|holder| (holder.node.uuid, holder.url.clone()))
            .collect();
        let invoked = self.recorder.now();
        let outcome = propose(&self.calls, &urls, chunk, proposer, CALL_DEADLINE).await;
        let answer = outcome.ok().map(Answer::from);
        let call = Call {
            process: self.number,
            operation: Operation::Wish { change, expected },
            invoked,
            answered: answer.clone().map(|answer| (self.recorder.now(), answer)),
        };
        self.recorder.ended(chunk, process, call);
        match &answer {
            Some(answer) => self.board.learn(chunk, answer),
            None => self.mend(chunk).await,
        }
        answer
    }

    /// Puts bytes on nodes and asks the metadata service to have them decided.
    async fn ask_service(&mut self, subject: &Subject, video: VideoId) {
        let bytes = content(&subject.chunk, self.rng.random_range(0..CONTENTS));
        let placement = first_version(subject, &bytes);
        let some = if self.rng.random_bool(0.5) { 3 } else { 1 };
        let nodes = subject.initial.iter().take(some);
        let put = nodes.map(|node| (*node, bytes.clone())).collect();
        self.bring(&subject.chunk, put).await;
        let change = Change::Create {
            size: placement.size,
            sha256: placement.sha256,
        };
        let invoked = self.recorder.now();
        let commit = self.script.commit(subject, video, &placement);
        let outcome = timeout(CALL_DEADLINE, commit).await.unwrap_or(Outcome::Unknown);
        let (operation, answer) = match outcome {
            Outcome::Answered(answer) => {
                let expected = None;
                (Operation::Wish { change, expected }, Some(answer))
            }
            Outcome::Unknown => (Operation::Attempt { change, placement }, None),
            Outcome::NothingProposed => return,
        };
        let call = Call {
            process: FOR_SERVICE + self.number,
            operation,
            invoked,
            answered: answer.clone().map(|answer| (self.recorder.now(), answer)),
        };
        self.recorder.ended(&subject.chunk, ProcessUuid::random(), call);
        if let Some(answer) = &answer {
            self.board.learn(&subject.chunk, answer);
        }
    }

    /// Round 0: the bytes with the vote, to all initial nodes at once.
    async fn owners_put(&mut self, subject: &Subject) {
        let process = ProcessUuid::random();
        let bytes = content(&subject.chunk, CONTENTS - 1);
        let placement = first_version(subject, &bytes);
        let ballot = Ballot::zero(process);
        let invoked = self.recorder.now();
        let answer = self.round_0(subject, ballot, &placement, &bytes).await;
        let call = Call {
            process: self.number,
            operation: Operation::OwnersPut { placement },
            invoked,
            answered: answer.clone().map(|answer| (self.recorder.now(), answer)),
        };
        self.recorder.ended(&subject.chunk, process, call);
        if let Some(answer) = &answer {
            self.board.learn(&subject.chunk, answer);
        }
    }

    /// None when too few nodes answered to tell.
    async fn round_0(&self, subject: &Subject, ballot: Ballot, placement: &Placement, bytes: &Bytes) -> Option<Answer> {
        let request = Request::Put0 {
            ballot,
            placement: placement.clone(),
        };
        let mut puts = JoinSet::new();
        for node in &subject.initial {
            let (calls, holder, chunk) = (self.calls.clone(), self.holder(*node), subject.chunk.clone());
            let (request, bytes) = (request.clone(), bytes.clone());
            puts.spawn(async move { calls.put_vote(&holder, &chunk, &request, bytes).await.ok() });
        }
        let (mut votes, mut refusals) = (0, 0);
        let counted = async {
            while let Some(reply) = puts.join_next().await {
                match reply.ok().flatten() {
                    Some(Reply::Accepted { .. }) => votes += 1,
                    // From then on that node takes no vote of round 0.
                    Some(Reply::Nack { .. }) => refusals += 1,
                    _ => {}
                }
                if votes > subject.initial.len() / 2 {
                    break;
                }
            }
        };
        let _silence_is_no_vote = timeout(CALL_DEADLINE, counted).await;
        // The third copy is still wanted.
        puts.detach_all();
        if votes > subject.initial.len() / 2 {
            return Some(Answer::Decided(placement.clone()));
        }
        (refusals == subject.initial.len()).then_some(Answer::Shut)
    }

    fn holder(&self, node: NodeRef) -> Holder {
        let found = self.holders.iter().find(|holder| holder.node == node);
        found.expect("every node has a way to it").clone()
    }

    /// What makes sense now, mostly, and sometimes what does not.
    fn choose(&mut self, subject: &Subject) -> Change {
        let create = |rng: &mut StdRng| {
            let bytes = content(&subject.chunk, rng.random_range(0..CONTENTS));
            Change::Create {
                size: bytes.len() as u64,
                sha256: Digest::of(&bytes),
            }
        };
        let kind = self.rng.random_range(0..100);
        let Some(seen) = &subject.seen else {
            return match kind {
                0..60 => create(&mut self.rng),
                60..85 => Change::Read,
                85..90 => Change::Abort,
                90..95 => Change::Delete,
                _ => Change::Settle,
            };
        };
        if seen.layout.is_deleted() {
            return match kind {
                0..50 => Change::Read,
                50..80 => create(&mut self.rng),
                _ => Change::Delete,
            };
        }
        if subject.video.is_some() {
            return match kind {
                0..50 => Change::Read,
                50..60 => Change::Abort,
                60..68 => Change::Delete,
                _ => create(&mut self.rng),
            };
        }
        if seen.prev.is_none() {
            return match kind {
                0..50 => Change::Move {
                    to: self.layout(subject, seen),
                },
                50..78 => Change::Read,
                78..83 => Change::Delete,
                83..88 => Change::Abort,
                88..92 => Change::TurnBack,
                92..96 => Change::Settle,
                _ => create(&mut self.rng),
            };
        }
        match kind {
            0..50 => Change::Settle,
            50..65 => Change::TurnBack,
            65..85 => Change::Read,
            85..90 => Change::Move {
                to: self.layout(subject, seen),
            },
            90..95 => Change::Delete,
            _ => create(&mut self.rng),
        }
    }

    /// Somewhere else, as replicas or, one time in four, as two data shards and their parity.
    fn layout(&mut self, subject: &Subject, of: &Placement) -> Layout {
        let mut nodes: Vec<NodeRef> = self.holders.iter().map(|holder| holder.node).collect();
        nodes.shuffle(&mut self.rng);
        let shards = with_digest(&subject.chunk, of.sha256).map(|bytes| shards(&bytes));
        match shards {
            Some(shards) if self.rng.random_bool(0.25) && nodes.len() >= shards.len() => Layout::Coded {
                data: 2,
                parity: 1,
                shards: (0..)
                    .zip(shards)
                    .zip(nodes)
                    .map(|((index, bytes), node)| Shard {
                        index,
                        node,
                        sha256: Digest::of(&bytes),
                    })
                    .collect(),
            },
            _ => {
                nodes.truncate(self.rng.random_range(2..=3));
                Layout::Replicated { nodes }
            }
        }
    }

    /// Brings bytes to who is going to need them: always for what no node could fetch from another, otherwise
    /// sometimes, so that the nodes copy the rest among themselves.
    async fn prepare_bytes(&mut self, subject: &Subject, change: &Change) {
        let needed: Vec<(NodeRef, Bytes)> = match change {
            Change::Create { sha256, .. } => {
                let bytes = with_digest(&subject.chunk, *sha256).expect("one of the contents");
                let some = if self.rng.random_bool(0.3) { 3 } else { 1 };
                let nodes = subject.initial.iter().take(some);
                nodes.map(|node| (*node, bytes.clone())).collect()
            }
            Change::Move {
                to: Layout::Replicated { .. },
            } if self.rng.random_bool(0.75) => return,
            Change::Move { to } => {
                let Some(bytes) = subject
                    .seen
                    .as_ref()
                    .and_then(|seen| with_digest(&subject.chunk, seen.sha256))
                else {
                    return;
                };
                items(to, &bytes)
            }
            _ => return,
        };
        self.bring(&subject.chunk, needed).await;
    }

    /// Makes and brings the items that no node can fetch from another: shards, and the chunk where there are only
    /// shards. A node that has the chunk is to make its own shards, as the protocol says; nodes have no code for that
    /// yet, and an undecided move to shards stands still until somebody does it for them.
    async fn mend(&self, chunk: &ChunkId) {
        for placement in self.recorder.newest_sent(chunk) {
            let mut halves = std::iter::once(&placement.layout).chain(&placement.prev);
            let coded = halves.any(|layout| matches!(layout, Layout::Coded { .. }));
            if let Some(bytes) = with_digest(chunk, placement.sha256).filter(|_| coded) {
                self.bring(chunk, items(&placement.layout, &bytes)).await;
            }
        }
    }

    async fn bring(&self, chunk: &ChunkId, needed: Vec<(NodeRef, Bytes)>) {
        let mut puts = JoinSet::new();
        for (node, bytes) in needed {
            let (calls, holder, chunk) = (self.calls.clone(), self.holder(node), chunk.clone());
            puts.spawn(async move { calls.put_item(&holder, &chunk, Digest::of(&bytes), bytes).await });
        }
        // Whom they do not reach lacks them: that is part of the game.
        let _reached = timeout(Duration::from_millis(500), puts.join_all()).await;
    }
}

/// The first version with these bytes.
fn first_version(subject: &Subject, bytes: &Bytes) -> Placement {
    Placement {
        version: 1,
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
        layout: Layout::Replicated {
            nodes: subject.initial.clone(),
        },
        prev: None,
        back: false,
    }
}

//! One chunk: the bytes and the owner's vote to all its nodes at once, until a majority has both.
//!
//! Three nodes: three requests and three answers up to the decision. A node that does not answer is asked again while
//! the chunk is open, because the owner may repeat its vote, and never waited for once the chunk is decided. When round
//! 0 can no longer decide, the classic path does.
//!
//! A chunk that is coded from the start takes more: shards on so many nodes that any one of them may be lost, and a second
//! decision that says so. Before it, nobody is told that the chunk is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vstack_api::metadata::ChunkPlace;
use vstack_chunkpaxos::{Ballot, Reply, Request, Vote};
use vstack_client::{ClientError, Holder, NodeClient};
use vstack_erasure::Shape;
use vstack_service::commit_costs::CommitPath;
use vstack_types::{ChunkId, Digest, NodeUuid};

use crate::{
    app::SharedApp,
    completer::{MissingChunk, MissingCopy},
    failure::{UploadFailure, chain},
    parcel::Parcel,
    proposing::{classic, settle},
    session::{self, Session},
    spent::Spent,
    tally::{Outcome, Stand, Tally, outcome_of},
};

/// A chunk without a majority by then fails its upload.
const COMMIT_DEADLINE: Duration = Duration::from_secs(60);
/// A node has this long for a chunk.
pub const PUT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests under way are waited for when a chunk finds no majority.
const DRAIN_WAIT: Duration = Duration::from_secs(3);
/// First and last wait before a node is asked again.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LAST: Duration = Duration::from_secs(2);
/// A copy that is not there so long after the decision counts as missing.
const MISSING_AFTER: Duration = Duration::from_secs(1);
/// How long late answers are waited for after that, before the copy is made by a pull.
const STRAGGLER_WAIT: Duration = Duration::from_secs(10);

/// A chunk to be stored.
#[derive(Debug, Clone)]
pub struct Piece {
    pub chunk: ChunkId,
    pub bytes: Bytes,
    pub sha256: Digest,
    /// None for the init segment.
    pub place: Option<ChunkPlace>,
    /// It is stored as shards of this code; none for copies.
    pub coded: Option<Shape>,
    /// Its group is smaller than it should be.
    pub thin: bool,
}

/// What commits of one upload share.
#[derive(Debug)]
pub struct Commits {
    pub app: SharedApp,
    pub session: Arc<Session>,
    /// Bounds the late answers waited for by the bytes held for them; a permit a byte.
    pub stragglers: Arc<Semaphore>,
    /// The tasks that wait for them.
    pub waiting: TaskTracker,
    /// Cancelled when there is no more time to wait for them.
    pub hurry: CancellationToken,
    pub laggards: Laggards,
    /// Nodes that failed a request; when it is full, enough is known.
    pub suspects: mpsc::Sender<NodeUuid>,
}

/// Nodes with a copy that counts as missing. Nobody waits for them; for others that are a little late, a commit waits
/// until there is room to, which slows an upload down to the pace of its slowest healthy node.
#[derive(Debug, Default)]
pub struct Laggards(Mutex<BTreeSet<NodeUuid>>);

impl Laggards {
    fn set(&self) -> MutexGuard<'_, BTreeSet<NodeUuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_late(&self, nodes: &[Holder]) {
        self.set().extend(nodes.iter().map(|holder| holder.node.uuid));
    }

    fn note_answer(&self, node: NodeUuid) {
        self.set().remove(&node);
    }

    fn are_all(&self, nodes: &[Holder]) -> bool {
        let set = self.set();
        nodes.iter().all(|holder| set.contains(&holder.node.uuid))
    }
}

type Answer = Result<Reply, PutFailure>;

#[derive(Debug)]
enum PutFailure {
    Client(ClientError),
    Late,
}

impl PutFailure {
    /// Another try does not help: a full disk (507) is final too, because nothing makes room within a minute.
    fn is_final(&self) -> bool {
        match self {
            Self::Late => false,
            // Whoever answered without proof may not be the node: the node itself is silent.
            Self::Client(ClientError::Unauthentic { .. }) => false,
            Self::Client(error) => !error.is_transient(),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Client(error) => chain(error),
            Self::Late => format!("no answer within {} s", PUT_TIMEOUT.as_secs()),
        }
    }
}

struct Round0<'a> {
    commits: &'a Commits,
    piece: &'a Piece,
    group: &'a [Holder],
    parcel: Parcel,
    request: Arc<Request>,
    tally: Tally,
    tries: BTreeMap<NodeUuid, u32>,
    words: BTreeMap<NodeUuid, String>,
    puts: JoinSet<(Holder, Answer)>,
    spent: Arc<Spent>,
}

/// Stores `piece` on `group`; returns when it is decided.
///
/// # Errors
/// When no majority could be had.
pub async fn commit(commits: &Arc<Commits>, piece: Piece, group: Arc<Vec<Holder>>) -> Result<Vote, UploadFailure> {
    let (bytes, sha256) = (piece.bytes.clone(), piece.sha256);
    let parcel = match piece.coded {
        Some(shape) => Parcel::shards(bytes, sha256, shape, &group)
            .await
            .map_err(UploadFailure::Coding)?,
        None => Parcel::copies(bytes, sha256, &group),
    };
    let placement = parcel.placement.clone();
    let ballot = Ballot::zero(commits.app.owner);
    let mut round = Round0 {
        commits,
        piece: &piece,
        group: &group,
        parcel,
        request: Arc::new(Request::Put0 {
            ballot,
            placement: placement.clone(),
        }),
        tally: Tally::new(ballot, placement.clone()),
        tries: BTreeMap::new(),
        words: BTreeMap::new(),
        puts: JoinSet::new(),
        spent: Arc::default(),
    };
    group.iter().for_each(|holder| round.put(holder.clone()));
    let (vote, accepted) = match round.run().await {
        Outcome::Decided if piece.coded.is_some() => {
            round.linger().await;
            let accepted = round.tally.nodes(Stand::Accepted);
            let round_trips = round.spent.round_trips(accepted.iter().map(|node| node.uuid));
            round.spent.bill(&commits.app.costs, CommitPath::Classic, round_trips);
            let vote = if vstack_types::planted!("a coded first version is told before it is settled") {
                Vote { ballot, placement }
            } else {
                settle(commits, &piece, &group, placement).await?
            };
            (vote, accepted)
        }
        Outcome::Decided => {
            let accepted = round.tally.nodes(Stand::Accepted);
            let round_trips = round.spent.round_trips(accepted.iter().map(|node| node.uuid));
            round.spent.bill(&commits.app.costs, CommitPath::Fast, round_trips);
            commits.app.costs.decided(CommitPath::Fast);
            (Vote { ballot, placement }, accepted)
        }
        Outcome::Classic => {
            let asked = group.iter().map(|holder| holder.node.uuid);
            let round_trips = round.spent.round_trips(asked);
            round.spent.bill(&commits.app.costs, CommitPath::Classic, round_trips);
            let vote = classic(commits, &piece, &group).await?;
            // Who of them has the bytes is not known here; a pull where they are already costs nothing.
            (vote, Vec::new())
        }
        Outcome::Open | Outcome::Impossible => {
            // A vote that lands after the failure was told is one more chunk to collect.
            let drain = async { while round.puts.join_next().await.is_some() {} };
            let _rest_is_aborted = timeout(DRAIN_WAIT, drain).await;
            let reason = round.words.into_values().collect::<Vec<_>>().join("; ");
            return Err(UploadFailure::NoMajority {
                chunk: piece.chunk.clone(),
                nodes: group.len(),
                reason,
            });
        }
    };
    let late: Vec<_> = group
        .iter()
        .filter(|holder| !accepted.contains(&holder.node))
        .cloned()
        .collect();
    let (puts, spent) = (round.puts, round.spent);
    if piece.thin {
        commits.session.change(session::Change::Thin);
    }
    if !late.is_empty() {
        let copies = LateCopies {
            commits,
            chunk: piece.chunk,
            vote: vote.clone(),
            group: &group,
            thin: piece.thin,
            bytes: piece.bytes.len(),
            spent,
        };
        complete_later(copies, late, puts).await;
    }
    Ok(vote)
}

impl Round0<'_> {
    async fn run(&mut self) -> Outcome {
        let deadline = Instant::now() + COMMIT_DEADLINE;
        loop {
            let outcome = self.tally.outcome();
            if outcome != Outcome::Open {
                return outcome;
            }
            match timeout_at(deadline, self.puts.join_next()).await {
                Ok(Some(Ok((holder, answer)))) => self.on_answer(holder, answer),
                Ok(Some(Err(error))) => tracing::error!(%error, "sending a chunk ended badly"),
                Ok(None) | Err(_) => return outcome,
            }
        }
    }

    /// Takes the votes of those who are a little late: settling promises their votes away, and their shards would have to
    /// be made anew.
    async fn linger(&mut self) {
        let until = Instant::now() + MISSING_AFTER;
        loop {
            let open = self.tally.nodes(Stand::Open);
            let late = self.group.iter().filter(|holder| open.contains(&holder.node));
            let late: Vec<Holder> = late.cloned().collect();
            if self.commits.laggards.are_all(&late) {
                return;
            }
            match timeout_at(until, self.puts.join_next()).await {
                Ok(Some(Ok((holder, answer)))) => self.on_answer(holder, answer),
                Ok(Some(Err(error))) => tracing::error!(%error, "sending a chunk ended badly"),
                Ok(None) => return,
                Err(_elapsed) => return self.commits.laggards.note_late(&late),
            }
        }
    }

    fn on_answer(&mut self, holder: Holder, answer: Answer) {
        match answer {
            Ok(reply) => {
                self.tally.on_reply(holder.node, &reply);
                // Whatever it says, it is waited for again.
                self.commits.laggards.note_answer(holder.node.uuid);
                if self.tally.stand(holder.node) != Some(Stand::Accepted) {
                    self.words
                        .insert(holder.node.uuid, format!("{} answered {reply:?}", holder.url));
                }
            }
            Err(failure) => {
                let _when_full_enough_is_known = self.commits.suspects.try_send(holder.node.uuid);
                tracing::debug!(chunk = %self.piece.chunk, url = holder.url, reason = failure.words(), "a node failed a chunk");
                self.words.insert(holder.node.uuid, failure.words());
                if vstack_types::planted!("a vote without an answer counts") {
                    let ballot = Ballot::zero(self.commits.app.owner);
                    self.tally.on_reply(holder.node, &Reply::Accepted { ballot });
                }
                if failure.is_final() {
                    self.tally.on_refusal(holder.node);
                }
            }
        }
        if self.tally.stand(holder.node) == Some(Stand::Open) {
            self.put(holder);
        }
    }

    fn put(&mut self, holder: Holder) {
        let tries = self.tries.entry(holder.node.uuid).or_default();
        let wait = match *tries {
            0 => Duration::ZERO,
            tries => AGAIN_FIRST.saturating_mul(1 << tries.min(10)).min(AGAIN_LAST),
        };
        let repeated = *tries > 0;
        *tries += 1;
        let nodes = self.commits.app.nodes.clone();
        let (chunk, items, request) = (
            self.piece.chunk.clone(),
            self.parcel.items_of(holder.node),
            Arc::clone(&self.request),
        );
        let spent = Arc::clone(&self.spent);
        self.puts.spawn(async move {
            sleep(wait).await;
            let put = async {
                if repeated && let Some(reply) = reread(&nodes, &holder, &chunk, &request, &spent).await? {
                    return Ok(reply);
                }
                send(&nodes, &holder, (&chunk, &request), items, &spent).await
            };
            let answer = match timeout(PUT_TIMEOUT, put).await {
                Ok(answer) => answer.map_err(PutFailure::Client),
                Err(_elapsed) => Err(PutFailure::Late),
            };
            (holder, answer)
        });
    }
}

/// Sends what is a node's, the vote with the last of it: most nodes get one item.
async fn send(
    nodes: &NodeClient,
    to: &Holder,
    (chunk, request): (&ChunkId, &Request),
    mut items: Vec<(Digest, Bytes)>,
    spent: &Spent,
) -> Result<Reply, ClientError> {
    let Some((_, last)) = items.pop() else {
        // The placement does not name it.
        return Ok(Reply::WrongNode);
    };
    for (sha256, bytes) in items {
        spent.sent(to.node.uuid);
        let put = nodes.put_item(to, chunk, sha256, bytes).await;
        spent.heard(put.as_ref().map(|()| &Reply::Noted));
        put?;
    }
    spent.sent(to.node.uuid);
    let answer = nodes.put_vote(to, chunk, request, last).await;
    spent.heard(answer.as_ref());
    answer
}

/// What a vote sent before has come to, at the cost of no body; none when it has to be sent again.
async fn reread(
    nodes: &NodeClient,
    holder: &Holder,
    chunk: &ChunkId,
    request: &Request,
    spent: &Spent,
) -> Result<Option<Reply>, ClientError> {
    let Request::Put0 { ballot, placement } = request else {
        return Ok(None);
    };
    spent.sent(holder.node.uuid);
    let state = nodes.paxos(holder, chunk, &Request::Read).await;
    spent.heard(state.as_ref());
    Ok(outcome_of(*ballot, placement, state?))
}

struct LateCopies<'a> {
    commits: &'a Arc<Commits>,
    chunk: ChunkId,
    vote: Vote,
    group: &'a Arc<Vec<Holder>>,
    thin: bool,
    bytes: usize,
    spent: Arc<Spent>,
}

/// Sees to the copies of `late`: by the requests under way when there is room to wait for them, else by pulls.
async fn complete_later(copies: LateCopies<'_>, late: Vec<Holder>, mut puts: JoinSet<(Holder, Answer)>) {
    let LateCopies {
        commits,
        chunk,
        vote,
        group,
        thin,
        bytes,
        spent,
    } = copies;
    let (group, app, session) = (
        Arc::clone(group),
        Arc::clone(&commits.app),
        Arc::clone(&commits.session),
    );
    let put_off = async move |late: Vec<Holder>, missing: Option<Arc<MissingChunk>>| {
        if late.is_empty() {
            return;
        }
        let missing = missing.unwrap_or_else(|| MissingChunk::new(session, thin));
        for to in late {
            let from = group.iter().filter(|holder| **holder != to).cloned().collect();
            let (chunk, vote, missing) = (chunk.clone(), vote.clone(), Arc::clone(&missing));
            let copy = MissingCopy {
                to,
                chunk,
                vote,
                from,
                missing,
            };
            app.completer.add(copy).await;
        }
    };
    let room = Arc::clone(&commits.stragglers);
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let permit = if commits.laggards.are_all(&late) {
        room.try_acquire_many_owned(bytes).ok()
    } else {
        timeout(MISSING_AFTER, room.acquire_many_owned(bytes))
            .await
            .ok()
            .and_then(Result::ok)
    };
    let Some(permit) = permit else {
        commits.laggards.note_late(&late);
        return put_off(late, None).await;
    };
    let commits = Arc::clone(commits);
    commits.waiting.clone().spawn(async move {
        let mut late = late;
        let patience = Instant::now() + MISSING_AFTER;
        let mut missing = None;
        tokio::select! {
            biased;
            () = late_answers(&commits, &mut late, &mut puts, patience) => {}
            () = commits.hurry.cancelled() => {}
        }
        if !late.is_empty() && !puts.is_empty() {
            commits.laggards.note_late(&late);
            missing = Some(MissingChunk::new(Arc::clone(&commits.session), thin));
            tokio::select! {
                biased;
                () = late_answers(&commits, &mut late, &mut puts, patience + STRAGGLER_WAIT) => {}
                () = commits.hurry.cancelled() => {}
            }
        }
        drop((puts, permit));
        spent.bill(&commits.app.costs, CommitPath::Fast, 0);
        put_off(late, missing).await;
    });
}

/// Takes those who accept out of `late`, until nobody is late, nothing is under way, or `deadline`.
async fn late_answers(
    commits: &Commits,
    late: &mut Vec<Holder>,
    puts: &mut JoinSet<(Holder, Answer)>,
    deadline: Instant,
) {
    while !late.is_empty()
        && let Ok(Some(answer)) = timeout_at(deadline, puts.join_next()).await
    {
        if let Ok((holder, Ok(Reply::Accepted { .. }))) = answer {
            commits.laggards.note_answer(holder.node.uuid);
            late.retain(|missing| *missing != holder);
        }
    }
}

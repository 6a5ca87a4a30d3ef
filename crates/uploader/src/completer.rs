//! Copies that were not made in time.
//!
//! A chunk is decided when a majority has it; the node that was down, slow or full gets its copy later, pulled from
//! those that have it, for as long as this process lives; the next one goes on from the records. No bytes are kept here.
//!
//! [`Agenda`] is pure: what is to be done, in which order, and when. A node that does not answer is left alone for a
//! growing while; a copy that a living node cannot make is given up after some tries.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use vstack_chunkpaxos::{Layout, Request, Vote};
use vstack_client::{ClientError, Holder, Make, NodeClient, NodeUrls};
use vstack_types::{ChunkId, NodeUuid};

use crate::{
    records::{CopyRecord, Records},
    session::{Change, Session},
};

/// Copies remembered. At a few hundred bytes each, some 20 MB.
const COPIES_MAX: usize = 50_000;
/// Copies on their way to the agenda.
const INBOX_MAX: usize = 1024;
/// Refusals by a living node after which a copy is given up.
const REFUSALS_MAX: u32 = 10;
/// A node pulls a whole chunk in this time.
const PULL_TIMEOUT: Duration = Duration::from_secs(30);
/// First and last wait after a node did not answer.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_LAST: Duration = Duration::from_secs(10);

/// A chunk with fewer copies than it should have; when the last of its copies is made, the upload's count falls.
#[derive(Debug)]
pub struct MissingChunk {
    session: Arc<Session>,
    /// Its group is too small, and the status counts it for that.
    thin: bool,
    lost: AtomicBool,
}

impl MissingChunk {
    /// Counts it, unless it is counted already because its group is `thin`.
    pub fn new(session: Arc<Session>, thin: bool) -> Arc<Self> {
        session.copies_begin();
        if !thin {
            session.change(Change::CopyMissing);
        }
        Arc::new(Self {
            session,
            thin,
            lost: AtomicBool::new(false),
        })
    }
}

impl Drop for MissingChunk {
    fn drop(&mut self) {
        if !*self.lost.get_mut() {
            self.session.copies_end();
            if !self.thin {
                self.session.change(Change::CopyMade);
            }
        }
    }
}

/// A copy to be made.
#[derive(Debug, Clone)]
pub struct MissingCopy {
    /// Who lacks it.
    pub to: Holder,
    /// Of what.
    pub chunk: ChunkId,
    /// What was decided.
    pub vote: Vote,
    /// Who has it.
    pub from: Vec<Holder>,
    /// Counts the chunk.
    pub missing: Arc<MissingChunk>,
}

impl MissingCopy {
    fn give_up(&self) {
        self.missing.lost.store(true, Ordering::Relaxed);
    }
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    Made,
    /// The node did not answer.
    Silent,
    /// The node answered that it cannot.
    Refused,
}

/// Hands copies over to the task that makes them.
#[derive(Debug, Clone)]
pub struct Completer {
    inbox: mpsc::Sender<MissingCopy>,
    records: Records,
}

impl Completer {
    /// Starts the task; it ends with `shutdown`.
    pub fn start(nodes: NodeClient, records: Records, shutdown: CancellationToken) -> Self {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let done = records.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = work(nodes, done, inbox) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Self { inbox: sender, records }
    }

    /// Adds a copy, and writes it down first.
    pub async fn add(&self, copy: MissingCopy) {
        let MissingCopy {
            to,
            chunk,
            vote,
            from,
            missing,
        } = &copy;
        let record = CopyRecord::new(to.clone(), chunk.clone(), from.clone(), vote, missing.thin);
        if let Err(error) = self.records.append_copy(missing.session.id, &record).await {
            tracing::warn!(%chunk, %error, "a missing copy was not written down");
        }
        self.add_recorded(copy).await;
    }

    /// Adds a copy that is written down already. Waits while many are on their way to the agenda.
    pub async fn add_recorded(&self, copy: MissingCopy) {
        if let Err(mpsc::error::SendError(copy)) = self.inbox.send(copy).await {
            // This process stops; the next one goes on from the records.
            copy.give_up();
        }
    }
}

async fn work(nodes: NodeClient, records: Records, mut inbox: mpsc::Receiver<MissingCopy>) {
    let mut agenda = Agenda::default();
    let mut running = JoinSet::new();
    loop {
        for copy in agenda.due(Instant::now()) {
            let nodes = nodes.clone();
            running.spawn(async move {
                let tried = make(&nodes, &copy).await;
                (copy, tried)
            });
        }
        let wake = agenda.next_due().unwrap_or_else(|| Instant::now() + WAIT_LAST);
        tokio::select! {
            biased;
            copy = inbox.recv() => match copy {
                Some(copy) => agenda.add(copy),
                None => return,
            },
            Some(done) = running.join_next() => match done {
                Ok((copy, tried)) => {
                    let session = Arc::clone(&copy.missing.session);
                    agenda.done(copy, tried, Instant::now());
                    if session.has_its_copies() {
                        records.clear_copies(session.id, move || session.has_its_copies()).await;
                    }
                }
                Err(error) => tracing::error!(%error, "making a copy ended badly"),
            },
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

async fn make(nodes: &NodeClient, copy: &MissingCopy) -> Tried {
    let MissingCopy { to, chunk, vote, .. } = copy;
    let placement = &vote.placement;
    match timeout(PULL_TIMEOUT, bring(nodes, copy)).await {
        Ok(Ok(())) => {}
        Ok(Err(error @ (ClientError::Refused { .. } | ClientError::BadAnswer { .. }))) if !error.is_transient() => {
            tracing::debug!(%chunk, node = %to.node, %error, "a copy was refused");
            return Tried::Refused;
        }
        Ok(Err(error)) => {
            tracing::debug!(%chunk, node = %to.node, %error, "a copy was not made");
            return Tried::Silent;
        }
        Err(_elapsed) => return Tried::Silent,
    }
    // With the bytes there, the decision makes them part of the placement on this node too.
    let news = Request::Decided {
        ballot: vote.ballot,
        placement: placement.clone(),
    };
    match timeout(PULL_TIMEOUT, nodes.paxos(to, chunk, &news)).await {
        Ok(Ok(_noted)) => Tried::Made,
        _ => Tried::Silent,
    }
}

/// Brings what the placement assigns to the node: a copy from whoever has one, shards made of others.
async fn bring(nodes: &NodeClient, copy: &MissingCopy) -> Result<(), ClientError> {
    let MissingCopy {
        to, chunk, vote, from, ..
    } = copy;
    let placement = &vote.placement;
    let Layout::Coded { .. } = placement.layout else {
        return nodes.pull(to, chunk, placement.sha256, placement.size, from).await;
    };
    let holders = from.iter().chain([to]);
    let urls: NodeUrls = holders.map(|holder| (holder.node.uuid, holder.url.clone())).collect();
    for item in placement.items_of(&placement.layout, to.node) {
        if let Some(make) = Make::of(placement, &urls, to.node, item) {
            let made = nodes.make(to, chunk, &make).await?;
            if made.items != [item] {
                return Err(ClientError::BadAnswer {
                    url: to.url.clone(),
                    reason: "it made another shard than was wanted".to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// What is to be done for each node. One copy at a time per node.
#[derive(Debug, Default)]
struct Agenda {
    nodes: BTreeMap<NodeUuid, NodeAgenda>,
    total: usize,
}

#[derive(Debug)]
struct NodeAgenda {
    copies: VecDeque<(MissingCopy, u32)>,
    /// Refusals so far of the copy that is being made; none when none is.
    running: Option<u32>,
    silences: u32,
    not_before: Option<Instant>,
}

impl Agenda {
    fn add(&mut self, copy: MissingCopy) {
        if self.total >= COPIES_MAX {
            copy.give_up();
            return;
        }
        self.total += 1;
        let empty = || NodeAgenda {
            copies: VecDeque::new(),
            running: None,
            silences: 0,
            not_before: None,
        };
        self.nodes
            .entry(copy.to.node.uuid)
            .or_insert_with(empty)
            .copies
            .push_back((copy, 0));
    }

    /// Copies to be tried now.
    fn due(&mut self, now: Instant) -> Vec<MissingCopy> {
        let mut due = Vec::new();
        for node in self.nodes.values_mut() {
            if node.running.is_none()
                && node.not_before.is_none_or(|time| time <= now)
                && let Some((copy, refusals)) = next_wanted(&mut node.copies, &mut self.total)
            {
                node.running = Some(refusals);
                due.push(copy);
            }
        }
        due
    }

    /// When [`Agenda::due`] has something next, if nothing else happens.
    fn next_due(&self) -> Option<Instant> {
        let waiting = self
            .nodes
            .values()
            .filter(|node| node.running.is_none() && !node.copies.is_empty());
        waiting.filter_map(|node| node.not_before).min()
    }

    fn done(&mut self, copy: MissingCopy, tried: Tried, now: Instant) {
        let uuid = copy.to.node.uuid;
        let Some(node) = self.nodes.get_mut(&uuid) else { return };
        let refusals = node.running.take().unwrap_or(0);
        match tried {
            Tried::Made => {
                node.silences = 0;
                node.not_before = None;
                self.total -= 1;
            }
            Tried::Silent => {
                node.copies.push_front((copy, refusals));
                let wait = WAIT_FIRST.saturating_mul(1 << node.silences.min(10)).min(WAIT_LAST);
                node.silences += 1;
                node.not_before = Some(now + wait);
            }
            Tried::Refused if refusals + 1 >= REFUSALS_MAX => {
                copy.give_up();
                self.total -= 1;
            }
            Tried::Refused => {
                node.copies.push_back((copy, refusals + 1));
                node.not_before = Some(now + WAIT_FIRST);
            }
        }
        if self.nodes.get(&uuid).is_some_and(|node| node.copies.is_empty()) {
            self.nodes.remove(&uuid);
        }
    }
}

/// The next copy; those of uploads that failed meanwhile are dropped, or they would outlive their video.
fn next_wanted(copies: &mut VecDeque<(MissingCopy, u32)>, total: &mut usize) -> Option<(MissingCopy, u32)> {
    while let Some((copy, refusals)) = copies.pop_front() {
        if !copy.missing.session.is_failed() {
            return Some((copy, refusals));
        }
        *total -= 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use vstack_api::uploader::UploadStage;
    use vstack_chunkpaxos::{Ballot, Layout, Placement};
    use vstack_types::{Digest, NodeRef, ProcessUuid};

    use super::*;
    use crate::session::tests::status;

    fn session() -> Arc<Session> {
        Arc::new(Session::new(
            Uuid::new_v4(),
            status(UploadStage::Completed),
            CancellationToken::new(),
        ))
    }

    fn copy(node: u8, chunk: &str, missing: &Arc<MissingChunk>) -> MissingCopy {
        let node = NodeRef::first(NodeUuid::from_bytes([node; 16]));
        let layout = Layout::Replicated { nodes: vec![node] };
        let placement = Placement {
            version: 1,
            size: 1,
            sha256: Digest::of(b"x"),
            layout,
            prev: None,
            back: false,
        };
        MissingCopy {
            to: Holder {
                node,
                url: String::new(),
            },
            chunk: chunk.parse().unwrap(),
            vote: Vote {
                ballot: Ballot::zero(ProcessUuid::random()),
                placement,
            },
            from: Vec::new(),
            missing: Arc::clone(missing),
        }
    }

    fn names(copies: &[MissingCopy]) -> Vec<&str> {
        copies.iter().map(|copy| copy.chunk.as_str()).collect()
    }

    #[test]
    fn a_silent_node_is_left_alone_longer_and_longer_and_loses_nothing() {
        let session = session();
        let missing = MissingChunk::new(Arc::clone(&session), false);
        let mut agenda = Agenda::default();
        agenda.add(copy(1, "a", &missing));
        agenda.add(copy(1, "b", &missing));
        drop(missing);
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let due = agenda.due(now);
            assert_eq!(names(&due), ["a"]);
            assert_eq!(agenda.due(now).len(), 0, "one at a time");
            agenda.done(due.into_iter().next().unwrap(), Tried::Silent, now);
            let next = agenda.next_due().unwrap();
            waits.push((next - now).as_millis());
            assert!(agenda.due(now).is_empty());
            now = next;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000]);
        assert_eq!(session.status().under_replicated, 1);
        for name in ["a", "b"] {
            let due = agenda.due(now);
            assert_eq!(names(&due), [name]);
            agenda.done(due.into_iter().next().unwrap(), Tried::Made, now);
        }
        assert_eq!((agenda.total, agenda.nodes.len()), (0, 0));
        assert_eq!(session.status().under_replicated, 0);
    }

    #[test]
    fn a_copy_that_cannot_be_made_is_given_up_and_stays_counted() {
        let session = session();
        let mut agenda = Agenda::default();
        agenda.add(copy(1, "a", &MissingChunk::new(Arc::clone(&session), false)));
        let mut now = Instant::now();
        for _ in 0..REFUSALS_MAX {
            let due = agenda.due(now);
            agenda.done(due.into_iter().next().unwrap(), Tried::Refused, now);
            now += WAIT_FIRST;
        }
        assert!(agenda.due(now).is_empty() && agenda.total == 0);
        assert_eq!(session.status().under_replicated, 1);
    }

    #[test]
    fn copies_of_a_failed_upload_are_dropped() {
        let session = Arc::new(Session::new(
            Uuid::new_v4(),
            status(UploadStage::UploadingChunks),
            CancellationToken::new(),
        ));
        let mut agenda = Agenda::default();
        agenda.add(copy(1, "a", &MissingChunk::new(Arc::clone(&session), false)));
        session.change(Change::Failed("why".to_owned()));
        assert!(agenda.due(Instant::now()).is_empty());
        assert_eq!(agenda.total, 0);
    }

    #[test]
    fn nodes_do_not_wait_for_each_other() {
        let session = session();
        let missing = MissingChunk::new(session, false);
        let mut agenda = Agenda::default();
        agenda.add(copy(1, "a", &missing));
        agenda.add(copy(2, "b", &missing));
        let now = Instant::now();
        assert_eq!(agenda.due(now).len(), 2);
    }
}

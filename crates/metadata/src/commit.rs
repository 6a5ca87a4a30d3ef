//! The classic path: deciding the placement of bytes that somebody staged on nodes by plain PUT.

use std::time::Duration;

use axum::http::HeaderMap;
use futures_util::future::join_all;
use vstack_api::{
    ErrorCode, headers,
    metadata::{CommitChunk, Committed, RedundancyMode, VideoStatus},
};
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Refusal};
use vstack_client::{Holder, NodeUrls};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{
    ChunkId, NodeRef, ProcessUuid, VideoId,
    limits::{LAYOUT_NODES_MAX, VIDEO_CHUNKS_MAX},
};

use crate::{
    app::{App, no_such_video, store_error},
    consensus::{first_group, sequence_of},
    manifest::nominal_place,
    registry::{self, ByDisk},
    store::{Chunk, Group, GroupOutcome, Learned, Node, Video},
};

/// How long proposers try. A caller waits for it.
const DEADLINE: Duration = Duration::from_secs(8);
/// How long a node may take to say whether it has the bytes, or to fetch them.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
const PULL_TIMEOUT: Duration = Duration::from_secs(20);
/// That somebody is at a video is written down only so often: it is a sync, and matters once in a day.
const TOUCH_EVERY: Duration = Duration::from_secs(600);

fn conflict(detail: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Conflict, detail)
}

fn unprocessable(detail: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Unprocessable, detail)
}

fn not_now(detail: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, detail).retry_after(Duration::from_secs(2))
}

/// Whether a node has the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    Has,
    Lacks,
    Silent,
}

/// One commit under way.
struct Commit<'a> {
    app: &'a App,
    chunk: ChunkId,
    request: CommitChunk,
    nodes: Vec<Node>,
    urls: NodeUrls,
}

/// Decides where the chunk is: on the nodes of its group, then on those named if they are others.
pub(crate) async fn commit(app: &App, chunk: ChunkId, request: CommitChunk) -> ApiResult<Committed> {
    check(&chunk, &request)?;
    let video = app.video(request.video_id).await?;
    if !matches!(video.status, VideoStatus::Uploading | VideoStatus::Active) {
        return Err(conflict(format!(
            "the video is {} and takes no chunks",
            video.status.as_str()
        )));
    }
    touch(app, &video).await?;
    let nodes = app.registered().await?;
    let urls = registry::node_urls(&nodes);
    let commit = Commit {
        app,
        chunk,
        request,
        nodes,
        urls,
    };
    let named = commit.named_nodes()?;
    if let Some(placement) = commit.known().await? {
        return commit.compare(&placement, &named);
    }
    if video.owner.is_some() {
        return Err(conflict(
            "the chunks of this video come from the uploader that makes it, and from nobody else",
        ));
    }
    let group = commit.group(&named).await?;
    commit.bring_bytes(&group.members, &named).await?;
    let created = commit.create(&video, &group.members).await?;
    if named.iter().all(|node| created.layout.names(*node)) {
        return Ok(commit.committed(&created));
    }
    // The group was fixed by an earlier chunk; this one was put elsewhere and is moved there.
    let moved = commit.move_to(&video, &created, named).await;
    Ok(commit.committed(&moved.unwrap_or(created)))
}

/// Somebody is at the video, whatever comes of this commit: it is none that nobody cares for any more.
async fn touch(app: &App, video: &Video) -> ApiResult<()> {
    let now = app.now();
    let a_scripts = video.owner.is_none() && video.status == VideoStatus::Uploading;
    if a_scripts && now.since(video.touched_at) >= TOUCH_EVERY {
        app.store.touch_video(video.id, now).await.map_err(store_error)?;
    }
    Ok(())
}

fn check(chunk: &ChunkId, request: &CommitChunk) -> ApiResult<()> {
    let malformed = |detail: &str| Err(ApiError::new(ErrorCode::Malformed, detail));
    if request.node_urls.is_empty() || request.node_urls.len() > LAYOUT_NODES_MAX {
        return malformed("node_urls names 1 to 32 nodes");
    }
    if request.size_bytes == 0 {
        return malformed("size_bytes must be above 0");
    }
    if request.sequence_num as usize >= VIDEO_CHUNKS_MAX {
        return malformed("sequence_num is beyond the longest video");
    }
    if request.redundancy_mode == Some(RedundancyMode::ErasureCoding) {
        // Whether fragments give a chunk is known to who made them of it. Nodes make their own, and prove them first.
        return Err(unprocessable(format!(
            "chunks are committed as whole copies, and nodes make shards of them: leave redundancy_mode out and PUT each \
             chunk whole; ask for shards of the video with redundancy_mode in POST /video, or afterwards with \
             POST /redundancy/override/{}?mode=erasure_coding",
            request.video_id
        )));
    }
    // The first acceptors of a chunk follow from its id alone: two that differed could decide twice.
    if chunk.video() != Some(request.video_id) {
        return Err(unprocessable(format!(
            "{chunk} is no chunk of video {0}: its ids begin with {0}-, as in {1}",
            request.video_id,
            ChunkId::of_video(request.video_id, request.sequence_num)
        )));
    }
    if chunk.times_salvaged() > 0 {
        return Err(unprocessable(format!(
            "{chunk} is an id for what is salvaged; name it without -r{} at its end",
            chunk.times_salvaged()
        )));
    }
    if let Some(sequence) = sequence_of(chunk).filter(|sequence| *sequence != request.sequence_num) {
        return Err(unprocessable(format!(
            "{chunk} is chunk {sequence} of its video, not {}",
            request.sequence_num
        )));
    }
    Ok(())
}

/// Whether a node that fails says so of these bytes alone: that it cannot tell whether it had them, or that its copy is
/// damaged. It has answered then, and is none to copy them from.
fn is_about_the_bytes(answer: &HeaderMap) -> bool {
    let about = [ErrorCode::Incomplete, ErrorCode::Corrupt];
    let code = answer.get(headers::ERROR_CODE);
    code.is_some_and(|code| about.iter().any(|about| code == about.as_str()))
}

impl Commit<'_> {
    fn named_nodes(&self) -> ApiResult<Vec<NodeRef>> {
        let mut named = Vec::new();
        for url in &self.request.node_urls {
            let node = registry::by_url(&self.nodes, url)
                .ok_or_else(|| unprocessable(format!("no node is registered at {url}; see /nodes/all")))?;
            let acceptor = node.acceptor.filter(|_| node.trusted).ok_or_else(|| {
                unprocessable(format!(
                    "the node at {url} has not proved that it knows the cluster secret"
                ))
            })?;
            if !named.contains(&acceptor) {
                named.push(acceptor);
            }
        }
        Ok(named)
    }

    /// What was learned about this chunk before; refuses when it, or its place, is taken by something else.
    async fn known(&self) -> ApiResult<Option<Placement>> {
        let store = &self.app.store;
        let sequence = self.request.sequence_num;
        if let Some((video, known)) = store.chunk(self.chunk.clone()).await.map_err(store_error)? {
            if video != self.request.video_id {
                return Err(conflict(format!("{} belongs to another video", self.chunk)));
            }
            if known.place.map(|place| place.sequence_num) != Some(sequence) {
                return Err(conflict(format!("{} has another place in the video", self.chunk)));
            }
            return Ok(Some(known.placement));
        }
        let before = Some(sequence.checked_sub(1));
        let there = store
            .video_chunks(self.request.video_id, before, 1)
            .await
            .map_err(store_error)?;
        match there.first() {
            Some(other) if other.place.is_some_and(|place| place.sequence_num == sequence) => {
                Err(conflict(format!("chunk {sequence} of the video is {}", other.id)))
            }
            _ => Ok(None),
        }
    }

    /// Answers a commit of a chunk whose placement is decided.
    fn compare(&self, placement: &Placement, named: &[NodeRef]) -> ApiResult<Committed> {
        let same_bytes = placement.sha256 == self.request.checksum && placement.size == self.request.size_bytes;
        if same_bytes && named.iter().all(|node| placement.layout.names(*node)) {
            return Ok(self.committed(placement));
        }
        Err(conflict(format!(
            "another placement of {} was decided: {} bytes with checksum {} on {}",
            self.chunk,
            placement.size,
            placement.sha256.prefixed(),
            self.node_urls(placement).join(", "),
        )))
    }

    /// The chunk's group: in a video that has none yet, the nodes named.
    async fn group(&self, named: &[NodeRef]) -> ApiResult<Group> {
        let (store, video) = (&self.app.store, self.request.video_id);
        let groups = store.groups(video).await.map_err(store_error)?;
        if let Some(group) = first_group(&groups, &self.chunk) {
            return Ok(group.clone());
        }
        let first = Group {
            from_seq: 0,
            members: named.to_vec(),
        };
        match store.insert_group(video, first).await.map_err(store_error)? {
            GroupOutcome::Stands(group) => Ok(group),
            GroupOutcome::Closed(status) => Err(conflict(format!(
                "the video is {} and takes no chunks",
                status.as_str()
            ))),
            GroupOutcome::Behind | GroupOutcome::TooMany => Err(conflict("the video's groups begin after this chunk")),
            GroupOutcome::Unknown => Err(no_such_video(video)),
        }
    }

    /// Makes sure that a member of the group has the bytes, from which the proposer copies them to the others.
    async fn bring_bytes(&self, group: &[NodeRef], named: &[NodeRef]) -> ApiResult<()> {
        let mut asked = group.to_vec();
        asked.extend(named.iter().filter(|node| !group.contains(node)));
        let found: Vec<_> = asked
            .iter()
            .copied()
            .zip(join_all(asked.iter().map(|node| self.look(*node))).await)
            .collect();
        let of = |node: &NodeRef| {
            found
                .iter()
                .find(|(asked, _)| asked == node)
                .map(|(_, holding)| *holding)
        };
        let answered = group.iter().filter(|node| of(node) != Some(Holding::Silent)).count();
        if answered <= group.len() / 2 {
            return Err(not_now(format!(
                "{answered} of the {} nodes of the chunk's group answer, which is no majority; try again",
                group.len()
            )));
        }
        if group.iter().any(|node| of(node) == Some(Holding::Has)) {
            return Ok(());
        }
        let outside: Vec<Holder> = found
            .iter()
            .filter(|(_, holding)| *holding == Holding::Has)
            .filter_map(|(node, _)| self.urls.holder(*node))
            .collect();
        if outside.is_empty() {
            return Err(if found.iter().any(|(_, holding)| *holding == Holding::Silent) {
                not_now("none of the nodes that answer has the bytes, and some do not answer; try again")
            } else {
                unprocessable(format!(
                    "no node has {} bytes with checksum {} under {}; PUT them first",
                    self.request.size_bytes,
                    self.request.checksum.prefixed(),
                    self.chunk
                ))
            });
        }
        let pulls = group
            .iter()
            .filter_map(|node| self.urls.holder(*node))
            .map(|to| self.pull(to, &outside));
        if join_all(pulls).await.contains(&true) {
            Ok(())
        } else {
            Err(not_now(
                "the bytes could not be copied to the nodes of the chunk's group; try again",
            ))
        }
    }

    async fn look(&self, node: NodeRef) -> Holding {
        let Some(url) = self.urls.url(node.uuid) else {
            return Holding::Silent;
        };
        let url = format!("{url}/chunk/{}?sha256={}", self.chunk, self.request.checksum);
        let http = self.app.nodes.http();
        let look = http.transport().head(&url).timeout(LOOK_TIMEOUT);
        let answer = http.execute(&url, look).await;
        let Ok(answer) = answer else { return Holding::Silent };
        if answer.status().is_server_error() && !is_about_the_bytes(answer.headers()) {
            return Holding::Silent;
        }
        let tag = answer
            .headers()
            .get("etag")
            .and_then(|tag| tag.to_str().ok())
            .unwrap_or_default();
        let length = answer
            .headers()
            .get("x-chunk-size")
            .and_then(|size| size.to_str().ok()?.parse().ok());
        let these = tag.trim_matches('"') == self.request.checksum.to_string();
        if answer.status().is_success() && these && length == Some(self.request.size_bytes) {
            Holding::Has
        } else {
            Holding::Lacks
        }
    }

    async fn pull(&self, to: Holder, from: &[Holder]) -> bool {
        let (checksum, size) = (self.request.checksum, self.request.size_bytes);
        let pull = self.app.nodes.pull(&to, &self.chunk, checksum, size, from);
        matches!(tokio::time::timeout(PULL_TIMEOUT, pull).await, Ok(Ok(())))
    }

    async fn propose(&self, proposer: Proposer) -> ApiResult<Outcome> {
        self.app
            .propose(&self.urls, &self.chunk, proposer, DEADLINE)
            .await
            .map_err(|error| not_now(error.to_string()))
    }

    async fn create(&self, video: &Video, initial: &[NodeRef]) -> ApiResult<Placement> {
        let change = Change::Create {
            size: self.request.size_bytes,
            sha256: self.request.checksum,
        };
        let outcome = self
            .propose(Proposer::new(ProcessUuid::random(), initial.to_vec(), change))
            .await?;
        match outcome {
            Outcome::Decided(vote) => {
                self.learn(video, &vote.placement).await?;
                Ok(vote.placement)
            }
            Outcome::Refused(Refusal::Taken(placement)) => {
                self.learn(video, &placement).await?;
                Err(self
                    .compare(&placement, &[])
                    .err()
                    .unwrap_or_else(|| conflict("another placement was decided")))
            }
            Outcome::Refused(refusal) => Err(conflict(refusal.to_string())),
            Outcome::Nothing => Err(ApiError::internal("a proposal to create ended with nothing")),
        }
    }

    /// Moves the chunk to `to` and settles there; none when that did not work out, which loses nothing.
    async fn move_to(&self, video: &Video, from: &Placement, to: Vec<NodeRef>) -> Option<Placement> {
        let mut current = from.clone();
        for change in [
            Change::Move {
                to: Layout::Replicated { nodes: to },
            },
            Change::Settle,
        ] {
            let proposer = Proposer::new(ProcessUuid::random(), from.nodes(), change)
                .knowing(current.clone())
                .expecting(current.version);
            match self.propose(proposer).await {
                Ok(Outcome::Decided(vote)) => current = vote.placement,
                other => {
                    tracing::warn!(chunk = %self.chunk, outcome = ?other, "a chunk stays on its group's nodes");
                    break;
                }
            }
            self.learn(video, &current).await.ok()?;
        }
        (current.version > from.version).then_some(current)
    }

    async fn learn(&self, video: &Video, placement: &Placement) -> ApiResult<()> {
        let place = nominal_place(self.request.sequence_num, video.duration_sec);
        let chunk = Chunk {
            id: self.chunk.clone(),
            place: Some(place),
            placement: placement.clone(),
        };
        learned(self.app, video.id, vec![chunk]).await
    }

    fn node_urls(&self, placement: &Placement) -> Vec<String> {
        let by_disk = ByDisk::new(&self.nodes);
        let nodes = placement.layout.nodes();
        nodes
            .iter()
            .filter_map(|node| by_disk.get(node.uuid))
            .map(|node| node.url.clone())
            .collect()
    }

    fn committed(&self, placement: &Placement) -> Committed {
        let committed_nodes = self.node_urls(placement);
        let message = format!("{} is committed on {} nodes", self.chunk, committed_nodes.len());
        Committed {
            success: true,
            committed_nodes,
            message,
        }
    }
}

/// Writes decided placements down and tells whoever watches.
pub(crate) async fn learned(app: &App, video: VideoId, chunks: Vec<Chunk>) -> ApiResult<()> {
    match app.store.learn(video, chunks.clone()).await.map_err(store_error)? {
        Learned::Known { changed } => {
            if changed > 0 {
                chunks
                    .iter()
                    .for_each(|chunk| app.tell_placement(video, &chunk.id, &chunk.placement));
            }
            Ok(())
        }
        Learned::Closed(status) => {
            // What came too late is to go too.
            app.reap_now.notify_one();
            Err(conflict(format!(
                "the video is {} and takes no chunks",
                status.as_str()
            )))
        }
        Learned::Conflict(chunk) => Err(conflict(format!(
            "{chunk} or its place in the video is taken by something else"
        ))),
        Learned::Unknown => Err(no_such_video(video)),
    }
}

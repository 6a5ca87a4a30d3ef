//! What is left of a video, and where: asked of every trusted node, beside what was learned.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use vstack_chunkpaxos::Placement;
use vstack_client::ClientError;
use vstack_types::{ChunkId, NodeRef, VideoId, limits::VIDEO_CHUNKS_MAX};

use super::{PAGE, PAGE_TIMEOUT, PASS_BUDGET};
use crate::{
    app::App,
    consensus::first_acceptors,
    store::{Group, Node, StoreError},
};

/// Chunks of a video dealt with in one pass; the next pass takes the rest.
const PASS_CHUNKS_MAX: usize = 4_096;

/// Chunks of a video that are not known to be deleted everywhere, with what helps to find their acceptors.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) left: BTreeMap<ChunkId, Left>,
    /// Who listed its registers.
    pub(super) answered: BTreeSet<NodeRef>,
    /// Every node that is waited for answered, and there was room for everything.
    pub(super) complete: bool,
}

/// What helps to end a chunk.
#[derive(Default)]
pub(crate) struct Left {
    /// Decided, as was learned.
    pub(crate) learned: Option<Placement>,
    /// Nodes that have a register of it not known there to be deleted.
    pub(crate) seen_at: Vec<NodeRef>,
    /// Its first acceptors; none when it is no chunk that anybody here made.
    pub(crate) first: Option<Vec<NodeRef>>,
}

/// Asks the store and the nodes, each node at most half of the time a pass has.
pub(super) async fn survey(app: &App, video: VideoId, nodes: &[Node], groups: &[Group]) -> Result<Survey, StoreError> {
    let mut survey = Survey {
        complete: true,
        ..Survey::default()
    };
    let mut after = None;
    loop {
        let page = app
            .store
            .video_chunks(video, after, u32::try_from(PAGE).unwrap_or(u32::MAX))
            .await?;
        let Some(last) = page.last() else { break };
        after = Some(last.place.map(|place| place.sequence_num));
        for chunk in page.into_iter().filter(|chunk| !chunk.placement.layout.is_deleted()) {
            let left = Left {
                learned: Some(chunk.placement),
                ..Left::default()
            };
            survey.left.insert(chunk.id, left);
        }
    }
    let now = app.now();
    let trusted: Vec<_> = nodes
        .iter()
        .filter(|node| node.trusted && node.acceptor.is_some())
        .collect();
    let ask = async |node: &Node| {
        let listed = tokio::time::timeout(PASS_BUDGET / 2, registers_of(app, &node.url, video));
        listed.await.unwrap_or_else(|_elapsed| Err(silent(&node.url)))
    };
    let answers = join_all(trusted.iter().map(|node| ask(node))).await;
    for (node, answer) in trusted.into_iter().zip(answers) {
        let registers = match answer {
            Ok(registers) => registers,
            Err(error) => {
                let silence = node.last_heartbeat.map_or(Duration::MAX, |last| now.since(last));
                survey.complete &= silence > app.pace.give_up_nodes_after
                    || vstack_types::planted!("nodes that are away are not waited for");
                tracing::debug!(%video, node = node.label, %error, "a node's registers could not be listed");
                continue;
            }
        };
        survey.answered.extend(node.acceptor);
        for chunk in registers {
            survey.left.entry(chunk).or_default().seen_at.extend(node.acceptor);
        }
    }
    let mut dropped = 0;
    while survey.left.len() > PASS_CHUNKS_MAX {
        survey.left.pop_last();
        dropped += 1;
    }
    survey.complete &= dropped == 0;
    for (chunk, left) in &mut survey.left {
        if left.learned.is_none() {
            left.learned = app.store.chunk(chunk.clone()).await?.map(|(_, known)| known.placement);
        }
        left.first = first_acceptors(app, groups, chunk).await?;
    }
    Ok(survey)
}

fn silent(url: &str) -> ClientError {
    ClientError::Timeout { url: url.to_owned() }
}

/// Registers of `video` at a node that are not known there to be deleted. What a faulty node lists of other videos
/// is none of this video's: it is not ended with it.
async fn registers_of(app: &App, url: &str, video: VideoId) -> Result<Vec<ChunkId>, ClientError> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..=VIDEO_CHUNKS_MAX / PAGE {
        let page = app.nodes.registers(url, Some(video), cursor.as_deref(), PAGE);
        let page = tokio::time::timeout(PAGE_TIMEOUT, page)
            .await
            .map_err(|_elapsed| silent(url))??;
        for entry in page
            .registers
            .into_iter()
            .filter(|entry| entry.id.video() == Some(video))
        {
            // A register that was only ever asked to promise places nothing, here or elsewhere by its own doing.
            let places = !matches!(entry.layout.as_str(), "deleted" | "none");
            if places || (entry.layout == "deleted" && !entry.decided) {
                found.push(entry.id);
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
    Err(ClientError::BadAnswer {
        url: url.to_owned(),
        reason: "more registers than a video can have".to_owned(),
    })
}

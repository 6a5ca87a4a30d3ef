//! Videos that are shards from their first chunk on: in which form, and on which nodes; and what chunks that are made now
//! survive, in either form.

use std::cmp::Reverse;

use vstack_api::{
    ErrorCode,
    metadata::{CodedForm, RedundancyMode},
};
use vstack_placement::{
    Candidate, MembersRequest, ShardsRequest, Takers, TooFewNodes, choose_members, choose_shards, losses_survivable,
    losses_survived,
};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{NodeRef, NodeUuid, VideoId};

use crate::{app::App, settings::Settings, store::Video};

/// The form that the settings name.
fn form(settings: &Settings) -> CodedForm {
    CodedForm {
        data_shards: settings.erasure_data_shards,
        parity_shards: settings.erasure_parity_shards,
        chunk_bytes_min: settings.erasure_min_bytes.into(),
    }
}

fn shards_of(form: CodedForm) -> usize {
    usize::from(form.data_shards) + usize::from(form.parity_shards)
}

/// The form in which the chunks of `video` are to be sent to so many nodes; none for copies: where the loss of one of them
/// would be too much, shards could not be settled. They are made of the copies once there are nodes enough.
pub(crate) fn form_on(app: &App, video: &Video, members: usize) -> Option<CodedForm> {
    let form = form(&app.settings);
    let is_asked = video.override_mode == Some(RedundancyMode::ErasureCoding);
    let survived = losses_survivable(members, form.data_shards.into(), shards_of(form));
    // All members are a chunk's first acceptors: each has to have a shard of it.
    (is_asked && survived > 0 && members <= shards_of(form)).then_some(form)
}

/// The nodes of the chunks of a video that is to be coded: as many as there are shards, where there are; all of them up,
/// because hardly any may be missed when a chunk is settled.
///
/// # Errors
/// When there are too few for the loss of one to be survived.
pub(crate) fn members(
    app: &App,
    candidates: &[Candidate],
    video: VideoId,
    avoid: &[NodeUuid],
) -> Result<Vec<NodeRef>, TooFewNodes> {
    let avoided = candidates
        .iter()
        .filter(|candidate| avoid.contains(&candidate.node.uuid));
    let gone: Vec<NodeRef> = avoided.map(|candidate| candidate.node).collect();
    let places = places(&app.settings, candidates, video, &gone)?;
    let mut members: Vec<NodeRef> = Vec::with_capacity(places.len());
    for place in &places {
        if !members.contains(place) {
            members.push(*place);
        }
    }
    // Shards go to them in turns: those that are to have more of them come first.
    members.sort_by_key(|member| Reverse(places.iter().filter(|place| *place == member).count()));
    Ok(members)
}

/// Where the shards of a chunk are put that is made now, by their index.
fn places(
    settings: &Settings,
    candidates: &[Candidate],
    video: VideoId,
    gone: &[NodeRef],
) -> Result<Vec<NodeRef>, TooFewNodes> {
    let form = form(settings);
    let request = ShardsRequest {
        video,
        data: form.data_shards.into(),
        current: &vec![None; shards_of(form)],
        gone,
    };
    choose_shards(candidates, request)
}

/// What becomes of the chunks of a video that are made anew now, in either form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prospect {
    /// Nodes that can be given any.
    pub(crate) takers: Takers,
    /// Copies of each.
    pub(crate) copies: usize,
    /// Losses of nodes that shards survive; or why there can be none.
    pub(crate) shards: Result<usize, TooFewNodes>,
}

/// By the nodes there are, each as placement sees it now.
pub(crate) async fn prospect(app: &App, video: VideoId) -> ApiResult<Prospect> {
    let candidates = app.candidates(&app.registered().await?);
    let copies = MembersRequest {
        video,
        copies: app.settings.replication_factor,
        current: &[],
        gone: &[],
    };
    let shards = places(&app.settings, &candidates, video, &[]);
    let needed = usize::from(app.settings.erasure_data_shards);
    Ok(Prospect {
        takers: Takers::of(&candidates, &[]),
        copies: choose_members(&candidates, copies).len(),
        shards: shards.map(|places| losses_survived(&places, needed)),
    })
}

/// Of whichever video: on which nodes its chunks are depends on the video, and how many losses they survive does not.
pub(crate) const ANY: VideoId = VideoId::from_bytes([0; 16]);

/// Why shards are not asked for where the loss of a single node would be too much.
pub(crate) fn refusal(too_few: TooFewNodes) -> ApiError {
    let TooFewNodes { needed, takers, .. } = too_few;
    let detail = format!("erasure coding needs {needed} nodes to survive the loss of one; {takers}");
    ApiError::new(ErrorCode::Unprocessable, detail)
}

/// Refuses to code where the loss of a single node would be too much.
pub(crate) async fn check_nodes(app: &App) -> ApiResult<()> {
    let survived = prospect(app, ANY).await?.shards;
    survived.map(|_losses| ()).map_err(refusal)
}

//! Asking the metadata service for the nodes of chunks.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vstack_api::{
    ErrorCode,
    metadata::{Group, RequestGroup},
};
use vstack_client::Holder;
use vstack_types::NodeUuid;

use crate::{
    app::SharedApp,
    failure::UploadFailure,
    groups::{Failed, GroupKeeper, Named, failed},
    news::{AWAY_MAX, persist},
    session::Session,
};

/// How long the metadata service may be away when an upload begins.
const FIRST_AWAY_MAX: Duration = Duration::from_secs(60);
/// First and last wait before a request is repeated.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LAST: Duration = Duration::from_secs(2);

fn named(group: Group) -> Named {
    let holder = |member: vstack_api::metadata::GroupMember| Holder {
        node: member.node,
        url: member.url,
    };
    Named {
        holders: group.members.into_iter().map(holder).collect(),
        form: group.coded,
    }
}

/// The nodes of the first chunk and of the init segment.
///
/// # Errors
/// When the metadata service names none.
pub async fn first_group(app: &SharedApp, session: &Session) -> Result<GroupKeeper, UploadFailure> {
    let request = RequestGroup {
        owner: app.owner,
        from_seq: 0,
        avoid: Vec::new(),
    };
    let ask = || app.metadata.request_group(session.video, &request);
    let first = persist(FIRST_AWAY_MAX, "named no nodes to store the video on", ask)
        .await
        .map(named)?;
    // Not worth an upload: without it, the first group is the measure of the others.
    let copies = app.metadata.redundancy_config().await;
    Ok(GroupKeeper::new(
        first,
        copies.map_or(0, |config| config.replication_factor),
    ))
}

/// The nodes of the chunks from `from_seq` on, and whom they avoid: `avoid`, where others can be had. None when the old
/// group stays. Returns only when it is known which of the two it is.
///
/// Whatever is asked for at first, the group that stands for `from_seq` is the one that was made first. So a service
/// that cannot name one is asked for less: without anybody to avoid, it can when a majority of all nodes is up.
///
/// # Errors
/// When that cannot be found out for as long as an upload waits for the metadata service.
pub async fn new_group(
    app: &SharedApp,
    session: &Session,
    from_seq: u32,
    avoid: Vec<NodeUuid>,
) -> Result<Option<(Vec<NodeUuid>, Named)>, UploadFailure> {
    let mut request = RequestGroup {
        owner: app.owner,
        from_seq,
        avoid,
    };
    let deadline = Instant::now() + AWAY_MAX;
    let (mut repeated, mut wait) = (false, AGAIN_FIRST);
    loop {
        let source = match app.metadata.request_group(session.video, &request).await {
            Ok(group) => return Ok(Some((request.avoid, named(group)))),
            Err(error) => error,
        };
        let refused = failed(&source, repeated) == Failed::Refused;
        if (refused && !repeated) || vstack_types::planted!("a group that may stand is not asked for again") {
            tracing::debug!(error = %source, "no new group; the old one stays");
            return Ok(None);
        }
        // The video is not open any more, and one of the requests before this may have made a group.
        if refused {
            let what = "does not say which nodes the next chunks are for";
            return Err(UploadFailure::Metadata { what, source });
        }
        if Instant::now() >= deadline {
            let what = "did not say which nodes the next chunks are for";
            return Err(UploadFailure::Metadata { what, source });
        }
        tracing::debug!(error = %source, from_seq, "a group may have been made; asking again");
        repeated = true;
        if source.code() == Some(ErrorCode::Unavailable) {
            request.avoid.clear();
        }
        sleep(wait).await;
        wait = (wait * 2).min(AGAIN_LAST);
    }
}

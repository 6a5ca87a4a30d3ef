//! Takes nodes out that are to go: emptied first, then sealed, then forgotten. Each step is looked for anew with every
//! count, so it goes on wherever it was left.

use std::collections::BTreeSet;

use vstack_api::metadata::{NodeRole, VideoStatus};
use vstack_client::NodeUrls;
use vstack_types::NodeRef;

use crate::{
    app::App,
    store::{Node, Sort, SortKey, StoreError, VideoQuery},
};

/// Uploads looked at for a group that names a node that goes. While there are more, it stays.
const UPLOADS_MAX: u32 = 1_000;

/// What a count found.
pub(super) struct Found<'a> {
    /// Every node that some placement names.
    pub(super) named: &'a BTreeSet<NodeRef>,
    /// Everything the store knows was in it.
    pub(super) caught_up: bool,
    /// Nodes that are up.
    pub(super) answering: &'a BTreeSet<NodeRef>,
}

/// Takes those out that nothing names any more. That a disk is to be sealed is written down before it is: nobody can keep
/// one that votes no more. One that was sealed is looked for once more, since something may have been decided until then.
pub(super) async fn go(app: &App, nodes: &[Node], urls: &NodeUrls, found: &Found<'_>) -> Result<(), StoreError> {
    for node in nodes {
        let Some(acceptor) = node.acceptor else { continue };
        if !matches!(node.role, NodeRole::Removing | NodeRole::Sealed) {
            continue;
        }
        if !found.caught_up || found.named.contains(&acceptor) || is_awaited(app, acceptor).await? {
            continue;
        }
        let set = app.store.set_role(acceptor.uuid, NodeRole::Sealed).await?;
        if set.is_none_or(|set| set.role != NodeRole::Sealed) {
            // It was activated meanwhile.
            continue;
        }
        if found.answering.contains(&acceptor)
            && let Some(holder) = urls.holder(acceptor)
            && let Err(error) = app.nodes.seal(&holder).await
        {
            tracing::warn!(node = node.label, %error, "a node that is to go could not be sealed; it is tried again");
            continue;
        }
        if node.role == NodeRole::Removing {
            app.upkeep.count_now.notify_one();
            continue;
        }
        app.store.set_role(acceptor.uuid, NodeRole::Removed).await?;
        tracing::info!(node = node.label, "a node was taken out");
        app.tell_node(&Node {
            role: NodeRole::Removed,
            ..node.clone()
        });
    }
    Ok(())
}

/// Whether an upload may yet send chunks to it.
async fn is_awaited(app: &App, node: NodeRef) -> Result<bool, StoreError> {
    let uploads = VideoQuery {
        status: VideoStatus::Uploading,
        text: None,
        sort: Sort {
            key: SortKey::CreatedAt,
            descending: true,
        },
        limit: UPLOADS_MAX,
        offset: 0,
    };
    let page = app.store.list_videos(uploads).await?;
    if page.total > u64::from(UPLOADS_MAX) {
        return Ok(true);
    }
    for listing in page.videos {
        let groups = app.store.groups(listing.video.id).await?;
        // Chunks of earlier groups may still be under way.
        if groups.iter().any(|group| group.members.contains(&node)) {
            return Ok(true);
        }
    }
    Ok(false)
}

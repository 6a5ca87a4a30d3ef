//! Takes nodes out that are to go: emptied first, then sealed, then forgotten. Each step is looked for anew with every
//! count, so it goes on wherever it was left.

use std::collections::{BTreeMap, BTreeSet};

use vstack_api::metadata::{NodeRole, VideoStatus};
use vstack_client::NodeUrls;
use vstack_types::NodeRef;

use super::Attendance;
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
    pub(super) attendance: &'a Attendance,
}

/// Takes one of those out that nothing names any more, and says of the others why they stay. That a disk is to be sealed
/// is written down before it is: nobody can keep one that votes no more. One that was sealed is looked for once more,
/// since something may have been decided until then.
pub(super) async fn go(app: &App, nodes: &[Node], urls: &NodeUrls, found: &Found<'_>) -> Result<(), StoreError> {
    let mut staying = BTreeMap::new();
    let mut may_go = None;
    for node in nodes {
        let Some(acceptor) = node.acceptor else { continue };
        if node.role == NodeRole::Active {
            continue;
        }
        match stays(app, acceptor, found).await? {
            Some(why) => drop(staying.insert(acceptor, why)),
            None if node.role == NodeRole::Draining => {}
            // One at a time: each is looked at when the one before is gone.
            None => may_go = may_go.or(Some((node, acceptor))),
        }
    }
    *super::locked(&app.upkeep.staying) = staying;
    match may_go {
        Some((node, acceptor)) => take_out(app, node, acceptor, urls, found).await,
        None => Ok(()),
    }
}

/// What keeps a node, if anything does.
async fn stays(app: &App, node: NodeRef, found: &Found<'_>) -> Result<Option<String>, StoreError> {
    if !found.caught_up || !found.attendance.complete {
        return Ok(Some("not everything is counted yet".to_owned()));
    }
    let up = found.attendance.up.contains(&node);
    let summary = app.upkeep.summary();
    let mourned = summary.mourned.get(&node).filter(|mourned| !mourned.any_other);
    // Nothing is left to be made anew of what is lost, and who is lost for good gives nothing back.
    let only_mourned = mourned.is_some() && found.attendance.lost.contains(&node);
    if found.named.contains(&node) && !only_mourned && !vstack_types::planted!("a removed node is still named") {
        let penned = summary.penned.get(&node).copied().unwrap_or_default();
        return Ok(Some(if let Some(mourned) = mourned {
            format!(
                "{} chunks on it are lost, and nothing can be moved of them: delete their videos (`vstack census` names \
                 them), or, if what is left of them is of no use, stop this node and say so with `vstack remove`",
                mourned.lost
            )
        } else if !app.settings.repairs {
            "REPAIRS=false: nothing is moved away from it".to_owned()
        } else if penned > 0 {
            format!("{penned} chunks have no other node to go to: add one, make room on others, or activate it again")
        } else if up {
            "chunks are moved away from it".to_owned()
        } else {
            "it does not answer, and chunks that are placed on it were not made anew elsewhere yet; if its disk is gone \
             for good, say so by `vstack remove` once more"
                .to_owned()
        }));
    }
    if is_awaited(app, node).await? {
        return Ok(Some(
            "uploads that may still send chunks to it are under way".to_owned(),
        ));
    }
    if !up {
        return Ok(None);
    }
    // What nobody knows of may be all there is of it: the database may have gone back.
    let state = app.upkeep.state();
    let Some(counted) = state.counted.get(&node).filter(|counted| counted.version.is_some()) else {
        return Ok(Some("it is not counted yet".to_owned()));
    };
    Ok((counted.orphans > 0).then(|| {
        format!(
            "it holds {} items and registers that nothing known placed there (`vstack census` names them): bring the \
             database back that knows them, or, if they are of no use, stop this node",
            counted.orphans
        )
    }))
}

async fn take_out(
    app: &App,
    node: &Node,
    acceptor: NodeRef,
    urls: &NodeUrls,
    found: &Found<'_>,
) -> Result<(), StoreError> {
    let set = app.store.set_role(acceptor.uuid, NodeRole::Sealed).await?;
    if set.is_none_or(|set| set.role != NodeRole::Sealed) {
        // It was activated meanwhile.
        return Ok(());
    }
    if found.attendance.up.contains(&acceptor)
        && let Some(holder) = urls.holder(acceptor)
        && let Err(error) = app.nodes.seal(&holder).await
    {
        tracing::warn!(node = node.label, %error, "a node that is to go could not be sealed; it is tried again");
        return Ok(());
    }
    if node.role == NodeRole::Removing {
        app.upkeep.count_now.notify_one();
        return Ok(());
    }
    app.store.set_role(acceptor.uuid, NodeRole::Removed).await?;
    tracing::info!(node = node.label, "a node was taken out");
    app.tell_node(&Node {
        role: NodeRole::Removed,
        ..node.clone()
    });
    app.upkeep.count_now.notify_one();
    Ok(())
}

/// Whether an upload may yet send chunks to it.
pub(super) async fn is_awaited(app: &App, node: NodeRef) -> Result<bool, StoreError> {
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

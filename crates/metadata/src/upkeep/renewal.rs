//! A disk that lost votes votes no more, under its name. Once everything that was placed on it is elsewhere, its node is
//! asked to give the name up: it starts again as a new disk, and takes part again.
//!
//! Not before: under its old name the disk still serves what it has, and that may be the last good copy of a chunk whose
//! others rot unseen. Nor while it holds what nothing known explains: with an older database that is all there is of it.

use vstack_api::metadata::NodeRole;
use vstack_client::NodeUrls;

use super::leaving;
use crate::{app::App, store::StoreError};

/// Asks one of those that the last count found dispensable. That nobody waits for the old name is written down behind it:
/// a stop in between leaves a disk that is silent from now on, which is missed as any is.
pub(super) async fn go(app: &App, urls: &NodeUrls) -> Result<(), StoreError> {
    let summary = app.upkeep.summary();
    if summary.dispensable.is_empty() || !app.settings.repairs {
        return Ok(());
    }
    let roles = app.store.roles().await?;
    for node in &summary.dispensable {
        // Somebody has other plans with it.
        let is_active = roles.get(&node.uuid).copied().unwrap_or_default() == NodeRole::Active;
        if !is_active || leaving::is_awaited(app, *node).await? {
            continue;
        }
        let Some(holder) = urls.holder(*node) else { continue };
        if let Err(error) = app.nodes.renew(&holder).await {
            tracing::warn!(%node, %error, "a disk that lost votes could not be asked to give up its name; it is tried again");
            continue;
        }
        tracing::warn!(%node, "a disk that lost votes is empty, and goes on under a new name");
        app.store.set_role(node.uuid, NodeRole::Removing).await?;
        app.store.give_up(node.uuid, Some(app.now())).await?;
        app.upkeep.count_now.notify_one();
        // One at a time: the others are looked at once this one is gone.
        return Ok(());
    }
    Ok(())
}

//! A disk that lost votes votes no more, under its name. Once every chunk can do without it, its node is asked to give the
//! name up: it starts again as a new disk that has the same bytes, and what was placed on the old one is moved.

use vstack_api::metadata::NodeRole;
use vstack_client::NodeUrls;

use crate::{app::App, store::StoreError};

/// Asks one of those that the last count found dispensable. That nobody waits for the old name is written down behind it:
/// a stop in between leaves a disk that is silent from now on, which is missed as any is.
pub(super) async fn go(app: &App, urls: &NodeUrls) -> Result<(), StoreError> {
    let Some(node) = app.upkeep.summary().dispensable else {
        return Ok(());
    };
    let role = app.store.roles().await?.get(&node.uuid).copied().unwrap_or_default();
    // Somebody has other plans with it.
    if role != NodeRole::Active || !app.settings.repairs {
        return Ok(());
    }
    let Some(holder) = urls.holder(node) else { return Ok(()) };
    if let Err(error) = app.nodes.renew(&holder).await {
        tracing::warn!(%node, %error, "a disk that lost votes could not be asked to give up its name; it is tried again");
        return Ok(());
    }
    tracing::warn!(%node, "a disk that lost votes goes on under a new name; what was placed on it is moved");
    app.store.set_role(node.uuid, NodeRole::Removing).await?;
    app.upkeep.count_now.notify_one();
    Ok(())
}

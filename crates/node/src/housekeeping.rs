//! Letting go of bytes that nothing keeps, on the disk and in memory, every now and then.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Collects until `shutdown`.
pub(crate) async fn keep(
    app: Arc<App>,
    interval: Duration,
    grace: Duration,
    staging_ttl: Duration,
    shutdown: CancellationToken,
) {
    let mut wait = interval;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = interval;
        app.bodies.trim();
        if !app.remembers() {
            continue;
        }
        match app.engine.collect(grace, staging_ttl).await {
            Ok(collected) if collected.items > 0 => {
                tracing::info!(items = collected.items, bytes = collected.bytes, "collected");
                if collected.more {
                    wait = Duration::ZERO;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "nothing could be collected"),
        }
    }
}

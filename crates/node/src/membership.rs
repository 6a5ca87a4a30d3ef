//! Telling the metadata service that this node is there: registration, then heartbeats, for ever.
//!
//! Nothing else waits for it: the node serves whether or not it is known.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{Heartbeat, RegisterNode};
use vstack_client::{ClientError, MetadataClient};
use vstack_service::VERSION;

use crate::app::App;

/// The first wait after a failed registration; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// A service that comes back is found within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How others reach this node.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub url: String,
    pub public_url: Option<String>,
    pub zone: Option<String>,
}

fn registration(app: &App, addresses: &Addresses) -> RegisterNode {
    let me = app.me();
    RegisterNode {
        node_url: addresses.url.clone(),
        node_id: app.label.clone(),
        version: VERSION.to_owned(),
        public_url: addresses.public_url.clone(),
        zone: addresses.zone.clone(),
        disk_uuid: Some(me.uuid),
        incarnation: me.incarnation.0,
        log_seq: app.engine.reader().log_seq(),
    }
}

fn heartbeat(app: &App) -> Heartbeat {
    let reader = app.engine.reader();
    Heartbeat {
        disk_usage_percent: app.disk_percent(),
        chunk_count: reader.stats().chunk_count,
        log_seq: reader.log_seq(),
    }
}

/// Half to all of `wait`, so that many nodes do not come back in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Registers and sends heartbeats until `shutdown`.
pub(crate) async fn keep(
    app: Arc<App>,
    metadata: MetadataClient,
    addresses: Addresses,
    interval: Duration,
    shutdown: CancellationToken,
) {
    let alive = async {
        loop {
            register(&app, &metadata, &addresses).await;
            beat(&app, &metadata, interval).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = alive => {}
    }
}

/// Tries until it is registered.
async fn register(app: &App, metadata: &MetadataClient, addresses: &Addresses) {
    let mut wait = BACKOFF_MIN;
    let mut said = String::new();
    loop {
        match metadata.register_node(&registration(app, addresses)).await {
            Ok(ack) => {
                tracing::info!(
                    node = app.label,
                    metadata = metadata.url(),
                    trusted = ack.trusted,
                    "registered"
                );
                return;
            }
            Err(error) => {
                // Once for every new reason, not for every try.
                let why = error.to_string();
                if why != said {
                    tracing::warn!(metadata = metadata.url(), error = why, "not registered yet; trying on");
                    said = why;
                }
            }
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}

/// Sends heartbeats until the service asks for a registration: it does not know this node, or does not trust it
/// yet, as when it could not reach it before.
async fn beat(app: &App, metadata: &MetadataClient, interval: Duration) {
    let mut heard = true;
    loop {
        tokio::time::sleep(interval).await;
        match metadata.heartbeat(&app.label, &heartbeat(app)).await {
            Ok(ack) if ack.trusted => heard = true,
            Ok(_) | Err(ClientError::Refused { status: 404 | 409, .. }) => return,
            Err(error) => {
                if heard {
                    tracing::warn!(metadata = metadata.url(), %error, "a heartbeat was not heard; trying on");
                }
                heard = false;
            }
        }
    }
}

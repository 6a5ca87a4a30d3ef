//! Telling the metadata service that this node is there: registration, then heartbeats, for ever.
//!
//! Nothing but votes waits for it: the node serves whether or not it is known. Votes wait for the first registration,
//! and end when one is refused; see [`crate::standing`].

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{Heartbeat, RegisterNode};
use vstack_client::{ClientError, MetadataClient};
use vstack_service::VERSION;
use vstack_types::ambient;

use crate::{app::App, standing::Standing};

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
        log_seq: {
            let reader = app.engine.reader();
            reader.claim().unwrap_or_else(|| reader.log_seq())
        },
    }
}

/// Writes down what this disk has to claim from now on, or that it was accepted.
async fn write_claim(app: &App, claim: Option<u64>) -> bool {
    match app.engine.set_claim(claim).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "how far the log has to be known could not be written down");
            false
        }
    }
}

/// Accepted. No sign of life goes out before the claim is over, durably: an old claim would look like a log that
/// went back.
async fn accept(app: &App) -> bool {
    let settled = app.engine.reader().claim().is_none() || write_claim(app, None).await;
    if settled {
        app.standing.set(Standing::Votes);
    }
    settled
}

/// Refused: no vote from now on, and no other claim than this one, after a restart neither.
async fn refuse(app: &App, claimed: u64) {
    if !vstack_types::planted!("a refused node goes on voting") {
        app.standing.set(Standing::Abstains);
    }
    if app.engine.reader().claim() != Some(claimed) {
        write_claim(app, Some(claimed)).await;
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
    wait.mul_f64(ambient::rng().random_range(0.5..=1.0))
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
        biased;
        () = shutdown.cancelled() => {}
        () = alive => {}
    }
}

/// Tries until it is registered.
async fn register(app: &App, metadata: &MetadataClient, addresses: &Addresses) {
    let mut wait = BACKOFF_MIN;
    let mut said = String::new();
    loop {
        let registration = registration(app, addresses);
        match metadata.register_node(&registration).await {
            Ok(ack) if accept(app).await => {
                tracing::info!(
                    node = app.label,
                    metadata = metadata.url(),
                    trusted = ack.trusted,
                    "registered"
                );
                return;
            }
            Ok(_) => {}
            Err(error) => {
                let refused = matches!(error, ClientError::Refused { status: 409, .. });
                if refused {
                    refuse(app, registration.log_seq).await;
                }
                // Once for every new reason, not for every try.
                let why = error.to_string();
                if why != said && refused {
                    tracing::error!(
                        metadata = metadata.url(),
                        error = why,
                        "refused: this node serves and stores chunks, and votes no more until it is accepted; trying on"
                    );
                } else if why != said {
                    tracing::warn!(metadata = metadata.url(), error = why, "not registered yet; trying on");
                }
                said = why;
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

//! Telling the metadata service that this node is there: registration, then heartbeats, for ever.
//!
//! Nothing but votes waits for it: the node serves whether or not it is known. Votes wait for the first registration,
//! and end when one is refused; see [`crate::standing`].

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{DamageTold, Heartbeat, HeldByNode, RegisterNode};
use vstack_client::{ClientError, MetadataClient};
use vstack_engine::{BoxedDisk, Damaged, Reader};
use vstack_service::VERSION;
use vstack_types::ambient;

use crate::{
    app::App,
    damage::{Heard, TRACKED_MAX},
    standing::Standing,
};

/// The first wait after a failed registration; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// A service that comes back is found within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A node that is not trusted registers again after so many heartbeats at the latest.
const UNTRUSTED_BEATS_MAX: u32 = 64;

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
            // There is one: see [`settle_claim`].
            reader.claim().unwrap_or_else(|| reader.log_seq())
        },
        process: Some(app.process),
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

/// Before it asks to be accepted, it claims the log as it is now, durably: should it be refused, it has no other claim
/// from then on, whatever is still written and after a restart neither. A claim for which there was no room at the
/// start is written now.
async fn settle_claim(app: &App) -> bool {
    let reader = app.engine.reader();
    let claim = reader.claim();
    claim.is_some() && reader.is_claim_durable() || write_claim(app, claim.or(Some(reader.log_seq()))).await
}

/// Accepted. No sign of life goes out before the claim is over, durably: an old claim would look like a log that
/// went back.
async fn accept(app: &App) -> bool {
    let settled = write_claim(app, None).await;
    if settled {
        app.standing.set(Standing::Votes);
    }
    settled
}

/// Refused: no vote from now on.
fn refuse(app: &App) {
    if !vstack_types::planted!("a refused node goes on voting") {
        app.standing.set(Standing::Abstains);
    }
}

/// Looks at what is damaged, and again whenever that may have changed.
#[derive(Debug, Default)]
struct Damages {
    heard: Heard,
    seen: Damaged,
    /// Items found damaged when it was looked at.
    at: Option<u64>,
}

impl Damages {
    /// What is to be told now. What cannot be seen now is told later.
    async fn next(&mut self, app: &App) -> Option<DamageTold> {
        let quarantined = app.engine.reader().stats().quarantined;
        // Damage comes with a quarantine, and may go whenever there is some.
        if self.at != Some(quarantined) || self.seen.count > 0 {
            let damaged = app
                .engine
                .look_aside(|reader| reader.damaged(TRACKED_MAX))
                .await
                .flatten();
            match damaged {
                Ok(damaged) => (self.seen, self.at) = (damaged, Some(quarantined)),
                Err(error) => {
                    tracing::warn!(%error, "what is damaged cannot be seen now");
                    return None;
                }
            }
        }
        let named = self.seen.named.iter().cloned().collect();
        self.heard.next(&named, self.seen.count <= TRACKED_MAX as u64)
    }
}

/// What the disk holds. What cannot be seen now is told later.
async fn held(app: &App) -> Option<HeldByNode> {
    let look = |reader: &Reader<BoxedDisk>| {
        let space = reader.space()?;
        Ok::<_, std::io::Error>(HeldByNode {
            item_bytes: reader.stats().chunk_bytes,
            allocated_bytes: space.iter().map(|one| one.allocated).sum(),
        })
    };
    let looked = app.engine.look_aside(look).await.flatten();
    looked
        .inspect_err(|error| tracing::warn!(%error, "what superblocks take cannot be seen now"))
        .ok()
}

fn heartbeat(app: &App, held: Option<HeldByNode>, damage: Option<DamageTold>) -> Heartbeat {
    let reader = app.engine.reader();
    Heartbeat {
        disk_usage_percent: app.disk_percent(),
        disk_free_bytes: app.disk_free_bytes(),
        chunk_count: reader.stats().chunk_count,
        held,
        log_seq: reader.log_seq(),
        disk_uuid: Some(app.me().uuid),
        process: Some(app.process),
        damage,
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
        let mut patience = Patience::default();
        loop {
            register(&app, &metadata, &addresses).await;
            beat(&app, &metadata, interval, &mut patience).await;
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
        if settle_claim(app).await && try_to_register(app, metadata, addresses, &mut said).await {
            return;
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}

/// One try. `said` is the reason that was last given for a failure: each is said once, not for every try.
async fn try_to_register(app: &App, metadata: &MetadataClient, addresses: &Addresses, said: &mut String) -> bool {
    let error = match metadata.register_node(&registration(app, addresses)).await {
        Ok(ack) => {
            let accepted = accept(app).await;
            if accepted {
                tracing::info!(
                    node = app.label,
                    metadata = metadata.url(),
                    trusted = ack.trusted,
                    "registered"
                );
            }
            return accepted;
        }
        Err(error) => error,
    };
    let refused = matches!(error, ClientError::Refused { status: 409, .. });
    if refused {
        refuse(app);
    }
    let why = error.to_string();
    if why != *said && refused {
        tracing::error!(
            metadata = metadata.url(),
            error = why,
            "refused: this node serves and stores chunks, and votes no more until it is accepted; trying on"
        );
    } else if why != *said {
        tracing::warn!(metadata = metadata.url(), error = why, "not registered yet; trying on");
    }
    *said = why;
    false
}

/// Heartbeats in a row that say that this node is not trusted, until it registers again. That may help at once, as
/// when the service could not reach it before; where it does not, it costs syncs and is tried ever less often.
#[derive(Debug)]
struct Patience {
    untrusted: u32,
    enough: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            untrusted: 0,
            enough: 1,
        }
    }
}

impl Patience {
    /// Whether to register again after a heartbeat that was heard.
    fn ends(&mut self, trusted: bool) -> bool {
        if trusted {
            *self = Self::default();
            return false;
        }
        self.untrusted += 1;
        if self.untrusted < self.enough {
            return false;
        }
        self.untrusted = 0;
        self.enough = (self.enough * 2).min(UNTRUSTED_BEATS_MAX);
        true
    }
}

/// Sends heartbeats until the service asks for a registration: it does not know this node, or not as this disk and
/// process, or does not trust it for as long as `patience` lasts.
async fn beat(app: &App, metadata: &MetadataClient, interval: Duration, patience: &mut Patience) {
    let mut heard = true;
    let mut damages = Damages::default();
    loop {
        tokio::time::sleep(interval).await;
        let beat = heartbeat(app, held(app).await, damages.next(app).await);
        match metadata.heartbeat(&app.label, &beat).await {
            Ok(ack) if patience.ends(ack.trusted) => return,
            Ok(_) => {
                heard = true;
                beat.damage.into_iter().for_each(|told| damages.heard.note(told));
            }
            Err(ClientError::Refused { status: 404 | 409, .. }) => return,
            Err(error) => {
                if heard {
                    tracing::warn!(metadata = metadata.url(), %error, "a heartbeat was not heard; trying on");
                }
                heard = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_trusted_registers_ever_less_often() {
        let mut patience = Patience::default();
        let registers: Vec<u32> = (1..=200).filter(|_| patience.ends(false)).collect();
        assert_eq!(registers, [1, 3, 7, 15, 31, 63, 127, 191]);
        assert!(!patience.ends(true));
        assert!(patience.ends(false), "trusted for a while, it asks at once");
    }
}

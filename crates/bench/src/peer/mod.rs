//! The protocols ChunkPaxos is compared with, as storage node processes: the same listener, HTTP, MACs, counters and storage
//! engine as `vstack storage-node`, so that the protocol alone differs.
//!
//! They are real and durable, and nothing more: no membership service, no garbage collection, no pages. They are run by
//! this benchmark alone, as a hidden subcommand.

mod bodies;
mod caller;
mod counters;
mod journal;
pub mod raft;
pub mod single_decree;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio_util::sync::CancellationToken;
use vstack_api::ErrorCode;
use vstack_engine::Which;
use vstack_service::{ApiError, ApiResult, Path, Service, bind, serve};
use vstack_types::ChunkId;

pub use self::caller::Caller;
use self::{counters::EngineCounters, journal::Journal};

/// Which protocol a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Single-decree Paxos, the data sent separately.
    SingleDecree,
    /// A Raft log that carries the data.
    Raft,
}

/// What a peer is told at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Address, logs, secret.
    #[command(flatten)]
    pub common: vstack_service::Common,
    /// Which protocol.
    #[arg(long, value_enum)]
    pub protocol: Protocol,
    /// Its number among the peers, from 0.
    #[arg(long)]
    pub id: u64,
    /// Port to listen on.
    #[arg(long, env = "PORT")]
    pub port: u16,
    /// Where its log is.
    #[arg(long, env = "DATA_DIR")]
    pub data_dir: PathBuf,
}

/// Runs a peer until `shutdown`.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let secret = settings.common.secret()?.context("a peer needs CLUSTER_SECRET")?;
    let address = SocketAddr::new(settings.common.bind_address, settings.port);
    let listener = bind(address).await?;
    let data_dir = settings.data_dir.clone();
    let journal = tokio::task::spawn_blocking(move || Journal::open(data_dir)).await??;
    let journal = Arc::new(journal);
    let routes = match settings.protocol {
        Protocol::SingleDecree => single_decree::routes(Arc::clone(&journal)).await?,
        Protocol::Raft => raft::routes(settings.id, Arc::clone(&journal), Caller::new(secret.clone())?).await?,
    };
    let routes = routes.merge(
        Router::new()
            .route("/chunk/{id}", get(chunk))
            .with_state(Arc::clone(&journal)),
    );
    let mut service = Service::new("bench-peer").secret(Some(secret));
    service
        .registry()
        .register_collector(Box::new(EngineCounters(journal.reader().clone())));
    serve(listener, service.router(routes), shutdown).await;
    Ok(())
}

/// The bytes of a chunk, for the check at the end of a round.
async fn chunk(State(journal): State<Arc<Journal>>, Path(id): Path<ChunkId>) -> ApiResult<Response> {
    let found = journal.reader().find(&id, Which::Public);
    let found = found.map_err(|missing| ApiError::new(ErrorCode::NotFound, missing.to_string()))?;
    let bytes = journal.read(found).await.map_err(ApiError::internal)?;
    Ok(Body::from(bytes).into_response())
}

//! The listener: bounded connections, header timeout, peers that must read, graceful stop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{rt::TokioIo, rt::TokioTimer, server::graceful::GracefulShutdown, service::TowerToHyperService};
use prometheus_client::metrics::counter::Counter;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;

/// Connections served at once; more wait in the kernel's backlog. Each costs a task and some buffers.
const CONNECTIONS_MAX: usize = 8192;

/// A client that has not finished its request head by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// A client that takes nothing of what it is sent for so long is cut off.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// Requests under way get this long after a stop was asked for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address}: {source}; is another process using the port?")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Listens on `address`; port 0 takes any free one.
///
/// # Errors
/// When the address cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })
}

/// Serves until `shutdown`, then lets requests under way finish for a few seconds.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve_counting(listener, router, shutdown, Counter::default()).await;
}

/// The same; `cut_off` counts connections whose peer took nothing of what it was sent.
pub(crate) async fn serve_counting(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    cut_off: Counter,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(false);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let Some((stream, permit)) = accepted else { continue };
        let connection = builder.serve_connection(
            TokioIo::new(Progress::new(stream, WRITE_STALL_MAX, cut_off.clone())),
            TowerToHyperService::new(router.clone()),
        );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("requests still under way were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _peer)) => {
            // Chunks are written whole; waiting to fill a segment only adds latency to heads and small answers.
            let _best_effort = stream.set_nodelay(true);
            Some((stream, permit))
        }
        Err(error) => {
            // Out of file descriptors, most often: give the others time to end.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

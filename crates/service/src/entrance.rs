//! Where a service's requests come in: a listener, or a simulation's network.

use std::pin::Pin;

use axum::Router;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{serve, serve::serve_counting};

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the module.
pub struct Entrance(Box<dyn FnOnce(Router, CancellationToken) -> Serving + Send>);

impl Entrance {
    /// Requests come in as `serve` says, which serves the router until it is told to stop.
    pub fn new<F>(serve: impl FnOnce(Router, CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Box::new(move |router, stop| Box::pin(serve(router, stop))))
    }

    /// Connections of `listener`.
    pub fn listener(listener: TcpListener) -> Self {
        Self::new(move |router, stop| serve(listener, router, stop))
    }

    /// The same; `cut_off` counts connections whose peer took nothing of what it was sent.
    pub fn counting(listener: TcpListener, cut_off: Counter) -> Self {
        Self::new(move |router, stop| serve_counting(listener, router, stop, cut_off))
    }

    /// Serves until `stop`.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        (self.0)(router, stop).await;
    }
}

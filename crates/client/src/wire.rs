//! How requests get to other processes: over sockets, or through a simulation's network.

use std::{fmt, pin::Pin, sync::Arc};

use reqwest::{Request, RequestBuilder, Response};

use crate::{ClientError, http::transport_error};

/// Why no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No whole answer in time: the request may or may not have arrived.
    #[error("no answer in time")]
    Timeout,
    /// Nobody there, or the connection broke: it may have arrived in the second case.
    #[error("nobody answers there")]
    Unreachable,
}

/// What comes of a request.
pub type Sending = Pin<Box<dyn Future<Output = Result<Response, WireError>> + Send>>;

/// A network brought by a simulation. It keeps to the timeout that the request names.
pub trait Wire: Send + Sync + 'static {
    /// Takes the request to whom its URL names.
    fn send(&self, request: Request) -> Sending;
}

/// The one or the other.
#[derive(Clone)]
pub(crate) enum Wires {
    Sockets,
    Simulated(Arc<dyn Wire>),
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sockets => "Sockets",
            Self::Simulated(_) => "Simulated",
        })
    }
}

impl Wires {
    pub(crate) async fn execute(&self, url: &str, request: RequestBuilder) -> Result<Response, ClientError> {
        let wire = match self {
            Self::Sockets => return request.send().await.map_err(|error| transport_error(url, &error)),
            Self::Simulated(wire) => wire,
        };
        let request = request.build().map_err(|error| transport_error(url, &error))?;
        wire.send(request).await.map_err(|error| match error {
            WireError::Timeout => ClientError::Timeout { url: url.to_owned() },
            WireError::Unreachable => ClientError::Unreachable {
                url: url.to_owned(),
                reason: error.to_string(),
            },
        })
    }
}

//! Calls that are passed on to another service as they are: status, body and the headers that matter.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use vstack_api::{ErrorBody, ErrorCode, headers};
use vstack_client::HttpClient;
use vstack_service::{ApiError, ApiResult};

/// Longest wait for a service to answer a call without a body, its body included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest error body read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Headers of a request that services look at.
const ASKED: [HeaderName; 4] = [
    header::IF_NONE_MATCH,
    header::ACCEPT,
    header::CONTENT_TYPE,
    HeaderName::from_static(headers::REQUEST_ID),
];
/// Headers of an answer that callers need.
const ANSWERED: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::ETAG,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    header::LOCATION,
    HeaderName::from_static(headers::TOTAL_COUNT),
];

/// A service, at one or more URLs of which the first that answers is used.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    name: &'static str,
    http: HttpClient,
    bases: Arc<[String]>,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    name: &'static str,
    response: reqwest::Response,
}

impl Upstream {
    /// `name` is what people read; `urls` are separated by commas.
    pub(crate) fn new(name: &'static str, http: HttpClient, urls: &str) -> Self {
        let bases = urls
            .split(',')
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty());
        Self {
            name,
            http,
            bases: bases.collect(),
        }
    }

    /// Calls `path`, which may hold a query, and gives whatever is answered.
    pub(crate) async fn call(&self, method: Method, path: &str, headers: HeaderMap) -> ApiResult<Answer> {
        for base in self.bases.iter() {
            let request = self
                .http
                .transport()
                .request(method.clone(), format!("{base}{path}"))
                .headers(headers.clone())
                .timeout(CALL_TIMEOUT);
            match request.send().await {
                Ok(response) => {
                    return Ok(Answer {
                        name: self.name,
                        response,
                    });
                }
                Err(error) if error.is_connect() => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Err(ApiError::new(
            ErrorCode::Unavailable,
            format!("{} cannot be reached; try again", self.name),
        )
        .retry_after(Duration::from_secs(2)))
    }

    /// Its first address.
    pub(crate) fn base(&self) -> Option<&str> {
        self.bases.first().map(String::as_str)
    }

    /// As [`Self::call`], for a request that streams; the caller minds the time.
    pub(crate) fn streaming(&self, method: Method, path: &str) -> ApiResult<reqwest::RequestBuilder> {
        let base = self
            .bases
            .first()
            .ok_or_else(|| ApiError::new(ErrorCode::Unavailable, format!("no address of {} is set", self.name)))?;
        Ok(self.http.transport().request(method, format!("{base}{path}")))
    }

    /// An answer to a request made with [`Self::streaming`].
    pub(crate) fn answered(&self, sent: Result<reqwest::Response, reqwest::Error>) -> ApiResult<Answer> {
        sent.map(|response| Answer {
            name: self.name,
            response,
        })
        .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &reqwest::Error) -> ApiError {
        tracing::warn!(service = self.name, %error, "call failed");
        if error.is_timeout() {
            ApiError::new(
                ErrorCode::UpstreamTimeout,
                format!("{} did not answer in time; try again", self.name),
            )
        } else {
            ApiError::new(
                ErrorCode::Unavailable,
                format!("{} cannot be reached; try again", self.name),
            )
            .retry_after(Duration::from_secs(2))
        }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Itself when it is a good one, its error body otherwise.
    pub(crate) async fn or_refusal(self) -> ApiResult<Self> {
        let status = self.status();
        if status.is_success() {
            return Ok(self);
        }
        let name = self.name;
        let body = self.read(ERROR_BYTES_MAX).await.unwrap_or_default();
        let said: Option<ErrorBody> = serde_json::from_slice(&body).ok();
        Err(said.map_or_else(
            || {
                let code = if status == StatusCode::NOT_FOUND {
                    ErrorCode::NotFound
                } else {
                    ErrorCode::Upstream
                };
                ApiError::new(code, format!("{name} answered {status}"))
            },
            |body| ApiError::new(body.code, body.detail),
        ))
    }

    /// The whole body.
    pub(crate) async fn read(mut self, bytes_max: usize) -> ApiResult<Bytes> {
        let mut body = BytesMut::new();
        loop {
            match self.response.chunk().await {
                Ok(None) => return Ok(body.freeze()),
                Ok(Some(part)) if body.len() + part.len() > bytes_max => {
                    let detail = format!("{} gave an answer of more than {bytes_max} bytes", self.name);
                    return Err(ApiError::new(ErrorCode::Upstream, detail));
                }
                Ok(Some(part)) => body.extend_from_slice(&part),
                Err(error) => {
                    return Err(ApiError::new(
                        ErrorCode::Upstream,
                        format!("{} broke off: {error}", self.name),
                    ));
                }
            }
        }
    }

    /// Passed on as it comes.
    pub(crate) fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        for name in ANSWERED {
            for value in self.headers().get_all(&name) {
                response.headers_mut().append(name.clone(), value.clone());
            }
        }
        *response.body_mut() = Body::from_stream(self.response.bytes_stream());
        response
    }
}

/// Those of `headers` that services look at.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let pick = |name: HeaderName| headers.get(&name).map(|value| (name, value.clone()));
    ASKED.into_iter().filter_map(pick).collect()
}

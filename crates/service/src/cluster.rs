//! Cluster calls: requests that carry a MAC under the cluster secret (`docs/wire.md`).

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use vstack_api::{
    ErrorCode,
    auth::{ClusterSecret, Tag},
    headers,
};
use vstack_types::limits::JSON_BODY_BYTES_MAX;

use crate::{ApiError, ApiResult, body};

/// Checks the MAC of cluster calls. Present as an extension in every service's requests.
#[derive(Debug, Clone)]
pub struct ClusterAuth {
    secret: Option<ClusterSecret>,
}

/// A call whose MAC was right; signs the answer to it.
#[derive(Debug, Clone)]
pub struct VerifiedCall {
    secret: ClusterSecret,
    tag: Tag,
    /// The value of `X-VStack-Node`: whom the call is meant for; empty when nobody is named.
    pub node: String,
}

/// A cluster call with its whole body, checked; the body is the MAC's payload. It is in memory before the MAC can be
/// checked, whoever sent it: a call takes no more than it needs.
#[derive(Debug, Clone)]
pub struct ClusterCall<const BYTES_MAX: usize = JSON_BODY_BYTES_MAX> {
    /// The body, at most `BYTES_MAX` bytes.
    pub body: Bytes,
    /// Signs the answer.
    pub call: VerifiedCall,
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn unauthenticated(why: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, why)
}

impl ClusterAuth {
    /// Without a secret every cluster call is refused.
    pub const fn new(secret: Option<ClusterSecret>) -> Self {
        Self { secret }
    }

    /// The MAC that a call carries, still to be checked, and what it is checked with.
    fn tag(&self, headers: &HeaderMap) -> ApiResult<(&ClusterSecret, Tag)> {
        let secret = self
            .secret
            .as_ref()
            .ok_or_else(|| unauthenticated("this service has no CLUSTER_SECRET and takes no cluster calls"))?;
        let tag = text(headers, headers::VSTACK_MAC).and_then(|tag| tag.parse().ok());
        let tag = tag.ok_or_else(|| unauthenticated("cluster calls carry X-VStack-Mac; see docs/wire.md"))?;
        Ok((secret, tag))
    }

    /// Checks the MAC of a call over `payload`.
    ///
    /// # Errors
    /// 401 without a secret, without a MAC, or with a wrong one.
    pub fn verify(&self, method: &Method, path: &str, headers: &HeaderMap, payload: &[u8]) -> ApiResult<VerifiedCall> {
        let (secret, tag) = self.tag(headers)?;
        let node = text(headers, headers::VSTACK_NODE).unwrap_or_default();
        if !secret.verify_request(method.as_str(), path, node, payload, tag) {
            return Err(unauthenticated(
                "the MAC is wrong: do both sides have the same CLUSTER_SECRET?",
            ));
        }
        Ok(VerifiedCall {
            secret: secret.clone(),
            tag,
            node: node.to_owned(),
        })
    }
}

impl VerifiedCall {
    /// The headers of an answer by `node` whose MAC covers `payload`.
    pub fn sign(&self, node: &str, payload: &[u8]) -> HeaderMap {
        let mut signed = HeaderMap::new();
        let tag = self.secret.sign_answer(self.tag, node, payload).to_string();
        if let (Ok(node), Ok(tag)) = (HeaderValue::from_str(node), HeaderValue::from_str(&tag)) {
            signed.insert(headers::VSTACK_NODE, node);
            signed.insert(headers::VSTACK_MAC, tag);
        }
        signed
    }

    /// An answer by `node` with `body`, which the MAC covers.
    pub fn answer(&self, status: StatusCode, node: &str, body: Vec<u8>) -> Response {
        let mut response = (status, self.sign(node, &body), Body::from(body)).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }
}

impl<const BYTES_MAX: usize> ClusterCall<BYTES_MAX> {
    /// The body as JSON.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> ApiResult<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::new(
                ErrorCode::Malformed,
                format!("the JSON body is not as it should be: {error}"),
            )
        })
    }

    /// A JSON answer, signed, by a service that is not a storage node.
    ///
    /// # Errors
    /// 500 when `value` cannot be JSON.
    pub fn answer_json<T: Serialize>(&self, value: &T) -> ApiResult<Response> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        let mut response = self.call.answer(StatusCode::OK, "", body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

impl<S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for ClusterCall<BYTES_MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let auth = request
            .extensions()
            .get::<ClusterAuth>()
            .cloned()
            .ok_or_else(|| ApiError::internal("the router was not built by Service"))?;
        let (method, path, headers) = (
            request.method().clone(),
            request.uri().path().to_owned(),
            request.headers().clone(),
        );
        // Without a MAC no body is worth waiting for.
        if let Err(refused) = auth.tag(&headers) {
            body::refuse(body::waits_for_continue(&headers), request.into_body());
            return Err(refused);
        }
        let body = body::read(request, BYTES_MAX).await?;
        let call = auth.verify(&method, &path, &headers, &body)?;
        Ok(Self { body, call })
    }
}

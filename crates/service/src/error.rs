//! Errors as they leave a service.

use std::time::Duration;

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use vstack_api::{ErrorBody, ErrorCode, headers};

/// A handler's failure: a stable code with its status, and a sentence that says what is wrong and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct ApiError {
    /// For programs; it fixes the status.
    pub code: ErrorCode,
    /// For people.
    pub detail: String,
    retry_after: Option<Duration>,
}

/// What a handler returns.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// `detail` says what is wrong and, where there is something, what to do about it.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// Tells the caller when another try makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Our own fault. The cause is logged here, once, and not sent.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(
            ErrorCode::Internal,
            "the service failed to handle this; its log says why",
        )
    }

    /// The HTTP status it is sent with.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = ErrorBody {
            detail: self.detail,
            code: self.code,
        };
        let code = [(headers::ERROR_CODE, self.code.as_str())];
        let mut response = (status, code, axum::Json(body)).into_response();
        if status == StatusCode::REQUEST_TIMEOUT {
            // Who was not waited for may still send: nothing after it can be told from the rest.
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

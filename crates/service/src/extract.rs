//! Extractors that fail with our own error body.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use vstack_api::ErrorCode;
use vstack_types::limits::JSON_BODY_BYTES_MAX;

use crate::{ApiError, body};

/// A JSON body, of at most [`JSON_BODY_BYTES_MAX`] bytes, whatever its content type says.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

/// Path parameters.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

/// Query parameters.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

/// A body as it came, of at most `BYTES_MAX` bytes.
#[derive(Debug, Clone)]
pub struct Whole<const BYTES_MAX: usize>(pub Bytes);

impl<S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for Whole<BYTES_MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        body::read(request, BYTES_MAX).await.map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let body = body::read(request, JSON_BODY_BYTES_MAX).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            ApiError::new(
                ErrorCode::Malformed,
                format!("the JSON body is not as it should be: {error}"),
            )
        })
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| ApiError::new(ErrorCode::BadId, rejection.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| ApiError::new(ErrorCode::Malformed, rejection.body_text()))
    }
}

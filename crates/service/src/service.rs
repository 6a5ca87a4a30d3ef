//! Turns a service's routes into the whole router: request ids, metrics, readiness, API description, CORS.

use std::sync::Arc;

use tokio::time::Instant;

use axum::{
    Extension, Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use tower_http::cors::{AllowOrigin, CorsLayer};
use vstack_api::{ErrorCode, auth::ClusterSecret, headers};

use crate::{ApiError, ClusterAuth, cross_site, metrics::Metrics};

/// Which pages of other origins may call a service, and how.
#[derive(Debug, Clone)]
pub struct Cors {
    /// `scheme://host[:port]`, or one `*` for any.
    pub origins: Vec<String>,
    /// Methods allowed besides the simple ones.
    pub methods: Vec<Method>,
    /// Response headers a page may read.
    pub expose: Vec<HeaderName>,
}

/// Builds a service's router around its routes.
pub struct Service {
    name: &'static str,
    registry: Registry,
    secret: Option<ClusterSecret>,
    cors: Option<Cors>,
    openapi: Option<utoipa::openapi::OpenApi>,
}

impl Service {
    /// `name` as in `/health` and logs, for example `metadata-service`.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            registry: Registry::default(),
            secret: None,
            cors: None,
            openapi: None,
        }
    }

    /// Where the service's own metrics are registered before [`Self::router`] is called.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Cluster calls are checked under this secret; without one they are refused.
    #[must_use]
    pub fn secret(mut self, secret: Option<ClusterSecret>) -> Self {
        self.secret = secret;
        self
    }

    /// Lets pages of other origins in.
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = Some(cors);
        self
    }

    /// Describes the service at `/openapi.json` and, for people, at `/docs`.
    #[must_use]
    pub fn openapi(mut self, openapi: utoipa::openapi::OpenApi) -> Self {
        self.openapi = Some(openapi);
        self
    }

    /// The whole router. `routes` win nothing over `/ready`, `/metrics`, `/openapi.json` and `/docs`, which are ours.
    pub fn router(self, routes: Router) -> Router {
        let metrics = Metrics::new(self.registry);
        let mut router = routes
            .route("/ready", get(|| async { "ready\n" }))
            .route("/metrics", get(metrics_text).with_state(metrics.clone()))
            .method_not_allowed_fallback(method_not_allowed);
        if let Some(mut openapi) = self.openapi {
            openapi.info.version = crate::VERSION.to_owned();
            router = router.merge(utoipa_swagger_ui::SwaggerUi::new("/docs").url("/openapi.json", openapi));
        }
        let mut router = router.layer(Extension(ClusterAuth::new(self.secret)));
        router = router.layer(from_fn_with_state(Arc::new(self.cors.clone()), cross_site::refuse));
        if let Some(cors) = self.cors {
            router = router.layer(cors_layer(&cors)).layer(from_fn(timing_allow_origin));
        }
        router.layer(from_fn_with_state((self.name, metrics), observe))
    }
}

fn cors_layer(cors: &Cors) -> CorsLayer {
    let origins = if cors.origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            cors.origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(cors.methods.clone())
        .allow_headers([
            header::CONTENT_TYPE,
            header::RANGE,
            header::IF_NONE_MATCH,
            HeaderName::from_static(headers::REQUEST_ID),
        ])
        .expose_headers(cors.expose.clone())
        .max_age(std::time::Duration::from_secs(3600))
}

/// Lets a page that may read an answer also read its timing, so that a player can measure its nodes.
async fn timing_allow_origin(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(allowed) = response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned() {
        response.headers_mut().insert("timing-allow-origin", allowed);
    }
    response
}

async fn metrics_text(State(metrics): State<Metrics>) -> Result<impl IntoResponse, ApiError> {
    let text = metrics.text().map_err(ApiError::internal)?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    ))
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("{} is not possible on {}", request.method(), request.uri().path()),
    )
}

/// A request id that may be echoed: short and harmless; otherwise a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(headers::REQUEST_ID).filter(|value| {
        value.len() <= 100
            && value
                .as_bytes()
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    });
    given.cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&vstack_types::ambient::uuid().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

async fn observe(State((name, metrics)): State<(&'static str, Metrics)>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.headers_mut().insert(headers::REQUEST_ID, id.clone());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if response.status() == 404 && route == "unmatched" && response.headers().get(header::CONTENT_TYPE).is_none() {
        response = ApiError::new(ErrorCode::NotFound, format!("there is nothing at {path}")).into_response();
    }
    let took = started.elapsed();
    let status = response.status().as_u16();
    metrics.observe(method.as_str(), &route, status, took);
    if status >= 500 {
        tracing::warn!(service = name, %method, path, status, took_ms = took.as_millis(), request_id = ?id, "request failed");
    } else {
        tracing::debug!(service = name, %method, path, status, took_ms = took.as_millis(), request_id = ?id, "request");
    }
    response.headers_mut().insert(headers::REQUEST_ID, id);
    response
}

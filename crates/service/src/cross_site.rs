//! Pages of other origins change nothing here.
//!
//! Whoever reaches this service may use it: nobody is asked who they are. A browser that reaches it sends requests on
//! behalf of any page that it shows, so a stranger's page could delete videos or upload some by way of whoever looks at
//! it, also where the stranger reaches nothing (cross-site request forgery). CORS does not keep it from that: it keeps
//! pages from reading answers, and a form or a simple `fetch` is sent before anything is asked.
//!
//! So a request that may change something, which is any whose method is not safe (RFC 9110, section 9.2.1), is refused
//! where its headers do not speak for it. Those that are looked at are the browser's own word: no page can set them.
//!
//! - `Sec-Fetch-Site` (W3C Fetch Metadata): `same-origin` is a page of ours, `none` a person who used no page.
//!   `same-site` is refused like `cross-site`: what else listens on this host, or under its domain, is somebody else's.
//! - Browsers send that to https and to loopback addresses alone, and old ones not at all. Then `Origin`, which is sent
//!   with everything that is not GET or HEAD, has to name the host and port that the request was sent to. Schemes are not
//!   compared: TLS may end in a proxy before this service. Such a proxy has to leave `Host` as it was, or to pass on
//!   `Sec-Fetch-Site`. `null`, the origin of files and of frames in a sandbox, is nobody's.
//! - With neither of them it was no page: curl and our own tools act for nobody but who runs them.
//!
//! Safe methods pass, whoever asks. They change nothing, and players on other pages are to fetch streams; what they may
//! read of the answers is a matter of CORS.
//!
//! Origins that were let in by name (`CORS_ORIGINS`) may send what they were let in for.
//!
//! What this does not stop is a stranger's name that leads to this host (DNS rebinding): page and request have one
//! origin then. Only a list of the names under which the service is meant to be reached would.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use vstack_api::ErrorCode;

use crate::{ApiError, Cors};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Answers 403 to what a page of another origin wants to have changed.
pub(crate) async fn refuse(State(let_in): State<Arc<Option<Cors>>>, request: Request, next: Next) -> Response {
    if passes(let_in.as_ref().as_ref(), &request) {
        return next.run(request).await;
    }
    let refused = ApiError::new(
        ErrorCode::Forbidden,
        "a page of another origin asks for this, and only pages of this service may change anything here; open the \
         service at its own address",
    );
    let mut response = refused.into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn passes(let_in: Option<&Cors>, request: &Request) -> bool {
    let (method, headers) = (request.method(), request.headers());
    method.is_safe() || is_ours(headers, request.uri()) || is_let_in(let_in, method, headers)
}

/// Whether no page of another origin is behind a request.
fn is_ours(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut sites = headers.get_all(FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site == "same-origin" || site == "none");
    }
    let host = host(headers, uri);
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.all(|origin| host.is_some_and(|host| is_at(origin, host)))
}

/// Whether the page that asks is of an origin that was let in for such requests.
fn is_let_in(let_in: Option<&Cors>, method: &Method, headers: &HeaderMap) -> bool {
    let Some(let_in) = let_in.filter(|let_in| let_in.methods.contains(method)) else {
        return false;
    };
    let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
    let is_named = |origin: &HeaderValue| {
        let mut named = let_in.origins.iter();
        named.any(|named| named == "*" || named.as_bytes() == origin.as_bytes())
    };
    origins.peek().is_some() && origins.all(is_named)
}

/// The host, and the port if one is named, that a request was sent to.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        // HTTP/2 has it in the address.
        None => uri.authority().map(|authority| authority.as_str()),
    }
}

/// Whether this is the origin of what is served at `host`.
fn is_at(origin: &HeaderValue, host: &str) -> bool {
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    // Need not be named.
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_port = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    without_port(authority) == without_port(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_were_let_in_may_send_what_they_were_let_in_for() {
        let let_in = |origins: &[&str]| Cors {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            methods: vec![Method::GET, Method::POST],
            expose: Vec::new(),
        };
        let mut of_page = HeaderMap::new();
        of_page.insert(header::ORIGIN, HeaderValue::from_static("http://films.example"));
        let named = let_in(&["http://other.example", "http://films.example"]);
        assert!(is_let_in(Some(&named), &Method::POST, &of_page));
        assert!(is_let_in(Some(&let_in(&["*"])), &Method::POST, &of_page));
        assert!(!is_let_in(Some(&named), &Method::DELETE, &of_page), "not for this");
        assert!(!is_let_in(
            Some(&let_in(&["http://films.example:81"])),
            &Method::POST,
            &of_page
        ));
        assert!(!is_let_in(None, &Method::POST, &of_page));
        assert!(
            !is_let_in(Some(&let_in(&["*"])), &Method::POST, &HeaderMap::new()),
            "of no page"
        );
    }

    #[test]
    fn only_pages_of_ours_and_programs_change_anything() {
        const OURS: &str = "films.example:8085";
        let table: &[(&[(&str, &str)], bool)] = &[
            // No browser.
            (&[("host", OURS)], true),
            (&[], true),
            // The browser says which page asks.
            (&[("host", OURS), ("sec-fetch-site", "same-origin")], true),
            (&[("host", OURS), ("sec-fetch-site", "none")], true),
            (&[("host", OURS), ("sec-fetch-site", "same-site")], false),
            (&[("host", OURS), ("sec-fetch-site", "cross-site")], false),
            (&[("host", OURS), ("sec-fetch-site", "")], false),
            (&[("host", OURS), ("sec-fetch-site", "Same-Origin")], false),
            (
                &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
                false,
            ),
            // Then it is known, whatever a proxy made of the host, and whatever that says.
            (
                &[
                    ("host", "10.0.0.7:80"),
                    ("origin", "https://films.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
            (
                &[
                    ("host", OURS),
                    ("origin", "http://films.example:8085"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            // The browser says no more than the origin of the page.
            (&[("host", OURS), ("origin", "http://films.example:8085")], true),
            (&[("host", OURS), ("origin", "https://films.example:8085")], true),
            (
                &[("host", "Films.example:8085"), ("origin", "http://films.example:8085")],
                true,
            ),
            (&[("host", "films.example"), ("origin", "https://films.example")], true),
            (
                &[("host", "films.example:443"), ("origin", "https://films.example")],
                true,
            ),
            (
                &[("host", "films.example:80"), ("origin", "http://films.example")],
                true,
            ),
            (&[("host", "[::1]:8085"), ("origin", "http://[::1]:8085")], true),
            (
                &[("host", "films.example:443"), ("origin", "http://films.example")],
                false,
            ),
            (&[("host", OURS), ("origin", "http://films.example:8086")], false),
            (&[("host", OURS), ("origin", "http://films.example")], false),
            (&[("host", OURS), ("origin", "http://films.example:80850")], false),
            (&[("host", OURS), ("origin", "http://other.example:8085")], false),
            (
                &[("host", OURS), ("origin", "http://films.example:8085.other.example")],
                false,
            ),
            (
                &[("host", OURS), ("origin", "http://films.example:8085@other.example")],
                false,
            ),
            (&[("host", OURS), ("origin", "ftp://films.example:8085")], false),
            (&[("host", OURS), ("origin", "films.example:8085")], false),
            (&[("host", OURS), ("origin", "null")], false),
            (&[("host", OURS), ("origin", "")], false),
            (&[("origin", "http://films.example:8085")], false),
            (
                &[
                    ("host", OURS),
                    ("origin", "http://films.example:8085"),
                    ("origin", "http://other.example"),
                ],
                false,
            ),
        ];
        for (said, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *said {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(
                is_ours(&headers, &Uri::from_static("/api/upload")),
                *expected,
                "{said:?}"
            );
        }
    }

    #[test]
    fn the_host_may_be_in_the_address() {
        let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://films.example"))]);
        let at = |uri: &'static str| is_ours(&headers, &Uri::from_static(uri));
        assert!(at("https://films.example/api/upload"));
        assert!(!at("https://other.example/api/upload"));
    }
}

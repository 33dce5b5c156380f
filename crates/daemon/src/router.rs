//! From a path to a route.
//!
//! Paths may begin with a version (`/v1.41/...`); without one, the newest is meant. Routes are slice patterns
//! over the path's segments: names of images have slashes in them, which routers by prefix do not take.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use hyper::body::Incoming;
use portolan_api::ApiVersion;

use crate::http::{Answer, ApiError, Query, Request, Response, drain, percent_decode};
use crate::identity::{NEWEST_API, OLDEST_API, SERVER_HEADER};
use crate::routes;
use crate::state::State;

/// Answers a request.
pub(crate) async fn serve(state: &Arc<State>, request: hyper::Request<Incoming>) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut request = Request {
        method: parts.method,
        path: String::new(),
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        version: NEWEST_API,
        upgrade: parts
            .headers
            .contains_key(http::header::UPGRADE)
            .then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>())
            .flatten(),
        headers: parts.headers,
        body: Some(body),
    };
    let mut response = respond(state, &mut request, parts.uri.path()).await;
    add_headers(&mut response);
    if let Some(body) = request.body.take()
        && !hyper::body::Body::is_end_stream(&body)
    {
        tokio::spawn(drain(body));
    }
    response
}

/// Answers a request whose path still has its version. Errors become answers here, and are logged.
pub(crate) async fn respond(state: &Arc<State>, request: &mut Request, path: &str) -> Response {
    match route(state, request, path).await {
        Ok(response) => {
            let unread = request.query.unread();
            if !unread.is_empty() {
                tracing::debug!(
                    "{} {path}: parameters without effect: {}",
                    request.method,
                    unread.join(", ")
                );
            }
            response
        }
        Err(error) => {
            let (method, status) = (&request.method, error.status.as_u16());
            if error.status == http::StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!("{method} {path}: {status}: {}", error.message);
            } else {
                tracing::debug!("{method} {path}: {status}: {}", error.message);
            }
            error.into()
        }
    }
}

/// The headers that every answer has.
pub(crate) fn add_headers(response: &mut Response) {
    const API_VERSION: HeaderName = HeaderName::from_static("api-version");
    const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
    const OSTYPE: HeaderName = HeaderName::from_static("ostype");
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static(NEWEST_API_TEXT));
    headers.entry(EXPERIMENTAL).or_insert(HeaderValue::from_static("false"));
    headers.insert(OSTYPE, HeaderValue::from_static("linux"));
    headers.insert(http::header::SERVER, HeaderValue::from_static(SERVER_HEADER));
}

/// [`NEWEST_API`] as a header has it; a test holds the two together.
const NEWEST_API_TEXT: &str = "1.51";

/// The version of a path's first segment, if it is one: `v1.41`.
pub(crate) fn version_of(segment: &str) -> Option<&str> {
    let version = segment.strip_prefix('v')?;
    (!version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        .then_some(version)
}

/// Checks the version in the path; what is left of the path.
pub(crate) fn split_version(path: &str) -> Result<(ApiVersion, &str), ApiError> {
    let tail = path.strip_prefix('/').unwrap_or(path);
    let (first, rest) = tail.split_at(tail.find('/').unwrap_or(tail.len()));
    let Some(text) = version_of(first) else { return Ok((NEWEST_API, path)) };
    let version: ApiVersion = text.parse().map_err(|_| ApiError::page_not_found())?;
    if version < OLDEST_API {
        return Err(ApiError::invalid(format!(
            "client version {text} is too old. Minimum supported API version is {OLDEST_API}, please upgrade your client to a newer version"
        )));
    }
    if version > NEWEST_API {
        return Err(ApiError::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {NEWEST_API}"
        )));
    }
    Ok((version, rest))
}

async fn route(state: &Arc<State>, request: &mut Request, path: &str) -> Answer {
    let (version, rest) = split_version(path)?;
    request.version = version;
    request.path = percent_decode(rest, false).into_owned();
    let path = request.path.clone();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if request.method == Method::OPTIONS {
        return Ok(crate::http::empty(http::StatusCode::OK));
    }
    match segments.split_first() {
        Some((&"containers", rest)) => routes::containers::route(state, request, rest).await,
        Some((&"commit", [])) if request.method == Method::POST => {
            routes::containers::commit(state, request).await
        }
        Some((&"exec", rest)) => routes::exec::route(state, request, rest).await,
        Some((&"images", rest)) => routes::images::route(state, request, rest).await,
        Some((&"networks", rest)) => routes::networks::route(state, request, rest).await,
        Some((&"portolan", rest)) => routes::portolan::route(state, request, rest).await,
        Some((&"metrics", [])) if request.method == Method::GET => Ok(routes::portolan::metrics(state)),
        Some((&"volumes", rest)) => routes::volumes::route(state, request, rest).await,
        Some((first, rest)) => routes::system::route(state, request, first, rest).await,
        None => Err(ApiError::page_not_found()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_outside_the_range_are_refused_in_dockers_words() {
        assert_eq!(NEWEST_API.to_string(), NEWEST_API_TEXT);
        let split = |path| split_version(path).map_err(|error| (error.status.as_u16(), error.message));
        assert_eq!(split("/v1.41/info").unwrap(), (ApiVersion::new(1, 41), "/info"));
        assert_eq!(split("/info").unwrap(), (NEWEST_API, "/info"));
        assert_eq!(split("/volumes").unwrap(), (NEWEST_API, "/volumes"));
        assert_eq!(
            split("/v1.24/info").unwrap_err(),
            (400, "client version 1.24 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version".to_owned())
        );
        assert_eq!(
            split("/v9.0/info").unwrap_err(),
            (400, "client version 9.0 is too new. Maximum supported API version is 1.51".to_owned())
        );
        assert_eq!(split("/v1..2/info").unwrap_err().0, 404);
    }
}

//! Answers.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::{ApiError, Body};

/// An answer.
pub(crate) type Response = http::Response<Body>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Status 204.
pub(crate) fn no_content() -> Response {
    empty(StatusCode::NO_CONTENT)
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text.
pub(crate) fn text(text: &'static str) -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", Body::full(Bytes::from_static(text.as_bytes())))
}

/// Text that was made for this answer, in Prometheus' exposition format.
pub(crate) fn metrics(text: String) -> Response {
    with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Body::full(text.into()))
}

/// JSON with a line feed at its end, as Go's encoder writes it.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, ApiError> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| ApiError::internal(error.to_string()))?;
    bytes.push(b'\n');
    Ok(with_type(status, "application/json", Body::full(bytes.into())))
}

/// A body that comes in pieces, sent as they come; the head is sent at once.
pub(crate) fn stream<S>(content_type: &'static str, pieces: S) -> Response
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    with_type(StatusCode::OK, content_type, Body::stream(pieces))
}

/// One line of a stream of JSON values. Docker ends the lines of progress messages with CR LF, others with LF.
pub(crate) fn ndjson<T: Serialize>(value: &T, end: &str) -> io::Result<Bytes> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.extend_from_slice(end.as_bytes());
    Ok(bytes.into())
}

impl From<ApiError> for Response {
    fn from(error: ApiError) -> Self {
        if error.status == StatusCode::NOT_MODIFIED {
            return empty(error.status);
        }
        let body = portolan_api::ErrorResponse { message: error.message };
        json(error.status, &body).unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

//! A request as routes see it: without its version prefix, the body not yet read.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portolan_api::ApiVersion;
use serde::de::DeserializeOwned;

use super::{ApiError, Query};

/// Longest JSON body that is read, bytes. Docker knows no limit; the longest real ones (create with a large
/// environment) stay far below.
const JSON_LIMIT: usize = 8 << 20;

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path without the version, percent escapes undone.
    pub(crate) path: String,
    pub(crate) query: Query,
    /// The version in the path, or the newest.
    pub(crate) version: ApiVersion,
    pub(crate) headers: HeaderMap,
    /// `None` once taken, and for requests whose body was read before (see `server::hijack`).
    pub(crate) body: Option<Incoming>,
    /// For the answer `101`; only in requests that came through hyper.
    pub(crate) upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Request {
    /// Reads the body as JSON; an empty body is the default value, as in Docker.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, ApiError> {
        match self.body_bytes().await? {
            bytes if bytes.is_empty() => Ok(T::default()),
            bytes => {
                check_content_type(&self.headers)?;
                decode_json(&bytes)
            }
        }
    }

    /// Reads the body as JSON; an empty body is an error.
    pub(crate) async fn required_json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        let bytes = self.body_bytes().await?;
        check_content_type(&self.headers)?;
        decode_json(&bytes)
    }

    /// The whole body, if it is not longer than JSON may be. Of one that is too long, the rest stays in the request,
    /// to be drained: a client that cannot write to the end does not read the answer.
    async fn body_bytes(&mut self) -> Result<Bytes, ApiError> {
        let Some(mut body) = self.body.take() else { return Ok(Bytes::new()) };
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| ApiError::invalid(format!("cannot read the request body: {error}")))?;
            let piece = frame.data_ref().map_or(&[][..], Bytes::as_ref);
            if bytes.len() + piece.len() > JSON_LIMIT {
                self.body = Some(body);
                return Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("request body too large: more than {JSON_LIMIT} bytes"),
                ));
            }
            bytes.extend_from_slice(piece);
        }
        Ok(bytes.freeze())
    }
}

/// Docker's check of `Content-Type`: no body needs none, JSON must say so.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let given = given.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() {
        // Docker refuses a body without a type when the client sent its length; a missing type is harmless.
        return Ok(());
    }
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::invalid(format!("unsupported Content-Type header ({given}): must be 'application/json'")))
}

/// Decodes JSON with Docker's words for what is wrong.
pub(crate) fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = portolan_api::deserialize_folded(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        ApiError::invalid(match error.classify() {
            serde_json::error::Category::Eof if bytes.trim_ascii().is_empty() => {
                "invalid JSON: got EOF while reading request body".to_owned()
            }
            _ if error.to_string().starts_with("trailing characters") => {
                "unexpected content after JSON".to_owned()
            }
            _ => format!("invalid JSON: {error}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::{CreateRequest, NetworkCreate};

    #[test]
    fn what_is_wrong_with_json_is_named() {
        let message = |text: &str| decode_json::<NetworkCreate>(text.as_bytes()).unwrap_err().message;
        assert_eq!(message(""), "invalid JSON: got EOF while reading request body");
        assert_eq!(message("{} {}"), "unexpected content after JSON");
        assert!(
            message(r#"{"Name": 5}"#)
                .starts_with("invalid JSON: invalid type: integer `5`, expected a string")
        );
        assert!(message("{").starts_with("invalid JSON: EOF"));
        let deep = "[".repeat(100_000);
        assert!(message(&deep).starts_with("invalid JSON: "));
    }

    #[test]
    fn a_wrong_type_in_a_nested_part_names_the_part() {
        let error = decode_json::<CreateRequest>(br#"{"HostConfig": {"Binds": 1}}"#).unwrap_err();
        assert!(error.message.starts_with("invalid JSON: HostConfig: "), "{}", error.message);
    }

    #[test]
    fn only_json_is_taken_as_json() {
        let mut headers = HeaderMap::new();
        assert!(check_content_type(&headers).is_ok());
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        assert!(check_content_type(&headers).is_ok());
        headers.insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(
            check_content_type(&headers).unwrap_err().message,
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
    }
}

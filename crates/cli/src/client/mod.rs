//! The HTTP client of the Docker Engine API over a unix socket or TCP.
//!
//! One idle connection is kept and used again, so a command's requests share a connection unless
//! one of them is still being answered (`wait`, `attach`). Paths carry no version unless
//! `DOCKER_API_VERSION` asks for one: every server then answers with its newest version, and
//! the round trip that Docker's own CLI spends on negotiation is saved.

mod error;
mod host;
mod stream;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::session::line_err;

pub(crate) use error::ClientError;
pub(crate) use host::{DEFAULT_SOCKET, Host};
pub(crate) use stream::{BodyReader, Duplex, DuplexInput, DuplexOutput};

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

type Sender = SendRequest<Body>;

/// Chunks of an upload.
pub(crate) type Upload = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A daemon to send requests to.
#[derive(Debug)]
pub(crate) struct Client {
    host: Host,
    /// The prefix of every path: empty, or `/v1.41`.
    prefix: String,
    idle: RefCell<Option<Sender>>,
    /// Tell every request on standard error.
    debug: bool,
    /// What every request carries besides.
    headers: HeaderMap,
}

impl Client {
    /// A client of the daemon at `host`, whose requests all carry `headers`; connects with the first request.
    pub(crate) fn new(host: Host, version: Option<&str>, debug: bool, headers: HeaderMap) -> Client {
        Client {
            host,
            prefix: version
                .filter(|version| !version.is_empty())
                .map(|version| format!("/v{}", version.trim_start_matches('v')))
                .unwrap_or_default(),
            idle: RefCell::new(None),
            debug,
            headers,
        }
    }

    /// GETs JSON.
    ///
    /// # Errors
    /// When the daemon cannot be reached or answers with an error.
    pub(crate) async fn get(&self, target: &str) -> Result<Value, ClientError> {
        self.json(Method::GET, target, empty()).await
    }

    /// GETs text as it is sent.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub(crate) async fn get_text(&self, target: &str) -> Result<String, ClientError> {
        let (_, bytes) = self.whole(Method::GET, target, empty()).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// POSTs JSON (nothing for null) and reads JSON (null for an empty answer).
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub(crate) async fn post(&self, target: &str, body: Value) -> Result<Value, ClientError> {
        self.json(Method::POST, target, json_body(&body)).await
    }

    /// DELETEs.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub(crate) async fn delete(&self, target: &str) -> Result<Value, ClientError> {
        self.json(Method::DELETE, target, empty()).await
    }

    /// HEADs and returns the answer's headers.
    ///
    /// # Errors
    /// As for [`Client::get`]; an error answer has no text besides its status.
    pub(crate) async fn head(&self, target: &str) -> Result<HeaderMap, ClientError> {
        Ok(self.whole(Method::HEAD, target, empty()).await?.0)
    }

    /// Sends a request and reads its whole answer as JSON (null for an empty one).
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub(crate) async fn json(&self, method: Method, target: &str, body: Body) -> Result<Value, ClientError> {
        let (_, bytes) = self.whole(method, target, body).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|why| ClientError::Answer { target: target.to_owned(), why: why.to_string() })
    }

    /// Sends a request whose answer is a stream, on a connection of its own.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub(crate) async fn stream(
        &self,
        method: Method,
        target: &str,
        body: Body,
    ) -> Result<(HeaderMap, BodyReader), ClientError> {
        self.stream_of(self.request(method, target, body)?).await
    }

    /// POSTs what has to do with a registry, with `X-Registry-Auth`; the answer is a stream of progress.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub(crate) async fn stream_with_auth(&self, target: &str, auth: &str) -> Result<BodyReader, ClientError> {
        let mut request = self.request(Method::POST, target, empty())?;
        let value = HeaderValue::from_str(auth)
            .map_err(|why| ClientError::Answer { target: target.to_owned(), why: why.to_string() })?;
        request.headers_mut().insert("x-registry-auth", value);
        Ok(self.stream_of(request).await?.1)
    }

    async fn stream_of(&self, request: Request<Body>) -> Result<(HeaderMap, BodyReader), ClientError> {
        let (response, sender) = self.exchange(request).await?;
        let response = self.checked(response, sender).await?.0;
        let (head, body) = response.into_parts();
        Ok((head.headers, BodyReader::new(body)))
    }

    /// Sends a request and turns its connection into a stream both ways (attach, exec).
    ///
    /// # Errors
    /// As for [`Client::get`], and when the daemon does not switch.
    pub(crate) async fn hijack(&self, target: &str, body: Value) -> Result<Duplex, ClientError> {
        let mut request = self.request(Method::POST, target, json_body(&body))?;
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let (response, sender) = self.exchange(request).await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            self.checked(response, sender).await?;
            return Err(ClientError::Answer {
                target: target.to_owned(),
                why: format!("the connection was not switched to a stream: {status}"),
            });
        }
        let upgraded =
            hyper::upgrade::on(response).await.map_err(|why| ClientError::Broken(why.to_string()))?;
        Ok(Duplex::new(TokioIo::new(upgraded)))
    }

    /// Sends a request, reads the whole answer and keeps the connection.
    async fn whole(
        &self,
        method: Method,
        target: &str,
        body: Body,
    ) -> Result<(HeaderMap, Bytes), ClientError> {
        let request = self.request(method, target, body)?;
        let (response, sender) = self.exchange(request).await?;
        let (response, sender) = self.checked(response, sender).await.map_err(|why| match why {
            // What both engines say of a path that they do not have.
            ClientError::Api { status: StatusCode::NOT_FOUND, message }
                if target.starts_with("/portolan/") && message == "page not found" =>
            {
                ClientError::NotOurs { host: self.host.clone(), target: target.to_owned() }
            }
            other => other,
        })?;
        let (head, body) = response.into_parts();
        let bytes = collect(body).await?;
        self.keep(sender);
        Ok((head.headers, bytes))
    }

    fn request(&self, method: Method, target: &str, body: Body) -> Result<Request<Body>, ClientError> {
        let has_body = method != Method::GET && method != Method::HEAD;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.prefix))
            .header(header::HOST, self.host.authority())
            .header(header::USER_AGENT, concat!("Portolan-Client/", env!("CARGO_PKG_VERSION"), " (linux)"));
        if has_body {
            request = request.header(header::CONTENT_TYPE, content_type(target));
        }
        let mut request = request
            .body(body)
            .map_err(|why| ClientError::Answer { target: target.to_owned(), why: why.to_string() })?;
        for (name, value) in &self.headers {
            request.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        Ok(request)
    }

    /// The daemon's address.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    async fn exchange(&self, request: Request<Body>) -> Result<(Response<Incoming>, Sender), ClientError> {
        let kept = self.idle.borrow_mut().take();
        let mut sender = match kept.filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let broken = |why: hyper::Error| ClientError::Broken(why.to_string());
        sender.ready().await.map_err(broken)?;
        let told = self.debug.then(|| (format!("{} {}", request.method(), request.uri()), Instant::now()));
        let response = sender.send_request(request).await.map_err(broken)?;
        if let Some((what, since)) = told {
            line_err(&format!("DEBUG {what} -> {} in {:?}", response.status(), since.elapsed()));
        }
        Ok((response, sender))
    }

    /// Keeps a connection whose answer was read to its end.
    fn keep(&self, sender: Sender) {
        *self.idle.borrow_mut() = Some(sender);
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let io = self
            .host
            .connect()
            .await
            .map_err(|source| ClientError::Connect { host: self.host.clone(), source })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(io)).await.map_err(|why| ClientError::Broken(why.to_string()))?;
        tokio::spawn(async move {
            // A broken connection shows in the request that uses it.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// Passes a successful answer on and turns any other into an error.
    async fn checked(
        &self,
        response: Response<Incoming>,
        sender: Sender,
    ) -> Result<(Response<Incoming>, Sender), ClientError> {
        let status = response.status();
        if status.is_success() || matches!(status.as_u16(), 101 | 304) {
            return Ok((response, sender));
        }
        let bytes = collect(response.into_body()).await?;
        self.keep(sender);
        let message = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
        let message = match message.as_str() {
            "" => format!("request returned {status} without a text"),
            _ => message,
        };
        Err(ClientError::Api { status, message })
    }
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    body.collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|why| ClientError::Broken(why.to_string()))
}

fn content_type(target: &str) -> &'static str {
    if target.starts_with("/images/load")
        || target.starts_with("/images/create")
        || target.contains("/archive?")
    {
        "application/x-tar"
    } else {
        "application/json"
    }
}

/// A body with nothing in it.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// A body that streams.
pub(crate) fn upload(chunks: Upload) -> Body {
    use futures_util::TryStreamExt;
    StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
}

fn json_body(value: &Value) -> Body {
    match value {
        Value::Null => empty(),
        value => full(Bytes::from(value.to_string())),
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Writes a path and query: `path` is taken as it is, values are escaped, pairs with an empty value
/// are left out.
pub(crate) fn target(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    let mut separator = '?';
    for (key, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(separator);
        separator = '&';
        out.push_str(key);
        out.push('=');
        out.push_str(&escape(value));
    }
    out
}

/// Escapes text for one segment of a path or one value of a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Escapes an image reference for a path: the slashes and colons stay.
pub(crate) fn escape_image(text: &str) -> String {
    escape(text).replace("%2F", "/").replace("%3A", ":").replace("%40", "@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_escaped() {
        assert_eq!(
            target("/x", &[("a", ""), ("b", "1&2"), ("c", "{\"d\":[\"é\"]}")]),
            "/x?b=1%262&c=%7B%22d%22%3A%5B%22%C3%A9%22%5D%7D"
        );
        assert_eq!(escape_image("a/b:c@sha256:d"), "a/b:c@sha256:d");
    }
}

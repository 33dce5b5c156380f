//! One client's connection: hyper for what is HTTP, our own hands for hijack requests of the old style.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::sniff::{Boundary, Sniffer};
use super::stream::Stream;
use super::takeover::Takeover;
use crate::http::{ApiError, Body, Query, Request, Response, decode_json, empty};
use crate::identity::NEWEST_API;
use crate::state::State;
use crate::{router, routes};

/// Longest JSON body of a hijack request, bytes: it holds a few flags.
const HIJACK_BODY_LIMIT: usize = 64 << 10;

/// Serves a connection until the client closes it, or until `shutdown` and the end of the request under way.
pub(super) async fn serve(state: Arc<State>, stream: Stream, shutdown: CancellationToken) {
    // A client of a unix socket may say that it has no more to say, and wait for its answer (`nc -N`); it is gone
    // when it hears no more either. On TCP that cannot be told, and clients close both halves.
    let gone = if stream.is_unix() { stream.gone().ok() } else { None };
    let boundary = Boundary::new();
    let io = TokioIo::new(Sniffer::new(stream, boundary.clone()));
    let service = service_fn(|request| answer(state.clone(), boundary.clone(), shutdown.clone(), request));
    let mut connection = hyper::server::conn::http1::Builder::new()
        .half_close(gone.is_some())
        .serve_connection(io, service)
        .with_upgrades();
    let ends = async {
        tokio::select! {
            result = &mut connection => result,
            () = shutdown.cancelled() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    let leaves = async {
        match gone {
            Some(gone) => gone.await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        result = ends => result,
        () = leaves => return tracing::debug!("the client left"),
    };
    let malformed = result.as_ref().is_err_and(hyper::Error::is_parse);
    if let Err(error) = result {
        tracing::debug!("connection ended: {error}");
    }
    // None if hyper gave the connection away with a 101.
    let Some(parts) = connection.into_parts() else { return };
    let (mut stream, seen, caught) = parts.io.into_inner().into_parts();
    if malformed {
        return linger(&mut stream).await;
    }
    if caught && let Err(error) = hijack(&state, stream, seen).await {
        tracing::debug!("hijacked connection ended: {error}");
    }
}

async fn answer(
    state: Arc<State>,
    boundary: Boundary,
    shutdown: CancellationToken,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut response = router::serve(&state, request).await;
    response.body_mut().break_off(shutdown);
    response.body_mut().on_drop(move || boundary.reached());
    Ok(response)
}

/// Serves the request that begins `seen`; afterwards the connection is the client's.
async fn hijack(state: &Arc<State>, mut stream: Stream, mut seen: BytesMut) -> io::Result<()> {
    let outcome = match parse_head(&mut seen) {
        None => Err(ApiError::invalid("malformed request")),
        Some((request, path, length)) => match read_body(&mut stream, &mut seen, length).await? {
            None => Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large")),
            Some(body) => begin(state, &request, &path, &body).await,
        },
    };
    match outcome {
        Ok(Some(takeover)) => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
                .await?;
            takeover.run(stream, seen.freeze()).await
        }
        Ok(None) => write_response(&mut stream, empty(StatusCode::OK)).await,
        Err(error) => write_response(&mut stream, error.into()).await,
    }
}

/// The route, once more: there are only two. `None` for an exec that is detached.
async fn begin(
    state: &Arc<State>,
    request: &Request,
    path: &str,
    body: &[u8],
) -> Result<Option<Takeover>, ApiError> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments[..] {
        ["containers", name, "attach"] => routes::attach(state, request, name).await.map(Some),
        ["exec", id, "start"] => {
            let options = if body.is_empty() { Default::default() } else { decode_json(body)? };
            routes::exec::start(state, request, id, options).await
        }
        _ => Err(ApiError::page_not_found()),
    }
}

/// Takes the head off `seen`: the request, its path without the version, and the length of its body.
fn parse_head(seen: &mut BytesMut) -> Option<(Request, String, usize)> {
    let end = seen.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = seen.split_to(end + 4);
    let text = std::str::from_utf8(&head[..end]).ok()?;
    let mut lines = text.split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(
            HeaderName::from_bytes(name.trim().as_bytes()).ok()?,
            HeaderValue::from_str(value.trim()).ok()?,
        );
    }
    let length = match headers.get(header::CONTENT_LENGTH) {
        None => 0,
        Some(length) => length.to_str().ok()?.parse().ok()?,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (version, rest) = router::split_version(path).unwrap_or((NEWEST_API, path));
    let request = Request {
        method: Method::POST,
        path: rest.to_owned(),
        query: Query::parse(query),
        version,
        headers,
        body: None,
        upgrade: None,
    };
    Some((request, crate::http::percent_decode(rest, false).into_owned(), length))
}

/// Reads the body; what comes after it stays in `seen`. `None` if it is too long.
async fn read_body(stream: &mut Stream, seen: &mut BytesMut, length: usize) -> io::Result<Option<Bytes>> {
    if length > HIJACK_BODY_LIMIT {
        return Ok(None);
    }
    while seen.len() < length {
        if stream.read_buf(seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(seen.split_to(length).freeze()))
}

/// Writes an answer that has a whole body, and closes.
async fn write_response(stream: &mut Stream, response: Response) -> io::Result<()> {
    stream.write_all(&encode(response)).await?;
    linger(stream).await;
    Ok(())
}

/// An answer that has a whole body, as the last one on its connection.
pub(super) fn encode(mut response: Response) -> Bytes {
    router::add_headers(&mut response);
    let (parts, body): (_, Body) = response.into_parts();
    let body = body.into_bytes().unwrap_or_default();
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
        .extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes.into()
}

/// Ends our half of a connection and takes in, for a while, what the client still sends: closed with something
/// unread, a socket is reset, and the client loses the answer.
async fn linger(stream: &mut Stream) {
    const LIMIT: usize = 128 << 20;
    const IDLE: Duration = Duration::from_secs(1);
    if stream.shutdown().await.is_err() {
        return;
    }
    let (mut seen, mut buffer) = (0, vec![0; 64 << 10]);
    while seen < LIMIT {
        match tokio::time::timeout(IDLE, stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => seen += count,
            _ => return,
        }
    }
}

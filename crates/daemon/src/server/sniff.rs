//! Finds the requests that hyper cannot serve.
//!
//! Docker's attach and exec start take over the connection. Clients that say `Upgrade: tcp` get a `101` from
//! hyper. Older ones say nothing, expect `200 OK`, and then talk raw: to hyper that is the body of one request
//! and the rubbish of the next. [`Sniffer`] stands between the socket and hyper. Whenever no request is under
//! way, it looks at the head that comes next; if it is such a request, hyper sees the end of the connection and
//! hands the socket back, together with the head.
//!
//! It writes request targets the way hyper takes them: clients send `filters={"name":["web"]}` as it is, and Go's
//! server does not mind. And it puts words into the answers that hyper gives by itself, to what is no request: they have no body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::ApiError;

/// Longest head that is looked at, bytes; longer ones are hyper's to refuse.
const HEAD_LIMIT: usize = 64 << 10;

/// How much is read at once while looking.
const READ_SIZE: usize = 8 << 10;

/// Whether the next bytes of a connection begin a request: set by whoever has finished an answer.
#[derive(Clone, Debug)]
pub(crate) struct Boundary(Arc<AtomicBool>);

impl Boundary {
    pub(crate) fn new() -> Self {
        Boundary(Arc::new(AtomicBool::new(true)))
    }

    /// An answer has been sent: a request comes next.
    pub(crate) fn reached(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_here(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn passed(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A connection whose requests are looked at before hyper gets them.
#[derive(Debug)]
pub(crate) struct Sniffer<S> {
    io: S,
    boundary: Boundary,
    /// Read from the socket, not yet given to hyper.
    seen: BytesMut,
    /// The bytes in `seen` are for hyper.
    release: bool,
    /// `seen` begins with a request that hyper must not get.
    caught: bool,
    /// An answer of ours in place of hyper's, not yet written.
    answer: Bytes,
}

impl<S> Sniffer<S> {
    pub(crate) fn new(io: S, boundary: Boundary) -> Self {
        Sniffer { io, boundary, seen: BytesMut::new(), release: false, caught: false, answer: Bytes::new() }
    }

    /// The connection, the bytes read beyond what hyper got, and whether they begin with a hijack request.
    pub(crate) fn into_parts(self) -> (S, BytesMut, bool) {
        (self.io, self.seen, self.caught)
    }
}

/// What the beginning of a request says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not enough yet to know.
    Incomplete,
    /// For hyper.
    Ordinary,
    /// A hijack request of the old style.
    Hijack,
}

/// Looks at the beginning of a request.
fn judge(seen: &[u8]) -> Verdict {
    const METHOD: &[u8] = b"POST ";
    // The target is to be seen whole; what is no HTTP at all may never have an end of line.
    let is_text = seen.first().is_some_and(u8::is_ascii_uppercase);
    if is_text && !seen.contains(&b'\n') && seen.len() < HEAD_LIMIT {
        return Verdict::Incomplete;
    }
    let common = seen.len().min(METHOD.len());
    if seen[..common] != METHOD[..common] {
        return Verdict::Ordinary;
    }
    let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if seen.len() >= HEAD_LIMIT { Verdict::Ordinary } else { Verdict::Incomplete };
    };
    let Ok(head) = std::str::from_utf8(&seen[..end]) else { return Verdict::Ordinary };
    let mut lines = head.split("\r\n");
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let has_other_form = lines.any(|line| {
        let name = line.split(':').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("upgrade") || name.eq_ignore_ascii_case("transfer-encoding")
    });
    if !has_other_form && takes_over(target) { Verdict::Hijack } else { Verdict::Ordinary }
}

/// Percent-encodes what hyper does not take in a request's target (RFC 3986 does not, either).
fn encode_target(seen: &mut BytesMut) {
    const REFUSED: &[u8] = b"\"<>\\^`{|}";
    let is_refused = |byte: &u8| REFUSED.contains(byte) || !byte.is_ascii();
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else { return };
    let mut spaces = (0..end).filter(|at| seen[*at] == b' ');
    let (Some(before), Some(after)) = (spaces.next(), spaces.next()) else { return };
    if !seen[before..after].iter().any(is_refused) {
        return;
    }
    let mut encoded = BytesMut::with_capacity(seen.len() + 64);
    encoded.extend_from_slice(&seen[..before]);
    for byte in &seen[before..after] {
        if is_refused(byte) {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            encoded.extend_from_slice(&[*byte]);
        }
    }
    encoded.extend_from_slice(&seen[after..]);
    *seen = encoded;
}

/// Whether a request to this path may take over its connection.
fn takes_over(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments.first().is_some_and(|first| crate::router::version_of(first).is_some()) {
        segments.remove(0);
    }
    matches!(segments[..], ["containers", _, "attach"] | ["exec", _, "start"])
}

impl<S: AsyncRead + Unpin> Sniffer<S> {
    /// Reads until it is known what the next request is.
    fn poll_judge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let verdict = if self.seen.is_empty() { Verdict::Incomplete } else { judge(&self.seen) };
            match verdict {
                Verdict::Incomplete => {}
                Verdict::Ordinary => {
                    encode_target(&mut self.seen);
                    self.boundary.passed();
                    self.release = true;
                    return Poll::Ready(Ok(()));
                }
                Verdict::Hijack => {
                    self.caught = true;
                    return Poll::Ready(Ok(()));
                }
            }
            let mut room = [std::mem::MaybeUninit::uninit(); READ_SIZE];
            let mut buf = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                // The end: whatever has been seen is hyper's to complain about.
                self.release = true;
                return Poll::Ready(Ok(()));
            }
            self.seen.extend_from_slice(buf.filled());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.release && !this.caught && (this.boundary.is_here() || !this.seen.is_empty()) {
            ready!(this.poll_judge(cx))?;
        }
        if this.caught {
            return Poll::Ready(Ok(()));
        }
        if this.seen.is_empty() {
            if this.release {
                this.release = false;
                if this.boundary.is_here() {
                    // The end was read while looking.
                    return Poll::Ready(Ok(()));
                }
            }
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let len = buf.remaining().min(this.seen.len());
        buf.put_slice(&this.seen[..len]);
        this.seen.advance(len);
        this.release = !this.seen.is_empty();
        Poll::Ready(Ok(()))
    }
}

/// The status, if this is an answer that hyper gives by itself: no body, and not the headers that all of ours have.
fn automatic(bytes: &[u8]) -> Option<StatusCode> {
    let head = bytes.strip_prefix(b"HTTP/1.1 ")?.strip_suffix(b"\r\n\r\n")?;
    let head = std::str::from_utf8(head).ok()?;
    let empty = head.split("\r\n").any(|line| line == "content-length: 0");
    let ours = head.split("\r\n").any(|line| line.starts_with("api-version:"));
    (empty && !ours).then(|| StatusCode::from_bytes(head.get(..3)?.as_bytes()).ok()).flatten()
}

/// The same answer with words.
fn worded(status: StatusCode) -> Bytes {
    let message = match status {
        StatusCode::URI_TOO_LONG => "the request's URI is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the request's header is too large",
        _ => "malformed HTTP request",
    };
    super::connection::encode(ApiError::new(status, message).into())
}

impl<S: AsyncWrite + Unpin> Sniffer<S> {
    /// Writes what is left of an answer of ours.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.answer.has_remaining() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.answer))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.answer.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffer<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(cx))?;
        match automatic(bytes) {
            Some(status) => {
                self.answer = worded(status);
                Poll::Ready(Ok(bytes.len()))
            }
            None => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(cx))?;
        match slices {
            [only] => self.poll_write(cx, only),
            _ => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        // The connection goes on after hyper.
        if self.caught { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_shutdown(cx) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn only_old_hijack_requests_are_caught() {
        let judged = |head: &str| judge(format!("{head}\r\n\r\n{{}}").as_bytes());
        assert_eq!(judged("POST /v1.41/containers/web/attach?stream=1 HTTP/1.1\r\nHost: x"), Verdict::Hijack);
        assert_eq!(judged("POST /exec/abc/start HTTP/1.1\r\nContent-Length: 2"), Verdict::Hijack);
        for head in [
            "GET /v1.41/containers/web/attach HTTP/1.1",
            "POST /v1.41/containers/web/attach HTTP/1.1\r\nupgrade: tcp\r\nConnection: Upgrade",
            "POST /exec/abc/start HTTP/1.1\r\nTransfer-Encoding: chunked",
            "POST /v1.41/containers/create HTTP/1.1",
            "POST /v1.41/exec/a/resize HTTP/1.1",
        ] {
            assert_eq!(judged(head), Verdict::Ordinary, "{head}");
        }
        assert_eq!(judge(b"PO"), Verdict::Incomplete);
        assert_eq!(judge(b"\x16\x03\x01"), Verdict::Ordinary);
        assert_eq!(judge(b"POST /exec/abc/start HTTP/1.1\r\nConte"), Verdict::Incomplete);
    }

    #[test]
    fn targets_are_written_as_hyper_takes_them() {
        let encoded = |line: &str| {
            let mut seen = BytesMut::from(line.as_bytes());
            encode_target(&mut seen);
            String::from_utf8(seen.to_vec()).unwrap()
        };
        assert_eq!(
            encoded("GET /networks?filters={\"name\":[\"é\"]} HTTP/1.1\r\nX: \"\r\n"),
            "GET /networks?filters=%7B%22name%22:[%22%C3%A9%22]%7D HTTP/1.1\r\nX: \"\r\n"
        );
        for unchanged in ["GET /a%22 HTTP/1.1\r\n\r\n{\"\"}", "{ } { }", "{ {\r\n", "\r\n"] {
            assert_eq!(encoded(unchanged), unchanged);
        }
    }

    #[tokio::test]
    async fn bytes_for_hyper_pass_unchanged_however_they_come() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let boundary = Boundary::new();
        let mut sniffer = Sniffer::new(server, boundary.clone());
        let request = b"POST /images/load HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let writing = async {
            for byte in request {
                client.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let mut read = Vec::new();
        let (_, result) = tokio::join!(writing, sniffer.read_to_end(&mut read));
        result.unwrap();
        assert_eq!(read, request);
    }

    #[tokio::test]
    async fn hypers_own_answers_get_words() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut sniffer = Sniffer::new(server, Boundary::new());
        sniffer.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let ours = b"HTTP/1.1 304 Not Modified\r\napi-version: 1.51\r\ncontent-length: 0\r\n\r\n";
        sniffer.write_all(ours).await.unwrap();
        drop(sniffer);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(text.contains("\r\n\r\n{\"message\":\"malformed HTTP request\"}\n"), "{text}");
        assert!(text.ends_with(std::str::from_utf8(ours).unwrap()), "{text}");
    }

    #[tokio::test]
    async fn a_hijack_request_ends_the_stream_and_is_kept() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let boundary = Boundary::new();
        let mut sniffer = Sniffer::new(server, boundary.clone());
        client.write_all(b"GET /_ping HTTP/1.1\r\n\r\n").await.unwrap();
        let mut first = [0; 23];
        sniffer.read_exact(&mut first).await.unwrap();
        boundary.reached();
        client.write_all(b"POST /containers/x/attach HTTP/1.1\r\n\r\nraw").await.unwrap();
        let mut rest = Vec::new();
        sniffer.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        let (_, seen, caught) = sniffer.into_parts();
        assert!(caught);
        assert!(seen.ends_with(b"\r\n\r\nraw"));
    }
}

//! Bodies: of answers (whole or in pieces), and bridges between bodies and blocking readers and writers.

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Runs when the body has been sent (or given up).
type OnDrop = Box<dyn FnOnce() + Send>;

/// The body of an answer.
pub(crate) struct Body {
    kind: Kind,
    on_drop: Option<OnDrop>,
    /// Breaks the body off.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

enum Kind {
    Full(Option<Bytes>),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Body { kind: Kind::Full(None), on_drop: None, stop: None }
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Body { kind: Kind::Full(Some(bytes).filter(|bytes| !bytes.is_empty())), on_drop: None, stop: None }
    }

    pub(crate) fn stream(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Body { kind: Kind::Stream(Box::pin(pieces)), on_drop: None, stop: None }
    }

    /// Tells when the body has been sent.
    pub(crate) fn on_drop(&mut self, done: impl FnOnce() + Send + 'static) {
        self.on_drop = Some(Box::new(done));
    }

    /// Breaks a body that comes in pieces off when the daemon ends: logs that are followed have no end of their own.
    pub(crate) fn break_off(&mut self, stop: CancellationToken) {
        if matches!(self.kind, Kind::Stream(_)) {
            self.stop = Some(Box::pin(stop.cancelled_owned()));
        }
    }

    /// The bytes of a body that does not come in pieces.
    pub(crate) fn into_bytes(mut self) -> Option<Bytes> {
        match &mut self.kind {
            Kind::Full(bytes) => Some(bytes.take().unwrap_or_default()),
            Kind::Stream(_) => None,
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(done) = self.on_drop.take() {
            done();
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.kind {
            Kind::Full(_) => "Body::Full",
            Kind::Stream(_) => "Body::Stream",
        })
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            self.stop = None;
            return Poll::Ready(Some(Err(io::Error::other("the daemon is shutting down"))));
        }
        match &mut self.kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(pieces) => {
                pieces.as_mut().poll_next(cx).map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}

/// How much of a body that nobody wants is read, so that the client gets to read the answer.
const DRAIN_LIMIT: usize = 1 << 30;

/// Reads a body to its end and forgets it: a client that is still writing when the connection closes sees a
/// broken pipe and not the answer.
pub(crate) async fn drain(mut body: Incoming) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > DRAIN_LIMIT {
            return;
        }
    }
}

/// A request's body for code that reads blocking, on a blocking thread. A body that breaks off is an error.
#[derive(Debug)]
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl BodyReader {
    /// Takes a body; what the reader does not want is drained behind it.
    pub(crate) fn new(body: Option<Incoming>) -> Self {
        let (sender, pieces) = mpsc::channel(16);
        if let Some(body) = body {
            tokio::spawn(forward(body, sender));
        }
        BodyReader { pieces, piece: Bytes::new() }
    }
}

async fn forward(mut body: Incoming, sender: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => frame.into_data().map_err(|_| ()).map(Ok),
            Err(error) => Ok(Err(io::Error::other(format!("the request body broke off: {error}")))),
        };
        let Ok(piece) = piece else { continue };
        if sender.send(piece).await.is_err() {
            return drain(body).await;
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

/// Size of the pieces that a [`BodyWriter`] sends, bytes.
const PIECE: usize = 64 << 10;

/// An answer's body for code that writes blocking, on a blocking thread.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl BodyWriter {
    /// The writer, and the pieces it makes; the last one comes when the writer is dropped.
    pub(crate) fn new() -> (Self, mpsc::Receiver<io::Result<Bytes>>) {
        let (sender, pieces) = mpsc::channel(16);
        (BodyWriter { sender, buffer: BytesMut::new() }, pieces)
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        // The client may have gone: then there is nobody to send the rest to.
        let _ = self.send();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_breaks_off_when_the_daemon_ends() {
        let stop = CancellationToken::new();
        let mut body = Body::stream(futures_util::stream::pending());
        body.break_off(stop.clone());
        let reading = tokio::spawn(async move { body.frame().await });
        tokio::task::yield_now().await;
        stop.cancel();
        assert!(reading.await.unwrap().unwrap().is_err());
    }

    #[tokio::test]
    async fn a_writer_sends_large_pieces_and_the_rest() {
        let (mut writer, mut pieces) = BodyWriter::new();
        let writing = tokio::task::spawn_blocking(move || {
            for _ in 0..3 {
                writer.write_all(&[7; 50_000]).unwrap();
            }
        });
        let mut lengths = Vec::new();
        while let Some(piece) = pieces.recv().await {
            lengths.push(piece.unwrap().len());
        }
        writing.await.unwrap();
        assert_eq!(lengths, [100_000, 50_000]);
    }
}

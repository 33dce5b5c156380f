//! Answers that arrive piece by piece.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::ClientError;

/// A body, read chunk by chunk.
#[derive(Debug)]
pub(crate) struct BodyReader {
    body: Incoming,
}

impl BodyReader {
    pub(super) fn new(body: Incoming) -> BodyReader {
        BodyReader { body }
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|why| ClientError::Broken(why.to_string()))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads the rest as a sequence of JSON values.
    pub(crate) fn json_lines(self) -> JsonLines {
        JsonLines { body: self, buffer: BytesMut::new() }
    }
}

/// A sequence of JSON values: a body of events, of progress or of statistics.
#[derive(Debug)]
pub(crate) struct JsonLines {
    body: BodyReader,
    buffer: BytesMut,
}

impl JsonLines {
    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks or what arrives is not JSON.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
            match values.next() {
                Some(Ok(value)) => {
                    let read = values.byte_offset();
                    self.buffer.advance(read);
                    return Ok(Some(value));
                }
                Some(Err(why)) if !why.is_eof() => {
                    return Err(ClientError::Answer { target: "a stream".to_owned(), why: why.to_string() });
                }
                _ => {}
            }
            match self.body.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// The two directions of a connection that left HTTP behind.
#[derive(Debug)]
pub(crate) struct Duplex {
    /// What the daemon sends.
    pub(crate) output: DuplexOutput,
    /// What we send.
    pub(crate) input: DuplexInput,
}

/// The reading half of a [`Duplex`].
#[derive(Debug)]
pub(crate) struct DuplexOutput(ReadHalf<TokioIo<Upgraded>>);

/// The writing half of a [`Duplex`].
#[derive(Debug)]
pub(crate) struct DuplexInput(WriteHalf<TokioIo<Upgraded>>);

impl Duplex {
    pub(super) fn new(io: TokioIo<Upgraded>) -> Duplex {
        let (output, input) = tokio::io::split(io);
        Duplex { output: DuplexOutput(output), input: DuplexInput(input) }
    }
}

impl DuplexOutput {
    /// Appends what arrives next to `buffer`; 0 at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        buffer.reserve(32 * 1024);
        self.0.read_buf(buffer).await
    }
}

impl DuplexInput {
    /// Sends as many of the bytes as the connection takes now, and says how many.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).await
    }

    /// Says that nothing more will be sent; what the daemon sends still arrives.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

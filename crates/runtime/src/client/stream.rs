//! Attached standard streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::status::OutputStream;
use crate::wire::{FRAME_HEAD, FRAME_STDERR, FRAME_STDOUT};

/// Which streams to attach to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Send standard input.
    pub stdin: bool,
    /// Receive standard output.
    pub stdout: bool,
    /// Receive standard error.
    pub stderr: bool,
}

/// The streams of a process. Ends when the process has exited and everything it wrote was handed over.
#[derive(Debug)]
pub struct AttachStream {
    /// What it writes.
    pub output: AttachOutput,
    /// What it reads; `shutdown` is end of file.
    pub input: AttachInput,
}

impl AttachStream {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self { output: AttachOutput { read, buffer: BytesMut::new() }, input: AttachInput { write } }
    }

    /// The two halves, to be used by two tasks.
    pub fn split(self) -> (AttachOutput, AttachInput) {
        (self.output, self.input)
    }
}

/// What a process writes.
#[derive(Debug)]
pub struct AttachOutput {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

impl AttachOutput {
    /// The next piece; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> io::Result<Option<(OutputStream, Bytes)>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Self::next`], for hand-written streams.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<(OutputStream, Bytes)>>> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            let before = self.buffer.len();
            self.buffer.resize(before + 32 * 1024, 0);
            let mut room = ReadBuf::new(&mut self.buffer[before..]);
            let polled = Pin::new(&mut self.read).poll_read(context, &mut room);
            let filled = room.filled().len();
            self.buffer.truncate(before + filled);
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if filled == 0 => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    fn take_frame(&mut self) -> io::Result<Option<(OutputStream, Bytes)>> {
        let Some(head) = self.buffer.get(..FRAME_HEAD) else { return Ok(None) };
        let stream = match head[0] {
            FRAME_STDOUT => OutputStream::Stdout,
            FRAME_STDERR => OutputStream::Stderr,
            kind => return Err(io::Error::other(format!("unknown frame {kind} from the shim"))),
        };
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if self.buffer.len() < FRAME_HEAD + length {
            return Ok(None);
        }
        let _ = self.buffer.split_to(FRAME_HEAD);
        Ok(Some((stream, self.buffer.split_to(length).freeze())))
    }
}

/// What a process reads.
#[derive(Debug)]
pub struct AttachInput {
    write: OwnedWriteHalf,
}

impl AsyncWrite for AttachInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}

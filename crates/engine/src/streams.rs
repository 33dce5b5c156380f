//! What flows: output of containers and execs, input to them, events.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{EngineError, Result};
use crate::model::{Event, WaitOutcome};

/// Which standard stream a piece of output was written to. A terminal's output is all `Stdout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// 1 in Docker's stream header.
    Stdout,
    /// 2 in Docker's stream header.
    Stderr,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where it was written to.
    pub stream: OutputStream,
    /// What was written.
    pub bytes: Bytes,
}

/// Output until it ends.
#[derive(Debug)]
pub struct Output {
    pub(crate) chunks: mpsc::Receiver<OutputChunk>,
}

impl Output {
    /// The next piece; none at the end (the process ended, or the client detached).
    pub async fn next(&mut self) -> Option<OutputChunk> {
        self.chunks.recv().await
    }
}

/// Standard input of a container or an exec. Dropping it is leaving, which ends the process's standard
/// input only if the container says so (`StdinOnce`); [`Input::close`] is the client's end of file.
#[derive(Debug)]
pub struct Input {
    pub(crate) pieces: mpsc::Sender<InputPiece>,
}

#[derive(Debug)]
pub(crate) enum InputPiece {
    Bytes(Bytes),
    End,
}

impl Input {
    /// Hands bytes to the process, and looks out for the detach keys; waits while the process does not read.
    ///
    /// # Errors
    /// `BrokenPipe` if the process ended, closed its standard input, or the client detached.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.pieces.send(InputPiece::Bytes(bytes)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// No more input follows.
    pub async fn close(self) {
        // The process may have ended already: then there is nobody to tell.
        let _ = self.pieces.send(InputPiece::End).await;
    }
}

/// A client attached to a container or an exec.
#[derive(Debug)]
pub struct Attachment {
    /// The output is one raw stream of a terminal, without headers.
    pub tty: bool,
    /// Standard input, if it was asked for.
    pub input: Option<Input>,
    /// What the process writes.
    pub output: Output,
}

/// A container's log, as it is on disk and then, if followed, as it grows. Bytes are complete lines, with
/// their time in front if asked for.
#[derive(Debug)]
pub struct Logs {
    /// The container has a terminal: write the bytes raw, without stream headers.
    pub tty: bool,
    /// The lines.
    pub output: Output,
}

/// Somebody who waits for a container.
#[derive(Debug)]
pub struct Waiter {
    pub(crate) outcome: tokio::sync::oneshot::Receiver<Result<WaitOutcome>>,
}

impl Waiter {
    /// Waits until the condition holds. May be called long after the waiter was made: nothing is missed.
    pub async fn outcome(self) -> Result<WaitOutcome> {
        self.outcome.await.unwrap_or_else(|_| Err(EngineError::internal("the engine is shutting down")))
    }
}

/// Events: those of the past that were asked for, then new ones.
#[derive(Debug)]
pub struct Events {
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
}

impl Events {
    /// The next one; none when `until` has come, or the engine ends.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

//! What flows: output of containers and execs, input to them, events.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::error::{EngineError, Result};
use crate::model::{Event, WaitCondition, WaitOutcome};

/// Which standard stream a piece of output was written to. A terminal's output is all `Stdout`.
pub use portolan_runtime::OutputStream;

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

/// A tar stream.
#[derive(Debug)]
pub struct Archive {
    pub(crate) pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Archive {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// The archive breaks off: what came before is not all of it.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.pieces.recv().await
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
    pub(crate) lifecycle: watch::Receiver<Lifecycle>,
    pub(crate) condition: WaitCondition,
    /// How often it had exited when the wait began.
    pub(crate) exits_before: u64,
}

impl Waiter {
    /// Waits until the condition holds. May be called long after the waiter was made: nothing is missed.
    pub async fn outcome(mut self) -> Result<WaitOutcome> {
        let (condition, before) = (self.condition, self.exits_before);
        let done = |now: &Lifecycle| match condition {
            WaitCondition::NotRunning => !now.running || now.exits > before,
            WaitCondition::NextExit => now.exits > before,
            WaitCondition::Removed => false,
        };
        match self.lifecycle.wait_for(|now| now.removed || done(now)).await {
            Ok(now) => Ok(WaitOutcome { exit_code: now.exit_code, error: None }),
            Err(_) => Err(EngineError::internal("the engine is shutting down")),
        }
    }
}

/// What those who wait for a container look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    /// Its first process exists.
    pub(crate) running: bool,
    /// How often it has exited, or failed to start, since the daemon knows it.
    pub(crate) exits: u64,
    /// Of the last exit.
    pub(crate) exit_code: i32,
    /// Nothing of it can be seen any more.
    pub(crate) removed: bool,
}

/// Events: those of the past that were asked for, then new ones.
#[derive(Debug)]
pub struct Events {
    pub(crate) past: VecDeque<Event>,
    pub(crate) receiver: mpsc::Receiver<Event>,
    pub(crate) until: Option<Timestamp>,
}

impl Events {
    /// The next one; none when `until` has come, when the listener lags too far behind, or the engine ends.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        let Some(until) = self.until else { return self.receiver.recv().await };
        let left = Timestamp::now().duration_until(until);
        // A time before now leaves what has been sent already.
        match Duration::try_from(left) {
            Ok(left) => tokio::time::timeout(left, self.receiver.recv()).await.ok().flatten(),
            Err(_) => self.receiver.try_recv().ok(),
        }
    }
}

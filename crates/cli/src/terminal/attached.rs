//! Being attached: our streams joined with those of a process.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::detach::{Typed, Watch};
use super::frames::{Frames, Sink};
use super::raw::RawMode;
use crate::client::{Duplex, DuplexInput, DuplexOutput};

/// Ctrl-P, Ctrl-Q.
const DEFAULT_DETACH_KEYS: [u8; 2] = [16, 17];

/// Which streams are joined, and how.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// Send our standard input.
    pub(crate) stdin: bool,
    /// Show the process's output.
    pub(crate) sink: Sink,
    /// The process has a terminal: raw mode, no frames.
    pub(crate) tty: bool,
    /// The bytes that detach; `None` for the default ones.
    pub(crate) detach_keys: Option<Vec<u8>>,
}

/// How being attached ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Ended {
    /// The process closed its output.
    Output,
    /// The user typed the detach keys.
    Detached,
}

/// An attached process.
#[derive(Debug)]
pub(crate) struct Attached {
    output: DuplexOutput,
    frames: Frames,
    input: Input,
    /// Raw mode lasts as long as we are attached.
    raw: Option<RawMode>,
    ended: bool,
}

/// Our standard input on its way.
#[derive(Debug)]
struct Input {
    half: DuplexInput,
    typed: Option<mpsc::Receiver<Bytes>>,
    /// Taken from the reader and not yet sent.
    pending: Bytes,
    /// The detach keys were typed behind what is pending.
    detached: bool,
    watch: Watch,
}

impl Attached {
    /// Joins our streams with the connection.
    ///
    /// # Errors
    /// When the terminal refuses raw mode.
    pub(crate) async fn join(duplex: Duplex, streams: &Streams) -> io::Result<Attached> {
        let raw = (streams.stdin && streams.tty).then(RawMode::enter).transpose()?;
        let mut half = duplex.input;
        if !streams.stdin {
            // Nothing will be sent; a process that does not read does not mind.
            let _ = half.finish().await;
        }
        let keys = match (streams.tty, &streams.detach_keys) {
            (false, _) => Vec::new(),
            (true, None) => DEFAULT_DETACH_KEYS.to_vec(),
            (true, Some(keys)) => keys.clone(),
        };
        Ok(Attached {
            output: duplex.output,
            frames: Frames::new(streams.tty, streams.sink),
            input: Input {
                half,
                typed: streams.stdin.then(read_stdin),
                pending: Bytes::new(),
                detached: false,
                watch: Watch::new(keys),
            },
            raw,
            ended: false,
        })
    }

    /// Moves bytes until the process closes its output or the user detaches. Can be dropped and
    /// called again: what has moved is remembered.
    ///
    /// # Errors
    /// When our own output is closed. A connection that breaks is an end of output: what became of
    /// the process is for `wait` to say.
    pub(crate) async fn run(&mut self) -> io::Result<Ended> {
        while !self.ended {
            tokio::select! {
                read = self.output.read(&mut self.frames.buffer) => match read {
                    Ok(0) | Err(_) => self.ended = true,
                    Ok(_) => self.frames.flush()?,
                },
                detached = self.input.forward() => if detached {
                    self.raw = None;
                    return Ok(Ended::Detached);
                },
            }
        }
        self.raw = None;
        Ok(Ended::Output)
    }
}

impl Input {
    /// Takes or sends one piece of input; `true` when the detach keys were typed. Pending for ever
    /// after the end of input. May be dropped at any await: what is not sent stays in `pending`.
    async fn forward(&mut self) -> bool {
        if !self.pending.is_empty() {
            match self.half.write_some(&self.pending).await {
                Ok(sent) => self.pending.advance(sent),
                Err(_) => {
                    // Nobody reads any more; the output tells when it is over.
                    self.pending.clear();
                    self.typed = None;
                }
            }
            return self.detached && self.pending.is_empty();
        }
        let Some(typed) = &mut self.typed else {
            return std::future::pending().await;
        };
        match typed.recv().await.map(|bytes| self.watch.typed(&bytes)) {
            Some(Typed::Send(bytes)) => self.pending = Bytes::from(bytes),
            Some(Typed::Detach(bytes)) => {
                self.pending = Bytes::from(bytes);
                self.detached = true;
                self.typed = None;
            }
            None => {
                let _ = self.half.finish().await;
                self.typed = None;
            }
        }
        self.detached && self.pending.is_empty()
    }
}

/// Reads standard input in a thread of its own: it may be a file, which cannot be polled, and it
/// must not be made non-blocking, since others share it. The thread ends with the program.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0u8; 32 * 1024];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let piece = Bytes::copy_from_slice(&buffer[..length]);
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

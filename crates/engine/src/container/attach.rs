//! attach and logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use portolan_runtime::{AttachInput, AttachOutput, AttachStream, LogEntry, LogReader};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use super::detach::{self, DetachKeys};
use super::record::{Container, PendingAttach};
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::model::{AttachOptions, LogOptions, Status};
use crate::streams::{Attachment, Input, InputPiece, Logs, Output, OutputChunk};

/// Pieces of output that may wait for a slow client; beyond, the shim waits.
const OUTPUT_QUEUE: usize = 16;
const INPUT_QUEUE: usize = 4;

impl Engine {
    /// `POST /containers/{id}/attach`. A container that has not been started yet will be attached to as it
    /// starts, so that nothing of its output is missed.
    ///
    /// # Errors
    /// `Conflict` if it is paused or restarting; `Invalid` for detach keys that make no sense.
    pub async fn container_attach(&self, name: &str, options: AttachOptions) -> Result<Attachment> {
        let keys = detach::parse(options.detach_keys.as_deref())?;
        let container = self.inner.containers.find(name)?;
        let (status, tty, open_stdin) = container.with(|record| {
            let config = &record.definition.config;
            (record.state.shown.status, config.tty, config.open_stdin)
        });
        match status {
            Status::Paused => {
                return Err(EngineError::conflict(format!(
                    "container {name} is paused, unpause the container before attach"
                )));
            }
            Status::Restarting => {
                return Err(EngineError::conflict(format!(
                    "container {name} is restarting, wait until the container is running"
                )));
            }
            _ => {}
        }
        let (chunks, output) = mpsc::channel(OUTPUT_QUEUE);
        let past = if options.logs { Some(self.past_log(&container, &options).await?) } else { None };
        let stdin = options.stdin && options.stream && open_stdin;
        let stream = if options.stream { self.stream_of(&container, &options, stdin).await? } else { None };
        self.container_event(&container, "attach", BTreeMap::new());
        let (sender, pieces) = mpsc::channel(INPUT_QUEUE);
        let engine = self.clone();
        tokio::spawn(async move {
            if let Some(past) = past
                && !forward_log(past, &chunks, false, false).await
            {
                return;
            }
            let Some(stream) = stream else { return };
            // The container may never be started: then the client leaves, or its record goes.
            let stream = tokio::select! {
                stream = stream => stream,
                () = chunks.closed() => return,
            };
            let Ok(stream) = stream else { return };
            let keys = tty.then(|| DetachKeys::new(keys));
            if pump(stream, pieces, chunks, keys).await == PumpEnd::Detached {
                engine.container_event(&container, "detach", BTreeMap::new());
            }
        });
        let input = stdin.then_some(Input { pieces: sender });
        Ok(Attachment { tty, input, output: Output { chunks: output } })
    }

    /// The streams of a running container, or of one that is going to be started.
    async fn stream_of(
        &self,
        container: &Arc<Container>,
        options: &AttachOptions,
        stdin: bool,
    ) -> Result<Option<oneshot::Receiver<AttachStream>>> {
        let options =
            portolan_runtime::AttachOptions { stdin, stdout: options.stdout, stderr: options.stderr };
        let (ready, stream) = oneshot::channel();
        let pending = PendingAttach { options, ready };
        let now = container.with(|record| match &record.shim {
            Some(shim) => Some((shim.clone(), pending)),
            None => {
                record.pending.retain(|earlier| !earlier.ready.is_closed());
                record.pending.push(pending);
                None
            }
        });
        let Some((shim, pending)) = now else { return Ok(Some(stream)) };
        match shim.attach(pending.options).await {
            Ok(attached) => {
                // The receiver is in our hands.
                let _ = pending.ready.send(attached);
                Ok(Some(stream))
            }
            // It has ended just now: an empty stream.
            Err(portolan_runtime::Error::NotRunning { .. } | portolan_runtime::Error::ShimGone { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn past_log(&self, container: &Arc<Container>, options: &AttachOptions) -> Result<LogReader> {
        let options = portolan_runtime::LogOptions {
            stdout: options.stdout,
            stderr: options.stderr,
            ..portolan_runtime::LogOptions::default()
        };
        let path = self.readable_log(container)?;
        // To the end, the tail: as much as the log is long.
        blocking(move || Ok(LogReader::open(path, options)?)).await
    }

    fn readable_log(&self, container: &Container) -> Result<std::path::PathBuf> {
        let driver = container.with(|record| record.definition.host_config.log_config.driver.clone());
        if driver == "none" {
            return Err(EngineError::not_implemented("configured logging driver does not support reading"));
        }
        Ok(self.log_path(&container.id))
    }

    /// `GET /containers/{id}/logs`.
    ///
    /// # Errors
    /// `Invalid` if neither stream is asked for; `NotImplemented` if the log is not kept.
    pub async fn container_logs(&self, name: &str, options: LogOptions) -> Result<Logs> {
        if !options.stdout && !options.stderr {
            return Err(EngineError::invalid("Bad parameters: you must choose at least one stream"));
        }
        let container = self.inner.containers.find(name)?;
        let path = self.readable_log(&container)?;
        let tty = container.with(|record| record.definition.config.tty);
        let running = container.with(|record| record.state.shown.status.is_running());
        let follow = (options.follow && running).then(|| follow_end(&container, options.until));
        let read = portolan_runtime::LogOptions {
            tail: options.tail,
            since: options.since,
            until: options.until,
            stdout: options.stdout,
            stderr: options.stderr,
            follow,
        };
        let reader = blocking(move || Ok(LogReader::open(path, read)?)).await?;
        let (chunks, output) = mpsc::channel(OUTPUT_QUEUE);
        tokio::spawn(async move { forward_log(reader, &chunks, options.timestamps, options.details).await });
        Ok(Logs { tty, output: Output { chunks: output } })
    }
}

/// Ready when the container has ended, or at `until`.
fn follow_end(
    container: &Arc<Container>,
    until: Option<jiff::Timestamp>,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    let mut lifecycle = container.lifecycle();
    Box::pin(async move {
        let ended = async {
            // The end of the sender is the end of the container too.
            let _ = lifecycle.wait_for(|now| !now.running || now.removed).await;
        };
        let Some(until) = until else { return ended.await };
        let left =
            std::time::Duration::try_from(jiff::Timestamp::now().duration_until(until)).unwrap_or_default();
        let _ = tokio::time::timeout(left, ended).await;
    })
}

/// Sends log entries to a client; false once it has left.
async fn forward_log(
    mut reader: LogReader,
    to: &mpsc::Sender<OutputChunk>,
    timestamps: bool,
    details: bool,
) -> bool {
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = to.closed() => return false,
        };
        let entry = match next {
            Ok(Some(entry)) => entry,
            Ok(None) => return true,
            Err(error) => {
                tracing::warn!(%error, "read a container's log");
                return true;
            }
        };
        let chunk = OutputChunk { stream: entry.stream, bytes: log_line(entry, timestamps, details) };
        if to.send(chunk).await.is_err() {
            return false;
        }
    }
}

fn log_line(entry: LogEntry, timestamps: bool, details: bool) -> Bytes {
    if !timestamps && !details {
        return entry.line;
    }
    let mut line = BytesMut::with_capacity(entry.line.len() + 32);
    if timestamps {
        line.put_slice(format!("{:.9} ", entry.time).as_bytes());
    }
    if details {
        // Without attributes, a space all the same.
        let pair =
            |(key, value): (&String, &String)| format!("{}={}", query_escape(key), query_escape(value));
        let pairs: Vec<String> = entry.attributes.iter().map(pair).collect();
        line.put_slice(pairs.join(",").as_bytes());
        line.put_u8(b' ');
    }
    line.put_slice(&entry.line);
    line.freeze()
}

/// As Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Why a pump came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PumpEnd {
    /// The process ended.
    Over,
    /// The client left.
    Left,
    /// The client typed the detach keys.
    Detached,
}

/// Carries input and output between a client and a process until the process ends or the client leaves.
pub(crate) async fn pump(
    stream: AttachStream,
    pieces: mpsc::Receiver<InputPiece>,
    chunks: mpsc::Sender<OutputChunk>,
    keys: Option<DetachKeys>,
) -> PumpEnd {
    let (output, input) = stream.split();
    let sending = pump_input(input, pieces, keys);
    tokio::pin!(sending);
    let receiving = pump_output(output, &chunks);
    tokio::pin!(receiving);
    let mut input_open = true;
    loop {
        tokio::select! {
            end = &mut receiving => return end,
            detached = &mut sending, if input_open => {
                if detached {
                    return PumpEnd::Detached;
                }
                input_open = false;
            }
        }
    }
}

async fn pump_output(mut output: AttachOutput, chunks: &mpsc::Sender<OutputChunk>) -> PumpEnd {
    loop {
        let next = tokio::select! {
            next = output.next() => next,
            () = chunks.closed() => return PumpEnd::Left,
        };
        match next {
            Ok(Some((stream, bytes))) => {
                if chunks.send(OutputChunk { stream, bytes }).await.is_err() {
                    return PumpEnd::Left;
                }
            }
            Ok(None) => return PumpEnd::Over,
            Err(error) => {
                tracing::debug!(%error, "the stream of a process broke");
                return PumpEnd::Over;
            }
        }
    }
}

/// True if the client typed the detach keys. The stream's input stays open, unless the client closed it.
async fn pump_input(
    mut input: AttachInput,
    mut pieces: mpsc::Receiver<InputPiece>,
    mut keys: Option<DetachKeys>,
) -> bool {
    while let Some(piece) = pieces.recv().await {
        let written = match piece {
            InputPiece::Bytes(bytes) => match &mut keys {
                None => input.write_all(&bytes).await,
                Some(keys) => {
                    let (pass, detached) = keys.feed(&bytes);
                    let written = input.write_all(&pass).await;
                    if detached {
                        return true;
                    }
                    written
                }
            },
            InputPiece::End => {
                let closed = input.shutdown().await;
                if let Err(error) = closed {
                    tracing::debug!(%error, "close the input of a process");
                }
                return false;
            }
        };
        if written.is_err() {
            // The process has ended or closed its input: what follows goes nowhere, as in a pipe.
            return false;
        }
    }
    // The client's connection broke: that is not its end of file. Half-closing would say so.
    std::future::pending().await
}

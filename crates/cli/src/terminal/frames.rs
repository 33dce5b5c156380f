//! Taking apart the stream of a process without a terminal, and writing to our own streams.

use std::io::{self, Write};

use bytes::{Buf, BytesMut};
use portolan_api::{FRAME_HEADER_LEN, FrameHeader, StreamKind};

/// Where output goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sink {
    /// Show standard output.
    pub(crate) stdout: bool,
    /// Show standard error.
    pub(crate) stderr: bool,
}

impl Sink {
    fn write(self, kind: StreamKind, bytes: &[u8]) -> io::Result<()> {
        match kind {
            StreamKind::Stdin | StreamKind::Stdout if self.stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            StreamKind::Stderr if self.stderr => io::stderr().lock().write_all(bytes),
            StreamKind::Systemerr => Err(io::Error::other(format!(
                "error from daemon in stream: {}",
                String::from_utf8_lossy(bytes)
            ))),
            _ => Ok(()),
        }
    }
}

/// Writes a stream to our own: as it is with a terminal, frame by frame without.
#[derive(Debug)]
pub(crate) struct Frames {
    raw: bool,
    sink: Sink,
    /// What arrived and is not written.
    pub(crate) buffer: BytesMut,
    /// The frame that is arriving and how much of it is missing.
    current: Option<(StreamKind, usize)>,
    error: Vec<u8>,
}

impl Frames {
    /// For a stream with (`raw`) or without a terminal.
    pub(crate) fn new(raw: bool, sink: Sink) -> Frames {
        Frames { raw, sink, buffer: BytesMut::new(), current: None, error: Vec::new() }
    }

    /// Writes what the buffer holds, as far as it is complete enough to be written.
    ///
    /// # Errors
    /// When our own stream is closed, or the frames are broken or bring the daemon's error.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.raw {
            self.sink.write(StreamKind::Stdout, &self.buffer)?;
            self.buffer.clear();
            return Ok(());
        }
        loop {
            let (kind, missing) = match self.current.take() {
                Some(current) => current,
                None => {
                    let Some(header) = self.buffer.first_chunk::<FRAME_HEADER_LEN>() else {
                        return Ok(());
                    };
                    let header = FrameHeader::decode(*header).ok_or_else(|| {
                        io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("unrecognized input header: {}", self.buffer[0]),
                        )
                    })?;
                    self.buffer.advance(FRAME_HEADER_LEN);
                    (header.kind, header.len as usize)
                }
            };
            let here = missing.min(self.buffer.len());
            let part = self.buffer.split_to(here);
            match kind {
                // The daemon's error is one text: it is told whole.
                StreamKind::Systemerr => {
                    self.error.extend_from_slice(&part);
                    if here == missing {
                        return self.sink.write(kind, &self.error);
                    }
                }
                kind => self.sink.write(kind, &part)?,
            }
            if here < missing {
                self.current = Some((kind, missing - here));
                return Ok(());
            }
        }
    }
}

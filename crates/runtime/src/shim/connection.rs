//! A client of the shim: requests in, answers and frames out, never blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::TargetId;
use crate::status::OutputStream;
use crate::wire::{self, FRAME_STDERR, FRAME_STDOUT, Request, Response};

/// What a client is to the shim.
#[derive(Debug)]
pub(super) enum Role {
    /// Sends requests.
    Control,
    /// Has asked for a process that is not under way yet; what it sends meanwhile is for that process.
    Expecting,
    /// Receives output and sends input of a process.
    Attached { target: TargetId, stdin: bool, stdout: bool, stderr: bool },
    /// Waits for the end of a process.
    Waiting(TargetId),
}

/// A client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) role: Role,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    /// The client has closed its side for sending.
    pub(super) half_closed: bool,
    /// To be closed when `outgoing` has gone.
    pub(super) closing: bool,
    pub(super) dead: bool,
    /// Since when nothing could be sent.
    pub(super) stalled: Option<Instant>,
}

/// Input that comes ahead of its process is read no further than this.
const MOST_AHEAD: usize = 64 * 1024;

/// Output is read no further while a client has this much to take: Docker's own backpressure.
pub(super) const MOST_QUEUED: usize = 1 << 20;

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            role: Role::Control,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            half_closed: false,
            closing: false,
            dead: false,
            stalled: None,
        })
    }

    /// What to wait for; `readable` if there is room for input.
    pub(super) fn interest(&self, room_for_input: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        if !self.outgoing.is_empty() {
            flags |= PollFlags::OUT;
        }
        let wants_input = match self.role {
            Role::Attached { stdin, .. } => !stdin || room_for_input,
            Role::Expecting => !self.has_plenty(),
            _ => true,
        };
        if !self.half_closed && wants_input {
            flags |= PollFlags::IN;
        }
        flags
    }

    pub(super) fn queued(&self) -> usize {
        self.outgoing.len()
    }

    pub(super) fn answer(&mut self, response: &Response) {
        self.outgoing.extend(wire::encode(response));
        self.flush();
    }

    pub(super) fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        let kind = match stream {
            OutputStream::Stdout => FRAME_STDOUT,
            OutputStream::Stderr => FRAME_STDERR,
        };
        let length = u32::try_from(bytes.len()).expect("pieces are at most 64 KiB");
        self.outgoing.push_back(kind);
        self.outgoing.extend(length.to_le_bytes());
        self.outgoing.extend(bytes);
        self.flush();
    }

    /// Sends what the client takes.
    pub(super) fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.dead {
            let (front, _) = self.outgoing.as_slices();
            match rustix::net::send(&self.socket, front, rustix::net::SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.outgoing.drain(..sent);
                    self.stalled = None;
                }
                Err(Errno::AGAIN) => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return;
                }
                Err(Errno::INTR) => {}
                Err(_) => self.dead = true,
            }
        }
        if self.closing && self.outgoing.is_empty() {
            self.dead = true;
        }
    }

    /// Ends the client when it has everything.
    pub(super) fn close_when_flushed(&mut self) {
        self.closing = true;
        self.flush();
    }

    /// Reads once; `None` if nothing is there.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) => {
                self.half_closed = true;
                None
            }
            Ok(length) => Some(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => {
                self.dead = true;
                None
            }
        }
    }

    /// Takes bytes of requests.
    pub(super) fn collect(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
    }

    /// Whether more has come than a process should find when it starts.
    pub(super) fn has_plenty(&self) -> bool {
        self.incoming.len() >= MOST_AHEAD
    }

    /// The next complete request. Input that follows an attach stays for [`Self::take_rest`].
    pub(super) fn request(&mut self) -> Option<Request> {
        let head: [u8; 4] = self.incoming.get(..4)?.try_into().ok()?;
        let Ok(length) = wire::announced(head) else {
            self.dead = true;
            return None;
        };
        if self.incoming.len() < 4 + length {
            return None;
        }
        let request = wire::decode(&self.incoming[4..4 + length]);
        self.incoming.drain(..4 + length);
        match request {
            Ok(request) => Some(request),
            Err(error) => {
                self.answer(&Response::Invalid { message: error.to_string() });
                self.close_when_flushed();
                None
            }
        }
    }

    /// What came after the request that made this connection a stream.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.incoming)
    }
}

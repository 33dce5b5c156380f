//! A process and its standard streams, as the shim holds them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::setup::{Process, Streams};
use crate::status::OutputStream;

/// Input beyond this stays in the client's socket.
const MOST_INPUT: usize = 64 * 1024;

/// The container's first process, or an executed one.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: i32,
    /// Its id if executed.
    pub(super) exec: Option<String>,
    pub(super) exit_code: Option<i32>,
    /// Clients have been told of the end.
    pub(super) finished: bool,
    streams: Streams,
    input: VecDeque<u8>,
    /// Nothing more is read from the terminal.
    terminal_ended: bool,
    /// Standard input ends when `input` is through.
    input_ends: bool,
}

impl Held {
    pub(super) fn new(process: Process, exec: Option<String>) -> Self {
        let streams = process.streams;
        for fd in [&streams.stdin, &streams.stdout, &streams.stderr, &streams.terminal].into_iter().flatten()
        {
            // Cannot fail on pipes and terminals; were it to, the shim would only be slower.
            let _ = rustix::io::ioctl_fionbio(fd, true);
        }
        Self {
            pid: process.pid,
            exec,
            exit_code: None,
            finished: false,
            streams,
            input: VecDeque::new(),
            terminal_ended: false,
            input_ends: false,
        }
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.streams.terminal.is_some()
    }

    /// Where output comes from.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (OutputStream, BorrowedFd<'_>)> {
        let terminal = self.streams.terminal.as_ref().filter(|_| !self.terminal_ended);
        let stdout = terminal.or(self.streams.stdout.as_ref());
        let stderr = self.streams.stderr.as_ref();
        stdout
            .map(|fd| (OutputStream::Stdout, fd.as_fd()))
            .into_iter()
            .chain(stderr.map(|fd| (OutputStream::Stderr, fd.as_fd())))
    }

    /// Reads a piece of output. `Ok(None)`: nothing now. `Ok(Some(&[]))`: the stream has ended.
    pub(super) fn read<'a>(&mut self, stream: OutputStream, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let fd = self.outputs().find(|(own, _)| *own == stream).map(|(_, fd)| fd)?;
        match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(length) if length > 0 => Some(&buffer[..length]),
            // EIO is how a terminal ends whose last process has closed it. It stays open for its size.
            Ok(_) | Err(_) => {
                self.close(stream);
                Some(&[])
            }
        }
    }

    fn close(&mut self, stream: OutputStream) {
        match stream {
            OutputStream::Stdout => {
                self.terminal_ended = true;
                self.streams.stdout = None;
            }
            OutputStream::Stderr => self.streams.stderr = None,
        }
    }

    /// Gives up on output that others keep open.
    pub(super) fn close_outputs(&mut self) {
        self.close(OutputStream::Stdout);
        self.close(OutputStream::Stderr);
    }

    pub(super) fn outputs_ended(&self) -> bool {
        self.outputs().next().is_none()
    }

    /// Where input goes, if some waits to be written.
    pub(super) fn pending_input(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.streams.terminal.as_ref().or(self.streams.stdin.as_ref())?;
        (!self.input.is_empty()).then(|| fd.as_fd())
    }

    pub(super) fn has_room(&self) -> bool {
        self.input.len() < MOST_INPUT
    }

    /// Takes input from a client.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.streams.terminal.is_some() || self.streams.stdin.is_some() {
            self.input.extend(bytes);
            self.write_input();
        }
    }

    /// No more input will come.
    pub(super) fn end_input(&mut self) {
        self.input_ends = true;
        self.write_input();
    }

    pub(super) fn write_input(&mut self) {
        while let Some(fd) = self.pending_input() {
            let (front, _) = self.input.as_slices();
            match rustix::io::write(fd, front) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // Nobody reads any more.
                    self.input.clear();
                    self.streams.stdin = None;
                    return;
                }
            }
        }
        if self.input_ends && !self.has_terminal() {
            self.streams.stdin = None;
        }
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) -> Option<io::Result<()>> {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = self.streams.terminal.as_ref()?;
        Some(rustix::termios::tcsetwinsize(terminal, size).map_err(io::Error::from))
    }
}

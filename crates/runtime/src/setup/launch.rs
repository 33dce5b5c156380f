//! How far a process has come on its way to its program.
//!
//! What it says on its socket: `t` with the terminal's master, `p` and a pid, `r` ready, with the container's null
//! device; anything else is a failure. It executes its program once it is sent `s`, and its end of the socket
//! closes by that.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::{Failure, Process, Streams};
use crate::sys;

/// What the kernel gets to end a killed process that was being set up.
const DYING: Duration = Duration::from_secs(5);

/// A process on its way to its program.
#[derive(Debug)]
pub(crate) struct Launch {
    sync: OwnedFd,
    streams: Streams,
    /// It joins a running container, and is released as soon as it is ready.
    joins: bool,
    /// The process that joined the container's namespaces, until it is reaped; it ends by itself.
    helper: Option<i32>,
    pid: Option<i32>,
    null: Option<OwnedFd>,
    ready: bool,
    released: bool,
}

/// What has become of it.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing that can be told yet.
    Underway,
    /// Its program runs (or has ended already).
    Running,
    Failed(Failure),
}

impl Launch {
    pub(super) fn of_container(sync: OwnedFd, streams: Streams, pid: i32) -> Self {
        let (joins, helper, null, ready, released) = (false, None, None, false, false);
        Self { sync, streams, joins, helper, pid: Some(pid), null, ready, released }
    }

    pub(super) fn of_exec(sync: OwnedFd, streams: Streams, helper: i32) -> Self {
        let (pid, null, ready, released) = (None, None, false, false);
        Self { sync, streams, joins: true, helper: Some(helper), pid, null, ready, released }
    }

    /// Readable when [`Self::advance`] has something to do.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.sync.as_fd()
    }

    /// Whether it has said more than was heard so far.
    pub(crate) fn has_more(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.sync, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Its streams and pid, and the container's null device.
    pub(crate) fn take(&mut self) -> (Option<Process>, Option<OwnedFd>) {
        let streams = std::mem::take(&mut self.streams);
        (self.pid.map(|pid| Process { pid, streams }), self.null.take())
    }

    /// Lets it execute its program.
    pub(crate) fn release(&mut self) -> Result<(), Failure> {
        self.released = true;
        sys::send_fds(self.sync.as_fd(), b"s", &[])
            .map_err(|_| Failure::other("the process died before its start"))
    }

    /// Waits until it is ready to be released.
    pub(super) fn await_ready(&mut self, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        while !self.ready {
            let mut fds = [PollFd::new(&self.sync, PollFlags::IN)];
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) => return Err(too_late(patience)),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Failure::other(format!("the process cannot be heard: {error}"))),
            }
            match self.hear() {
                Progress::Failed(failure) => return Err(failure),
                // It has not been released.
                Progress::Running => return Err(died()),
                Progress::Underway => {}
            }
        }
        Ok(())
    }

    /// Takes one message, if there is one.
    pub(crate) fn advance(&mut self) -> Progress {
        let progress = self.hear();
        // An executed process and the helper that tells its pid run side by side: either may be first.
        if self.joins && self.ready && self.pid.is_some() && !self.released {
            return self.release().map_or_else(Progress::Failed, |()| Progress::Underway);
        }
        progress
    }

    fn hear(&mut self) -> Progress {
        let mut buffer = [0; 4096];
        let (length, mut fds) = match sys::receive_fds(self.sync.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Progress::Underway,
            Err(error) => {
                return Progress::Failed(Failure::other(format!("the process cannot be heard: {error}")));
            }
        };
        match &buffer[..length] {
            [] if self.released => return Progress::Running,
            [] => return Progress::Failed(died()),
            [b't'] => self.streams.terminal = fds.pop(),
            [b'p', number @ ..] => self.pid = number.try_into().ok().map(i32::from_ne_bytes),
            [b'r'] => (self.ready, self.null) = (true, fds.pop()),
            message => return Progress::Failed(Failure::decode(message)),
        }
        Progress::Underway
    }

    /// Notes that a child is reaped: its number may be anybody's by now. Says whether it was the helper.
    pub(crate) fn helper_reaped(&mut self, pid: i32) -> bool {
        self.helper.take_if(|helper| *helper == pid).is_some()
    }

    /// Ends what never came to its program, but for a process that is reaped already. Whoever reaps the shim's children
    /// reaps it when it is dead, which can take as long as a file system likes.
    pub(crate) fn kill(&self, reaped: impl Fn(i32) -> bool) {
        self.pid.filter(|pid| !reaped(*pid)).into_iter().chain(self.helper).for_each(kill);
    }

    /// Ends what never came to its program, and reaps it: for a shim that reaps nothing yet.
    pub(super) fn abandon(&self) {
        for pid in self.pid.into_iter().chain(self.helper) {
            let Ok(process) = super::process(pid) else { continue };
            kill(pid);
            // One that hangs in a dead file system dies with that: nobody waits for it.
            let mut fds = [PollFd::new(&process, PollFlags::IN)];
            if poll(&mut fds, Timespec::try_from(DYING).ok().as_ref()).is_ok_and(|ended| ended > 0) {
                let _ = sys::wait_for(pid);
            }
        }
    }
}

/// Kills a child that is not reaped yet.
fn kill(pid: i32) {
    if let Some(number) = Pid::from_raw(pid) {
        // It may be dead.
        let _ = kill_process(number, Signal::KILL);
    }
}

fn died() -> Failure {
    Failure::other("the process died while it was set up")
}

/// Words for a process that takes too long.
pub(crate) fn too_late(patience: Duration) -> Failure {
    Failure::other(format!("the process was not set up within {} seconds", patience.as_secs()))
}

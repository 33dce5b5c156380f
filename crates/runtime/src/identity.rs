//! Processes told from later ones that have their pids, by when they were started.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// What the kernel gets to end a killed process.
const DYING: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A process of this pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pid: i32,
    /// In ticks since the machine started.
    started: u64,
}

/// /proc/<pid>/stat (proc_pid_stat(5)), as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    state: char,
    started: u64,
    /// Where the arguments are in the process's memory: first byte, and the one behind the last.
    pub(crate) arguments: (usize, usize),
}

impl Stat {
    /// That of the calling process.
    pub(crate) fn own() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// None if there is no such process.
    fn of(pid: i32) -> io::Result<Option<Self>> {
        Self::read(fs::read_to_string(format!("/proc/{pid}/stat")))
    }

    /// Only some errors mean that a process has ended; others, that this one has too many files open.
    fn read(text: io::Result<String>) -> io::Result<Option<Self>> {
        match text {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        // The name, which is in parentheses, may contain anything. What follows are fields 3 and up.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let address = |field: usize| usize::try_from(number(field)?).ok();
        let state = fields.first()?.chars().next()?;
        Some(Self { state, started: number(22)?, arguments: (address(48)?, address(49)?) })
    }
}

impl Identity {
    /// The calling process, whose stat this is.
    pub(crate) fn own(stat: &Stat) -> Self {
        Self { pid: rustix::process::getpid().as_raw_nonzero().get(), started: stat.started }
    }

    /// Whether it has not ended. One that cannot be looked at counts as alive: what is taken for dead is cleaned up.
    pub(crate) fn is_alive(&self) -> bool {
        self.is_seen().unwrap_or(true)
    }

    fn is_seen(&self) -> io::Result<bool> {
        let stat = Stat::of(self.pid)?;
        Ok(stat.is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X')))
    }

    /// Kills it and waits for its end; nothing if it has ended before.
    pub(crate) fn kill(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // Looked at after the handle was taken: it is this process's, or another's from the start.
        if matches!(self.is_seen(), Ok(true)) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            // Whoever wants to know whether it worked asks.
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&DYING));
        }
    }
}

/// Whether the process of a pidfd has ended.
pub(crate) fn has_ended(process: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&now)).is_ok_and(|ended| ended > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_with_its_pid() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = Stat::of(pid).unwrap().unwrap().started;
        let child_identity = Identity { pid, started };
        let other = Identity { pid, started: started + 1 };
        assert!(child_identity.is_alive());
        assert!(!other.is_alive());
        other.kill();
        assert!(child_identity.is_alive(), "a later process was killed");
        child_identity.kill();
        assert!(!child_identity.is_alive(), "a zombie has ended");
        child.wait().unwrap();
        let own = Identity::own(&Stat::own().unwrap());
        assert!(own.is_alive());
    }

    #[test]
    fn only_one_that_is_gone_is_dead() {
        let read = |number| Stat::read(Err(io::Error::from_raw_os_error(number)));
        assert_eq!(read(libc::ENOENT).unwrap(), None);
        assert_eq!(read(libc::ESRCH).unwrap(), None);
        assert!(read(libc::EMFILE).is_err());
        assert!(read(libc::ENOMEM).is_err());
        assert!(!Identity { pid: i32::MAX, started: 1 }.is_alive());
    }

    #[test]
    fn a_name_may_contain_anything() {
        let mut fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        fields.insert(0, "S".into());
        let stat = Stat::parse(&format!("7 (a) b (c)) {}", fields.join(" "))).unwrap();
        assert_eq!(stat, Stat { state: 'S', started: 22, arguments: (48, 49) });
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }
}

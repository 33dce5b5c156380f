//! `--init`: pid 1 that hands signals on and reaps what is left to it.
//!
//! It is the process that set the container up, and executes nothing: no program has to be brought
//! into the container, whatever its libc. That its executable is the host's is no way out: it is not
//! dumpable, so that /proc/1/exe opens to nobody without CAP_SYS_PTRACE.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::Failure;
use super::program::Program;
use crate::sys::{self, Cloned};

/// Starts the program as a child and becomes its init.
pub(super) fn run(program: &Program, sync: BorrowedFd<'_>, signals: &OwnedFd) -> Failure {
    // SAFETY: a clone of a shim has one thread.
    match unsafe { sys::fork() } {
        Err(error) => Failure::other(format!("init cannot fork: {error}")),
        Ok(Cloned::Child) => {
            // Its own group, in the foreground: what a shell does for a program. Signals are still
            // blocked, or SIGTTOU would stop it here.
            let own = rustix::process::getpid();
            let _ = rustix::process::setpgid(None, None);
            let _ = rustix::termios::tcsetpgrp(std::io::stdin(), own);
            sys::reset_signals();
            let failure = program.execute();
            let _ = sys::send_fds(sync, &failure.encode(), &[]);
            sys::exit(failure.exit_code)
        }
        Ok(Cloned::Parent(child)) => {
            // What Docker's is called, for those who look for it in `ps`. A name cannot be refused.
            let _ = sys::set_name(c"docker-init");
            // Its end of the socket must not outlast the program's exec.
            match sys::close_all_but([signals.as_fd()]) {
                Ok(()) => sys::exit(mind(child, signals)),
                Err(error) => Failure::other(format!("init cannot close its descriptors: {error}")),
            }
        }
    }
}

/// Until the child ends.
fn mind(child: i32, signals: &OwnedFd) -> i32 {
    let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
    loop {
        while let Some((pid, code)) = sys::reap() {
            if pid == child {
                return code;
            }
        }
        if poll(&mut [PollFd::new(signals, PollFlags::IN)], None).is_err() {
            continue;
        }
        while let Ok(length) = rustix::io::read(signals, &mut record) {
            let number = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
            if length < record.len() || number == libc::SIGCHLD {
                continue;
            }
            if let (Some(pid), Some(signal)) = (Pid::from_raw(child), Signal::from_named_raw(number)) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

/// Everything that can be handed on.
pub(super) fn signals() -> std::io::Result<OwnedFd> {
    let ignored = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
    ];
    let all: Vec<i32> = (1..32).filter(|signal| !ignored.contains(signal)).collect();
    sys::signal_descriptor(&all)
}

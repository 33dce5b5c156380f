//! From a specification to a process that is about to run its program.
//!
//! The shim calls [`create`]: clone3 with new namespaces, then, in the child: cgroups, the other
//! namespaces, mounts, pivot_root, user, capabilities, seccomp; it reports "ready" and waits. On
//! [`release`] it executes the program; its end of the socket closes by that, which is the good news.
//! [`execute`] does the second half in the namespaces of a running container.

mod child;
mod failure;
mod init;
mod mounts;
mod program;
mod user;

use std::io::PipeReader;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

pub(crate) use failure::Failure;
pub(crate) use mounts::{device_rule, mount_overlay};
pub(crate) use user::resolve as resolve_user;

use crate::cgroup::{Cgroup, DeviceRule, default_rules};
use crate::error::Attempt;
use crate::spec::{ContainerSpec, ExecSpec, NamespaceMode};
use crate::sys::{self, Cloned};
use crate::{Error, Result};

/// What shims inherit from the launcher.
#[derive(Debug)]
pub(crate) struct Host {
    /// The daemon's mount namespace: bind mounts come from there.
    pub(crate) mounts: OwnedFd,
    /// The daemon's pid namespace, to come back to.
    pub(crate) pids: OwnedFd,
}

/// The shim's ends of a process's standard streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// The terminal's master, in place of the three.
    pub(crate) terminal: Option<OwnedFd>,
}

/// The process's ends; `None` is /dev/null, or the terminal.
#[derive(Debug, Default)]
pub(super) struct ChildStreams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// A process that waits for its release, or runs.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) streams: Streams,
    /// To the child, until it executes its program.
    pub(crate) sync: OwnedFd,
}

const CONTAINER_PREFIX: &str =
    "failed to create shim task: OCI runtime create failed: unable to start container process";
const EXEC_PREFIX: &str = "exec failed: unable to start container process";

/// Sets a container up. On failure nothing is left.
pub(crate) fn create(
    host: &Host,
    spec: &ContainerSpec,
    filter: &[u8],
    netns: Option<&OwnedFd>,
    cgroup: &Cgroup,
) -> Result<Process> {
    let process =
        prepare_cgroup(spec, cgroup).and_then(|()| clone_container(host, spec, filter, netns, cgroup));
    if process.is_err() {
        cgroup.kill_and_remove()?;
    }
    process.map_err(|error| match error {
        Error::Start { .. } => error,
        other => Failure::other(other.to_string()).into_start(CONTAINER_PREFIX),
    })
}

fn prepare_cgroup(spec: &ContainerSpec, cgroup: &Cgroup) -> Result<()> {
    cgroup.create()?;
    cgroup.apply(&spec.resources)?;
    if spec.privileged {
        return Ok(());
    }
    let mut rules = default_rules();
    for device in &spec.devices {
        rules.push(mounts::device_rule(device)?);
    }
    for rule in &spec.device_cgroup_rules {
        rules.push(DeviceRule::parse(rule)?);
    }
    cgroup.allow_devices(&rules)
}

fn clone_container(
    host: &Host,
    spec: &ContainerSpec,
    filter: &[u8],
    netns: Option<&OwnedFd>,
    cgroup: &Cgroup,
) -> Result<Process> {
    let stdin = spec.stdio.open_stdin;
    let (mut streams, child_streams) = make_streams(spec.stdio.tty, stdin, true, true)?;
    let (sync, child_sync) = sync_pair()?;
    let mut flags = libc::CLONE_NEWNS;
    if spec.pid == NamespaceMode::Private {
        flags |= libc::CLONE_NEWPID;
    }
    if spec.ipc == NamespaceMode::Private {
        flags |= libc::CLONE_NEWIPC;
    }
    if spec.uts == NamespaceMode::Private {
        flags |= libc::CLONE_NEWUTS;
    }
    if let NamespaceMode::Pid(pid) = spec.pid {
        sys::setns(process(pid)?, libc::CLONE_NEWPID)
            .attempt(|| format!("join the pid namespace of process {pid}"))?;
    }
    let directory = cgroup.descriptor()?;
    // SAFETY: a shim has one thread.
    let cloned = unsafe { sys::clone3(flags as u64, directory.as_ref().map(AsFd::as_fd)) };
    if matches!(cloned, Ok(Cloned::Child)) {
        drop(sync);
        let container =
            child::Container { host, spec, filter, netns, cgroup, sync: child_sync, streams: child_streams };
        child::container(container);
    }
    if matches!(spec.pid, NamespaceMode::Pid(_)) {
        sys::setns(&host.pids, libc::CLONE_NEWPID).attempt(|| "come back to the own pid namespace".into())?;
    }
    let Cloned::Parent(pid) = cloned.attempt(|| "clone the container's first process".into())? else {
        unreachable!("the child never returns")
    };
    drop((child_sync, child_streams));
    match await_ready(&sync, &mut streams, false) {
        Ok(_) => Ok(Process { pid, streams, sync }),
        Err(failure) => {
            kill_and_reap(pid);
            Err(failure.into_start(CONTAINER_PREFIX))
        }
    }
}

/// Lets a container's first process execute its program.
pub(crate) fn release(sync: &OwnedFd) -> Result<()> {
    launch(sync).map_err(|failure| failure.into_start(CONTAINER_PREFIX))
}

/// Executes a process in the namespaces of `leader`, and returns when its program runs.
pub(crate) fn execute(
    container: &ContainerSpec,
    spec: &ExecSpec,
    filter: &[u8],
    leader: i32,
    cgroup: &Cgroup,
) -> Result<Process> {
    let into_exec = |failure: Failure| failure.into_exec(EXEC_PREFIX);
    join_container(container, spec, filter, leader, cgroup).map_err(|error| match error {
        JoinError::Failed(failure) => into_exec(failure),
        JoinError::System(error) => into_exec(Failure::other(error.to_string())),
    })
}

enum JoinError {
    Failed(Failure),
    System(Error),
}

impl From<Error> for JoinError {
    fn from(error: Error) -> Self {
        Self::System(error)
    }
}

fn join_container(
    container: &ContainerSpec,
    spec: &ExecSpec,
    filter: &[u8],
    leader: i32,
    cgroup: &Cgroup,
) -> Result<Process, JoinError> {
    let (mut streams, child_streams) =
        make_streams(spec.tty, spec.attach_stdin, spec.attach_stdout, spec.attach_stderr)?;
    let (sync, child_sync) = sync_pair()?;
    let leader = process(leader)?;
    let directory = cgroup.descriptor()?;
    // SAFETY: a shim has one thread.
    let cloned = unsafe { sys::clone3(0, directory.as_ref().map(AsFd::as_fd)) };
    let helper = match cloned.attempt(|| "fork".into())? {
        Cloned::Parent(helper) => helper,
        Cloned::Child => {
            drop(sync);
            child::exec(child::Exec {
                container,
                spec,
                filter,
                leader,
                cgroup,
                sync: child_sync,
                streams: child_streams,
            })
        }
    };
    drop((child_sync, child_streams));
    let ready = await_ready(&sync, &mut streams, true);
    sys::wait_for(helper).attempt(|| "wait for the exec's helper".into())?;
    match ready.and_then(|pid| launch(&sync).map(|()| pid).map_err(|failure| failure.with_pid(pid))) {
        Ok(Some(pid)) => Ok(Process { pid, streams, sync }),
        Ok(None) => Err(JoinError::Failed(Failure::other("the process did not tell its pid"))),
        Err(failure) => {
            if let Some(pid) = failure.pid {
                kill_and_reap(pid);
            }
            Err(JoinError::Failed(failure))
        }
    }
}

fn launch(sync: &OwnedFd) -> Result<(), Failure> {
    if sys::send_fds(sync.as_fd(), b"s", &[]).is_err() {
        return Err(Failure::other("the process died before its start"));
    }
    let mut buffer = [0; 4096];
    match sys::receive_fds(sync.as_fd(), &mut buffer) {
        Ok((0, _)) => Ok(()),
        Ok((length, _)) => Err(Failure::decode(&buffer[..length])),
        Err(error) => Err(Failure::other(format!("the process cannot be heard: {error}"))),
    }
}

/// Messages: `t` with the terminal's master, `p` and a pid, `r` ready; anything else is a failure.
///
/// An executed process and the helper that tells its pid run side by side: either may be first.
fn await_ready(sync: &OwnedFd, streams: &mut Streams, wants_pid: bool) -> Result<Option<i32>, Failure> {
    let mut buffer = [0; 4096];
    let mut pid = None;
    let mut ready = false;
    loop {
        let (length, mut fds) = sys::receive_fds(sync.as_fd(), &mut buffer)
            .map_err(|error| Failure::other(format!("the process cannot be heard: {error}")))?;
        match &buffer[..length] {
            [] => return Err(Failure { pid, ..Failure::other("the process died while it was set up") }),
            [b't'] => streams.terminal = fds.pop(),
            [b'p', number @ ..] => pid = number.try_into().ok().map(i32::from_ne_bytes),
            [b'r'] => ready = true,
            message => return Err(Failure { pid, ..Failure::decode(message) }),
        }
        if ready && (pid.is_some() || !wants_pid) {
            return Ok(pid);
        }
    }
}

fn make_streams(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<(Streams, ChildStreams)> {
    let (mut ours, mut theirs) = (Streams::default(), ChildStreams::default());
    if tty {
        return Ok((ours, theirs));
    }
    let pipe = || std::io::pipe().attempt(|| "make a pipe".into());
    let reader = |reader: PipeReader| OwnedFd::from(reader);
    if stdin {
        let (read, write) = pipe()?;
        (theirs.stdin, ours.stdin) = (Some(reader(read)), Some(OwnedFd::from(write)));
    }
    if stdout {
        let (read, write) = pipe()?;
        (ours.stdout, theirs.stdout) = (Some(reader(read)), Some(OwnedFd::from(write)));
    }
    if stderr {
        let (read, write) = pipe()?;
        (ours.stderr, theirs.stderr) = (Some(reader(read)), Some(OwnedFd::from(write)));
    }
    Ok((ours, theirs))
}

fn sync_pair() -> Result<(OwnedFd, OwnedFd)> {
    let (first, second) = sys::seqpacket_pair().attempt(|| "make a socket pair".into())?;
    rustix::io::ioctl_fionbio(&first, false).attempt(|| "make a socket blocking".into())?;
    Ok((first, second))
}

fn process(pid: i32) -> Result<OwnedFd> {
    let number = Pid::from_raw(pid).ok_or_else(|| Error::Invalid(format!("{pid} is no pid")))?;
    pidfd_open(number, PidfdFlags::empty()).attempt(|| format!("find process {pid}"))
}

fn kill_and_reap(pid: i32) {
    if let Some(number) = Pid::from_raw(pid) {
        // It may be dead already; then only the reaping matters.
        let _ = kill_process(number, Signal::KILL);
        let _ = sys::wait_for(pid);
    }
}

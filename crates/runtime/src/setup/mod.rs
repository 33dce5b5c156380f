//! From a specification to a process that is about to run its program.
//!
//! The shim calls [`create`]: clone3 with new namespaces, then, in the child: cgroups, the other
//! namespaces, mounts, pivot_root, user, capabilities, seccomp; it reports "ready" and waits. On
//! its release it executes the program; its end of the socket closes by that, which is the good news.
//! [`execute`] does the second half in the namespaces of a running container. How far such a process has come is
//! told by its [`Launch`], which never waits.

mod child;
mod confinement;
mod devices;
mod failure;
mod init;
mod inside;
mod launch;
mod mounts;
mod program;
mod protection;
mod user;

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) use devices::device_rule;
pub(crate) use failure::Failure;
pub(crate) use launch::{Launch, Progress, too_late};
pub(crate) use mounts::mount_overlay;
pub use user::check_user;
pub(crate) use user::{read_beneath, resolve as resolve_user};

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

impl ChildStreams {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten().map(AsFd::as_fd)
    }
}

/// A process whose program runs, or that another runtime has set up.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) streams: Streams,
}

const CONTAINER_PREFIX: &str =
    "failed to create shim task: OCI runtime create failed: unable to start container process";
const EXEC_PREFIX: &str = "exec failed: unable to start container process";

/// What the set-up of a container or of a process in it may take. Nothing in it waits for anybody, but for a file
/// system that does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Sets a container up: its first process waits for its release. On failure nothing is left.
pub(crate) fn create(
    host: &Host,
    spec: &ContainerSpec,
    filter: &[u8],
    netns: Option<&OwnedFd>,
    cgroup: &Cgroup,
) -> Result<Launch> {
    let launch =
        prepare_cgroup(spec, cgroup).and_then(|()| clone_container(host, spec, filter, netns, cgroup));
    if launch.is_err() {
        // The first error says more than one of cleaning up.
        let _ = cgroup.kill_and_remove();
    }
    launch.map_err(|error| match error {
        Error::Start { .. } | Error::Refused(_) => error,
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
        rules.push(device_rule(device)?);
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
) -> Result<Launch> {
    let stdin = spec.stdio.open_stdin;
    let (streams, child_streams) = make_streams(spec.stdio.tty, stdin, true, true)?;
    let (sync, child_sync) = sys::seqpacket_pair().attempt(|| "make a socket pair".into())?;
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
    if spec.pid == NamespaceMode::Other {
        sys::setns(other_process(&spec.others.pid)?, libc::CLONE_NEWPID)
            .attempt(|| "join the PID namespace".into())?;
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
    if spec.pid == NamespaceMode::Other {
        sys::setns(&host.pids, libc::CLONE_NEWPID).attempt(|| "come back to the own pid namespace".into())?;
    }
    let Cloned::Parent(pid) = cloned.attempt(|| "clone the container's first process".into())? else {
        unreachable!("the child never returns")
    };
    drop((child_sync, child_streams));
    let mut launch = Launch::of_container(sync, streams, pid);
    match launch.await_ready(PATIENCE) {
        Ok(()) => Ok(launch),
        Err(failure) => {
            launch.abandon();
            Err(failure.into_start(CONTAINER_PREFIX))
        }
    }
}

/// Words for a container's first process that does not come to its program.
pub(crate) fn start_failed(failure: Failure) -> Error {
    failure.into_start(CONTAINER_PREFIX)
}

/// Words for an executed process that does not come to its program.
pub(crate) fn exec_failed(failure: Failure) -> Error {
    failure.into_exec(EXEC_PREFIX)
}

/// Begins to execute a process in the namespaces of `leader`.
pub(crate) fn execute(
    container: &ContainerSpec,
    spec: &ExecSpec,
    filter: &[u8],
    leader: i32,
    null: &OwnedFd,
    cgroup: &Cgroup,
) -> Result<Launch> {
    join_container(container, spec, filter, leader, null, cgroup)
        .map_err(|error| exec_failed(Failure::other(error.to_string())))
}

fn join_container(
    container: &ContainerSpec,
    spec: &ExecSpec,
    filter: &[u8],
    leader: i32,
    null: &OwnedFd,
    cgroup: &Cgroup,
) -> Result<Launch> {
    let (streams, child_streams) =
        make_streams(spec.tty, spec.attach_stdin, spec.attach_stdout, spec.attach_stderr)?;
    let (sync, child_sync) = sys::seqpacket_pair().attempt(|| "make a socket pair".into())?;
    // The shim's own child, which it has not reaped: the number is nobody else's.
    let (number, leader) = (leader, process(leader)?);
    // SAFETY: a shim has one thread.
    let clone_into =
        |directory: Option<OwnedFd>| unsafe { sys::clone3(0, directory.as_ref().map(AsFd::as_fd)) };
    let cloned = match clone_into(cgroup.descriptor()?) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => clone_into(cgroup.descriptor_of(number)?),
        other => other,
    };
    let helper = match cloned.attempt(|| "fork".into())? {
        Cloned::Parent(helper) => helper,
        Cloned::Child => {
            drop(sync);
            child::exec(child::Exec {
                container,
                spec,
                filter,
                leader,
                null: null.as_fd(),
                cgroup,
                sync: child_sync,
                streams: child_streams,
            })
        }
    };
    drop((child_sync, child_streams));
    Ok(Launch::of_exec(sync, streams, helper))
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

/// A handle to a process.
pub(crate) fn process(pid: i32) -> Result<OwnedFd> {
    let number = Pid::from_raw(pid).ok_or_else(|| Error::Invalid(format!("{pid} is no pid")))?;
    pidfd_open(number, PidfdFlags::empty()).attempt(|| format!("find process {pid}"))
}

fn other_process(other: &Option<Arc<OwnedFd>>) -> Result<&OwnedFd> {
    other.as_deref().ok_or_else(|| Error::Invalid("the process whose namespace to join is not known".into()))
}

//! The child's side: from clone to exec.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};

use super::confinement::Confinement;
use super::inside::Target;
use super::mounts::Own;
use super::program::Program;
use super::user::User;
use super::{ChildStreams, Failure, Host, devices, init, inside, mounts, other_process, protection, user};
use crate::cgroup::{Cgroup, Layout};
use crate::defaults::{ALL_CAPABILITIES, capability_number};
use crate::error::{Attempt, go_words};
use crate::spec::{ContainerSpec, ExecSpec, NamespaceMode, Rlimit, UserSpec};
use crate::sys::{self, Cloned};
use crate::{Error, Result};

/// What a container's first process is made of.
pub(super) struct Container<'a> {
    pub(super) host: &'a Host,
    pub(super) spec: &'a ContainerSpec,
    pub(super) filter: &'a [u8],
    pub(super) netns: Option<&'a OwnedFd>,
    pub(super) cgroup: &'a Cgroup,
    pub(super) sync: OwnedFd,
    pub(super) streams: ChildStreams,
}

/// What a process in a running container is made of.
pub(super) struct Exec<'a> {
    pub(super) container: &'a ContainerSpec,
    pub(super) spec: &'a ExecSpec,
    pub(super) filter: &'a [u8],
    /// pidfd of the container's first process.
    pub(super) leader: OwnedFd,
    /// The container's null device.
    pub(super) null: BorrowedFd<'a>,
    pub(super) cgroup: &'a Cgroup,
    pub(super) sync: OwnedFd,
    pub(super) streams: ChildStreams,
}

/// What is left to do once the namespaces are right: the same for both.
struct Identity<'a> {
    user: UserSpec,
    cwd: &'a str,
    env: &'a [String],
    arguments: &'a [String],
    capabilities: u64,
    filter: &'a [u8],
    no_new_privileges: bool,
    confinement: Confinement,
    rlimits: &'a [Rlimit],
    init: bool,
}

/// Becomes the container's first process.
pub(super) fn container(container: Container<'_>) -> ! {
    let sync = leak(&container.sync);
    let failure = match become_container(container, sync) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    report(sync, &failure)
}

/// Becomes a process of a running container, by way of a helper that joins its namespaces.
pub(super) fn exec(exec: Exec<'_>) -> ! {
    let sync = leak(&exec.sync);
    let failure = match become_exec(exec, sync) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    report(sync, &failure)
}

/// The socket stays open until exec or exit, whatever is dropped on the way.
fn leak(sync: &OwnedFd) -> BorrowedFd<'static> {
    // SAFETY: nobody closes it: both structures that own it are forgotten.
    unsafe { BorrowedFd::borrow_raw(sync.as_raw_fd()) }
}

fn report(sync: BorrowedFd<'_>, failure: &Failure) -> ! {
    // Nobody else can be told if the shim is gone.
    let _ = sys::send_fds(sync, &failure.encode(), &[]);
    sys::exit(failure.exit_code)
}

enum Never {}

/// Dies with the shim; is opaque to what runs in the container, until it executes the program.
fn bind_to_shim() -> Result<()> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)
        .attempt(|| "bind the process to its shim".into())?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0).attempt(|| "hide the process".into())
}

fn become_container(container: Container<'_>, sync: BorrowedFd<'static>) -> Result<Never, Failure> {
    let Container { host, spec, filter, netns, cgroup, sync: owned, streams } = container;
    std::mem::forget(owned);
    bind_to_shim()?;
    rustix::process::setsid().attempt(|| "start a session".into())?;
    if Layout::of_host()?.unified().is_none() {
        cgroup.enter()?;
    }
    let confinement = Confinement::arrange(spec, spec.init)?;
    join_namespaces(spec, netns)?;
    let nodes = devices::host_devices(spec)?;
    let opened = mounts::open_sources(host, spec, cgroup)?;
    if spec.cgroupns == NamespaceMode::Private {
        sys::unshare(libc::CLONE_NEWCGROUP).attempt(|| "make a cgroup namespace".into())?;
    }
    // Before any path of the container is looked at: what shim and daemon have open is not to be found there.
    let kept = streams.descriptors().chain(opened.descriptors()).chain(confinement.descriptors());
    sys::close_all_but(kept.chain([sync])).attempt(|| "close the shim's descriptors".into())?;
    rustix::process::umask(Mode::empty());
    mounts::change_root(&spec.rootfs)?;
    let own = mounts::populate(spec, &opened)?;
    drop(opened);
    nodes.iter().try_for_each(devices::Node::make)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    set_names(spec)?;
    let terminal = if spec.stdio.tty { Some(open_terminal(sync, spec.stdio.size, true)?) } else { None };
    spec.sysctls.iter().try_for_each(|(name, value)| set_sysctl(&own, name, value))?;
    inside::make_directory(Path::new(&spec.cwd))?;
    protection::protect(spec, &own)?;
    let Own { null, proc } = own;
    drop(proc);
    let capabilities = if spec.privileged {
        ALL_CAPABILITIES.map(str::to_owned).to_vec()
    } else {
        spec.capabilities.clone()
    };
    let identity = Identity {
        user: spec.user.clone(),
        cwd: &spec.cwd,
        env: &spec.env,
        arguments: &spec.args,
        capabilities: mask_of(&capabilities)?,
        filter,
        no_new_privileges: spec.no_new_privileges,
        confinement,
        rlimits: &spec.rlimits,
        init: spec.init,
    };
    run(identity, terminal, streams, null.as_fd(), sync)
}

fn become_exec(exec: Exec<'_>, sync: BorrowedFd<'static>) -> Result<Never, Failure> {
    let Exec { container, spec, filter, leader, null, cgroup, sync: owned, streams } = exec;
    std::mem::forget(owned);
    bind_to_shim()?;
    if Layout::of_host()?.unified().is_none() {
        cgroup.enter()?;
    }
    let privileged = spec.privileged || container.privileged;
    // Of what this arranges the process inherits its part.
    let confinement = Confinement::arrange(container, false)?;
    // As in a new container; there processes of its own would look, too.
    let kept = streams.descriptors().chain([sync, leader.as_fd(), null]);
    sys::close_all_but(kept).attempt(|| "close the shim's descriptors".into())?;
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    sys::setns(&leader, namespaces).attempt(|| "join the container's namespaces".into())?;
    drop(leader);
    // A member of the pid namespace has to be born in it; the shim shall be its parent.
    // SAFETY: a clone of a shim has one thread.
    match unsafe { sys::clone3(libc::CLONE_PARENT as u64, None) }
        .attempt(|| "fork into the container".into())?
    {
        Cloned::Parent(pid) => {
            let mut message = vec![b'p'];
            message.extend(pid.to_ne_bytes());
            let sent = sys::send_fds(sync, &message, &[]);
            sys::exit(i32::from(sent.is_err()))
        }
        Cloned::Child => {}
    }
    bind_to_shim()?;
    rustix::process::setsid().attempt(|| "start a session".into())?;
    let terminal = if spec.tty { Some(open_terminal(sync, spec.size, false)?) } else { None };
    let user = if spec.user.is_empty() {
        container.user.clone()
    } else {
        UserSpec { user: spec.user.clone(), additional_groups: container.user.additional_groups.clone() }
    };
    let capabilities = if privileged {
        ALL_CAPABILITIES.map(str::to_owned).to_vec()
    } else {
        container.capabilities.clone()
    };
    let identity = Identity {
        user,
        cwd: if spec.cwd.is_empty() { &container.cwd } else { &spec.cwd },
        env: &spec.env,
        arguments: &spec.args,
        capabilities: mask_of(&capabilities)?,
        filter,
        no_new_privileges: container.no_new_privileges,
        confinement,
        rlimits: &container.rlimits,
        init: false,
    };
    run(identity, terminal, streams, null, sync)
}

fn join_namespaces(spec: &ContainerSpec, netns: Option<&OwnedFd>) -> Result<()> {
    if let Some(netns) = netns {
        sys::setns(netns, libc::CLONE_NEWNET).attempt(|| "join the network namespace".into())?;
    }
    for (mode, other, name, kind) in [
        (&spec.ipc, &spec.others.ipc, "IPC", libc::CLONE_NEWIPC),
        (&spec.uts, &spec.others.uts, "UTS", libc::CLONE_NEWUTS),
    ] {
        if *mode == NamespaceMode::Other {
            sys::setns(other_process(other)?, kind).attempt(|| format!("join the {name} namespace"))?;
        }
    }
    Ok(())
}

fn set_names(spec: &ContainerSpec) -> Result<()> {
    if spec.uts != NamespaceMode::Private {
        return Ok(());
    }
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes())
            .attempt(|| format!("set the hostname {}", spec.hostname))?;
    }
    if !spec.domainname.is_empty() {
        rustix::system::setdomainname(spec.domainname.as_bytes())
            .attempt(|| format!("set the domain name {}", spec.domainname))?;
    }
    Ok(())
}

/// By way of our own procfs, whatever is mounted on /proc meanwhile.
fn set_sysctl(own: &Own, name: &str, value: &str) -> Result<()> {
    let what = || format!("set the sysctl {name} to {value}");
    let path = Path::new("sys").join(name.replace('.', "/"));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = openat2(&own.proc, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
    fs::File::from(file.attempt(what)?).write_all(value.as_bytes()).attempt(what)
}

/// A pseudo-terminal of the container's own devpts; the master goes to the shim.
fn open_terminal(sync: BorrowedFd<'_>, size: Option<(u16, u16)>, console: bool) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = open_multiplexer(flags)?;
    rustix::pty::unlockpt(&master).attempt(|| "unlock the terminal".into())?;
    let peer =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, peer).attempt(|| "open the terminal's other side".into())?;
    if let Some((rows, columns)) = size.filter(|(rows, columns)| *rows > 0 && *columns > 0) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).attempt(|| "set the terminal's size".into())?;
    }
    if console {
        // By handles on both sides: neither name has to lead where it did (CVE-2025-52565).
        let what = || "mount the terminal on /dev/console".to_owned();
        let place = inside::make(Path::new("/dev/console"), Target::File).attempt(what)?;
        let mount = sys::clone_mount_of(slave.as_fd(), false).attempt(what)?;
        sys::attach_mount(&mount, place.as_fd()).attempt(what)?;
    }
    sys::send_fds(sync, b"t", &[master.as_fd()]).attempt(|| "hand over the terminal".into())?;
    sys::take_terminal(slave.as_fd()).attempt(|| "take the terminal".into())?;
    Ok(slave)
}

/// /dev/pts/ptmx, if that is what it is.
fn open_multiplexer(flags: OFlags) -> Result<OwnedFd> {
    let what = || "open a terminal".to_owned();
    let directory = inside::open(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY).attempt(what)?;
    if !inside::is_devpts(&directory).attempt(what)? {
        return Err(Error::Invalid("/dev/pts has no terminals: it is no devpts".into()));
    }
    openat(&directory, "ptmx", flags | OFlags::NOFOLLOW, Mode::empty()).attempt(what)
}

/// What we may give of these: a capability that this process lacks cannot be handed on.
fn mask_of(names: &[String]) -> Result<u64> {
    let mut mask = 0;
    for name in names {
        let number =
            capability_number(name).ok_or_else(|| Error::Invalid(format!("unknown capability: {name}")))?;
        mask |= 1 << number;
    }
    Ok(mask & sys::own_capabilities().attempt(|| "read the own capabilities".into())?)
}

/// Streams, limits, user, capabilities, seccomp; then waits for the release and executes.
fn run(
    identity: Identity<'_>,
    terminal: Option<OwnedFd>,
    streams: ChildStreams,
    null: BorrowedFd<'_>,
    sync: BorrowedFd<'static>,
) -> Result<Never, Failure> {
    let user = user::look_up(&identity.user.user, &identity.user.additional_groups)?;
    connect_streams(terminal.as_ref(), &streams, null, &user)?;
    set_limits(identity.rlimits)?;
    // They are standard streams now; under their own numbers they would stay open for an init.
    std::mem::forget((terminal, streams));
    // Before the filter, as all that it need not allow for the container's own sake: one may know nothing of calls
    // as new as this one and openat2.
    sys::close_all_but([sync, null].into_iter().chain(identity.confinement.descriptors()))
        .attempt(|| "close descriptors".into())?;
    // As root, unless only the user may (a network file system): then again below.
    let entered = inside::enter(Path::new(identity.cwd));
    if !identity.no_new_privileges {
        // Without no_new_privs only CAP_SYS_ADMIN may do it, which goes away next.
        install_filter(identity.filter)?;
    }
    drop_privileges(&identity, &user)?;
    let entered = match entered {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            inside::enter_as_user(Path::new(identity.cwd))
        }
        other => other,
    };
    entered.map_err(|error| {
        let text = format!("chdir to cwd ({:?}) set in config.json failed", identity.cwd);
        Failure::from_errno(&text, &error)
    })?;
    let mut environment = identity.env.to_vec();
    if !environment.iter().any(|pair| pair.starts_with("HOME=")) {
        environment.push(format!("HOME={}", user.home));
    }
    let program = Program::find(identity.arguments, &environment)?;
    wait_for_release(sync, null)?;
    if identity.no_new_privileges {
        install_filter(identity.filter)?;
    }
    if identity.init {
        identity.confinement.put_on()?;
        let signals = init::signals().attempt(|| "watch signals".into())?;
        return Err(init::run(&program, sync, &signals));
    }
    sys::reset_signals();
    Err(program.execute())
}

fn connect_streams(
    terminal: Option<&OwnedFd>,
    streams: &ChildStreams,
    null: BorrowedFd<'_>,
    user: &User,
) -> Result<()> {
    for (standard, own) in [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().enumerate() {
        let stream = terminal.or(own.as_ref());
        if let Some(stream) = stream.filter(|_| user.uid != 0) {
            // So that the user may open /dev/stdout anew.
            let owner = Some(rustix::fs::Uid::from_raw(user.uid));
            rustix::fs::fchown(stream, owner, None).attempt(|| "hand over a stream".into())?;
        }
        let number = i32::try_from(standard).expect("there are three standard streams");
        sys::replace_standard(stream.map_or(null, AsFd::as_fd), number)
            .attempt(|| "connect a standard stream".into())?;
    }
    Ok(())
}

/// All of them, or none starts: a limit lower than asked for would be found out when it is hit.
fn set_limits(limits: &[Rlimit]) -> Result<(), Failure> {
    for limit in limits {
        let resource = resource(&limit.name)
            .ok_or_else(|| Error::Invalid(format!("invalid ulimit type: {}", limit.name)))?;
        sys::set_limit(resource, limit.soft, limit.hard)
            .map_err(|error| limit_refused(limit, resource, &error))?;
    }
    Ok(())
}

/// Docker's words, with the name of the limit and what would have been possible.
fn limit_refused(limit: &Rlimit, resource: u32, error: &io::Error) -> Failure {
    let show = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
    let own = match sys::hard_limit(resource) {
        Ok(most) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!(" (the hard limit that the daemon has itself is {})", show(most))
        }
        _ => String::new(),
    };
    Failure::other(format!(
        "error during container init: error setting rlimit type {resource} ({} to {}:{}): {}{own}",
        limit.name,
        show(limit.soft),
        show(limit.hard),
        go_words(error),
    ))
}

fn resource(name: &str) -> Option<u32> {
    let name = name.strip_prefix("RLIMIT_").unwrap_or(name).to_lowercase();
    Some(match name.as_str() {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

fn install_filter(filter: &[u8]) -> Result<()> {
    if filter.is_empty() {
        return Ok(());
    }
    sys::install_filter(filter).attempt(|| "install the seccomp filter".into())
}

fn drop_privileges(identity: &Identity<'_>, user: &User) -> Result<()> {
    let what = || "drop privileges".to_owned();
    for number in 0..ALL_CAPABILITIES.len() as u64 {
        if identity.capabilities & (1 << number) == 0 {
            match sys::prctl(libc::PR_CAPBSET_DROP, number) {
                // A kernel that does not know the capability.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                other => other.attempt(what)?,
            }
        }
    }
    // The user goes first: it needs capabilities that the container may not have.
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).attempt(what)?;
    sys::become_user(user.uid, user.gid, &user.groups)
        .attempt(|| format!("become user {}:{}", user.uid, user.gid))?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0).attempt(what)?;
    sys::set_capabilities(identity.capabilities).attempt(what)?;
    // Changing the user has cleared both.
    bind_to_shim()?;
    if identity.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).attempt(what)?;
    }
    Ok(())
}

fn wait_for_release(sync: BorrowedFd<'_>, null: BorrowedFd<'_>) -> Result<(), Failure> {
    sys::send_fds(sync, b"r", &[null]).attempt(|| "report to the shim".into())?;
    let mut buffer = [0; 1];
    match sys::receive_fds(sync, &mut buffer) {
        Ok((1, _)) => Ok(()),
        // The shim is gone, or has given up on us.
        _ => sys::exit(137),
    }
}

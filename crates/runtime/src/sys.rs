//! System calls that rustix does not wrap, or not the way a runtime needs them: all the unsafe code.

use std::ffi::{CStr, CString, c_int, c_long, c_void};
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::identity::Stat;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A connected pair that keeps message boundaries; the first end does not block.
pub(crate) fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (first, second) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&first, true)?;
    Ok((first, second))
}

/// As many descriptors as a message has at most: a connection and the namespaces to join.
const MOST_FDS: usize = 5;

/// Sends a message with descriptors.
pub(crate) fn send_fds(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    sendmsg(socket, &[io::IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message and its descriptors; length 0 is the end.
pub(crate) fn receive_fds(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [io::IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}

/// What [`clone3`] returned.
pub(crate) enum Cloned {
    /// In the new process.
    Child,
    /// In the caller: the new process.
    Parent(i32),
}

/// clone3(2) with the semantics of fork: the child runs on a copy of everything.
///
/// # Safety
/// The caller must have no other thread (locks held by others would never open in the child).
pub(crate) unsafe fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    // SAFETY: an all-zero clone_args is valid: "nothing special".
    let mut arguments: libc::clone_args = unsafe { zeroed() };
    arguments.flags = flags;
    // CLONE_PARENT takes the exit signal from the caller and wants none here.
    if flags & libc::CLONE_PARENT as u64 == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    // SAFETY: the arguments live across the call; no stack is given, so the child copies ours.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    })?;
    Ok(if pid == 0 { Cloned::Child } else { Cloned::Parent(pid as i32) })
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// fork(2).
///
/// # Safety
/// As [`clone3`].
pub(crate) unsafe fn fork() -> io::Result<Cloned> {
    // SAFETY: the caller promises to be single-threaded.
    let pid = check(c_long::from(unsafe { libc::fork() }))?;
    Ok(if pid == 0 { Cloned::Child } else { Cloned::Parent(pid as i32) })
}

/// Ends the process without running what its parent registered for exit.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Joins namespaces: of one kind by its file, of several by a pidfd.
pub(crate) fn setns(fd: impl AsFd, kinds: c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(c_long::from(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds) })).map(drop)
}

/// Leaves namespaces for fresh ones.
pub(crate) fn unshare(kinds: c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(c_long::from(unsafe { libc::unshare(kinds) })).map(drop)
}

/// A detached copy of what is mounted at a path (with what is mounted below, if recursive).
pub(crate) fn clone_mount(path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    open_tree(libc::AT_FDCWD, path, recursive)
}

/// The same of the place that a handle refers to.
pub(crate) fn clone_mount_of(handle: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    open_tree(handle.as_raw_fd(), c"", recursive)
}

fn open_tree(directory: RawFd, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: the path is a C string that lives across the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sets attributes (`MOUNT_ATTR_*`) and propagation (`MS_*`, 0 to keep) of a detached mount.
pub(crate) fn set_mount_attributes(
    mount: &OwnedFd,
    set: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: both pointers live across the call and the size is that of the structure.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Attaches a detached mount at what `target` refers to.
pub(crate) fn attach_mount(mount: &OwnedFd, target: BorrowedFd<'_>) -> io::Result<()> {
    const F_EMPTY_PATH: u32 = 0x4;
    const T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: the paths are C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// mount(2); empty strings are null.
pub(crate) fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let strings = [source, target, kind, data].map(|text| CString::new(text).map_err(io::Error::from));
    let [source, target, kind, data] = strings;
    let (source, target, kind, data) = (source?, target?, kind?, data?);
    let pointer = |text: &CString| if text.is_empty() { std::ptr::null() } else { text.as_ptr() };
    // SAFETY: every pointer is null or a C string that lives across the call.
    check(c_long::from(unsafe {
        libc::mount(pointer(&source), target.as_ptr(), pointer(&kind), flags, pointer(&data).cast::<c_void>())
    }))
    .map(drop)
}

/// The capabilities that this process has (permitted), as a bit mask.
pub(crate) fn own_capabilities() -> io::Result<u64> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 has two data elements.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Sets effective and permitted; inheritable becomes empty.
pub(crate) fn set_capabilities(mask: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |bits: u64| {
        let bits = (bits & 0xffff_ffff) as u32;
        CapabilityData { effective: bits, permitted: bits, inheritable: 0 }
    };
    let data = [half(mask), half(mask >> 32)];
    // SAFETY: version 3 has two data elements.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// prctl(2) with a plain number.
pub(crate) fn prctl(option: c_int, value: u64) -> io::Result<()> {
    // SAFETY: only used with options whose argument is a number.
    check(c_long::from(unsafe { libc::prctl(option, value, 0_u64, 0_u64, 0_u64) })).map(drop)
}

/// What `ps` shows for this process: its short name (15 bytes) and its command line, which is
/// overwritten in place as far as there is room.
pub(crate) fn show_name(name: &CStr, command_line: &str, own: Option<&Stat>) {
    // A name cannot be refused.
    let _ = set_name(name);
    let Some((start, end)) = own.map(|own| own.arguments) else { return };
    let room = end.saturating_sub(start);
    let length = command_line.len().min(room.saturating_sub(1));
    // SAFETY: the kernel says that this is the memory of our arguments, which is on our stack and
    // writable; std made its own copies of the arguments.
    unsafe {
        std::ptr::write_bytes(start as *mut u8, 0, room);
        std::ptr::copy_nonoverlapping(command_line.as_ptr(), start as *mut u8, length);
    }
}

/// /proc/self/comm: the first 15 bytes of `name`.
pub(crate) fn set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: a C string; the kernel copies it.
    check(c_long::from(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })).map(drop)
}

/// A signal by its number, realtime signals included.
pub(crate) fn signal(number: c_int) -> Option<rustix::process::Signal> {
    if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
        return Some(signal);
    }
    // SAFETY: the kernel's realtime signals from SIGRTMIN on are not used by libc itself.
    (libc::SIGRTMIN()..=libc::SIGRTMAX())
        .contains(&number)
        .then(|| unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}

/// Installs a seccomp filter of `struct sock_filter`s.
pub(crate) fn install_filter(filter: &[u8]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len() / 8).map_err(|_| io::Error::other("the filter is too long"))?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    // SAFETY: the kernel reads `len` instructions of 8 bytes; sock_filter is 4-aligned only for C, the
    // kernel copies bytes.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// Becomes this user; supplementary groups first, since afterwards it may not.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // The raw calls: this process has one thread, and glibc's wrappers would only look for others.
    // SAFETY: the pointer is to `len` numbers.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Replaces the program; returns only on failure.
pub(crate) fn execve(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: null-terminated arrays of C strings that live across the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the program by what a handle refers to; returns only on failure.
pub(crate) fn execute_file(
    program: BorrowedFd<'_>,
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: null-terminated arrays of C strings that live across the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// setrlimit(2).
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure lives across the call.
    check(c_long::from(unsafe { libc::setrlimit(resource, &raw const limit) })).map(drop)
}

/// The hard limit.
pub(crate) fn hard_limit(resource: u32) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across the call.
    check(c_long::from(unsafe { libc::getrlimit(resource, &raw mut limit) }))?;
    Ok(limit.rlim_max)
}

/// Blocks signals and returns a descriptor to read them from.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(c_long::from(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())))?;
        let fd =
            check(c_long::from(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Default dispositions and an empty mask: what a program expects to begin with.
pub(crate) fn reset_signals() {
    // SAFETY: SIG_DFL is a valid disposition; invalid signals (KILL, STOP, libc's own) are refused.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets the kernel reap children itself.
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// A child that has ended: pid, and exit code or 128 + signal.
pub(crate) fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the status lives across the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    (pid > 0).then(|| (pid, exit_code(status)))
}

/// Waits for one child.
pub(crate) fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the status lives across the call.
        match check(c_long::from(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) })) {
            Ok(_) => return Ok(exit_code(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn exit_code(status: c_int) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// Makes a descriptor the controlling terminal of this session.
pub(crate) fn take_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check(c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// dup2(2) onto a standard stream, without close-on-exec.
pub(crate) fn replace_standard(fd: BorrowedFd<'_>, standard: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == standard {
        // SAFETY: no pointers.
        return check(c_long::from(unsafe { libc::fcntl(standard, libc::F_SETFD, 0) })).map(drop);
    }
    // SAFETY: no pointers; the standard streams belong to nobody's OwnedFd.
    check(c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), standard) })).map(drop)
}

/// Closes everything but the standard streams and `kept`. For a clone that will execute or exit: the
/// owners that its memory has from its parent must never be dropped after this.
pub(crate) fn close_all_but<'a>(kept: impl IntoIterator<Item = BorrowedFd<'a>>) -> io::Result<()> {
    let close = |first: u32, last: u32| {
        // SAFETY: no pointers.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
    };
    let mut kept: Vec<u32> = kept.into_iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close(first, u32::MAX)
}

/// A standard stream that was handed to this process and belongs to nobody yet.
///
/// # Safety
/// To be called once per stream, and nobody else may use it as an owner.
pub(crate) unsafe fn own_standard(standard: RawFd) -> io::Result<OwnedFd> {
    // A copy, so that the number itself can be pointed at /dev/null.
    // SAFETY: fcntl has just made the descriptor.
    unsafe {
        let fd = check(c_long::from(libc::fcntl(standard, libc::F_DUPFD_CLOEXEC, 3)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadProgram {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// Loads an eBPF program for a cgroup's devices.
pub(crate) fn load_device_program(program: &[u8]) -> io::Result<OwnedFd> {
    let attributes = LoadProgram {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len() / 8).map_err(|_| io::Error::other("the program is too long"))?,
        instructions: program.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: the structure and what it points to live across the call.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<LoadProgram>())
    })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches it.
pub(crate) fn attach_device_program(program: &OwnedFd, cgroup: &impl AsFd) -> io::Result<()> {
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or_default();
    let attributes: [u32; 4] =
        [number(cgroup.as_fd()), number(program.as_fd()), BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI];
    // SAFETY: the first four words of `union bpf_attr` for BPF_PROG_ATTACH.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attributes.as_ptr(), size_of::<[u32; 4]>())
    })
    .map(drop)
}

/// Makes a descriptor known to the tokio runtime.
pub(crate) fn register(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its descriptor open and its number the same for as long as it lives.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(io::Error::from)
}

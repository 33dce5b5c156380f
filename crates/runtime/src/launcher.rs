//! The launcher: forks a shim for each message. One thread, small, in a mount namespace of its own.
//!
//! It ends with the daemon (its socket does); the shims do not, they are only adopted by another
//! parent.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::cgroup::Layout;
use crate::error::Attempt;
use crate::identity::Stat;
use crate::setup::Host;
use crate::sys::{self, Cloned};
use crate::wire::Handed;
use crate::{Result, shim};

/// The whole life of the launcher. `Launcher::start` runs this program with its socket as standard
/// input.
///
/// # Errors
/// It was not started by `Launcher::start`, or a namespace cannot be made.
pub fn launcher_main() -> Result<()> {
    // Going on from elsewhere, this program has the socket as its standard input once more.
    or_tell(io::stdin(), seal())?;
    let socket = take_socket()?;
    let host = or_tell(&socket, prepare())?;
    sys::send_fds(socket.as_fd(), READY, &[]).attempt(|| "report to the daemon".into())?;
    let mut byte = [0; 1];
    loop {
        let (length, mut fds) =
            sys::receive_fds(socket.as_fd(), &mut byte).attempt(|| "hear the daemon".into())?;
        if length == 0 {
            return Ok(());
        }
        if fds.is_empty() {
            continue;
        }
        let connection = fds.remove(0);
        let handed = Handed::unpack(byte[0], fds.into_iter());
        // SAFETY: the launcher has one thread.
        match unsafe { sys::fork() } {
            Ok(Cloned::Child) => {
                drop(socket);
                start_shim(&host, connection, handed)
            }
            // Without a shim the connection closes, and the daemon sees that. It is the same if the fork failed.
            Ok(Cloned::Parent(_)) | Err(_) => {}
        }
    }
}

/// What the launcher says once it can make shims; anything else is why it cannot.
pub(crate) const READY: &[u8] = b"r";

/// Tells the daemon of a failure, too.
fn or_tell<T>(socket: impl AsFd, result: Result<T>) -> Result<T> {
    if let Err(error) = &result {
        // Nobody hears it if this was run by hand.
        let _ = sys::send_fds(socket.as_fd(), error.to_string().as_bytes(), &[]);
    }
    result
}

/// Everything before the first shim. The daemon's mount namespace.
fn prepare() -> Result<File> {
    sys::show_name(c"portolan-launch", "portolan-launcher", Stat::own().as_ref());
    // Signals to the daemon's terminal are not for us.
    rustix::process::setsid().attempt(|| "start a session".into())?;
    std::env::set_current_dir("/").attempt(|| "enter /".into())?;
    // Shims that die without their children leave them to us, and we let the kernel reap.
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).attempt(|| "become a subreaper".into())?;
    sys::ignore_children();
    let host = File::open("/proc/self/ns/mnt").attempt(|| "open the mount namespace".into())?;
    sys::unshare(libc::CLONE_NEWNS).attempt(|| "make a mount namespace".into())?;
    // What the host mounts later is seen here; nothing of ours is seen there.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .attempt(|| "detach from the host's mounts".into())?;
    // Read once, for all shims.
    Layout::of_host()?;
    Ok(host)
}

/// Goes on from a read-only mount of this program's file. Shims and what they become before they execute a container's
/// program run it inside containers, where root could else open it as /proc/<pid>/exe and write into it
/// (CVE-2019-5736); that a running program cannot be written is no rule on every kernel.
fn seal() -> Result<()> {
    let what = || "go on from a read-only mount of this program".to_owned();
    let own = c"/proc/self/exe";
    let flags = rustix::fs::statvfs(own).attempt(what)?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) || is_sealed(own) {
        return Ok(());
    }
    let mounted = sys::clone_mount(own, false).and_then(|mount| {
        sys::set_mount_attributes(&mount, libc::MOUNT_ATTR_RDONLY, 0, false)?;
        Ok(mount)
    });
    let program = match mounted {
        // A kernel that has no such calls (before 5.12); or the program's mount is not of this namespace.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            sealed_copy(own).attempt(|| "go on from a sealed copy of this program".into())?
        }
        other => other.attempt(what)?,
    };
    let c_string = |text: std::ffi::OsString| CString::new(text.into_vec());
    let arguments: std::result::Result<Vec<CString>, _> = std::env::args_os().map(c_string).collect();
    let environment: std::result::Result<Vec<CString>, _> = std::env::vars_os()
        .map(|(key, value)| {
            let mut pair = key;
            pair.push("=");
            pair.push(value);
            c_string(pair)
        })
        .collect();
    let (arguments, environment) = (arguments.attempt(what)?, environment.attempt(what)?);
    Err(sys::execute_file(program.as_fd(), &arguments, &environment)).attempt(what)
}

/// All that keeps a file in memory from being changed.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A copy of a file in memory that nobody can change.
fn sealed_copy(path: &CStr) -> io::Result<OwnedFd> {
    let mut original = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match memfd_create(c"portolan", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all of them can be executed, and none be asked to be.
        Err(Errno::INVAL) => memfd_create(c"portolan", flags),
        other => other,
    };
    let mut copy = File::from(copy?);
    io::copy(&mut original, &mut copy)?;
    fcntl_add_seals(&copy, SEALS)?;
    Ok(copy.into())
}

/// Whether a file is such a copy.
fn is_sealed(path: &CStr) -> bool {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(fcntl_get_seals)
        .is_ok_and(|seals| seals.contains(SEALS))
}

fn start_shim(mounts: &File, connection: OwnedFd, handed: Handed<OwnedFd>) -> ! {
    sys::reset_signals();
    let host = || -> Result<Host> {
        let mounts = mounts.try_clone().attempt(|| "keep the mount namespace".into())?;
        let pids = File::open("/proc/self/ns/pid").attempt(|| "open the pid namespace".into())?;
        silence()?;
        Ok(Host { mounts: mounts.into(), pids: pids.into() })
    };
    match host() {
        Ok(host) => shim::run(host, connection, handed),
        Err(_) => sys::exit(1),
    }
}

/// A shim outlives the daemon and must not keep its terminal or pipes open.
fn silence() -> Result<()> {
    let null =
        File::options().read(true).write(true).open("/dev/null").attempt(|| "open /dev/null".into())?;
    (0..3)
        .try_for_each(|standard| sys::replace_standard(null.as_fd(), standard))
        .attempt(|| "let go of the terminal".into())
}

fn take_socket() -> Result<OwnedFd> {
    // SAFETY: called once, first thing in this process.
    let socket = unsafe { sys::own_standard(0) }.attempt(|| "take over the socket".into())?;
    let kind =
        rustix::net::sockopt::socket_type(&socket).attempt(|| "talk to the daemon (run by hand?)".into())?;
    if kind != rustix::net::SocketType::SEQPACKET {
        return Err(crate::Error::Invalid("the launcher is started by the daemon only".into()));
    }
    let null = File::open("/dev/null").attempt(|| "open /dev/null".into())?;
    sys::replace_standard(null.as_fd(), 0).attempt(|| "close standard input".into())?;
    Ok(socket)
}

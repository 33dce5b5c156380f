//! The launcher: forks a shim for each message. One thread, small, in a mount namespace of its own.
//!
//! It ends with the daemon (its socket does); the shims do not, they are only adopted by another
//! parent.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{MountPropagationFlags, mount_change};

use crate::cgroup::Layout;
use crate::error::Attempt;
use crate::setup::Host;
use crate::sys::{self, Cloned};
use crate::{Result, shim};

/// The whole life of the launcher. `Launcher::start` runs this program with its socket as standard
/// input.
///
/// # Errors
/// It was not started by `Launcher::start`, or a namespace cannot be made.
pub fn launcher_main() -> Result<()> {
    let socket = take_socket()?;
    sys::show_name(c"portolan-launch", "portolan-launcher");
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
        let netns = fds.pop();
        // SAFETY: the launcher has one thread.
        match unsafe { sys::fork() } {
            Ok(Cloned::Child) => {
                drop(socket);
                start_shim(&host, connection, netns)
            }
            // Without a shim the connection closes, and the daemon sees that. It is the same if the fork failed.
            Ok(Cloned::Parent(_)) | Err(_) => {}
        }
    }
}

fn start_shim(mounts: &File, connection: OwnedFd, netns: Option<OwnedFd>) -> ! {
    sys::reset_signals();
    let host = || -> Result<Host> {
        let mounts = mounts.try_clone().attempt(|| "keep the mount namespace".into())?;
        let pids = File::open("/proc/self/ns/pid").attempt(|| "open the pid namespace".into())?;
        silence()?;
        Ok(Host { mounts: mounts.into(), pids: pids.into() })
    };
    match host() {
        Ok(host) => shim::run(host, connection, netns),
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

//! Mounts an overlay where nobody sees it.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::disk::open_directory;
use crate::error::{Context, Error, Result};
use crate::types::Rootfs;

/// What of a container's layers to mount.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// All, writable: of a container that does not run, as an upper directory must not be mounted twice.
    Writable,
    /// All, read-only, the upper directory as one more lower one: may be mounted beside the container's own.
    ReadOnly,
    /// The image's layers, read-only.
    Image,
}

/// Mounts an overlay in a mount namespace that ends with the call, and opens its root: the mount lives as
/// long as something opened through it.
pub(crate) fn open(rootfs: &Rootfs, view: View) -> Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("image-mount".to_owned());
        let thread = thread
            .spawn_scoped(scope, || mount_and_open(rootfs, view))
            .context(|| "start a thread".to_owned())?;
        thread.join().unwrap_or_else(|_| Err(Error::corrupt("the thread that mounts panicked")))
    })
}

/// Runs in a thread of its own, which it leaves in another namespace and directory.
fn mount_and_open(rootfs: &Rootfs, view: View) -> Result<OwnedFd> {
    let action = || format!("mount the overlay of {}", rootfs.target.display());
    // SAFETY: affects this thread only (its file system attributes and mount namespace), and it shares
    // nothing with others that depends on either.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
        return Err(std::io::Error::last_os_error()).context(action);
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context(action)?;
    let layers = rootfs.lower.first().and_then(|lower| lower.parent()).unwrap_or(Path::new("/"));
    std::env::set_current_dir(layers).context(action)?;
    let options = options(rootfs, view)?;
    let flags = if view == View::Writable { MountFlags::empty() } else { MountFlags::RDONLY };
    mount("overlay", &rootfs.target, "overlay", flags, Some(options.as_c_str())).context(action)?;
    open_directory(CWD, &rootfs.target).context(action)
}

/// Layers by name alone, as the thread is in their directory: the options must fit into a page.
fn options(rootfs: &Rootfs, view: View) -> Result<std::ffi::CString> {
    let mut text = b"index=off,lowerdir=".to_vec();
    if view == View::ReadOnly {
        push_escaped(&mut text, &rootfs.upper, b":,\\");
        text.push(b':');
    }
    for (i, lower) in rootfs.lower.iter().enumerate() {
        if i > 0 {
            text.push(b':');
        }
        text.extend_from_slice(lower.file_name().unwrap_or_default().as_bytes());
    }
    if view == View::Writable {
        for (key, path) in [(&b",upperdir="[..], &rootfs.upper), (b",workdir=", &rootfs.work)] {
            text.extend_from_slice(key);
            push_escaped(&mut text, path, b",\\");
        }
    }
    std::ffi::CString::new(text).map_err(|_| Error::invalid("a path with a zero byte"))
}

fn push_escaped(text: &mut Vec<u8>, path: &Path, special: &[u8]) {
    for byte in path.as_os_str().as_bytes() {
        if special.contains(byte) {
            text.push(b'\\');
        }
        text.push(*byte);
    }
}

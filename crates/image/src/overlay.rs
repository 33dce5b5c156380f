//! Mounts an overlay where nobody sees it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};

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

/// A directory or file of the host that is seen in a root as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the host.
    pub source: PathBuf,
    /// What of it; never outside of it, whatever links those have made who write there. All if empty.
    pub subpath: PathBuf,
    /// Where it is seen, from the root. It is made if it is not there.
    pub target: PathBuf,
}

/// A root with what is mounted in it, for as long as this lives.
#[derive(Debug)]
pub struct MountedRoot {
    root: OwnedFd,
    /// What is mounted in the root goes with its namespace.
    _namespace: OwnedFd,
}

impl AsFd for MountedRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Mounts an overlay in a mount namespace that ends with the call, and opens its root: the mount lives as
/// long as something opened through it.
pub(crate) fn open(rootfs: &Rootfs, view: View) -> Result<OwnedFd> {
    in_a_thread(|| mount_and_open(rootfs, view))
}

/// The same, writable, with other directories and files in it.
pub(crate) fn open_with(rootfs: &Rootfs, binds: &[Bind]) -> Result<MountedRoot> {
    in_a_thread(|| {
        let root = mount_and_open(rootfs, View::Writable)?;
        for bind in binds {
            let action = || format!("mount {} at {}", bind.source.display(), bind.target.display());
            let source = source_of(bind).context(action)?;
            let target = target_of(&root, bind, &source).context(action)?;
            let path = |handle: &OwnedFd| format!("/proc/self/fd/{}", handle.as_raw_fd());
            mount_bind_recursive(path(&source), path(&target)).context(action)?;
        }
        let namespace = std::fs::File::open("/proc/thread-self/ns/mnt")
            .context(|| "open the thread's mount namespace".to_owned())?;
        Ok(MountedRoot { root, _namespace: namespace.into() })
    })
}

const CONFINED: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

fn source_of(bind: &Bind) -> std::io::Result<OwnedFd> {
    let source = rustix::fs::open(&bind.source, HANDLE, Mode::empty())?;
    if bind.subpath == Path::new("") {
        return Ok(source);
    }
    Ok(openat2(source, &bind.subpath, HANDLE, Mode::empty(), CONFINED)?)
}

/// The place of a mount, made if it is not there: nothing leads out of the root.
fn target_of(root: &OwnedFd, bind: &Bind, source: &OwnedFd) -> std::io::Result<OwnedFd> {
    let find = |at: &Path| openat2(root, at, HANDLE, Mode::empty(), CONFINED);
    let kind = FileType::from_raw_mode(fstat(source)?.st_mode);
    let is_directory = kind == FileType::Directory;
    let mut at = PathBuf::from("/");
    let mut parts = bind.target.components().filter(|part| matches!(part, Component::Normal(_))).peekable();
    while let Some(part) = parts.next() {
        let parent = find(&at)?;
        at.push(part);
        if !matches!(find(&at), Err(Errno::NOENT)) {
            continue;
        }
        let name = part.as_os_str();
        if is_directory || parts.peek().is_some() {
            mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        } else {
            openat(
                &parent,
                name,
                OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o644),
            )?;
        }
    }
    Ok(find(&at)?)
}

/// Runs in a thread of its own, which may leave namespaces and directories.
fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("image-mount".to_owned());
        let thread = thread.spawn_scoped(scope, work).context(|| "start a thread".to_owned())?;
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

//! Network namespaces: made, pinned, entered, let go.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use portolan_netcore::model::SandboxId;
use rustix::fs::{CWD, Mode, OFlags, StatxFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The calling thread's namespace. Not `/proc/self`, which is that of the process's first thread.
pub(crate) const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: i128 = 0x6e73_6673;
/// `STATX_ATTR_MOUNT_ROOT` (5.8).
const ATTR_MOUNT_ROOT: u64 = 0x2000;

/// The namespaces pinned below one exec root: bind mounts `netns/<first 12 digits>`, and beside them
/// `netns-ids/<first 12 digits>`, symbolic links that spell the whole id.
///
/// `netns` is a mount of its own without propagation, so that pins stay out of the mount namespaces that
/// exist (each mount there makes clones slower). One that is made later copies them; removing the file
/// below a pin detaches the copies, too (Linux 3.18), so that they keep no namespace alive.
#[derive(Debug)]
pub struct Pins {
    pins: PathBuf,
    ids: PathBuf,
}

impl Pins {
    /// Prepares the directories below `exec_root`; existing pins stay.
    pub fn open(exec_root: &Path) -> io::Result<Self> {
        let pins = Self { pins: exec_root.join("netns"), ids: exec_root.join("netns-ids") };
        fs::create_dir_all(&pins.pins)?;
        fs::create_dir_all(&pins.ids)?;
        if !is_mount_root(&pins.pins)? {
            mount_bind(&pins.pins, &pins.pins)?;
        }
        mount_change(&pins.pins, MountPropagationFlags::PRIVATE)?;
        pins.remove_strays()?;
        Ok(pins)
    }

    /// Removes the files and labels of pins that a crash kept from being made: nothing is mounted on them. Only
    /// one process makes pins, and it opens them first.
    fn remove_strays(&self) -> io::Result<()> {
        for directory in [&self.pins, &self.ids] {
            for entry in fs::read_dir(directory)? {
                let name = entry?.file_name();
                if !is_namespace(&self.pins.join(&name))? {
                    remove_if_there(&directory.join(&name))?;
                }
            }
        }
        Ok(())
    }

    /// Where a sandbox's namespace is pinned.
    pub fn path(&self, id: &SandboxId) -> PathBuf {
        self.pins.join(id.short())
    }

    /// Makes a namespace, pins it, and calls `inside` in it. The calling thread is in it meanwhile and
    /// back in `home` afterwards: it must be a thread that was started for such work.
    pub(crate) fn create<R>(
        &self,
        id: &SandboxId,
        home: BorrowedFd<'_>,
        inside: impl FnOnce() -> R,
    ) -> io::Result<(OwnedFd, R)> {
        let path = self.path(id);
        let label = self.ids.join(id.short());
        match symlink(id.as_str(), &label) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read_link(&label)?.as_os_str() != id.as_str() || is_namespace(&path)? {
                    return Err(error);
                }
            }
            result => result?,
        }
        OpenOptions::new().create(true).append(true).open(&path)?;
        // SAFETY: only the calling thread's network namespace changes, nothing else is unshared; the
        // thread was started for this, and goes back right after.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        let made = || -> io::Result<(OwnedFd, R)> {
            mount_bind(OWN_NAMESPACE, &path)?;
            Ok((current()?, inside()))
        };
        let made = made();
        enter(home)?;
        if made.is_err() {
            // The cause is what the caller should hear of.
            let _ = self.remove(id);
        }
        made
    }

    /// Unpins a namespace. It and its links go when its last process, socket and descriptor are gone;
    /// this does not wait for it. True if there was a pin.
    pub fn remove(&self, id: &SandboxId) -> io::Result<bool> {
        let path = self.path(id);
        let pinned = match unmount(&path, UnmountFlags::DETACH) {
            Ok(()) => true,
            // Not a mount point, or not there.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => false,
            Err(error) => return Err(error.into()),
        };
        remove_if_there(&path)?;
        remove_if_there(&self.ids.join(id.short()))?;
        Ok(pinned)
    }

    /// The pinned namespace; `None` if there is none.
    pub fn get(&self, id: &SandboxId) -> io::Result<Option<OwnedFd>> {
        let path = self.path(id);
        if is_namespace(&path)? { open_namespace(&path).map(Some) } else { Ok(None) }
    }

    /// Every sandbox that has a pin.
    pub fn list(&self) -> io::Result<BTreeSet<SandboxId>> {
        self.found()?.collect()
    }

    /// Whether any sandbox has a pin; looks no further than the first.
    pub(crate) fn has_any(&self) -> io::Result<bool> {
        Ok(self.found()?.next().transpose()?.is_some())
    }

    fn found(&self) -> io::Result<impl Iterator<Item = io::Result<SandboxId>> + '_> {
        let pinned = |entry: io::Result<fs::DirEntry>| -> io::Result<Option<SandboxId>> {
            let target = fs::read_link(entry?.path())?;
            let Some(id) = target.to_str().and_then(|text| text.parse::<SandboxId>().ok()) else {
                return Ok(None);
            };
            Ok(is_namespace(&self.path(&id))?.then_some(id))
        };
        Ok(fs::read_dir(&self.ids)?.filter_map(move |entry| pinned(entry).transpose()))
    }
}

/// Takes the mount of the directory back where nothing is pinned, so that it can be deleted; with pins below
/// it, the kernel refuses.
impl Drop for Pins {
    fn drop(&mut self) {
        let _ = unmount(&self.pins, UnmountFlags::empty());
    }
}

/// Calls `task` on a thread of its own in the namespace, and waits for it.
pub fn inside<R: Send>(namespace: BorrowedFd<'_>, task: impl FnOnce() -> R + Send) -> io::Result<R> {
    on_thread(|| {
        enter(namespace)?;
        Ok(task())
    })
    .and_then(|result| result)
}

/// Calls `task` in the namespace and comes back to `home`. Only for threads that were started for such
/// work, never an async runtime's: if there is no way back, the thread must do nothing more.
pub(crate) fn visit<R>(
    namespace: BorrowedFd<'_>,
    home: BorrowedFd<'_>,
    task: impl FnOnce() -> R,
) -> io::Result<R> {
    enter(namespace)?;
    let result = task();
    enter(home)?;
    Ok(result)
}

/// The calling thread's network namespace.
pub fn current() -> io::Result<OwnedFd> {
    open_namespace(Path::new(OWN_NAMESPACE))
}

/// Calls `task` on a thread of its own and waits for it. Starting it and waiting takes 0.07 ms, changing
/// its namespace 1.4 us.
pub(crate) fn on_thread<R: Send>(task: impl FnOnce() -> R + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, task)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

fn open_namespace(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn is_namespace(path: &Path) -> io::Result<bool> {
    match rustix::fs::statfs(path) {
        Ok(found) => Ok(i128::from(found.f_type) == NSFS_MAGIC),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_mount_root(path: &Path) -> io::Result<bool> {
    let found = rustix::fs::statx(CWD, path, rustix::fs::AtFlags::empty(), StatxFlags::empty())?;
    let (known, set) = (found.stx_attributes_mask.bits(), found.stx_attributes.bits());
    if known & ATTR_MOUNT_ROOT != 0 {
        return Ok(set & ATTR_MOUNT_ROOT != 0);
    }
    // Before 5.8. The fifth field is the mount point, with blanks and backslashes in octal.
    let wanted = fs::canonicalize(path)?;
    let wanted = wanted.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(4) == Some(&wanted)))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

//! Sysctls below `/proc/sys`.
//!
//! The kernel shows `net` of the namespace that the calling thread is in. Looking a name up in one
//! procfs instance takes longer the more namespaces were looked at through it (73 us grow to 737 us
//! at 1000), so we go through instances of our own that nobody else sees, and take a new one now and
//! then. Making one for each sandbox would cost 0.1 ms; a first write through a used one takes 0.025 ms.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// A procfs to reach sysctls through.
#[derive(Debug)]
pub struct Sysctls(OwnedFd);

impl Sysctls {
    /// A fresh, unmounted procfs instance; the host's own `/proc` where the kernel is older than 5.2 or
    /// forbids it (inside a container).
    pub fn open() -> io::Result<Self> {
        let fresh = || -> rustix::io::Result<OwnedFd> {
            let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        match fresh() {
            Ok(root) => Ok(Self(root)),
            Err(_) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Ok(Self(openat(CWD, "/proc", flags, Mode::empty())?))
            }
        }
    }

    /// Writes a sysctl of the calling thread's namespace. The key has slashes: `net/ipv4/ip_forward`.
    pub fn write(&self, key: &str, value: &str) -> io::Result<()> {
        let file = self.open_key(key, OFlags::WRONLY)?;
        rustix::io::write(&file, value.as_bytes())?;
        Ok(())
    }

    /// Reads a sysctl of the calling thread's namespace, without the line's end.
    pub fn read(&self, key: &str) -> io::Result<String> {
        let file = self.open_key(key, OFlags::RDONLY)?;
        let mut value = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(file), &mut value)?;
        // The kernel prints vectors with tabs between.
        Ok(value.trim_end().replace('\t', " "))
    }

    fn open_key(&self, key: &str, access: OFlags) -> io::Result<OwnedFd> {
        if key.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{key:?} is not a sysctl")));
        }
        Ok(openat(&self.0, format!("sys/{key}"), access | OFlags::CLOEXEC, Mode::empty())?)
    }
}

/// Instances for sandboxes, each for a limited number of visits.
#[derive(Debug, Default)]
pub(crate) struct SharedSysctls(Mutex<Option<(Arc<Sysctls>, u32)>>);

impl SharedSysctls {
    /// Visits that one instance serves. The cost of a look-up grows by 0.7 us a namespace.
    const VISITS: u32 = 32;

    /// An instance for one visit to one namespace.
    pub(crate) fn get(&self) -> io::Result<Arc<Sysctls>> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sysctls, visits)) = current.as_mut()
            && *visits < Self::VISITS
        {
            *visits += 1;
            return Ok(Arc::clone(sysctls));
        }
        let sysctls = Arc::new(Sysctls::open()?);
        *current = Some((Arc::clone(&sysctls), 1));
        Ok(sysctls)
    }
}

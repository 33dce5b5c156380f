//! What is hidden or made read-only when everything is mounted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::inside;
use super::mounts::{MOUNT_ATTR_RDONLY, Own, mount_at};
use crate::defaults::{MASKED_PATHS, READONLY_PATHS};
use crate::error::Attempt;
use crate::spec::ContainerSpec;
use crate::{Result, sys};

/// Hides and protects what an unprivileged container must not see or write, and the root if so wanted.
pub(super) fn protect(spec: &ContainerSpec, own: &Own) -> Result<()> {
    if !spec.privileged {
        let mut covers = Covers { null: own.null.as_fd(), empty: None };
        match &spec.masked_paths {
            Some(paths) => paths.iter().try_for_each(|path| covers.mask(path))?,
            None => MASKED_PATHS.iter().try_for_each(|path| covers.mask(path))?,
        }
        match &spec.readonly_paths {
            Some(paths) => paths.iter().try_for_each(|path| make_readonly(path))?,
            None => READONLY_PATHS.iter().try_for_each(|path| make_readonly(path))?,
        }
    }
    if spec.readonly_rootfs {
        sys::mount("", "/", "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, "")
            .attempt(|| "make the root read-only".into())?;
    }
    Ok(())
}

/// What hides things.
struct Covers<'a> {
    /// The null device, for files: by its descriptor, as /dev/null may have become anything by now.
    null: BorrowedFd<'a>,
    /// An empty directory, for directories; mounted on the first of them.
    empty: Option<OwnedFd>,
}

impl Covers<'_> {
    fn mask(&mut self, path: &str) -> Result<()> {
        let what = || format!("mask {path}");
        let Some(place) = existing(path).attempt(what)? else { return Ok(()) };
        if !inside::is_directory(&place).attempt(what)? {
            let cover = sys::clone_mount_of(self.null, false).attempt(what)?;
            return sys::attach_mount(&cover, place.as_fd()).attempt(what);
        }
        match &self.empty {
            Some(empty) => {
                let cover = sys::clone_mount_of(empty.as_fd(), false).attempt(what)?;
                sys::attach_mount(&cover, place.as_fd()).attempt(what)
            }
            None => {
                mount_at(&place, "tmpfs", libc::MS_RDONLY, "size=0k").attempt(what)?;
                self.empty = existing(path).attempt(what)?;
                Ok(())
            }
        }
    }
}

fn make_readonly(path: &str) -> Result<()> {
    let what = || format!("make {path} read-only");
    let Some(place) = existing(path).attempt(what)? else { return Ok(()) };
    let mount = sys::clone_mount_of(place.as_fd(), true).attempt(what)?;
    sys::set_mount_attributes(&mount, MOUNT_ATTR_RDONLY, 0, true).attempt(what)?;
    sys::attach_mount(&mount, place.as_fd()).attempt(what)
}

fn existing(path: &str) -> io::Result<Option<OwnedFd>> {
    match inside::open(Path::new(path), OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

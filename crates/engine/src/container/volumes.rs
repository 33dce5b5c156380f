//! A volume that is empty gets what the image has at its place.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timestamps, XattrFlags, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat, mknodat, open, openat, openat2, readlinkat,
    statat, symlinkat,
};
use rustix::io::Errno;

use super::record::Definition;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::model::{MountPoint, MountType};

/// No real tree is deeper; a loop of mounts could be.
const DEEPEST: usize = 512;

impl Engine {
    /// Copies, into every empty volume of a new container, the image's files at its place. Blocks.
    ///
    /// # Errors
    /// They cannot be copied.
    pub(crate) fn fill_volumes(&self, definition: &Definition) -> Result<()> {
        let wanted = |mount: &&MountPoint| mount.kind == MountType::Volume && !mount.no_copy;
        let to_fill: Vec<MountPoint> = definition.mounts.iter().filter(wanted).cloned().collect();
        self.inner.volumes.while_mounted(&to_fill, || self.fill_empty(definition, &to_fill))
    }

    fn fill_empty(&self, definition: &Definition, mounts: &[MountPoint]) -> Result<()> {
        let empty: Vec<&MountPoint> = mounts.iter().filter(|mount| is_empty(mount)).collect();
        if empty.is_empty() {
            return Ok(());
        }
        let root = self.inner.images.open_rootfs(definition.id.as_str())?;
        for mount in empty {
            fill(&root, mount).map_err(|error| {
                EngineError::internal(format!(
                    "copy the image's {} into volume {}: {}",
                    mount.destination,
                    mount.name.as_deref().unwrap_or_default(),
                    std::io::Error::from(error)
                ))
            })?;
        }
        Ok(())
    }
}

fn is_empty(mount: &MountPoint) -> bool {
    std::fs::read_dir(&mount.source).is_ok_and(|mut entries| entries.next().is_none())
}

fn fill(root: &OwnedFd, mount: &MountPoint) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source = match openat2(root, mount.destination.as_str(), flags, Mode::empty(), confined) {
        Ok(source) => source,
        // The image has nothing there, or no directory.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error),
    };
    let target = open(&mount.source, flags, Mode::empty())?;
    copy_directory(source.as_fd(), target.as_fd(), 0)
}

/// Everything in `from` and the directory's own attributes.
fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::LOOP);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            copy_entry(from, to, name, depth)?;
        }
    }
    copy_attributes(from, to)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> rustix::io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let from = openat(from, name, read | OFlags::DIRECTORY, Mode::empty())?;
            let to = openat(to, name, read | OFlags::DIRECTORY, Mode::empty())?;
            copy_directory(from.as_fd(), to.as_fd(), depth + 1)
        }
        FileType::RegularFile => {
            let from = openat(from, name, read, Mode::empty())?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
            copy_content(&from, &to)?;
            copy_attributes(from.as_fd(), to.as_fd())
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(target.as_c_str(), to, name)?;
            own(to, name, &stat)
        }
        kind => {
            mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            own(to, name, &stat)
        }
    }
}

fn own(directory: BorrowedFd<'_>, name: &CStr, stat: &rustix::fs::Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn owner(stat: &rustix::fs::Stat) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid))
}

fn copy_content(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let (from, to) = (from.try_clone(), to.try_clone());
    let copied = from
        .and_then(|from| to.map(|to| (std::fs::File::from(from), std::fs::File::from(to))))
        .and_then(|(mut from, mut to)| std::io::copy(&mut from, &mut to));
    copied.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Owner, mode, extended attributes and times; the mode after the owner, which clears set-id bits.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let stat = fstat(from)?;
    let (uid, gid) = owner(&stat);
    fchown(to, Some(uid), Some(gid))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    copy_xattrs(from, to)?;
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    futimens(
        to,
        &Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        },
    )
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match flistxattr(from, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // Overlay's own marks are about its layers.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        let length = fgetxattr(from, name, &mut value)?;
        match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn trees_are_copied_whole_and_links_stay_links() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("sub/file"), "text").unwrap();
        std::fs::set_permissions(from.join("sub/file"), std::fs::Permissions::from_mode(0o751)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o711)).unwrap();
        let open =
            |path: &std::path::Path| open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        copy_directory(open(&from).as_fd(), open(&to).as_fd(), 0).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("sub/file")).unwrap(), "text");
        assert_eq!(std::fs::metadata(to.join("sub/file")).unwrap().mode() & 0o777, 0o751);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap().to_str(), Some("/etc/passwd"));
        assert_eq!(std::fs::metadata(&to).unwrap().mode() & 0o777, 0o711);
        let times = |path: &std::path::Path| std::fs::metadata(path).unwrap().mtime_nsec();
        assert_eq!(times(&from.join("sub/file")), times(&to.join("sub/file")));
    }
}

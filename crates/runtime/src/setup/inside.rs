//! Paths inside a container, resolved with care: whoever has the container wrote what leads there, and
//! the process that looks still has all of root's powers.
//!
//! Once the root has changed no symbolic link leads out of it. The magic links of /proc do:
//! /proc/1/root with `--pid host`, /proc/self/fd of a process that has inherited something. None is followed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    CWD, FileType, FsWord, Mode, OFlags, RawMode, ResolveFlags, fstat, fstatfs, mkdirat, mknodat, openat2,
    readlinkat,
};
use rustix::io::Errno;

use crate::error::Attempt;
use crate::{Error, Result};

/// What a path that is made shall lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Directory,
    File,
}

/// `PROC_SUPER_MAGIC` and `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const PROC: FsWord = 0x9fa0;
const DEVPTS: FsWord = 0x1cd1;
/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;
/// How often a look is repeated that somebody's renames have disturbed.
const PATIENCE: u32 = 64;

/// Opens what is there.
pub(super) fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_at(CWD, path, flags)
}

/// Opens what a path leads to from a directory of the host, without leaving that directory.
pub(super) fn open_beneath(directory: &Path, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let root_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open_in(&rustix::fs::open(directory, root_flags, Mode::empty())?, path, flags)
}

/// The same from a handle to the directory.
pub(super) fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..PATIENCE {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            // Something was renamed on the way.
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

fn open_at(directory: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    Ok(openat2(directory, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?)
}

/// A handle to a directory or file, which is made if it is missing, as are the directories above it. A
/// link that points nowhere is followed, and what it points to is made.
pub(super) fn make(path: &Path, target: Target) -> io::Result<OwnedFd> {
    make_through(path, target, MOST_LINKS)
}

fn make_through(path: &Path, target: Target, links: u32) -> io::Result<OwnedFd> {
    match open(path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::NOENT.into());
    };
    let directory = make_through(parent, Target::Directory, links)?;
    let made = match target {
        Target::Directory => mkdirat(&directory, name, Mode::from_raw_mode(0o755)),
        Target::File => mknodat(&directory, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
    };
    match made {
        Err(Errno::EXIST) => {
            let link = readlinkat(&directory, name, Vec::new()).ok().filter(|_| links > 0);
            if let Some(link) = link {
                use std::os::unix::ffi::OsStrExt;
                let link = Path::new(std::ffi::OsStr::from_bytes(link.as_bytes()));
                return make_through(&parent.join(link), target, links - 1);
            }
        }
        other => other?,
    }
    open_at(&directory, Path::new(name), OFlags::PATH | OFlags::NOFOLLOW)
}

/// Makes a directory and those above it.
pub(super) fn make_directory(path: &Path) -> Result<OwnedFd> {
    let what = || format!("make the directory {}", path.display());
    let made = make(path, Target::Directory).attempt(what)?;
    if is_directory(&made).attempt(what)? { Ok(made) } else { Err(Errno::NOTDIR).attempt(what) }
}

/// Makes this the working directory, and sees that it is one of the container.
pub(super) fn enter(path: &Path) -> io::Result<()> {
    let directory = open(path, OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::process::fchdir(directory)?;
    check_entered()
}

/// The same for a process that has its privileges behind it, and its seccomp filter on: by calls that are as old as
/// programs. What it may follow now it may follow as the container's program, too.
pub(super) fn enter_as_user(path: &Path) -> io::Result<()> {
    rustix::process::chdir(path)?;
    check_entered()
}

fn check_entered() -> io::Result<()> {
    // The kernel says "(unreachable)/..." of what is not below the root.
    let whole = rustix::process::getcwd(Vec::new())?;
    if whole.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::NOENT.into()) }
}

pub(super) fn is_directory(handle: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(handle)?.st_mode as RawMode) == FileType::Directory)
}

pub(super) fn is_procfs(handle: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(handle)?.f_type == PROC)
}

pub(super) fn is_devpts(handle: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(handle)?.f_type == DEVPTS)
}

/// Whether this is the null device and not something in its place (CVE-2025-31133).
pub(super) fn check_null(handle: impl AsFd) -> Result<()> {
    let what = || "look at /dev/null".to_owned();
    let stat = fstat(handle).attempt(what)?;
    let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
    if kind == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3) {
        Ok(())
    } else {
        Err(Error::Invalid("/dev/null is not the null device".into()))
    }
}

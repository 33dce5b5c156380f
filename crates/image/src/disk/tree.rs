use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, fstat, openat, openat2, statat,
};
use rustix::io::Errno;

/// A directory that everything below is reached through, and nothing beyond: symlinks, absolute ones and
/// `..` included, are resolved as if it were `/` (openat2(2), `RESOLVE_IN_ROOT`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree<'a> {
    root: BorrowedFd<'a>,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root }
    }

    /// Opens `path` (relative, or absolute from the root); empty is the root itself.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path, flags, ResolveFlags::empty())
    }

    /// The same without following any symlink on the way: only what is really there.
    pub(crate) fn open_real(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path, flags | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &[u8], flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        // The kernel says EAGAIN when a rename elsewhere made it unsure of a `..`.
        for _ in 0..64 {
            match openat2(self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a directory to name things in it.
    pub(crate) fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }
}

/// A path without `.`, empty components and trailing slashes, with each `..` taking back what is before it;
/// none if it leaves the root that it began in. Like Go's `filepath.Clean` of a path below that root.
pub(crate) fn lexical_path(path: &[u8]) -> Option<Vec<u8>> {
    let absolute = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.pop().is_none() && !absolute => return None,
            b".." => {}
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Opens a directory for reading, not following a symlink at its end.
pub(crate) fn open_directory(at: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, path.as_ref(), flags, Mode::empty())?)
}

/// The names in a directory, sorted, without `.` and `..`.
pub(crate) fn read_names(directory: &impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Modification time as seconds and nanoseconds.
pub(crate) fn mtime_of(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, stat.st_mtime_nsec as u32)
}

/// Names and values of extended attributes.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of `name` in `parent` that `wanted` picks; symlinks are not followed. A file
/// system without them has none.
pub(crate) fn xattrs(
    parent: &impl AsFd,
    name: &[u8],
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Attributes, Errno> {
    let path = match proc_path(parent, name) {
        Ok(path) => path,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut list = vec![0; 64 << 10];
    let size = match rustix::fs::listxattr(path.1.as_str(), &mut list[..]) {
        Ok(size) => size,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for key in list[..size].split(|b| *b == 0).filter(|key| !key.is_empty() && wanted(key)) {
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::getxattr(path.1.as_str(), OsStr::from_bytes(key), &mut value[..])?;
        value.truncate(size);
        found.push((key.to_vec(), value));
    }
    Ok(found)
}

/// Sets an extended attribute of `name` in `parent`, not following a symlink.
pub(crate) fn set_xattr(parent: &impl AsFd, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), Errno> {
    let path = proc_path(parent, name)?;
    rustix::fs::setxattr(path.1.as_str(), OsStr::from_bytes(key), value, rustix::fs::XattrFlags::empty())
}

/// The kernel has no `*at` calls for attributes before 6.13: go through a descriptor of the very file.
fn proc_path(parent: &impl AsFd, name: &[u8]) -> Result<(OwnedFd, String), Errno> {
    let fd = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok((fd, path))
}

/// Opens the plain file at `name` so that nothing waits for content; anything else is as good as gone. The very file is
/// looked at before it is opened: to open a device is to use it, and whoever owns the tree may put one there meanwhile.
pub(crate) fn open_plain(parent: &impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let (handle, path) = proc_path(parent, name)?;
    if FileType::from_raw_mode(fstat(&handle)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    // Some of proc's would have us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// What is at `name`; none if nothing.
pub(crate) fn stat_name(parent: &impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexical_paths_stay_inside_or_are_none() {
        let clean = |path: &str| lexical_path(path.as_bytes()).map(|p| String::from_utf8(p).unwrap());
        assert_eq!(clean("./a//b/./c/").unwrap(), "a/b/c");
        assert_eq!(clean("a/../b").unwrap(), "b");
        assert_eq!(clean("/etc/passwd").unwrap(), "etc/passwd");
        assert_eq!(clean("/../../etc").unwrap(), "etc");
        assert_eq!(clean("./").unwrap(), "");
        for bad in ["..", "../a", "a/../../b", "./../a"] {
            assert_eq!(clean(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_symlink_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc", inside.path().join("up")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", inside.path().join("magic")).unwrap();
        std::fs::create_dir(inside.path().join("real")).unwrap();
        std::os::unix::fs::symlink("/real", inside.path().join("fine")).unwrap();
        let root = std::fs::File::open(inside.path()).unwrap();
        let tree = Tree::new(root.as_fd());
        assert!(tree.directory(b"fine").is_ok(), "an absolute symlink means the tree's own root");
        assert!(tree.open_real(b"fine", OFlags::PATH | OFlags::DIRECTORY).is_err());
        for path in ["absolute", "absolute/secret", "up", "magic", "up/../../../etc"] {
            assert!(tree.directory(path.as_bytes()).is_err(), "{path}");
        }
    }

    #[test]
    fn only_plain_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
        std::fs::write(directory.path().join("file"), "text").unwrap();
        let handle = std::fs::File::open(directory.path()).unwrap();
        // Whoever wants to write into a pipe waits until somebody has opened it.
        let writer = {
            let pipe = pipe.clone();
            std::thread::spawn(move || std::fs::File::options().write(true).open(pipe))
        };
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(open_plain(&handle, b"pipe").unwrap_err(), Errno::NOENT);
        let file = std::fs::File::from(open_plain(&handle, b"file").unwrap());
        assert_eq!(io::read_to_string(file).unwrap(), "text");
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!writer.is_finished(), "the pipe was opened");
        drop(rustix::fs::open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap());
        writer.join().unwrap().unwrap();
    }
}

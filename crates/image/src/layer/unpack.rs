use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens,
    linkat, makedev, mkdirat, mknodat, openat, readlinkat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::OPAQUE_XATTR;
use super::pack::join;
use super::split::{SideFiles, SplitWriter};
use crate::disk::{Tree, lexical_path, mtime_of, open_directory, read_names, set_xattr, stat_name, xattrs};
use crate::error::{Context, Error, Result};
use crate::tar::{Header, Kind, stream_error};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const DIRECTORY_MODE: u32 = 0o755;
/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// What an archive may do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules<'a> {
    /// It is a layer: `.wh.` names mean whiteouts. Holds the layers below it, topmost first.
    pub(crate) layer: Option<&'a [PathBuf]>,
    /// The directory to unpack into, from the root; links are still resolved from the root.
    pub(crate) directory: &'a [u8],
    /// All becomes this user's and group's.
    pub(crate) owner: Option<(u32, u32)>,
    /// A directory is not replaced by something else, nor the reverse.
    pub(crate) keep_kinds: bool,
}

/// Unpacks members below a directory, and nowhere else whatever they are called or link to.
pub(crate) struct Unpacker<'a> {
    tree: Tree<'a>,
    root: BorrowedFd<'a>,
    rules: Rules<'a>,
    /// The directory of the last member: archives go directory by directory.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Times of directories, which change again with everything that is put into them.
    times: Vec<(Vec<u8>, (i64, u32))>,
    saw_root: bool,
    size: u64,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, rules: Rules<'a>) -> Self {
        let buffer = vec![0; 128 << 10];
        let tree = Tree::new(root);
        Self { tree, root, rules, parent: None, times: Vec::new(), saw_root: false, size: 0, buffer }
    }

    /// Puts one member of a layer in place, and notes where its content is.
    pub(crate) fn apply_to_layer(
        &mut self,
        header: &Header,
        content: &mut impl Read,
        split: &mut SplitWriter,
        side: &mut SideFiles,
    ) -> Result<()> {
        let placed = self.apply(header, content, Some(side))?;
        if header.size == 0 {
            return Ok(());
        }
        match placed {
            Some(file) => {
                let number = split.file(&file.path, header.size)?;
                side.remember(file.inode, number);
            }
            None => loop {
                let n = content.read(&mut self.buffer).map_err(stream_error)?;
                if n == 0 {
                    break;
                }
                split.raw(&self.buffer[..n])?;
            },
        }
        self.size += header.size;
        Ok(())
    }

    /// Puts one member in place.
    pub(crate) fn apply_plain(&mut self, header: &Header, content: &mut impl Read) -> Result<()> {
        self.apply(header, content, None)?;
        Ok(())
    }

    /// Sets what can only be set at the end; returns the bytes of content.
    pub(crate) fn finish(mut self) -> Result<u64> {
        if let Some(lowers) = self.rules.layer.filter(|_| !self.saw_root) {
            let root = open_directory(self.root, ".").context(|| "open the layer's root".to_owned())?;
            fchmod(&root, Mode::from(DIRECTORY_MODE))
                .context(|| "set the mode of the layer's root".to_owned())?;
            self.copy_metadata_from(lowers, b"", &root)?;
        }
        for (path, mtime) in std::mem::take(&mut self.times).iter().rev() {
            // A later member may have replaced it.
            let Ok(fd) = self.tree.open_real(path, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
            futimens(&fd, &times(*mtime)).context(|| format!("set the time of {}", show(path)))?;
        }
        Ok(self.size)
    }

    fn apply(
        &mut self,
        header: &Header,
        content: &mut impl Read,
        side: Option<&mut SideFiles>,
    ) -> Result<Option<Placed>> {
        let path = lexical_path(&header.path).ok_or_else(|| {
            Error::invalid(format!("archive entry {} is outside of the root", show(&header.path)))
        })?;
        if path.is_empty() {
            return self.apply_root(header).map(|()| None);
        }
        let path = join(self.rules.directory, &path);
        let (parent_path, name) = split_path(&path);
        let layer = self.rules.layer.is_some();
        if layer && let Some(marker) = whiteout_marker(&path)? {
            self.apply_whiteout(parent_path, marker)?;
            return Ok(None);
        }
        let parent = self.parent_directory(parent_path)?;
        let action = || format!("unpack {}", show(&path));
        let existing = stat_name(&parent, name).context(action)?;
        let mut hides_lower = false;
        let keep = match &existing {
            None => false,
            Some(stat) if is_directory(stat) && header.kind == Kind::Directory => true,
            Some(stat) => {
                hides_lower = layer && is_whiteout(stat);
                self.make_way(&parent, &path, stat, header.kind, side)?;
                false
            }
        };
        match header.kind {
            Kind::File => return self.make_file(&parent, &path, header, content).map(Some),
            Kind::Directory => self.make_directory(&parent, &path, header, keep, hides_lower)?,
            Kind::HardLink => self.make_hard_link(&parent, name, header)?,
            Kind::Symlink => {
                symlinkat(header.link.as_slice(), &*parent, name).context(action)?;
                self.set_metadata_of_node(&parent, name, header).context(action)?;
            }
            Kind::CharDevice if layer && header.device == (0, 0) => self.make_whiteout(&parent, name)?,
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.make_node(&parent, name, header).context(action)?;
            }
        }
        Ok(None)
    }

    fn apply_root(&mut self, header: &Header) -> Result<()> {
        if header.kind != Kind::Directory {
            return Err(Error::invalid(format!(
                "archive entry {} would replace the root",
                show(&header.path)
            )));
        }
        self.saw_root = true;
        let action = || "set the attributes of the root".to_owned();
        let root =
            self.tree.open(self.rules.directory, OFlags::RDONLY | OFlags::DIRECTORY).context(action)?;
        self.set_metadata(&root, header).context(action)?;
        self.times.push((self.rules.directory.to_vec(), header.mtime));
        Ok(())
    }

    /// `marker` is the name after `.wh.`, or `.wh..opq` and its like.
    fn apply_whiteout(&mut self, parent_path: &[u8], marker: &[u8]) -> Result<()> {
        // Nothing is below the bottom layer.
        if self.rules.layer.is_none_or(<[_]>::is_empty) {
            return Ok(());
        }
        let whole = [WHITEOUT_PREFIX, marker].concat();
        if whole.starts_with(WHITEOUT_META_PREFIX) && whole != WHITEOUT_OPAQUE {
            return Ok(());
        }
        let parent = self.parent_directory(parent_path)?;
        if whole == WHITEOUT_OPAQUE {
            return set_opaque(&parent, b".");
        }
        match stat_name(&parent, marker).context(|| format!("look up {}", show(marker)))? {
            None => self.make_whiteout(&parent, marker),
            // Whiteouts are about the layers below; what this layer holds stays, and stands alone.
            Some(stat) if is_directory(&stat) => set_opaque(&parent, marker),
            Some(_) => Ok(()),
        }
    }

    fn make_whiteout(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        if self.rules.layer.is_none_or(<[_]>::is_empty) {
            return Ok(());
        }
        mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
            .context(|| format!("make the whiteout of {}", show(name)))
    }

    /// Opens a directory that a member goes into, making what is missing.
    fn parent_directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some((cached, fd)) = &self.parent
            && cached == path
        {
            return Ok(fd.clone());
        }
        let fd = match self.tree.directory(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path)?,
            Err(error) => return Err(not_below(path, error)),
        };
        let fd = Rc::new(fd);
        self.parent = Some((path.to_vec(), fd.clone()));
        Ok(fd)
    }

    /// Symlinks on the way are followed inside the root, to directories that are made where they lead: the layer that
    /// has the directory may be one below.
    fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let reversed = |path: &[u8]| path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut pending = reversed(path);
        // Where we are, without a symlink in it.
        let mut real: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real.truncate(split_path(&real).0.len());
                    continue;
                }
                _ => {}
            }
            let at = self.real_directory(&real)?;
            let next = join(&real, &part);
            let stat = stat_name(&at, &part).context(|| format!("look up {}", show(&next)))?;
            if stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(not_below(path, Errno::LOOP));
                }
                let target = readlinkat(&at, part.as_slice(), Vec::new())
                    .context(|| format!("read the link {}", show(&next)))?;
                if target.as_bytes().starts_with(b"/") {
                    real.clear();
                }
                pending.extend(reversed(target.as_bytes()));
                continue;
            }
            if !stat.is_some_and(|stat| is_directory(&stat)) {
                self.make_parent(&at, &part, &next)?;
            }
            real = next;
        }
        self.real_directory(&real)
    }

    fn real_directory(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.tree.open_real(path, flags).map_err(|error| not_below(path, error))
    }

    /// Makes a directory that the archive does not list: as it is in the layers below, if it is there.
    fn make_parent(&mut self, at: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let action = || format!("make the directory {}", show(path));
        let existing = stat_name(at, name).context(action)?;
        let was_whiteout = self.rules.layer.is_some() && existing.as_ref().is_some_and(is_whiteout);
        if was_whiteout {
            unlinkat(at, name, AtFlags::empty()).context(action)?;
        } else if existing.is_some() {
            return Err(not_below(path, Errno::NOTDIR));
        }
        mkdirat(at, name, Mode::from(DIRECTORY_MODE)).context(action)?;
        let fd = open_directory(at, std::path::Path::new(as_os(name))).context(action)?;
        fchmod(&fd, Mode::from(DIRECTORY_MODE)).context(action)?;
        if was_whiteout {
            set_opaque(&fd, b".")?;
        } else if let Some(lowers) = self.rules.layer {
            self.copy_metadata_from(lowers, path, &fd)?;
        }
        if let Some((uid, gid)) = self.rules.owner {
            fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context(action)?;
        }
        Ok(())
    }

    fn copy_metadata_from(&mut self, lowers: &[PathBuf], path: &[u8], to: &OwnedFd) -> Result<()> {
        let action = || format!("copy the attributes of {}", show(path));
        for lower in lowers {
            let root = open_directory(rustix::fs::CWD, lower).context(action)?;
            let Ok(from) = Tree::new(root.as_fd()).open_real(path, OFlags::RDONLY) else { continue };
            let stat = rustix::fs::fstat(&from).context(action)?;
            if !is_directory(&stat) {
                break;
            }
            fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).context(action)?;
            for (key, value) in xattrs(&from, b".", |key| !is_overlay_xattr(key)).context(action)? {
                set_xattr(to, b".", &key, &value).context(action)?;
            }
            fchmod(to, Mode::from_raw_mode(stat.st_mode)).context(action)?;
            self.times.push((path.to_vec(), mtime_of(&stat)));
            break;
        }
        Ok(())
    }

    /// Removes what is in the place of a member.
    fn make_way(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        stat: &Stat,
        kind: Kind,
        side: Option<&mut SideFiles>,
    ) -> Result<()> {
        if self.rules.keep_kinds && is_directory(stat) {
            return Err(Error::invalid(format!(
                "cannot overwrite directory {} with non-directory {0}",
                show(path)
            )));
        }
        if self.rules.keep_kinds && kind == Kind::Directory {
            return Err(Error::invalid(format!(
                "cannot overwrite non-directory {} with directory {0}",
                show(path)
            )));
        }
        let (_, name) = split_path(path);
        self.parent = None;
        remove(parent, name, stat, side).context(|| format!("replace {}", show(path)))
    }

    fn make_file(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        header: &Header,
        content: &mut impl Read,
    ) -> Result<Placed> {
        let action = || format!("unpack {}", show(path));
        let (_, name) = split_path(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::from(0o600)).context(action)?;
        let mut file = std::fs::File::from(file);
        let mut left = header.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let n = content.read(&mut self.buffer[..most]).map_err(stream_error)?;
            if n == 0 {
                return Err(stream_error(std::io::ErrorKind::UnexpectedEof.into()));
            }
            std::io::Write::write_all(&mut file, &self.buffer[..n]).context(action)?;
            left -= n as u64;
        }
        self.set_metadata(&file, header).context(action)?;
        futimens(&file, &times(header.mtime)).context(action)?;
        let inode = rustix::fs::fstat(&file).context(action)?.st_ino;
        Ok(Placed { path: path.to_vec(), inode })
    }

    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        header: &Header,
        keep: bool,
        hides_lower: bool,
    ) -> Result<()> {
        let action = || format!("unpack {}", show(path));
        let (_, name) = split_path(path);
        if !keep {
            mkdirat(parent, name, Mode::from(DIRECTORY_MODE)).context(action)?;
        }
        let fd = open_directory(parent, std::path::Path::new(as_os(name))).context(action)?;
        if hides_lower {
            set_opaque(&fd, b".")?;
        }
        self.set_metadata(&fd, header).context(action)?;
        self.times.push((path.to_vec(), header.mtime));
        Ok(())
    }

    fn make_hard_link(&mut self, parent: &OwnedFd, name: &[u8], header: &Header) -> Result<()> {
        let refuse = |why: &str| {
            Error::invalid(format!(
                "archive entry {}: hard link to {} {why}",
                show(&header.path),
                show(&header.link)
            ))
        };
        let target = lexical_path(&header.link).ok_or_else(|| refuse("which is outside of the root"))?;
        if target.is_empty() {
            return Err(refuse("which is a directory"));
        }
        let target = join(self.rules.directory, &target);
        let (target_parent, target_name) = split_path(&target);
        let from = match self.tree.directory(target_parent) {
            Ok(from) => from,
            Err(_) => return Err(refuse("which is not in this archive")),
        };
        match stat_name(&from, target_name).context(|| format!("look up {}", show(&target)))? {
            None => return Err(refuse("which is not in this archive")),
            Some(stat) if is_directory(&stat) => return Err(refuse("which is a directory")),
            Some(stat) if self.rules.layer.is_some() && is_whiteout(&stat) => {
                return Err(refuse("which is deleted"));
            }
            Some(_) => {}
        }
        linkat(&from, target_name, parent, name, AtFlags::empty())
            .context(|| format!("link {} to {}", show(&header.path), show(&target)))
    }

    fn make_node(&self, parent: &OwnedFd, name: &[u8], header: &Header) -> Result<(), Errno> {
        let kind = match header.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = makedev(header.device.0, header.device.1);
        mknodat(parent, name, kind, Mode::empty(), device)?;
        self.set_metadata_of_node(parent, name, header)
    }

    /// Owner, attributes and mode of an open file or directory; in this order, since a change of owner takes
    /// away capabilities and setuid.
    fn set_metadata(&self, fd: &impl AsFd, header: &Header) -> Result<(), Errno> {
        let (uid, gid) = self.rules.owner.unwrap_or((header.uid, header.gid));
        fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        for (key, value) in header.xattrs.iter().filter(|(key, _)| !is_overlay_xattr(key)) {
            let name = std::ffi::OsStr::new(as_os(key));
            tolerate(key, rustix::fs::fsetxattr(fd, name, value, rustix::fs::XattrFlags::empty()))?;
        }
        fchmod(fd, Mode::from(header.mode))
    }

    /// The same for what cannot be opened.
    fn set_metadata_of_node(&self, parent: &OwnedFd, name: &[u8], header: &Header) -> Result<(), Errno> {
        let (uid, gid) = self.rules.owner.unwrap_or((header.uid, header.gid));
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        for (key, value) in header.xattrs.iter().filter(|(key, _)| !is_overlay_xattr(key)) {
            tolerate(key, set_xattr(parent, name, key, value))?;
        }
        if header.kind != Kind::Symlink {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(parent, name, flags, Mode::empty())?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            rustix::fs::chmod(path, Mode::from(header.mode))?;
        }
        utimensat(parent, name, &times(header.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl std::fmt::Debug for Unpacker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker")
            .field("root", &self.root)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// A file with content that was put in place.
struct Placed {
    path: Vec<u8>,
    inode: u64,
}

/// A member that is a whiteout: the part of its name after `.wh.`.
fn whiteout_marker(path: &[u8]) -> Result<Option<&[u8]>> {
    let (parent, name) = split_path(path);
    let refuse = || Error::invalid(format!("archive entry {} is a malformed whiteout", show(path)));
    for part in parent.split(|b| *b == b'/') {
        if part.starts_with(WHITEOUT_META_PREFIX) {
            // Below a directory of aufs's own: as little ours as the directory.
            return Ok(Some(&WHITEOUT_META_PREFIX[WHITEOUT_PREFIX.len()..]));
        }
        if part.starts_with(WHITEOUT_PREFIX) {
            return Err(refuse());
        }
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        Some(b"" | b"." | b"..") => Err(refuse()),
        other => Ok(other),
    }
}

fn remove(parent: &OwnedFd, name: &[u8], stat: &Stat, side: Option<&mut SideFiles>) -> std::io::Result<()> {
    let mut side = side;
    if !is_directory(stat) {
        if let Some(side) = side
            && side.rescue(parent, name, stat.st_ino).map_err(std::io::Error::other)?
        {
            return Ok(());
        }
        return Ok(unlinkat(parent, name, AtFlags::empty())?);
    }
    let directory = open_directory(parent, std::path::Path::new(as_os(name)))?;
    for child in read_names(&directory)? {
        if let Some(stat) = stat_name(&directory, &child)? {
            remove(&directory, &child, &stat, side.as_deref_mut())?;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn set_opaque(at: &OwnedFd, name: &[u8]) -> Result<()> {
    set_xattr(at, name, OPAQUE_XATTR, b"y").context(|| format!("make {} opaque", show(name)))
}

/// These direct overlayfs itself (redirects, metadata-only copies): never taken from an archive.
pub(super) fn is_overlay_xattr(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// Attributes that the file system or the kernel does not take are left out, as Docker does.
fn tolerate(key: &[u8], result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(error @ (Errno::NOTSUP | Errno::PERM)) => {
            tracing::warn!(key = %String::from_utf8_lossy(key), %error, "extended attribute left out");
            Ok(())
        }
        other => other,
    }
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The directory and the last part.
pub(crate) fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        None => (b"", path),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
    }
}

fn times((tv_sec, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn not_below(path: &[u8], error: Errno) -> Error {
    Error::invalid(format!("archive entry below {}: {}", show(path), std::io::Error::from(error)))
}

pub(super) fn as_os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

fn show(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, Stat, major, minor, readlinkat};
use rustix::io::Errno;

use super::content::{Content, is_made_up};
use super::unpack::{as_os, is_directory, is_overlay_xattr, is_whiteout};
use super::{OPAQUE_XATTR, unpack};
use crate::disk::{Tree, open_plain, read_names, stat_name, xattrs};
use crate::error::{Context, Error, Result};
use crate::tar::{Header, Kind, TarWriter};

/// What a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Files as they are seen.
    Plain,
    /// The upper directory of an overlay: its marks become a layer's whiteouts.
    OverlayUpper,
}

/// Writes trees into an archive.
#[derive(Debug)]
pub(crate) struct Packer<W> {
    tar: TarWriter<W>,
    source: Source,
    /// First name in the archive of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W, source: Source) -> Self {
        Self { tar: TarWriter::new(out), source, links: HashMap::new() }
    }

    /// Adds everything in the directory `path` of `root`, but not itself, as `prefix/...`.
    pub(crate) fn add_content(&mut self, root: BorrowedFd<'_>, path: &[u8], prefix: &[u8]) -> Result<()> {
        // Real paths and names, of directories whose content is still to come. Paths, not descriptors: a tree
        // may be deeper than a process may have files open.
        let mut pending = vec![(path.to_vec(), prefix.to_vec())];
        while let Some((path, prefix)) = pending.pop() {
            let action = || format!("read the directory {:?}", String::from_utf8_lossy(&path));
            let directory = match Tree::new(root).open_real(&path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::NOENT | Errno::SRCH) => continue,
                other => other.context(action)?,
            };
            let mut below = Vec::new();
            let names = match read_names(&directory) {
                Err(error) if is_passed_over(&directory, error) => continue,
                other => other.context(action)?,
            };
            for name in names {
                let member = join(&prefix, &name);
                if self.add_one(&directory, &name, &member)? {
                    below.push((join(&path, &name), member));
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Adds one file or directory as `member`; says whether it is a directory (its content is not added).
    pub(crate) fn add_one(&mut self, parent: &OwnedFd, name: &[u8], member: &[u8]) -> Result<bool> {
        let action = || format!("archive {:?}", String::from_utf8_lossy(member));
        // It may have gone since it was listed: the tree may be in use.
        let Some(stat) = stat_name(parent, name).context(action)? else { return Ok(false) };
        if self.source == Source::OverlayUpper && is_whiteout(&stat) {
            self.add_marker(member, b".wh.")?;
            return Ok(false);
        }
        let Some(mut header) = header_of(&stat, member) else {
            tracing::debug!(path = %String::from_utf8_lossy(member), "socket left out of the archive");
            return Ok(false);
        };
        let marks =
            xattrs(parent, name, |key| is_overlay_xattr(key) || is_kept_xattr(key)).context(action)?;
        let opaque = self.check_overlay_marks(&marks, member)?;
        header.xattrs = marks.into_iter().filter(|(key, _)| !is_overlay_xattr(key)).collect();
        if header.kind == Kind::Symlink {
            header.link = match readlinkat(parent, name, Vec::new()) {
                Err(error) if is_passed_over(parent, error) => return Ok(false),
                other => other.context(action)?.into_bytes(),
            };
        }
        if header.kind != Kind::Directory && stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => {
                    header.kind = Kind::HardLink;
                    header.link = first.clone();
                    header.size = 0;
                    header.xattrs.clear();
                }
                None => {
                    self.links.insert((stat.st_dev, stat.st_ino), member.to_vec());
                }
            }
        }
        if header.kind == Kind::File {
            let content = match open_plain(parent, name) {
                Err(Errno::NOENT | Errno::SRCH) => return Ok(false),
                Err(error) if is_passed_over(parent, error) => Content::empty(),
                other => Content::of(File::from(other.context(action)?)).context(action)?,
            };
            header.size = content.size();
            self.tar.append(&header, content).context(action)?;
        } else {
            self.tar.append(&header, std::io::empty()).context(action)?;
        }
        if opaque {
            self.add_marker(&join(member, b"x"), b".wh..wh..opq")?;
        }
        Ok(header.kind == Kind::Directory)
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<W> {
        self.tar.finish().context(|| "write archive".to_owned())
    }

    /// Whether a directory is opaque. What else overlayfs may have noted cannot be told in a tar.
    fn check_overlay_marks(&self, marks: &[(Vec<u8>, Vec<u8>)], member: &[u8]) -> Result<bool> {
        if self.source != Source::OverlayUpper {
            return Ok(false);
        }
        for (key, _) in marks {
            if key == b"trusted.overlay.redirect" || key == b"trusted.overlay.metacopy" {
                return Err(Error::corrupt(format!(
                    "{:?} was moved by an overlay mounted with redirect_dir or metacopy, which a layer cannot express",
                    String::from_utf8_lossy(member)
                )));
            }
        }
        Ok(marks.iter().any(|(key, value)| key == OPAQUE_XATTR && value == b"y"))
    }

    fn add_marker(&mut self, member: &[u8], marker: &[u8]) -> Result<()> {
        let (parent, name) = unpack::split_path(member);
        let name = if marker.ends_with(b".opq") { marker.to_vec() } else { [marker, name].concat() };
        let header = Header { path: join(parent, &name), mode: 0o600, ..Header::default() };
        self.tar.append(&header, std::io::empty()).context(|| "write archive".to_owned())
    }
}

/// Whether an archive does without what cannot be looked at: it has gone, or was never more than a name.
fn is_passed_over(directory: &OwnedFd, error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH) || is_made_up(directory)
}

/// Docker archives these; others belong to the host that the file is on.
fn is_kept_xattr(key: &[u8]) -> bool {
    key == b"security.capability" || key.starts_with(b"user.")
}

/// None for sockets: no archive can hold one. Times in full seconds, as Docker writes them.
fn header_of(stat: &Stat, member: &[u8]) -> Option<Header> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => return None,
    };
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => (major(stat.st_rdev), minor(stat.st_rdev)),
        _ => (0, 0),
    };
    let mut path = member.to_vec();
    if is_directory(stat) && !path.ends_with(b"/") {
        path.push(b'/');
    }
    Some(Header {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, 0),
        device,
        ..Header::default()
    })
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory.last() {
        None => name.to_vec(),
        Some(b'/') => [directory, name].concat(),
        Some(_) => [directory, b"/", name].concat(),
    }
}

impl<W: Write> Packer<W> {
    /// Adds `path` of `root` itself, and what is below it, under another name.
    pub(crate) fn add_tree(&mut self, root: BorrowedFd<'_>, path: &[u8], member: &[u8]) -> Result<()> {
        let (parent_path, name) = unpack::split_path(path);
        let parent = Tree::new(root)
            .open_real(parent_path, OFlags::PATH | OFlags::DIRECTORY)
            .context(|| format!("open {:?}", as_os(parent_path)))?;
        let name = if name.is_empty() { b"." } else { name };
        if self.add_one(&parent, name, member)? {
            self.add_content(root, path, member)?;
        }
        Ok(())
    }
}

/// Writes the layer that the upper directory of an overlay is.
pub(crate) fn pack_upper(upper: &File, out: impl Write) -> Result<()> {
    let mut packer = Packer::new(out, Source::OverlayUpper);
    packer.add_content(upper.as_fd(), b"", b"")?;
    packer.finish()?;
    Ok(())
}

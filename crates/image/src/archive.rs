//! Archives of a container's files: `docker export` and `docker cp`.
//!
//! All work on an open root directory: [`crate::ImageStore::open_rootfs`] of a container that does not run,
//! `/proc/<pid>/root` of one that does. Symlinks mean what they mean inside, and lead nowhere else.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstat, readlinkat};
use rustix::io::Errno;

use crate::compression;
use crate::disk::{Tree, lexical_path, mtime_of};
use crate::error::{Context, Error, Result};
use crate::layer::{Packer, Rules, Source, Unpacker, join, split_path};
use crate::tar::TarReader;

/// What is at a path in a container (the header `X-Docker-Container-Path-Stat`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// Last part of the path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// `st_mode`, with the file type.
    pub mode: u32,
    /// Modification time: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Where a symlink leads, from the container's root; empty if it is none.
    pub link_target: PathBuf,
}

/// How to unpack into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtractOptions {
    /// A directory is not replaced by a file, nor a file by a directory (`noOverwriteDirNonDir`).
    pub keep_kinds: bool,
    /// All becomes this user's and group's (`copyUIDGID`); otherwise it is whose the archive says.
    pub owner: Option<(u32, u32)>,
}

/// Writes the whole tree (`docker export`).
///
/// # Errors
/// If a file cannot be read or the sink cannot be written to.
pub fn export(root: BorrowedFd<'_>, out: impl Write) -> Result<()> {
    let mut packer = Packer::new(out, Source::Plain);
    packer.add_content(root, b"", b"")?;
    packer.finish()?;
    Ok(())
}

/// Looks at a path; a symlink at its end is looked at itself unless the path ends in a slash.
///
/// # Errors
/// `NotFound`.
pub fn stat(root: BorrowedFd<'_>, path: &Path) -> Result<PathStat> {
    let resolved = resolve(root, path)?;
    let fd = Tree::new(root).open_real(&resolved, OFlags::PATH).map_err(|error| not_here(path, error))?;
    let stat = fstat(&fd).context(|| format!("stat {}", path.display()))?;
    let link_target = match readlinkat(&fd, "", Vec::new()) {
        Ok(target) => {
            let (parent, _) = split_path(&resolved);
            let target = target.into_bytes();
            let whole =
                if target.starts_with(b"/") { target } else { [b"/", parent, b"/", &target].concat() };
            let clean = lexical_path(&whole).unwrap_or_default();
            PathBuf::from(std::ffi::OsStr::from_bytes(&[b"/", clean.as_slice()].concat()))
        }
        Err(_) => PathBuf::new(),
    };
    Ok(PathStat {
        name: last_part(path),
        size: stat.st_size as u64,
        mode: stat.st_mode,
        mtime: mtime_of(&stat),
        link_target,
    })
}

/// Writes what is at a path, under the path's last part (`GET /containers/{id}/archive`).
///
/// # Errors
/// `NotFound`; or if a file cannot be read or the sink cannot be written to.
pub fn write_path(root: BorrowedFd<'_>, path: &Path, out: impl Write) -> Result<()> {
    let resolved = resolve(root, path)?;
    let mut packer = Packer::new(out, Source::Plain);
    packer.add_tree(root, &resolved, last_part(path).as_bytes())?;
    packer.finish()?;
    Ok(())
}

/// Unpacks an archive, perhaps compressed, into a directory (`PUT /containers/{id}/archive`).
///
/// # Errors
/// `NotFound` if the directory is not there, `Invalid` if it is none or the archive is malformed. What was
/// unpacked before that stays.
pub fn extract(root: BorrowedFd<'_>, path: &Path, archive: impl Read, options: ExtractOptions) -> Result<()> {
    let tree = Tree::new(root);
    let directory = lexical_path(path.as_os_str().as_bytes()).unwrap_or_default();
    tree.directory(&directory).map_err(|error| match error {
        Errno::NOTDIR => Error::invalid("extraction point is not a directory"),
        error => not_here(path, error),
    })?;
    let rules = Rules {
        directory: &directory,
        keep_kinds: options.keep_kinds,
        owner: options.owner,
        ..Rules::default()
    };
    let mut unpacker = Unpacker::new(root, rules);
    let mut stream = compression::detect(archive)?;
    let mut tar = TarReader::new(&mut stream);
    while let Some(header) = tar.next_entry()? {
        tar.take_raw();
        unpacker.apply_plain(&header, &mut tar.payload())?;
    }
    tar.drain(|_| Ok(()))?;
    unpacker.finish()?;
    Ok(())
}

/// The path without symlinks in it, from the root, but for one at its end that is meant itself.
fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>> {
    const MOST_LINKS: usize = 40;
    let bytes = path.as_os_str().as_bytes();
    let follow_last = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let mut pending: Vec<Vec<u8>> = parts(bytes);
    let mut resolved: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == b".." {
            resolved.truncate(split_path(&resolved).0.len());
            continue;
        }
        let next = join(&resolved, &part);
        let fd = Tree::new(root).open_real(&next, OFlags::PATH).map_err(|error| not_here(path, error))?;
        let last = pending.is_empty();
        match readlinkat(&fd, "", Vec::new()) {
            Ok(target) if !last || follow_last => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::invalid(format!("too many symbolic links in {}", path.display())));
                }
                if target.as_bytes().starts_with(b"/") {
                    resolved.clear();
                }
                pending.extend(parts(target.as_bytes()));
            }
            _ => resolved = next,
        }
    }
    Ok(resolved)
}

/// Parts of a path, last first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let real = |part: &&[u8]| !part.is_empty() && *part != b".";
    path.split(|b| *b == b'/').filter(real).map(<[u8]>::to_vec).rev().collect()
}

/// `.` of a path that ends in `/.`, and `/` of the root, as Docker names members.
fn last_part(path: &Path) -> String {
    let text = path.to_string_lossy();
    let trimmed = text.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

fn not_here(path: &Path, error: Errno) -> Error {
    match error {
        Errno::NOENT | Errno::NOTDIR => {
            Error::NotFound(format!("Could not find the file {} in container", path.display()))
        }
        error => Error::Io { action: format!("open {}", path.display()), source: error.into() },
    }
}

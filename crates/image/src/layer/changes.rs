use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{OFlags, Stat};

use super::pack::join;
use super::unpack::{is_directory, is_whiteout, split_path};
use crate::disk::{Tree, mtime_of, read_names, stat_name};
use crate::error::{Context, Result};
use crate::types::{Change, ChangeKind};

/// What the upper directory of an overlay changes in the tree below it, as `docker diff` tells it: a
/// directory is named if it differs itself or something in it came or went.
pub(crate) fn changes(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>) -> Result<Vec<Change>> {
    let mut walk = Walk { changes: Vec::new(), told: HashSet::new() };
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let action = || format!("read the directory {:?}", String::from_utf8_lossy(&path));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if !path.is_empty() {
            walk.visit(upper, lower, &path)?;
        }
        let directory = Tree::new(upper).open_real(&path, flags).context(action)?;
        for name in read_names(&directory).context(action)? {
            let Some(stat) = stat_name(&directory, &name).context(action)? else { continue };
            let path = join(&path, &name);
            if is_directory(&stat) {
                pending.push(path);
            } else {
                walk.visit(upper, lower, &path)?;
            }
        }
    }
    walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.changes)
}

struct Walk {
    changes: Vec<Change>,
    /// Directories that are in `changes`.
    told: HashSet<Vec<u8>>,
}

impl Walk {
    fn visit(&mut self, upper: BorrowedFd<'_>, lower: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let action = || format!("compare {:?}", String::from_utf8_lossy(path));
        let Some(now) = lookup(upper, path).context(action)? else { return Ok(()) };
        let before = lookup(lower, path).context(action)?;
        let kind = match before {
            _ if is_whiteout(&now) => ChangeKind::Deleted,
            None => ChangeKind::Added,
            Some(before) if is_directory(&before) && is_directory(&now) && same(&before, &now) => {
                return Ok(());
            }
            Some(_) => ChangeKind::Modified,
        };
        if kind != ChangeKind::Modified {
            let (parent, _) = split_path(path);
            if !parent.is_empty() {
                self.tell(parent, ChangeKind::Modified);
            }
        }
        self.tell(path, kind);
        Ok(())
    }

    fn tell(&mut self, path: &[u8], kind: ChangeKind) {
        if self.told.insert(path.to_vec()) {
            let path = PathBuf::from(OsString::from_vec([b"/", path].concat()));
            self.changes.push(Change { kind, path });
        }
    }
}

fn lookup(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Stat>, rustix::io::Errno> {
    use rustix::io::Errno;
    let (parent, name) = split_path(path);
    match Tree::new(root).open_real(parent, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(parent) => stat_name(&parent, name),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn same(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid, mtime_of(a)) == (b.st_mode, b.st_uid, b.st_gid, mtime_of(b))
}

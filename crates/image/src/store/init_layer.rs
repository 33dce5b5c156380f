use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, FileType, OFlags, Stat};

use super::index::Layer;
use super::{ImageStore, base36};
use crate::digest::ChainId;
use crate::disk::{Tree, open_directory, stat_name, xattrs};
use crate::error::{Context, Result};
use crate::types::Image;

/// The init layer of containers whose image has no layer at all.
const INIT_OF_NOTHING: &str = "nothing.i";

enum Wanted {
    Directory,
    EmptyFile,
    Symlink(&'static str),
}

/// What containers want to find, most of it to be mounted over.
const WANTED: [(&str, Wanted); 10] = [
    (".dockerenv", Wanted::EmptyFile),
    ("dev/pts", Wanted::Directory),
    ("dev/shm", Wanted::Directory),
    ("dev/console", Wanted::EmptyFile),
    ("etc/hostname", Wanted::EmptyFile),
    ("etc/hosts", Wanted::EmptyFile),
    ("etc/mtab", Wanted::Symlink("/proc/mounts")),
    ("etc/resolv.conf", Wanted::EmptyFile),
    ("proc", Wanted::Directory),
    ("sys", Wanted::Directory),
];

/// The init layer: what is missing in an image for containers to run, made once for each image and shared by
/// its containers. Docker makes one for each container; in both, none of it shows in `diff` or `commit`.
impl ImageStore {
    pub(super) fn init_directory(&self, layer: &Layer) -> PathBuf {
        self.shared.paths.layers.join(format!("{}.i", layer.directory))
    }

    /// Makes the init layer of an image before the first container asks for it.
    pub(super) fn warm(&self, image: &Image) {
        if let Err(error) = self.lowers(image.chain.last().copied()) {
            tracing::warn!(%error, image = %image.id, "cannot prepare the init layer");
        }
    }

    /// The read-only directories of containers on top of this layer, topmost first.
    pub(super) fn lowers(&self, top: Option<ChainId>) -> Result<Vec<PathBuf>> {
        let index = self.index();
        let layers = top.map_or_else(|| Ok(Vec::new()), |top| index.layers_from(top))?;
        let init = layers.first().map_or_else(
            || self.shared.paths.layers.join(INIT_OF_NOTHING),
            |layer| self.init_directory(layer),
        );
        let mut lowers = vec![init];
        lowers.extend(layers.iter().map(|layer| self.layer_directory(layer)));
        if !lowers[0].exists() {
            self.make_init_layer(&lowers[0], &lowers[1..])?;
        }
        Ok(lowers)
    }

    /// Made aside and renamed, so that it is whole or not there; empty files and links need no sync for that.
    fn make_init_layer(&self, directory: &Path, layers: &[PathBuf]) -> Result<()> {
        let number = self.shared.next_staging.fetch_add(1, Ordering::Relaxed);
        let staging = self.shared.paths.staging.join(base36(number));
        make_directory(&staging, layers, Path::new(""))?;
        for (path, wanted) in &WANTED {
            let path = Path::new(path);
            if matches!(look_up(layers, path)?, Found::Nothing) {
                make_wanted(&staging, layers, path, wanted)?;
            }
        }
        match std::fs::rename(&staging, directory) {
            // Another one was faster.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                self.shared.trash.discard(&staging)
            }
            other => other.context(|| format!("make {}", directory.display())),
        }
    }
}

fn make_wanted(staging: &Path, layers: &[PathBuf], path: &Path, wanted: &Wanted) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !staging.join(parent).exists()
    {
        match look_up(layers, parent)? {
            // Something else is in the way, such as a symlink: whoever mounts there resolves it.
            Found::Other => return Ok(()),
            Found::Nothing | Found::Directory(..) => make_directory(&staging.join(parent), layers, parent)?,
        }
    }
    let place = staging.join(path);
    let action = || format!("make {}", place.display());
    match wanted {
        Wanted::Directory => make_directory(&place, &[], path),
        Wanted::EmptyFile => {
            std::fs::write(&place, "").context(action)?;
            std::fs::set_permissions(&place, Permissions::from_mode(0o755)).context(action)
        }
        Wanted::Symlink(target) => symlink(target, &place).context(action),
    }
}

/// Makes a directory that looks as it does in the layers below.
fn make_directory(place: &Path, layers: &[PathBuf], path: &Path) -> Result<()> {
    let action = || format!("make {}", place.display());
    std::fs::create_dir(place).context(action)?;
    let mut mode = 0o755;
    if let Found::Directory(layer, stat) = look_up(layers, path)? {
        std::os::unix::fs::chown(place, Some(stat.st_uid), Some(stat.st_gid)).context(action)?;
        mode = stat.st_mode & 0o7777;
        let root = open_directory(CWD, layer).context(action)?;
        let from =
            Tree::new(root.as_fd()).open_real(path.as_os_str().as_bytes(), OFlags::RDONLY).context(action)?;
        let to = open_directory(CWD, place).context(action)?;
        for (key, value) in
            xattrs(&from, b".", |key| !key.starts_with(b"trusted.overlay.")).context(action)?
        {
            crate::disk::set_xattr(&to, b".", &key, &value).context(action)?;
        }
    }
    std::fs::set_permissions(place, Permissions::from_mode(mode)).context(action)
}

enum Found<'a> {
    Nothing,
    Directory(&'a Path, Stat),
    Other,
}

/// What the merged layers show at a path.
fn look_up<'a>(layers: &'a [PathBuf], path: &Path) -> Result<Found<'a>> {
    let action = || format!("look up {}", path.display());
    for layer in layers {
        let mut at = open_directory(CWD, layer).context(action)?;
        let mut parts = path.components().peekable();
        if parts.peek().is_none() {
            let stat = rustix::fs::fstat(&at).context(action)?;
            return Ok(Found::Directory(layer, stat));
        }
        let mut opaque = is_opaque(&at).context(action)?;
        while let Some(part) = parts.next() {
            let name = part.as_os_str().as_bytes();
            let Some(stat) = stat_name(&at, name).context(action)? else { break };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                return Ok(Found::Nothing);
            }
            let last = parts.peek().is_none();
            if kind != FileType::Directory {
                return Ok(Found::Other);
            }
            if last {
                return Ok(Found::Directory(layer, stat));
            }
            at = open_directory(&at, Path::new(part.as_os_str())).context(action)?;
            opaque |= is_opaque(&at).context(action)?;
        }
        if opaque {
            return Ok(Found::Nothing);
        }
    }
    Ok(Found::Nothing)
}

fn is_opaque(directory: &impl AsFd) -> Result<bool, rustix::io::Errno> {
    Ok(!xattrs(directory, b".", |key| key == b"trusted.overlay.opaque")?.is_empty())
}

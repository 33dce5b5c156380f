use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::{ImageStore, names_in};
use crate::digest::{ChainId, ImageId};
use crate::disk::{Tree, read_names, stat_name};
use crate::error::{Context, Error, Result};
use crate::layer;
use crate::overlay::{self, Bind, MountedRoot, View};
use crate::types::{Change, Rootfs, RootfsSize};

/// The link to the topmost layer of a container without layers.
const NO_LAYER: &str = "none";

impl ImageStore {
    /// Makes the directories of a container's root file system. Fast: nothing is copied or synced. Asking
    /// again gives the same again.
    ///
    /// # Errors
    /// `No such image`; `Conflict` if the container has one of another image.
    pub fn prepare_rootfs(&self, container_id: &str, image: &ImageId) -> Result<Rootfs> {
        check_container_id(container_id)?;
        let top = self.hold_for_container(container_id, image)?;
        let Some(top) = top else { return self.rootfs(container_id) };
        let home = self.shared.paths.containers.join(container_id);
        let made = DirBuilder::new().mode(0o700).create(&home).context(|| format!("make {}", home.display()));
        if let Err(error) = made {
            // What stands there is not ours to remove: a container whose layer is missing.
            self.holders().containers.remove(container_id);
            return Err(error);
        }
        let made = self.make_rootfs(container_id, top);
        if made.is_err() {
            self.remove_rootfs(container_id)?;
        }
        made
    }

    /// The directories of a container's root file system. They stay valid when its image is removed. Fast.
    ///
    /// # Errors
    /// `NotFound` if it has none.
    pub fn rootfs(&self, container_id: &str) -> Result<Rootfs> {
        let top = self.top_layer(container_id)?;
        Ok(self.directories(container_id, self.lowers(top)?))
    }

    /// The containers that have a root file system.
    pub fn rootfs_ids(&self) -> Vec<String> {
        self.holders().containers.keys().cloned().collect()
    }

    /// Removes a container's root file system; it is fine if there is none. Fast: what it held is deleted
    /// later. It must not be mounted.
    ///
    /// # Errors
    /// If it cannot be taken away; it then still stands.
    pub fn remove_rootfs(&self, container_id: &str) -> Result<()> {
        check_container_id(container_id)?;
        self.shared.trash.discard(&self.shared.paths.containers.join(container_id))?;
        let top = self.holders().containers.remove(container_id).flatten();
        if let Some(top) = top
            && !self.index().images.values().any(|image| image.chain.contains(&top))
        {
            self.release_layers();
        }
        Ok(())
    }

    /// The size of a container's files. Reads its whole upper directory.
    ///
    /// # Errors
    /// `NotFound` if it has none.
    pub fn rootfs_size(&self, container_id: &str) -> Result<RootfsSize> {
        let rootfs = self.rootfs(container_id)?;
        let writable = tree_size(&rootfs.upper)?;
        let index = self.index();
        let image = match self.top_layer(container_id)? {
            None => 0,
            Some(top) => index.layers_from(top)?.iter().map(|layer| layer.size).sum(),
        };
        Ok(RootfsSize { writable, total: writable + image })
    }

    /// What a container changed in its image's files (`docker diff`), by path.
    ///
    /// # Errors
    /// `NotFound` if it has no root file system.
    pub fn changes(&self, container_id: &str) -> Result<Vec<Change>> {
        let rootfs = self.rootfs(container_id)?;
        let lower = overlay::open(&rootfs, View::Image)?;
        let upper = File::open(&rootfs.upper).context(|| format!("open {}", rootfs.upper.display()))?;
        layer::changes(upper.as_fd(), lower.as_fd())
    }

    /// Opens the root directory of a container that does not run, as the container would see it. It is
    /// mounted where no one else sees it, for as long as the descriptor (or one opened from it) lives. An
    /// overlay must not be mounted twice: for a running container use `/proc/<pid>/root`.
    ///
    /// # Errors
    /// `NotFound` if it has no root file system.
    pub fn open_rootfs(&self, container_id: &str) -> Result<OwnedFd> {
        overlay::open(&self.rootfs(container_id)?, View::Writable)
    }

    /// Opens the root directory of a container that does not run, with its volumes and the like in it.
    ///
    /// # Errors
    /// `NotFound` if it has no root file system; something cannot be mounted.
    pub fn open_rootfs_with(&self, container_id: &str, binds: &[Bind]) -> Result<MountedRoot> {
        overlay::open_with(&self.rootfs(container_id)?, binds)
    }

    /// Opens the files of a container's layers read-only, whether it runs or not, without what is mounted in
    /// it while it does. What it writes meanwhile may or may not be seen.
    ///
    /// # Errors
    /// `NotFound` if it has no root file system.
    pub fn open_layers(&self, container_id: &str) -> Result<OwnedFd> {
        overlay::open(&self.rootfs(container_id)?, View::ReadOnly)
    }

    pub(crate) fn top_layer(&self, container_id: &str) -> Result<Option<ChainId>> {
        let top = self.holders().containers.get(container_id).copied();
        top.ok_or_else(|| Error::NotFound(format!("container {container_id} has no root file system")))
    }

    /// Notes that a container uses an image's layers; none if it is noted already.
    fn hold_for_container(&self, container_id: &str, image: &ImageId) -> Result<Option<Option<ChainId>>> {
        let mut holders = self.holders();
        let top = self.index().image(image)?.chain.last().copied();
        if let Some(held) = holders.containers.get(container_id) {
            if *held == top {
                return Ok(None);
            }
            return Err(Error::Conflict(format!(
                "container {container_id} has a root file system of another image"
            )));
        }
        if top.is_some_and(|top| holders.dropping.contains(&top)) {
            return Err(Error::NoSuchImage(image.to_string()));
        }
        holders.containers.insert(container_id.to_owned(), top);
        Ok(Some(top))
    }

    fn make_rootfs(&self, container_id: &str, top: Option<ChainId>) -> Result<Rootfs> {
        let lowers = self.lowers(top)?;
        let rootfs = self.directories(container_id, lowers);
        let home = self.shared.paths.containers.join(container_id);
        let layer = match top {
            None => PathBuf::from(NO_LAYER),
            Some(_) => Path::new("../../l").join(rootfs.lower[1].file_name().unwrap_or_default()),
        };
        let make = || {
            let mut private = DirBuilder::new();
            private.mode(0o700);
            symlink(layer, home.join("layer"))?;
            private.create(&rootfs.work)?;
            private.create(&rootfs.target)?;
            DirBuilder::new().mode(0o755).create(&rootfs.upper)?;
            // The upper directory is what a container sees of its root directory itself. Its mode is Docker's,
            // whatever the image says: many an archive has 0700 for `.`, which would lock out all but root.
            let root = std::fs::metadata(&rootfs.lower[0])?;
            if (root.uid(), root.gid()) != (0, 0) {
                chown(&rootfs.upper, Some(root.uid()), Some(root.gid()))?;
            }
            std::fs::set_permissions(&rootfs.upper, std::fs::Permissions::from_mode(0o755))
        };
        let made: io::Result<()> = make();
        made.context(|| format!("make the root file system {}", home.display()))?;
        Ok(rootfs)
    }

    fn directories(&self, container_id: &str, lower: Vec<PathBuf>) -> Rootfs {
        let home = self.shared.paths.containers.join(container_id);
        Rootfs { lower, upper: home.join("upper"), work: home.join("work"), target: home.join("merged") }
    }

    /// Reads which containers there are, at open.
    pub(crate) fn find_containers(&self) -> Result<()> {
        let index = self.index();
        let containers = &self.shared.paths.containers;
        for id in names_in(containers)? {
            let home = containers.join(&id);
            let top = match std::fs::read_link(home.join("layer")) {
                Ok(link) => link,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::info!(container = id, "removing a root file system that was not finished");
                    self.shared.trash.discard(&home)?;
                    continue;
                }
                Err(error) => return Err(error).context(|| format!("read {}/layer", home.display())),
            };
            let top = if top == Path::new(NO_LAYER) {
                None
            } else {
                let name = top.file_name().unwrap_or_default();
                let found = index.layers.iter().find(|(_, layer)| layer.directory.as_str() == name);
                let Some((chain, _)) = found else {
                    tracing::error!(container = id, layer = %top.display(), "a container's layer is missing");
                    continue;
                };
                Some(*chain)
            };
            self.holders().containers.insert(id, top);
        }
        Ok(())
    }
}

fn check_container_id(id: &str) -> Result<()> {
    let fine = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fine { Ok(()) } else { Err(Error::invalid(format!("invalid container id {id:?}"))) }
}

/// Bytes of the files below a directory, each counted once whatever its links.
fn tree_size(root: &Path) -> Result<u64> {
    let root_fd = File::open(root).context(|| format!("open {}", root.display()))?;
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![Vec::new()];
    let mut size = 0;
    while let Some(path) = pending.pop() {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        // It may go while we look: the container may run.
        let Ok(directory) = Tree::new(root_fd.as_fd()).open_real(&path, flags) else { continue };
        for name in read_names(&directory).context(|| format!("read {}", root.display()))? {
            let Ok(Some(stat)) = stat_name(&directory, &name) else { continue };
            if layer::is_directory(&stat) {
                pending.push(layer::join(&path, &name));
            } else if stat.st_nlink == 1 || seen.insert(stat.st_ino) {
                size += stat.st_size as u64;
            }
        }
    }
    Ok(size)
}

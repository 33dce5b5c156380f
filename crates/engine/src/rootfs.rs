//! A container's root directory from outside, whether it runs or not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use portolan_image::{Bind, MountedRoot};

use crate::container::record::Container;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::model::{MountPoint, MountType};

/// A container's root directory.
#[derive(Debug)]
pub(crate) enum Root {
    /// As its processes see it.
    Running(OwnedFd),
    /// Of one that does not run.
    Mounted(MountedRoot),
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Running(root) => root.as_fd(),
            Self::Mounted(root) => root.as_fd(),
        }
    }
}

impl Engine {
    /// The root directory as the container's processes see it; of one that does not run, its own layer on
    /// its image, with its volumes and bind mounts, as it will see them.
    ///
    /// # Errors
    /// It cannot be opened or mounted.
    pub(crate) async fn open_root(&self, container: &Container) -> Result<Root> {
        let (shim, mounts) = container.with(|record| (record.shim.clone(), record.definition.mounts.clone()));
        if let Some(shim) = shim {
            use portolan_runtime::Error::{NotRunning, ShimGone};
            match shim.open_proc("root").await {
                Ok(root) => return Ok(Root::Running(root)),
                // It has ended, and we have yet to hear of it.
                Err(NotRunning { .. } | ShimGone { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (images, id) = (self.inner.images.clone(), container.id.to_string());
        let engine = self.clone();
        // What is opened keeps what it has of the volumes.
        blocking(move || {
            engine
                .inner
                .volumes
                .while_mounted(&mounts, || Ok(Root::Mounted(images.open_rootfs_with(&id, &binds(&mounts))?)))
        })
        .await
    }
}

/// What there is to be mounted, outer mounts first. A source that is gone is an error at start only.
fn binds(mounts: &[MountPoint]) -> Vec<Bind> {
    let mut binds: Vec<Bind> = mounts
        .iter()
        .filter(|mount| mount.kind != MountType::Tmpfs && mount.source.exists())
        .map(|mount| Bind {
            source: mount.source.clone(),
            subpath: mount.subpath.clone().into(),
            target: mount.destination.clone().into(),
        })
        .collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    binds
}

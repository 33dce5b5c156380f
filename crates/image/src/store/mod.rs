//! The store: what is where, what is shared, and how it changes.

mod index;
mod init_layer;
mod rootfs;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub(crate) use index::Index;
use index::Layer;
pub(crate) use transaction::give_name;

use crate::digest::{ChainId, ImageId};
use crate::disk::{Trash, read_names};
use crate::error::{Context, Result};
use crate::types::{DiskUsage, Image};

pub(crate) use transaction::Transaction;

/// Images, layers, and containers' root file systems. Cheap to clone; all clones are one store. Every method
/// blocks while it works; those called fast in their description touch the disk little or not at all.
#[derive(Clone, Debug)]
pub struct ImageStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    paths: Paths,
    index: RwLock<Arc<Index>>,
    /// Held by whoever replaces the index.
    writer: Mutex<()>,
    /// Containers by id, and layers held by operations under way; locked after `writer`.
    holders: Mutex<Holders>,
    trash: Trash,
    next_layer: AtomicU64,
    next_staging: AtomicU64,
}

#[derive(Debug, Default)]
struct Holders {
    containers: BTreeMap<String, Option<ChainId>>,
    leases: BTreeMap<ChainId, usize>,
    /// On their way out: as good as gone.
    dropping: BTreeSet<ChainId>,
}

impl Holders {
    fn pinned(&self) -> BTreeSet<ChainId> {
        self.containers.values().flatten().chain(self.leases.keys()).copied().collect()
    }
}

#[derive(Debug)]
struct Paths {
    store: PathBuf,
    configs: PathBuf,
    splits: PathBuf,
    layers: PathBuf,
    containers: PathBuf,
    staging: PathBuf,
    overlay: PathBuf,
}

impl ImageStore {
    /// Opens the store below a data root, making it if need be, and sweeps what a crash left.
    ///
    /// # Errors
    /// If the directories cannot be made or the index cannot be read: a store that contradicts itself is
    /// never repaired by forgetting images.
    pub fn open(data_root: &Path) -> Result<Self> {
        let image = data_root.join("image");
        let overlay = data_root.join("overlay");
        let paths = Paths {
            store: image.join("store.json"),
            configs: image.join("configs"),
            splits: overlay.join("s"),
            layers: overlay.join("l"),
            containers: overlay.join("c"),
            staging: overlay.join("new"),
            overlay,
        };
        std::fs::create_dir_all(data_root).context(|| format!("make {}", data_root.display()))?;
        let private =
            [&image, &paths.overlay, &paths.configs, &paths.splits, &paths.layers, &paths.containers];
        for directory in private.into_iter().chain([&paths.staging]) {
            make_private(directory)?;
        }
        let trash = Trash::open(&paths.overlay.join("trash"))?;
        let index = Index::read(&paths.store, &paths.configs)?;
        let shared = Shared {
            next_layer: AtomicU64::new(next_layer(&paths.layers)?),
            next_staging: AtomicU64::new(0),
            index: RwLock::new(Arc::new(index)),
            writer: Mutex::new(()),
            holders: Mutex::default(),
            trash,
            paths,
        };
        let store = Self { shared: Arc::new(shared) };
        store.sweep()?;
        Ok(store)
    }

    /// The image that a user means by a name, an id, or the beginning of an id. Fast.
    ///
    /// # Errors
    /// `No such image: x:latest`; `invalid reference format`.
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>> {
        self.index().resolve(name)
    }

    /// The image with this id. Fast.
    ///
    /// # Errors
    /// `No such image: sha256:...`.
    pub fn get(&self, id: &ImageId) -> Result<Arc<Image>> {
        self.index().image(id)
    }

    /// How much is stored.
    pub fn disk_usage(&self) -> DiskUsage {
        let index = self.index();
        DiskUsage {
            images: index.images.len(),
            layers_size: index.layers.values().map(|layer| layer.size).sum(),
        }
    }

    /// Waits until all that was removed is deleted from the disk.
    pub fn flush_removals(&self) {
        self.shared.trash.flush();
    }

    pub(crate) fn index(&self) -> Arc<Index> {
        self.shared.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A directory for what is being made; swept at start.
    pub(crate) fn staging_directory(&self) -> &Path {
        &self.shared.paths.staging
    }

    fn lock_writer(&self) -> MutexGuard<'_, ()> {
        self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.shared.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what the index does not name: layers and configurations of operations that never came to an
    /// end. Containers stay: they are the engine's to judge.
    fn sweep(&self) -> Result<()> {
        let paths = &self.shared.paths;
        self.find_containers()?;
        self.release_layers();
        let index = self.index();
        let layers: BTreeSet<&str> = index.layers.values().map(|layer| layer.directory.as_str()).collect();
        let configs: BTreeSet<String> = index.images.keys().map(ImageId::hex).collect();
        let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        self.sweep_directory(&paths.staging, |_| false)?;
        self.sweep_directory(&paths.configs, |name| configs.contains(name))?;
        self.sweep_directory(&paths.splits, |name| layers.contains(stem(name).as_str()))?;
        self.sweep_directory(&paths.layers, |name| layers.contains(stem(name).as_str()))?;
        Ok(())
    }

    fn sweep_directory(&self, directory: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
        for name in names_in(directory)? {
            if !keep(&name) {
                tracing::info!(path = %directory.join(&name).display(), "removing what a crash left");
                self.shared.trash.discard(&directory.join(&name))?;
            }
        }
        Ok(())
    }

    fn fresh_layer_name(&self) -> String {
        base36(self.shared.next_layer.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn layer_directory(&self, layer: &Layer) -> PathBuf {
        self.shared.paths.layers.join(&layer.directory)
    }

    pub(crate) fn split_paths(&self, directory: &str) -> (PathBuf, PathBuf) {
        let splits = &self.shared.paths.splits;
        (splits.join(directory), splits.join(format!("{directory}.d")))
    }
}

fn make_private(directory: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
    .context(|| format!("make {}", directory.display()))
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let names = File::open(directory).and_then(|fd| Ok(read_names(&fd)?));
    let names = names.context(|| format!("read {}", directory.display()))?;
    Ok(names.into_iter().map(|name| String::from_utf8_lossy(&name).into_owned()).collect())
}

/// Above all in use, so that a name is not used again while something may still remember it.
fn next_layer(layers: &Path) -> Result<u64> {
    let used = names_in(layers)?;
    let highest = used.iter().filter_map(|name| u64::from_str_radix(name.split('.').next()?, 36).ok()).max();
    Ok(highest.map_or(0, |n| n + 1))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit((number % 36) as u32, 36));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

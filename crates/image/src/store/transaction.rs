use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use super::index::{self, Index, Layer};
use super::{ImageStore, base36};
use crate::digest::{ChainId, DiffId, ImageId};
use crate::disk::{Trash, durable_write, sync_directory, sync_file_system};
use crate::error::{Context, Error, Result};
use crate::layer::{Staging, Unpacked};
use crate::reference::Reference;
use crate::types::Image;

impl ImageStore {
    /// Replaces the index by what `edit` makes of a copy, once that is durable; `edit` is also told which
    /// layers are held by containers and operations, and says whether there is anything to write. It is
    /// called again if a layer that it dropped came into use meanwhile. Layers and configurations that fell
    /// out are removed from the disk.
    pub(crate) fn change(
        &self,
        mut edit: impl FnMut(&mut Index, &BTreeSet<ChainId>) -> Result<bool>,
    ) -> Result<()> {
        let _writer = self.lock_writer();
        let old = self.index();
        let new = loop {
            let mut new = Index::clone(&old);
            let pinned = self.holders().pinned();
            if !edit(&mut new, &pinned)? {
                return Ok(());
            }
            let dropped = old.layers.keys().filter(|id| !new.layers.contains_key(id)).copied();
            let mut holders = self.holders();
            if holders.pinned().is_subset(&pinned) {
                // From here on nobody begins to use a layer that goes.
                holders.dropping = dropped.collect();
                break new;
            }
        };
        let written = new.write(&self.shared.paths.store);
        let new = Arc::new(new);
        if written.is_ok() {
            *self.shared.index.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
        }
        self.holders().dropping.clear();
        written?;
        self.discard_difference(&old, &new);
        Ok(())
    }

    /// Drops layers that nothing needs any more.
    pub(crate) fn release_layers(&self) {
        let released = self.change(|index, pinned| Ok(!index.drop_unused_layers(pinned).is_empty()));
        if let Err(error) = released {
            tracing::warn!(%error, "cannot drop unused layers; done at the next start");
        }
    }

    /// What fails here is swept at the next start: the index is what counts.
    fn discard_difference(&self, old: &Index, new: &Index) {
        let mut gone = Vec::new();
        for (_, layer) in old.layers.iter().filter(|(id, _)| !new.layers.contains_key(id)) {
            let (split, side) = self.split_paths(&layer.directory);
            gone.extend([self.layer_directory(layer), self.init_directory(layer), split, side]);
        }
        for (id, _) in old.images.iter().filter(|(id, _)| !new.images.contains_key(id)) {
            gone.push(self.shared.paths.configs.join(id.hex()));
        }
        for path in gone {
            if let Err(error) = self.shared.trash.discard(&path) {
                tracing::warn!(%error, "cannot remove; swept at the next start");
            }
        }
    }

    /// Moves a staged layer to where it stays.
    fn place(&self, staged: &Staged) -> Result<Placed> {
        let directory = self.fresh_layer_name();
        let (split, side) = self.split_paths(&directory);
        let files = self.shared.paths.layers.join(&directory);
        let staging = &staged.staging;
        let mut guards =
            vec![Discard { trash: self.shared.trash.clone(), path: Some(staging.directory().to_owned()) }];
        for (from, to) in [(staging.files(), files), (staging.split(), split), (staging.side_files(), side)] {
            match std::fs::rename(&from, &to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.context(|| format!("rename {} to {}", from.display(), to.display()))?,
            }
            guards.push(Discard { trash: self.shared.trash.clone(), path: Some(to) });
        }
        // What is left of the staging directory goes now.
        guards.remove(0);
        let Unpacked { diff_id, tar_size, size } = staged.unpacked;
        let layer = Layer { diff_id, parent: staged.parent, directory, size, tar_size };
        Ok(Placed { layer: Arc::new(layer), guards })
    }

    /// Begins to add images.
    pub(crate) fn begin(&self) -> Transaction {
        Transaction {
            store: self.clone(),
            staged: BTreeMap::new(),
            leases: Vec::new(),
            images: Vec::new(),
            names: Vec::new(),
        }
    }
}

/// Images on their way in. Nobody sees anything of it before [`Transaction::commit`], which adds all or
/// nothing; dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Transaction {
    store: ImageStore,
    staged: BTreeMap<ChainId, Staged>,
    leases: Vec<ChainId>,
    images: Vec<Image>,
    names: Vec<(Reference, ImageId)>,
}

#[derive(Debug)]
struct Staged {
    staging: Staging,
    unpacked: Unpacked,
    parent: Option<ChainId>,
}

/// A layer where it stays, if the index comes to name it.
struct Placed {
    layer: Arc<Layer>,
    guards: Vec<Discard>,
}

impl Transaction {
    /// Whether the store has this layer already; if so it stays until the transaction ends.
    pub(crate) fn hold(&mut self, chain: ChainId) -> bool {
        if self.staged.contains_key(&chain) || self.leases.contains(&chain) {
            return true;
        }
        let mut holders = self.store.holders();
        if holders.dropping.contains(&chain) || !self.store.index().layers.contains_key(&chain) {
            return false;
        }
        *holders.leases.entry(chain).or_default() += 1;
        drop(holders);
        self.leases.push(chain);
        true
    }

    /// Unpacks a layer on top of `parent`, which must be staged or held. With `expected`, a layer that turns
    /// out to be another is refused.
    pub(crate) fn unpack(
        &mut self,
        parent: Option<ChainId>,
        stream: impl Read,
        expected: Option<DiffId>,
    ) -> Result<ChainId> {
        let lowers = parent.map_or_else(|| Ok(Vec::new()), |parent| self.directories(parent))?;
        let number = self.store.shared.next_staging.fetch_add(1, Ordering::Relaxed);
        let staging = Staging::create(self.store.shared.paths.staging.join(base36(number)))?;
        let guard =
            Discard { trash: self.store.shared.trash.clone(), path: Some(staging.directory().to_owned()) };
        let unpacked = staging.unpack(stream, &lowers)?;
        if let Some(expected) = expected.filter(|expected| *expected != unpacked.diff_id) {
            return Err(Error::invalid(format!(
                "invalid diffID for layer: expected {:?}, got {:?}",
                expected.to_string(),
                unpacked.diff_id.to_string()
            )));
        }
        let chain = ChainId::extend(parent, unpacked.diff_id);
        if self.hold(chain) {
            return Ok(chain);
        }
        guard.keep();
        self.staged.insert(chain, Staged { staging, unpacked, parent });
        Ok(chain)
    }

    /// What a staged or held layer is without those below it.
    pub(crate) fn diff_id(&self, chain: ChainId) -> Result<DiffId> {
        if let Some(staged) = self.staged.get(&chain) {
            return Ok(staged.unpacked.diff_id);
        }
        let index = self.store.index();
        let layer =
            index.layers.get(&chain).ok_or_else(|| Error::corrupt(format!("layer {chain} is missing")))?;
        Ok(layer.diff_id)
    }

    /// Whether an image is among those to be added.
    pub(crate) fn has_image(&self, id: &ImageId) -> bool {
        self.images.iter().any(|image| image.id == *id)
    }

    /// Adds an image whose layers are all staged or held.
    pub(crate) fn add_image(&mut self, raw_config: Vec<u8>, parent: Option<ImageId>) -> Result<ImageId> {
        let image = index::image(raw_config, parent, None)?;
        for chain in &image.chain {
            if !self.staged.contains_key(chain) && !self.leases.contains(chain) {
                return Err(Error::invalid(format!("image {} lacks the layer {chain}", image.id)));
            }
        }
        let id = image.id;
        self.images.push(image);
        Ok(id)
    }

    /// Gives an image a name, taking it from another if need be.
    /// Who has a name: as of now, in the store or here.
    pub(crate) fn name_is_of(&self, name: &Reference) -> Option<ImageId> {
        let own = self.names.iter().rev().find(|(own, _)| own == name).map(|(_, id)| *id);
        own.or_else(|| self.store.index().names.get(name).copied())
    }

    pub(crate) fn add_name(&mut self, name: Reference, id: ImageId) {
        self.names.push((name, id));
    }

    /// Makes it all durable, and visible at once.
    pub(crate) fn commit(mut self) -> Result<()> {
        let store = self.store.clone();
        let paths = &store.shared.paths;
        let staged = std::mem::take(&mut self.staged);
        if !staged.is_empty() {
            sync_file_system(&paths.overlay)?;
        }
        let mut placed = Vec::new();
        for (chain, staged) in staged {
            placed.push((chain, store.place(&staged)?));
        }
        if !placed.is_empty() {
            sync_directory(&paths.layers)?;
            sync_directory(&paths.splits)?;
        }
        store.change(|index, _| {
            // Here and not before: another may just be removing the same image.
            for image in self.images.iter().filter(|image| !index.images.contains_key(&image.id)) {
                durable_write(&paths.configs.join(image.id.hex()), &image.raw_config)?;
            }
            for (chain, placed) in &placed {
                // Another operation may have brought the same layer meanwhile; its copy stays.
                index.layers.entry(*chain).or_insert_with(|| placed.layer.clone());
            }
            add_images(index, &self.images, &self.names);
            Ok(true)
        })?;
        let index = store.index();
        for (chain, placed) in placed {
            if index.layers.get(&chain) == Some(&placed.layer) {
                placed.guards.into_iter().for_each(Discard::keep);
            }
        }
        for image in &self.images {
            store.warm(image);
        }
        Ok(())
    }

    /// The directories of a layer and those below it, topmost first.
    fn directories(&self, top: ChainId) -> Result<Vec<PathBuf>> {
        let index = self.store.index();
        let mut directories = Vec::new();
        let mut next = Some(top);
        while let Some(id) = next {
            if let Some(staged) = self.staged.get(&id) {
                directories.push(staged.staging.files());
                next = staged.parent;
                continue;
            }
            let layers = index.layers_from(id)?;
            directories.extend(layers.iter().map(|layer| self.store.layer_directory(layer)));
            break;
        }
        Ok(directories)
    }
}

fn add_images(index: &mut Index, images: &[Image], names: &[(Reference, ImageId)]) {
    for image in images {
        index.images.entry(image.id).or_insert_with(|| Arc::new(image.clone()));
    }
    for (name, id) in names {
        give_name(index, name, *id);
    }
}

/// Points a name to an image.
pub(crate) fn give_name(index: &mut Index, name: &Reference, id: ImageId) {
    index.names.insert(name.clone(), id);
    if let Some(image) = index.images.get_mut(&id) {
        Arc::make_mut(image).last_tagged = Some(Timestamp::now());
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        for staged in self.staged.values() {
            if let Err(error) = self.store.shared.trash.discard(staged.staging.directory()) {
                tracing::warn!(%error, "cannot remove; swept at the next start");
            }
        }
        if self.leases.is_empty() {
            return;
        }
        let mut holders = self.store.holders();
        for chain in &self.leases {
            if let Some(count) = holders.leases.get_mut(chain) {
                *count -= 1;
                if *count == 0 {
                    holders.leases.remove(chain);
                }
            }
        }
        drop(holders);
        // The image that brought them may have been removed while they were held.
        self.store.release_layers();
    }
}

/// Removes a path unless told to keep it.
struct Discard {
    trash: Trash,
    path: Option<PathBuf>,
}

impl Discard {
    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Discard {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = self.trash.discard(path)
        {
            tracing::warn!(%error, "cannot remove; swept at the next start");
        }
    }
}

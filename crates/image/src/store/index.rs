use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::disk::durable_write;
use crate::error::{Context, Error, Result};
use crate::reference::{Reference, is_identifier};
use crate::types::Image;

const FORMAT: u32 = 1;

/// All that the store knows; what `store.json` holds, and the configurations that it names.
///
/// Never changed once shared: a change is made to a copy, written, and then put in its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) names: BTreeMap<Reference, ImageId>,
    pub(crate) images: BTreeMap<ImageId, Arc<Image>>,
    pub(crate) layers: BTreeMap<ChainId, Arc<Layer>>,
}

/// A layer in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) diff_id: DiffId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ChainId>,
    /// Name of its directory.
    pub(crate) directory: String,
    /// Bytes of file content.
    pub(crate) size: u64,
    /// Bytes of its tar.
    pub(crate) tar_size: u64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    names: BTreeMap<Reference, ImageId>,
    images: BTreeMap<ImageId, ImageRecord>,
    layers: BTreeMap<ChainId, Arc<Layer>>,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<ImageId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_tagged: Option<Timestamp>,
}

impl Index {
    /// Reads it; empty if there is none yet.
    pub(crate) fn read(path: &Path, configs: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.context(|| format!("read {}", path.display()))?,
        };
        let document: Document = serde_json::from_slice(&bytes)
            .map_err(|error| Error::corrupt(format!("{}: {error}", path.display())))?;
        if document.format != FORMAT {
            return Err(Error::corrupt(format!(
                "{}: format {} is not the one this version reads ({FORMAT})",
                path.display(),
                document.format
            )));
        }
        let mut index = Self { names: document.names, layers: document.layers, ..Self::default() };
        for (id, record) in document.images {
            let path = configs.join(id.hex());
            let raw = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
            if Digest::of(&raw) != id.0 {
                return Err(Error::corrupt(format!("{} is not what its name says", path.display())));
            }
            index.images.insert(id, Arc::new(image(raw, record.parent, record.last_tagged)?));
        }
        Ok(index)
    }

    /// Makes it durable.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let record = |image: &Image| ImageRecord { parent: image.parent, last_tagged: image.last_tagged };
        let document = Document {
            format: FORMAT,
            names: self.names.clone(),
            images: self.images.iter().map(|(id, image)| (*id, record(image))).collect(),
            layers: self.layers.clone(),
        };
        let bytes =
            serde_json::to_vec(&document).map_err(|error| Error::corrupt(format!("write index: {error}")))?;
        durable_write(path, &bytes)
    }

    /// The image that a user means: by name, then by id or its beginning.
    pub(crate) fn resolve(&self, text: &str) -> Result<Arc<Image>> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if is_identifier(digits) {
            let by_id = format!("sha256:{digits}").parse().ok().and_then(|id: ImageId| self.images.get(&id));
            return by_id.cloned().ok_or_else(|| Error::NoSuchImage(text.to_owned()));
        }
        let reference = Reference::parse(text)?.or_latest();
        if let Some(id) = self.by_name(&reference) {
            return self.image(&id);
        }
        self.by_id_prefix(digits).ok_or_else(|| Error::NoSuchImage(reference.familiar()))
    }

    pub(crate) fn image(&self, id: &ImageId) -> Result<Arc<Image>> {
        self.images.get(id).cloned().ok_or_else(|| Error::NoSuchImage(id.to_string()))
    }

    /// A digest decides if there is one; the tag beside it is for readers.
    fn by_name(&self, reference: &Reference) -> Option<ImageId> {
        if let Some(id) = self.names.get(reference) {
            return Some(*id);
        }
        let digest = reference.digest()?;
        let canonical = reference.with_digest(digest);
        self.names.get(&canonical).copied()
    }

    /// The only image whose id begins so.
    fn by_id_prefix(&self, prefix: &str) -> Option<Arc<Image>> {
        let hexadecimal = prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if prefix.is_empty() || prefix.len() > 64 || !hexadecimal {
            return None;
        }
        let first: ImageId = format!("sha256:{prefix:0<64}").parse().ok()?;
        let mut found = self.images.range(first..).take_while(|(id, _)| id.hex().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some((_, image)), None) => Some(image.clone()),
            _ => None,
        }
    }

    /// The names of an image, sorted.
    pub(crate) fn names_of(&self, id: &ImageId) -> Vec<Reference> {
        self.names.iter().filter(|(_, named)| *named == id).map(|(name, _)| name.clone()).collect()
    }

    /// The images committed from this one.
    pub(crate) fn has_children(&self, id: &ImageId) -> bool {
        self.images.values().any(|image| image.parent == Some(*id))
    }

    /// Bytes of an image's layers.
    pub(crate) fn size_of(&self, chain: &[ChainId]) -> u64 {
        chain.iter().filter_map(|id| self.layers.get(id)).map(|layer| layer.size).sum()
    }

    /// A layer and those below it, topmost first.
    pub(crate) fn layers_from(&self, top: ChainId) -> Result<Vec<Arc<Layer>>> {
        let mut layers = Vec::new();
        let mut next = Some(top);
        while let Some(id) = next {
            let layer =
                self.layers.get(&id).ok_or_else(|| Error::corrupt(format!("layer {id} is missing")))?;
            next = layer.parent;
            layers.push(layer.clone());
        }
        Ok(layers)
    }

    /// A layer and those below it, bottom first.
    pub(crate) fn chain_of(&self, top: ChainId) -> Result<Vec<ChainId>> {
        let mut chain = Vec::new();
        let mut next = Some(top);
        while let Some(id) = next {
            let layer =
                self.layers.get(&id).ok_or_else(|| Error::corrupt(format!("layer {id} is missing")))?;
            chain.push(id);
            next = layer.parent;
        }
        chain.reverse();
        Ok(chain)
    }

    /// Drops the layers that neither an image nor one of `pinned` (with what is below them) needs, and
    /// returns them topmost first.
    pub(crate) fn drop_unused_layers(&mut self, pinned: &BTreeSet<ChainId>) -> Vec<(ChainId, Arc<Layer>)> {
        let mut needed: BTreeSet<ChainId> = BTreeSet::new();
        for image in self.images.values() {
            needed.extend(image.chain.iter().copied());
        }
        for top in pinned {
            let mut next = Some(*top);
            while let Some(id) = next.filter(|id| needed.insert(*id)) {
                next = self.layers.get(&id).and_then(|layer| layer.parent);
            }
        }
        let mut unused: BTreeMap<ChainId, Arc<Layer>> = BTreeMap::new();
        self.layers.retain(|id, layer| {
            let keep = needed.contains(id);
            if !keep {
                unused.insert(*id, layer.clone());
            }
            keep
        });
        topmost_first(unused)
    }
}

fn topmost_first(mut layers: BTreeMap<ChainId, Arc<Layer>>) -> Vec<(ChainId, Arc<Layer>)> {
    let mut ordered = Vec::with_capacity(layers.len());
    // Without cycles: a chain id is a digest of its parent's.
    while !layers.is_empty() {
        let parents: BTreeSet<ChainId> = layers.values().filter_map(|layer| layer.parent).collect();
        let (below, top): (BTreeMap<_, _>, BTreeMap<_, _>) =
            layers.into_iter().partition(|(id, _)| parents.contains(id));
        ordered.extend(top);
        layers = below;
    }
    ordered
}

/// An image from its configuration's bytes.
pub(crate) fn image(raw: Vec<u8>, parent: Option<ImageId>, last_tagged: Option<Timestamp>) -> Result<Image> {
    let config = ImageConfig::parse(&raw)?;
    let mut chain: Vec<ChainId> = Vec::with_capacity(config.rootfs.diff_ids.len());
    for diff in &config.rootfs.diff_ids {
        chain.push(ChainId::extend(chain.last().copied(), *diff));
    }
    Ok(Image { id: ImageId(Digest::of(&raw)), config, raw_config: raw, parent, last_tagged, chain })
}

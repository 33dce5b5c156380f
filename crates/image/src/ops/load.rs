use std::collections::HashMap;
use std::io::Read;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::archive_file::ArchiveFile;
use super::save::{INDEX_TYPE, MANIFEST_TYPE, NAME_ANNOTATION, REF_NAME_ANNOTATION, blob_path};
use crate::config::ImageConfig;
use crate::digest::{ChainId, Digest, DigestReader, ImageId};
use crate::error::{Context, Error, Result};
use crate::reference::Reference;
use crate::store::{ImageStore, Transaction};
use crate::types::{Loaded, Platform};

const DOCKER_LIST_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MAX_INDEX_DEPTH: usize = 4;

impl ImageStore {
    /// Adds the images of an archive: Docker's (`manifest.json`) or an OCI layout (`index.json`), perhaps
    /// compressed. With `platform`, only those for it. All or nothing.
    ///
    /// # Errors
    /// `Invalid` if the archive is malformed or cut, or a part is not what its digest says.
    pub fn load(&self, archive: impl Read, platform: Option<&Platform>) -> Result<Vec<Loaded>> {
        let archive = ArchiveFile::read(archive, self.staging_directory())?;
        let mut load = Load { archive: &archive, platform, transaction: self.begin(), loaded: Vec::new() };
        if archive.open("manifest.json")?.is_some() {
            load.docker_archive()?;
        } else if archive.open("index.json")?.is_some() {
            load.oci_layout()?;
        } else {
            return Err(Error::invalid("invalid archive: does not contain a manifest.json"));
        }
        if let Some(platform) = platform.filter(|_| load.loaded.is_empty()) {
            return Err(Error::invalid(format!(
                "no image in the archive is for the platform {}/{}",
                platform.os, platform.architecture
            )));
        }
        let Load { transaction, loaded, .. } = load;
        transaction.commit()?;
        Ok(loaded)
    }
}

struct Load<'a> {
    archive: &'a ArchiveFile,
    platform: Option<&'a Platform>,
    transaction: Transaction,
    loaded: Vec<Loaded>,
}

/// An element of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

#[derive(Deserialize)]
struct OciIndex {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    platform: Option<DescriptorPlatform>,
}

#[derive(Clone, Deserialize)]
struct DescriptorPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Load<'_> {
    fn docker_archive(&mut self) -> Result<()> {
        let items: Vec<Item> = parse("manifest.json", &self.archive.require("manifest.json")?.document()?)?;
        for item in items {
            let raw = self.archive.require(&item.config)?.document()?;
            let config = ImageConfig::parse(&raw)?;
            if !self.wanted(&config)? {
                continue;
            }
            let layers = item.layers.unwrap_or_default();
            let diff_ids = &config.rootfs.diff_ids;
            if layers.len() != diff_ids.len() {
                return Err(Error::invalid(format!(
                    "invalid manifest, layers length mismatch: expected {}, got {}",
                    layers.len(),
                    diff_ids.len()
                )));
            }
            let mut parent = None;
            for (path, diff) in layers.iter().zip(diff_ids) {
                let chain = ChainId::extend(parent, *diff);
                if !self.transaction.hold(chain) {
                    self.transaction.unpack(parent, self.archive.require(path)?, Some(*diff))?;
                }
                parent = Some(chain);
            }
            // Only an image of the same archive, which comes before it, can be a parent.
            let parent =
                item.parent.and_then(|id| id.parse().ok()).filter(|id| self.transaction.has_image(id));
            let id = self.transaction.add_image(raw, parent)?;
            let mut names = Vec::new();
            for tag in item.repo_tags.unwrap_or_default() {
                let name = Reference::parse(&tag)?;
                if name.tag().is_none() || name.digest().is_some() {
                    return Err(Error::invalid(format!("invalid tag {tag:?}")));
                }
                names.push(name);
            }
            self.add_names(names, id);
        }
        Ok(())
    }

    fn oci_layout(&mut self) -> Result<()> {
        let index: OciIndex = parse("index.json", &self.archive.require("index.json")?.document()?)?;
        let mut images: Vec<(ImageId, Option<Reference>)> = Vec::new();
        for descriptor in self.for_platform(&index.manifests) {
            let name = name_of(&descriptor);
            if let Some(id) = self.oci_image(&descriptor, 0)? {
                images.push((id, name));
            }
        }
        for (at, (id, name)) in images.iter().enumerate() {
            let first = images[..at].iter().all(|(other, _)| other != id);
            let named = images.iter().any(|(other, name)| other == id && name.is_some());
            match name {
                Some(name) => self.add_names(vec![name.clone()], *id),
                None if first && !named => self.add_names(Vec::new(), *id),
                None => {}
            }
        }
        Ok(())
    }

    /// The image of a manifest, or of that manifest of an index which is for our platform.
    fn oci_image(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Option<ImageId>> {
        match descriptor.media_type.as_str() {
            INDEX_TYPE | DOCKER_LIST_TYPE if depth >= MAX_INDEX_DEPTH => {
                Err(Error::invalid("invalid archive: indexes nested too deeply"))
            }
            INDEX_TYPE | DOCKER_LIST_TYPE => {
                let index: OciIndex = parse("image index", &self.blob(&descriptor.digest)?)?;
                match self.for_platform(&index.manifests).first() {
                    Some(manifest) => self.oci_image(manifest, depth + 1),
                    None => Ok(None),
                }
            }
            MANIFEST_TYPE | DOCKER_MANIFEST_TYPE => self.oci_manifest(&descriptor.digest),
            other => {
                Err(Error::invalid(format!("invalid archive: unsupported media type {other:?} in an index")))
            }
        }
    }

    fn oci_manifest(&mut self, digest: &Digest) -> Result<Option<ImageId>> {
        let manifest: Manifest = parse("image manifest", &self.blob(digest)?)?;
        let raw = self.blob(&manifest.config.digest)?;
        let config = ImageConfig::parse(&raw)?;
        if !self.wanted(&config)? {
            return Ok(None);
        }
        let diff_ids = &config.rootfs.diff_ids;
        if manifest.layers.len() != diff_ids.len() {
            return Err(Error::invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        let mut parent = None;
        for (layer, diff) in manifest.layers.iter().zip(diff_ids) {
            let chain = ChainId::extend(parent, *diff);
            if !self.transaction.hold(chain) {
                let blob = self.archive.require(&blob_path(&layer.digest))?;
                check_digest(blob.clone(), &layer.digest)?;
                self.transaction.unpack(parent, blob, Some(*diff))?;
            }
            parent = Some(chain);
        }
        self.transaction.add_image(raw, None).map(Some)
    }

    /// A small blob, verified.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let bytes = self.archive.require(&blob_path(digest))?.document()?;
        check_digest(bytes.as_slice(), digest)?;
        Ok(bytes)
    }

    /// Whether an image is one to load.
    fn wanted(&self, config: &ImageConfig) -> Result<bool> {
        if let Some(platform) = self.platform {
            return Ok(platform.accepts(&config.os, &config.architecture, &config.variant));
        }
        if config.os.is_empty() || config.os == "linux" {
            return Ok(true);
        }
        Err(Error::invalid(format!("cannot load {} image on linux", config.os)))
    }

    /// Of manifests for several platforms, those for ours; all if none is.
    fn for_platform(&self, manifests: &[Descriptor]) -> Vec<Descriptor> {
        let host = Platform::default();
        let wanted = self.platform.unwrap_or(&host);
        // Attestations are listed as images for an unknown platform.
        let images = || manifests.iter().filter(|m| m.platform.as_ref().is_none_or(|p| p.os != "unknown"));
        let ours: Vec<_> = images()
            .filter(|m| {
                m.platform.as_ref().is_none_or(|p| wanted.accepts(&p.os, &p.architecture, &p.variant))
            })
            .cloned()
            .collect();
        if ours.is_empty() && self.platform.is_none() { images().cloned().collect() } else { ours }
    }

    fn add_names(&mut self, names: Vec<Reference>, id: ImageId) {
        if names.is_empty() {
            self.loaded.push(Loaded::Id(id));
        }
        for name in names {
            if let Some(old) = self.transaction.name_is_of(&name).filter(|old| *old != id) {
                self.loaded.push(Loaded::Renamed(name.clone(), old));
            }
            self.transaction.add_name(name.clone(), id);
            self.loaded.push(Loaded::Name(name, id));
        }
    }
}

/// containerd's annotation has the whole name; the standard's may be a mere tag, which names nothing.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let annotations = descriptor.annotations.as_ref()?;
    let name = annotations
        .get(NAME_ANNOTATION)
        .or_else(|| annotations.get(REF_NAME_ANNOTATION).filter(|name| name.contains([':', '/'])))?;
    let name = Reference::parse(name).ok()?.or_latest();
    name.digest().is_none().then_some(name)
}

fn check_digest(blob: impl Read, expected: &Digest) -> Result<()> {
    let mut reader = DigestReader::new(blob);
    std::io::copy(&mut reader, &mut std::io::sink()).context(|| "read archive".to_owned())?;
    let (actual, _) = reader.finish();
    if actual == *expected {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid archive: blob {expected} has the digest {actual}")))
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("invalid archive: failed to decode {what}: {error}")))
}

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::json;

use crate::digest::{ChainId, Digest, DigestWriter};
use crate::error::{Context, Error, Result};
use crate::layer::assemble;
use crate::reference::Reference;
use crate::store::{ImageStore, Index};
use crate::tar::{Header, Kind, TarWriter};
use crate::types::Image;

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const NAME_ANNOTATION: &str = "io.containerd.image.name";
pub(super) const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

impl ImageStore {
    /// Writes images into one archive that is both Docker's (`manifest.json`) and an OCI layout
    /// (`index.json`), as Docker does since version 25. A name without a tag means all of its tags.
    ///
    /// # Errors
    /// `No such image`, before anything is written.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<()> {
        let index = self.index();
        let selected = select(&index, names)?;
        // Holds the layers: an image may be removed while it is saved.
        let mut lease = self.begin();
        for chain in selected.iter().flat_map(|(image, _)| &image.chain) {
            if !lease.hold(*chain) {
                return Err(Error::NotFound(format!("layer {chain} was removed")));
            }
        }
        let archive = Archive::describe(&index, &selected)?;
        archive.write(self, &index, out)
    }
}

type Selected = Vec<(Arc<Image>, Vec<Reference>)>;

/// The images meant, each once, with the names to save.
fn select(index: &Index, names: &[String]) -> Result<Selected> {
    let mut selected: Selected = Vec::new();
    let mut add = |image: Arc<Image>, name: Option<Reference>| {
        let at = selected.iter().position(|(known, _)| known.id == image.id).unwrap_or_else(|| {
            selected.push((image, Vec::new()));
            selected.len() - 1
        });
        let names = &mut selected[at].1;
        names.extend(name.filter(|name| !names.contains(name)));
    };
    for name in names {
        let image = index.resolve(name);
        let parsed = Reference::parse(name).ok();
        let whole_repository = parsed.as_ref().filter(|name| name.tag().is_none() && name.digest().is_none());
        if let Some(repository) = whole_repository {
            let tags = || {
                index.names.iter().filter(|(tag, _)| tag.same_repository(repository) && tag.tag().is_some())
            };
            for (tag, id) in tags() {
                add(index.image(id)?, Some(tag.clone()));
            }
            if tags().next().is_some() {
                continue;
            }
        }
        let tag = parsed.filter(|name| name.tag().is_some() && index.names.contains_key(name));
        add(image?, tag);
    }
    Ok(selected)
}

/// What the archive consists of, by path.
#[derive(Default)]
struct Archive {
    documents: BTreeMap<String, Vec<u8>>,
    layers: BTreeMap<String, ChainId>,
}

impl Archive {
    fn describe(index: &Index, selected: &Selected) -> Result<Self> {
        let mut archive = Self::default();
        let mut manifests = Vec::new();
        let mut items = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let saved: BTreeSet<_> = selected.iter().map(|(image, _)| image.id).collect();
        for (image, names) in selected {
            let layers = archive.add_layers(index, image)?;
            let config = archive.add_blob(image.raw_config.clone());
            let manifest = json_bytes(&json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": image.id, "size": image.raw_config.len()},
                "layers": layers,
            }))?;
            let mut descriptor =
                json!({"mediaType": MANIFEST_TYPE, "digest": Digest::of(&manifest), "size": manifest.len()});
            archive.add_blob(manifest);
            if names.is_empty() {
                manifests.push(descriptor.clone());
            }
            for name in names {
                descriptor["annotations"] = json!({NAME_ANNOTATION: name, REF_NAME_ANNOTATION: name.tag()});
                manifests.push(descriptor.clone());
                if let (Some(tag), Some(top)) = (name.tag(), image.config.rootfs.diff_ids.last()) {
                    repositories.entry(name.familiar_name()).or_default().insert(tag.to_owned(), top.hex());
                }
            }
            let diff_ids = &image.config.rootfs.diff_ids;
            let mut item = json!({
                "Config": config,
                "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                "Layers": diff_ids.iter().map(|diff| blob_path(&diff.0)).collect::<Vec<_>>(),
                "LayerSources": diff_ids.iter().map(ToString::to_string).zip(layers).collect::<BTreeMap<_, _>>(),
            });
            if let Some(parent) = image.parent.filter(|parent| saved.contains(parent)) {
                item["Parent"] = json!(parent);
            }
            items.push(item);
        }
        let mut add = |name: &str, document: &serde_json::Value| {
            json_bytes(document).map(|bytes| archive.documents.insert(name.to_owned(), bytes))
        };
        add("manifest.json", &json!(items))?;
        add("index.json", &json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}))?;
        add("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        if !repositories.is_empty() {
            add("repositories", &json!(repositories))?;
        }
        Ok(archive)
    }

    /// The descriptors of an image's layers.
    fn add_layers(&mut self, index: &Index, image: &Image) -> Result<Vec<serde_json::Value>> {
        let mut descriptors = Vec::new();
        for (chain, diff) in image.chain.iter().zip(&image.config.rootfs.diff_ids) {
            let layer = index.layers.get(chain);
            let layer = layer.ok_or_else(|| Error::corrupt(format!("layer {chain} is missing")))?;
            descriptors.push(json!({"mediaType": LAYER_TYPE, "digest": diff, "size": layer.tar_size}));
            self.layers.entry(blob_path(&diff.0)).or_insert(*chain);
        }
        Ok(descriptors)
    }

    fn add_blob(&mut self, bytes: Vec<u8>) -> String {
        let path = blob_path(&Digest::of(&bytes));
        self.documents.insert(path.clone(), bytes);
        path
    }

    fn write(&self, store: &ImageStore, index: &Index, out: impl Write) -> Result<()> {
        let action = || "write archive".to_owned();
        let mut tar = TarWriter::new(out);
        for directory in ["blobs/", "blobs/sha256/"] {
            let header = Header { kind: Kind::Directory, mode: 0o755, ..member(directory, 0) };
            tar.append(&header, io::empty()).context(action)?;
        }
        let paths: BTreeSet<&String> = self.documents.keys().chain(self.layers.keys()).collect();
        for path in paths {
            if let Some(document) = self.documents.get(path) {
                tar.append(&member(path, document.len() as u64), document.as_slice()).context(action)?;
                continue;
            }
            let Some(layer) = self.layers.get(path).and_then(|chain| index.layers.get(chain)) else {
                continue;
            };
            tar.begin(&member(path, layer.tar_size)).context(action)?;
            let mut content = DigestWriter::new(tar.inner());
            let (split, side) = store.split_paths(&layer.directory);
            assemble(&store.layer_directory(layer), &split, &side, &mut content)?;
            if content.finish() != (layer.diff_id.0, layer.tar_size) {
                return Err(Error::corrupt(format!("the files of layer {} were changed", layer.diff_id)));
            }
            tar.end(layer.tar_size).context(action)?;
        }
        tar.finish().context(action)?;
        Ok(())
    }
}

fn member(path: &str, size: u64) -> Header {
    Header { path: path.into(), size, mode: 0o644, ..Header::default() }
}

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json_bytes(value: &serde_json::Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::corrupt(format!("write archive: {error}")))
}

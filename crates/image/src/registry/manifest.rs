use std::collections::HashSet;

use serde::Deserialize;

use super::failure::Failure;
use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;
use crate::types::Platform;

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Configurations that are an image's; the generic ones were written by old registries and tools.
const IMAGE_CONFIGS: &[&str] = &[
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];

/// What follows `/manifests/`.
pub(super) fn target(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// A manifest as a registry sent it.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// Images for several platforms.
    Index(Vec<Entry>),
    /// One image.
    Image(Image),
}

/// A manifest of an image.
#[derive(Debug, Deserialize)]
pub(super) struct Image {
    pub(super) config: Descriptor,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

/// A blob that a manifest names.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) size: u64,
}

/// A line of an index.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    #[serde(default)]
    media_type: String,
    pub(super) digest: Digest,
    #[serde(default)]
    platform: Option<EntryPlatform>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct EntryPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
}

impl Manifest {
    /// Reads a manifest. `media_type` is what the registry called it; the document's own word counts more.
    pub(super) fn parse(bytes: &[u8], media_type: &str, reference: &str) -> Result<Self, Failure> {
        let wrong = |error: serde_json::Error| {
            Failure::Final(Error::invalid(format!("invalid manifest of {reference}: {error}")))
        };
        let shape: Shape = serde_json::from_slice(bytes).map_err(wrong)?;
        let called = media_type.split(';').next().unwrap_or_default().trim();
        let media_type = if shape.media_type.is_empty() { called } else { &shape.media_type };
        if media_type.starts_with(SCHEMA1) || shape.schema_version == 1 {
            return Err(Failure::Final(Error::invalid(format!(
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of {reference} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2."
            ))));
        }
        let (media_type, content) = match (media_type, shape.manifests) {
            (OCI_INDEX | DOCKER_LIST, Some(entries)) => (media_type, Content::Index(entries)),
            (OCI_IMAGE | DOCKER_IMAGE, None) => {
                (media_type, Content::Image(serde_json::from_slice(bytes).map_err(wrong)?))
            }
            // Some registries do not tell; then its shape must.
            (_, Some(entries)) => (OCI_INDEX, Content::Index(entries)),
            (_, None) => (OCI_IMAGE, Content::Image(serde_json::from_slice(bytes).map_err(wrong)?)),
        };
        let media_type = media_type.to_owned();
        Ok(Self { media_type, digest: Digest::of(bytes), size: bytes.len() as u64, content })
    }
}

impl Image {
    /// Checks that it is a container image whose layers can be had.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let config = self.config.media_type.as_str();
        if !IMAGE_CONFIGS.contains(&config) {
            let class = if config.contains(".plugin.") { "plugin" } else { "unknown" };
            let text = format!("Encountered remote {config:?}({class}) when fetching");
            return Err(Failure::Final(Error::invalid(text)));
        }
        for layer in &self.layers {
            let kind = layer.media_type.as_str();
            if kind.contains(".foreign.") {
                return Err(Failure::Final(Error::invalid(format!(
                    "layer {} is not in the registry ({kind}); images for Windows cannot be pulled",
                    layer.digest
                ))));
            }
            let image = kind.is_empty()
                || kind == "application/octet-stream"
                || kind.starts_with("application/vnd.oci.image.layer.")
                || kind.starts_with("application/vnd.docker.image.rootfs.");
            if !image {
                return Err(Failure::Final(Error::invalid(format!("unsupported media type {kind}"))));
            }
        }
        Ok(())
    }

    /// Its layers, each blob once, in the order of their first use.
    pub(super) fn distinct_layers(&self, from: usize) -> Vec<&Descriptor> {
        let mut seen = HashSet::new();
        self.layers.iter().skip(from).filter(|layer| seen.insert(layer.digest)).collect()
    }
}

impl Entry {
    /// What it is for, unless it is for nothing that runs, such as an attestation.
    pub(super) fn platform(&self) -> Option<Platform> {
        let platform = self.platform.clone()?;
        let EntryPlatform { os, architecture, variant } = platform;
        (os != "unknown").then_some(Platform { os, architecture, variant })
    }
}

/// The entry of an index that fits a platform best.
pub(super) fn choose<'a>(entries: &'a [Entry], wanted: &Platform) -> Option<&'a Entry> {
    let usable = entries.iter().filter(|entry| {
        matches!(entry.media_type.as_str(), "" | OCI_IMAGE | DOCKER_IMAGE | OCI_INDEX | DOCKER_LIST)
    });
    let ranked = usable.filter_map(|entry| match &entry.platform {
        // An index of indexes need not say.
        None => Some((u32::MAX, entry)),
        Some(platform) => Some((rank(wanted, platform)?, entry)),
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

/// How far an image's platform is from the one wanted; none if it would not run there. 32-bit ARM processors run
/// what was made for earlier ones; everything else that has variants wants its own.
fn rank(wanted: &Platform, offered: &EntryPlatform) -> Option<u32> {
    if offered.os != wanted.os || offered.architecture != wanted.architecture {
        return None;
    }
    let of = |variant: &str| match (wanted.architecture.as_str(), variant) {
        ("arm64", "") => Some(8),
        ("amd64", "") => Some(1),
        ("arm", "") => Some(7),
        _ => variant.strip_prefix('v').and_then(|number| number.parse::<u32>().ok()),
    };
    match (of(&wanted.variant), of(&offered.variant)) {
        (Some(wanted), Some(offered)) if offered == wanted => Some(0),
        (Some(newest), Some(offered)) if wanted.architecture == "arm" => newest.checked_sub(offered),
        _ => (wanted.variant == offered.variant).then_some(0),
    }
}

/// The platform that an image's configuration names.
pub(super) fn platform_of_config(config: &[u8]) -> Option<Platform> {
    let EntryPlatform { os, architecture, variant } = serde_json::from_slice(config).ok()?;
    let named = !os.is_empty() || !architecture.is_empty();
    named.then_some(Platform { os, architecture, variant })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(platforms: &[&str]) -> Vec<Entry> {
        let entry = |(number, text): (usize, &&str)| {
            let mut parts = text.split('/').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            Entry {
                media_type: OCI_IMAGE.to_owned(),
                digest: Digest::of(&[u8::try_from(number).unwrap()]),
                platform: Some(EntryPlatform { os: next(), architecture: next(), variant: next() }),
            }
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    fn chosen(wanted: &str, platforms: &[&str]) -> Option<usize> {
        let entries = entries(platforms);
        let found = choose(&entries, &wanted.parse().unwrap())?;
        entries.iter().position(|entry| entry.digest == found.digest)
    }

    #[test]
    fn the_platform_that_runs_is_chosen() {
        let all = ["unknown/unknown", "linux/arm/v5", "linux/arm/v6", "linux/arm64/v8", "linux/amd64"];
        assert_eq!(chosen("linux/amd64", &all), Some(4));
        assert_eq!(chosen("linux/arm64", &all), Some(3));
        assert_eq!(chosen("linux/arm/v7", &all), Some(2), "the nearest earlier one");
        assert_eq!(chosen("linux/arm/v5", &all), Some(1), "never a later one");
        assert_eq!(chosen("linux/s390x", &all), None);
        assert_eq!(chosen("linux/amd64", &["linux/amd64/v3"]), None, "would not run everywhere");
        assert_eq!(chosen("linux/amd64/v3", &["linux/amd64", "linux/amd64/v3"]), Some(1));
        assert_eq!(chosen("windows/amd64", &["linux/amd64"]), None);
    }

    #[test]
    fn other_things_than_images_are_refused_by_name() {
        let digest = Digest::of(b"x");
        let image = |config: &str, layer: &str| {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{digest}","size":1}},
                    "layers":[{{"mediaType":"{layer}","digest":"{digest}","size":1}}]}}"#
            );
            let manifest = Manifest::parse(text.as_bytes(), OCI_IMAGE, "x:1").unwrap();
            let Content::Image(image) = manifest.content else { panic!("an image") };
            image.check().map_err(|failure| failure.into_error().to_string())
        };
        let config = "application/vnd.oci.image.config.v1+json";
        for layer in ["tar", "tar+gzip", "tar+zstd"] {
            image(config, &format!("application/vnd.oci.image.layer.v1.{layer}")).unwrap();
        }
        let chart = image("application/vnd.cncf.helm.config.v1+json", "").unwrap_err();
        assert!(chart.contains("helm.config"), "{chart}");
        assert!(image(config, "application/x-wasm").unwrap_err().contains("unsupported media type"));
        let schema1 = Manifest::parse(br#"{"schemaVersion":1}"#, "", "x:1").unwrap_err();
        assert!(schema1.into_error().to_string().contains("schema 1"));
        assert!(Manifest::parse(b"[]", "", "x:1").is_err());
    }
}

use std::io::Read;

use jiff::Timestamp;

use crate::config::{HistoryEntry, ImageConfig, RootFs, RunConfig};
use crate::digest::ImageId;
use crate::error::{Error, Result};
use crate::instructions;
use crate::store::ImageStore;
use crate::types::{ImportOptions, Platform};

impl ImageStore {
    /// Makes an image of one layer from a tar of a root file system (`docker import`).
    ///
    /// # Errors
    /// `Invalid` if the archive or a change is wrong; then nothing is left behind.
    pub fn import(&self, archive: impl Read, options: &ImportOptions) -> Result<ImageId> {
        let platform = options.platform.clone().unwrap_or_default();
        if platform.os != "linux" {
            return Err(Error::invalid(format!("operating system is not supported: {:?}", platform.os)));
        }
        let config = instructions::apply(&RunConfig::default(), &options.changes)?;
        let mut transaction = self.begin();
        let chain = transaction.unpack(None, archive, None)?;
        let created = Some(Timestamp::now());
        let image = ImageConfig {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            created,
            comment: options.message.clone(),
            config,
            // The bottom layer's chain id is its diff id.
            rootfs: RootFs { diff_ids: vec![crate::DiffId(chain.0)], ..RootFs::default() },
            history: vec![HistoryEntry {
                created,
                comment: options.message.clone(),
                ..HistoryEntry::default()
            }],
            ..ImageConfig::default()
        };
        let id = transaction.add_image(image.to_bytes()?, None)?;
        if let Some(name) = &options.reference {
            transaction.add_name(check_new_name(name)?, id);
        }
        transaction.commit()?;
        Ok(id)
    }
}

/// A name that is to be given: with a tag, which it gets if it has none.
pub(super) fn check_new_name(name: &crate::Reference) -> Result<crate::Reference> {
    if name.digest().is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    Ok(name.clone().or_latest())
}

impl Default for Platform {
    /// The host's.
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: String::new() }
    }
}

impl std::str::FromStr for Platform {
    type Err = Error;

    /// `os[/arch[/variant]]`, or an architecture alone.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("{text:?} is an invalid platform: use os[/arch[/variant]]"));
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let architecture = |name: &str| match name.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "i386" => "386".to_owned(),
            other => other.to_owned(),
        };
        match parts.as_slice() {
            ["linux"] => Ok(Self::default()),
            [name] if matches!(*name, "windows" | "darwin" | "freebsd") => {
                Ok(Self { os: (*name).to_owned(), ..Self::default() })
            }
            [name] => Ok(Self { architecture: architecture(name), ..Self::default() }),
            [os, arch] => Ok(Self {
                os: os.to_ascii_lowercase(),
                architecture: architecture(arch),
                variant: String::new(),
            }),
            [os, arch, variant] => Ok(Self {
                os: os.to_ascii_lowercase(),
                architecture: architecture(arch),
                variant: (*variant).to_owned(),
            }),
            _ => Err(bad()),
        }
    }
}

impl Platform {
    /// Whether an image for `other` is what this asks for; a variant counts only if both have one.
    pub fn accepts(&self, os: &str, architecture: &str, variant: &str) -> bool {
        let os = if os.is_empty() { "linux" } else { os };
        self.os == os
            && self.architecture == architecture
            && (self.variant.is_empty() || variant.is_empty() || self.variant == variant)
    }
}

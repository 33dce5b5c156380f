use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};

use crate::config::ImageConfig;
use crate::digest::{ChainId, Digest, ImageId};
use crate::error::{Context, Error, Result};
use crate::reference::Reference;
use crate::store::{ImageStore, Transaction, give_name};
use crate::types::Platform;

/// An image that comes in layer by layer, from a registry. Nobody sees anything of it before
/// [`Incoming::finish`]; dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    store: ImageStore,
    transaction: Transaction,
    raw_config: Vec<u8>,
    config: ImageConfig,
    /// The layers that are here, bottom first.
    chain: Vec<ChainId>,
}

impl ImageStore {
    /// Begins to take in the image of this configuration. The layers that the store has already stay.
    ///
    /// # Errors
    /// `Invalid` if it is no image's configuration, or not one for Linux.
    pub fn receive(&self, raw_config: Vec<u8>) -> Result<Incoming> {
        let config = ImageConfig::parse(&raw_config)?;
        if !config.os.is_empty() && config.os != "linux" {
            return Err(Error::invalid(format!(
                "image operating system {:?} cannot be used on this platform",
                config.os
            )));
        }
        let mut incoming = Incoming {
            store: self.clone(),
            transaction: self.begin(),
            raw_config,
            config,
            chain: Vec::new(),
        };
        incoming.hold_present();
        Ok(incoming)
    }

    /// A file without a name for what is being downloaded: gone when it is closed, even by a crash.
    ///
    /// # Errors
    /// If the disk is full or its file system cannot do that.
    pub fn spool(&self) -> Result<File> {
        let directory = self.staging_directory();
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file: OwnedFd = open(directory, flags, Mode::RUSR | Mode::WUSR)
            .context(|| format!("make a file in {}", directory.display()))?;
        Ok(file.into())
    }

    /// The image that carries this digest of a manifest in this repository, if it is here, is for `platform`
    /// and has the name `reference` (if that is a tag) already: then there is nothing to pull. Fast.
    pub fn is_current(&self, reference: &Reference, digest: Digest, platform: &Platform) -> bool {
        let index = self.index();
        let by_digest = index.names.get(&reference.with_digest(digest));
        let Some(id) = by_digest else { return false };
        let named = reference.digest().is_some() || index.names.get(reference) == Some(id);
        let config = index.images.get(id).map(|image| &image.config);
        named && config.is_some_and(|c| platform.accepts(&c.os, &c.architecture, &c.variant))
    }

    /// Gives an image that is here the names of a pull: `reference` and the repository with the manifest's
    /// digest. Whether `reference` now means another image than before.
    ///
    /// # Errors
    /// `No such image`, or the index cannot be written.
    pub fn name_pulled(&self, id: ImageId, reference: &Reference, digest: Digest) -> Result<bool> {
        let names = pulled_names(reference, digest);
        let mut updated = false;
        self.change(|index, _| {
            index.image(&id)?;
            updated = index.names.get(&names[0]) != Some(&id);
            let missing: Vec<_> = names.iter().filter(|name| index.names.get(name) != Some(&id)).collect();
            for name in &missing {
                give_name(index, name, id);
            }
            Ok(!missing.is_empty())
        })?;
        Ok(updated)
    }
}

/// The name that was asked for comes first.
fn pulled_names(reference: &Reference, digest: Digest) -> Vec<Reference> {
    let canonical = reference.with_digest(digest);
    match reference.digest() {
        Some(_) => vec![canonical],
        None => vec![reference.clone(), canonical],
    }
}

impl Incoming {
    /// How many layers the image has.
    pub fn layers(&self) -> usize {
        self.config.rootfs.diff_ids.len()
    }

    /// How many of them are here, counted from the bottom.
    pub fn present(&self) -> usize {
        self.chain.len()
    }

    /// Takes in the next layer: its tar, perhaps compressed. The same layer may have come by another way
    /// meanwhile; then the next ones may be here too.
    ///
    /// # Errors
    /// `Invalid` if the tar is malformed or not the one that the configuration names.
    pub fn layer(&mut self, tar: impl Read) -> Result<()> {
        let Some(diff) = self.config.rootfs.diff_ids.get(self.chain.len()).copied() else {
            return Err(Error::invalid("the image has no more layers"));
        };
        let chain = self.transaction.unpack(self.chain.last().copied(), tar, Some(diff))?;
        self.chain.push(chain);
        self.hold_present();
        Ok(())
    }

    /// Makes the image visible under the names of a pull, as [`ImageStore::name_pulled`] does. All or nothing.
    ///
    /// # Errors
    /// A layer is missing, or the disk is full.
    pub fn finish(mut self, reference: &Reference, digest: Digest) -> Result<(ImageId, bool)> {
        let id = self.transaction.add_image(self.raw_config, None)?;
        let names = pulled_names(reference, digest);
        let updated = self.store.index().names.get(&names[0]) != Some(&id);
        for name in names {
            self.transaction.add_name(name, id);
        }
        self.transaction.commit()?;
        Ok((id, updated))
    }

    /// Holds the next layers as far as the store has them.
    fn hold_present(&mut self) {
        while let Some(diff) = self.config.rootfs.diff_ids.get(self.chain.len()) {
            let chain = ChainId::extend(self.chain.last().copied(), *diff);
            if !self.transaction.hold(chain) {
                return;
            }
            self.chain.push(chain);
        }
    }
}

use std::fs::File;
use std::io::{Read, Write};

use jiff::Timestamp;

use super::import::check_new_name;
use crate::config::{HistoryEntry, ImageConfig};
use crate::digest::{DiffId, ImageId};
use crate::error::{Context, Error, Result};
use crate::instructions;
use crate::layer::pack_upper;
use crate::store::ImageStore;
use crate::types::{CommitOptions, Platform};

/// The digest of a tar without members.
const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

impl ImageStore {
    /// Makes an image from a container's image and what the container changed (`docker commit`). Pause the
    /// container meanwhile. `parent` is its image; if that is gone, the layers are there all the same, but
    /// its history is not.
    ///
    /// # Errors
    /// `NotFound` if the container has no root file system; `Invalid` if a change is wrong.
    pub fn commit(&self, container_id: &str, parent: &ImageId, options: &CommitOptions) -> Result<ImageId> {
        let config = instructions::apply(&options.config, &options.changes)?;
        let rootfs = self.rootfs(container_id)?;
        let top = self.top_layer(container_id)?;
        let mut transaction = self.begin();
        if let Some(top) = top {
            for chain in self.index().chain_of(top)? {
                transaction.hold(chain);
            }
        }
        let upper = File::open(&rootfs.upper).context(|| format!("open {}", rootfs.upper.display()))?;
        let chain = piped(|out| pack_upper(&upper, out), |layer| transaction.unpack(top, layer, None))?;
        let parent_image = self.get(parent).ok();
        let mut image = match &parent_image {
            Some(parent) => parent.config.clone(),
            None => self.orphan_config(top)?,
        };
        let diff_id = transaction.diff_id(chain)?;
        let empty_layer = diff_id.to_string() == EMPTY_LAYER;
        if !empty_layer {
            image.rootfs.diff_ids.push(diff_id);
        }
        let created = Some(Timestamp::now());
        image.created = created;
        image.author = options.author.clone();
        image.comment = options.comment.clone();
        image.container = container_id.to_owned();
        image.config = config;
        image.history.push(HistoryEntry {
            created,
            author: options.author.clone(),
            created_by: options.created_by.clone(),
            comment: options.comment.clone(),
            empty_layer,
        });
        let id = transaction.add_image(image.to_bytes()?, parent_image.map(|image| image.id))?;
        if let Some(name) = &options.reference {
            transaction.add_name(check_new_name(name)?, id);
        }
        transaction.commit()?;
        Ok(id)
    }

    /// What can still be said of an image that was removed: its layers.
    fn orphan_config(&self, top: Option<crate::ChainId>) -> Result<ImageConfig> {
        let platform = Platform::default();
        let mut config =
            ImageConfig { architecture: platform.architecture, os: platform.os, ..ImageConfig::default() };
        if let Some(top) = top {
            let layers = self.index().layers_from(top)?;
            config.rootfs.diff_ids = layers.iter().rev().map(|layer| layer.diff_id).collect::<Vec<DiffId>>();
        }
        config.history = vec![HistoryEntry::default(); config.rootfs.diff_ids.len()];
        Ok(config)
    }
}

/// Runs a writer and a reader against each other. The reader's error counts if the writer fails only because
/// the reader stopped.
fn piped<T>(
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    read: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let (mut reader, writer) = std::io::pipe().context(|| "make a pipe".to_owned())?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("image-pack".to_owned());
        let writing = thread.spawn_scoped(scope, move || {
            let mut writer = std::io::BufWriter::with_capacity(128 << 10, writer);
            write(&mut writer)?;
            writer.flush().context(|| "write a layer".to_owned())
        });
        let writing = writing.context(|| "start a thread".to_owned())?;
        let read = read(&mut reader);
        drop(reader);
        let written =
            writing.join().unwrap_or_else(|_| Err(Error::corrupt("the thread that packs panicked")));
        match (read, written) {
            (Ok(_), Err(error)) => Err(error),
            // A cut archive is the consequence of what the writer met.
            (Err(Error::Invalid(_)), Err(error)) => Err(error),
            (read, _) => read,
        }
    })
}

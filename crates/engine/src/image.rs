//! Images: thin over the image store, with the containers that use them, and events.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use portolan_image::{
    HistoryItem, ImageId, ImageInspect, ImageSummary, ImageUser, ImportOptions, ListFilter, Loaded, Platform,
    PruneFilter, Pruned, Reference, RemoveOptions, Removed,
};

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::model::{DiskUsage, EventType, ListOptions};
use crate::volume::size_of;

impl Engine {
    /// `GET /images/json`.
    ///
    /// # Errors
    /// A filter names an image that does not exist.
    pub async fn image_list(&self, filter: ListFilter) -> Result<Vec<ImageSummary>> {
        Ok(self.inner.images.list(&filter)?)
    }

    /// `GET /images/{name}/json`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_inspect(&self, name: &str) -> Result<ImageInspect> {
        Ok(self.inner.images.inspect(name)?)
    }

    /// `GET /images/{name}/history`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        Ok(self.inner.images.history(name)?)
    }

    /// `POST /images/{name}/tag`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_tag(&self, name: &str, target: Reference) -> Result<()> {
        let (images, name, reference) = (self.inner.images.clone(), name.to_owned(), target.clone());
        let id = blocking(move || Ok(images.tag(&name, &reference)?)).await?;
        self.image_event("tag", &id.to_string(), &target.familiar());
        Ok(())
    }

    /// `DELETE /images/{name}`.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is in use.
    pub async fn image_remove(&self, name: &str, options: RemoveOptions) -> Result<Vec<Removed>> {
        let (engine, name) = (self.clone(), name.to_owned());
        let removed =
            blocking(move || Ok(engine.inner.images.remove(&name, options, &|id| engine.image_users(id))?))
                .await?;
        self.removal_events(&removed);
        Ok(removed)
    }

    /// `POST /images/create?fromSrc=-`. The image's id with `sha256:`. `archive` is read on a blocking thread.
    ///
    /// # Errors
    /// `Invalid` if the archive is malformed or a change is wrong. Leaves nothing behind.
    pub async fn image_import(
        &self,
        archive: Box<dyn Read + Send>,
        options: ImportOptions,
    ) -> Result<String> {
        let images = self.inner.images.clone();
        let name = options.reference.as_ref().map(Reference::familiar);
        let id = blocking(move || Ok(images.import(archive, &options)?)).await?.to_string();
        self.image_event("import", &id, name.as_deref().unwrap_or(&id));
        Ok(id)
    }

    /// Holds an image, called `name` in the error, to the platform that a client asks for: an image here is for one.
    ///
    /// # Errors
    /// `NotFound`, for the image and for the platform.
    pub fn image_check_platform(&self, image: &str, name: &str, wanted: &Platform) -> Result<()> {
        let image = self.inner.images.resolve(image)?;
        let config = &image.config;
        if wanted.accepts(&config.os, &config.architecture, &config.variant) {
            return Ok(());
        }
        let text = |parts: [&str; 3]| {
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
        };
        Err(EngineError::not_found(format!(
            "image with reference {name} was found but its platform ({}) does not match the specified platform ({})",
            text([&config.os, &config.architecture, &config.variant]),
            text([&wanted.os, &wanted.architecture, &wanted.variant]),
        )))
    }

    /// `POST /images/load`; with a platform, only the images for it.
    ///
    /// # Errors
    /// `Invalid` if the archive is malformed or cut, or has nothing for the platform. All or nothing.
    pub async fn image_load(
        &self,
        archive: Box<dyn Read + Send>,
        platform: Option<Platform>,
    ) -> Result<Vec<Loaded>> {
        let images = self.inner.images.clone();
        let loaded = blocking(move || Ok(images.load(archive, platform.as_ref())?)).await?;
        for item in &loaded {
            match item {
                Loaded::Name(name, id) => self.image_event("load", &id.to_string(), &name.familiar()),
                Loaded::Renamed(..) => {}
                Loaded::Id(id) => self.image_event("load", &id.to_string(), &id.to_string()),
            }
        }
        Ok(loaded)
    }

    /// `GET /images/get`: writes an archive on a blocking thread. Names are checked before anything is written.
    ///
    /// # Errors
    /// `NotFound`, or the sink cannot be written to.
    pub async fn image_save(&self, names: Vec<String>, to: Box<dyn Write + Send>) -> Result<()> {
        let (images, wanted) = (self.inner.images.clone(), names.clone());
        blocking(move || Ok(images.save(&wanted, to)?)).await?;
        for name in names {
            if let Ok(image) = self.inner.images.resolve(&name) {
                self.image_event("save", &image.id.to_string(), &name);
            }
        }
        Ok(())
    }

    /// `POST /images/prune`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn image_prune(&self, filter: PruneFilter) -> Result<Pruned> {
        let engine = self.clone();
        let pruned =
            blocking(move || Ok(engine.inner.images.prune(&filter, &|id| engine.image_users(id))?)).await?;
        self.removal_events(&pruned.removed);
        let attributes = BTreeMap::from([("reclaimed".to_owned(), pruned.space_reclaimed.to_string())]);
        self.inner.events.publish(EventType::Image, "prune", "", attributes);
        Ok(pruned)
    }

    /// `GET /system/df`.
    ///
    /// # Errors
    /// A container's files cannot be measured.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let containers =
            self.container_list(ListOptions { all: true, size: true, ..ListOptions::default() }).await?;
        let mut volumes = Vec::new();
        for volume in self.inner.volumes.all() {
            let users = self.volume_users(&volume.name).len();
            let mountpoint = volume.mountpoint.clone();
            let size = blocking(move || Ok(size_of(&mountpoint))).await?;
            volumes.push((volume, size, users));
        }
        Ok(DiskUsage { layers_bytes: self.inner.images.disk_usage().layers_size, containers, volumes })
    }

    fn image_users(&self, id: &ImageId) -> Vec<ImageUser> {
        let id = id.to_string();
        let containers = self.inner.containers.all();
        let users = containers.iter().filter_map(|container| {
            container.with(|record| {
                (record.definition.image_id == id).then(|| ImageUser {
                    container_id: container.id.to_string(),
                    running: record.state.shown.status.is_running(),
                })
            })
        });
        users.collect()
    }

    fn removal_events(&self, removed: &[Removed]) {
        for item in removed {
            match item {
                Removed::Untagged(name) => self.image_event("untag", name, name),
                Removed::Deleted(id) => self.image_event("delete", id, id),
            }
        }
    }

    pub(crate) fn image_event(&self, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.inner.events.publish(EventType::Image, action, id, attributes);
    }
}

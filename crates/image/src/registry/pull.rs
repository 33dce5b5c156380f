use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryFutureExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::blob::{Blob, BlobReader, TELL_EVERY, download};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::manifest::{self, Content, Descriptor, Image, Manifest};
use super::progress::{LayerReport, LayerStatus, Progress, Report};
use super::session::Session;
use super::{Credentials, Pulled, Registries, no_endpoint};
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::ops::Incoming;
use crate::reference::Reference;
use crate::store::ImageStore;
use crate::types::Platform;

/// Indexes in indexes.
const MAX_INDEX_DEPTH: usize = 4;

/// One pull: what is wanted, and where it goes.
struct Pull<'a> {
    registries: &'a Registries,
    store: &'a ImageStore,
    reference: &'a Reference,
    platform: Platform,
    report: Report,
}

impl Registries {
    /// Pulls an image into a store and gives it its names: `reference`, which has a tag or a digest, and the
    /// repository with the manifest's digest. Of an index, the image for `platform`, or for the host.
    ///
    /// Dropping the future ends the pull, and leaves nothing.
    ///
    /// # Errors
    /// With Docker's texts: `NotFound` for an unknown manifest or repository, or access denied; `Unauthorized`;
    /// `Registry` if the registry cannot be reached or sends something else than its digest says; `Invalid` if
    /// it is no image. Leaves nothing behind.
    pub async fn pull(
        &self,
        store: &ImageStore,
        reference: &Reference,
        platform: Option<&Platform>,
        credentials: &Credentials,
        report: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Pulled> {
        let platform = platform.cloned().unwrap_or_default();
        let pull = Pull { registries: self, store, reference, platform, report: Arc::new(report) };
        let mut last = None;
        for endpoint in self.endpoints(reference.domain(), true).await? {
            tracing::debug!(%reference, endpoint = endpoint.base, "trying to pull");
            match pull.from(&endpoint, credentials).await {
                Err(failure) if endpoint.mirror || failure.is_unreachable() => {
                    tracing::info!(endpoint = endpoint.base, ?failure, "no pull from there");
                    last = Some(failure);
                }
                other => return other.map_err(|failure| failure.of_pull(reference)),
            }
        }
        Err(last.map_or_else(|| no_endpoint(reference.domain()), |failure| failure.of_pull(reference)))
    }
}

impl Pull<'_> {
    async fn from(&self, endpoint: &Endpoint, credentials: &Credentials) -> Result<Pulled, Failure> {
        let session = self.registries.session(endpoint, self.reference, credentials).await?;
        // From here on somebody answers: no other endpoint of the same registry is tried.
        self.through(&session).await.map_err(|failure| match failure {
            Failure::Unreachable(text) => Failure::Passing(text),
            other => other,
        })
    }

    async fn through(&self, session: &Session) -> Result<Pulled, Failure> {
        let target = manifest::target(self.reference);
        if let Some(digest) = session.digest_of(&target).await
            && self.store.is_current(self.reference, digest, &self.platform)
        {
            self.announce();
            return self.name(self.store_image(digest)?, digest).await;
        }
        let top = session.manifest(&target).await?;
        let digest = top.digest;
        self.announce();
        let lock = self.registries.pull_lock(digest);
        let _turn = lock.lock().await;
        let image = self.choose(session, top).await?;
        image.check()?;
        let id = ImageId(image.config.digest);
        if self.store.get(&id).is_ok() {
            return self.name(id, digest).await;
        }
        let raw_config = session.document(&image.config).await?;
        let store = self.store.clone();
        let incoming = blocking(move || store.receive(raw_config)).await?;
        if incoming.layers() != image.layers.len() {
            return Err(Failure::Final(Error::invalid(
                "layers from manifest don't match image configuration",
            )));
        }
        let incoming = self.layers(session, &image, incoming).await?;
        let reference = self.reference.clone();
        let (image, updated) = blocking(move || incoming.finish(&reference, digest)).await?;
        self.message("", format!("Digest: {digest}"));
        Ok(Pulled { image, digest, updated })
    }

    fn announce(&self) {
        let id = manifest::target(self.reference);
        self.message(&id, format!("Pulling from {}", self.reference.path()));
    }

    fn message(&self, id: &str, text: String) {
        (self.report)(Progress::Message { id: id.to_owned(), text });
    }

    fn store_image(&self, digest: Digest) -> Result<ImageId> {
        Ok(self.store.resolve(&self.reference.with_digest(digest).to_string())?.id)
    }

    /// The image is here: it only gets its names.
    async fn name(&self, image: ImageId, digest: Digest) -> Result<Pulled, Failure> {
        let (store, reference) = (self.store.clone(), self.reference.clone());
        let updated = blocking(move || store.name_pulled(image, &reference, digest)).await?;
        self.message("", format!("Digest: {digest}"));
        Ok(Pulled { image, digest, updated })
    }

    /// Follows indexes to the image for the platform.
    async fn choose(&self, session: &Session, mut manifest: Manifest) -> Result<Image, Failure> {
        for _ in 0..MAX_INDEX_DEPTH {
            let entries = match manifest.content {
                Content::Image(image) => return Ok(image),
                Content::Index(entries) => entries,
            };
            let Some(entry) = manifest::choose(&entries, &self.platform) else {
                let Platform { os, architecture, variant } = &self.platform;
                let slash = if variant.is_empty() { "" } else { "/" };
                return Err(Failure::Final(Error::NotFound(format!(
                    "no matching manifest for {os}/{architecture}{slash}{variant} in the manifest list entries"
                ))));
            };
            manifest = session.manifest(&entry.digest.to_string()).await?;
        }
        Err(Failure::Final(Error::invalid("indexes nested too deeply")))
    }

    fn layer_report(&self, digest: Digest) -> LayerReport {
        LayerReport { id: digest.short(), report: self.report.clone() }
    }

    /// Downloads the layers that are missing, several at a time, and takes them in, in order.
    async fn layers(
        &self,
        session: &Session,
        image: &Image,
        incoming: Incoming,
    ) -> Result<Incoming, Failure> {
        let present = incoming.present();
        for layer in &image.layers[..present] {
            self.layer_report(layer.digest).tell(LayerStatus::AlreadyExists);
        }
        let missing = image.distinct_layers(present);
        for layer in &missing {
            self.layer_report(layer.digest).tell(LayerStatus::Announced);
        }
        let mut arrivals = HashMap::new();
        let mut downloads = FuturesUnordered::new();
        for layer in missing {
            let (arrived, arrival) = oneshot::channel();
            arrivals.insert(layer.digest, arrival);
            downloads.push(self.fetch(session, layer).map_ok(move |blob| {
                // Nobody waits any more if an earlier layer was bad; that error is the one to tell.
                let _ = arrived.send(blob);
            }));
        }
        let layers: Vec<_> = image.layers.iter().map(|layer| layer.digest).collect();
        let mut taking = Taking::start(incoming, layers, arrivals, self.report.clone());
        loop {
            tokio::select! {
                downloaded = downloads.next(), if !downloads.is_empty() => {
                    if let Some(Err(failure)) = downloaded {
                        drop(downloads);
                        taking.cancel().await;
                        return Err(failure);
                    }
                }
                taken = &mut taking.task => {
                    taking.done = true;
                    return interrupted(taken)?.map_err(Failure::Final);
                }
            }
        }
    }

    async fn fetch(&self, session: &Session, layer: &Descriptor) -> Result<Blob, Failure> {
        let report = self.layer_report(layer.digest);
        let shared = &self.registries.shared;
        let _place = place(&shared.downloads, &report).await?;
        download(session, self.store, layer, shared.config.max_attempts, &report).await
    }
}

/// One of the places for downloads.
async fn place(places: &Arc<Semaphore>, report: &LayerReport) -> Result<OwnedSemaphorePermit, Failure> {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return Ok(place);
    }
    report.tell(LayerStatus::Waiting);
    let place = places.clone().acquire_owned().await;
    place.map_err(|_| Failure::content("no more downloads"))
}

/// Takes layers in on a thread that may block. Dropped before its end, it stops soon and leaves nothing.
struct Taking {
    task: JoinHandle<Result<Incoming>>,
    cancelled: Arc<AtomicBool>,
    done: bool,
}

impl Taking {
    fn start(
        incoming: Incoming,
        layers: Vec<Digest>,
        arrivals: HashMap<Digest, oneshot::Receiver<Blob>>,
        report: Report,
    ) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = cancelled.clone();
        let task = tokio::task::spawn_blocking(move || take_in(incoming, &layers, arrivals, &report, &flag));
        Self { task, cancelled, done: false }
    }

    /// Stops it and waits until it has cleaned up.
    async fn cancel(&mut self) {
        self.cancelled.store(true, Ordering::Release);
        let _ = (&mut self.task).await;
        self.done = true;
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if !self.done {
            self.cancelled.store(true, Ordering::Release);
        }
    }
}

fn take_in(
    mut incoming: Incoming,
    layers: &[Digest],
    mut arrivals: HashMap<Digest, oneshot::Receiver<Blob>>,
    report: &Report,
    cancelled: &Arc<AtomicBool>,
) -> Result<Incoming> {
    let mut blobs: HashMap<Digest, Blob> = HashMap::new();
    let mut told = incoming.present();
    while incoming.present() < layers.len() {
        let digest = layers[incoming.present()];
        let blob = match (blobs.get(&digest), arrivals.remove(&digest)) {
            (Some(blob), _) => blob.clone(),
            (None, Some(arrival)) => arrival.blocking_recv().map_err(|_| stopped())?,
            (None, None) => return Err(Error::corrupt(format!("layer {digest} was not downloaded"))),
        };
        let layer = LayerReport { id: digest.short(), report: report.clone() };
        let reader = Watched {
            reader: blob.reader(),
            read: 0,
            total: blob.size,
            told: Instant::now(),
            report: &layer,
            cancelled,
        };
        incoming.layer(reader).map_err(|error| context("failed to register layer", error))?;
        blobs.insert(digest, blob);
        for digest in &layers[told..incoming.present()] {
            LayerReport { id: digest.short(), report: report.clone() }.tell(LayerStatus::Complete);
        }
        told = incoming.present();
        // Their disk space is free as soon as no later layer is the same.
        blobs.retain(|digest, _| layers[told..].contains(digest));
    }
    Ok(incoming)
}

fn context(what: &str, error: Error) -> Error {
    match error {
        Error::Invalid(text) => Error::Registry(format!("{what}: {text}")),
        other => other,
    }
}

fn stopped() -> Error {
    Error::Registry("the pull was stopped".to_owned())
}

/// Tells how far the unpacking of a layer is, and can be stopped.
struct Watched<'a> {
    reader: BlobReader,
    read: u64,
    total: u64,
    told: Instant,
    report: &'a LayerReport,
    cancelled: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Acquire) {
            return Err(io::Error::other("the pull was stopped"));
        }
        let n = self.reader.read(buffer)?;
        self.read += n as u64;
        if n > 0 && (self.told.elapsed() >= TELL_EVERY || self.read == self.total) {
            self.told = Instant::now();
            self.report.tell(LayerStatus::Extracting { current: self.read, total: self.total });
        }
        Ok(n)
    }
}

/// Runs what touches the disk on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, Failure> {
    Ok(interrupted(tokio::task::spawn_blocking(work).await)??)
}

fn interrupted<T>(ended: Result<T, tokio::task::JoinError>) -> Result<T, Failure> {
    ended.map_err(|error| Failure::content(format!("the pull was interrupted: {error}")))
}

//! Registries: pulls images by the OCI distribution protocol (Docker Registry HTTP API V2), looks manifests
//! up, and checks credentials. The only part of this crate that is asynchronous.
//!
//! - `transport`: proxies; one HTTP client a host
//! - `tls`: certificates, the system's and a registry's own
//! - `endpoint`: where a registry's name leads: mirrors, https, and plain http where that is allowed
//! - `auth`: what a registry asks for (`WWW-Authenticate`), and the tokens that answer it
//! - `session`: requests to one repository
//! - `manifest`: manifests, indexes, and which of an index's images is for a platform
//! - `blob`: downloads, verified and resumed
//! - `pull`: all of it in order
//!
//! Layers go to files without a name in the store's staging directory while they arrive, and are unpacked in
//! order as soon as they are whole: nothing is held in memory, and a pull that ends early leaves nothing.

mod auth;
mod blob;
mod endpoint;
mod failure;
mod manifest;
mod progress;
mod pull;
mod session;
mod tls;
mod transport;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::types::Platform;

use endpoint::Endpoint;
use failure::Failure;
pub use progress::{LayerStatus, Progress};
use session::Session;
use transport::Transport;

/// How registries are reached; dockerd's options of the same meaning in brackets.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// `--registry-mirror`: tried before Docker Hub, without credentials.
    pub mirrors: Vec<String>,
    /// `--insecure-registry`: `host[:port]` or a CIDR, whose certificates are not verified and which may
    /// speak plain http. Loopback is always one.
    pub insecure: Vec<String>,
    /// `--http-proxy`; `$HTTP_PROXY` if empty.
    pub http_proxy: String,
    /// `--https-proxy`; `$HTTPS_PROXY` if empty.
    pub https_proxy: String,
    /// `--no-proxy`; `$NO_PROXY` if empty.
    pub no_proxy: String,
    /// Directories with a directory `host[:port]` for each registry that has certificates of its own: `*.crt`
    /// are authorities, `*.cert` with `*.key` identify the client.
    pub certificates: Vec<PathBuf>,
    /// `--max-concurrent-downloads`, of all pulls together.
    pub max_downloads: usize,
    /// `--max-download-attempts`, of each layer.
    pub max_attempts: u32,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            http_proxy: String::new(),
            https_proxy: String::new(),
            no_proxy: String::new(),
            certificates: vec!["/etc/docker/certs.d".into(), "/etc/portolan/certs.d".into()],
            max_downloads: 3,
            max_attempts: 5,
        }
    }
}

/// Who asks a registry; all empty for nobody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// A refresh token in place of a password.
    pub identity_token: String,
    /// A bearer token, sent as it is.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a pull brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: ImageId,
    /// The manifest's digest; the index's if it came through one.
    pub digest: Digest,
    /// The name means another image now than it did before.
    pub updated: bool,
}

/// What a registry has under a name (`GET /distribution/{name}/json`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The platforms that it has images for.
    pub platforms: Vec<Platform>,
}

/// The registries that an engine pulls from. Cheap to clone; nothing is read or connected before the first use.
#[derive(Clone, Debug)]
pub struct Registries {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: RegistryConfig,
    transport: Transport,
    downloads: Arc<Semaphore>,
    /// Pulls under way, so that two of the same image do not load it twice.
    pulls: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Registries {
    /// Registries that are reached as `config` says.
    pub fn new(config: RegistryConfig) -> Self {
        let downloads = Arc::new(Semaphore::new(config.max_downloads.clamp(1, Semaphore::MAX_PERMITS)));
        let transport = Transport::new(config.clone());
        Self { shared: Arc::new(Shared { config, transport, downloads, pulls: Mutex::default() }) }
    }

    /// Checks credentials (`docker login`). A token that is to be used instead of the password from now on, if
    /// the registry gives one.
    ///
    /// # Errors
    /// `Unauthorized` with Docker's text; `Registry` if it cannot be reached.
    pub async fn login(&self, server: &str, credentials: &Credentials) -> Result<Option<String>> {
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        let host = server.split('/').next().unwrap_or_default();
        let mut last = None;
        for endpoint in self.endpoints(host, false).await? {
            match Session::login(&self.shared.transport, &endpoint, credentials.clone()).await {
                Err(failure) if failure.is_unreachable() => last = Some(failure),
                other => return other.map_err(Failure::into_error),
            }
        }
        Err(last.map_or_else(|| no_endpoint(host), Failure::into_error))
    }

    /// What the registry has under a name.
    ///
    /// # Errors
    /// As [`Registries::pull`].
    pub async fn look_up(&self, reference: &Reference, credentials: &Credentials) -> Result<Distribution> {
        let mut last = None;
        for endpoint in self.endpoints(reference.domain(), true).await? {
            let mirror = endpoint.mirror;
            match self.look_up_at(endpoint, reference, credentials).await {
                Err(failure) if mirror || failure.is_unreachable() => last = Some(failure),
                other => return other.map_err(|failure| failure.of_pull(reference)),
            }
        }
        Err(last.map_or_else(|| no_endpoint(reference.domain()), |failure| failure.of_pull(reference)))
    }

    async fn look_up_at(
        &self,
        endpoint: Endpoint,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Distribution, Failure> {
        let session = self.session(&endpoint, reference, credentials).await?;
        let manifest = session.manifest(&manifest::target(reference)).await?;
        let platforms = match &manifest.content {
            manifest::Content::Index(entries) => {
                entries.iter().filter_map(manifest::Entry::platform).collect()
            }
            manifest::Content::Image(image) => {
                let config = session.document(&image.config).await?;
                manifest::platform_of_config(&config).into_iter().collect()
            }
        };
        Ok(Distribution {
            media_type: manifest.media_type,
            digest: manifest.digest,
            size: manifest.size,
            platforms,
        })
    }

    /// The tags of a repository (`docker pull --all-tags`).
    ///
    /// # Errors
    /// As [`Registries::pull`].
    pub async fn tags(&self, repository: &Reference, credentials: &Credentials) -> Result<Vec<String>> {
        let mut last = None;
        for endpoint in self.endpoints(repository.domain(), true).await? {
            let tags = async { self.session(&endpoint, repository, credentials).await?.tags().await }.await;
            match tags {
                Err(failure) if endpoint.mirror || failure.is_unreachable() => last = Some(failure),
                other => return other.map_err(|failure| failure.of_pull(repository)),
            }
        }
        Err(last.map_or_else(|| no_endpoint(repository.domain()), |failure| failure.of_pull(repository)))
    }

    async fn session(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Session, Failure> {
        // They are for the registry, and nobody else's business.
        let credentials = if endpoint.mirror { Credentials::default() } else { credentials.clone() };
        Session::open(&self.shared.transport, endpoint, reference.path(), "pull", credentials).await
    }

    async fn endpoints(&self, domain: &str, mirrors: bool) -> Result<Vec<Endpoint>> {
        endpoint::endpoints(&self.shared.config, domain, mirrors).await
    }

    /// Held by the pull of a manifest; another one of the same waits and then finds the image there.
    fn pull_lock(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulls = self.shared.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = pulls.get(&digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        pulls.insert(digest, Arc::downgrade(&lock));
        lock
    }
}

fn no_endpoint(domain: &str) -> Error {
    Error::Registry(format!("no endpoint for the registry {domain}"))
}

//! The resolver process.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use hickory_proto::op::Message;
use portolan_netcore::dns::Zones;
use portolan_netcore::model::SandboxId;

use crate::cache::{Cache, Key};
use crate::control;
use crate::listen::Listener;

/// Why the resolver could not start.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// Its socket.
    #[error("listening at {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Its threads.
    #[error("starting the resolver's threads")]
    Threads(#[source] io::Error),
}

/// All that the resolver knows.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) runtime: tokio::runtime::Handle,
    zones: RwLock<Arc<Zones>>,
    cache: Mutex<Cache>,
    pub(crate) sandboxes: Mutex<BTreeMap<SandboxId, Listener>>,
}

impl Shared {
    pub(crate) fn new(runtime: tokio::runtime::Handle) -> Self {
        Self { runtime, zones: RwLock::default(), cache: Mutex::default(), sandboxes: Mutex::default() }
    }

    pub(crate) fn zones(&self) -> Arc<Zones> {
        self.zones.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the zones; readers see the old or the new ones, never a mixture.
    pub(crate) fn change_zones(&self, change: impl FnOnce(&mut Zones)) {
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut zones));
    }

    pub(crate) fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Listener>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cached(&self, key: &Key, now: Instant) -> Option<(Arc<Message>, u32)> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key, now)
    }

    pub(crate) fn keep(&self, key: Key, answer: Arc<Message>, now: Instant) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(key, answer, now);
    }

    /// An id no forger can guess.
    pub(crate) fn random_id(&self) -> u16 {
        Message::query().metadata.id
    }
}

/// Serves until told to quit, or until there is neither a daemon nor a sandbox left.
pub fn run(socket: &Path) -> Result<(), ResolverError> {
    // A process group of its own: what is typed at the daemon's terminal is not meant for it.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("resolver")
        .enable_all()
        .build()
        .map_err(ResolverError::Threads)?;
    let listener =
        bind(socket).map_err(|source| ResolverError::Socket { path: socket.to_owned(), source })?;
    let ours = identity(socket);
    let shared = Arc::new(Shared::new(runtime.handle().clone()));
    control::serve(&shared, &listener);
    // Only if it is still ours: a newer resolver may have taken the path over.
    if ours.is_some() && identity(socket) == ours {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// What tells a file from one that was made later under the same name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

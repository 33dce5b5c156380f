//! The resolver process.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Instant;

use hickory_proto::op::Message;
use portolan_filewatch::FileWatch;
use portolan_netcore::dns::{ZoneChange, Zones};
use portolan_netcore::model::SandboxId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cache::{Cache, Key};
use crate::control;
use crate::flight::Flights;
use crate::forward::Late;
use crate::listen::Listener;
use crate::protocol::Settings;
use crate::resolv;

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
    zones: RwLock<Zones>,
    host_servers: RwLock<Vec<SocketAddr>>,
    cache: Mutex<Cache>,
    pub(crate) flights: Flights,
    pub(crate) late: Late,
    pub(crate) sandboxes: Mutex<BTreeMap<SandboxId, Listener>>,
    set_up: Mutex<SetUp>,
    /// Descriptors that are to outlive the daemon, by name. They are not used here.
    kept: Mutex<BTreeMap<String, OwnedFd>>,
    this: Weak<Shared>,
}

/// What was made of the settings.
#[derive(Debug, Default)]
struct SetUp {
    /// The host's resolv.conf and who follows it, if anybody could be had for that.
    followed: Option<(PathBuf, Option<FileWatch>)>,
    /// The host's own listener.
    host: Option<(SocketAddr, Listener)>,
}

impl Shared {
    pub(crate) fn new(runtime: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            runtime,
            zones: RwLock::default(),
            host_servers: RwLock::default(),
            cache: Mutex::default(),
            flights: Flights::default(),
            late: Late::default(),
            sandboxes: Mutex::default(),
            set_up: Mutex::default(),
            kept: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Reads the zones; changes wait meanwhile.
    pub(crate) fn with_zones<T>(&self, read: impl FnOnce(&Zones) -> T) -> T {
        read(&self.zones.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the zones; readers see all of the changes or none.
    pub(crate) fn change_zones(&self, changes: Vec<ZoneChange>) {
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|change| zones.apply(change));
    }

    /// Puts zones made of these changes in the place of those that are there.
    pub(crate) fn replace_zones(&self, changes: Vec<ZoneChange>) {
        let mut new = Zones::default();
        changes.into_iter().for_each(|change| new.apply(change));
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *zones, new);
        drop(zones);
        drop(old);
    }

    /// The host's own resolvers at this moment.
    pub(crate) fn host_servers(&self) -> Vec<SocketAddr> {
        self.host_servers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_host_servers(&self, text: &str) {
        let servers = resolv::servers(text);
        tracing::info!(?servers, "the host's resolvers");
        *self.host_servers.write().unwrap_or_else(PoisonError::into_inner) = servers;
    }

    /// Makes it so; why not, if the host cannot be served.
    pub(crate) fn configure(&self, settings: &Settings) -> Result<(), String> {
        let mut set_up = self.set_up.lock().unwrap_or_else(PoisonError::into_inner);
        if set_up.followed.as_ref().is_none_or(|(path, _)| *path != settings.resolv_conf) {
            set_up.followed = Some((settings.resolv_conf.clone(), self.follow(&settings.resolv_conf)));
        }
        if set_up.host.as_ref().map(|(address, _)| *address) == settings.host_names {
            return Ok(());
        }
        set_up.host = None;
        let (Some(address), Some(this)) = (settings.host_names, self.this.upgrade()) else { return Ok(()) };
        let listener = Listener::on_host(&this, address)
            .map_err(|error| format!("answering the host at {address}: {error}"))?;
        set_up.host = Some((address, listener));
        Ok(())
    }

    fn follow(&self, path: &Path) -> Option<FileWatch> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        self.set_host_servers(&text);
        let this = self.this.clone();
        let changed = move |text: &str| {
            if let Some(shared) = this.upgrade() {
                shared.set_host_servers(text);
            }
        };
        let watch = FileWatch::start(path.to_owned(), text, changed);
        watch
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "changes of the host's resolvers go unnoticed");
            })
            .ok()
    }

    pub(crate) fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Listener>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kept(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Serves until told to quit, or until there is neither a daemon nor anything to do for the next.
pub fn run(socket: &Path) -> Result<(), ResolverError> {
    // A process group of its own: what is typed at the daemon's terminal is not meant for it.
    let _ = rustix::process::setsid();
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("resolver")
        .enable_all()
        .build()
        .map_err(ResolverError::Threads)?;
    let listener =
        bind(socket).map_err(|source| ResolverError::Socket { path: socket.to_owned(), source })?;
    let ours = identity(socket);
    let shared = Shared::new(runtime.handle().clone());
    control::serve(&shared, &listener, || ours.is_none() || leads_to(socket, ours));
    // Only if it is still ours: a newer resolver may have taken the path over.
    if ours.is_some() && identity(socket) == ours {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

/// Three descriptors a sandbox, one for each question under way and for each address of a published port: as
/// many as the kernel lets us.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Unless it certainly does not: somebody removed it, or has put another there.
fn leads_to(path: &Path, ours: Option<(u64, u64)>) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(meta) => Some((meta.dev(), meta.ino())) == ours,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What tells a file from one that was made later under the same name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

//! The handle, what it holds, and its birth and end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use portolan_image::ImageStore;
use portolan_image::registry::Registries;
use portolan_net::Networks;
use portolan_runtime::Launcher;
use rand::RngCore;

use crate::apparmor::AppArmor;
use crate::config::{EngineConfig, Parts};
use crate::container::registry::Registry;
use crate::error::{EngineError, Result};
use crate::events::EventBus;
use crate::exec::Execs;
use crate::model::{EngineInfo, EventType, EventsOptions, Status};
use crate::store::{Database, NetworkStore, Write};
use crate::streams::Events;
use crate::volume::Volumes;

/// The engine. Clones are handles to the same engine. `name` is a container's name (a leading slash is
/// ignored), id, or a unique prefix of its id.
///
/// A command that has begun changes things runs to its end even if its caller goes away.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What of the configuration can change while the daemon runs.
#[derive(Debug)]
pub(crate) struct Live {
    /// Containers go on when the daemon ends.
    pub(crate) live_restore: bool,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) registries: Registries,
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
    pub(crate) default_runtime: Option<String>,
}

impl Live {
    fn of(config: &EngineConfig) -> Self {
        Self {
            live_restore: config.live_restore,
            shutdown_timeout: config.shutdown_timeout,
            registries: Registries::new(config.registry.clone()),
            runtimes: config.runtimes.clone(),
            default_runtime: config.default_runtime.clone(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    /// Of this installation; made at the first start.
    pub(crate) id: String,
    pub(crate) database: Database,
    writer: Mutex<Option<JoinHandle<()>>>,
    pub(crate) networks: Networks,
    pub(crate) images: ImageStore,
    pub(crate) launcher: Launcher,
    pub(crate) containers: Registry,
    pub(crate) execs: Execs,
    pub(crate) volumes: Volumes,
    pub(crate) events: EventBus,
    pub(crate) apparmor: AppArmor,
    stopping: AtomicBool,
    live: RwLock<Arc<Live>>,
    /// False once the database is closed: ends of containers are then the next daemon's to note, from their
    /// shims. Whoever notes one holds it for reading.
    pub(crate) notes_exits: tokio::sync::RwLock<bool>,
    /// Held while somebody joins another's network namespace, or finds that nobody does.
    pub(crate) sharing: std::sync::Mutex<()>,
}

impl Engine {
    /// Opens the engine: loads what is stored, takes the networks over, finds the containers that still run
    /// and starts those whose restart policy says so.
    ///
    /// # Errors
    /// The database or the host's network cannot be taken over.
    pub async fn open(config: EngineConfig, parts: Parts) -> Result<Self> {
        // What is wrong with these would else be found by every container.
        crate::container::check_log(&config.default_log).map_err(|error| error.context("log-opts"))?;
        let database_path = config.data_root.join("portolan.db");
        let (containers, volumes) = (config.data_root.join("containers"), config.data_root.join("volumes"));
        for directory in [&config.data_root, &containers, &volumes] {
            make_private(directory)?;
        }
        // Beside everything else: it runs a program.
        let apparmor = tokio::task::spawn_blocking(AppArmor::of_host);
        let (database, mut loaded, writer) = Database::open(&database_path)?;
        let store = NetworkStore::new(database.clone(), std::mem::take(&mut loaded.network));
        let networks =
            Networks::open(config.net.clone(), parts.host, Arc::new(store), parts.names, parts.leases)
                .await?;
        let id = installation_id(&database, &loaded.settings).await?;
        let live = RwLock::new(Arc::new(Live::of(&config)));
        let apparmor = apparmor.await.unwrap_or_else(|error| AppArmor::Failed(error.to_string()));
        if let Some(warning) = apparmor.warning() {
            tracing::warn!("{warning}");
        }
        let engine = Self {
            inner: Arc::new(Inner {
                volumes: Volumes::load(volumes, &loaded.volumes)?,
                config,
                id,
                database,
                writer: Mutex::new(Some(writer)),
                networks,
                images: parts.images,
                launcher: parts.launcher,
                containers: Registry::default(),
                execs: Execs::default(),
                events: EventBus::default(),
                apparmor,
                stopping: AtomicBool::new(false),
                live,
                notes_exits: tokio::sync::RwLock::new(true),
                sharing: std::sync::Mutex::new(()),
            }),
        };
        engine.forward_network_events();
        engine.forward_host_events();
        engine.restore(loaded.containers).await?;
        engine.follow_host_resolvers();
        engine.follow_leases();
        Ok(engine)
    }

    /// The directory of a container's files.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.inner.config.data_root.join("containers").join(id)
    }

    /// What holds now of what can change.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.inner.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what can change while the daemon runs: live restore, the time to stop in, registries, runtimes. Tells it,
    /// with `attributes`.
    pub fn reload(&self, config: &EngineConfig, attributes: BTreeMap<String, String>) {
        *self.inner.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Live::of(config));
        self.inner.events.publish(EventType::Daemon, "reload", self.inner.id.clone(), attributes);
    }

    /// The daemon is ending: restart policies do nothing any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }

    /// The daemon ends: containers go on (live restore) or are stopped; the database is closed.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        if !self.live().live_restore {
            self.stop_all().await;
        }
        *self.inner.notes_exits.write().await = false;
        self.inner.database.close();
        let writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // Only a panic of the writer could be reported here, and it has been.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    /// `GET /events`.
    ///
    /// # Errors
    /// An unknown filter.
    pub async fn events(&self, options: EventsOptions) -> Result<Events> {
        self.inner.events.subscribe(options)
    }

    /// The engine's part of `GET /info`.
    ///
    /// # Errors
    /// None at present.
    pub async fn info(&self) -> Result<EngineInfo> {
        let mut info = EngineInfo {
            id: self.inner.id.clone(),
            images: self.inner.images.disk_usage().images,
            data_root: self.inner.config.data_root.clone(),
            live_restore: self.live().live_restore,
            cgroup_version: cgroup_version(),
            event_listeners: self.inner.events.listeners(),
            logging_driver: self.default_log_driver().to_owned(),
            warnings: self.inner.apparmor.warning().into_iter().collect(),
            ..EngineInfo::default()
        };
        for container in self.inner.containers.all() {
            info.containers += 1;
            match container.status() {
                Status::Running | Status::Restarting => info.running += 1,
                Status::Paused => info.paused += 1,
                _ => info.stopped += 1,
            }
        }
        Ok(info)
    }

    pub(crate) fn default_log_driver(&self) -> &str {
        match self.inner.config.default_log.driver.as_str() {
            "" => "json-file",
            driver => driver,
        }
    }
}

fn make_private(directory: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o710)
        .create(directory)
        .map_err(|error| EngineError::internal(format!("make {}: {error}", directory.display())))
}

async fn installation_id(database: &Database, settings: &[(String, String)]) -> Result<String> {
    if let Some((_, id)) = settings.iter().find(|(key, _)| key == "id") {
        return Ok(id.clone());
    }
    let hex = random_hex::<16>();
    let id = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    database.commit(vec![Write::Setting { key: "id", value: id.clone() }]).await?;
    Ok(id)
}

/// An id of so many random bytes.
pub(crate) fn random_hex<const N: usize>() -> String {
    random_bytes::<N>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes, for ids.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// 2 if the unified hierarchy is mounted at its usual place and nothing else is, else 1.
pub(crate) fn cgroup_version() -> u32 {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::internal(format!("the operation was interrupted: {error}"))),
    }
}

/// Runs to the end even if the caller goes away.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::internal(format!("the command was interrupted: {error}"))),
    }
}

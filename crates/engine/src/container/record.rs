//! A container in memory, which is what commands look at; and the part of it that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use portolan_net::SandboxInfo;
use portolan_netcore::model::{ContainerId, NetworkId, SandboxId};
use portolan_runtime::Shim;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::state::RunState;
use crate::error::{EngineError, Result};
use crate::model::{ContainerConfig, EndpointSettings, HostConfig, MountPoint, Status};
use crate::store::{Database, Write};
use crate::streams::Lifecycle;

/// What a container is, whether it runs or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: ContainerId,
    /// Without a slash.
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// With `sha256:`.
    pub(crate) image_id: String,
    /// Program and arguments.
    pub(crate) args: Vec<String>,
    /// Merged with the image's.
    pub(crate) config: ContainerConfig,
    pub(crate) host_config: HostConfig,
    /// The networks it joins when it starts, by name.
    pub(crate) endpoints: BTreeMap<String, Joined>,
    pub(crate) mounts: Vec<MountPoint>,
}

/// A network that a container joins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// None until the network is known to exist.
    pub(crate) network: Option<NetworkId>,
    pub(crate) settings: EndpointSettings,
    /// Its place among the interfaces: those of create as they were given, then those connected later. Equal
    /// ones, of an older database, are by name.
    #[serde(default)]
    pub(crate) position: u32,
}

/// A client that attached before the container was started.
#[derive(Debug)]
pub(crate) struct PendingAttach {
    pub(crate) options: portolan_runtime::AttachOptions,
    pub(crate) ready: oneshot::Sender<portolan_runtime::AttachStream>,
}

/// Everything about a container that changes.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) definition: Definition,
    pub(crate) state: RunState,
    /// The shim of the present run.
    pub(crate) shim: Option<Shim>,
    /// The sandbox of the present run.
    pub(crate) sandbox: Option<SandboxInfo>,
    /// The sandbox of the last run, of which the kernel may still hold a trace.
    pub(crate) last_sandbox: Option<SandboxId>,
    /// Who attached before the start.
    pub(crate) pending: Vec<PendingAttach>,
    /// What is left of the last run is being given back.
    pub(crate) teardown: Option<JoinHandle<()>>,
    /// Ends the delay before an automatic restart, and so the restart.
    pub(crate) restart: Option<CancellationToken>,
    /// Ends the health checks of the present run.
    pub(crate) health: Option<CancellationToken>,
    /// Somebody removes it.
    pub(crate) removing: bool,
    /// It is being started in another's network namespace.
    pub(crate) joining: bool,
    /// It is stopped only to be started again: `--rm` does not remove it.
    pub(crate) restarted_by_user: bool,
    /// Its execs that have not ended.
    pub(crate) execs: BTreeSet<String>,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    record: Mutex<Record>,
    lifecycle: watch::Sender<Lifecycle>,
    /// One command at a time changes it: a queue with one place, in the order of arrival.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Places for threads that look for users in its files, which may keep them.
    pub(crate) user_looks: Arc<Semaphore>,
}

impl Container {
    pub(crate) fn new(definition: Definition, state: RunState) -> Arc<Self> {
        let lifecycle = Lifecycle { exit_code: state.shown.exit_code, ..Lifecycle::default() };
        Arc::new(Self {
            id: definition.id.clone(),
            record: Mutex::new(Record {
                definition,
                state,
                shim: None,
                sandbox: None,
                last_sandbox: None,
                joining: false,
                restarted_by_user: false,
                pending: Vec::new(),
                teardown: None,
                restart: None,
                health: None,
                removing: false,
                execs: BTreeSet::new(),
            }),
            lifecycle: watch::Sender::new(lifecycle),
            gate: tokio::sync::Mutex::new(()),
            user_looks: Arc::new(Semaphore::new(2)),
        })
    }

    /// Looks at or changes the record. Short: nothing in it waits.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        look(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for its turn to change the container.
    ///
    /// # Errors
    /// `NotFound`: whoever had the turn before has removed it, or somebody is about to.
    pub(crate) async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let turn = self.gate.lock().await;
        if self.with(|record| record.removing) {
            return Err(EngineError::not_found(format!("No such container: {}", self.id)));
        }
        Ok(turn)
    }

    /// The name, without a slash.
    pub(crate) fn name(&self) -> String {
        self.with(|record| record.definition.name.clone())
    }

    pub(crate) fn status(&self) -> Status {
        self.with(|record| record.state.shown.status)
    }

    pub(crate) fn lifecycle(&self) -> watch::Receiver<Lifecycle> {
        self.lifecycle.subscribe()
    }

    /// Tells those who wait.
    pub(crate) fn announce(&self, change: impl FnOnce(&mut Lifecycle)) {
        self.lifecycle.send_modify(change);
    }

    /// Waits until the first process has ended.
    pub(crate) async fn stopped(&self) {
        let mut lifecycle = self.lifecycle();
        // The sender is in `self`.
        let _ = lifecycle.wait_for(|now| !now.running || now.removed).await;
    }

    /// Stores the state with the next commit.
    pub(crate) fn save_state(&self, database: &Database) {
        let write = self.with(|record| record.state_write());
        database.write_lazily(write);
    }

    /// The shim of a container that runs.
    ///
    /// # Errors
    /// `Conflict`: `container <id> is not running`.
    pub(crate) fn running_shim(&self) -> Result<Shim> {
        self.with(|record| match (&record.shim, record.state.shown.status) {
            (Some(shim), Status::Running | Status::Paused) => Ok(shim.clone()),
            _ => Err(not_running(&self.id)),
        })
    }
}

impl Record {
    pub(crate) fn state_write(&self) -> Write {
        let id = self.definition.id.to_string();
        Write::ContainerState { id, state: to_json(&self.state) }
    }

    pub(crate) fn write(&self) -> Write {
        Write::Container {
            id: self.definition.id.to_string(),
            definition: to_json(&self.definition),
            state: to_json(&self.state),
        }
    }
}

/// Docker's text.
pub(crate) fn not_running(id: &ContainerId) -> EngineError {
    EngineError::conflict(format!("container {id} is not running"))
}

/// JSON of our own types, which always have string keys and finite numbers.
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have string keys and finite numbers")
}

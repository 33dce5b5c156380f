//! `container:X`: who runs in whose network namespace.
//!
//! A network namespace lives for as long as somebody runs in it. If X ends while others run in its namespace,
//! the namespace stays as it is, with interfaces, addresses, names and published ports, and X starts into it
//! again: the others notice nothing. When X is removed its interfaces go, and the others keep their loopback.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use portolan_net::SandboxInfo;
use portolan_netcore::model::ContainerId;

use super::record::{Container, Record};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::model::NetworkMode;

/// `container:X` where X is `container:Y` and so on; nobody nests this deep, but somebody may make a circle.
const DEEPEST: usize = 16;

impl Engine {
    /// The container in whose namespace this one is, if it is another's.
    pub(crate) fn provider_of(&self, container: &Container) -> Option<Arc<Container>> {
        self.provider(&container.with(joins)?)
    }

    /// The container that a namespace belongs to, whatever containers it is reached through: `container:of`.
    pub(crate) fn provider(&self, of: &str) -> Option<Arc<Container>> {
        let mut of = of.to_owned();
        for _ in 0..DEEPEST {
            let found = self.inner.containers.find(&of).ok()?;
            match found.with(joins) {
                Some(further) => of = further,
                None => return Some(found),
            }
        }
        None
    }

    /// Joins the namespace of another container, which from now on stays for this one.
    pub(crate) async fn join_netns(&self, container: &Container, of: &str) -> Result<Option<Arc<OwnedFd>>> {
        let other = self.inner.containers.find(of).map_err(|error| {
            EngineError::internal(format!("joining network namespace of container: {}", error.message()))
        })?;
        if other.id == container.id {
            return Err(EngineError::internal("cannot join own network namespace"));
        }
        let (shim, netns) = {
            let _turn = self.inner.sharing.lock().unwrap_or_else(PoisonError::into_inner);
            let (shim, mode, netns) = other.with(|record| {
                let netns = record.sandbox.as_ref().and_then(|sandbox| sandbox.netns.clone());
                let shim = record.shim.clone().filter(|_| record.state.shown.pid != 0);
                (shim, record.definition.host_config.network_mode.clone(), netns)
            });
            let Some(shim) = shim else { return Err(not_running(&other)) };
            if mode == NetworkMode::Host {
                return Ok(None);
            }
            // From here on the namespace is not taken away: whoever would, asks.
            container.with(|record| record.joining = true);
            (shim, netns)
        };
        // One without a namespace of its own is in another's, and so is its process.
        let opened = match netns {
            Some(path) => match std::fs::File::open(&path) {
                Ok(file) => Ok(OwnedFd::from(file)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_running(&other)),
                Err(error) => {
                    let path = path.display();
                    Err(EngineError::internal(format!("open the network namespace {path}: {error}")))
                }
            },
            None => match shim.open_proc("ns/net").await {
                Err(portolan_runtime::Error::NotRunning { .. }) => Err(not_running(&other)),
                other => other.map_err(EngineError::from),
            },
        };
        if opened.is_err() {
            container.with(|record| record.joining = false);
        }
        Ok(Some(Arc::new(opened?)))
    }

    /// Takes the namespace from a container that has ended, unless somebody else needs it.
    pub(crate) fn take_unshared(&self, container: &Container) -> Option<SandboxInfo> {
        let _turn = self.inner.sharing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_shared(&container.id) {
            return None;
        }
        container.with(|record| {
            let sandbox = record.sandbox.take();
            record.last_sandbox = sandbox.as_ref().map(|info| info.id.clone());
            sandbox
        })
    }

    /// Whether another container runs in the namespace of this one, or is about to.
    pub(crate) fn is_shared(&self, id: &ContainerId) -> bool {
        self.inner.containers.all().iter().any(|other| {
            let joins = other.with(|record| {
                matches!(record.definition.host_config.network_mode, NetworkMode::Container(_))
                    && (record.joining || (record.shim.is_some() && record.state.shown.pid != 0))
            });
            joins && self.provider_of(other).is_some_and(|provider| provider.id == *id)
        })
    }

    /// Takes down the namespace of a container that does not run, unless somebody else runs in it.
    pub(crate) async fn release_unshared(&self, provider: &Arc<Container>) {
        let rests = || provider.with(|record| record.shim.is_none() && record.sandbox.is_some());
        if !rests() {
            return;
        }
        let _turn = provider.gate.lock().await;
        if !rests() {
            return;
        }
        if let Some(sandbox) = self.take_unshared(provider) {
            provider.with(|record| record.state.sandbox = None);
            self.release_sandbox(&sandbox).await;
            provider.save_state(&self.inner.database);
        }
    }

    /// The container is removed: what its namespace has of networks goes, whoever still runs in it.
    pub(crate) async fn release_for_good(&self, container: &Arc<Container>) {
        let Some(sandbox) = container.with(|record| record.sandbox.take()) else { return };
        container.with(|record| record.last_sandbox = Some(sandbox.id.clone()));
        for endpoint in &sandbox.endpoints {
            // The others keep the namespace alive, and with it the links, which therefore go one by one.
            let network = endpoint.endpoint.network.as_str();
            if let Err(error) = self.inner.networks.disconnect(&sandbox.id, network).await {
                tracing::debug!(sandbox = %sandbox.id, network, %error, "take a shared namespace off a network");
            }
        }
        self.release_sandbox(&sandbox).await;
    }
}

/// What `container:` names, if it is in another's namespace.
fn joins(record: &mut Record) -> Option<String> {
    match &record.definition.host_config.network_mode {
        NetworkMode::Container(of) => Some(of.clone()),
        _ => None,
    }
}

fn not_running(other: &Container) -> EngineError {
    let (name, status) = other.with(|r| (r.definition.name.clone(), r.state.shown.status.as_str()));
    EngineError::conflict(format!(
        "cannot join network namespace of a non running container: container {name} is {status}"
    ))
}

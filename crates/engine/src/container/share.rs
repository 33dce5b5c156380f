//! `container:X`: who runs in whose network namespace.
//!
//! A network namespace lives for as long as somebody runs in it. If X ends while others run in its namespace,
//! the namespace stays as it is, with interfaces, addresses, names and published ports, and X starts into it
//! again: the others notice nothing. When X is removed its interfaces go, and the others keep their loopback.

use std::sync::Arc;

use portolan_netcore::model::ContainerId;

use super::record::Container;
use crate::engine::Engine;
use crate::model::NetworkMode;

/// `container:X` where X is `container:Y` and so on; nobody nests this deep, but somebody may make a circle.
const DEEPEST: usize = 16;

impl Engine {
    /// The container in whose namespace this one is, if it is another's.
    pub(crate) fn provider_of(&self, container: &Arc<Container>) -> Option<Arc<Container>> {
        let next = |container: &Container| {
            container.with(|record| match &record.definition.host_config.network_mode {
                NetworkMode::Container(of) => Some(of.clone()),
                _ => None,
            })
        };
        let mut provider = None;
        let mut of = next(container)?;
        for _ in 0..DEEPEST {
            let found = self.inner.containers.find(&of).ok()?;
            match next(&found) {
                Some(further) => of = further,
                None => {
                    provider = Some(found);
                    break;
                }
            }
        }
        provider
    }

    /// Whether another container runs in the namespace of this one.
    pub(crate) fn is_shared(&self, id: &ContainerId) -> bool {
        self.inner.containers.all().iter().any(|other| {
            let joins = other.with(|record| {
                matches!(record.definition.host_config.network_mode, NetworkMode::Container(_))
                    && record.shim.is_some()
                    && record.state.shown.pid != 0
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
        if !rests() || self.is_shared(&provider.id) {
            return;
        }
        let sandbox = provider.with(|record| {
            let sandbox = record.sandbox.take();
            record.last_sandbox = sandbox.as_ref().map(|info| info.id.clone());
            record.state.sandbox = None;
            sandbox
        });
        if let Some(sandbox) = sandbox {
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

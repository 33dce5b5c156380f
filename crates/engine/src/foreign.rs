//! Other programs' firewalls, as far as they concern containers.

use std::sync::Arc;

use portolan_net::{Conflict, Diagnosis, PortRequest};

use crate::container::record::Definition;
use crate::engine::Engine;
use crate::error::Result;
use crate::model::NetworkMode;
use crate::network::port_requests;

impl Engine {
    /// Chains of other programs' firewalls that are in a network's way.
    pub fn network_conflicts(&self) -> Arc<Vec<Conflict>> {
        self.inner.networks.conflicts()
    }

    /// `GET /portolan/doctor`: what is wrong with the host's networking.
    ///
    /// # Errors
    /// The host cannot be looked at.
    pub async fn network_examination(&self) -> Result<Vec<Diagnosis>> {
        Ok(self.inner.networks.examine().await?)
    }

    /// What keeps the ports that a container publishes from being reached, a line for each.
    pub(crate) async fn publish_warnings(&self, definition: &Definition) -> Vec<String> {
        let ports = port_requests(definition);
        let mut warnings = self.port_warnings(&definition.host_config.network_mode, &ports).await;
        if !ports.is_empty() {
            warnings.extend(self.nothing_published(definition).await);
        }
        warnings
    }

    /// That none of a container's networks publishes ports, of which Docker says nothing.
    async fn nothing_published(&self, definition: &Definition) -> Option<String> {
        let mut networks = Vec::new();
        for name in definition.endpoints.keys() {
            let network = self.inner.networks.find(name).await.ok()?.network;
            let why = network.publishes_nothing()?;
            networks.push(if why == network.name {
                why.to_owned()
            } else {
                format!("{} ({why})", network.name)
            });
        }
        let none = networks.is_empty() || definition.host_config.network_mode == NetworkMode::None;
        (!none).then(|| {
            format!(
                "Published ports have no effect: no ports are published on the network {}",
                networks.join(", ")
            )
        })
    }

    /// The same for some of its ports.
    pub(crate) async fn port_warnings(&self, mode: &NetworkMode, requests: &[PortRequest]) -> Vec<String> {
        let Some(network) = mode.network_name() else { return Vec::new() };
        self.inner.networks.in_the_way(vec![network.to_owned()], requests).await
    }
}

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
        self.port_warnings(&definition.host_config.network_mode, &port_requests(definition)).await
    }

    /// The same for some of its ports.
    pub(crate) async fn port_warnings(&self, mode: &NetworkMode, requests: &[PortRequest]) -> Vec<String> {
        let Some(network) = mode.network_name() else { return Vec::new() };
        self.inner.networks.in_the_way(vec![network.to_owned()], requests).await
    }
}

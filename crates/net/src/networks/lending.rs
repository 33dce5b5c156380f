//! Addresses that DHCP servers lend: asked for when a sandbox begins, followed afterwards.

use std::sync::{Arc, Weak};

use portolan_netcore::model::{DhcpLease, EndpointId, LeaseNews, SandboxId};
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Networks, Shared, blocking};
use crate::{Error, SandboxInfo};

impl Networks {
    /// Sandboxes in which a DHCP server changed something, from now on: an address, a gateway, domains. What they
    /// are like then is for [`Networks::sandbox`] to say.
    pub fn lease_changes(&self) -> broadcast::Receiver<SandboxId> {
        self.shared.lease_changes.subscribe()
    }

    /// Has the endpoints that need it ask a DHCP server. The sandbox as it is then.
    pub(super) async fn ask_for_addresses(&self, info: SandboxInfo) -> Result<SandboxInfo, Error> {
        if info.endpoints.iter().all(|info| info.endpoint.dhcp.is_none()) {
            return Ok(info);
        }
        let id = info.id.clone();
        let mut latest = info;
        for request in self.call(move |owner| owner.lease_requests(&id)).await? {
            let (leases, endpoint) = (Arc::clone(&self.shared.leases), request.endpoint.clone());
            let lease = blocking(move || leases.acquire(request)).await?.map_err(Error::unavailable)?;
            if let Some(info) = self.take_lease(endpoint, Some(lease)).await? {
                latest = info;
            }
        }
        Ok(latest)
    }

    /// None if the endpoint is gone.
    async fn take_lease(
        &self,
        endpoint: EndpointId,
        lease: Option<DhcpLease>,
    ) -> Result<Option<SandboxInfo>, Error> {
        match self.turn(move |owner| owner.begin_lease(&endpoint, lease.as_ref())).await? {
            Some(work) => Ok(Some(self.carry_out(work).await?)),
            None => Ok(None),
        }
    }
}

/// Takes over what DHCP servers change, until the networks are closed.
pub(super) async fn follow(networks: Weak<Shared>, mut news: UnboundedReceiver<LeaseNews>) {
    while let Some(LeaseNews { endpoint, lease }) = news.recv().await {
        let Some(shared) = networks.upgrade() else { return };
        let id = endpoint.clone();
        let changes = shared.lease_changes.clone();
        match (Networks { shared }).take_lease(endpoint, lease).await {
            // Nobody listening is fine.
            Ok(Some(info)) => drop(changes.send(info.id)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(endpoint = %id, %error, "cannot follow a change of a DHCP lease");
            }
        }
    }
}

//! The handle.

use std::sync::Arc;

use portolan_netcore::host::Host;
use portolan_netcore::model::{ContainerId, EndpointId, Network, NetworkId, SandboxId};
use tokio::sync::broadcast;

use crate::{
    AttachSpec, Error, Names, NetConfig, NetworkEvent, NetworkInfo, NetworkSpec, SandboxInfo, SandboxSpec,
    Store,
};

/// The networks of one engine. Clones are handles to the same networks.
///
/// A request that has begun runs to its end even if its caller goes away, and either takes effect
/// whole or leaves nothing.
#[derive(Clone, Debug)]
pub struct Networks {
    events: broadcast::Sender<NetworkEvent>,
}

fn later<T>() -> Result<T, Error> {
    Err(Error::unsupported("networks are being built"))
}

impl Networks {
    /// Takes over the host: loads what is stored, observes what is there, makes the predefined
    /// networks, adopts the namespaces that still live, holds published ports again, puts the
    /// firewall in force. Must be called within a tokio runtime, whose blocking threads it uses.
    pub async fn open(
        _config: NetConfig,
        _host: Arc<dyn Host>,
        _store: Arc<dyn Store>,
        _names: Arc<dyn Names>,
    ) -> Result<Self, Error> {
        later()
    }

    /// `POST /networks/create`.
    ///
    /// # Errors
    /// Every mistake in the IPAM configuration at once (`Invalid`); a name in use (`Conflict`); a
    /// subnet in use (`Forbidden`); an unknown driver (`NotFound`).
    pub async fn create(&self, _spec: NetworkSpec) -> Result<Network, Error> {
        later()
    }

    /// `DELETE /networks/{id}`: by name, id or unique prefix of an id. What was removed.
    ///
    /// # Errors
    /// `Forbidden` for a predefined network and for one with endpoints.
    pub async fn remove(&self, _reference: &str) -> Result<Network, Error> {
        later()
    }

    /// `POST /networks/prune`: removes every user-defined network without endpoints of which
    /// `unwanted` is true; those whose removal fails stay. What was removed.
    pub async fn prune(
        &self,
        _unwanted: impl Fn(&Network) -> bool + Send + 'static,
    ) -> Result<Vec<Network>, Error> {
        later()
    }

    /// A network by name, id or unique prefix of an id, in that order of preference.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` if a prefix fits several.
    pub async fn find(&self, _reference: &str) -> Result<NetworkInfo, Error> {
        later()
    }

    /// Every network with its endpoints, by name.
    pub async fn list(&self) -> Result<Vec<NetworkInfo>, Error> {
        later()
    }

    /// Checks what a container asks of a network and, if it asks for addresses of its own, keeps
    /// them for it from now on, running or not. For `POST /containers/create` and for connecting a
    /// container that is not running. The network's id.
    ///
    /// # Errors
    /// `NotFound` for the network, `Forbidden` for an address in use, `Invalid` for one that the
    /// network cannot give.
    pub async fn reserve(&self, _container: &ContainerId, _attach: AttachSpec) -> Result<NetworkId, Error> {
        later()
    }

    /// Gives back what a container holds on a network (disconnecting one that is not running).
    pub async fn unreserve(&self, _container: &ContainerId, _network: &NetworkId) -> Result<(), Error> {
        later()
    }

    /// Gives back everything a container holds: it is removed. Its sandbox, if any, goes first.
    pub async fn forget(&self, _container: &ContainerId) -> Result<(), Error> {
        later()
    }

    /// Makes a container's namespace, joins its networks, publishes its ports: one plan. When this
    /// returns, the network inside is complete and its names are known.
    ///
    /// # Errors
    /// Leaves nothing behind. A port in use is `Internal`, as in Docker.
    pub async fn create_sandbox(&self, _spec: SandboxSpec) -> Result<SandboxInfo, Error> {
        later()
    }

    /// Takes a sandbox down. Returns once that is decided for good and no packet from outside reaches
    /// it; the kernel's clean-up goes on behind, and the addresses stay unused until it is over. A
    /// sandbox that is not there is fine. Addresses stay the container's until [`Networks::forget`].
    pub async fn remove_sandbox(&self, _id: &SandboxId) -> Result<(), Error> {
        later()
    }

    /// Returns once no trace of the sandbox is left on the host. After [`Networks::remove_sandbox`].
    pub async fn settled(&self, _id: &SandboxId) -> Result<(), Error> {
        later()
    }

    /// Joins a running container's sandbox to one more network. The sandbox as it is then.
    ///
    /// # Errors
    /// `Forbidden` if it is on that network already or in the host's namespace.
    pub async fn connect(&self, _id: &SandboxId, _attach: AttachSpec) -> Result<SandboxInfo, Error> {
        later()
    }

    /// Takes a running container's sandbox off a network. The sandbox as it is then.
    ///
    /// # Errors
    /// `Forbidden` if it is not on that network.
    pub async fn disconnect(&self, _id: &SandboxId, _network: &str) -> Result<SandboxInfo, Error> {
        later()
    }

    /// Changes the container's name in a sandbox's endpoints and its names (`POST /containers/{id}/rename`).
    pub async fn rename(&self, _id: &SandboxId, _container_name: &str) -> Result<(), Error> {
        later()
    }

    /// A sandbox, if it is there: after a restart of the daemon these are the ones adopted.
    pub async fn sandbox(&self, _id: &SandboxId) -> Result<Option<SandboxInfo>, Error> {
        later()
    }

    /// Every sandbox.
    pub async fn sandboxes(&self) -> Result<Vec<SandboxInfo>, Error> {
        later()
    }

    /// Removes an endpoint whose container is gone (`network disconnect -f`).
    pub async fn drop_endpoint(&self, _id: &EndpointId) -> Result<(), Error> {
        later()
    }

    /// What happens to networks from now on.
    pub fn events(&self) -> broadcast::Receiver<NetworkEvent> {
        self.events.subscribe()
    }
}

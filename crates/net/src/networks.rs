//! The handle: each request is decided by the owner, carried out on a thread that may block, and
//! reported back to the owner.

mod doing;
mod lending;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use portolan_netcore::host::Host;
use portolan_netcore::model::{ContainerId, EndpointId, Network, NetworkId, SandboxId};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{broadcast, oneshot};
use tokio::task;

use crate::doctor;
use crate::exposure;
use crate::foreign::{self, Bridged, Changed, Foreign};
use crate::heal::{self, Counters};
use crate::owner::{Owner, Parts, Task, Turn, open};
use crate::publisher::Publisher;
use crate::{
    AttachSpec, Conflict, Diagnosis, DnsUpdate, Error, Exposure, Healing, HostEvent, Leases, Names,
    NetConfig, NetworkEvent, NetworkInfo, NetworkSpec, PortChange, PortRequest, SandboxInfo, SandboxSpec,
    Store,
};

/// How many events a slow listener may be behind.
const EVENTS: usize = 1024;

/// How long an examination waits for the resolver.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(2);

/// The networks of one engine. Clones are handles to the same networks.
///
/// A request that has begun runs to its end even if its caller goes away, and either takes effect
/// whole or leaves nothing.
#[derive(Clone)]
pub struct Networks {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) owner: mpsc::Sender<Task>,
    pub(crate) host: Arc<dyn Host>,
    names: Arc<dyn Names>,
    leases: Arc<dyn Leases>,
    publisher: Arc<Publisher>,
    events: broadcast::Sender<NetworkEvent>,
    lease_changes: broadcast::Sender<SandboxId>,
    pub(crate) host_events: broadcast::Sender<HostEvent>,
    pub(crate) healing: Counters,
    pub(crate) foreign: Foreign,
}

impl std::fmt::Debug for Networks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Networks").finish_non_exhaustive()
    }
}

impl Networks {
    /// Takes over the host: loads what is stored, observes what is there, makes the predefined
    /// networks, adopts the namespaces that still live, holds published ports again, puts the
    /// firewall in force. Must be called within a tokio runtime, whose blocking threads it uses.
    ///
    /// # Errors
    /// `Conflict` if the default bridge's name is taken by a link that is not ours; `Internal` if the
    /// store or the host fails.
    pub async fn open(
        config: NetConfig,
        host: Arc<dyn Host>,
        store: Arc<dyn Store>,
        names: Arc<dyn Names>,
        leases: Arc<dyn Leases>,
    ) -> Result<Self, Error> {
        let (tell, news) = unbounded_channel();
        leases.listen(Box::new(move |one| {
            // Nobody listens once the networks are closed.
            let _ = tell.send(one);
        }));
        let me = blocking(move || {
            let publisher = Publisher::start(Arc::clone(&names))
                .map_err(|error| Error::internal(format!("cannot start the thread of names: {error}")))?;
            let publisher = Arc::new(publisher);
            let events = broadcast::Sender::new(EVENTS);
            let parts = Parts {
                config,
                host: Arc::clone(&host),
                store,
                publisher: Arc::clone(&publisher),
                events: events.clone(),
            };
            let owner = open(parts, names.as_ref())?;
            for (request, lease) in owner.lent() {
                leases.resume(request, lease);
            }
            let owner = owner.start()?;
            let host_events = broadcast::Sender::new(EVENTS);
            let healing = Counters::default();
            let foreign = Foreign::default();
            let shared = Arc::new(Shared {
                owner,
                host,
                names,
                leases,
                publisher,
                events,
                lease_changes: broadcast::Sender::new(EVENTS),
                host_events,
                healing,
                foreign,
            });
            heal::start(&shared)?;
            foreign::start(&shared)?;
            Ok::<_, Error>(Self { shared })
        })
        .await??;
        tokio::spawn(lending::follow(Arc::downgrade(&me.shared), news));
        Ok(me)
    }

    /// `POST /networks/create`.
    ///
    /// # Errors
    /// Every mistake in the IPAM configuration at once (`Invalid`); a name in use (`Conflict`); a
    /// subnet in use (`Forbidden`); an unknown driver (`NotFound`).
    pub async fn create(&self, spec: NetworkSpec) -> Result<Network, Error> {
        let me = self.clone();
        detached(async move {
            let work = me.call(move |owner| owner.begin_create(spec)).await??;
            let network = work.network.clone();
            let (work, result) = me.change_network(work).await?;
            match result {
                Ok(()) => {
                    me.call(move |owner| owner.finish_create(&work.network.id)).await?;
                    me.shared.foreign.wake(Changed::Rules);
                }
                Err(error) => {
                    return Err(me.call(move |owner| owner.abort_create(&work.network, &error)).await?);
                }
            }
            Ok(network)
        })
        .await
    }

    /// `DELETE /networks/{id}`: by name, id or unique prefix of an id. What was removed.
    ///
    /// # Errors
    /// `Forbidden` for a predefined network and for one with endpoints.
    pub async fn remove(&self, reference: &str) -> Result<Network, Error> {
        let (me, reference) = (self.clone(), reference.to_owned());
        detached(async move {
            let work = me.call(move |owner| owner.begin_remove(&reference)).await??;
            let network = work.network.clone();
            let (work, result) = me.change_network(work).await?;
            match result {
                Ok(()) => {
                    me.call(move |owner| owner.finish_remove(&work.network.id)).await?;
                    me.shared.foreign.wake(Changed::Rules);
                }
                Err(error) => {
                    return Err(me.call(move |owner| owner.abort_remove(&work.network, &error)).await?);
                }
            }
            Ok(network)
        })
        .await
    }

    /// `POST /networks/prune`: removes every user-defined network without endpoints of which
    /// `unwanted` is true; those whose removal fails stay. What was removed.
    pub async fn prune(
        &self,
        unwanted: impl Fn(&Network) -> bool + Send + 'static,
    ) -> Result<Vec<Network>, Error> {
        let mut removed = Vec::new();
        for id in self.call(move |owner| owner.unused(unwanted)).await? {
            match self.remove(id.as_str()).await {
                Ok(network) => removed.push(network),
                Err(error) => tracing::warn!(network = %id, %error, "an unused network stays"),
            }
        }
        Ok(removed)
    }

    /// Changes the resolvers that a network's containers ask for names outside, at once and for good.
    ///
    /// # Errors
    /// `NotFound` for the network or a resolver to be removed, `Forbidden` for a network without names.
    pub async fn update_dns(&self, reference: &str, update: DnsUpdate) -> Result<(), Error> {
        let reference = reference.to_owned();
        let zones = self.call(move |owner| owner.update_dns(&reference, &update)).await??;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.wait_for_names(zones)).await?
    }

    /// Whether a container is fit to be found: one that is not leaves the answers to names that others
    /// have as well. Every sandbox is, until it is said not to be.
    pub async fn set_ready(&self, id: &SandboxId, ready: bool) -> Result<(), Error> {
        let id = id.clone();
        let zones = self.call(move |owner| owner.set_ready_for_names(&id, ready)).await?;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.wait_for_names(zones)).await?
    }

    /// A network by name, id or unique prefix of an id.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` if a prefix fits several.
    pub async fn find(&self, reference: &str) -> Result<NetworkInfo, Error> {
        let reference = reference.to_owned();
        self.call(move |owner| owner.find(&reference)).await?
    }

    /// Every network with its endpoints, by name.
    pub async fn list(&self) -> Result<Vec<NetworkInfo>, Error> {
        self.call(|owner| owner.list()).await
    }

    /// Checks what a container asks of a network and, if it asks for addresses of its own, keeps
    /// them for it from now on, running or not; one that another container has, once that gives it up:
    /// until then using it is refused, not asking for it. For `POST /containers/create` and for
    /// connecting a container that is not running. The network's id.
    ///
    /// # Errors
    /// `NotFound` for the network, `Forbidden` for an address of the network itself, `Invalid` for one
    /// that it cannot give.
    pub async fn reserve(&self, container: &ContainerId, attach: AttachSpec) -> Result<NetworkId, Error> {
        let container = container.clone();
        self.call(move |owner| owner.reserve(&container, &attach)).await?
    }

    /// Gives back what a container has on a network (disconnecting one that is not running).
    pub async fn unreserve(&self, container: &ContainerId, network: &NetworkId) -> Result<(), Error> {
        let (container, network) = (container.clone(), network.clone());
        self.call(move |owner| owner.unreserve(&container, &network)).await?
    }

    /// Gives back everything a container has: it is removed. Its sandbox, if any, goes first.
    pub async fn forget(&self, container: &ContainerId) -> Result<(), Error> {
        let container = container.clone();
        self.call(move |owner| owner.forget(&container)).await?
    }

    /// Makes a container's namespace, joins its networks, publishes its ports: one plan. When this
    /// returns, the network inside is complete and its names are known.
    ///
    /// # Errors
    /// Leaves nothing behind. A port in use is `Internal`, as in Docker.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<SandboxInfo, Error> {
        let me = self.clone();
        detached(async move {
            let work = me.turn(move |owner| owner.begin_sandbox(&spec)).await?;
            let info = me.carry_out(work).await?;
            let id = info.id.clone();
            match me.ask_for_addresses(info).await {
                Ok(info) => Ok(info),
                Err(error) => {
                    me.remove_sandbox(&id).await?;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Takes a sandbox down. Returns once that is decided for good and no packet from outside reaches
    /// it; the kernel's clean-up goes on behind, and the addresses stay unused until it is over. A
    /// sandbox that is not there is fine. Addresses stay the container's until [`Networks::forget`].
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        let (me, id) = (self.clone(), id.clone());
        detached(async move {
            match me.turn(move |owner| owner.begin_removal(&id)).await? {
                Some(removal) => me.take_down(removal).await,
                None => Ok(()),
            }
        })
        .await
    }

    /// Returns once no trace of the sandbox is left on the host. After [`Networks::remove_sandbox`].
    pub async fn settled(&self, id: &SandboxId) -> Result<(), Error> {
        let id = id.clone();
        self.turn(move |owner| Ok(if owner.is_settled(&id) { Turn::Done(()) } else { Turn::Later })).await
    }

    /// Joins a running container's sandbox to one more network. The sandbox as it is then.
    ///
    /// # Errors
    /// `Forbidden` if it is on that network already, `Invalid` if it is in the host's namespace.
    pub async fn connect(&self, id: &SandboxId, attach: AttachSpec) -> Result<SandboxInfo, Error> {
        let (me, id) = (self.clone(), id.clone());
        detached(async move {
            let network = attach.network.clone();
            let sandbox = id.clone();
            let work = me.turn(move |owner| owner.begin_connect(&sandbox, &attach)).await?;
            let info = me.carry_out(work).await?;
            match me.ask_for_addresses(info).await {
                Ok(info) => Ok(info),
                Err(error) => {
                    me.disconnect(&id, &network).await?;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Takes a running container's sandbox off a network, whose address it loses. The sandbox as it
    /// is then.
    ///
    /// # Errors
    /// `Forbidden` if it is not on that network.
    pub async fn disconnect(&self, id: &SandboxId, network: &str) -> Result<SandboxInfo, Error> {
        let (me, id, network) = (self.clone(), id.clone(), network.to_owned());
        detached(async move {
            let work = me.turn(move |owner| owner.begin_disconnect(&id, &network)).await?;
            me.carry_out(work).await
        })
        .await
    }

    /// Publishes and unpublishes ports of a running container. The sandbox as it is then.
    ///
    /// # Errors
    /// `Invalid` if it has no network that ports can be published through, `Internal` for a port in use,
    /// as in Docker. Nothing has changed then.
    pub async fn change_ports(&self, id: &SandboxId, change: PortChange) -> Result<SandboxInfo, Error> {
        let (me, id) = (self.clone(), id.clone());
        detached(async move {
            let work = me.turn(move |owner| owner.begin_port_change(&id, &change)).await?;
            me.carry_out(work).await
        })
        .await
    }

    /// Every published port, who can reach it, and why.
    pub async fn exposure(&self) -> Result<Vec<Exposure>, Error> {
        let mut all = self.call(|owner| owner.exposure()).await?;
        let troubles = self.shared.healing.troubles();
        exposure::add_obstacles(&mut all, &self.shared.foreign.conflicts(), &troubles);
        Ok(all)
    }

    /// Chains of other programs' firewalls that are in a network's way, as of the last look: a moment after
    /// the rule set changes.
    pub fn conflicts(&self) -> Arc<Vec<Conflict>> {
        self.shared.foreign.conflicts()
    }

    /// What keeps ports that are to be published by way of these networks from being reached, a line
    /// for each; by what was read last, so that it costs nothing to ask. Unknown networks have none.
    pub async fn in_the_way(&self, networks: Vec<String>, ports: &[PortRequest]) -> Vec<String> {
        if ports.is_empty() {
            return Vec::new();
        }
        let Ok(mut all) = self.call(|owner| foreign::bridged(owner)).await else { return Vec::new() };
        all.retain(|one: &Bridged| networks.iter().any(|name| *name == one.name || name == one.id.as_str()));
        foreign::in_the_way(&self.shared, &all, ports)
    }

    /// Examines the host's networking, by a look at everything: other firewalls' rules, the kernel's
    /// features and settings, the resolver, what was left behind.
    ///
    /// # Errors
    /// `Internal` if the host cannot be looked at.
    pub async fn examine(&self) -> Result<Vec<Diagnosis>, Error> {
        let wanted = self.call(|owner| owner.wanted()).await?;
        let names = Arc::clone(&self.shared.names);
        // To be told of nothing new is to be asked whether it is there. One that hangs must not hang this.
        let asked = blocking(move || names.change(Vec::new()));
        let names = match tokio::time::timeout(RESOLVER_PATIENCE, asked).await {
            Ok(answer) => answer?,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            foreign::look(&shared, Changed::Rules)?;
            doctor::examine(&shared, &wanted, names)
        })
        .await?
    }

    /// Changes a container's name in what it has of networks (`POST /containers/{id}/rename`): its endpoints,
    /// their names if it runs, and the addresses that are its own.
    pub async fn rename(&self, container: &ContainerId, name: &str) -> Result<(), Error> {
        let (container, name) = (container.clone(), name.to_owned());
        let zones = self.turn(move |owner| owner.rename(&container, &name)).await?;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.wait_for_names(zones)).await?
    }

    /// A sandbox, if it is there: after a restart of the daemon these are the ones adopted.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<Option<SandboxInfo>, Error> {
        let id = id.clone();
        self.call(move |owner| owner.sandbox_info(&id)).await
    }

    /// Every sandbox.
    pub async fn sandboxes(&self) -> Result<Vec<SandboxInfo>, Error> {
        self.call(|owner| owner.sandbox_infos()).await
    }

    /// Removes an endpoint by id, whatever its container does (`network disconnect -f`).
    pub async fn drop_endpoint(&self, id: &EndpointId) -> Result<(), Error> {
        let id = id.clone();
        let (sandbox, network) = self.call(move |owner| owner.endpoint_place(&id)).await??;
        self.disconnect(&sandbox, network.as_str()).await?;
        Ok(())
    }

    /// What happens to networks from now on.
    pub fn events(&self) -> broadcast::Receiver<NetworkEvent> {
        self.shared.events.subscribe()
    }

    /// What strangers do to the host's networking, and what is done about it, from now on.
    pub fn host_events(&self) -> broadcast::Receiver<HostEvent> {
        self.shared.host_events.subscribe()
    }

    /// How often there was something to heal.
    pub fn healing(&self) -> Healing {
        self.shared.healing.snapshot()
    }

    /// Has the owner do something and waits for its answer.
    async fn call<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Owner) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let closed = || Error::unavailable("the networks are closed");
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |owner| {
            // Whoever asked may be gone; what was decided stands.
            let _ = answer.send(ask(owner));
        });
        self.shared.owner.send(task).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())
    }

    /// The same for a request that may have to wait its turn.
    async fn turn<T: Send + 'static>(
        &self,
        ask: impl Fn(&mut Owner) -> Result<Turn<T>, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let ask = Arc::new(ask);
        loop {
            let again = Arc::clone(&ask);
            let (turn, mut settled) =
                self.call(move |owner| (again(owner), owner.subscribe_settled())).await?;
            match turn? {
                Turn::Done(value) => return Ok(value),
                Turn::Later => {
                    settled.changed().await.map_err(|_| Error::unavailable("the networks are closed"))?;
                }
            }
        }
    }
}

/// Runs on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    task::spawn_blocking(work).await.map_err(|error| Error::internal(format!("a network task died: {error}")))
}

/// Runs to its end even if nobody waits for it.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    task::spawn(work).await.map_err(|error| Error::internal(format!("a network task died: {error}")))?
}

//! The host itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use ipnet::IpNet;
use portolan_netcore::host::{
    Disturbance, Feature, ForeignRoute, FoundLink, Host, HostFacts, Report, Restored, StepError, Watch,
};
use portolan_netcore::model::{IfName, PortBinding, Proto};
use portolan_netcore::plan::{HostState, LinkKind, Ns, Step};

use crate::{firewall, links};

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// How many of a hundred steps fail, chosen from `seed`.
    pub fail_percent: u64,
    /// The number that the choice begins with.
    pub seed: u64,
    /// The steps whose text begins so fail, with the errno.
    pub refuse: Vec<(String, i32)>,
}

/// A host that is a value. `Clone` of its [`SimHost::state`] is a snapshot.
#[derive(Default)]
pub struct SimHost {
    inner: Mutex<Inner>,
    /// Somebody flushed the firewall's rules.
    flushed: Mutex<bool>,
}

#[derive(Default)]
struct Inner {
    state: HostState,
    faults: Faults,
    log: Vec<String>,
    foreign_links: BTreeSet<IfName>,
    host_links: BTreeMap<IfName, u32>,
    /// Somebody else's bridges, and their addresses.
    bridges: BTreeMap<IfName, Vec<IpNet>>,
    egress: Option<IfName>,
    foreign_ports: BTreeSet<(Proto, IpAddr, u16)>,
    foreign_routes: Vec<ForeignRoute>,
    facts: HostFacts,
    settings: BTreeMap<String, String>,
    features: Vec<Feature>,
    uplinks: BTreeSet<IfName>,
    advertised: BTreeSet<IfName>,
    news: Option<mpsc::Receiver<Vec<Disturbance>>>,
}

/// Hears what a test says.
#[derive(Debug)]
struct SimWatch(mpsc::Receiver<Vec<Disturbance>>);

impl Watch for SimWatch {
    fn next(&mut self, limit: Duration) -> Result<Vec<Disturbance>, StepError> {
        let heard = self.0.recv_timeout(limit);
        if heard == Err(mpsc::RecvTimeoutError::Disconnected) {
            std::thread::sleep(limit);
        }
        Ok(heard.unwrap_or_default())
    }
}

/// A refusal with the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) const EPERM: Errno = Errno(1);
pub(crate) const ENOENT: Errno = Errno(2);
pub(crate) const EIO: Errno = Errno(5);
pub(crate) const EEXIST: Errno = Errno(17);
pub(crate) const ENODEV: Errno = Errno(19);
pub(crate) const ENETUNREACH: Errno = Errno(101);
pub(crate) const EADDRINUSE: Errno = Errno(98);

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHost").field("state", &self.lock().state).finish_non_exhaustive()
    }
}

impl SimHost {
    /// A host in this state.
    pub fn new(state: HostState) -> Self {
        let host = Self::default();
        host.lock().state = state;
        host
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is.
    pub fn state(&self) -> HostState {
        self.lock().state.clone()
    }

    /// Somebody else changes what there is.
    pub fn alter(&self, change: impl FnOnce(&mut HostState)) {
        change(&mut self.lock().state);
    }

    /// Can be watched, by one, from now on: what is sent is heard, each message by itself.
    pub fn watched(&self) -> mpsc::Sender<Vec<Disturbance>> {
        let (tell, news) = mpsc::channel();
        self.lock().news = Some(news);
        tell
    }

    /// Whether the firewall's rules were flushed. While this is held, a repair of them does not end.
    pub fn flushed(&self) -> MutexGuard<'_, bool> {
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every step tried so far, as text; those that failed with their errno.
    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What the host says of itself.
    pub fn set_facts(&self, facts: HostFacts) {
        self.lock().facts = facts;
    }

    /// Sets a sysctl that no step sets, by its path below `/proc/sys`.
    pub fn set_setting(&self, key: &str, value: &str) {
        self.lock().settings.insert(key.to_owned(), value.to_owned());
    }

    /// Says of a feature of the kernel that it is there, or why it is not.
    pub fn add_feature(&self, name: &'static str, missing: Option<&str>) {
        self.lock().features.push(Feature { name, missing: missing.map(str::to_owned) });
    }

    /// Gives the host one more link with a default route.
    pub fn add_uplink(&self, name: IfName) {
        self.lock().uplinks.insert(name);
    }

    /// Gives the host one more link that learns routes from router advertisements.
    pub fn add_advertised(&self, name: IfName) {
        self.lock().advertised.insert(name);
    }

    /// Somebody else's link, whose name is taken.
    pub fn add_foreign_link(&self, name: IfName) {
        self.lock().foreign_links.insert(name);
    }

    /// Somebody else's links that are still there.
    pub fn foreign_links(&self) -> BTreeSet<IfName> {
        self.lock().foreign_links.clone()
    }

    /// Somebody else's link of this name and MTU, by which the default route leaves if `egress`.
    ///
    /// # Panics
    /// If no link can have that name.
    pub fn add_host_link(&self, name: &str, mtu: u32, egress: bool) {
        let name = IfName::new(name).expect("a link's name");
        let mut inner = self.lock();
        inner.host_links.insert(name.clone(), mtu);
        if egress {
            inner.egress = Some(name);
        }
    }

    /// Somebody else's bridge with these addresses. Plans may take it into use, and nothing more.
    ///
    /// # Panics
    /// If no link can have that name, or an address is none.
    pub fn add_host_bridge(&self, name: &str, addresses: &[&str]) {
        let name = IfName::new(name).expect("a link's name");
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let mut inner = self.lock();
        inner.host_links.insert(name.clone(), 1500);
        inner.bridges.insert(name, addresses);
    }

    /// Somebody else listens there.
    pub fn add_foreign_port(&self, proto: Proto, address: IpAddr, port: u16) {
        self.lock().foreign_ports.insert((proto, address, port));
    }

    /// Somebody else's route to what is on one of the host's links.
    pub fn add_foreign_route(&self, destination: IpNet) {
        self.lock().foreign_routes.push(ForeignRoute { destination, on_link: true });
    }

    /// Somebody else's route by way of a gateway.
    pub fn add_foreign_gateway_route(&self, destination: IpNet) {
        self.lock().foreign_routes.push(ForeignRoute { destination, on_link: false });
    }

    /// The daemon dies: what lives in its process goes with it, the kernel's state stays, the
    /// firewall is there but not known to be as it was left.
    pub fn crash(&self) {
        let mut inner = self.lock();
        inner.state.held_ports.clear();
        inner.state.proxied_ports.clear();
        inner.state.firewall = None;
    }

    /// The machine reboots.
    pub fn reboot(&self) {
        self.lock().state = HostState::default();
    }
}

impl Inner {
    fn fails(&mut self, text: &str) -> Option<Errno> {
        if let Some((_, errno)) = self.faults.refuse.iter().find(|(prefix, _)| text.starts_with(prefix)) {
            return Some(Errno(*errno));
        }
        let seed = &mut self.faults.seed;
        // xorshift64 (Marsaglia 2003); zero would stay zero.
        *seed = (*seed).max(1);
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed % 100 < self.faults.fail_percent).then_some(EIO)
    }

    fn step(&mut self, step: &Step) -> Result<(), Errno> {
        let state = &mut self.state;
        match step {
            Step::AddBridge((Ns::Host, name), _)
            | Step::AddLink((Ns::Host, name), _)
            | Step::AddVeth { host: (Ns::Host, name), .. }
                if self.foreign_links.contains(name) =>
            {
                Err(EEXIST)
            }
            Step::AddBridge((Ns::Host, name), _) if self.bridges.contains_key(name) => Err(EEXIST),
            Step::AdoptBridge((_, name)) if self.foreign_links.contains(name) => Err(ENODEV),
            Step::AddAddress((Ns::Host, name), address)
                if self.bridges.get(name).is_some_and(|addresses| addresses.contains(address)) =>
            {
                Err(EEXIST)
            }
            // No second line of defence: plans must not have it.
            Step::RemoveLink((Ns::Host, name)) if self.foreign_links.remove(name) => Ok(()),
            Step::AddVeth { host_link, .. }
                if host_link.master.as_ref().is_some_and(|master| self.host_links.contains_key(master)) =>
            {
                links::apply(state, step, true)
            }
            Step::Firewall(transaction) => firewall::apply(state, transaction),
            Step::HoldPort(port) => {
                let strangers =
                    self.foreign_ports.iter().map(|(proto, address, number)| (*proto, *address, *number));
                let ours = state.held_ports.iter().map(|held| (held.proto, held.host_ip, held.host_port));
                if strangers.chain(ours).any(|other| collides(port, other)) {
                    return Err(EADDRINUSE);
                }
                state.held_ports.insert(port.clone());
                Ok(())
            }
            Step::ProxyPort(port, proxied) => {
                if !state.held_ports.contains(port) {
                    return Err(ENOENT);
                }
                state.proxied_ports.insert(port.clone(), proxied.clone());
                Ok(())
            }
            Step::UnproxyPort(port) => {
                state.proxied_ports.remove(port);
                Ok(())
            }
            Step::ReleasePort(port) => {
                state.held_ports.remove(port);
                state.proxied_ports.remove(port);
                Ok(())
            }
            Step::SetSysctl(ns, key, value) => {
                let strangers = |name: &IfName| key.contains(&format!("/conf/{name}/"));
                if !self.advertised.iter().any(strangers) {
                    links::has_setting(state, ns, key)?;
                }
                state.sysctls.insert((ns.clone(), key.clone()), value.clone());
                Ok(())
            }
            Step::RedirectDns { sandbox, udp, tcp } => {
                links::namespace_exists(state, &Ns::Sandbox(sandbox.clone()))?;
                state.dns_redirects.insert(sandbox.clone(), (*udp, *tcp));
                Ok(())
            }
            Step::Announce(key, _) | Step::Introduce { link: key, .. } => match state.links.get(key) {
                Some(link) if link.up => Ok(()),
                _ => Err(ENODEV),
            },
            Step::ForgetFlows(_) | Step::ForgetAddresses(_) => Ok(()),
            link_step => links::apply(state, link_step, false),
        }
    }
}

/// In the words that the real host has for it.
fn reason(step: &Step, errno: i32) -> String {
    match step {
        Step::HoldPort(port) if errno == EADDRINUSE.0 => {
            let address = std::net::SocketAddr::new(port.host_ip, port.host_port);
            format!(
                "failed to bind host port {address}/{}: address already in use by nginx (pid 123)",
                port.proto
            )
        }
        _ => format!("simulated errno {errno}"),
    }
}

/// Both cannot be bound, as with `SO_REUSEADDR` off and `IPV6_V6ONLY` on.
fn collides(port: &PortBinding, (proto, address, number): (Proto, IpAddr, u16)) -> bool {
    let same_family = port.host_ip.is_ipv4() == address.is_ipv4();
    let overlap = port.host_ip == address || port.host_ip.is_unspecified() || address.is_unspecified();
    port.proto == proto && port.host_port == number && same_family && overlap
}

impl Host for SimHost {
    fn observe(&self) -> Result<HostState, StepError> {
        Ok(self.state())
    }

    fn execute(&self, steps: &[Step]) -> Report {
        let mut inner = self.lock();
        for (done, step) in steps.iter().enumerate() {
            let text = step.to_string();
            let result = match inner.fails(&text) {
                Some(errno) => Err(errno),
                None => inner.step(step),
            };
            if let Err(Errno(errno)) = result {
                inner.log.push(format!("{text} -> errno {errno}"));
                let reason = reason(step, errno);
                let transient = errno == EIO.0;
                let error = StepError { step: step.into(), reason, errno: Some(errno), transient };
                return Report { done, error: Some(error) };
            }
            inner.log.push(text);
        }
        Report { done: steps.len(), error: None }
    }

    fn foreign_routes(&self) -> Result<Vec<ForeignRoute>, StepError> {
        Ok(self.lock().foreign_routes.clone())
    }

    fn links(&self) -> Result<BTreeMap<IfName, u32>, StepError> {
        let inner = self.lock();
        let ours = inner.state.links.iter().filter(|((ns, _), _)| *ns == Ns::Host);
        let ours = ours.map(|((_, name), link)| (name.clone(), link.mtu.unwrap_or(1500)));
        Ok(ours.chain(inner.host_links.clone()).collect())
    }

    fn link(&self, name: &IfName) -> Result<Option<FoundLink>, StepError> {
        let inner = self.lock();
        if let Some(addresses) = inner.bridges.get(name) {
            let addresses = addresses.clone();
            return Ok(Some(FoundLink { is_bridge: true, is_ours: false, addresses }));
        }
        if inner.host_links.contains_key(name) || inner.foreign_links.contains(name) {
            return Ok(Some(FoundLink::default()));
        }
        let ours = inner.state.links.get(&(Ns::Host, name.clone()));
        Ok(ours.map(|link| FoundLink {
            is_bridge: link.kind == LinkKind::Bridge,
            is_ours: true,
            addresses: Vec::new(),
        }))
    }

    fn egress(&self) -> Result<Option<IfName>, StepError> {
        Ok(self.lock().egress.clone())
    }

    fn setting(&self, key: &str) -> Option<String> {
        self.lock().settings.get(key).cloned()
    }

    fn features(&self) -> Vec<Feature> {
        self.lock().features.clone()
    }

    fn uplinks(&self) -> Result<BTreeSet<IfName>, StepError> {
        Ok(self.lock().uplinks.clone())
    }

    fn advertised(&self) -> Result<BTreeSet<IfName>, StepError> {
        Ok(self.lock().advertised.clone())
    }

    fn facts(&self) -> Result<HostFacts, StepError> {
        Ok(self.lock().facts.clone())
    }

    fn restore_firewall(&self) -> Result<Restored, StepError> {
        Ok(Restored { rules: std::mem::take(&mut *self.flushed()), users: false })
    }

    fn watch(&self) -> Result<Option<Box<dyn Watch>>, StepError> {
        Ok(self.lock().news.take().map(|news| Box::new(SimWatch(news)) as Box<dyn Watch>))
    }

    fn await_gone(&self, links: &[IfName], _limit: Duration) -> Result<bool, StepError> {
        let inner = self.lock();
        let there = |name: &IfName| {
            let link = inner.state.links.get(&(Ns::Host, name.clone()));
            link.is_some_and(|link| matches!(link.kind, LinkKind::Veth { .. }))
        };
        Ok(!links.iter().any(there))
    }
}

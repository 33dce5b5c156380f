//! Steps to effects. Neighbouring steps that happen in one sandbox go together: requests in one
//! message, sysctls and the like on one thread.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use portolan_netcore::host::Report;
use portolan_netcore::model::{IfName, SandboxId};
use portolan_netcore::plan::{Link, LinkKey, LinkKind, Neighbour, Ns, Step};

use crate::announce::Announcement;
use crate::conntrack;
use crate::drift::known;
use crate::error::Failure;
use crate::host::{LinuxHost, is_ours};
use crate::netlink::{Batch, NetlinkError, Socket};
use crate::netns;
use crate::nft;
use crate::observe;
use crate::ports;
use crate::sysctl::Sysctls;
use crate::{addr, link, route};

/// A failure and its position among the steps of a group.
type GroupFailure = (usize, Failure);

/// How a step is carried out.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    /// By a request to the namespace's NETLINK_ROUTE socket.
    Request(&'a Ns),
    /// On a thread in the sandbox.
    Inside(&'a SandboxId),
    /// By itself.
    Alone,
}

fn way(step: &Step) -> Way<'_> {
    match step {
        Step::RemoveLink((ns, _))
        | Step::SetMaster((ns, _), _)
        | Step::SetHairpin((ns, _), _)
        | Step::SetLinkLocalLearning((ns, _), _)
        | Step::CutPort((ns, _))
        | Step::SetPortVlan((ns, _), _)
        | Step::AddAddress((ns, _), _)
        | Step::RemoveAddress((ns, _), _)
        | Step::SetUp((ns, _), _)
        | Step::SetMtu((ns, _), _)
        | Step::SetMac((ns, _), _)
        | Step::SetAlias((ns, _), _)
        | Step::Reset((ns, _), _)
        | Step::AddConnected((ns, _), _)
        | Step::AddRoute(ns, _)
        | Step::RemoveRoute(ns, _) => Way::Request(ns),
        Step::SetSysctl(Ns::Sandbox(id), ..) | Step::RedirectDns { sandbox: id, .. } => Way::Inside(id),
        Step::AddNamespace(_)
        | Step::RemoveNamespace(_)
        | Step::AddBridge(..)
        | Step::AdoptBridge(_)
        | Step::AddLink(..)
        | Step::AddVeth { .. }
        | Step::SetSysctl(Ns::Host, ..)
        | Step::Firewall(_)
        | Step::HoldPort(_)
        | Step::ReleasePort(_)
        | Step::ProxyPort(..)
        | Step::UnproxyPort(_)
        | Step::Announce(..)
        | Step::Introduce { .. }
        | Step::ForgetFlows(_)
        | Step::ForgetAddresses(_) => Way::Alone,
    }
}

impl LinuxHost {
    /// See `Host::execute`. If a request in a sandbox fails, later requests of the same message may
    /// have taken effect in that sandbox although they count as not tried. On the host every request
    /// goes by itself, so that this cannot happen.
    pub(crate) fn execute_steps(&self, steps: &[Step]) -> Report {
        // Work inside sandboxes takes a thread that may change its namespace: one for the whole plan.
        let changes_namespace =
            |step: &Step| matches!(way(step), Way::Inside(_)) || matches!(step, Step::AddNamespace(_));
        let report = if steps.iter().any(changes_namespace) {
            netns::on_thread(|| self.run(steps)).unwrap_or_else(|error| {
                let error = steps.first().map(|step| Failure::from(error).at(step));
                Report { done: 0, error }
            })
        } else {
            self.run(steps)
        };
        self.sandboxes.close(steps.iter().filter_map(sandbox_of));
        report
    }

    fn run(&self, steps: &[Step]) -> Report {
        let mut released = Vec::new();
        let report = self.run_all(steps, &mut released);
        self.kept.forget(released);
        report
    }

    /// `released` gets the ports that the keeper has to let go of, too: before one of them is held again.
    fn run_all(&self, steps: &[Step], released: &mut Vec<String>) -> Report {
        let mut done = 0;
        while let Some(first) = steps.get(done) {
            match first {
                Step::ReleasePort(binding) => released.push(ports::name(binding)),
                Step::HoldPort(_) => self.kept.forget(std::mem::take(released)),
                _ => {}
            }
            let rest = &steps[done..];
            let alike = |first: Way<'_>| rest.iter().take_while(|step| way(step) == first).count();
            let (count, result) = match (first, way(first)) {
                (_, Way::Request(Ns::Host)) => (1, self.request(&Ns::Host, &rest[..1])),
                (_, Way::Request(ns)) => {
                    let count = alike(Way::Request(ns));
                    (count, self.request(ns, &rest[..count]))
                }
                (_, Way::Inside(id)) => {
                    let count = alike(Way::Inside(id));
                    (count, self.inside(id, &rest[..count]))
                }
                (Step::AddNamespace(id), _) => {
                    let following = rest[1..].iter().take_while(|step| way(step) == Way::Inside(id)).count();
                    (1 + following, self.add_namespace(id, &rest[1..1 + following]))
                }
                (step, Way::Alone) => (1, self.alone(step).map_err(|failure| (0, failure))),
            };
            if let Err((index, failure)) = result {
                let done = done + index;
                return Report { done, error: steps.get(done).map(|step| failure.at(step)) };
            }
            done += count;
        }
        Report { done, error: None }
    }

    fn add_namespace(&self, id: &SandboxId, following: &[Step]) -> Result<(), GroupFailure> {
        let home = self.namespace.as_fd();
        let made = self.sandboxes.create(id, home, || self.set_inside(following));
        let result = made.map_err(|failure| (0, failure))?;
        let applied = result.as_ref().map_or_else(|(index, _)| *index, |()| following.len());
        self.remember(&following[..applied]);
        result.map_err(|(index, failure)| (1 + index, failure))
    }

    fn inside(&self, id: &SandboxId, steps: &[Step]) -> Result<(), GroupFailure> {
        let sandbox = self.sandboxes.get(id).and_then(|found| found.ok_or_else(|| no_namespace(id)));
        let sandbox = sandbox.map_err(|failure| (0, failure))?;
        let home = self.namespace.as_fd();
        let result = netns::visit(sandbox.namespace(), home, || self.set_inside(steps))
            .map_err(|error| (0, error.into()))?;
        let applied = result.as_ref().map_or_else(|(index, _)| *index, |()| steps.len());
        self.remember(&steps[..applied]);
        result
    }

    /// Carries out sysctls and redirections on the calling thread, which is in the sandbox.
    fn set_inside(&self, steps: &[Step]) -> Result<(), GroupFailure> {
        let mut sysctls: Option<Arc<Sysctls>> = None;
        for (position, step) in steps.iter().enumerate() {
            let result = match step {
                Step::SetSysctl(_, key, value) => self.write_sysctl(&mut sysctls, key, value),
                Step::RedirectDns { udp, tcp, .. } => nft::redirect_dns(*udp, *tcp).map_err(Failure::from),
                _ => unreachable!("way() sends {step} elsewhere"),
            };
            result.map_err(|failure| (position, failure))?;
        }
        Ok(())
    }

    fn write_sysctl(
        &self,
        sysctls: &mut Option<Arc<Sysctls>>,
        key: &str,
        value: &str,
    ) -> Result<(), Failure> {
        let sysctls = match sysctls {
            Some(sysctls) => sysctls,
            None => sysctls.insert(self.sandbox_sysctls.get()?),
        };
        Ok(sysctls.write(key, value)?)
    }

    fn remember(&self, applied: &[Step]) {
        let mut memory = self.memory();
        for step in applied {
            match step {
                Step::SetSysctl(ns, key, _) => {
                    memory.sysctls.insert((ns.clone(), key.clone()));
                }
                Step::RedirectDns { sandbox, udp, tcp } => {
                    memory.dns_redirects.insert(sandbox.clone(), (*udp, *tcp));
                }
                _ => {}
            }
        }
    }

    /// Carries out requests of one namespace with one message to the kernel.
    fn request(&self, ns: &Ns, steps: &[Step]) -> Result<(), GroupFailure> {
        match ns {
            Ns::Host => {
                let mut outcome = Ok(());
                let sent = self.with_socket(|socket| {
                    if !self.is_strangers(socket, steps)? {
                        outcome = send(socket, steps);
                    }
                    Ok(())
                });
                sent.map_err(|error| (0, error.into())).and(outcome)
            }
            Ns::Sandbox(id) => match self.sandboxes.get(id).map_err(|failure| (0, failure))? {
                Some(sandbox) => send(&mut sandbox.route(), steps),
                // Nothing is left to remove in a namespace that is gone.
                None => match steps.iter().position(|step| !is_removal(step)) {
                    Some(index) => Err((index, no_namespace(id))),
                    None => Ok(()),
                },
            },
        }
    }

    /// The last line of defence, whatever was planned: a link of the host that is not recognisably ours is
    /// not to be removed or cut, and ours is not there.
    fn is_strangers(&self, socket: &mut Socket, steps: &[Step]) -> Result<bool, NetlinkError> {
        let [Step::RemoveLink((_, name)) | Step::CutPort((_, name))] = steps else { return Ok(false) };
        let found = observe::link_named(socket, name)?;
        let strangers = found.is_some_and(|link| {
            // An alias can be taken away from ours, too.
            !is_ours(&link) && !known(&self.aliases).contains_key(&link.index)
        });
        if strangers {
            tracing::warn!(link = %name, "a link that is not ours has the name of one that was to go: it stays");
        }
        Ok(strangers)
    }

    fn alone(&self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::RemoveNamespace(id) => self.remove_namespace(id),
            Step::AddBridge(key, bridge) => self.add_bridge(key, bridge),
            Step::AdoptBridge(key) => self.adopt_bridge(key),
            Step::AddLink(key, link) => self.add_stacked(key, link),
            Step::AddVeth { host, host_link, container, container_link } => {
                self.kept.firewall();
                self.add_veth((host, host_link), (container, container_link))
            }
            Step::SetSysctl(_, key, value) => {
                self.sysctls.write(key, value)?;
                self.settings.watch(key);
                self.remember(std::slice::from_ref(step));
                Ok(())
            }
            Step::Firewall(transaction) => {
                self.applied.fetch_add(1, Ordering::SeqCst);
                Ok(self.firewall.apply(transaction)?)
            }
            Step::HoldPort(binding) => {
                self.ports.hold(binding)?;
                self.kept.port(ports::name(binding));
                Ok(())
            }
            Step::ReleasePort(binding) => {
                self.proxies.stop(binding);
                self.ports.release(binding);
                Ok(())
            }
            Step::ProxyPort(binding, proxied) => {
                let socket = self.ports.socket(binding)?;
                Ok(self.proxies.start(binding, socket, proxied)?)
            }
            Step::UnproxyPort(binding) => {
                self.proxies.stop(binding);
                Ok(self.ports.stop_listening(binding)?)
            }
            Step::Announce(key, addresses) => self.announce(key, addresses),
            Step::Introduce { link, there, here } => self.introduce(link, there, here),
            Step::ForgetFlows(bindings) => {
                self.proxies.cut(bindings);
                Ok(conntrack::forget(bindings).map(drop)?)
            }
            Step::ForgetAddresses(addresses) => {
                self.proxies.forget(addresses);
                Ok(conntrack::forget_addresses(addresses).map(drop)?)
            }
            _ => unreachable!("way() sends {step} elsewhere"),
        }
    }

    fn remove_namespace(&self, id: &SandboxId) -> Result<(), Failure> {
        let mut memory = self.memory();
        memory.dns_redirects.remove(id);
        memory.sysctls.retain(|(ns, _)| !matches!(ns, Ns::Sandbox(sandbox) if sandbox == id));
        drop(memory);
        self.sandboxes.remove(id)?;
        self.keep_firewall_while_needed();
        Ok(())
    }

    fn add_bridge(&self, (ns, name): &LinkKey, bridge: &Link) -> Result<(), Failure> {
        let mut create = Batch::new();
        link::add_bridge(&mut create, name, bridge);
        self.create_link(ns, create, name, bridge).map_err(|failure| {
            let lacking = bridge.vlan.is_some() && failure.errno == Some(libc::EOPNOTSUPP);
            if lacking { no_vlan_filtering() } else { failure }
        })
    }

    fn adopt_bridge(&self, key: &LinkKey) -> Result<(), Failure> {
        let (ns, name) = key;
        let found = self.in_namespace(ns, |socket| Ok(observe::link_named(socket, name)?))?;
        let found = found.ok_or_else(|| no_link(name))?;
        if found.kind.as_deref() != Some("bridge") {
            return Err(Failure::new(format!("link {name} is not a bridge"), libc::EINVAL));
        }
        if found.up {
            return Ok(());
        }
        self.request(ns, &[Step::SetUp(key.clone(), true)]).map_err(|(_, failure)| failure)
    }

    /// A macvlan, ipvlan, VLAN or dummy link: made from the host's namespace, where the link below is,
    /// and in place in its own.
    fn add_stacked(&self, key: &LinkKey, wanted: &Link) -> Result<(), Failure> {
        let (ns, name) = key;
        let parent = match &wanted.kind {
            LinkKind::Macvlan { parent, .. }
            | LinkKind::Ipvlan { parent, .. }
            | LinkKind::Vlan { parent, .. } => {
                Some(self.in_namespace(&Ns::Host, |socket| index(socket, parent))?)
            }
            _ => None,
        };
        let sandbox = match ns {
            Ns::Host => None,
            Ns::Sandbox(id) => Some(self.sandboxes.get(id)?.ok_or_else(|| no_namespace(id))?),
        };
        let mut create = Batch::new();
        let namespace = sandbox.as_ref().map(|sandbox| sandbox.namespace());
        link::add_stacked(&mut create, name, wanted, parent, namespace);
        self.in_namespace(&Ns::Host, |socket| Ok(socket.transact(&mut create)?)).map_err(|failure| {
            // The kernel knows no links of that kind, and could not load a module for it.
            match failure.errno {
                Some(libc::EOPNOTSUPP) => Failure::new(
                    format!("this kernel has no links of type {}", link::kind_name(&wanted.kind)),
                    libc::EOPNOTSUPP,
                ),
                _ => failure,
            }
        })?;
        let Some(alias) = &wanted.alias else { return Ok(()) };
        self.in_namespace(ns, |socket| {
            let mut finish = Batch::new();
            link::set_alias(&mut finish, name, alias);
            let finished = socket.transact(&mut finish);
            if finished.is_err() {
                let mut undo = Batch::new();
                link::remove(&mut undo, name);
                // The cause is what the caller should hear of.
                let _ = socket.transact(&mut undo);
            }
            Ok(finished?)
        })
    }

    fn add_veth(&self, near: (&LinkKey, &Link), far: (&LinkKey, &Link)) -> Result<(), Failure> {
        let ((near_ns, near_name), (far_ns, far_name)) = (near.0, far.0);
        let master = match &near.1.master {
            Some(master) => Some(self.in_namespace(near_ns, |socket| index(socket, master))?),
            None => None,
        };
        let mut create = Batch::new();
        let (near_end, far_end) = ((near_name, near.1), (far_name, far.1));
        match far_ns {
            Ns::Host => link::add_veth(&mut create, near_end, master, far_end, self.namespace.as_fd()),
            Ns::Sandbox(id) => {
                let sandbox = self.sandboxes.get(id)?.ok_or_else(|| no_namespace(id))?;
                link::add_veth(&mut create, near_end, master, far_end, sandbox.namespace());
                // The descriptor in the message must be open until it is sent.
                return self.create_link(near_ns, create, near_name, near.1);
            }
        }
        self.create_link(near_ns, create, near_name, near.1)
    }

    /// Creates a link, then gives it what only existing links take. Not in one message: the second
    /// request must not meet a stranger's link of that name if the first is refused.
    fn create_link(&self, ns: &Ns, mut create: Batch, name: &IfName, wanted: &Link) -> Result<(), Failure> {
        let mut finish = Batch::new();
        if let Some(alias) = &wanted.alias {
            link::set_alias(&mut finish, name, alias);
        }
        self.in_namespace(ns, |socket| {
            socket.transact(&mut create)?;
            let finished = socket.transact(&mut finish);
            if finished.is_err() {
                let mut undo = Batch::new();
                link::remove(&mut undo, name);
                // The cause is what the caller should hear of.
                let _ = socket.transact(&mut undo);
            }
            Ok(finished?)
        })
    }

    /// Calls `task` with a NETLINK_ROUTE socket in the namespace.
    fn in_namespace<R>(
        &self,
        ns: &Ns,
        task: impl FnOnce(&mut Socket) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        match ns {
            Ns::Host => {
                let mut outcome = None;
                self.with_socket(|socket| {
                    outcome = Some(task(socket));
                    Ok(())
                })?;
                outcome.expect("with_socket calls its task")
            }
            Ns::Sandbox(id) => {
                let sandbox = self.sandboxes.get(id)?.ok_or_else(|| no_namespace(id))?;
                task(&mut sandbox.route())
            }
        }
    }

    fn announce(&self, (ns, name): &LinkKey, addresses: &[ipnet::IpNet]) -> Result<(), Failure> {
        let link = self.in_namespace(ns, |socket| Ok(observe::link_named(socket, name)?))?;
        let link = link.ok_or_else(|| no_link(name))?;
        let Some(mac) = link.mac else { return Ok(()) };
        let namespace = match ns {
            Ns::Host => None,
            Ns::Sandbox(id) => {
                let sandbox = self.sandboxes.get(id)?.ok_or_else(|| no_namespace(id))?;
                Some(sandbox.namespace().try_clone_to_owned()?)
            }
        };
        let addresses = addresses.iter().map(ipnet::IpNet::addr).collect();
        let neighbours = vec![Neighbour { mac, addresses }];
        self.announcer.queue(Announcement { namespace, index: link.index, neighbours, here: None });
        Ok(())
    }

    fn introduce(
        &self,
        (ns, name): &LinkKey,
        there: &[Neighbour],
        here: &[Neighbour],
    ) -> Result<(), Failure> {
        let link = self.in_namespace(ns, |socket| Ok(observe::link_named(socket, name)?))?;
        let index = link.ok_or_else(|| no_link(name))?.index;
        let (neighbours, here) = (there.to_vec(), Some(here.to_vec()));
        self.announcer.queue(Announcement { namespace: None, index, neighbours, here });
        Ok(())
    }
}

/// The sandbox that a step opens.
fn sandbox_of(step: &Step) -> Option<&SandboxId> {
    let ns = match (way(step), step) {
        (Way::Inside(id), _) | (_, Step::AddNamespace(id)) => return Some(id),
        (Way::Request(ns), _) => ns,
        (
            _,
            Step::AddVeth { container: (ns, _), .. } | Step::Announce((ns, _), _) | Step::AddLink((ns, _), _),
        ) => ns,
        _ => return None,
    };
    match ns {
        Ns::Sandbox(id) => Some(id),
        Ns::Host => None,
    }
}

/// Encodes and sends requests. Indices are looked up while encoding: none of these steps makes a link.
fn send(socket: &mut Socket, steps: &[Step]) -> Result<(), GroupFailure> {
    let mut batch = Batch::new();
    // The step of each request: a removal from a link that is gone needs none.
    let mut owners = Vec::with_capacity(steps.len());
    let mut unencoded = None;
    for (position, step) in steps.iter().enumerate() {
        match encode(socket, &mut batch, step) {
            Ok(()) => owners.resize(batch.len(), position),
            Err(failure) => {
                unencoded = Some((position, failure));
                break;
            }
        }
    }
    socket.transact(&mut batch).map_err(|error| {
        let position = error.index().and_then(|index| owners.get(index)).copied().unwrap_or_default();
        let lacking = error.errno() == Some(libc::EOPNOTSUPP)
            && matches!(steps.get(position), Some(Step::SetPortVlan(..)));
        (position, if lacking { no_vlan_filtering() } else { Failure::from(error) })
    })?;
    unencoded.map_or(Ok(()), Err)
}

fn encode(socket: &Socket, batch: &mut Batch, step: &Step) -> Result<(), Failure> {
    match step {
        Step::RemoveLink((_, name)) => link::remove(batch, name),
        Step::SetMaster((_, name), master) => {
            let index = master.as_ref().map_or(Ok(0), |master| index(socket, master))?;
            link::set_master(batch, name, index);
        }
        Step::SetHairpin((_, name), on) => link::set_hairpin(batch, name, *on),
        Step::SetLinkLocalLearning((_, name), on) => link::set_link_local_learning(batch, name, *on),
        Step::CutPort((_, name)) => link::cut_port(batch, name),
        Step::SetPortVlan((_, name), vlan) => {
            link::set_port_vlan(batch, index(socket, name)?, vlan.unwrap_or(1));
        }
        Step::AddAddress((_, name), address) => addr::add(batch, index(socket, name)?, *address),
        Step::RemoveAddress((_, name), address) => {
            if let Some(index) = socket.index_of(name.as_str())? {
                addr::remove(batch, index, *address);
            }
        }
        Step::SetUp((_, name), up) => link::set_up(batch, name, *up),
        Step::SetMtu((_, name), mtu) => link::set_mtu(batch, name, *mtu),
        Step::SetMac((_, name), mac) => link::set_mac(batch, name, *mac),
        Step::SetAlias((_, name), alias) => link::set_alias(batch, name, alias),
        Step::Reset((_, name), attribute) => link::reset(batch, name, *attribute),
        Step::AddConnected((_, name), address) => {
            route::add_connected(batch, index(socket, name)?, *address);
        }
        Step::AddRoute(_, wanted) => route::add(batch, index(socket, &wanted.dev)?, wanted),
        Step::RemoveRoute(_, unwanted) => {
            if let Some(index) = socket.index_of(unwanted.dev.as_str())? {
                route::remove(batch, index, unwanted);
            }
        }
        _ => unreachable!("way() sends {step} elsewhere"),
    }
    Ok(())
}

fn is_removal(step: &Step) -> bool {
    matches!(step, Step::RemoveLink(_) | Step::CutPort(_) | Step::RemoveAddress(..) | Step::RemoveRoute(..))
}

fn index(socket: &Socket, name: &IfName) -> Result<u32, Failure> {
    socket.index_of(name.as_str())?.ok_or_else(|| no_link(name))
}

fn no_link(name: &IfName) -> Failure {
    Failure::new(format!("no link {name}"), libc::ENODEV)
}

/// `CONFIG_BRIDGE_VLAN_FILTERING` is off.
fn no_vlan_filtering() -> Failure {
    Failure::new(
        "this kernel's bridges have no VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)",
        libc::EOPNOTSUPP,
    )
}

fn no_namespace(id: &SandboxId) -> Failure {
    Failure::new(format!("no network namespace {}", id.short()), libc::ENOENT)
}

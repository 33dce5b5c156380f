//! Host ports: who has which, and finding free ones by taking them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_netcore::host::{Host, HostFacts};
use portolan_netcore::model::{Allowed, EndpointId, PortBinding, PortRange, Proto, SandboxId};
use portolan_netcore::plan::Step;

use crate::{Error, PortRequest};

const EADDRINUSE: i32 = 98;

/// The ports that our sandboxes publish.
#[derive(Debug, Default)]
pub(super) struct PortTable {
    held: BTreeMap<(Proto, u16), Vec<Holder>>,
    /// The ephemeral port after the last one given, so that a port that was just freed is not
    /// given to another at once.
    next: Option<u16>,
}

#[derive(Debug)]
struct Holder {
    address: IpAddr,
    sandbox: SandboxId,
    container_name: String,
}

/// For whom ports are taken.
#[derive(Debug)]
pub(super) struct Publisher<'a> {
    pub(super) sandbox: &'a SandboxId,
    pub(super) endpoint: &'a EndpointId,
    pub(super) container_name: &'a str,
    pub(super) has_ipv4: bool,
    pub(super) has_ipv6: bool,
    /// The host has IPv6 addresses to publish on.
    pub(super) host_ipv6: bool,
    /// TCP and UDP are carried over from one family to the other.
    pub(super) proxy: bool,
    /// The host address where the request has none; both families if none.
    pub(super) default_binding: Option<IpAddr>,
    /// Loopback of both families takes its place.
    pub(super) default_loopback: bool,
    /// The network is in gateway mode `routed` for IPv4: its ports are opened, not translated.
    pub(super) routed_ipv4: bool,
    /// The same for IPv6.
    pub(super) routed_ipv6: bool,
    /// What this network cannot publish is left out, for when another one is the gateway.
    pub(super) lenient: bool,
}

impl Publisher<'_> {
    fn routed(&self, address: &IpAddr) -> bool {
        if address.is_ipv4() { self.routed_ipv4 } else { self.routed_ipv6 }
    }
}

/// What a sandbox gives up while it takes other ports, and how far the exchange is. What it has before and
/// after is not let go of in between; what is in the way of a new one is, and is taken back if that fails.
/// Holds are bindings that lead nowhere.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Holds that are given up, as far as nothing has come of that.
    gives: BTreeSet<PortBinding>,
    /// For each request the host port to try first, if it may choose.
    preferred: Vec<Option<u16>>,
    /// Holds let go of.
    let_go: BTreeSet<PortBinding>,
    /// Holds that were let go of and taken back: what listened on them does no more.
    disturbed: BTreeSet<PortBinding>,
    /// Holds that are new.
    pub(super) taken: Vec<PortBinding>,
}

impl Exchange {
    /// These bindings are given up; and the host ports to try first for the requests, by their order.
    pub(super) fn new<'a>(
        gives: impl IntoIterator<Item = &'a PortBinding>,
        preferred: Vec<Option<u16>>,
    ) -> Self {
        Self { gives: gives.into_iter().map(hold_of).collect(), preferred, ..Self::default() }
    }

    /// What was let go of, as steps.
    pub(super) fn releases(&self) -> Vec<Step> {
        self.let_go.iter().cloned().map(Step::ReleasePort).collect()
    }

    /// Nothing comes of it: what is new goes, and what was let go of is held again. Holds on which nothing
    /// listens as before.
    pub(super) fn undo(&mut self, host: &dyn Host) -> BTreeSet<PortBinding> {
        release(host, &self.taken);
        self.taken.clear();
        self.disturbed.append(&mut hold_again(host, std::mem::take(&mut self.let_go)));
        std::mem::take(&mut self.disturbed)
    }
}

/// One host port of all addresses of a group, as far as it got.
#[derive(Debug, Default)]
struct Attempt {
    kept: BTreeSet<PortBinding>,
    let_go: BTreeSet<PortBinding>,
    taken: Vec<PortBinding>,
}

/// The hold on a host port is the same whatever it leads to.
fn hold_of(binding: &PortBinding) -> PortBinding {
    PortBinding { container_port: 0, ..binding.clone() }
}

fn hold_again(host: &dyn Host, holds: BTreeSet<PortBinding>) -> BTreeSet<PortBinding> {
    let steps: Vec<Step> = holds.iter().cloned().map(Step::HoldPort).collect();
    crate::apply::run_whatever_fails(host, &steps);
    holds
}

/// Requests that get the same host port: they differ in nothing but the host address.
#[derive(Debug)]
struct Group {
    proto: Proto,
    container_port: u16,
    range: Option<PortRange>,
    addresses: Vec<IpAddr>,
    preferred: Option<u16>,
    from: Vec<IpNet>,
}

/// Ports that are taken, and who may use those that not everybody may.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) bindings: Vec<PortBinding>,
    pub(super) allowed: Allowed,
}

enum Refusal {
    /// By one of our containers.
    Ours { address: IpAddr, container_name: String },
    /// By somebody else on this host.
    Foreign { reason: String },
    /// The host failed otherwise.
    Broken(Error),
}

impl PortTable {
    /// Takes and holds a host port for each request, exact ones first as in Docker.
    pub(super) fn take(
        &mut self,
        host: &dyn Host,
        facts: &HostFacts,
        requests: &[PortRequest],
        publisher: &Publisher<'_>,
        exchange: &mut Exchange,
    ) -> Result<Taken, Error> {
        let Asked { mut groups, mut taken } = group(requests, publisher, exchange)?;
        groups.sort_by_key(|group| !is_exact(group.range));
        for group in &groups {
            match self.take_group(host, facts, group, publisher, exchange) {
                Ok(bindings) => {
                    let from = || group.from.clone();
                    if !group.from.is_empty() {
                        taken.allowed.extend(bindings.iter().map(|binding| (binding.clone(), from())));
                    }
                    taken.bindings.extend(bindings);
                }
                Err(error) => {
                    self.forget(&exchange.taken, publisher.sandbox);
                    exchange.disturbed = exchange.undo(host);
                    let (name, id) = (publisher.container_name, publisher.endpoint);
                    return Err(Error::new(
                        error.kind(),
                        format!(
                            "driver failed programming external connectivity on endpoint {name} ({id}): {error}"
                        ),
                    ));
                }
            }
        }
        taken.bindings.sort();
        Ok(taken)
    }

    fn take_group(
        &mut self,
        host: &dyn Host,
        facts: &HostFacts,
        group: &Group,
        publisher: &Publisher<'_>,
        exchange: &mut Exchange,
    ) -> Result<Vec<PortBinding>, Error> {
        let candidates: Box<dyn Iterator<Item = u16>> = match group.range {
            Some(range) => Box::new(range.first..=range.last),
            None => Box::new(ephemeral(self.next, facts)),
        };
        let mut last = None;
        for port in group.preferred.into_iter().chain(candidates) {
            match self.take_port(host, group, port, publisher, exchange) {
                Ok(bindings) => {
                    if group.range.is_none() && group.preferred != Some(port) {
                        self.next = port.checked_add(1);
                    }
                    return Ok(bindings);
                }
                Err(Refusal::Broken(error)) => return Err(error),
                Err(refusal) => last = Some((port, refusal)),
            }
        }
        Err(refused(group, last))
    }

    fn take_port(
        &mut self,
        host: &dyn Host,
        group: &Group,
        port: u16,
        publisher: &Publisher<'_>,
        exchange: &mut Exchange,
    ) -> Result<Vec<PortBinding>, Refusal> {
        let binding = |address: &IpAddr| PortBinding {
            proto: group.proto,
            container_port: group.container_port,
            host_ip: *address,
            host_port: port,
        };
        let bindings: Vec<PortBinding> = group.addresses.iter().map(binding).collect();
        let in_the_way: Vec<BTreeSet<PortBinding>> = bindings
            .iter()
            .map(|binding| self.in_the_way(binding, publisher.sandbox, exchange))
            .collect::<Result<_, _>>()?;
        let mut attempt = Attempt::default();
        for (binding, in_the_way) in bindings.iter().zip(in_the_way) {
            let hold = hold_of(binding);
            if exchange.gives.remove(&hold) {
                attempt.kept.insert(hold);
                continue;
            }
            exchange.gives.retain(|give| !in_the_way.contains(give));
            release(host, &in_the_way);
            attempt.let_go.extend(in_the_way);
            if let Err(refusal) = take_hold(host, hold.clone()) {
                release(host, &attempt.taken);
                let mut back = hold_again(host, attempt.let_go);
                exchange.gives.extend(attempt.kept.into_iter().chain(back.iter().cloned()));
                exchange.disturbed.append(&mut back);
                return Err(refusal);
            }
            attempt.taken.push(hold);
        }
        self.remember(&attempt.taken, publisher.sandbox, publisher.container_name);
        exchange.let_go.append(&mut attempt.let_go);
        exchange.taken.append(&mut attempt.taken);
        Ok(bindings)
    }

    /// The holds that the sandbox gives up and of which a binding needs the place; itself if it is one of
    /// them. Others' are a refusal.
    fn in_the_way(
        &self,
        binding: &PortBinding,
        sandbox: &SandboxId,
        exchange: &Exchange,
    ) -> Result<BTreeSet<PortBinding>, Refusal> {
        let mut own = BTreeSet::new();
        for holder in self.holders(binding.proto, binding.host_ip, binding.host_port) {
            let hold = PortBinding { host_ip: holder.address, ..hold_of(binding) };
            let ours = holder.sandbox == *sandbox;
            if ours && exchange.gives.contains(&hold) {
                own.insert(hold);
            } else if !(ours && exchange.let_go.contains(&hold)) {
                let container_name = holder.container_name.clone();
                return Err(Refusal::Ours { address: binding.host_ip, container_name });
            }
        }
        Ok(own)
    }

    /// Who has a port on an address that overlaps with this one.
    fn holders(&self, proto: Proto, address: IpAddr, port: u16) -> impl Iterator<Item = &Holder> {
        let holders = self.held.get(&(proto, port)).into_iter().flatten();
        holders.filter(move |holder| {
            let same_family = holder.address.is_ipv4() == address.is_ipv4();
            same_family
                && (holder.address == address || holder.address.is_unspecified() || address.is_unspecified())
        })
    }

    /// Enters bindings that are held (or about to be, at start).
    pub(super) fn remember<'a>(
        &mut self,
        bindings: impl IntoIterator<Item = &'a PortBinding>,
        sandbox: &SandboxId,
        container_name: &str,
    ) {
        for binding in bindings.into_iter().filter(|binding| binding.host_port != 0) {
            self.held.entry((binding.proto, binding.host_port)).or_default().push(Holder {
                address: binding.host_ip,
                sandbox: sandbox.clone(),
                container_name: container_name.to_owned(),
            });
        }
    }

    /// Strikes out bindings that are let go of.
    pub(super) fn forget<'a>(
        &mut self,
        bindings: impl IntoIterator<Item = &'a PortBinding>,
        sandbox: &SandboxId,
    ) {
        for binding in bindings {
            let key = (binding.proto, binding.host_port);
            if let Some(holders) = self.held.get_mut(&key) {
                holders.retain(|holder| !(holder.address == binding.host_ip && holder.sandbox == *sandbox));
                if holders.is_empty() {
                    self.held.remove(&key);
                }
            }
        }
    }
}

/// Ephemeral ports in the order to try them: from where the last search ended, round to there.
fn ephemeral(next: Option<u16>, facts: &HostFacts) -> impl Iterator<Item = u16> {
    let PortRange { first, last } = facts.ephemeral;
    let start = next.filter(|next| (first..=last).contains(next)).unwrap_or(first);
    let reserved = |port: &u16| facts.reserved.iter().any(|range| (range.first..=range.last).contains(port));
    (start..=last).chain(first..start).filter(move |port| !reserved(port))
}

fn is_exact(range: Option<PortRange>) -> bool {
    range.is_some_and(|range| range.first == range.last)
}

/// What is asked for, sorted by how it is published.
#[derive(Debug, Default)]
struct Asked {
    groups: Vec<Group>,
    /// What takes no host port: opened for those who route to the container.
    taken: Taken,
}

fn group(requests: &[PortRequest], publisher: &Publisher<'_>, exchange: &Exchange) -> Result<Asked, Error> {
    let mut asked = Asked::default();
    let groups = &mut asked.groups;
    // Those that others may join, by what they have in common: there may be thousands.
    let mut open: BTreeMap<(Proto, u16, Option<PortRange>), Vec<usize>> = BTreeMap::new();
    let mut routed: BTreeMap<PortBinding, Vec<&PortRequest>> = BTreeMap::new();
    for (at, request) in requests.iter().enumerate() {
        let (opened, addresses): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses(request, publisher)?.into_iter().partition(|address| publisher.routed(address));
        for address in opened {
            routed.entry(opened_port(request, address)).or_default().push(request);
        }
        if addresses.is_empty() {
            continue;
        }
        let group = Group {
            proto: request.proto,
            container_port: request.container_port,
            range: request.host_ports,
            addresses,
            preferred: exchange.preferred.get(at).copied().flatten(),
            from: request.from.clone(),
        };
        if is_exact(group.range) {
            groups.push(group);
            continue;
        }
        let alike = open.entry((group.proto, group.container_port, group.range)).or_default();
        let fits = |at: &&usize| {
            let other = &groups[**at];
            (&other.from, other.preferred) == (&group.from, group.preferred)
                && other.addresses.iter().all(|address| !group.addresses.contains(address))
        };
        match alike.iter().find(fits).copied() {
            Some(at) => groups[at].addresses.extend(group.addresses),
            None => {
                alike.push(groups.len());
                groups.push(group);
            }
        }
    }
    for (binding, requests) in routed {
        // One of them for everybody opens it to everybody.
        if requests.iter().all(|request| !request.from.is_empty()) {
            let from = requests.iter().flat_map(|request| request.from.clone()).collect();
            asked.taken.allowed.insert(binding.clone(), from);
        }
        asked.taken.bindings.push(binding);
    }
    Ok(asked)
}

/// A port of gateway mode `routed`: without a place on the host.
pub(super) fn opened_port(request: &PortRequest, address: IpAddr) -> PortBinding {
    let unspecified: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    PortBinding {
        proto: request.proto,
        container_port: request.container_port,
        host_ip: unspecified,
        host_port: 0,
    }
}

/// Where a request is published: where it says, or on every address of the families that the
/// endpoint has.
pub(super) fn addresses(request: &PortRequest, publisher: &Publisher<'_>) -> Result<Vec<IpAddr>, Error> {
    let direct = |address: &IpAddr| if address.is_ipv4() { publisher.has_ipv4 } else { publisher.has_ipv6 };
    let carried =
        publisher.proxy && request.proto != Proto::Sctp && (publisher.has_ipv4 || publisher.has_ipv6);
    let reachable = |address: &IpAddr| match publisher.routed(address) {
        true => direct(address),
        false => (address.is_ipv4() || publisher.host_ipv6) && (direct(address) || carried),
    };
    // 0.0.0.0 as the default is what Docker says for every address of both families.
    let default = publisher.default_binding.filter(|address| *address != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match request.host_ip.or(default) {
        Some(address) if reachable(&address) => Ok(vec![address]),
        Some(_) if publisher.lenient => Ok(Vec::new()),
        Some(address) => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            Err(Error::invalid(format!(
                "cannot publish port {}/{} on {address}: container {} has no {family} address to lead it to, and the engine carries TCP and UDP over from one family to the other, if so told (--userland-proxy)",
                request.container_port, request.proto, publisher.container_name
            )))
        }
        None => {
            let (v4, v6) = match publisher.default_loopback {
                true => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
                false => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
            };
            let both = [IpAddr::V4(v4), IpAddr::V6(v6)];
            Ok(both.into_iter().filter(reachable).collect())
        }
    }
}

fn take_hold(host: &dyn Host, hold: PortBinding) -> Result<(), Refusal> {
    match host.execute(&[Step::HoldPort(hold)]).error {
        None => Ok(()),
        Some(error) if error.errno == Some(EADDRINUSE) => Err(Refusal::Foreign { reason: error.reason }),
        // Docker's text is the host's; that it was a step of ours helps nobody.
        Some(error) => Err(Refusal::Broken(Error::internal(error.reason))),
    }
}

/// Lets go of ports that were taken for nothing.
pub(super) fn release<'a>(host: &dyn Host, bindings: impl IntoIterator<Item = &'a PortBinding>) {
    let steps: Vec<Step> = bindings
        .into_iter()
        .filter(|binding| binding.host_port != 0)
        .map(|binding| Step::ReleasePort(hold_of(binding)))
        .collect();
    crate::apply::run_whatever_fails(host, &steps);
}

/// Docker's texts.
fn refused(group: &Group, last: Option<(u16, Refusal)>) -> Error {
    match last {
        Some((port, Refusal::Ours { address, container_name })) if is_exact(group.range) => {
            Error::internal(format!(
                "Bind for {address}:{port} failed: port is already allocated (container {container_name:?} publishes it)"
            ))
        }
        Some((_, Refusal::Foreign { reason })) if is_exact(group.range) => Error::internal(reason),
        _ => {
            let address = group.addresses.first().map_or_else(String::new, ToString::to_string);
            let range = group
                .range
                .map_or_else(|| "the ephemeral ports".to_owned(), |r| format!("{}-{}", r.first, r.last));
            Error::internal(format!("Bind for {address} failed: all ports are allocated ({range})"))
        }
    }
}

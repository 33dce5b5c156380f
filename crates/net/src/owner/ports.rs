//! Host ports: who has which, and finding free ones by taking them.

use std::collections::BTreeMap;
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
}

/// Requests that get the same host port: they differ in nothing but the host address.
#[derive(Debug)]
struct Group {
    proto: Proto,
    container_port: u16,
    range: Option<PortRange>,
    addresses: Vec<IpAddr>,
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
    ) -> Result<Taken, Error> {
        let mut groups = group(requests, publisher)?;
        groups.sort_by_key(|group| !is_exact(group.range));
        let mut taken = Vec::new();
        let mut allowed = Allowed::new();
        for group in &groups {
            match self.take_group(host, facts, group, publisher) {
                Ok(bindings) => {
                    if !group.from.is_empty() {
                        allowed.extend(bindings.iter().map(|binding| (binding.clone(), group.from.clone())));
                    }
                    taken.extend(bindings);
                }
                Err(error) => {
                    release(host, &taken);
                    self.forget(&taken, publisher.sandbox);
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
        taken.sort();
        Ok(Taken { bindings: taken, allowed })
    }

    fn take_group(
        &mut self,
        host: &dyn Host,
        facts: &HostFacts,
        group: &Group,
        publisher: &Publisher<'_>,
    ) -> Result<Vec<PortBinding>, Error> {
        let candidates: Box<dyn Iterator<Item = u16>> = match group.range {
            Some(range) => Box::new(range.first..=range.last),
            None => Box::new(ephemeral(self.next, facts)),
        };
        let mut last = None;
        for port in candidates {
            match self.take_port(host, group, port, publisher) {
                Ok(bindings) => {
                    if group.range.is_none() {
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
    ) -> Result<Vec<PortBinding>, Refusal> {
        for address in &group.addresses {
            if let Some(holder) = self.holder(group.proto, *address, port) {
                return Err(Refusal::Ours {
                    address: *address,
                    container_name: holder.container_name.clone(),
                });
            }
        }
        let mut taken: Vec<PortBinding> = Vec::new();
        for address in &group.addresses {
            let binding = PortBinding {
                proto: group.proto,
                container_port: group.container_port,
                host_ip: *address,
                host_port: port,
            };
            if let Err(refusal) = hold(host, &binding) {
                release(host, &taken);
                return Err(refusal);
            }
            taken.push(binding);
        }
        self.remember(&taken, publisher.sandbox, publisher.container_name);
        Ok(taken)
    }

    fn holder(&self, proto: Proto, address: IpAddr, port: u16) -> Option<&Holder> {
        let holders = self.held.get(&(proto, port))?;
        holders.iter().find(|holder| {
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
        for binding in bindings {
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

fn group(requests: &[PortRequest], publisher: &Publisher<'_>) -> Result<Vec<Group>, Error> {
    let mut groups: Vec<Group> = Vec::new();
    // Those that others may join, by what they have in common: there may be thousands.
    let mut open: BTreeMap<(Proto, u16, Option<PortRange>), Vec<usize>> = BTreeMap::new();
    for request in requests {
        let addresses = addresses(request, publisher)?;
        let group = Group {
            proto: request.proto,
            container_port: request.container_port,
            range: request.host_ports,
            addresses,
            from: request.from.clone(),
        };
        if is_exact(group.range) {
            groups.push(group);
            continue;
        }
        let alike = open.entry((group.proto, group.container_port, group.range)).or_default();
        let fits = |at: &&usize| {
            let other = &groups[**at];
            other.from == group.from
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
    Ok(groups)
}

/// Where a request is published: where it says, or on every address of the families that the
/// endpoint has.
pub(super) fn addresses(request: &PortRequest, publisher: &Publisher<'_>) -> Result<Vec<IpAddr>, Error> {
    let direct = |address: &IpAddr| if address.is_ipv4() { publisher.has_ipv4 } else { publisher.has_ipv6 };
    let proxied =
        publisher.proxy && request.proto != Proto::Sctp && (publisher.has_ipv4 || publisher.has_ipv6);
    let reachable =
        |address: &IpAddr| (address.is_ipv4() || publisher.host_ipv6) && (direct(address) || proxied);
    match request.host_ip.or(publisher.default_binding) {
        Some(address) if reachable(&address) => Ok(vec![address]),
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

fn hold(host: &dyn Host, binding: &PortBinding) -> Result<(), Refusal> {
    let step = Step::HoldPort(PortBinding { container_port: 0, ..binding.clone() });
    match host.execute(&[step]).error {
        None => Ok(()),
        Some(error) if error.errno == Some(EADDRINUSE) => Err(Refusal::Foreign { reason: error.reason }),
        Some(error) => Err(Refusal::Broken(Error::internal(error.to_string()))),
    }
}

/// Lets go of ports that were taken for nothing.
pub(super) fn release<'a>(host: &dyn Host, bindings: impl IntoIterator<Item = &'a PortBinding>) {
    let steps: Vec<Step> = bindings
        .into_iter()
        .map(|binding| Step::ReleasePort(PortBinding { container_port: 0, ..binding.clone() }))
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

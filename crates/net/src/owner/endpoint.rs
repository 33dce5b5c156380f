//! Endpoints: checking what is asked, building them, choosing the one that is the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use portolan_netcore::model::{
    Allowed, Driver, Endpoint, EndpointId, GatewayMode, IfName, MacAddr, Network, NetworkId, SandboxId,
    SandboxMode,
};
use portolan_netcore::shared::SharedSet;

use super::lease::Addresses;
use super::ports::{Exchange, Publisher, Taken};
use super::{Owner, entropy};
use crate::options::{SOURCE_GUARD, switch};
use crate::{AttachSpec, Error, PortRequest};

const IFNAME: &str = "com.docker.network.endpoint.ifname";
const HOST_IFNAME: &str = "portolan.endpoint.host_ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// How often and how long after one another an endpoint's addresses are announced.
const ADVERTISE_COUNT: &str = "com.docker.network.advertise_addr_nmsgs";
const ADVERTISE_INTERVAL: &str = "com.docker.network.advertise_addr_ms";
/// Docker's name for the auxiliary address that is the containers' gateway in place of the bridge's.
pub(super) const DEFAULT_GATEWAY_V4: &str = "DefaultGatewayIPv4";
pub(super) const DEFAULT_GATEWAY_V6: &str = "DefaultGatewayIPv6";

/// An endpoint and the sysctls that its options ask for, `IFNAME` replaced.
#[derive(Debug)]
pub(super) struct NewEndpoint {
    pub(super) endpoint: Endpoint,
    pub(super) sysctls: BTreeMap<String, String>,
}

/// See [`advertising`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Advertising {
    pub(super) count: u32,
    pub(super) interval: Duration,
    /// The user wants it, needed or not.
    pub(super) asked: bool,
}

impl Owner {
    /// Checks what is asked of a network, all mistakes at once. The network.
    pub(super) fn check_attach(&self, attach: &AttachSpec) -> Result<NetworkId, Error> {
        let id = self.find_id(&attach.network)?;
        let network = self.network(&id)?;
        if network.config_only {
            return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
        }
        let mut errors = Vec::new();
        let asks_address = attach.ipv4.is_some() || attach.ipv6.is_some();
        if asks_address && !user_defined(network) {
            errors.push("user specified IP address is supported on user defined networks only".to_owned());
        } else {
            errors.extend(attach.ipv4.and_then(|address| bad_address(network, address.into())));
            errors.extend(attach.ipv6.and_then(|address| bad_address(network, address.into())));
        }
        let elsewhere = attach.link_local.iter().filter(|address| !is_link_local(**address));
        errors.extend(elsewhere.map(|address| format!("invalid link local IP address: {address}")));
        errors.extend(attach.driver_opts.iter().filter_map(|(key, value)| bad_option(key, value)));
        let text = match errors.as_slice() {
            [] => return Ok(id),
            [only] => only.clone(),
            many => format!("* {}", many.join("\n* ")),
        };
        Err(Error::invalid(format!(
            "invalid config for network {}: invalid endpoint settings:\n{text}",
            network.name
        )))
    }

    /// A namespace of its own cannot be on the host network, nor the host's on another.
    pub(super) fn check_mode(&self, mode: SandboxMode, networks: &[NetworkId]) -> Result<(), Error> {
        let drivers: Vec<&Driver> = networks
            .iter()
            .filter_map(|id| self.desired.networks.get(id))
            .map(|network| &network.driver)
            .collect();
        let on_host = drivers.iter().any(|driver| matches!(driver, Driver::Host));
        let on_none = drivers.iter().any(|driver| matches!(driver, Driver::Null));
        match mode {
            SandboxMode::Private if on_host => Err(Error::invalid(
                "cannot connect container to host network - container must be created in host network mode",
            )),
            SandboxMode::Host if drivers.iter().any(|driver| !matches!(driver, Driver::Host)) => {
                Err(Error::invalid(
                    "container sharing network namespace with another container or host cannot be connected to any other network",
                ))
            }
            SandboxMode::Private if on_none && drivers.len() > 1 => Err(Error::invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            )),
            _ => Ok(()),
        }
    }

    /// An endpoint that is neither gateway nor publishes anything yet.
    pub(super) fn new_endpoint(
        &self,
        sandbox: &SandboxId,
        network: &NetworkId,
        attach: &AttachSpec,
        addresses: Addresses,
        taken: &BTreeSet<IfName>,
    ) -> Result<NewEndpoint, Error> {
        let network = self.network(network)?;
        let id = EndpointId::from_bytes(entropy());
        let lo = || IfName::new("lo").map_err(|error| Error::internal(error.to_string()));
        let mut host_ifname = lo()?;
        let (ifname, gateways) = match &network.driver {
            Driver::Bridge(_) => {
                host_ifname = self.host_ifname(&id, attach)?;
                (ifname(network.driver.ifname_prefix(), attach, taken)?, gateways(network))
            }
            Driver::Macvlan(_) | Driver::Ipvlan(_) => {
                (ifname(network.driver.ifname_prefix(), attach, taken)?, gateways(network))
            }
            Driver::Host | Driver::Null => (lo()?, (None, None)),
        };
        let endpoint = Endpoint {
            mac: attach.mac.unwrap_or_else(|| mac(&id, addresses)),
            id,
            network: network.id.clone(),
            sandbox: sandbox.clone(),
            container_name: attach.container_name.clone(),
            ifname,
            host_ifname,
            ipv4: addresses.ipv4,
            ipv6: addresses.ipv6,
            link_local: attach.link_local.iter().map(|address| link_local(*address)).collect(),
            gateway_ipv4: gateways.0.filter(|_| addresses.ipv4.is_some()),
            gateway_ipv6: gateways.1.filter(|_| addresses.ipv6.is_some()),
            is_gateway: false,
            stands_in: None,
            gw_priority: attach.gw_priority,
            dns_names: attach.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            links: attach.links.clone(),
            source_guard: source_guard(attach)?,
            published: SharedSet::new(),
            allowed: Allowed::new(),
            dhcp: None,
        };
        let sysctls = sysctls(attach, &endpoint.ifname);
        Ok(NewEndpoint { endpoint, sysctls })
    }

    /// The name of the host's end: the one asked for, or `veth` and seven digits of the endpoint's id.
    fn host_ifname(&self, id: &EndpointId, attach: &AttachSpec) -> Result<IfName, Error> {
        let Some(wanted) = attach.driver_opts.get(HOST_IFNAME) else {
            return IfName::new(&format!("veth{}", &id.short()[..7]))
                .map_err(|error| Error::internal(error.to_string()));
        };
        let name = IfName::new(wanted).map_err(|error| Error::invalid(error.to_string()))?;
        if self.host.links()?.contains_key(&name) {
            return Err(Error::conflict(format!("interface name {name} is in use on the host already")));
        }
        Ok(name)
    }

    /// Takes the host ports that an endpoint is to publish. `lenient`: those that its network cannot publish
    /// are left out.
    pub(super) fn publish(
        &mut self,
        endpoint: &Endpoint,
        requests: &[PortRequest],
        exchange: &mut Exchange,
        lenient: bool,
    ) -> Result<Taken, Error> {
        if requests.is_empty() {
            return Ok(Taken::default());
        }
        if !self.desired.settings.firewall {
            return Err(Error::unsupported(format!(
                "cannot publish ports of container {}: the firewall that leads them in is switched off (--iptables=false)",
                endpoint.container_name
            )));
        }
        let facts = self.host.facts()?;
        let options = match self.desired.networks.get(&endpoint.network).map(|network| &network.driver) {
            Some(Driver::Bridge(options)) if !options.unmanaged => options,
            // These networks are outside of the host's firewall: containers are reached directly, and
            // a port asked for is kept for when another network is the gateway.
            _ => {
                tracing::info!(container = %endpoint.container_name, "published ports have no effect: the gateway is a network that the host does not route");
                return Ok(Taken::default());
            }
        };
        let publisher = Publisher {
            sandbox: &endpoint.sandbox,
            endpoint: &endpoint.id,
            container_name: &endpoint.container_name,
            has_ipv4: endpoint.ipv4.is_some(),
            has_ipv6: endpoint.ipv6.is_some(),
            host_ipv6: facts.ipv6,
            proxy: self.desired.settings.proxy,
            default_binding: options.host_binding.or(self.config.host_binding),
            default_loopback: self.config.loopback_binding,
            routed_ipv4: options.gateway_mode_ipv4 == GatewayMode::Routed,
            routed_ipv6: options.gateway_mode_ipv6 == GatewayMode::Routed,
            lenient,
        };
        self.ports.take(self.host.as_ref(), &facts, requests, &publisher, exchange)
    }
}

fn user_defined(network: &Network) -> bool {
    !network.predefined
}

/// RFC 3927 and RFC 4291, section 2.5.6. Any other address would be one that the network does not know of.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Why a network cannot give an address that is asked for.
fn bad_address(network: &Network, address: IpAddr) -> Option<String> {
    let family = network.ipam.iter().filter(|config| config.subnet.addr().is_ipv4() == address.is_ipv4());
    let configured: Vec<_> = family.filter(|config| config.configured).collect();
    if configured.is_empty() {
        let text = "user specified IP address is supported only when connecting to networks with user configured subnets";
        Some(text.to_owned())
    } else if configured.iter().any(|config| config.subnet.contains(&address)) {
        None
    } else {
        Some(format!("no configured subnet or ip-range contain the IP address {address}"))
    }
}

/// With the prefix length of the link-local networks, RFC 3927 and RFC 4291, as Docker has it.
fn link_local(address: IpAddr) -> IpNet {
    let prefix_len = if address.is_ipv4() { 16 } else { 64 };
    IpNet::new_assert(address, prefix_len)
}

fn bad_option(key: &str, value: &str) -> Option<String> {
    match key {
        IFNAME | HOST_IFNAME => IfName::new(value).err().map(|error| error.to_string()),
        SYSCTLS => value.split(',').find_map(bad_sysctl),
        SOURCE_GUARD => switch(key, value).err().map(|error| error.message().to_owned()),
        ADVERTISE_COUNT => bad_number(key, value, 0, 3),
        ADVERTISE_INTERVAL => bad_number(key, value, 100, 2000),
        _ => Some(format!("unknown driver option {key:?} of an endpoint")),
    }
}

/// On, unless the endpoint's option says otherwise.
fn source_guard(attach: &AttachSpec) -> Result<bool, Error> {
    attach.driver_opts.get(SOURCE_GUARD).map_or(Ok(true), |value| switch(SOURCE_GUARD, value))
}

fn bad_number(key: &str, value: &str, least: u64, most: u64) -> Option<String> {
    let good = value.parse().is_ok_and(|number| (least..=most).contains(&number));
    (!good).then(|| format!("{key} must be in the range {least} to {most}, not {value:?}"))
}

/// How an endpoint announces its addresses: `com.docker.network.advertise_addr_*`, or three times, a second
/// apart.
pub(super) fn advertising(attach: &AttachSpec) -> Advertising {
    let number = |key: &str| attach.driver_opts.get(key).and_then(|value| value.parse::<u32>().ok());
    Advertising {
        count: number(ADVERTISE_COUNT).unwrap_or(3),
        interval: Duration::from_millis(number(ADVERTISE_INTERVAL).unwrap_or(1000).into()),
        asked: attach.driver_opts.contains_key(ADVERTISE_COUNT),
    }
}

fn bad_sysctl(sysctl: &str) -> Option<String> {
    let parts: Vec<&str> = sysctl.splitn(5, '.').collect();
    let valid = match parts.as_slice() {
        [_, family, _, ifname, rest] => {
            matches!(*family, "ipv4" | "ipv6" | "mpls")
                && matches!(*ifname, "IFNAME" | "ifname")
                && rest.contains('=')
        }
        _ => false,
    };
    (!valid).then(|| {
        format!(
            "unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
        )
    })
}

fn sysctls(attach: &AttachSpec, ifname: &IfName) -> BTreeMap<String, String> {
    let texts = attach.driver_opts.get(SYSCTLS).map_or("", String::as_str);
    let pairs = texts.split(',').filter_map(|text| text.split_once('='));
    pairs
        .map(|(key, value)| {
            let parts: Vec<&str> = key
                .split('.')
                .map(|part| if part.eq_ignore_ascii_case("ifname") { ifname.as_str() } else { part })
                .collect();
            (parts.join("."), value.to_owned())
        })
        .collect()
}

/// The name asked for, or the prefix with the lowest number that is free.
fn ifname(prefix: &str, attach: &AttachSpec, taken: &BTreeSet<IfName>) -> Result<IfName, Error> {
    if let Some(wanted) = attach.driver_opts.get(IFNAME) {
        let name = IfName::new(wanted).map_err(|error| Error::invalid(error.to_string()))?;
        if taken.contains(&name) || name.as_str() == "lo" {
            return Err(Error::invalid(format!("interface name {name} is in use in the container already")));
        }
        return Ok(name);
    }
    (0..=taken.len())
        .filter_map(|number| IfName::new(&format!("{}{number}", prefix)).ok())
        .find(|name| !taken.contains(name))
        .ok_or_else(|| Error::invalid(format!("no interface name is left with the prefix {}", prefix)))
}

/// The gateways that containers use: none on an internal network.
fn gateways(network: &Network) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    if network.internal || network.routing.no_default_route {
        return (None, None);
    }
    let mut found = (None, None);
    for config in &network.ipam {
        let other = config.auxiliary.get(DEFAULT_GATEWAY_V4).or(config.auxiliary.get(DEFAULT_GATEWAY_V6));
        match other.copied().or(config.gateway) {
            Some(IpAddr::V4(address)) => found.0 = Some(address),
            Some(IpAddr::V6(address)) => found.1 = Some(address),
            None => {}
        }
    }
    found
}

/// From the IPv4 address; for an endpoint with IPv6 only, from all of that address, as several may end alike
/// on one network; for one without addresses, from its id.
fn mac(id: &EndpointId, addresses: Addresses) -> MacAddr {
    match (addresses.ipv4, addresses.ipv6) {
        (Some(net), _) => MacAddr::of_ipv4(net.addr()),
        (None, Some(net)) => {
            // FNV-1a: the same on every host and for ever, as the address is.
            let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            let [a, b, c, d] = net.addr().octets().into_iter().fold(0x811c_9dc5, fold).to_be_bytes();
            MacAddr([0x02, 0x42, a, b, c, d])
        }
        (None, None) => {
            let byte = |at: usize| u8::from_str_radix(&id.as_str()[at..at + 2], 16).unwrap_or_default();
            MacAddr([0x02, 0x42, byte(0), byte(2), byte(4), byte(6)])
        }
    }
}

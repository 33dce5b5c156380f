//! From what a user asks for to a network, checked: mistakes in the IPAM configuration are reported
//! all together, in Docker's words.

mod entries;
mod subnets;

use std::collections::BTreeMap;

use ipnet::IpNet;
use portolan_netcore::host::{ForeignRoute, Host};
use portolan_netcore::ipam::Pools;
use portolan_netcore::model::{
    Driver, GatewayMode, IPV6_MIN_MTU, IpamConfig, IpvlanOptions, MacvlanOptions, Network, NetworkId,
    RouteTarget, Routing, StaticRoute,
};

use crate::options::{self, GenericOptions};
use crate::{Error, NetworkSpec, parent};

use entries::{ParsedPool, is_link_local, of_all, pools_of};
use subnets::subnets;

pub(crate) use entries::understood;
pub(crate) use subnets::{check_free, occupied, pools, reserve_bridge_addresses, unique_local, with_gateway};

/// The IPAM driver whose addresses a DHCP server of the link lends. Podman's name for it.
pub(crate) const DHCP: &str = "dhcp";
/// Docker's key: addresses are given one after the other.
const SERIAL: &str = "com.docker.network.ipam.serial";

/// Names that no user network may have. Docker: `IsPredefined`.
pub(crate) const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];

/// What a new network must not collide with, and what its choices depend on.
pub(crate) struct Surroundings<'a> {
    /// Where subnets come from.
    pub(crate) pools: &'a Pools,
    /// Subnets of other networks, and those networks' names.
    pub(crate) networks: &'a [(IpNet, String)],
    /// The host's other routes: avoided, but not refused to who names one.
    pub(crate) routes: &'a [ForeignRoute],
    /// The host, for its links.
    pub(crate) host: &'a dyn Host,
}

/// A network as the user asks for it. The name is known to be free.
pub(crate) fn network(
    spec: NetworkSpec,
    id: NetworkId,
    created_ns: i64,
    around: &Surroundings<'_>,
) -> Result<Network, Error> {
    check_name(&spec.name)?;
    check_kind(&spec)?;
    let (mut driver, generic) = all_or_mistakes(&id, &spec)?;
    let GenericOptions { ipv4, ipv6, internal, routing, mtu_of_egress } = generic;
    let ipv4 = spec.ipv4.or(ipv4).unwrap_or(true);
    let ipv6 = spec.ipv6.or(ipv6).unwrap_or(false);
    let mut internal = spec.internal || internal.unwrap_or(false);
    let pools = together(
        pools_of(&spec.ipam, ipv6),
        [check_gateway_modes(&driver, internal), check_families(ipv4, ipv6), check_mtu(&driver, ipv6)],
    )?;
    parent::settle(&mut driver, &mut internal, around.host)?;
    if mtu_of_egress {
        parent::set_mtu(&mut driver, ipv6, around.host)?;
    }
    let ipam = match spec.ipam_driver.as_str() {
        "null" => no_subnets(&pools, ipv6)?,
        DHCP => lent(&pools, &driver, ipv4, ipv6)?,
        _ => subnets(pools, ipv4, ipv6, &driver, around)?,
    };
    check_routes(&routing, &ipam)?;
    Ok(Network {
        id,
        name: spec.name,
        created_ns,
        driver,
        ipv4,
        ipv6,
        internal,
        attachable: spec.attachable,
        ipam_driver: if spec.ipam_driver.is_empty() { "default".to_owned() } else { spec.ipam_driver },
        ipam_options: spec.ipam_options,
        ipam,
        options: spec.options,
        labels: spec.labels,
        predefined: false,
        config_only: false,
        config_from: Some(spec.config_from).filter(|name| !name.is_empty()),
        routing,
    })
}

/// What the options say. Their mistakes are told together with those of the IPAM configuration, which
/// is otherwise looked at later, when the options have had their say.
fn all_or_mistakes(id: &NetworkId, spec: &NetworkSpec) -> Result<(Driver, GenericOptions), Error> {
    options::parse(id, &spec.driver, &spec.options).map_err(|error| {
        // Which family is on is not known for sure: an entry of either is looked at.
        match pools_of(&spec.ipam, spec.ipv6.unwrap_or(true)) {
            Ok(_) => error,
            Err(others) => Error::invalid(format!("{}\n{}", others.message(), error.message())),
        }
    })
}

/// The pools, or all mistakes: those of the IPAM configuration first, as in Docker.
fn together(
    pools: Result<Vec<ParsedPool>, Error>,
    others: [Result<(), Error>; 3],
) -> Result<Vec<ParsedPool>, Error> {
    let mistakes: Vec<Error> = others.into_iter().filter_map(Result::err).collect();
    match (pools, mistakes.as_slice()) {
        (pools, []) => pools,
        (pools, mistakes) => {
            let texts = pools.err().into_iter().chain(mistakes.iter().cloned());
            let texts: Vec<String> = texts.map(|error| error.message().to_owned()).collect();
            Err(Error::invalid(texts.join("\n")))
        }
    }
}

fn check_families(ipv4: bool, ipv6: bool) -> Result<(), Error> {
    if ipv4 || ipv6 { Ok(()) } else { Err(Error::invalid("IPv4 or IPv6 must be enabled")) }
}

/// On smaller links the kernel has no IPv6.
fn check_mtu(driver: &Driver, ipv6: bool) -> Result<(), Error> {
    let mtu = match driver {
        Driver::Bridge(options) => options.mtu,
        Driver::Macvlan(MacvlanOptions { parent, .. }) | Driver::Ipvlan(IpvlanOptions { parent, .. }) => {
            parent.mtu
        }
        Driver::Host | Driver::Null => None,
    };
    match mtu {
        Some(mtu) if ipv6 && mtu < IPV6_MIN_MTU => Err(Error::invalid(format!(
            "invalid option {}: an MTU of {mtu} is too small for IPv6, which needs {IPV6_MIN_MTU}",
            options::MTU
        ))),
        _ => Ok(()),
    }
}

/// The driver `null` of address management gives no addresses. Docker's texts.
fn no_subnets(pools: &[ParsedPool], ipv6: bool) -> Result<Vec<IpamConfig>, Error> {
    if pools.iter().any(|pool| pool.ip_range.is_some()) {
        return Err(Error::invalid("null ipam driver does not handle specific address subpool requests"));
    }
    if pools.iter().any(|pool| pool.subnet.is_some()) {
        return Err(Error::invalid("null ipam driver does not handle specific address pool requests"));
    }
    if ipv6 {
        return Err(Error::invalid("null ipam driver does not handle IPv6 address pool pool requests"));
    }
    Ok(Vec::new())
}

/// A DHCP server is somebody else's and knows the subnet: it needs a link that leads to it, on which
/// each container has a hardware address of its own.
fn lent(pools: &[ParsedPool], driver: &Driver, ipv4: bool, ipv6: bool) -> Result<Vec<IpamConfig>, Error> {
    let mut errors = Vec::new();
    let leads_there = match driver {
        Driver::Bridge(options) => options.unmanaged,
        Driver::Macvlan(options) => {
            if options.host_access.is_some() {
                errors.push(
                    "the host's own address on the network needs a subnet: leave portolan.host_access out",
                );
            }
            true
        }
        _ => false,
    };
    if !leads_there {
        errors.push("it is for macvlan networks and unmanaged bridges (-o portolan.unmanaged=true) only");
    }
    if !pools.is_empty() {
        errors.push("subnets, ranges, gateways and auxiliary addresses are the server's to say");
    }
    if ipv6 || !ipv4 {
        errors.push("it gives IPv4 addresses only: there is no DHCPv6 client");
    }
    match errors.as_slice() {
        [] => Ok(Vec::new()),
        errors => Err(Error::invalid(format!("invalid use of the IPAM driver dhcp: {}", errors.join("; ")))),
    }
}

/// The next hops of static routes are neighbours, and the network itself is none's destination. All mistakes.
fn check_routes(routing: &Routing, ipam: &[IpamConfig]) -> Result<(), Error> {
    let wrong = routing.routes.iter().filter_map(|route| bad_route(route, ipam));
    let wrong: Vec<String> = wrong.map(|why| format!("invalid option {}: {why}", options::ROUTES)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::invalid(wrong.join("\n"))) }
}

/// Where a DHCP server says the subnet, all that is to be known is what the route says itself.
fn bad_route(route: &StaticRoute, ipam: &[IpamConfig]) -> Option<String> {
    let destination = route.destination;
    if ipam.iter().any(|config| config.subnet == destination) {
        return Some(format!(
            "{destination} is the network's own subnet, which its containers reach directly"
        ));
    }
    let RouteTarget::Gateway(gateway) = route.via else { return None };
    if gateway.is_unspecified() || gateway.is_multicast() || gateway.is_loopback() {
        return Some(format!("the next hop {gateway} of {destination} can be nobody's address"));
    }
    match ipam.iter().find(|config| config.subnet.contains(&gateway)) {
        None if ipam.is_empty() || is_link_local(gateway) => None,
        None => Some(format!("the next hop {gateway} of {destination} is in none of the network's subnets")),
        Some(config) => of_all(gateway, config.subnet)
            .map(|why| format!("the next hop {gateway} of {destination} can be nobody's address: {why}")),
    }
}

/// Refuses predefined names and empty ones. As in Docker, any other text is a name.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if PREDEFINED.contains(&name) {
        return Err(Error::forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    if name.trim().is_empty() { Err(Error::invalid("invalid name: name is empty")) } else { Ok(()) }
}

fn check_kind(spec: &NetworkSpec) -> Result<(), Error> {
    match spec.driver.as_str() {
        "" | "bridge" | "default" | "macvlan" | "ipvlan" => {}
        only @ ("host" | "null") => {
            return Err(Error::forbidden(format!("only one instance of \"{only}\" network is allowed")));
        }
        "overlay" => {
            return Err(Error::forbidden(
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ));
        }
        other => return Err(Error::not_found(format!("plugin {other:?} not found"))),
    }
    if !matches!(spec.scope.as_str(), "" | "local") {
        return Err(Error::unsupported(format!(
            "networks of scope {:?} are not supported: use local",
            spec.scope
        )));
    }
    if !matches!(spec.ipam_driver.as_str(), "" | "default" | "null" | DHCP) {
        return Err(Error::not_found(format!("plugin {:?} not found", spec.ipam_driver)));
    }
    match spec.ipam_options.iter().flatten().find(|(key, _)| *key != SERIAL) {
        Some((key, _)) => Err(Error::invalid(format!("unknown option {key:?} of the IPAM driver"))),
        None => serial(spec.ipam_options.as_ref()).map(drop),
    }
}

/// Whether addresses are given one after the other.
pub(crate) fn serial(options: Option<&BTreeMap<String, String>>) -> Result<bool, Error> {
    options.and_then(|options| options.get(SERIAL)).map_or(Ok(false), |value| options::boolean(SERIAL, value))
}

fn check_gateway_modes(driver: &Driver, internal: bool) -> Result<(), Error> {
    let Driver::Bridge(bridge) = driver else { return Ok(()) };
    let isolated = [bridge.gateway_mode_ipv4, bridge.gateway_mode_ipv6].contains(&GatewayMode::Isolated);
    if isolated && !internal {
        return Err(Error::invalid("gateway mode 'isolated' can only be used for an internal network"));
    }
    Ok(())
}

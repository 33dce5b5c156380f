//! From what a user asks for to a network, checked: mistakes in the IPAM configuration are reported
//! all together, in Docker's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_netcore::ipam::{AddressSpace, Pools};
use portolan_netcore::model::{BridgeOptions, Driver, GatewayMode, IpamConfig, Network, NetworkId};

use crate::options::{self, GenericOptions};
use crate::{Error, IpamPoolSpec, NetworkSpec};

/// Names that no user network may have. Docker: `IsPredefined`.
pub(crate) const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];

/// What the subnet of a new network must not collide with.
pub(crate) struct Surroundings<'a> {
    /// Where subnets come from.
    pub(crate) pools: &'a Pools,
    /// Subnets of other networks.
    pub(crate) networks: &'a [IpNet],
    /// Destinations of the host's other routes: avoided, but not refused to who names one.
    pub(crate) routes: &'a [IpNet],
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
    let (bridge, generic) = options::parse(&id, &spec.options)?;
    let GenericOptions { ipv4, ipv6, internal } = generic;
    let ipv4 = spec.ipv4.or(ipv4).unwrap_or(true);
    let ipv6 = spec.ipv6.or(ipv6).unwrap_or(false);
    let internal = spec.internal || internal.unwrap_or(false);
    check_gateway_modes(&bridge, internal)?;
    if !ipv4 && !ipv6 {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    let pools = pools_of(&spec.ipam, ipv6)?;
    let ipam = subnets(pools, ipv4, ipv6, around)?;
    Ok(Network {
        id,
        name: spec.name,
        created_ns,
        driver: Driver::Bridge(bridge),
        ipv4,
        ipv6,
        internal,
        attachable: spec.attachable,
        ipam_driver: "default".to_owned(),
        ipam_options: spec.ipam_options,
        ipam,
        options: spec.options,
        labels: spec.labels,
        predefined: false,
    })
}

/// Refuses predefined names and empty ones.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if PREDEFINED.contains(&name) {
        return Err(Error::forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if name.trim().is_empty() {
        Err(Error::invalid("invalid name: name is empty"))
    } else if !valid {
        Err(Error::invalid(format!(
            "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed"
        )))
    } else {
        Ok(())
    }
}

fn check_kind(spec: &NetworkSpec) -> Result<(), Error> {
    match spec.driver.as_str() {
        "" | "bridge" | "default" => {}
        only @ ("host" | "null") => {
            return Err(Error::forbidden(format!("only one instance of \"{only}\" network is allowed")));
        }
        "overlay" => {
            return Err(Error::forbidden(
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ));
        }
        later @ ("macvlan" | "ipvlan") => {
            return Err(Error::unsupported(format!(
                "the network driver {later} is not supported yet: use bridge"
            )));
        }
        other => return Err(Error::not_found(format!("plugin {other:?} not found"))),
    }
    if !matches!(spec.scope.as_str(), "" | "local") {
        return Err(Error::unsupported(format!(
            "networks of scope {:?} are not supported: use local",
            spec.scope
        )));
    }
    if !matches!(spec.ipam_driver.as_str(), "" | "default") {
        return Err(Error::not_found(format!("plugin {:?} not found", spec.ipam_driver)));
    }
    match spec.ipam_options.keys().next() {
        Some(key) => Err(Error::invalid(format!("unknown option {key:?} of the IPAM driver default"))),
        None => Ok(()),
    }
}

fn check_gateway_modes(bridge: &BridgeOptions, internal: bool) -> Result<(), Error> {
    let isolated = [bridge.gateway_mode_ipv4, bridge.gateway_mode_ipv6].contains(&GatewayMode::Isolated);
    if isolated && !internal {
        return Err(Error::invalid("gateway mode 'isolated' can only be used for an internal network"));
    }
    Ok(())
}

/// An entry of the IPAM configuration whose texts are understood.
struct ParsedPool {
    /// None: any, from the pools. An unspecified address asks for its size only.
    subnet: Option<IpNet>,
    ip_range: Option<IpNet>,
    gateway: Option<IpAddr>,
    auxiliary: BTreeMap<String, IpAddr>,
}

/// Understands and checks every entry; all the mistakes at once.
fn pools_of(specs: &[IpamPoolSpec], ipv6: bool) -> Result<Vec<ParsedPool>, Error> {
    let mut errors = Vec::new();
    let mut pools = Vec::new();
    for spec in specs {
        let pool = parse_pool(spec, &mut errors);
        if let Some(subnet) = pool.subnet {
            if matches!(subnet, IpNet::V6(_)) && !ipv6 {
                // Docker leaves these out of its checks and of the network.
                continue;
            }
            check_pool(&pool, subnet, &mut errors);
        }
        pools.push(pool);
    }
    match errors.as_slice() {
        [] => Ok(pools),
        [only] => Err(Error::invalid(format!("invalid network config:\n{only}"))),
        many => Err(Error::invalid(format!("invalid network config:\n* {}", many.join("\n* ")))),
    }
}

fn parse_pool(spec: &IpamPoolSpec, errors: &mut Vec<String>) -> ParsedPool {
    let mut keep = |text: &str, what: &str| {
        errors.push(format!("invalid {what} {text}"));
    };
    let subnet = text(
        &spec.subnet,
        |t| t.parse::<IpNet>().ok(),
        || keep(&spec.subnet, "CIDR block notation for subnet"),
    );
    let ip_range = text(
        &spec.ip_range,
        |t| t.parse::<IpNet>().ok(),
        || keep(&spec.ip_range, "CIDR block notation for ip-range"),
    );
    let gateway =
        text(&spec.gateway, |t| t.parse::<IpAddr>().ok(), || keep(&spec.gateway, "gateway address"));
    let mut auxiliary = BTreeMap::new();
    for (name, address) in &spec.auxiliary {
        match address.parse() {
            Ok(address) => {
                auxiliary.insert(name.clone(), address);
            }
            Err(_) => keep(address, &format!("auxiliary address {name}:")),
        }
    }
    ParsedPool { subnet, ip_range, gateway, auxiliary }
}

fn text<T>(text: &str, parse: impl Fn(&str) -> Option<T>, bad: impl FnOnce()) -> Option<T> {
    if text.is_empty() {
        return None;
    }
    let value = parse(text);
    if value.is_none() {
        bad();
    }
    value
}

fn family(v4: bool) -> u8 {
    if v4 { 4 } else { 6 }
}

fn check_pool(pool: &ParsedPool, subnet: IpNet, errors: &mut Vec<String>) {
    if subnet.addr() != subnet.network() {
        errors.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    if let Some(range) = pool.ip_range {
        check_range(range, subnet, errors);
    }
    if let Some(gateway) = pool.gateway
        && let Some(why) = outside(gateway, subnet)
    {
        errors.push(format!("invalid gateway {gateway}: {why}"));
    }
    for (name, address) in &pool.auxiliary {
        if let Some(why) = outside(*address, subnet) {
            errors.push(format!("invalid auxiliary address {name}: {why}"));
        }
    }
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn check_range(range: IpNet, subnet: IpNet, errors: &mut Vec<String>) {
    if is_v4(&range) != is_v4(&subnet) {
        let number = family(is_v4(&subnet));
        errors.push(format!("invalid ip-range {range}: parent subnet is an IPv{number} block"));
        return;
    }
    if range.prefix_len() < subnet.prefix_len() {
        errors
            .push(format!("invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if range.addr() != range.network() {
        errors.push(format!("invalid ip-range {range}: it should be {}", range.trunc()));
    }
    if !subnet.contains(&range.network()) && !range.contains(&subnet.network()) {
        errors.push(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"));
    }
}

fn outside(address: IpAddr, subnet: IpNet) -> Option<String> {
    if address.is_ipv4() != is_v4(&subnet) {
        Some(format!("parent subnet is an IPv{} block", family(is_v4(&subnet))))
    } else if !subnet.contains(&address) {
        Some(format!("parent subnet {subnet} doesn't contain this address"))
    } else {
        None
    }
}

fn subnets(
    pools: Vec<ParsedPool>,
    ipv4: bool,
    ipv6: bool,
    around: &Surroundings<'_>,
) -> Result<Vec<IpamConfig>, Error> {
    // An entry without a subnet is for IPv4, as in Docker.
    let (v4, v6): (Vec<_>, Vec<_>) =
        pools.into_iter().partition(|pool| pool.subnet.is_none_or(|net| is_v4(&net)));
    if v4.len() > 1 || v6.len() > 1 {
        return Err(Error::forbidden("bridge driver doesn't support multiple subnets"));
    }
    let mut configs = Vec::new();
    if ipv4 {
        configs.push(config(v4.into_iter().next(), true, around)?);
    }
    if ipv6 {
        configs.push(config(v6.into_iter().next(), false, around)?);
    }
    Ok(configs)
}

fn config(pool: Option<ParsedPool>, v4: bool, around: &Surroundings<'_>) -> Result<IpamConfig, Error> {
    let pool = pool.unwrap_or(ParsedPool {
        subnet: None,
        ip_range: None,
        gateway: None,
        auxiliary: BTreeMap::new(),
    });
    let (size, named) = match pool.subnet {
        Some(subnet) if subnet.addr().is_unspecified() => {
            (Some(subnet.prefix_len()).filter(|size| *size > 0), None)
        }
        named => (None, named),
    };
    let subnet = match named {
        Some(subnet) => {
            let clash = around
                .networks
                .iter()
                .any(|net| net.contains(&subnet.network()) || subnet.contains(&net.network()));
            if clash {
                return Err(Error::forbidden(
                    "invalid pool request: Pool overlaps with other one on this address space",
                ));
            }
            subnet
        }
        None => {
            if pool.ip_range.is_some() || pool.gateway.is_some() || !pool.auxiliary.is_empty() {
                return Err(Error::invalid(
                    "invalid network config:\nan ip-range, a gateway or an auxiliary address needs a subnet",
                ));
            }
            from_pools(size, v4, around)?
        }
    };
    with_gateway(IpamConfig {
        subnet,
        ip_range: pool.ip_range,
        gateway: pool.gateway,
        auxiliary: pool.auxiliary,
        configured: named.is_some(),
    })
}

fn from_pools(size: Option<u8>, v4: bool, around: &Surroundings<'_>) -> Result<IpNet, Error> {
    // A default route is in nobody's way.
    let routes = around.routes.iter().filter(|net| net.prefix_len() > 0);
    let used: Vec<IpNet> = around.networks.iter().chain(routes).copied().collect();
    let subnet = if v4 {
        around.pools.choose_ipv4(&used, size).map(IpNet::V4)
    } else {
        around.pools.choose_ipv6(&used, size).map(IpNet::V6)
    };
    subnet.ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))
}

/// The gateway is the lowest free address unless it is named.
pub(crate) fn with_gateway(mut config: IpamConfig) -> Result<IpamConfig, Error> {
    if config.gateway.is_none() {
        let free = AddressSpace::new(&config).first_free();
        config.gateway = Some(free.ok_or_else(|| {
            Error::invalid(format!("no address is left for a gateway in {}", config.subnet))
        })?);
    }
    Ok(config)
}

/// The unique local /48 of a host (RFC 4193), from an id that stays.
pub(crate) fn unique_local(id: &NetworkId) -> Ipv6Net {
    let digits = u64::from_str_radix(&id.as_str()[..10], 16).unwrap_or_default();
    let bits = (0xfd_u128 << 120) | (u128::from(digits) << 80);
    Ipv6Net::new_assert(bits.into(), 48)
}

/// Docker's pools or the configured ones; a family without a configured pool keeps Docker's.
pub(crate) fn pools(configured: &[(IpNet, u8)], ula: Ipv6Net) -> Result<Pools, Error> {
    use portolan_netcore::ipam::Pool;
    if configured.is_empty() {
        return Ok(Pools::docker(ula));
    }
    let mut pools = Vec::new();
    for (base, size) in configured {
        pools.push(Pool::new(*base, *size).map_err(|error| Error::invalid(error.to_string()))?);
    }
    let mut pools = Pools::new(pools);
    if !pools.has_ipv6() {
        pools.push(Pool::new(ula.into(), 64).map_err(|error| Error::internal(error.to_string()))?);
    }
    Ok(pools)
}

/// The default bridge's IPv4 subnet: the one asked for, or the first of the pools.
pub(crate) fn default_ipv4(pools: &Pools, bip: Option<Ipv4Net>, routes: &[IpNet]) -> Result<Ipv4Net, Error> {
    if let Some(bip) = bip {
        return Ok(bip.trunc());
    }
    let used: Vec<IpNet> = routes.iter().filter(|net| net.prefix_len() > 0).copied().collect();
    pools.choose_ipv4(&used, None).ok_or_else(|| {
        Error::invalid("no subnet is left for the default bridge: every address pool overlaps with a route of this host; name one with --bip")
    })
}

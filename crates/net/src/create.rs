//! From what a user asks for to a network, checked: mistakes in the IPAM configuration are reported
//! all together, in Docker's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use portolan_netcore::host::{ForeignRoute, Host};
use portolan_netcore::ipam::{AddressSpace, Occupied, Pools};
use portolan_netcore::model::{
    Adopted, Driver, GatewayMode, IPV6_MIN_MTU, IpamConfig, IpvlanOptions, MacvlanOptions, Network,
    NetworkId, RouteTarget, Routing, StaticRoute,
};
use portolan_netcore::plan::HOST_ADDRESS;

use crate::options::{self, GenericOptions};
use crate::{Error, IpamPoolSpec, NetworkSpec, parent};

/// The IPAM driver whose addresses a DHCP server of the link lends. Podman's name for it.
pub(crate) const DHCP: &str = "dhcp";
/// Docker's key: addresses are given one after the other.
const SERIAL: &str = "com.docker.network.ipam.serial";

/// The auxiliary address that an adopted bridge has beside the gateway's.
const BRIDGE_ADDRESS: &str = "portolan.bridge";

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

/// An entry of the IPAM configuration whose texts are understood.
#[derive(Default)]
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

/// What a configuration for other networks says, checked as far as it can be without them.
pub(crate) fn understood(specs: &[IpamPoolSpec], ipv6: bool) -> Result<Vec<IpamConfig>, Error> {
    let pools = pools_of(specs, ipv6)?;
    let config = |pool: ParsedPool| {
        let ParsedPool { subnet, ip_range, gateway, auxiliary } = pool;
        Some(IpamConfig { subnet: subnet?, ip_range, gateway, auxiliary, configured: true })
    };
    Ok(pools.into_iter().filter_map(config).collect())
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
    if subnet.addr().is_multicast() {
        errors.push(format!("invalid subnet {subnet}: multicast subnets are not allowed"));
    }
    if let Some(range) = pool.ip_range {
        check_range(range, subnet, errors);
    }
    // Routers of IPv6 are known by their link-local addresses (RFC 4861).
    if let Some(gateway) = pool.gateway.filter(|gateway| is_v4(&subnet) || !is_link_local(*gateway))
        && let Some(why) = outside(gateway, subnet).or_else(|| of_all(gateway, subnet))
    {
        errors.push(format!("invalid gateway {gateway}: {why}"));
    }
    let mut taken: BTreeMap<IpAddr, &str> =
        pool.gateway.into_iter().map(|gateway| (gateway, "the gateway")).collect();
    for (name, address) in &pool.auxiliary {
        let why = outside(*address, subnet).or_else(|| of_all(*address, subnet));
        let why = why.or_else(|| taken.get(address).map(|by| format!("address {address} is {by}'s already")));
        if let Some(why) = why {
            errors.push(format!("invalid auxiliary address {name}: {why}"));
        }
        taken.insert(*address, name);
    }
}

/// Of IPv4, the first and the last address of a subnet are nobody's own (RFC 1122 3.2.1.3), unless it has no
/// others (RFC 3021).
fn of_all(address: IpAddr, subnet: IpNet) -> Option<String> {
    let IpNet::V4(net) = subnet else { return None };
    if net.prefix_len() >= 31 {
        return None;
    }
    if address == net.network() {
        Some(format!("it is the address of the subnet {subnet} itself"))
    } else if address == net.broadcast() {
        Some(format!("it is the broadcast address of the subnet {subnet}"))
    } else {
        None
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
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
    driver: &Driver,
    around: &Surroundings<'_>,
) -> Result<Vec<IpamConfig>, Error> {
    // An entry without a subnet is for IPv4, as in Docker.
    let (v4, v6): (Vec<_>, Vec<_>) =
        pools.into_iter().partition(|pool| pool.subnet.is_none_or(|net| is_v4(&net)));
    if matches!(driver, Driver::Bridge(_)) && (v4.len() > 1 || v6.len() > 1) {
        return Err(Error::forbidden("bridge driver doesn't support multiple subnets"));
    }
    let mut configs: Vec<IpamConfig> = Vec::new();
    let mut taken = around.networks.to_vec();
    for (wanted, pools, is_ipv4) in [(ipv4, v4, true), (ipv6, v6, false)] {
        let pools = if pools.is_empty() { vec![ParsedPool::default()] } else { pools };
        for pool in pools.into_iter().filter(|_| wanted) {
            let around = Surroundings { networks: &taken, ..*around };
            let config = config(pool, is_ipv4, driver, &around)?;
            taken.push((config.subnet, "this network itself".to_owned()));
            configs.push(config);
        }
    }
    Ok(configs)
}

fn config(
    pool: ParsedPool,
    v4: bool,
    driver: &Driver,
    around: &Surroundings<'_>,
) -> Result<IpamConfig, Error> {
    let (size, named) = match pool.subnet {
        Some(subnet) if subnet.addr().is_unspecified() => {
            (Some(subnet.prefix_len()).filter(|size| *size > 0), None)
        }
        named => (None, named),
    };
    let subnet = match named {
        Some(subnet) => {
            check_free(subnet, around.networks)?;
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
    let config = IpamConfig {
        subnet,
        ip_range: pool.ip_range,
        gateway: pool.gateway,
        auxiliary: pool.auxiliary,
        configured: named.is_some(),
    };
    let adopted = match driver {
        Driver::Bridge(bridge) => bridge.adopted.as_ref(),
        _ => None,
    };
    let config = match adopted {
        Some(adopted) if needs_gateway(driver, v4) => by_bridge_address(config, adopted),
        _ => config,
    };
    let mut config = if needs_gateway(driver, v4) { with_gateway(config)? } else { config };
    if let Some(adopted) = adopted {
        reserve_bridge_addresses(&mut config, adopted);
    }
    match driver {
        Driver::Macvlan(options) if options.host_access.is_some() => with_host_address(config),
        _ => Ok(config),
    }
}

/// Docker's text, and whose the other pool is.
pub(crate) fn check_free(subnet: IpNet, networks: &[(IpNet, String)]) -> Result<(), Error> {
    let clash =
        networks.iter().find(|(net, _)| net.contains(&subnet.network()) || subnet.contains(&net.network()));
    match clash {
        Some((net, holder)) => Err(Error::forbidden(format!(
            "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps with {net} of network {holder}"
        ))),
        None => Ok(()),
    }
}

/// A bridge has an address, and it is the gateway; in mode isolated it has none. Other drivers have
/// no gateway unless it is named, as since Docker 29.
fn needs_gateway(driver: &Driver, v4: bool) -> bool {
    match driver {
        Driver::Bridge(bridge) => {
            let mode = if v4 { bridge.gateway_mode_ipv4 } else { bridge.gateway_mode_ipv6 };
            mode != GatewayMode::Isolated
        }
        _ => false,
    }
}

/// The address that a bridge has already in the network's subnet is the gateway.
fn by_bridge_address(config: IpamConfig, adopted: &Adopted) -> IpamConfig {
    let own = adopted.addresses.iter().find(|address| address.trunc() == config.subnet);
    IpamConfig { gateway: config.gateway.or(own.map(IpNet::addr)), ..config }
}

/// The other addresses of a bridge that is not ours are the host's, and no container's.
pub(crate) fn reserve_bridge_addresses(config: &mut IpamConfig, adopted: &Adopted) {
    let others = adopted.addresses.iter().map(IpNet::addr);
    let others = others.filter(|address| config.subnet.contains(address) && config.gateway != Some(*address));
    let others: Vec<IpAddr> = others.collect();
    for (number, address) in others.into_iter().enumerate() {
        let name = if number == 0 { BRIDGE_ADDRESS.to_owned() } else { format!("{BRIDGE_ADDRESS}.{number}") };
        config.auxiliary.entry(name).or_insert(address);
    }
}

/// The host's own address on a macvlan network: the one named, or the lowest that is left.
fn with_host_address(mut config: IpamConfig) -> Result<IpamConfig, Error> {
    if !config.auxiliary.contains_key(HOST_ADDRESS) {
        let free = AddressSpace::new(&config).first_free().ok_or_else(|| {
            Error::invalid(format!("no address is left for the host itself in {}", config.subnet))
        })?;
        config.auxiliary.insert(HOST_ADDRESS.to_owned(), free);
    }
    Ok(config)
}

fn from_pools(size: Option<u8>, v4: bool, around: &Surroundings<'_>) -> Result<IpNet, Error> {
    let occupied = occupied(around.networks.iter().map(|(net, _)| *net), around.routes);
    let subnet = if v4 {
        around.pools.choose_ipv4(&occupied, size).map(IpNet::V4)
    } else {
        around.pools.choose_ipv6(&occupied, size).map(IpNet::V6)
    };
    subnet.ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))
}

/// What a new subnet stays clear of. A default route is in nobody's way.
pub(crate) fn occupied(networks: impl Iterator<Item = IpNet>, routes: &[ForeignRoute]) -> Occupied {
    let mut occupied = Occupied { taken: networks.collect(), routed: Vec::new() };
    for route in routes.iter().filter(|route| route.destination.prefix_len() > 0) {
        let list = if route.on_link { &mut occupied.taken } else { &mut occupied.routed };
        list.push(route.destination);
    }
    occupied
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
        return Ok(Pools::standard(ula));
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

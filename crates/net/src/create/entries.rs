//! The entries of an IPAM configuration: understood and checked, each by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netcore::model::IpamConfig;

use crate::{Error, IpamPoolSpec};

/// An entry of the IPAM configuration whose texts are understood.
#[derive(Default)]
pub(super) struct ParsedPool {
    /// None: any, from the pools. An unspecified address asks for its size only.
    pub(super) subnet: Option<IpNet>,
    pub(super) ip_range: Option<IpNet>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) auxiliary: BTreeMap<String, IpAddr>,
}

/// Understands and checks every entry; all the mistakes at once.
pub(super) fn pools_of(specs: &[IpamPoolSpec], ipv6: bool) -> Result<Vec<ParsedPool>, Error> {
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
pub(super) fn of_all(address: IpAddr, subnet: IpNet) -> Option<String> {
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

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

pub(super) fn is_v4(net: &IpNet) -> bool {
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

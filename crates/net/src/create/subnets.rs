//! From the entries of an IPAM configuration to a network's subnets: what is not named is chosen.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use portolan_netcore::host::ForeignRoute;
use portolan_netcore::ipam::{AddressSpace, Occupied, Pools};
use portolan_netcore::model::{Adopted, Driver, GatewayMode, IpamConfig, NetworkId};
use portolan_netcore::plan::HOST_ADDRESS;

use super::Surroundings;
use super::entries::{ParsedPool, is_v4};
use crate::Error;

/// The auxiliary address that an adopted bridge has beside the gateway's.
const BRIDGE_ADDRESS: &str = "portolan.bridge";

pub(super) fn subnets(
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

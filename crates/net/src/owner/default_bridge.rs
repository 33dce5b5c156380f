//! The network `bridge` as the daemon's configuration has it. What the configuration leaves open stays
//! as it was: a subnet that moves takes the network away from containers that run.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netcore::model::{
    Adopted, BridgeOptions, Driver, Endpoint, IfName, IpamConfig, Network, NetworkId, Routing,
};
use portolan_netcore::plan::{ALIAS_PREFIX, HostState, Ns};

use super::endpoint::{DEFAULT_GATEWAY_V4, DEFAULT_GATEWAY_V6};
use super::network::now_ns;
use super::{Owner, entropy};
use crate::{Error, NetConfig, create, options, parent};

/// The default bridge's name where none is given.
const USUAL_BRIDGE: &str = "docker0";

/// What the configuration says about one family, with the names of its flags.
struct Family {
    v4: bool,
    /// Address and subnet.
    bip: Option<IpNet>,
    /// Range of dynamic addresses, and the subnet if nothing else says one.
    fixed_cidr: Option<IpNet>,
    default_gateway: Option<IpAddr>,
    flags: [&'static str; 3],
}

impl Family {
    fn v4(config: &NetConfig) -> Self {
        Self {
            v4: true,
            bip: config.bip.map(IpNet::V4),
            fixed_cidr: config.fixed_cidr.map(|net| net.trunc().into()),
            default_gateway: config.default_gateway.map(IpAddr::V4),
            flags: ["--bip", "--fixed-cidr", "--default-gateway"],
        }
    }

    fn v6(config: &NetConfig) -> Self {
        Self {
            v4: false,
            bip: config.bip6.map(IpNet::V6),
            fixed_cidr: config.fixed_cidr_v6.map(|net| net.trunc().into()),
            default_gateway: config.default_gateway_v6.map(IpAddr::V6),
            flags: ["--bip6", "--fixed-cidr-v6", "--default-gateway-v6"],
        }
    }

    fn has(&self, net: &IpNet) -> bool {
        matches!(net, IpNet::V4(_)) == self.v4
    }

    /// The subnet, if the configuration says one. A range within the subnet that is there does not.
    fn named(&self, kept: Option<IpNet>) -> Option<IpNet> {
        let range = || self.fixed_cidr.filter(|range| !kept.is_some_and(|kept| kept.contains(range)));
        self.bip.map(|bip| bip.trunc()).or_else(range)
    }

    /// Of an adopted bridge's addresses, that with the range in its subnet, or else the first.
    fn address_of_bridge(&self, addresses: &[IpNet]) -> Option<IpNet> {
        let mut own = addresses.iter().filter(|address| self.has(address));
        let contains = |address: &&IpNet| self.fixed_cidr.is_some_and(|range| address.contains(&range));
        own.clone().find(contains).or_else(|| own.next()).copied()
    }

    fn check(&self, subnet: IpNet) -> Result<(), Error> {
        let [bip, fixed_cidr, default_gateway] = self.flags;
        let host_bits = subnet.max_prefix_len() - subnet.prefix_len();
        let wrong = match (self.bip, self.fixed_cidr, self.default_gateway) {
            (Some(given), ..) if host_bits > 1 && is_edge(given.addr(), subnet) => {
                format!("invalid {bip} {given}: {} is no address that a bridge can have", given.addr())
            }
            _ if is_multicast(subnet) => format!("invalid {bip}: multicast subnet {subnet} is not allowed"),
            (_, Some(range), _) if !subnet.contains(&range) => format!(
                "invalid {fixed_cidr} {range}: it is not a part of the default bridge's subnet {subnet} ({bip})"
            ),
            (.., Some(gateway)) if !subnet.contains(&gateway) => format!(
                "invalid {default_gateway} {gateway}: it is not in the default bridge's subnet {subnet}"
            ),
            _ => return Ok(()),
        };
        Err(Error::invalid(wrong))
    }
}

fn is_edge(address: IpAddr, subnet: IpNet) -> bool {
    address == subnet.network() || (address.is_ipv4() && address == subnet.broadcast())
}

fn is_multicast(subnet: IpNet) -> bool {
    subnet.network().is_multicast()
}

impl Owner {
    /// Under the id and in the subnets it had, unless the configuration says others.
    pub(super) fn default_network(
        &self,
        bridge: IfName,
        old: Option<&Network>,
        endpoints: &[Endpoint],
        observed: &HostState,
    ) -> Result<Network, Error> {
        let id = match old {
            Some(old) => old.id.clone(),
            None => adopted_id(&bridge, observed).unwrap_or_else(|| NetworkId::from_bytes(entropy())),
        };
        let config = &self.config;
        let (adopted, addresses) = self.adopted(&bridge, old)?;
        let members = || endpoints.iter().filter(|endpoint| endpoint.network == id);
        let mut ipam = Vec::new();
        for mut family in [Family::v4(config), Family::v6(config)] {
            family.bip = family.bip.or(family.address_of_bridge(&addresses));
            let kept = old.and_then(|old| old.ipam.iter().find(|config| family.has(&config.subnet))).cloned();
            let wanted = family.v4 || config.ipv6;
            let mut new = if wanted { Some(self.default_subnet(&family, kept.as_ref())?) } else { None };
            if let Some((new, adopted)) = new.as_mut().zip(adopted.as_ref()) {
                create::reserve_bridge_addresses(new, adopted);
            }
            let moved = |kept: &IpamConfig| {
                new.as_ref().is_none_or(|new| (new.subnet, new.gateway) != (kept.subnet, kept.gateway))
            };
            let used = members()
                .any(|endpoint| if family.v4 { endpoint.ipv4.is_some() } else { endpoint.ipv6.is_some() });
            match kept.filter(|kept| used && moved(kept)) {
                Some(kept) => {
                    tracing::warn!(
                        subnet = %kept.subnet,
                        "the default bridge keeps its subnet: containers run in it; stop them for a new one to take effect"
                    );
                    ipam.push(kept);
                }
                None => ipam.extend(new),
            }
        }
        let options = BridgeOptions {
            bridge,
            icc: config.icc,
            masquerade: config.masquerade,
            mtu: config.mtu,
            host_binding: config.host_binding,
            default_bridge: true,
            adopted,
            ..options::defaults(&id)?
        };
        Ok(Network {
            name: "bridge".to_owned(),
            created_ns: old.map_or_else(now_ns, |old| old.created_ns),
            ipv4: true,
            ipv6: ipam.iter().any(|config| matches!(config.subnet, IpNet::V6(_))),
            internal: false,
            attachable: false,
            ipam_driver: "default".to_owned(),
            ipam_options: None,
            ipam,
            options: shown_options(&options),
            labels: BTreeMap::new(),
            predefined: true,
            config_only: false,
            config_from: None,
            routing: Routing::default(),
            driver: Driver::Bridge(options),
            id,
        })
    }

    /// A bridge that was named and is not ours is adopted, and stays so while it is away. What has the usual name
    /// may be another engine's. With the addresses that the bridge has by itself.
    fn adopted(
        &self,
        bridge: &IfName,
        old: Option<&Network>,
    ) -> Result<(Option<Adopted>, Vec<IpNet>), Error> {
        let before = old.and_then(|old| match &old.driver {
            Driver::Bridge(options) if options.bridge == *bridge => Some(options.adopted.clone()),
            _ => None,
        });
        if bridge.as_str() == USUAL_BRIDGE || before == Some(None) {
            return Ok((None, Vec::new()));
        }
        match self.host.link(bridge)? {
            Some(found) if found.is_bridge && !found.is_ours => {
                let mut adopted = parent::adopt(bridge, &found, self.host.as_ref());
                if let Some(before) = before.flatten() {
                    // By now it may be our doing.
                    adopted.route_localnet = before.route_localnet;
                }
                Ok((Some(adopted), found.addresses))
            }
            Some(_) => Ok((None, Vec::new())),
            None => {
                let adopted = before.flatten();
                let addresses =
                    adopted.iter().flat_map(|adopted| adopted.addresses.iter().copied()).collect();
                Ok((adopted, addresses))
            }
        }
    }

    fn default_subnet(&self, family: &Family, kept: Option<&IpamConfig>) -> Result<IpamConfig, Error> {
        let kept_subnet = kept.map(|kept| kept.subnet).filter(|subnet| self.may_stay(family, subnet));
        let subnet = match family.named(kept_subnet).or(kept_subnet) {
            Some(subnet) => subnet,
            None => self.default_from_pools(family)?,
        };
        family.check(subnet)?;
        if kept_subnet != Some(subnet) {
            create::check_free(subnet, &self.subnet_holders())?;
        }
        let kept_gateway = kept.and_then(|kept| kept.gateway).filter(|gateway| subnet.contains(gateway));
        let mut config = create::with_gateway(IpamConfig {
            subnet,
            ip_range: family.fixed_cidr,
            gateway: family.bip.map(|bip| bip.addr()).or(kept_gateway),
            auxiliary: BTreeMap::new(),
            configured: false,
        })?;
        let key = if family.v4 { DEFAULT_GATEWAY_V4 } else { DEFAULT_GATEWAY_V6 };
        config.auxiliary.extend(family.default_gateway.map(|address| (key.to_owned(), address)));
        Ok(config)
    }

    /// Nothing in the configuration speaks against it.
    fn may_stay(&self, family: &Family, subnet: &IpNet) -> bool {
        let mut pools = self.config.address_pools.iter().filter(|(base, _)| family.has(base)).peekable();
        pools.peek().is_none() || pools.any(|(base, _)| base.contains(subnet))
    }

    fn default_from_pools(&self, family: &Family) -> Result<IpNet, Error> {
        let occupied = create::occupied(self.subnets().into_iter(), &self.host.foreign_routes()?);
        let chosen = if family.v4 {
            self.pools.choose_ipv4(&occupied, None).map(IpNet::V4)
        } else {
            self.pools.choose_ipv6(&occupied, None).map(IpNet::V6)
        };
        chosen.ok_or_else(|| {
            Error::invalid(format!(
                "no subnet is left for the default bridge: every address pool overlaps with a route of this host; name one with {}",
                family.flags[0]
            ))
        })
    }
}

/// The id in the alias of a bridge of ours that the store does not know.
fn adopted_id(bridge: &IfName, observed: &HostState) -> Option<NetworkId> {
    let link = observed.links.get(&(Ns::Host, bridge.clone()))?;
    link.alias.as_deref()?.strip_prefix(ALIAS_PREFIX)?.parse().ok()
}

/// The options that Docker shows for the network `bridge`.
fn shown_options(bridge: &BridgeOptions) -> BTreeMap<String, String> {
    let binding = bridge.host_binding.map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string());
    [
        (options::DEFAULT_BRIDGE, "true".to_owned()),
        (options::ENABLE_ICC, bridge.icc.to_string()),
        (options::ENABLE_MASQUERADE, bridge.masquerade.to_string()),
        (options::HOST_BINDING, binding),
        (options::BRIDGE_NAME, bridge.bridge.to_string()),
        (options::MTU, bridge.mtu.unwrap_or(1500).to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

//! Driver options: texts as Docker's users write them to typed values. A key that means nothing here
//! is refused by name, as is a value that does not fit.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_netcore::model::{
    BridgeOptions, Driver, GatewayMode, IfName, IpvlanFlag, IpvlanMode, IpvlanOptions, MacvlanMode,
    MacvlanOptions, MadeParent, Network, NetworkId, ParentOptions, RouteTarget, Routing, StaticRoute,
    parse_bool,
};

use crate::Error;

pub(crate) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
pub(crate) const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
pub(crate) const ENABLE_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(crate) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(crate) const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
pub(crate) const MTU: &str = "com.docker.network.driver.mtu";
const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
const TRUSTED_INTERFACES: &str = "com.docker.network.bridge.trusted_host_interfaces";
const IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
const HOST_ACCESS: &str = "portolan.host_access";
const UNMANAGED: &str = "portolan.unmanaged";
const ISOLATE: &str = "portolan.isolate";
const VLAN: &str = "portolan.vlan";
pub(crate) const ROUTES: &str = "portolan.routes";
const METRIC: &str = "portolan.metric";
const NO_DEFAULT_ROUTE: &str = "portolan.no_default_route";
const FOLLOW_MTU: &str = "portolan.mtu";
const HOST_IPV4: &str = "com.docker.network.host_ipv4";
const HOST_IPV6: &str = "com.docker.network.host_ipv6";
/// `off`: endpoints may send from addresses that are not theirs. An endpoint's option too.
pub(crate) const SOURCE_GUARD: &str = "portolan.source_guard";
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
const INTERNAL: &str = "com.docker.network.internal";
/// Options that name links.
const NAMES: [&str; 3] = [BRIDGE_NAME, IFACE_PREFIX, PARENT];
/// Resolvers of a network, by commas: what its containers ask for names that are not theirs.
const DNS: &str = "portolan.dns";
/// libc (`MAXNS` in resolv.h) and Docker ask at most this many.
pub(crate) const MAX_DNS_SERVERS: usize = 3;

/// Options that stand for fields of the request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct GenericOptions {
    pub(crate) ipv4: Option<bool>,
    pub(crate) ipv6: Option<bool>,
    pub(crate) internal: Option<bool>,
    pub(crate) routing: Routing,
    /// The MTU is that of the link by which the host's default route leaves.
    pub(crate) mtu_of_egress: bool,
}

/// What a bridge has without options.
pub(crate) fn defaults(id: &NetworkId) -> Result<BridgeOptions, Error> {
    let bridge =
        IfName::new(&format!("br-{}", id.short())).map_err(|error| Error::internal(error.to_string()))?;
    Ok(BridgeOptions {
        bridge,
        icc: true,
        masquerade: true,
        mtu: None,
        host_binding: None,
        gateway_mode_ipv4: GatewayMode::Nat,
        gateway_mode_ipv6: GatewayMode::Nat,
        ifname_prefix: "eth".to_owned(),
        snat_ipv4: None,
        snat_ipv6: None,
        inhibit_ipv4: false,
        trusted_interfaces: Vec::new(),
        source_guard: true,
        default_bridge: false,
        unmanaged: false,
        vlan: None,
        isolate: false,
        adopted: None,
    })
}

/// What a driver makes of its options; all that is wrong with them.
pub(crate) fn parse(
    id: &NetworkId,
    driver: &str,
    options: &BTreeMap<String, String>,
) -> Result<(Driver, GenericOptions), Error> {
    let mut generic = GenericOptions::default();
    let mut errors = Vec::new();
    let mut parsed = match driver {
        "macvlan" => Driver::Macvlan(MacvlanOptions {
            parent: no_parent(id)?,
            mode: MacvlanMode::default(),
            host_access: None,
        }),
        "ipvlan" => Driver::Ipvlan(IpvlanOptions {
            parent: no_parent(id)?,
            mode: IpvlanMode::default(),
            flag: IpvlanFlag::default(),
        }),
        _ => Driver::Bridge(defaults(id)?),
    };
    // An empty name is none, as in Docker.
    let unset = |(key, value): &(&String, &String)| value.is_empty() && NAMES.contains(&key.as_str());
    for (key, value) in options.iter().filter(|option| !unset(option)) {
        let result = match set_generic(&mut generic, key, value) {
            Ok(true) => Ok(()),
            Ok(false) => match &mut parsed {
                Driver::Bridge(bridge) => set_bridge(bridge, key, value),
                Driver::Macvlan(macvlan) => set_macvlan(macvlan, id, key, value),
                Driver::Ipvlan(ipvlan) => set_ipvlan(ipvlan, key, value),
                Driver::Host | Driver::Null => Ok(()),
            },
            Err(error) => Err(error),
        };
        errors.extend(result.err().map(|error| error.message().to_owned()));
    }
    match errors.as_slice() {
        [] => Ok((parsed, generic)),
        errors => Err(Error::invalid(errors.join("\n"))),
    }
}

/// The network's MTU is that of the link by which the host's default route leaves.
pub(crate) fn follows_mtu(options: &BTreeMap<String, String>) -> bool {
    options.get(FOLLOW_MTU).is_some_and(|value| value == "auto")
}

/// Without a parent, a network has one of its own that leads nowhere.
fn no_parent(id: &NetworkId) -> Result<ParentOptions, Error> {
    Ok(ParentOptions {
        parent: derived("dm", id)?,
        made: Some(MadeParent::Dummy),
        mtu: None,
        ifname_prefix: "eth".to_owned(),
    })
}

/// The name of a link that belongs to a network.
fn derived(prefix: &str, id: &NetworkId) -> Result<IfName, Error> {
    IfName::new(&format!("{prefix}-{}", id.short())).map_err(|error| Error::internal(error.to_string()))
}

/// Options of every driver. False if it is none.
fn set_generic(generic: &mut GenericOptions, key: &str, value: &str) -> Result<bool, Error> {
    match key {
        ENABLE_IPV4 => generic.ipv4 = Some(boolean(key, value)?),
        ENABLE_IPV6 => generic.ipv6 = Some(boolean(key, value)?),
        INTERNAL => generic.internal = Some(boolean(key, value)?),
        // Read where it is needed: it can change while the network is in use.
        DNS => drop(addresses(key, value)?),
        ROUTES => generic.routing.routes = routes(key, value)?,
        METRIC => generic.routing.metric = parsed(key, value, "not a metric")?,
        NO_DEFAULT_ROUTE => generic.routing.no_default_route = boolean(key, value)?,
        FOLLOW_MTU if value == "auto" => generic.mtu_of_egress = true,
        FOLLOW_MTU => {
            return Err(bad(key, value, format_args!("only auto: a number of bytes goes into {MTU}")));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn set_bridge(bridge: &mut BridgeOptions, key: &str, value: &str) -> Result<(), Error> {
    match key {
        BRIDGE_NAME => {
            bridge.bridge = IfName::new(value).map_err(|error| bad(key, value, error))?;
        }
        ENABLE_ICC => bridge.icc = boolean(key, value)?,
        ENABLE_MASQUERADE => bridge.masquerade = boolean(key, value)?,
        HOST_BINDING => bridge.host_binding = Some(parsed::<IpAddr>(key, value, "not an IP address")?),
        GATEWAY_MODE_IPV4 => bridge.gateway_mode_ipv4 = gateway_mode(key, value)?,
        GATEWAY_MODE_IPV6 => bridge.gateway_mode_ipv6 = gateway_mode(key, value)?,
        INHIBIT_IPV4 => bridge.inhibit_ipv4 = boolean(key, value)?,
        TRUSTED_INTERFACES => {
            let names = value.split(':').filter(|name| !name.is_empty()).map(IfName::new);
            bridge.trusted_interfaces =
                names.collect::<Result<_, _>>().map_err(|error| bad(key, value, error))?;
        }
        IFACE_PREFIX => bridge.ifname_prefix = iface_prefix(key, value)?,
        HOST_IPV4 => bridge.snat_ipv4 = Some(parsed::<Ipv4Addr>(key, value, "not an IPv4 address")?),
        HOST_IPV6 => bridge.snat_ipv6 = Some(parsed::<Ipv6Addr>(key, value, "not an IPv6 address")?),
        MTU => bridge.mtu = mtu(key, value)?,
        DEFAULT_BRIDGE => {
            if boolean(key, value)? {
                return Err(bad(key, value, "only the engine's own network bridge is the default bridge"));
            }
        }
        UNMANAGED => bridge.unmanaged = boolean(key, value)?,
        SOURCE_GUARD => bridge.source_guard = switch(key, value)?,
        ISOLATE => bridge.isolate = boolean(key, value)?,
        VLAN => match parsed::<u16>(key, value, "not the number of a VLAN")? {
            vlan @ 1..=4094 => bridge.vlan = Some(vlan),
            _ => return Err(bad(key, value, "not between 1 and 4094")),
        },
        _ => return Err(Error::invalid(format!("unknown option {key:?} of the bridge driver"))),
    }
    Ok(())
}

/// The parent is only named here: whether it is there, or to be made, is the host's to say.
fn set_parent(parent: &mut ParentOptions, key: &str, value: &str) -> Result<bool, Error> {
    match key {
        PARENT => {
            parent.parent = IfName::new(value).map_err(|error| bad(key, value, error))?;
            parent.made = None;
        }
        MTU => parent.mtu = mtu(key, value)?,
        IFACE_PREFIX => parent.ifname_prefix = iface_prefix(key, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn set_macvlan(macvlan: &mut MacvlanOptions, id: &NetworkId, key: &str, value: &str) -> Result<(), Error> {
    match key {
        MACVLAN_MODE => {
            macvlan.mode = match value {
                "" | "bridge" => MacvlanMode::Bridge,
                "private" => MacvlanMode::Private,
                "vepa" => MacvlanMode::Vepa,
                "passthru" => MacvlanMode::Passthru,
                _ => return Err(unknown_mode("macvlan", key, value)),
            }
        }
        HOST_ACCESS if boolean(key, value)? => macvlan.host_access = Some(derived("pm", id)?),
        HOST_ACCESS => macvlan.host_access = None,
        _ if set_parent(&mut macvlan.parent, key, value)? => {}
        _ => return Err(Error::invalid(format!("unknown option {key:?} of the macvlan driver"))),
    }
    Ok(())
}

fn set_ipvlan(ipvlan: &mut IpvlanOptions, key: &str, value: &str) -> Result<(), Error> {
    match key {
        IPVLAN_MODE => {
            ipvlan.mode = match value {
                "" | "l2" => IpvlanMode::L2,
                "l3" => IpvlanMode::L3,
                "l3s" => IpvlanMode::L3s,
                _ => return Err(unknown_mode("ipvlan", key, value)),
            }
        }
        IPVLAN_FLAG => {
            ipvlan.flag = match value {
                "" | "bridge" => IpvlanFlag::Bridge,
                "private" => IpvlanFlag::Private,
                "vepa" => IpvlanFlag::Vepa,
                _ => return Err(unknown_mode("ipvlan", key, value)),
            }
        }
        _ if set_parent(&mut ipvlan.parent, key, value)? => {}
        _ => return Err(Error::invalid(format!("unknown option {key:?} of the ipvlan driver"))),
    }
    Ok(())
}

/// Docker's text.
fn unknown_mode(driver: &str, key: &str, value: &str) -> Error {
    Error::invalid(format!(
        "requested {driver} {} '{value}' is not valid",
        key.trim_start_matches(driver).trim_start_matches('_')
    ))
}

/// Room for a number of three digits: the kernel takes 15 bytes.
fn iface_prefix(key: &str, value: &str) -> Result<String, Error> {
    if value.len() > 12 || IfName::new(value).is_err() {
        return Err(bad(key, value, "not the beginning of a link name of at most 12 bytes"));
    }
    Ok(value.to_owned())
}

/// `10.9.0.0/16,172.20.0.5,50;10.66.0.0/16,blackhole`: destination, next hop or fate, metric.
fn routes(key: &str, value: &str) -> Result<Vec<StaticRoute>, Error> {
    let route = |text: &str| -> Option<StaticRoute> {
        let mut parts = text.split(',').map(str::trim);
        let destination: IpNet = parts.next()?.parse().ok()?;
        let via = match parts.next()? {
            "blackhole" => RouteTarget::Blackhole,
            "unreachable" => RouteTarget::Unreachable,
            "prohibit" => RouteTarget::Prohibit,
            gateway => RouteTarget::Gateway(gateway.parse().ok()?),
        };
        let metric = match parts.next() {
            Some(metric) => Some(metric.parse().ok()?),
            None => None,
        };
        let one_family = match via {
            RouteTarget::Gateway(gateway) => gateway.is_ipv4() == destination.addr().is_ipv4(),
            _ => true,
        };
        let whole = parts.next().is_none() && one_family && destination.trunc() == destination;
        whole.then_some(StaticRoute { destination, via, metric })
    };
    let each = value.split(';').map(str::trim).filter(|text| !text.is_empty());
    each.map(|text| {
        route(text).ok_or_else(|| {
            bad(
                key,
                value,
                format_args!(
                    "{text:?} is not a route such as 10.9.0.0/16,172.20.0.5[,metric] or 10.9.0.0/16,blackhole"
                ),
            )
        })
    })
    .collect()
}

/// Docker's text for an option whose value does not fit.
fn bad(key: &str, value: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("failed to parse {key} value: {value:?} ({why})"))
}

fn parsed<T: std::str::FromStr>(key: &str, value: &str, why: &str) -> Result<T, Error> {
    value.parse().map_err(|_| bad(key, value, why))
}

/// `on` and `off`, or what [`boolean`] takes.
pub(crate) fn switch(key: &str, value: &str) -> Result<bool, Error> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => boolean(key, value).map_err(|_| bad(key, value, "neither on nor off")),
    }
}

fn addresses(key: &str, value: &str) -> Result<Vec<IpAddr>, Error> {
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let addresses: Vec<IpAddr> = texts
        .map(|text| text.parse().map_err(|_| bad(key, value, format_args!("{text} is not an IP address"))))
        .collect::<Result<_, _>>()?;
    if addresses.len() > MAX_DNS_SERVERS {
        return Err(bad(key, value, format_args!("more than {MAX_DNS_SERVERS} are never asked")));
    }
    Ok(addresses)
}

/// The network's own resolvers.
pub(crate) fn dns_servers(network: &Network) -> Vec<IpAddr> {
    // Checked when it was set.
    network.options.get(DNS).and_then(|value| addresses(DNS, value).ok()).unwrap_or_default()
}

/// Changes them.
pub(crate) fn set_dns_servers(network: &mut Network, servers: &[IpAddr]) -> Result<(), Error> {
    let texts: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
    let value = texts.join(",");
    addresses(DNS, &value)?;
    if value.is_empty() {
        network.options.remove(DNS);
    } else {
        network.options.insert(DNS.to_owned(), value);
    }
    Ok(())
}

pub(crate) fn boolean(key: &str, value: &str) -> Result<bool, Error> {
    parse_bool(value).ok_or_else(|| bad(key, value, "not a boolean"))
}

/// 0 leaves it to the kernel. The kernel's least MTU for IPv4 is 68 (RFC 791).
fn mtu(key: &str, value: &str) -> Result<Option<u32>, Error> {
    match parsed::<u32>(key, value, "not a number of bytes")? {
        0 => Ok(None),
        mtu @ 68..=65_535 => Ok(Some(mtu)),
        _ => Err(bad(key, value, "not between 68 and 65535 bytes")),
    }
}

fn gateway_mode(key: &str, value: &str) -> Result<GatewayMode, Error> {
    match value {
        "" | "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(bad(key, value, format_args!("unknown gateway mode {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(key: &str, value: &str) -> Result<BridgeOptions, Error> {
        let options = [(key.to_owned(), value.to_owned())].into();
        parse(&NetworkId::from_bytes([0xab; 32]), "bridge", &options).map(|(driver, _)| match driver {
            Driver::Bridge(bridge) => bridge,
            other => panic!("{other:?} is no bridge"),
        })
    }

    #[test]
    fn a_user_network_is_on_a_bridge_of_its_id() {
        let bridge = defaults(&NetworkId::from_bytes([0xab; 32])).unwrap().bridge;
        assert_eq!(bridge.as_str(), "br-abababababab");
    }

    #[test]
    fn options_set_what_they_say() {
        assert!(!parse_one(ENABLE_ICC, "false").unwrap().icc);
        assert_eq!(parse_one(MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(parse_one(GATEWAY_MODE_IPV4, "routed").unwrap().gateway_mode_ipv4, GatewayMode::Routed);
        assert_eq!(parse_one(TRUSTED_INTERFACES, "vxlan.1:eth3").unwrap().trusted_interfaces.len(), 2);
        assert!(!parse_one(SOURCE_GUARD, "off").unwrap().source_guard);
        assert_eq!(parse_one(HOST_BINDING, "::").unwrap().host_binding, Some("::".parse().unwrap()));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        for (key, value) in [
            ("com.docker.network.bridge.enable_icq", "true"),
            (ENABLE_ICC, "maybe"),
            (MTU, "9"),
            (MTU, "-1"),
            (BRIDGE_NAME, "much-too-long-a-name"),
            (GATEWAY_MODE_IPV6, "open"),
            (HOST_IPV4, "::1"),
            (DEFAULT_BRIDGE, "true"),
            (SOURCE_GUARD, "maybe"),
            (IFACE_PREFIX, "interface-of-container-"),
            (VLAN, "4095"),
            (FOLLOW_MTU, "1400"),
            (ROUTES, "10.9.0.1/16,10.1.0.1"),
            (ROUTES, "10.9.0.0/16,fd00::1"),
            (DNS, "192.0.2.1,dns.example"),
            (DNS, "192.0.2.1,192.0.2.2,192.0.2.3,::1"),
        ] {
            let error = parse_one(key, value).unwrap_err();
            assert!(error.message().contains(key), "{error}");
        }
    }

    #[test]
    fn routes_are_destination_next_hop_and_metric() {
        let routes = routes(ROUTES, "10.9.0.0/16,172.20.0.5,50; fd09::/64,blackhole").unwrap();
        let want = [
            StaticRoute {
                destination: "10.9.0.0/16".parse().unwrap(),
                via: RouteTarget::Gateway("172.20.0.5".parse().unwrap()),
                metric: Some(50),
            },
            StaticRoute {
                destination: "fd09::/64".parse().unwrap(),
                via: RouteTarget::Blackhole,
                metric: None,
            },
        ];
        assert_eq!(routes, want);
    }

    #[test]
    fn every_mistake_is_told() {
        let options = [(ENABLE_ICC, "maybe"), (MTU, "9")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let error = parse(&NetworkId::from_bytes([1; 32]), "bridge", &options).unwrap_err();
        assert!(error.message().contains(ENABLE_ICC) && error.message().contains(MTU), "{error}");
    }
}

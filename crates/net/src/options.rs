//! Driver options: texts as Docker's users write them to typed values. A key that means nothing here
//! is refused by name, as is a value that does not fit.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_netcore::model::{BridgeOptions, GatewayMode, IfName, Network, NetworkId};

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
const HOST_IPV4: &str = "com.docker.network.host_ipv4";
const HOST_IPV6: &str = "com.docker.network.host_ipv6";
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
const INTERNAL: &str = "com.docker.network.internal";
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
        default_bridge: false,
    })
}

/// Every option, or what is wrong with the first that is wrong.
pub(crate) fn parse(
    id: &NetworkId,
    options: &BTreeMap<String, String>,
) -> Result<(BridgeOptions, GenericOptions), Error> {
    let mut bridge = defaults(id)?;
    let mut generic = GenericOptions::default();
    for (key, value) in options {
        set(&mut bridge, &mut generic, key, value)?;
    }
    Ok((bridge, generic))
}

fn set(
    bridge: &mut BridgeOptions,
    generic: &mut GenericOptions,
    key: &str,
    value: &str,
) -> Result<(), Error> {
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
        IFACE_PREFIX => {
            // Room for a number of three digits: the kernel takes 15 bytes.
            if value.len() > 12 || IfName::new(value).is_err() {
                return Err(bad(key, value, "not the beginning of a link name of at most 12 bytes"));
            }
            bridge.ifname_prefix = value.to_owned();
        }
        HOST_IPV4 => bridge.snat_ipv4 = Some(parsed::<Ipv4Addr>(key, value, "not an IPv4 address")?),
        HOST_IPV6 => bridge.snat_ipv6 = Some(parsed::<Ipv6Addr>(key, value, "not an IPv6 address")?),
        MTU => bridge.mtu = mtu(key, value)?,
        DEFAULT_BRIDGE => {
            if boolean(key, value)? {
                return Err(bad(key, value, "only the engine's own network bridge is the default bridge"));
            }
        }
        ENABLE_IPV4 => generic.ipv4 = Some(boolean(key, value)?),
        ENABLE_IPV6 => generic.ipv6 = Some(boolean(key, value)?),
        INTERNAL => generic.internal = Some(boolean(key, value)?),
        // Read where it is needed: it can change while the network is in use.
        DNS => drop(addresses(key, value)?),
        _ => return Err(Error::invalid(format!("unknown option {key:?} of the bridge driver"))),
    }
    Ok(())
}

/// Docker's text for an option whose value does not fit.
fn bad(key: &str, value: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("failed to parse {key} value: {value:?} ({why})"))
}

fn parsed<T: std::str::FromStr>(key: &str, value: &str, why: &str) -> Result<T, Error> {
    value.parse().map_err(|_| bad(key, value, why))
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

/// What Go's `strconv.ParseBool` takes.
fn boolean(key: &str, value: &str) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(bad(key, value, "not a boolean")),
    }
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
        parse(&NetworkId::from_bytes([0xab; 32]), &options).map(|(bridge, _)| bridge)
    }

    #[test]
    fn a_user_network_is_on_a_bridge_of_its_id() {
        let bridge = parse(&NetworkId::from_bytes([0xab; 32]), &BTreeMap::new()).unwrap().0.bridge;
        assert_eq!(bridge.as_str(), "br-abababababab");
    }

    #[test]
    fn options_set_what_they_say() {
        assert!(!parse_one(ENABLE_ICC, "false").unwrap().icc);
        assert_eq!(parse_one(MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(parse_one(GATEWAY_MODE_IPV4, "routed").unwrap().gateway_mode_ipv4, GatewayMode::Routed);
        assert_eq!(parse_one(TRUSTED_INTERFACES, "vxlan.1:eth3").unwrap().trusted_interfaces.len(), 2);
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
            (IFACE_PREFIX, "interface-of-container-"),
            (DNS, "192.0.2.1,dns.example"),
            (DNS, "192.0.2.1,192.0.2.2,192.0.2.3,::1"),
        ] {
            let error = parse_one(key, value).unwrap_err();
            assert!(error.message().contains(key), "{error}");
        }
    }
}

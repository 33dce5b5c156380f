//! What a network's links stand on, as the host has it: the parent of a macvlan or ipvlan network, a
//! bridge that is there already, the link whose MTU is followed.

use std::collections::BTreeMap;

use portolan_netcore::host::{FoundLink, Host};
use portolan_netcore::model::{
    Adopted, BridgeOptions, Driver, IPV6_MIN_MTU, IfName, MacvlanMode, MadeParent, ParentOptions,
};

use crate::Error;

/// Makes sure that what is named is there, or decides that it is to be made. Without a parent a
/// network is internal, as in Docker.
pub(crate) fn settle(driver: &mut Driver, internal: &mut bool, host: &dyn Host) -> Result<(), Error> {
    let name = driver.name();
    match driver {
        Driver::Bridge(bridge) => settle_bridge(bridge, host),
        Driver::Macvlan(options) => {
            settle_parent(&mut options.parent, name, internal, host)?;
            let shared = !matches!(options.mode, MacvlanMode::Passthru | MacvlanMode::Private);
            if options.host_access.is_some() && !shared {
                return Err(Error::invalid("host access needs macvlan_mode bridge or vepa"));
            }
            Ok(())
        }
        Driver::Ipvlan(options) => settle_parent(&mut options.parent, name, internal, host),
        Driver::Host | Driver::Null => Ok(()),
    }
}

/// A bridge that is there and not ours is adopted, as in Docker.
fn settle_bridge(bridge: &mut BridgeOptions, host: &dyn Host) -> Result<(), Error> {
    let name = &bridge.bridge;
    match host.link(name)? {
        None if bridge.unmanaged => Err(Error::invalid(format!(
            "bridge {name} was not found on the host: an unmanaged network needs one that exists"
        ))),
        Some(found) if bridge.unmanaged && !found.is_bridge => {
            Err(Error::invalid(format!("link {name} is not a bridge: an unmanaged network needs one")))
        }
        Some(found) if !found.is_bridge => Err(Error::conflict(format!(
            "a link {name} that is not Portolan's exists on this host, and it is not a bridge"
        ))),
        Some(found) if !bridge.unmanaged && !found.is_ours => {
            bridge.adopted = Some(adopt(name, &found, host));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a bridge has by itself.
pub(crate) fn adopt(name: &IfName, found: &FoundLink, host: &dyn Host) -> Adopted {
    let route_localnet = host.setting(&format!("net/ipv4/conf/{name}/route_localnet"));
    Adopted {
        addresses: found.addresses.iter().copied().collect(),
        route_localnet: route_localnet.is_some_and(|value| value == "1"),
    }
}

fn settle_parent(
    parent: &mut ParentOptions,
    driver: &str,
    internal: &mut bool,
    host: &dyn Host,
) -> Result<(), Error> {
    if parent.made.is_some() {
        *internal = true;
        return Ok(());
    }
    if parent.parent.as_str() == "lo" {
        return Err(Error::invalid(format!("loopback interface is not a valid {driver} parent link")));
    }
    let links = host.links()?;
    if !links.contains_key(&parent.parent) {
        parent.made = Some(vlan_of(&parent.parent, &links).ok_or_else(|| {
            Error::invalid(format!("-o parent interface was not found on the host: {}", parent.parent))
        })?);
    }
    Ok(())
}

/// `eth0.10` is VLAN 10 of `eth0`, if that is there.
fn vlan_of(name: &IfName, links: &BTreeMap<IfName, u32>) -> Option<MadeParent> {
    let (link, id) = name.as_str().rsplit_once('.')?;
    let link = IfName::new(link).ok().filter(|link| links.contains_key(link))?;
    let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
    Some(MadeParent::Vlan { link, id })
}

/// Gives the network the MTU of the link by which the host's default route leaves, if it has one. A bridge
/// with IPv6 stays large enough for it: the kernel would take its addresses, and the containers', for good.
pub(crate) fn set_mtu(driver: &mut Driver, ipv6: bool, host: &dyn Host) -> Result<(), Error> {
    let Some(egress) = host.egress()? else { return Ok(()) };
    let mtu = host.links()?.get(&egress).copied();
    match driver {
        Driver::Bridge(bridge) => {
            bridge.mtu = mtu.map(|mtu| if ipv6 { mtu.max(IPV6_MIN_MTU) } else { mtu });
        }
        Driver::Macvlan(options) => options.parent.mtu = mtu,
        Driver::Ipvlan(options) => options.parent.mtu = mtu,
        Driver::Host | Driver::Null => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotted_name_is_a_vlan_of_what_is_before_the_last_dot() {
        let name = |text: &str| IfName::new(text).unwrap();
        let links = [(name("eth0"), 1500), (name("bond.1"), 1500)].into();
        assert_eq!(vlan_of(&name("eth0.10"), &links), Some(MadeParent::Vlan { link: name("eth0"), id: 10 }));
        assert_eq!(
            vlan_of(&name("bond.1.7"), &links),
            Some(MadeParent::Vlan { link: name("bond.1"), id: 7 })
        );
        for other in ["eth1.10", "eth0.0", "eth0.4095", "eth0.x", "eth1"] {
            assert_eq!(vlan_of(&name(other), &links), None, "{other}");
        }
    }
}

//! Links: bridges, veth pairs, and what can be changed about them.

use std::os::fd::{AsRawFd, BorrowedFd};

use portolan_netcore::model::{IfName, MacAddr};
use portolan_netcore::plan::{Attribute, Link, LinkKind};

use crate::netlink::{Batch, Message, flags};
use crate::rt::{
    AF_BRIDGE, BR_BOOLOPT_NO_LL_LEARN, BR_STATE_DISABLED, BR_STATE_FORWARDING,
    BRIDGE_VLAN_INFO_PVID_UNTAGGED, IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_BR_MULTI_BOOLOPT,
    IFLA_BR_STP_STATE, IFLA_BR_VLAN_DEFAULT_PVID, IFLA_BR_VLAN_FILTERING, IFLA_BRIDGE_VLAN_INFO,
    IFLA_BRPORT_FLUSH, IFLA_BRPORT_MODE, IFLA_BRPORT_STATE, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA,
    IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, IFLA_IPVLAN_FLAGS, IFLA_IPVLAN_MODE,
    IFLA_LINK, IFLA_LINKINFO, IFLA_MACVLAN_MODE, IFLA_MASTER, IFLA_MTU, IFLA_NET_NS_FD, IFLA_TXQLEN,
    IFLA_VLAN_ID, IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES, PORT_DEFAULTS, RTM_DELLINK, RTM_NEWLINK,
    RTM_SETLINK, VETH_INFO_PEER, ifinfomsg, number_of,
};

/// `lo` is the first link of every namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// Makes a bridge, down. Spanning tree stays off and multicast snooping on: the kernel's defaults,
/// which Docker leaves alone, too.
pub(crate) fn add_bridge(batch: &mut Batch, name: &IfName, link: &Link) {
    let mut message = batch.message(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfomsg(0, 0, 0));
    identity(&mut message, name, link);
    message.nest(IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
            if let Some(vlan) = link.vlan {
                data.attr_u8(IFLA_BR_VLAN_FILTERING, 1).attr(IFLA_BR_VLAN_DEFAULT_PVID, &vlan.to_ne_bytes());
            }
            data.attr(IFLA_BR_MULTI_BOOLOPT, &link_local_learning(link.learns_link_local));
        });
    });
}

/// `struct br_boolopt_multi { optval, optmask }`.
fn link_local_learning(on: bool) -> [u8; 8] {
    let mask = 1_u32 << BR_BOOLOPT_NO_LL_LEARN;
    let value = if on { 0 } else { mask };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_ne_bytes());
    bytes[4..].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

/// Lets a bridge learn from frames to link-local groups, or not.
pub(crate) fn set_link_local_learning(batch: &mut Batch, name: &IfName, on: bool) {
    by_name(batch, RTM_NEWLINK, name, 0, 0).nest(IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
            data.attr(IFLA_BR_MULTI_BOOLOPT, &link_local_learning(on));
        });
    });
}

/// Makes a link on top of the one with this index, or a dummy, in the given namespace at once. Down:
/// it is named and addressed first.
pub(crate) fn add_stacked(
    batch: &mut Batch,
    name: &IfName,
    link: &Link,
    parent_index: Option<u32>,
    namespace: Option<BorrowedFd<'_>>,
) {
    let mut message = batch.message(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfomsg(0, 0, 0));
    identity(&mut message, name, link);
    if let Some(index) = parent_index {
        message.attr_u32(IFLA_LINK, index);
    }
    if let Some(namespace) = namespace {
        message.attr_u32(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_KIND, kind_name(&link.kind));
        info.nest(IFLA_INFO_DATA, |data| match &link.kind {
            LinkKind::Macvlan { mode, .. } => {
                data.attr_u32(IFLA_MACVLAN_MODE, number_of(&MACVLAN_MODES, mode));
            }
            LinkKind::Ipvlan { mode, flag, .. } => {
                data.attr(IFLA_IPVLAN_MODE, &number_of(&IPVLAN_MODES, mode).to_ne_bytes());
                data.attr(IFLA_IPVLAN_FLAGS, &number_of(&IPVLAN_FLAGS, flag).to_ne_bytes());
            }
            LinkKind::Vlan { id, .. } => {
                data.attr(IFLA_VLAN_ID, &id.to_ne_bytes());
            }
            LinkKind::Dummy
            | LinkKind::Bridge
            | LinkKind::Adopted
            | LinkKind::Veth { .. }
            | LinkKind::Loopback => {}
        });
    });
}

/// The kernel's name of a kind of link.
pub(crate) fn kind_name(kind: &LinkKind) -> &'static str {
    match kind {
        LinkKind::Bridge | LinkKind::Adopted => "bridge",
        LinkKind::Veth { .. } => "veth",
        LinkKind::Macvlan { .. } => "macvlan",
        LinkKind::Ipvlan { .. } => "ipvlan",
        LinkKind::Vlan { .. } => "vlan",
        LinkKind::Dummy => "dummy",
        LinkKind::Loopback => "loopback",
    }
}

/// Puts the bridge port with this index into one VLAN, untagged.
pub(crate) fn set_port_vlan(batch: &mut Batch, index: u32, vlan: u16) {
    let mut header = ifinfomsg(index, 0, 0);
    header[0] = AF_BRIDGE;
    let [a, b] = BRIDGE_VLAN_INFO_PVID_UNTAGGED.to_ne_bytes();
    let [c, d] = vlan.to_ne_bytes();
    batch.message(RTM_SETLINK, 0, &header).nest(IFLA_AF_SPEC, |bridge| {
        bridge.attr(IFLA_BRIDGE_VLAN_INFO, &[a, b, c, d]);
    });
}

/// Makes a veth pair in place, each end in its namespace at once: moving an end later would cost tens
/// of milliseconds of RCU grace periods. The near end can be UP from the start, the far end cannot.
pub(crate) fn add_veth(
    batch: &mut Batch,
    near: (&IfName, &Link),
    master_index: Option<u32>,
    far: (&IfName, &Link),
    far_ns: BorrowedFd<'_>,
) {
    let up = if near.1.up { IFF_UP } else { 0 };
    let mut message = batch.message(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfomsg(0, up, up));
    identity(&mut message, near.0, near.1);
    if let Some(index) = master_index {
        message.attr_u32(IFLA_MASTER, index);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
            data.nest_with_header(VETH_INFO_PEER, &ifinfomsg(0, 0, 0), |peer| {
                identity(peer, far.0, far.1);
                peer.attr_u32(IFLA_NET_NS_FD, far_ns.as_raw_fd() as u32);
            });
        });
    });
}

/// Removes a link. It returns after RCU grace periods: 15 to 55 ms.
pub(crate) fn remove(batch: &mut Batch, name: &IfName) {
    by_name(batch, RTM_DELLINK, name, 0, 0).tolerate(&[libc::ENODEV]);
}

/// Sets the alias, by which we recognise our links.
pub(crate) fn set_alias(batch: &mut Batch, name: &IfName, alias: &str) {
    by_name(batch, RTM_SETLINK, name, 0, 0).attr(IFLA_IFALIAS, alias.as_bytes());
}

/// Makes the link a port of the bridge with this index; 0 of none.
pub(crate) fn set_master(batch: &mut Batch, name: &IfName, master_index: u32) {
    by_name(batch, RTM_SETLINK, name, 0, 0).attr_u32(IFLA_MASTER, master_index);
}

/// Lets a bridge send frames back out of the port they came in by.
pub(crate) fn set_hairpin(batch: &mut Batch, name: &IfName, on: bool) {
    set_port(batch, name, IFLA_BRPORT_MODE, u8::from(on));
}

/// Keeps a bridge port from passing frames and flushes its forwarding entries. Unlike taking it out of
/// the bridge or down, this waits for nothing.
pub(crate) fn cut_port(batch: &mut Batch, name: &IfName) {
    by_name(batch, RTM_NEWLINK, name, 0, 0).nest(IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |port| {
            port.attr_u8(IFLA_BRPORT_STATE, BR_STATE_DISABLED).attr(IFLA_BRPORT_FLUSH, &[]);
        });
    });
}

/// Brings the link up or down.
pub(crate) fn set_up(batch: &mut Batch, name: &IfName, up: bool) {
    by_name(batch, RTM_SETLINK, name, if up { IFF_UP } else { 0 }, IFF_UP);
}

/// Brings `lo` up.
pub(crate) fn set_loopback_up(batch: &mut Batch) {
    batch.message(RTM_SETLINK, 0, &ifinfomsg(LOOPBACK_INDEX, IFF_UP, IFF_UP));
}

/// Sets the MTU.
pub(crate) fn set_mtu(batch: &mut Batch, name: &IfName, mtu: u32) {
    by_name(batch, RTM_SETLINK, name, 0, 0).attr_u32(IFLA_MTU, mtu);
}

/// Sets the hardware address.
pub(crate) fn set_mac(batch: &mut Batch, name: &IfName, mac: MacAddr) {
    by_name(batch, RTM_SETLINK, name, 0, 0).attr(IFLA_ADDRESS, &mac.0);
}

/// Brings an attribute of a bridge or a port back to the kernel's default.
pub(crate) fn reset(batch: &mut Batch, name: &IfName, attribute: Attribute) {
    match attribute {
        Attribute::SpanningTree => {
            by_name(batch, RTM_NEWLINK, name, 0, 0).nest(IFLA_LINKINFO, |info| {
                info.attr_text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |bridge| {
                    bridge.attr_u32(IFLA_BR_STP_STATE, 0);
                });
            });
        }
        Attribute::Blocked => set_port(batch, name, IFLA_BRPORT_STATE, BR_STATE_FORWARDING),
        flag => {
            for (_, kind, value) in PORT_DEFAULTS.into_iter().filter(|(known, ..)| *known == flag) {
                set_port(batch, name, kind, value);
            }
        }
    }
}

fn set_port(batch: &mut Batch, name: &IfName, kind: u16, value: u8) {
    by_name(batch, RTM_NEWLINK, name, 0, 0).nest(IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |port| {
            port.attr_u8(kind, value);
        });
    });
}

fn by_name<'a>(batch: &'a mut Batch, kind: u16, name: &IfName, up: u32, change: u32) -> Message<'a> {
    let mut message = batch.message(kind, 0, &ifinfomsg(0, up, change));
    message.attr_text(IFLA_IFNAME, name.as_str());
    message
}

/// What is given at birth. The alias is not among it: the kernel takes that only for existing links.
fn identity(message: &mut Message<'_>, name: &IfName, link: &Link) {
    message.attr_text(IFLA_IFNAME, name.as_str());
    // No queue of its own, as Docker's links have none (`txqueuelen 0`).
    message.attr_u32(IFLA_TXQLEN, 0);
    if let Some(mac) = link.mac {
        message.attr(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = link.mtu {
        message.attr_u32(IFLA_MTU, mtu);
    }
}

#[cfg(test)]
mod tests {
    use portolan_netcore::model::{IpvlanFlag, IpvlanMode};

    use super::*;

    /// What `ip link add [link v0] name i0 type ...` sends after its header (iproute2 6.1, by strace), but
    /// that we mark what is nested and end names with a NUL, for kernels that lack these kinds of links.
    #[test]
    fn links_on_top_of_others_are_asked_for_as_by_ip() {
        let parent = IfName::new("v0").unwrap();
        let ipvlan =
            LinkKind::Ipvlan { parent: parent.clone(), mode: IpvlanMode::L3s, flag: IpvlanFlag::Private };
        let on_3 = b"\x08\0\x05\0\x03\0\0\0";
        for (kind, index, info) in [
            (
                ipvlan,
                Some(3),
                &b"\x24\0\x12\x80\x0b\0\x01\0ipvlan\0\0\x14\0\x02\x80\x06\0\x01\0\x02\0\0\0\x06\0\x02\0\x01\0\0\0"[..],
            ),
            (
                LinkKind::Vlan { parent, id: 7 },
                Some(3),
                b"\x1c\0\x12\x80\x09\0\x01\0vlan\0\0\0\0\x0c\0\x02\x80\x06\0\x01\0\x07\0\0\0",
            ),
            (LinkKind::Dummy, None, b"\x14\0\x12\x80\x0a\0\x01\0dummy\0\0\0\x04\0\x02\x80"),
        ] {
            let link = Link {
                kind,
                mac: None,
                mtu: None,
                master: None,
                hairpin: false,
                addresses: std::collections::BTreeSet::new(),
                up: false,
                alias: None,
                vlan: None,
                learns_link_local: true,
                altered: portolan_netcore::plan::Altered::default(),
            };
            let mut batch = Batch::new();
            add_stacked(&mut batch, &IfName::new("i0").unwrap(), &link, index, None);
            let sent = batch.as_bytes();
            assert_eq!(sent[4..8], [16, 0, 5, 6], "RTM_NEWLINK, create, exclusive, acknowledged");
            assert!(sent.ends_with(info), "{:?}: {sent:02x?}", link.kind);
            assert_eq!(sent.windows(8).any(|bytes| bytes == on_3), index.is_some(), "{:?}", link.kind);
        }
    }

    /// What `bridge vlan add dev v1 vid 7 pvid untagged` sends.
    #[test]
    fn a_port_is_put_into_a_vlan_as_by_bridge() {
        let mut batch = Batch::new();
        set_port_vlan(&mut batch, 2, 7);
        let sent = batch.as_bytes();
        assert_eq!((sent[4], sent[16], sent.len()), (19, 7, 44), "RTM_SETLINK, AF_BRIDGE");
        assert!(sent.ends_with(b"\x0c\0\x1a\x80\x08\0\x02\0\x06\0\x07\0"), "{sent:02x?}");
    }
}

//! nf_tables' syntax tree, as much of it as our rule set needs.
//!
//! The chains and rules never depend on the policy: they are one skeleton ([`super::skeleton`]) and
//! everything that comes and goes is an element of a set or map. A change is then a handful of
//! elements whatever the number of bridges and ports, and the data path is a fixed number of look-ups.
//! What there may be thousands of (ports, containers) is in no verdict map: whenever a verdict that leads to a
//! chain comes, the kernel looks for loops, and through all of the table's verdict maps.
//!
//! Names and spelling are those of nft(8); `render` prints a tree in that language and the Linux
//! adapter encodes the same tree for the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{IfName, MacAddr, PortRange, Proto};

/// The family of a table (`enum nf_inet_hooks`' protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4 only.
    Ip,
    /// IPv4 and IPv6.
    Inet,
    /// Frames that a bridge switches.
    Bridge,
}

/// A table with all that is in it but the elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: &'static str,
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Chains; those without a hook come before those that jump to them.
    pub chains: Vec<Chain>,
}

/// The sets and maps. One type for both tables, so that an element says where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// `host address . protocol . port` of a published port to its target, IPv4.
    Published4,
    /// The same without the host address: published on every address.
    Published4Any,
    /// As [`SetName::Published4`], IPv6.
    Published6,
    /// As [`SetName::Published4Any`], IPv6.
    Published6Any,
    /// `container address . protocol . port` of published ports: open where direct routing is, IPv4.
    Open4,
    /// The same for IPv6.
    Open6,
    /// Our bridges.
    Bridges,
    /// `family . bridge` that a packet goes to: verdict.
    ToBridge,
    /// `family . bridge` that a packet comes from: verdict.
    FromBridge,
    /// A bridge twice: a packet that goes back to where it came from: verdict.
    SameBridge,
    /// A bridge twice: what it sends itself through the host is a hairpin.
    Hairpin,
    /// A published container address twice: what it sends itself while br_netfilter is on, IPv4.
    Self4,
    /// The same for IPv6.
    Self6,
    /// `incoming link . bridge`: direct routing to published ports is allowed.
    Trusted,
    /// Bridges that keep apart from all others.
    Isolated,
    /// `family . bridge` whose outgoing traffic is masqueraded.
    Masqueraded,
    /// Bridge to the fixed source of its outgoing IPv4 traffic.
    Snat4,
    /// The same for IPv6.
    Snat6,
    /// As [`SetName::Published4`] for some sources only: `source network . host address . protocol .
    /// port`.
    Published4From,
    /// The same for IPv6.
    Published6From,
    /// As [`SetName::Open4`] for some sources only: `source network . container address . protocol .
    /// port`.
    Open4From,
    /// The same for IPv6.
    Open6From,
    /// `source network . host network . protocol . ports` of ports in a row that lead to the same ports of a
    /// target: the target's address, IPv4.
    Ranges4,
    /// The same for IPv6.
    Ranges6,
    /// `source network . container address . protocol . ports` of published ports in a row: open where direct
    /// routing is, IPv4.
    OpenRanges4,
    /// The same for IPv6.
    OpenRanges6,
    /// `family . protocol . port` of a port whose connections are carried over, on every address.
    CarriedAny,
    /// `host address . protocol . port` of one on a single address, IPv4.
    Carried4,
    /// The same for IPv6.
    Carried6,
    /// Those of [`SetName::CarriedAny`] that are for some sources only.
    CarriedSomeAny,
    /// Those of [`SetName::Carried4`].
    CarriedSome4,
    /// Those of [`SetName::Carried6`].
    CarriedSome6,
    /// Those of [`SetName::CarriedAny`] that no bridge of ours reaches.
    CarriedApartAny,
    /// Those of [`SetName::Carried4`].
    CarriedApart4,
    /// Those of [`SetName::Carried6`].
    CarriedApart6,
    /// `host network . protocol . ports` of ports in a row, IPv4.
    CarriedRanges4,
    /// The same for IPv6.
    CarriedRanges6,
    /// As [`SetName::CarriedSomeAny`] of ports in a row, IPv4.
    CarriedSomeRanges4,
    /// The same for IPv6.
    CarriedSomeRanges6,
    /// As [`SetName::CarriedApartAny`] of ports in a row, IPv4.
    CarriedApartRanges4,
    /// The same for IPv6.
    CarriedApartRanges6,
    /// `source network . host address . protocol . port` of those that are for some sources only, IPv4.
    Carried4From,
    /// The same for IPv6.
    Carried6From,
    /// Bridge ports that may only talk to their bridge (in table `bridge portolan`).
    IccOff,
    /// Bridge ports whose frames are checked for their source (in table `bridge portolan`).
    Guarded,
    /// `bridge port . hardware address . address` of what is behind it, IPv4 (in table `bridge portolan`).
    Own4,
    /// The same for IPv6, with the link-local and the unspecified address.
    Own6,
}

impl SetName {
    /// The name in the kernel.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published4 => "published4",
            Self::Published4Any => "published4_any",
            Self::Published6 => "published6",
            Self::Published6Any => "published6_any",
            Self::Open4 => "open4",
            Self::Open6 => "open6",
            Self::Bridges => "bridges",
            Self::ToBridge => "to_bridge",
            Self::FromBridge => "from_bridge",
            Self::SameBridge => "same_bridge",
            Self::Hairpin => "hairpin",
            Self::Self4 => "self4",
            Self::Self6 => "self6",
            Self::Trusted => "trusted",
            Self::Isolated => "isolated",
            Self::Masqueraded => "masqueraded",
            Self::Snat4 => "snat4",
            Self::Snat6 => "snat6",
            Self::Published4From => "published4_from",
            Self::Published6From => "published6_from",
            Self::Open4From => "open4_from",
            Self::Open6From => "open6_from",
            Self::Ranges4 => "ranges4",
            Self::Ranges6 => "ranges6",
            Self::OpenRanges4 => "open_ranges4",
            Self::OpenRanges6 => "open_ranges6",
            Self::CarriedAny => "carried_any",
            Self::Carried4 => "carried4",
            Self::Carried6 => "carried6",
            Self::CarriedSomeAny => "carried_some_any",
            Self::CarriedSome4 => "carried_some4",
            Self::CarriedSome6 => "carried_some6",
            Self::CarriedApartAny => "carried_apart_any",
            Self::CarriedApart4 => "carried_apart4",
            Self::CarriedApart6 => "carried_apart6",
            Self::CarriedRanges4 => "carried_ranges4",
            Self::CarriedRanges6 => "carried_ranges6",
            Self::CarriedSomeRanges4 => "carried_some_ranges4",
            Self::CarriedSomeRanges6 => "carried_some_ranges6",
            Self::CarriedApartRanges4 => "carried_apart_ranges4",
            Self::CarriedApartRanges6 => "carried_apart_ranges6",
            Self::Carried4From => "carried4_from",
            Self::Carried6From => "carried6_from",
            Self::IccOff => "icc_off",
            Self::Guarded => "guarded",
            Self::Own4 => "own4",
            Self::Own6 => "own6",
        }
    }

    /// The family of the table it is in.
    pub fn family(self) -> TableFamily {
        match self {
            Self::IccOff | Self::Guarded | Self::Own4 | Self::Own6 => TableFamily::Bridge,
            _ => TableFamily::Inet,
        }
    }

    /// The family of the addresses that a map of addresses leads to.
    pub fn address_family(self) -> IpFamily {
        match self {
            Self::Published6 | Self::Published6Any | Self::Published6From | Self::Ranges6 | Self::Snat6 => {
                IpFamily::V6
            }
            _ => IpFamily::V4,
        }
    }
}

/// A set, or a map if it has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// The fields of its key; more than one is a concatenation.
    pub key: &'static [DataType],
    /// What an element leads to.
    pub data: SetData,
    /// Its keys may be networks and ranges of ports; one without is a hash table.
    pub interval: bool,
}

/// What the elements of a set lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetData {
    /// Nothing: a set.
    None,
    /// A verdict: a verdict map, for the few (bridges).
    Verdict,
    /// Values: a map.
    Values(&'static [DataType]),
}

/// nft's data types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `nf_proto`: the family of the packet.
    NfProto,
    /// `ipv4_addr`.
    Ipv4Addr,
    /// `ipv6_addr`.
    Ipv6Addr,
    /// `inet_proto`.
    InetProto,
    /// `inet_service`: a port.
    InetService,
    /// `ifname`.
    IfName,
    /// `ether_addr`.
    EtherAddr,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where the kernel calls it; none for one that is only jumped to.
    pub hook: Option<Hook>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a base chain. The policy is always accept: we drop by rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: ChainKind,
    /// The hook.
    pub point: HookPoint,
    /// Lower is earlier.
    pub priority: i32,
}

/// The kind of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each connection.
    Nat,
}

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// Before routing.
    Prerouting,
    /// Packets for this host itself.
    Input,
    /// Forwarded packets (or, in a bridge table, switched frames).
    Forward,
    /// Packets that this host sends.
    Output,
    /// After routing.
    Postrouting,
}

/// A rule: statements, of which each is reached if those before it matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Matches first, then what is done.
    pub statements: Vec<Statement>,
    /// Why the rule is there, shown in listings.
    pub comment: &'static str,
}

/// What a match or a look-up reads from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `meta nfproto`.
    NfProto,
    /// `meta l4proto`.
    L4Proto,
    /// `iifname`; in postrouting too, which needs Linux 5.7.
    Iifname,
    /// `oifname`.
    Oifname,
    /// `meta protocol`: the EtherType, behind VLAN tags that the kernel has taken off.
    EtherType,
    /// `ether saddr`.
    EtherSaddr,
    /// `arp saddr ether`: the sender's hardware address.
    ArpSaddrEther,
    /// `arp saddr ip`: the sender's address.
    ArpSaddrIp,
    /// `arp daddr ip`: the address asked for.
    ArpDaddrIp,
    /// `icmpv6 taddr`: the target of a neighbour solicitation or advertisement.
    Icmp6Target,
    /// `ip saddr`.
    IpSaddr,
    /// `ip daddr`.
    IpDaddr,
    /// `ip6 saddr`.
    Ip6Saddr,
    /// `ip6 daddr`.
    Ip6Daddr,
    /// `th sport`.
    ThSport,
    /// `th dport`.
    ThDport,
    /// `icmp type`.
    IcmpType,
    /// `icmpv6 type`.
    Icmp6Type,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `field value` or `field != value`.
    Compare {
        /// What is read.
        field: Field,
        /// Is it, or is it not.
        equal: bool,
        /// What it is compared with.
        value: Value,
    },
    /// `ip saddr 127.0.0.0/8` and the like: the leading `prefix` bits of an address.
    Prefix {
        /// The address that is read.
        field: Field,
        /// The network.
        network: IpAddr,
        /// Its length in bits.
        prefix: u8,
    },
    /// `ct state established,related`.
    Established,
    /// `ct status dnat`: the connection's destination was translated.
    Dnatted,
    /// `fib daddr type local`: the destination is an address of this host.
    ToThisHost,
    /// `fields @set`.
    InSet(&'static [Field], SetName),
    /// `fields vmap @map`; goes on if there is no such element.
    VerdictMap(&'static [Field], SetName),
    /// `dnat ip to fields map @map`, the map leading to an address and a port.
    DnatMap(&'static [Field], SetName),
    /// The same, the map leading to an address: the port stays as it is.
    DnatAddressMap(&'static [Field], SetName),
    /// `snat ip to fields map @map`, the map leading to an address.
    SnatMap(&'static [Field], SetName),
    /// `masquerade`.
    Masquerade,
    /// `th dport set N` or `th sport set N`, with the transport checksum kept right.
    SetPort(Field, u16, Proto),
    /// `meta mark & bit == bit`.
    Marked(u32),
    /// `meta mark & bit == 0`.
    Unmarked(u32),
    /// `meta mark set meta mark | bit`.
    Mark(u32),
    /// `meta mark set meta mark & ~bit`.
    Unmark(u32),
    /// `counter`.
    Counter,
    /// `reject with tcp reset`: as the host answers where nobody listens.
    Reset,
    /// `tcp flags & (fin | syn | rst | ack) == syn`: a packet that opens a connection.
    Opens,
    /// `queue num N`: a program says what becomes of the packet. Dropped while none listens.
    Queue(Queue),
    /// What becomes of the packet.
    Verdict(Verdict),
}

/// A queue of packets that a program decides on (nfnetlink_queue).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub number: u16,
    /// How the kernel takes it.
    pub form: QueueForm,
}

/// How a kernel is told to queue packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueForm {
    /// By nf_tables' own expression.
    Native,
    /// By the target of iptables, where the kernel was built without the former.
    Xtables,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Leaves our table; other tables may still drop it.
    Accept,
    /// Gone.
    Drop,
    /// On to another chain and back.
    Jump(&'static str),
    /// On to another chain for good.
    Goto(&'static str),
}

/// One value of a key or of data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// `nf_proto ipv4` or `ipv6`.
    NfProto(IpFamily),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A transport protocol.
    Proto(Proto),
    /// A port.
    Port(u16),
    /// A link's name.
    IfName(IfName),
    /// The loopback link, in the skeleton.
    Lo,
    /// A hardware address.
    Ether(MacAddr),
    /// An ICMP or ICMPv6 type.
    IcmpType(u8),
    /// A transport protocol or ICMP, by protocol number.
    ProtoNumber(u8),
    /// What a frame carries.
    EtherType(EtherType),
    /// A network, in sets of intervals.
    Net(IpNet),
    /// Ports in a row, in sets of intervals.
    Ports(PortRange),
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::Ipv4(v4),
            IpAddr::V6(v6) => Self::Ipv6(v6),
        }
    }
}

/// What a frame carries (IEEE 802 numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EtherType {
    /// 0x0800.
    Ip,
    /// 0x0806.
    Arp,
    /// 0x86dd.
    Ip6,
}

impl EtherType {
    /// The number in the frame.
    pub fn number(self) -> u16 {
        match self {
            Self::Ip => 0x0800,
            Self::Arp => 0x0806,
            Self::Ip6 => 0x86dd,
        }
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// Both, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The key of an element, with the set it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementKey {
    /// The set or map.
    pub set: SetName,
    /// One value a field.
    pub key: Vec<Value>,
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementData {
    /// Nothing: it is in the set.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// One value a field.
    Values(Vec<Value>),
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Where it is.
    pub at: ElementKey,
    /// What it leads to.
    pub data: ElementData,
}

//! The bridge table: what passes between two ports of one bridge, and what a guarded port may send.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ruleset::{
    Chain, ChainKind, DataType, EtherType, Field, HookPoint, Rule, Set, SetData, SetName, Statement, Table,
    TableFamily, Value, Verdict,
};
use super::skeleton::{
    ICC_MARK, ICMPV6_NEIGHBOUR_ADVERTISEMENT, ICMPV6_NEIGHBOUR_SOLICITATION, IPPROTO_ICMP, IPPROTO_ICMPV6,
    TABLE, chain, drop_rest, hook, is, neighbour_discovery, rule, verdict,
};

/// `NF_BR_PRI_FILTER_OTHER`: after br_netfilter has taken a frame through the inet hooks, if it does.
const PRIORITY_BRIDGE_FILTER: i32 = 200;
/// `NF_BR_PRI_NAT_DST_BRIDGED`: before anything else looks at a frame, and before the bridge learns
/// from its source where an address is.
const PRIORITY_BRIDGE_GUARD: i32 = -300;

/// The chain of frames from a guarded bridge port.
const SOURCE_GUARD: &str = "source_guard";
const GUARD_ARP: &str = "guard_arp";
const GUARD_IP6: &str = "guard_ip6";

const IPPROTO_UDP: u8 = 17;
const ICMP_REDIRECT: u8 = 5;
const ICMPV6_ROUTER_ADVERTISEMENT: u8 = 134;
const ICMPV6_REDIRECT: u8 = 137;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;

/// Frames switched between two ports pass no inet hook unless br_netfilter is loaded. Where it is, a
/// port published by one endpoint of a bridge and asked for by another is translated while the frame is
/// switched, so such a frame comes by here too, marked.
pub(super) fn bridge_table() -> Table {
    use DataType::{EtherAddr, IfName, Ipv4Addr, Ipv6Addr};
    let set = |name, key, data| Set { name, key, data, interval: false };
    let sets = vec![
        set(SetName::IccOff, &[IfName], SetData::None),
        set(SetName::Guarded, &[IfName], SetData::None),
        set(SetName::Own4, &[IfName, EtherAddr, Ipv4Addr], SetData::None),
        set(SetName::Own6, &[IfName, EtherAddr, Ipv6Addr], SetData::None),
    ];
    let forward = Chain {
        name: "forward",
        hook: hook(ChainKind::Filter, HookPoint::Forward, PRIORITY_BRIDGE_FILTER),
        rules: vec![
            rule(
                "by way of a published port",
                vec![Statement::Marked(ICC_MARK), Statement::Unmark(ICC_MARK), verdict(Verdict::Accept)],
            ),
            carries(EtherType::Arp, "who has an address may be asked", vec![verdict(Verdict::Accept)]),
            carries(EtherType::Ip6, "", neighbour_discovery(ICMPV6_NEIGHBOUR_SOLICITATION, None)),
            carries(EtherType::Ip6, "", neighbour_discovery(ICMPV6_NEIGHBOUR_ADVERTISEMENT, None)),
            rule(
                "icc off: only to the bridge itself",
                vec![
                    Statement::InSet(&[Field::Iifname], SetName::IccOff),
                    Statement::InSet(&[Field::Oifname], SetName::IccOff),
                    Statement::Counter,
                    verdict(Verdict::Drop),
                ],
            ),
        ],
    };
    let prerouting = Chain {
        name: "prerouting",
        hook: hook(ChainKind::Filter, HookPoint::Prerouting, PRIORITY_BRIDGE_GUARD),
        rules: vec![rule(
            "what comes from a container",
            vec![Statement::InSet(&[Field::Iifname], SetName::Guarded), verdict(Verdict::Goto(SOURCE_GUARD))],
        )],
    };
    let chains = vec![forward, guard_arp(), guard_ip6(), source_guard(), prerouting];
    Table { family: TableFamily::Bridge, name: TABLE, sets, chains }
}

/// Every frame has its sender's own hardware address; what is neither IP nor ARP does not pass.
fn source_guard() -> Chain {
    let ip = |comment, matches| carries(EtherType::Ip, comment, matches);
    let own: &[Field] = &[Field::Iifname, Field::EtherSaddr, Field::IpSaddr];
    chain(
        SOURCE_GUARD,
        vec![
            carries(EtherType::Arp, "", vec![verdict(Verdict::Goto(GUARD_ARP))]),
            carries(EtherType::Ip6, "", vec![verdict(Verdict::Goto(GUARD_IP6))]),
            ip("no DHCP server", refuse_port(DHCP_CLIENT)),
            ip("no redirects", refuse_icmp(IPPROTO_ICMP, Field::IcmpType, ICMP_REDIRECT)),
            ip("", vec![Statement::InSet(own, SetName::Own4), verdict(Verdict::Accept)]),
            drop_rest(),
        ],
    )
}

/// Frame and message name the same hardware address; a probe (RFC 5227) has no sender's address yet
/// and asks for the own one.
fn guard_arp() -> Chain {
    let own = |fields| Statement::InSet(fields, SetName::Own4);
    let accept = || verdict(Verdict::Accept);
    let frame: &[Field] = &[Field::Iifname, Field::EtherSaddr, Field::ArpSaddrIp];
    let message: &[Field] = &[Field::Iifname, Field::ArpSaddrEther, Field::ArpSaddrIp];
    let probing_frame: &[Field] = &[Field::Iifname, Field::EtherSaddr, Field::ArpDaddrIp];
    let probing: &[Field] = &[Field::Iifname, Field::ArpSaddrEther, Field::ArpDaddrIp];
    let no_sender = is(Field::ArpSaddrIp, Value::Ipv4(Ipv4Addr::UNSPECIFIED));
    chain(
        GUARD_ARP,
        vec![
            carries(EtherType::Arp, "", vec![own(frame), own(message), accept()]),
            carries(EtherType::Arp, "a probe", vec![no_sender, own(probing_frame), own(probing), accept()]),
            drop_rest(),
        ],
    )
}

/// Neighbour advertisements, and solicitations that look for duplicates (RFC 4862), are of the own
/// addresses only.
fn guard_ip6() -> Chain {
    let ip6 = |comment, matches| carries(EtherType::Ip6, comment, matches);
    let icmp = |kind| refuse_icmp(IPPROTO_ICMPV6, Field::Icmp6Type, kind);
    let kind = |kind| {
        [is(Field::L4Proto, Value::ProtoNumber(IPPROTO_ICMPV6)), is(Field::Icmp6Type, Value::IcmpType(kind))]
    };
    let own: &[Field] = &[Field::Iifname, Field::EtherSaddr, Field::Ip6Saddr];
    let target: &[Field] = &[Field::Iifname, Field::EtherSaddr, Field::Icmp6Target];
    let is_own = |fields| Statement::InSet(fields, SetName::Own6);
    let accept = || verdict(Verdict::Accept);
    let mut advertisement = kind(ICMPV6_NEIGHBOUR_ADVERTISEMENT).to_vec();
    advertisement.extend([is_own(own), is_own(target), accept()]);
    let unspecified = || is(Field::Ip6Saddr, Value::Ipv6(Ipv6Addr::UNSPECIFIED));
    let mut detection = kind(ICMPV6_NEIGHBOUR_SOLICITATION).to_vec();
    detection.extend([unspecified(), is_own(target), accept()]);
    let mut other_detection = kind(ICMPV6_NEIGHBOUR_SOLICITATION).to_vec();
    other_detection.extend([unspecified(), Statement::Counter, verdict(Verdict::Drop)]);
    chain(
        GUARD_IP6,
        vec![
            ip6("no router", icmp(ICMPV6_ROUTER_ADVERTISEMENT)),
            ip6("no redirects", icmp(ICMPV6_REDIRECT)),
            ip6("no DHCPv6 server", refuse_port(DHCPV6_CLIENT)),
            ip6("its own neighbour advertisements", advertisement),
            ip6("nobody else's", icmp(ICMPV6_NEIGHBOUR_ADVERTISEMENT)),
            ip6("duplicates of its own address", detection),
            ip6("of nobody else's", other_detection),
            ip6("", vec![is_own(own), accept()]),
            drop_rest(),
        ],
    )
}

/// A rule for frames that carry this.
fn carries(what: EtherType, comment: &'static str, statements: Vec<Statement>) -> Rule {
    let mut all = vec![is(Field::EtherType, Value::EtherType(what))];
    all.extend(statements);
    rule(comment, all)
}

fn refuse_port(port: u16) -> Vec<Statement> {
    vec![
        is(Field::L4Proto, Value::ProtoNumber(IPPROTO_UDP)),
        is(Field::ThDport, Value::Port(port)),
        Statement::Counter,
        verdict(Verdict::Drop),
    ]
}

fn refuse_icmp(protocol: u8, field: Field, kind: u8) -> Vec<Statement> {
    vec![
        is(Field::L4Proto, Value::ProtoNumber(protocol)),
        is(field, Value::IcmpType(kind)),
        Statement::Counter,
        verdict(Verdict::Drop),
    ]
}

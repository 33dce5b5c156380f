//! The tables, chains and rules, which are the same for every policy.
//!
//! A packet's way: `guard` (raw) drops what pretends to be loopback; `prerouting` and `output` turn a
//! host port into a container's address by one look-up; `forward` sends the packet by the bridge it
//! goes to into one of four chains, one a gateway mode; `postrouting` masquerades. `input` decides on those
//! for a port whose connections are carried over in the engine, before its socket hears of them; and `ask` has the
//! engine ask the endpoint before the host accepts.
//!
//! Direct routing to a container's address needs no rule of its own: only a translated
//! destination (`ct status dnat`) opens the way to a bridge in mode nat.
//! `accept` ends only our table: what another table drops stays dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bridge_table::bridge_table;
use super::carried::{ask_chains, carried_chains};
use super::ruleset::{
    Chain, ChainKind, DataType, Field, Hook, HookPoint, IpFamily, Queue, Rule, Set, SetData, SetName,
    Statement, Table, TableFamily, Value, Verdict,
};
use crate::model::Proto;

/// The name of our tables, in the families inet and bridge. Never `nat` or `filter`: iptables refuses
/// to list a table of that name with native rules in it.
pub const TABLE: &str = "portolan";
/// The name of the user's table, in family inet. Made once and never touched again.
pub const USER_TABLE: &str = "portolan-user";
/// The name of the table in a sandbox that leads to the embedded resolver, in family ip.
pub const DNS_TABLE: &str = "portolan-dns";

/// The address at which the embedded resolver answers in every sandbox.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
pub(super) const PRIORITY_USER: i32 = -10;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

/// The bit by which `icc_off` of the inet table tells the bridge table of the same frame that it may
/// pass. It exists between those two hooks only; frames arrive from other namespaces without a mark.
pub(super) const ICC_MARK: u32 = 0x2000_0000;

/// The bit by which the user's table tells ours to let a forwarded packet pass: `meta mark set meta
/// mark | 0x10000000 accept` there is final here, except for the guard on loopback. Packets arrive from
/// other hosts and namespaces without a mark.
pub const ACCEPT_MARK: u32 = 0x1000_0000;

/// The bit by which the user's rules know a packet for a port whose connections are carried over: it comes
/// to the host itself, and so by no rule for what is forwarded.
pub const CARRIED_MARK: u32 = 0x0800_0000;

/// The bits by which the engine says of a packet from its queue that the endpoint refuses it. The packet ends with
/// them; they are as many so that no other program's are taken for them.
pub const REFUSED_MARK: u32 = 0x0452_5354;

/// The bit of a packet that iptables' chain DOCKER-USER has accepted, which is final there. It is set before
/// that chain, taken off behind it, and exists between chain FORWARD and ours behind it only.
pub(super) const IPTABLES_MARK: u32 = 0x4000_0000;

/// The chain of a bridge in mode nat.
pub(super) const TO_NAT: &str = "to_nat";
/// The chain of a bridge in mode routed.
pub(super) const TO_ROUTED: &str = "to_routed";
/// The chain of a bridge without `icc`.
pub(super) const ICC_OFF_CHAIN: &str = "icc_off";
/// The chain of a bridge in mode nat that allows direct routing to published ports.
pub(super) const TO_NAT_DIRECT: &str = "to_nat_direct";
const TO_PUBLISHED: &str = "to_published";
const PUBLISHED: &str = "published";

/// Our tables, empty of elements.
///
/// `queue` is where the engine hears of packets that open connections to be carried over; without one the host
/// accepts these by itself.
pub fn skeleton(queue: Option<Queue>) -> [Table; 2] {
    [inet_table(queue), bridge_table()]
}

/// Our tables behind iptables' rules: the same policy once more, whatever becomes of those. Only what the
/// user's chain DOCKER-USER has accepted carries [`IPTABLES_MARK`] and passes.
/// The chains for translation are empty, and keep the kernel translating the connections that
/// there are when the last of iptables' rules is flushed.
pub fn floor(queue: Option<Queue>) -> [Table; 2] {
    let mut inet = inet_table(queue);
    inet.chains.retain(|chain| chain.name != PUBLISHED);
    for chain in &mut inet.chains {
        let Some(hook) = &mut chain.hook else { continue };
        match (hook.kind, hook.point) {
            (ChainKind::Nat, _) => {
                hook.priority += 1;
                chain.rules.clear();
            }
            (ChainKind::Filter, HookPoint::Forward) => {
                hook.priority += 1;
                let decided = vec![
                    Statement::Marked(IPTABLES_MARK),
                    Statement::Unmark(IPTABLES_MARK),
                    verdict(Verdict::Accept),
                ];
                // In place of what the user's table says: here that is the chain DOCKER-USER.
                let user = std::mem::replace(&mut chain.rules, vec![rule("DOCKER-USER accepts it", decided)]);
                chain.rules.extend(user.into_iter().skip(1));
            }
            (ChainKind::Filter, _) => {}
        }
    }
    [inet, bridge_table()]
}

/// The user's table: an empty chain before our filter, and one for what is carried over. A drop here is
/// final; DOCKER-USER's place.
pub fn user_table() -> Table {
    let forward = Chain {
        name: "forward",
        hook: hook(ChainKind::Filter, HookPoint::Forward, PRIORITY_USER),
        rules: Vec::new(),
    };
    let carried = Chain {
        name: "carried",
        hook: hook(ChainKind::Filter, HookPoint::Input, PRIORITY_USER),
        rules: vec![rule(
            "below: only what comes to a published port that the engine carries over",
            vec![Statement::Unmarked(CARRIED_MARK), verdict(Verdict::Accept)],
        )],
    };
    Table { family: TableFamily::Inet, name: USER_TABLE, sets: Vec::new(), chains: vec![forward, carried] }
}

/// The table in a sandbox that rewrites port 53 of the resolver's address to the ports its sockets are
/// bound to, and back in its answers. Rewriting packets in place instead of NAT leaves no conntrack
/// entries, and the sandbox's own port 53 stays free.
pub fn dns_table(udp: u16, tcp: u16) -> Table {
    let there = |proto, port| {
        rule(
            "queries to the resolver's socket",
            vec![
                is(Field::IpDaddr, Value::Ipv4(RESOLVER)),
                is(Field::L4Proto, Value::Proto(proto)),
                is(Field::ThDport, Value::Port(53)),
                Statement::SetPort(Field::ThDport, port, proto),
            ],
        )
    };
    let back = |proto, port| {
        rule(
            "and its answers",
            vec![
                is(Field::IpSaddr, Value::Ipv4(RESOLVER)),
                is(Field::L4Proto, Value::Proto(proto)),
                is(Field::ThSport, Value::Port(port)),
                Statement::SetPort(Field::ThSport, 53, proto),
            ],
        )
    };
    let output = Chain {
        name: "output",
        hook: hook(ChainKind::Filter, HookPoint::Output, PRIORITY_RAW),
        rules: vec![
            there(Proto::Udp, udp),
            back(Proto::Udp, udp),
            there(Proto::Tcp, tcp),
            back(Proto::Tcp, tcp),
        ],
    };
    Table { family: TableFamily::Ip, name: DNS_TABLE, sets: Vec::new(), chains: vec![output] }
}

fn inet_table(queue: Option<Queue>) -> Table {
    let mut chains = filter_chains();
    chains.extend(carried_chains());
    chains.extend(queue.into_iter().flat_map(ask_chains));
    chains.extend(nat_chains());
    Table { family: TableFamily::Inet, name: TABLE, sets: sets(), chains }
}

fn sets() -> Vec<Set> {
    use DataType::{IfName, InetProto, InetService, Ipv4Addr, Ipv6Addr, NfProto};
    let set = |name, key, data| Set { name, key, data, interval: false };
    let networks = |name, key, data| Set { name, key, data, interval: true };
    let to4 = SetData::Values(&[Ipv4Addr, InetService]);
    let to6 = SetData::Values(&[Ipv6Addr, InetService]);
    let from4: &[DataType] = &[Ipv4Addr, Ipv4Addr, InetProto, InetService];
    let from6: &[DataType] = &[Ipv6Addr, Ipv6Addr, InetProto, InetService];
    vec![
        set(SetName::Published4, &[Ipv4Addr, InetProto, InetService], to4),
        set(SetName::Published4Any, &[InetProto, InetService], to4),
        set(SetName::Published6, &[Ipv6Addr, InetProto, InetService], to6),
        set(SetName::Published6Any, &[InetProto, InetService], to6),
        set(SetName::Open4, &[Ipv4Addr, InetProto, InetService], SetData::None),
        set(SetName::Open6, &[Ipv6Addr, InetProto, InetService], SetData::None),
        networks(SetName::Published4From, from4, to4),
        networks(SetName::Published6From, from6, to6),
        networks(SetName::Open4From, from4, SetData::None),
        networks(SetName::Open6From, from6, SetData::None),
        networks(SetName::Ranges4, from4, SetData::Values(&[Ipv4Addr])),
        networks(SetName::Ranges6, from6, SetData::Values(&[Ipv6Addr])),
        networks(SetName::OpenRanges4, from4, SetData::None),
        networks(SetName::OpenRanges6, from6, SetData::None),
        set(SetName::CarriedAny, &[NfProto, InetProto, InetService], SetData::None),
        set(SetName::Carried4, &[Ipv4Addr, InetProto, InetService], SetData::None),
        set(SetName::Carried6, &[Ipv6Addr, InetProto, InetService], SetData::None),
        set(SetName::CarriedSomeAny, &[NfProto, InetProto, InetService], SetData::None),
        set(SetName::CarriedSome4, &[Ipv4Addr, InetProto, InetService], SetData::None),
        set(SetName::CarriedSome6, &[Ipv6Addr, InetProto, InetService], SetData::None),
        set(SetName::CarriedApartAny, &[NfProto, InetProto, InetService], SetData::None),
        set(SetName::CarriedApart4, &[Ipv4Addr, InetProto, InetService], SetData::None),
        set(SetName::CarriedApart6, &[Ipv6Addr, InetProto, InetService], SetData::None),
        networks(SetName::CarriedRanges4, &[Ipv4Addr, InetProto, InetService], SetData::None),
        networks(SetName::CarriedRanges6, &[Ipv6Addr, InetProto, InetService], SetData::None),
        networks(SetName::CarriedSomeRanges4, &[Ipv4Addr, InetProto, InetService], SetData::None),
        networks(SetName::CarriedSomeRanges6, &[Ipv6Addr, InetProto, InetService], SetData::None),
        networks(SetName::CarriedApartRanges4, &[Ipv4Addr, InetProto, InetService], SetData::None),
        networks(SetName::CarriedApartRanges6, &[Ipv6Addr, InetProto, InetService], SetData::None),
        networks(SetName::Carried4From, &[Ipv4Addr, Ipv4Addr, InetProto, InetService], SetData::None),
        networks(SetName::Carried6From, &[Ipv6Addr, Ipv6Addr, InetProto, InetService], SetData::None),
        set(SetName::Bridges, &[IfName], SetData::None),
        set(SetName::ToBridge, &[NfProto, IfName], SetData::Verdict),
        set(SetName::FromBridge, &[NfProto, IfName], SetData::Verdict),
        set(SetName::SameBridge, &[IfName, IfName], SetData::Verdict),
        set(SetName::Isolated, &[IfName], SetData::None),
        set(SetName::Hairpin, &[IfName, IfName], SetData::None),
        set(SetName::Self4, &[Ipv4Addr, Ipv4Addr], SetData::None),
        set(SetName::Self6, &[Ipv6Addr, Ipv6Addr], SetData::None),
        set(SetName::Trusted, &[IfName, IfName], SetData::None),
        set(SetName::Masqueraded, &[NfProto, IfName], SetData::None),
        set(SetName::Snat4, &[IfName], SetData::Values(&[Ipv4Addr])),
        set(SetName::Snat6, &[IfName], SetData::Values(&[Ipv6Addr])),
    ]
}

fn filter_chains() -> Vec<Chain> {
    let open4: &[Field] = &[Field::IpDaddr, Field::L4Proto, Field::ThDport];
    let open6: &[Field] = &[Field::Ip6Daddr, Field::L4Proto, Field::ThDport];
    let same: &[Field] = &[Field::Iifname, Field::Oifname];
    let established = || rule("", vec![Statement::Established, verdict(Verdict::Accept)]);
    let published = || rule("by way of a published port", vec![Statement::Dnatted, verdict(Verdict::Accept)]);
    let drop = || rule("", vec![Statement::Counter, verdict(Verdict::Drop)]);
    let pass = |matched| rule("", vec![matched, Statement::Mark(ICC_MARK), verdict(Verdict::Accept)]);
    let echo = |field, number, kind| {
        let accept = verdict(Verdict::Accept);
        rule(
            "",
            vec![is(Field::L4Proto, Value::ProtoNumber(number)), is(field, Value::IcmpType(kind)), accept],
        )
    };
    vec![
        chain(
            TO_PUBLISHED,
            vec![
                rule("", vec![Statement::InSet(open4, SetName::Open4), verdict(Verdict::Accept)]),
                rule("", vec![Statement::InSet(open6, SetName::Open6), verdict(Verdict::Accept)]),
                rule(
                    "for some sources only",
                    vec![Statement::InSet(OPEN4_FROM, SetName::Open4From), verdict(Verdict::Accept)],
                ),
                rule("", vec![Statement::InSet(OPEN6_FROM, SetName::Open6From), verdict(Verdict::Accept)]),
                rule(
                    "ports in a row",
                    vec![Statement::InSet(OPEN4_FROM, SetName::OpenRanges4), verdict(Verdict::Accept)],
                ),
                rule("", vec![Statement::InSet(OPEN6_FROM, SetName::OpenRanges6), verdict(Verdict::Accept)]),
                drop(),
            ],
        ),
        chain(
            TO_NAT,
            vec![
                established(),
                published(),
                rule(
                    "direct routing from trusted links",
                    vec![Statement::InSet(same, SetName::Trusted), verdict(Verdict::Goto(TO_PUBLISHED))],
                ),
                drop(),
            ],
        ),
        chain(
            TO_NAT_DIRECT,
            vec![established(), published(), rule("", vec![verdict(Verdict::Goto(TO_PUBLISHED))])],
        ),
        chain(
            TO_ROUTED,
            vec![
                established(),
                echo(Field::IcmpType, IPPROTO_ICMP, ICMP_ECHO),
                echo(Field::Icmp6Type, IPPROTO_ICMPV6, ICMPV6_ECHO_REQUEST),
                rule("", vec![verdict(Verdict::Goto(TO_PUBLISHED))]),
            ],
        ),
        chain(
            ICC_OFF_CHAIN,
            vec![
                pass(Statement::Established),
                pass(Statement::Dnatted),
                rule("", neighbour_discovery(ICMPV6_NEIGHBOUR_SOLICITATION, Some(Statement::Mark(ICC_MARK)))),
                rule(
                    "",
                    neighbour_discovery(ICMPV6_NEIGHBOUR_ADVERTISEMENT, Some(Statement::Mark(ICC_MARK))),
                ),
                drop(),
            ],
        ),
        Chain {
            name: "guard",
            hook: hook(ChainKind::Filter, HookPoint::Prerouting, PRIORITY_RAW),
            rules: vec![guard(Field::IpDaddr), guard(Field::IpSaddr)],
        },
        Chain {
            name: "forward",
            hook: hook(ChainKind::Filter, HookPoint::Forward, PRIORITY_FILTER),
            rules: vec![
                rule(
                    "the user's table lets it pass",
                    vec![Statement::Marked(ACCEPT_MARK), verdict(Verdict::Accept)],
                ),
                rule("within a bridge", vec![Statement::VerdictMap(same, SetName::SameBridge)]),
                between(Field::Iifname, Field::Oifname),
                between(Field::Oifname, Field::Iifname),
                rule("", vec![Statement::VerdictMap(&[Field::NfProto, Field::Iifname], SetName::FromBridge)]),
                rule("", vec![Statement::VerdictMap(&[Field::NfProto, Field::Oifname], SetName::ToBridge)]),
            ],
        },
    ]
}

/// Between a bridge that keeps apart from all others and another one.
fn between(isolated: Field, other: Field) -> Rule {
    let fields = |field: Field| -> &'static [Field] {
        if field == Field::Iifname { &[Field::Iifname] } else { &[Field::Oifname] }
    };
    rule(
        "",
        vec![
            Statement::InSet(fields(isolated), SetName::Isolated),
            Statement::InSet(fields(other), SetName::Bridges),
            Statement::Counter,
            verdict(Verdict::Drop),
        ],
    )
}

/// What a published port that is open to some sources only is looked up by.
pub(super) const OPEN4_FROM: &[Field] = &[Field::IpSaddr, Field::IpDaddr, Field::L4Proto, Field::ThDport];
pub(super) const OPEN6_FROM: &[Field] = &[Field::Ip6Saddr, Field::Ip6Daddr, Field::L4Proto, Field::ThDport];

pub(super) const IPPROTO_ICMP: u8 = 1;
pub(super) const IPPROTO_ICMPV6: u8 = 58;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
pub(super) const ICMPV6_NEIGHBOUR_SOLICITATION: u8 = 135;
pub(super) const ICMPV6_NEIGHBOUR_ADVERTISEMENT: u8 = 136;

fn nat_chains() -> Vec<Chain> {
    let publish = || vec![rule("", vec![verdict(Verdict::Goto(PUBLISHED))])];
    let one4: &[Field] = &[Field::IpDaddr, Field::L4Proto, Field::ThDport];
    let one6: &[Field] = &[Field::Ip6Daddr, Field::L4Proto, Field::ThDport];
    let any: &[Field] = &[Field::L4Proto, Field::ThDport];
    let family = |family| is(Field::NfProto, Value::NfProto(family));
    let all4 =
        vec![family(IpFamily::V4), Statement::ToThisHost, Statement::DnatMap(any, SetName::Published4Any)];
    let not_loopback =
        Statement::Compare { field: Field::Ip6Daddr, equal: false, value: Value::Ipv6(Ipv6Addr::LOCALHOST) };
    let all6 =
        vec![not_loopback.clone(), Statement::ToThisHost, Statement::DnatMap(any, SetName::Published6Any)];
    let some4 = vec![
        family(IpFamily::V4),
        Statement::ToThisHost,
        Statement::DnatMap(OPEN4_FROM, SetName::Published4From),
    ];
    let some6 = vec![
        not_loopback.clone(),
        Statement::ToThisHost,
        Statement::DnatMap(OPEN6_FROM, SetName::Published6From),
    ];
    let ranges4 = vec![
        family(IpFamily::V4),
        Statement::ToThisHost,
        Statement::DnatAddressMap(OPEN4_FROM, SetName::Ranges4),
    ];
    let ranges6 =
        vec![not_loopback, Statement::ToThisHost, Statement::DnatAddressMap(OPEN6_FROM, SetName::Ranges6)];
    let same: &[Field] = &[Field::Iifname, Field::Oifname];
    vec![
        chain(
            PUBLISHED,
            vec![
                // An address may be another host's by now (a virtual one that has moved).
                rule("", vec![Statement::ToThisHost, Statement::DnatMap(one4, SetName::Published4)]),
                rule("", all4),
                rule("", vec![Statement::ToThisHost, Statement::DnatMap(one6, SetName::Published6)]),
                rule("the kernel takes no answer to ::1 from a link", all6),
                rule("for some sources only", some4),
                rule("", some6),
                rule("ports in a row", ranges4),
                rule("", ranges6),
            ],
        ),
        Chain {
            name: "prerouting",
            hook: hook(ChainKind::Nat, HookPoint::Prerouting, PRIORITY_DSTNAT),
            rules: publish(),
        },
        Chain {
            name: "output",
            hook: hook(ChainKind::Nat, HookPoint::Output, PRIORITY_DSTNAT),
            rules: publish(),
        },
        Chain {
            name: "postrouting",
            hook: hook(ChainKind::Nat, HookPoint::Postrouting, PRIORITY_SRCNAT),
            rules: vec![
                from_loopback(),
                rule(
                    "to a port published by the same bridge: or the answer would not come back by us",
                    vec![Statement::Dnatted, Statement::InSet(same, SetName::Hairpin), Statement::Masquerade],
                ),
                to_itself(&[Field::IpSaddr, Field::IpDaddr], SetName::Self4),
                to_itself(&[Field::Ip6Saddr, Field::Ip6Daddr], SetName::Self6),
                rule("", vec![Statement::InSet(same, SetName::Hairpin), verdict(Verdict::Accept)]),
                rule("", vec![Statement::SnatMap(&[Field::Iifname], SetName::Snat4)]),
                rule("", vec![Statement::SnatMap(&[Field::Iifname], SetName::Snat6)]),
                rule(
                    "",
                    vec![
                        Statement::InSet(&[Field::NfProto, Field::Iifname], SetName::Masqueraded),
                        Statement::Masquerade,
                    ],
                ),
            ],
        },
    ]
}

/// With br_netfilter the frame is switched back to its port after translation, so it has no incoming
/// link here; a container takes nothing from its own address.
fn to_itself(pair: &'static [Field], set: SetName) -> Rule {
    rule("", vec![Statement::Dnatted, Statement::InSet(pair, set), Statement::Masquerade])
}

/// A container cannot answer to loopback, so it must see the bridge's address.
fn from_loopback() -> Rule {
    rule(
        "from this host's loopback",
        vec![
            Statement::Prefix {
                field: Field::IpSaddr,
                network: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
                prefix: 8,
            },
            Statement::InSet(&[Field::Oifname], SetName::Bridges),
            Statement::Masquerade,
        ],
    )
}

/// Bridges have `route_localnet`, so that a port of 127.0.0.1 can lead into them; without it the
/// kernel itself drops these as martians.
fn guard(field: Field) -> Rule {
    rule(
        "route_localnet opens loopback to nobody",
        vec![
            Statement::Compare { field: Field::Iifname, equal: false, value: Value::Lo },
            Statement::Prefix { field, network: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
            Statement::Counter,
            verdict(Verdict::Drop),
        ],
    )
}

/// Lets neighbours ask for each other even where they may not talk: a port published by one answers
/// another directly where bridged frames are translated. Whom they claim to be is the source guard's.
pub(super) fn neighbour_discovery(kind: u8, mark: Option<Statement>) -> Vec<Statement> {
    let mut statements = vec![
        is(Field::L4Proto, Value::ProtoNumber(IPPROTO_ICMPV6)),
        is(Field::Icmp6Type, Value::IcmpType(kind)),
    ];
    statements.extend(mark);
    statements.push(verdict(Verdict::Accept));
    statements
}

pub(super) fn drop_rest() -> Rule {
    rule("", vec![Statement::Counter, verdict(Verdict::Drop)])
}

pub(super) fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain { name, hook: None, rules }
}

pub(super) fn hook(kind: ChainKind, point: HookPoint, priority: i32) -> Option<Hook> {
    Some(Hook { kind, point, priority })
}

pub(super) fn rule(comment: &'static str, statements: Vec<Statement>) -> Rule {
    Rule { statements, comment }
}

pub(super) fn is(field: Field, value: Value) -> Statement {
    Statement::Compare { field, equal: true, value }
}

pub(super) fn verdict(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

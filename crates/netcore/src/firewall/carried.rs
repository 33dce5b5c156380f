//! The chains for ports at which the engine itself listens, to carry connections over: who may use them, and
//! asking the endpoint before the host accepts.

use super::ruleset::{Chain, ChainKind, Field, HookPoint, Queue, SetName, Statement, Value, Verdict};
use super::skeleton::{
    CARRIED_MARK, OPEN4_FROM, OPEN6_FROM, PRIORITY_USER, REFUSED_MARK, chain, drop_rest, hook, is, rule,
    verdict,
};
use crate::model::Proto;

/// The chain of packets for a port whose connections are carried over.
const CARRIED: &str = "carried";
/// The same for a port that is for some sources only.
const CARRIED_SOME: &str = "carried_some";
/// The chain of what opens a connection of TCP.
const OPENS: &str = "opens";
/// The chain of what opens one that is carried over.
const ASKED: &str = "asked";
/// Before the user's table, which sees of these packets what may pass.
const PRIORITY_CARRIED: i32 = PRIORITY_USER - 1;
/// After other people's filters: what they drop asks no endpoint.
const PRIORITY_ASK: i32 = 40;

/// Packets for ports at which the engine itself listens. They are held to what holds for those that are
/// forwarded: no bridge that is closed or keeps apart reaches them, and where a source may not connect it is
/// refused, as where nobody listens.
pub(super) fn carried_chains() -> Vec<Chain> {
    let accept = |matched: Option<Statement>| {
        let mut statements: Vec<Statement> = matched.into_iter().collect();
        statements.extend([Statement::Mark(CARRIED_MARK), verdict(Verdict::Accept)]);
        rule("", statements)
    };
    let tcp = is(Field::L4Proto, Value::Proto(Proto::Tcp));
    let bridge = |set| Statement::InSet(&[Field::Iifname], set);
    let drop =
        |matched: &[Statement]| rule("", [matched, &[Statement::Counter, verdict(Verdict::Drop)]].concat());
    let mut carried = vec![
        drop(&[bridge(SetName::Isolated)]),
        rule("", vec![Statement::VerdictMap(&[Field::NfProto, Field::Iifname], SetName::FromBridge)]),
    ];
    carried.extend(carried_in(CARRIED_APART).map(|port| drop(&[bridge(SetName::Bridges), port])));
    let to = |chain| move |port| rule("", vec![port, verdict(Verdict::Goto(chain))]);
    carried.extend(carried_in(CARRIED_FOR_SOME).map(to(CARRIED_SOME)));
    carried.push(accept(None));
    vec![
        chain(
            CARRIED_SOME,
            vec![
                accept(Some(Statement::Established)),
                accept(Some(Statement::InSet(OPEN4_FROM, SetName::Carried4From))),
                accept(Some(Statement::InSet(OPEN6_FROM, SetName::Carried6From))),
                rule("to others nobody listens", vec![tcp, Statement::Counter, Statement::Reset]),
                drop_rest(),
            ],
        ),
        chain(CARRIED, carried),
        Chain {
            name: "input",
            hook: hook(ChainKind::Filter, HookPoint::Input, PRIORITY_CARRIED),
            rules: carried_in(CARRIED_ALL).map(to(CARRIED)).to_vec(),
        },
    ]
}

/// Where a carried port is, by how it is published.
pub(super) struct CarriedSets {
    /// On every address.
    pub(super) any: SetName,
    /// On one, IPv4 and IPv6.
    pub(super) one: [SetName; 2],
    /// Ports in a row, whichever the address.
    pub(super) ranges: [SetName; 2],
}

/// All of them.
pub(super) const CARRIED_ALL: CarriedSets = CarriedSets {
    any: SetName::CarriedAny,
    one: [SetName::Carried4, SetName::Carried6],
    ranges: [SetName::CarriedRanges4, SetName::CarriedRanges6],
};
/// Those that are for some sources only.
pub(super) const CARRIED_FOR_SOME: CarriedSets = CarriedSets {
    any: SetName::CarriedSomeAny,
    one: [SetName::CarriedSome4, SetName::CarriedSome6],
    ranges: [SetName::CarriedSomeRanges4, SetName::CarriedSomeRanges6],
};
/// Those of bridges that keep apart from all others.
pub(super) const CARRIED_APART: CarriedSets = CarriedSets {
    any: SetName::CarriedApartAny,
    one: [SetName::CarriedApart4, SetName::CarriedApart6],
    ranges: [SetName::CarriedApartRanges4, SetName::CarriedApartRanges6],
};

/// What opens a connection that is to be carried over goes to the engine, which asks the endpoint: it lets the
/// packet pass to the socket, or has it go through these chains again with [`REFUSED_MARK`]. Who may not connect
/// has not come as far. Other programs may have set or lost marks in between, so it is by the port once more.
pub(super) fn ask_chains(queue: Queue) -> [Chain; 3] {
    let tcp = is(Field::L4Proto, Value::Proto(Proto::Tcp));
    let refused = vec![Statement::Marked(REFUSED_MARK), tcp, Statement::Counter, Statement::Reset];
    let to = |chain, matched| rule("", vec![matched, verdict(Verdict::Goto(chain))]);
    [
        chain(
            ASKED,
            vec![
                rule("nobody listens in the container", refused),
                rule("the container is asked first", vec![Statement::Queue(queue)]),
            ],
        ),
        chain(OPENS, carried_in(CARRIED_ALL).map(|port| to(ASKED, port)).to_vec()),
        Chain {
            name: "ask",
            hook: hook(ChainKind::Filter, HookPoint::Input, PRIORITY_ASK),
            rules: vec![to(OPENS, Statement::Opens)],
        },
    ]
}

/// A carried port's look-ups.
fn carried_in(CarriedSets { any, one, ranges }: CarriedSets) -> [Statement; 5] {
    const IN4: &[Field] = &[Field::IpDaddr, Field::L4Proto, Field::ThDport];
    const IN6: &[Field] = &[Field::Ip6Daddr, Field::L4Proto, Field::ThDport];
    [
        Statement::InSet(&[Field::NfProto, Field::L4Proto, Field::ThDport], any),
        Statement::InSet(IN4, one[0]),
        Statement::InSet(IN6, one[1]),
        Statement::InSet(IN4, ranges[0]),
        Statement::InSet(IN6, ranges[1]),
    ]
}

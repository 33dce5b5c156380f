//! What keeps single published ports from being reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::advice::{hooked, packets, sees};
use super::evaluate::{End, Outcome, evaluate};
use super::packet::{Address, Packet, Port};
use super::{Family, Finding, Flow, Hook, Place, Ruleset, Tool};
use crate::firewall::BridgePolicy;
use crate::model::runs::Repeated;
use crate::model::{PortBinding, PortRange, Proto};

/// Published ports, where they are and where they lead: one, or several in a row that lead to as many in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Its protocol.
    pub proto: Proto,
    /// The container's port, of several the lowest.
    pub port: u16,
    /// The container's address, if it has one yet.
    pub address: Option<IpAddr>,
    /// The host's address; `0.0.0.0` and `::` mean every one of that family, none every one of both.
    pub host: Option<IpAddr>,
    /// The host's port, if it is decided yet; of several the lowest.
    pub host_port: Option<u16>,
    /// How many they are, at least one.
    pub count: u16,
}

impl Service {
    /// Ports that are published by way of a container's address of the same family.
    pub fn of(run: &Repeated<PortBinding>, address: IpAddr) -> Self {
        let Repeated { first, count } = run;
        let host_port = Some(first.host_port).filter(|port| *port != 0);
        let (proto, port, host) = (first.proto, first.container_port, Some(first.host_ip));
        Self { proto, port, address: Some(address), host, host_port, count: *count }
    }

    /// It may be reached from outside by this family.
    fn is_of(&self, v4: bool) -> bool {
        let fits = |address: Option<IpAddr>| address.is_none_or(|address| address.is_ipv4() == v4);
        fits(self.host) && fits(self.address) && !self.host.is_some_and(|host| host.is_loopback())
    }

    /// So many from a port on.
    fn from(&self, first: u16) -> PortRange {
        PortRange { first, last: first.saturating_add(self.count.saturating_sub(1)) }
    }

    /// The address and the ports that packets to it have at a hook, as far as they are known; no ports are
    /// where nothing can be said.
    fn seen_at(&self, packet: &Packet) -> (Option<IpAddr>, Option<PortRange>) {
        match packet.hook {
            hook if hook.is_before_translation() && packet.translated => {
                let ports = self.host_port.map(|first| self.from(first));
                (self.host.filter(|host| !host.is_unspecified()), ports)
            }
            // What is led nowhere else arrives as it is.
            Hook::Ingress | Hook::Raw | Hook::Prerouting => (self.address, Some(self.from(self.port))),
            Hook::Translated => (None, None),
            _ => (self.address, Some(self.from(self.port))),
        }
    }
}

/// What keeps some of these ports from being reached by way of this network, beyond what
/// [`findings`](super::findings) tells of all of it. It costs what rules ask about ports, and how many services
/// there are, not how many ports: those that no rule tells apart are judged as one.
pub fn port_findings(ruleset: &Ruleset, network: &BridgePolicy, services: &[Service]) -> Vec<Finding> {
    let mut found: BTreeMap<Key<'_>, BTreeMap<Proto, Vec<PortRange>>> = BTreeMap::new();
    let ways = packets(ruleset, network).into_iter().filter(|(flow, _)| {
        // Answers carry a published port as their source, which no packet here has.
        matches!(flow, Flow::In | Flow::InReplies)
    });
    for (flow, packet) in ways {
        let tables: Vec<_> = ruleset.tables.iter().filter(|table| sees(table, &packet)).collect();
        // Nobody looks at it, mostly.
        let kinds = if tables.is_empty() { Vec::new() } else { kinds(flow, &packet, services) };
        if kinds.is_empty() {
            continue;
        }
        for table in tables {
            for chain in hooked(table, &packet) {
                let whole = evaluate(ruleset, table, chain, &packet);
                for (packet, ports) in &kinds {
                    let judge = |port| {
                        let port = Some(port).filter(|_| flow == Flow::In);
                        evaluate(ruleset, table, chain, &Packet { port, ..packet.clone() })
                    };
                    each(ports, ALL, &judge, &mut |ports, outcome| {
                        let Some(place) = news(outcome, &whole) else { return };
                        let of = (table.family, table.name.as_str(), chain, table.tool);
                        let entry = found.entry((of, packet.hook, flow, outcome.may_pass, place));
                        entry.or_default().entry(packet.proto).or_default().push(ports);
                    });
                }
            }
        }
    }
    let finding = |((of, hook, flow, partly, place), ports): (Key<'_>, BTreeMap<Proto, Vec<PortRange>>)| {
        let (family, table, chain, tool) = of;
        let ports = ports
            .into_iter()
            .flat_map(|(proto, ranges)| joined(ranges).into_iter().map(move |range| (proto, range)));
        let found = Finding {
            bridge: network.bridge.clone(),
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
            hook,
            tool,
            flows: BTreeSet::from([flow]),
            ports: ports.collect(),
            partly,
            place,
            fix: Vec::new(),
        };
        found.advised(ruleset)
    };
    found.into_iter().map(finding).collect()
}

/// Family, table, base chain and tool; hook, flow, whether some may pass, and what drops it.
type Key<'a> = ((Family, &'a str, &'a str, Tool), Hook, Flow, bool, Place);

/// Packets like this one to these services: one for each protocol and address, with the ports, in order and apart.
fn kinds(flow: Flow, packet: &Packet, services: &[Service]) -> Vec<(Packet, Vec<PortRange>)> {
    let mut kinds: BTreeMap<(Proto, Option<IpAddr>), Vec<PortRange>> = BTreeMap::new();
    for service in services.iter().filter(|service| service.is_of(packet.v4)) {
        let (address, ports) = match flow {
            Flow::In => service.seen_at(packet),
            _ => (service.address, Some(service.from(service.port))),
        };
        if let Some(ports) = ports {
            kinds.entry((service.proto, address)).or_default().push(ports);
        }
    }
    let kind = |((proto, address), ports): ((Proto, Option<IpAddr>), Vec<PortRange>)| {
        let mut packet = Packet { proto, ..packet.clone() };
        match (flow, address) {
            (_, None) => {}
            (Flow::In, Some(address)) => packet.destination = Address::One(address),
            (_, Some(address)) => packet.source = Address::One(address),
        }
        (packet, joined(ports))
    };
    kinds.into_iter().map(kind).collect()
}

/// The same ports in order, as ranges that do not touch.
fn joined(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let touch = next.first <= range.last.saturating_add(1);
        if touch {
            range.last = range.last.max(next.last);
        }
        touch
    });
    ranges
}

/// Every port there may be.
const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

/// Judges the ports of these ranges (in order, apart) that are in a block, as many at once as come to the same. The
/// ports of a block have their first bits in common, and are all that have them.
fn each(
    ranges: &[PortRange],
    block: PortRange,
    judge: &dyn Fn(Port) -> Outcome,
    tell: &mut dyn FnMut(PortRange, &Outcome),
) {
    let ranges = &ranges[ranges.partition_point(|range| range.last < block.first)..];
    let ranges = &ranges[..ranges.partition_point(|range| range.first <= block.last)];
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return };
    let ends = PortRange { first: first.first.max(block.first), last: last.last.min(block.last) };
    let block = if ends.first == ends.last { ends } else { block };
    let outcome = judge(Port { value: ends.first, known: !(block.last - block.first) });
    if block.first == block.last || !outcome.asks_port {
        let within = |range: &PortRange| PortRange {
            first: range.first.max(block.first),
            last: range.last.min(block.last),
        };
        return ranges.iter().map(within).for_each(|range| tell(range, &outcome));
    }
    let middle = block.first + (block.last - block.first) / 2;
    each(ranges, PortRange { last: middle, ..block }, judge, tell);
    each(ranges, PortRange { first: middle + 1, ..block }, judge, tell);
}

/// What drops it, if that is not told of the whole network.
fn news(outcome: &Outcome, whole: &Outcome) -> Option<Place> {
    let End::Dropped(chain, rule) = &outcome.end else { return None };
    let told = matches!(whole.end, End::Dropped(..)) && (!whole.may_pass || outcome.may_pass);
    (!told).then(|| Place { chain: chain.clone(), rule: rule.map(|number| number + 1) })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::read_save;
    use super::*;
    use crate::model::IfName;

    /// Ports that rules and services are about.
    const PORTS: std::ops::Range<u16> = 1000..1040;

    fn rule() -> impl Strategy<Value = String> {
        let proto = prop::sample::select(vec!["", "-p tcp ", "-p udp "]);
        let address = prop::sample::select(vec!["", "-d 172.17.0.2/32 ", "-d 192.0.2.1/32 ", "-i eth0 "]);
        let ports = prop::option::weighted(0.8, (PORTS, 0..20_u16));
        let verdict = prop::sample::select(vec!["DROP", "ACCEPT", "RETURN", "OTHER"]);
        (proto, address, ports, verdict).prop_map(|(proto, address, ports, verdict)| {
            let ports = ports.filter(|_| !proto.is_empty());
            let ports =
                ports.map_or(String::new(), |(from, more)| format!("--dport {from}:{} ", from + more));
            format!("{address}{proto}{ports}-j {verdict}")
        })
    }

    fn service() -> impl Strategy<Value = Service> {
        let proto = prop::sample::select(vec![Proto::Tcp, Proto::Udp, Proto::Sctp]);
        let host = prop::sample::select(vec![[0, 0, 0, 0], [192, 0, 2, 1], [192, 0, 2, 2], [127, 0, 0, 1]]);
        (proto, PORTS, 2..4_u8, host, prop::option::of(PORTS), 1..30_u16).prop_map(
            |(proto, port, last, host, host_port, count)| Service {
                proto,
                port,
                address: Some([172, 17, 0, last].into()),
                host: Some(host.into()),
                host_port,
                count,
            },
        )
    }

    /// Each port of a service by itself.
    fn singles(service: &Service) -> impl Iterator<Item = Service> + use<'_> {
        let higher = |port: Option<u16>, by| port.map(|port| port + by);
        (0..service.count).map(move |by| Service {
            port: service.port + by,
            host_port: higher(service.host_port, by),
            count: 1,
            ..*service
        })
    }

    /// What is found, without the advice, and each port by itself.
    fn told(findings: &[Finding]) -> BTreeSet<String> {
        let each = |finding: &Finding| {
            let of = format!(
                "{:?} {} {} {:?} {:?} {} {}",
                finding.family,
                finding.table,
                finding.chain,
                finding.hook,
                finding.flows,
                finding.partly,
                finding.place
            );
            let ports = finding.ports.clone().into_iter();
            ports.flat_map(move |(proto, range)| {
                let of = of.clone();
                (range.first..=range.last).map(move |port| format!("{of} {port}/{proto}"))
            })
        };
        findings.iter().flat_map(each).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn ports_in_a_row_are_judged_as_one_by_one(
            table in prop::sample::select(vec!["raw PREROUTING", "mangle PREROUTING", "mangle FORWARD", "filter FORWARD"]),
            policy in prop::sample::select(vec!["ACCEPT", "DROP"]),
            rules in vec(rule(), 0..6),
            others in vec(rule(), 0..3),
            services in vec(service(), 0..4),
        ) {
            let (table, chain) = table.split_once(' ').unwrap();
            let lines = |chain: &str, rules: &[String]| -> String {
                rules.iter().map(|rule| format!("-A {chain} {}\n", rule.replace("-j OTHER", if chain == "OTHER" { "-j DROP" } else { "-j OTHER" }))).collect()
            };
            let text = format!(
                "*{table}\n:{chain} {policy} [0:0]\n:OTHER - [0:0]\n{}{}COMMIT\n",
                lines(chain, &rules),
                lines("OTHER", &others)
            );
            let tables = read_save(&text, Family::Ip);
            let ruleset = Ruleset { tables, egress: Some("eth0".to_owned()), ..Ruleset::default() };
            let network = BridgePolicy::new(IfName::new("docker0").unwrap(), vec!["172.17.0.0/16".parse().unwrap()]);
            let found = port_findings(&ruleset, &network, &services);
            let alone = services.iter().flat_map(singles);
            let one_by_one = alone.flat_map(|one| told(&port_findings(&ruleset, &network, &[one]))).collect();
            prop_assert_eq!(told(&found), one_by_one);
            prop_assert!(found.iter().all(|finding| finding.ports.is_sorted()));
        }
    }

    /// How often ports are judged by rules that ask for those from 9000 on.
    fn judged(ranges: &[PortRange], asks: bool) -> usize {
        let count = Cell::new(0);
        let judge = |port: Port| {
            count.set(count.get() + 1);
            let mixed = asks && (port.value & port.known < 9000) && (port.value | !port.known >= 9000);
            Outcome { may_pass: true, may_return: false, end: End::Accepted, asks_port: mixed }
        };
        let mut told = Vec::new();
        each(ranges, ALL, &judge, &mut |ports, _| told.push(ports));
        assert_eq!(joined(told), ranges);
        count.get()
    }

    #[test]
    fn ten_thousand_ports_are_not_judged_one_by_one() {
        let (many, few) =
            ([PortRange { first: 8000, last: 17_999 }], [PortRange { first: 8000, last: 8009 }]);
        assert_eq!((judged(&many, false), judged(&few, false)), (1, 1));
        assert!(judged(&many, true) < 2 * 17, "{}", judged(&many, true));
        let rows: Vec<PortRange> =
            (100..1000).map(|n| PortRange { first: 10 * n, last: 10 * n + 5 }).collect();
        assert_eq!(judged(&rows, false), 1);
    }
}

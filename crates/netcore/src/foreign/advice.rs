//! What of our traffic does not arrive, and what lets it through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use super::evaluate::{End, evaluate};
use super::packet::{Address, Packet};
use super::{Base, Chain, Family, Hook, Ruleset, Table, Tool};
use crate::firewall::BridgePolicy;
use crate::model::{GatewayMode, IfName, PortRange, Proto};

/// A kind of traffic that a network has. Display: in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// Connections of containers to the outside.
    Out,
    /// What comes back on them.
    OutReplies,
    /// Connections from outside to published ports.
    In,
    /// What goes back on them.
    InReplies,
    /// Among containers of the network.
    Within,
    /// Connections of containers to this host.
    ToHost,
}

impl Flow {
    /// One word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::OutReplies => "out-replies",
            Self::In => "in",
            Self::InReplies => "in-replies",
            Self::Within => "within",
            Self::ToHost => "to-host",
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out => "connections of containers to the outside",
            Self::OutReplies => "what comes back on them",
            Self::In => "connections to published ports",
            Self::InReplies => "what containers answer on them",
            Self::Within => "traffic among containers of the network",
            Self::ToHost => "connections of containers to this host",
        })
    }
}

/// What drops a packet. Display: in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The chain.
    pub chain: String,
    /// The number of its rule, from 1; none for the chain's policy.
    pub rule: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(rule) => write!(f, "rule {rule} of chain {} drops or rejects it", self.chain),
            None => write!(f, "the policy of chain {} is drop", self.chain),
        }
    }
}

/// A base chain of somebody else that keeps traffic of a network from arriving.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The network's bridge.
    pub bridge: IfName,
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// Its hook.
    pub hook: Hook,
    /// Whose it is.
    pub tool: Tool,
    /// What does not arrive.
    pub flows: BTreeSet<Flow>,
    /// The ports that it is about, in order: the host's where [`Hook::is_before_translation`], else the
    /// containers'. None if it is about all.
    pub ports: Vec<(Proto, PortRange)>,
    /// Some of it does: what rules that are not fully understood here let through.
    pub partly: bool,
    /// What drops it.
    pub place: Place,
    /// Commands that let it through; each may be typed as it is.
    pub fix: Vec<String>,
}

impl Finding {
    /// It keeps a network from doing what it is for. What it keeps from this host is the host's own affair, and
    /// what it lets through by rules of its own was decided by somebody.
    pub fn is_severe(&self) -> bool {
        !self.partly && self.hook != Hook::Input
    }

    /// Its ports as people write them: `8000/tcp`, `9000-9010/udp`.
    pub fn port_names(&self) -> Vec<String> {
        let name = |(proto, range): &(Proto, PortRange)| format!("{range}/{proto}");
        self.ports.iter().map(name).collect()
    }
}

/// So many runs of ports are told one by one, and let through one by one.
const FEW: usize = 8;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flows: Vec<String> = self.flows.iter().map(ToString::to_string).collect();
        let Self { bridge, family, table, tool, place, .. } = self;
        let drops = if self.partly { "drops, but for what its rules let through," } else { "drops" };
        write!(f, "table {family} {table} ({tool}) {drops} {}", flows.join(", "))?;
        if !self.ports.is_empty() {
            let names = self.port_names();
            let whose = if self.hook.is_before_translation() { "host" } else { "container" };
            write!(f, " ({whose} port {}", names[..names.len().min(FEW)].join(", "))?;
            if names.len() > FEW {
                write!(f, " and {} more", names.len() - FEW)?;
            }
            f.write_str(")")?;
        }
        write!(f, " of {bridge}: {place}")
    }
}

/// What keeps traffic of this network from arriving, whatever the port. See [`super::port_findings`].
pub fn findings(ruleset: &Ruleset, network: &BridgePolicy) -> Vec<Finding> {
    let mut found: BTreeMap<Key<'_>, (BTreeSet<Flow>, Place)> = BTreeMap::new();
    for (flow, packet) in packets(ruleset, network) {
        for table in ruleset.tables.iter().filter(|table| sees(table, &packet)) {
            for name in hooked(table, &packet) {
                let outcome = evaluate(ruleset, table, name, &packet);
                let End::Dropped(chain, rule) = outcome.end else { continue };
                let place = Place { chain, rule: rule.map(|number| number + 1) };
                let key = (table.family, table.name.as_str(), name, table.tool, outcome.may_pass);
                found.entry((key, packet.hook)).or_insert_with(|| (BTreeSet::new(), place)).0.insert(flow);
            }
        }
    }
    found
        .into_iter()
        .map(|(((family, table, chain, tool, partly), hook), (flows, place))| {
            let found = Finding {
                bridge: network.bridge.clone(),
                family,
                table: table.to_owned(),
                chain: chain.to_owned(),
                hook,
                tool,
                flows,
                ports: Vec::new(),
                partly,
                place,
                fix: Vec::new(),
            };
            found.advised(ruleset)
        })
        .collect()
}

/// The base chains of a table that this packet comes to.
pub(super) fn hooked<'a>(table: &'a Table, packet: &Packet) -> impl Iterator<Item = &'a str> {
    let hook = packet.hook;
    let link = match hook {
        Hook::Egress => packet.to.clone(),
        _ => packet.from.clone(),
    };
    let of_link = move |base: &Base| {
        let named = |link: &IfName| base.links.iter().any(|name| name == link.as_str());
        !matches!(hook, Hook::Ingress | Hook::Egress) || link.as_ref().is_some_and(named)
    };
    let there =
        move |chain: &Chain| chain.base.as_ref().is_some_and(|base| base.hook == hook && of_link(base));
    table.chains.iter().filter(move |(_, chain)| there(chain)).map(|(name, _)| name.as_str())
}

/// Chains of single links that no packet here comes to: nothing can be said of what they drop. In words.
pub fn unjudged(ruleset: &Ruleset, networks: &[&BridgePolicy]) -> Vec<String> {
    let judged = |link: &String| {
        ruleset.egress.as_ref() == Some(link)
            || networks.iter().any(|network| network.bridge.as_str() == link)
    };
    let chains = ruleset.tables.iter().flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
    let about = |(table, (name, chain)): (&Table, (&String, &Chain))| {
        let links: Vec<&str> =
            chain.base.as_ref()?.links.iter().filter(|link| !judged(link)).map(String::as_str).collect();
        let Table { family, name: table, .. } = table;
        (!links.is_empty()).then(|| format!("chain {name} of table {family} {table} on {}", links.join(", ")))
    };
    chains.filter_map(about).collect()
}

/// Family, table, base chain, tool and whether some may pass; and the hook.
type Key<'a> = ((Family, &'a str, &'a str, Tool, bool), Hook);

/// The table's hooks get to see this packet.
pub(super) fn sees(table: &Table, packet: &Packet) -> bool {
    match table.family {
        Family::Bridge => packet.bridge.is_some(),
        _ if packet.bridge.is_some() => false,
        Family::Ip => packet.v4,
        Family::Ip6 => !packet.v4,
        Family::Inet => true,
        Family::Netdev => matches!(packet.hook, Hook::Ingress | Hook::Egress),
    }
}

/// One packet of each kind and family.
pub(super) fn packets(ruleset: &Ruleset, network: &BridgePolicy) -> Vec<(Flow, Packet)> {
    let mut packets = Vec::new();
    let outside = ruleset.egress.as_deref().and_then(|name| IfName::new(name).ok());
    let bridge = Some(network.bridge.clone());
    for v4 in [true, false] {
        let Some(subnet) = network.subnets.iter().find(|net| net.addr().is_ipv4() == v4) else { continue };
        let mode = if v4 { network.gateway_mode_ipv4 } else { network.gateway_mode_ipv6 };
        let inside = Address::In(IpNet::trunc(subnet));
        let packet = Packet {
            hook: Hook::Forward,
            v4,
            from: bridge.clone(),
            to: outside.clone(),
            bridge: None,
            source: inside,
            destination: Address::Any,
            proto: Proto::Tcp,
            port: None,
            established: false,
            translated: false,
        };
        let back = Packet {
            from: outside.clone(),
            to: bridge.clone(),
            source: Address::Any,
            destination: inside,
            ..packet.clone()
        };
        let translated = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
        if !network.internal && mode != GatewayMode::Isolated {
            let first = Packet { translated, ..back.clone() };
            let answer = Packet { established: true, translated, ..packet.clone() };
            packets.extend(through(Flow::In, first));
            packets.extend(through(Flow::InReplies, answer));
            packets.extend(through(Flow::Out, packet.clone()));
            packets.extend(through(Flow::OutReplies, Packet { established: true, ..back }));
        }
        if network.icc {
            let among = Packet { to: bridge.clone(), destination: inside, ..packet.clone() };
            packets.push((Flow::Within, Packet { bridge: bridge.clone(), ..among.clone() }));
            if ruleset.bridge_netfilter {
                packets.push((Flow::Within, among));
            }
        }
        packets.push((Flow::ToHost, Packet { hook: Hook::Input, to: None, destination: inside, ..packet }));
    }
    packets
}

/// A packet through this host at each hook of its way.
fn through(flow: Flow, packet: Packet) -> [(Flow, Packet); 7] {
    // What comes from outside is addressed to this host until it is translated.
    let arriving = match flow {
        Flow::In | Flow::OutReplies => Packet { to: None, destination: Address::Any, ..packet.clone() },
        _ => Packet { to: None, ..packet.clone() },
    };
    let leaving = Packet { hook: Hook::Postrouting, from: None, ..packet.clone() };
    // What goes outside may come from this host by then.
    let left = match flow {
        Flow::Out | Flow::InReplies => Packet { source: Address::Any, ..leaving.clone() },
        _ => leaving.clone(),
    };
    [
        (flow, Packet { hook: Hook::Ingress, ..arriving.clone() }),
        (flow, Packet { hook: Hook::Raw, ..arriving.clone() }),
        (flow, Packet { hook: Hook::Prerouting, ..arriving.clone() }),
        (flow, Packet { hook: Hook::Translated, ..arriving }),
        (flow, packet),
        (flow, leaving),
        (flow, Packet { hook: Hook::Egress, ..left }),
    ]
}

/// Which way the packets go that have to be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    From,
    To,
}

impl Finding {
    /// With the commands that let it through.
    pub(super) fn advised(self, ruleset: &Ruleset) -> Self {
        Self { fix: fix(&self, ruleset.egress.as_deref()), ..self }
    }
}

/// The few ports that a command may name: those of connections to published ports. Of answers to them no
/// command does.
fn named(found: &Finding) -> &[(Proto, PortRange)] {
    let alone = found.flows.iter().all(|flow| *flow == Flow::In);
    if alone && found.ports.len() <= FEW { &found.ports } else { &[] }
}

fn fix(found: &Finding, uplink: Option<&str>) -> Vec<String> {
    let Finding { family, table, chain, tool, bridge, .. } = found;
    let directions: BTreeSet<Direction> = found
        .flows
        .iter()
        .map(|flow| match flow {
            Flow::In | Flow::OutReplies => Direction::To,
            Flow::Out | Flow::InReplies | Flow::Within | Flow::ToHost => Direction::From,
        })
        .collect();
    // What comes and what goes by a link, in the tool's words; everything where the link is not known.
    let each = |start: &str, comes: &str, goes: &str, end: &str| -> Vec<String> {
        let by = |key: &str, link: Option<&str>| {
            format!("{start}{} {end}", link.map_or_else(String::new, |link| format!(" {key} {link}")))
        };
        let bridge = Some(bridge.as_str());
        let (from, to) = match found.hook {
            // The chain is the link's already.
            Hook::Ingress | Hook::Egress => (by("", None), by("", None)),
            Hook::Raw | Hook::Prerouting | Hook::Translated => (by(comes, bridge), by(comes, uplink)),
            Hook::Input | Hook::Forward => (by(comes, bridge), by(goes, bridge)),
            Hook::Postrouting => (by(goes, uplink), by(goes, bridge)),
        };
        let command = |direction: &Direction| match direction {
            Direction::From => from.clone(),
            Direction::To => to.clone(),
        };
        directions.iter().map(command).collect()
    };
    match tool {
        Tool::IptablesNft | Tool::IptablesLegacy => {
            let program = if *family == Family::Ip6 { "ip6tables" } else { "iptables" };
            let variant = if *tool == Tool::IptablesNft { "nft" } else { "legacy" };
            let of = if table == "filter" { String::new() } else { format!(" -t {table}") };
            let start = format!("{program}-{variant}{of} -I {chain}");
            let of = |(proto, PortRange { first, last }): &(Proto, PortRange)| match first == last {
                true => format!("-p {proto} --dport {first} -j ACCEPT"),
                false => format!("-p {proto} --dport {first}:{last} -j ACCEPT"),
            };
            ends(found, of, "-j ACCEPT").iter().flat_map(|end| each(&start, "-i", "-o", end)).collect()
        }
        Tool::Ufw if found.flows.contains(&Flow::ToHost) => vec![format!("ufw allow in on {bridge}")],
        Tool::Ufw => {
            let all = each("ufw route allow", "in on", "out on", "");
            all.iter().map(|one| one.trim_end().to_owned()).collect()
        }
        Tool::Firewalld => ["", "--permanent "]
            .map(|when| format!("firewall-cmd {when}--zone=trusted --change-interface={bridge}"))
            .to_vec(),
        Tool::Nft => {
            let (comes, goes) = match family {
                Family::Bridge => ("meta ibrname", "meta obrname"),
                _ => ("iifname", "oifname"),
            };
            let start = format!("nft insert rule {family} {table} {chain}");
            let of = |(proto, range): &(Proto, PortRange)| format!("{proto} dport {range} accept");
            ends(found, of, "accept").iter().flat_map(|end| each(&start, comes, goes, end)).collect()
        }
    }
}

/// How the commands end: for each run of ports, or for all.
fn ends(found: &Finding, of: impl Fn(&(Proto, PortRange)) -> String, all: &str) -> Vec<String> {
    match named(found) {
        [] => vec![all.to_owned()],
        ports => ports.iter().map(of).collect(),
    }
}

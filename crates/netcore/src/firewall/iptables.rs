//! The policy as input of `iptables-restore --noflush`, in the chains where Docker's documents and
//! tutorials look: DOCKER-USER, DOCKER-FORWARD, DOCKER.
//!
//! It means what the nftables skeleton means, rule by rule where that has look-ups. Lines are written
//! as `iptables-save` prints them, so that what is in force can be compared as text. Within a chain
//! only the place matters: rules at the head are exceptions to those at the tail.
//!
//! Packets into a bridge go FORWARD -> DOCKER-USER (the user's, never touched) -> DOCKER-FORWARD ->
//! DOCKER-CT (answers) -> DOCKER-INTERNAL -> DOCKER-BRIDGE -> DOCKER (what may come in, then drop).

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::compile::{Compile, Compiled, Difference, Part};
use super::elements::{Access, can_translate, fixed_source, has_family, sources};
use super::policy::{BridgePolicy, FirewallPolicy};
use super::ranges::{Door, Opening, Redirect, Way, is_range};
use super::ruleset::IpFamily;
use crate::model::{IfName, PortRange};

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum XTable {
    /// Before connection tracking.
    Raw,
    /// What passes.
    Filter,
    /// Translation.
    Nat,
}

impl XTable {
    /// All that we use; what filters first, so that nothing is translated before it is filtered.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Filter, Self::Nat];

    /// The name after `-t`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl fmt::Display for XTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The user's chain. It is made if it is missing and left alone from then on.
pub const USER_CHAIN: &str = "DOCKER-USER";
/// Drops what comes from any of our bridges.
const FROM_BRIDGES: &str = "PORTOLAN-FROM";
/// Drops what goes to any of our bridges.
const TO_BRIDGES: &str = "PORTOLAN-TO";
/// A chain that no other program has: where it is, the DOCKER chains are ours.
pub const OUR_CHAIN: &str = "PORTOLAN-POSTROUTING";

/// Our chains of one table. Replacing the rule set empties them.
pub fn chains(table: XTable) -> &'static [&'static str] {
    match table {
        XTable::Raw => &["PORTOLAN-RAW"],
        XTable::Filter => &[
            "DOCKER",
            "DOCKER-BRIDGE",
            "DOCKER-CT",
            "DOCKER-FORWARD",
            "DOCKER-INTERNAL",
            FROM_BRIDGES,
            TO_BRIDGES,
        ],
        XTable::Nat => &["DOCKER", OUR_CHAIN],
    }
}

/// The rules in the built-in chains that lead to ours, each as `iptables-save` prints it after `-A`.
/// In a chain the first comes first.
pub fn jumps(table: XTable, family: IpFamily) -> &'static [&'static str] {
    match (table, family) {
        (XTable::Raw, _) => &["PREROUTING -j PORTOLAN-RAW"],
        // The first mark is `IPTABLES_MARK` of the tables that stand behind these rules, which judge all but
        // what DOCKER-USER accepts, and not what falls off an emptied chain. The other is `CARRIED_MARK`.
        (XTable::Filter, _) => &[
            "FORWARD -j MARK --set-xmark 0x40000000/0x40000000",
            "FORWARD -j DOCKER-USER",
            "FORWARD -j MARK --set-xmark 0x0/0x40000000",
            "FORWARD -j DOCKER-FORWARD",
            "INPUT -m mark --mark 0x8000000/0x8000000 -j DOCKER-USER",
        ],
        // The kernel takes no answer to ::1 from a link: better refused at once than never answered.
        (XTable::Nat, IpFamily::V6) => &[
            "PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            "OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER",
            "POSTROUTING -j PORTOLAN-POSTROUTING",
        ],
        (XTable::Nat, IpFamily::V4) => &[
            "PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            "OUTPUT -m addrtype --dst-type LOCAL -j DOCKER",
            "POSTROUTING -j PORTOLAN-POSTROUTING",
        ],
    }
}

/// The rules of our chains that are there whatever the policy.
fn fixed(table: XTable, family: IpFamily) -> &'static [&'static str] {
    match (table, family) {
        (XTable::Raw, IpFamily::V4) => {
            &["PORTOLAN-RAW -d 127.0.0.0/8 ! -i lo -j DROP", "PORTOLAN-RAW -s 127.0.0.0/8 ! -i lo -j DROP"]
        }
        (XTable::Filter, _) => &[
            "DOCKER-FORWARD -j DOCKER-CT",
            "DOCKER-FORWARD -j DOCKER-INTERNAL",
            "DOCKER-FORWARD -j DOCKER-BRIDGE",
        ],
        (XTable::Raw, IpFamily::V6) | (XTable::Nat, _) => &[],
    }
}

/// Where in its chain a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Before those at the tail.
    Head,
    /// After those at the head.
    Tail,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// For iptables or ip6tables.
    pub family: IpFamily,
    /// Its table.
    pub table: XTable,
    /// Where in the chain.
    pub place: Place,
    /// Chain, matches and target, as `iptables-save` prints them after `-A`.
    pub rule: String,
}

/// The iptables form of a policy: lines.
#[derive(Clone, Copy, Debug)]
pub enum Lines {}

impl Compile for Lines {
    type Key = Line;
    type Data = ();

    fn part(part: &Part, policy: &FirewallPolicy) -> Vec<(Line, ())> {
        let bridge = |name: &IfName| policy.bridges.get(name);
        let lines = match part {
            Part::Bridge(bridge) => {
                IpFamily::BOTH.iter().flat_map(|family| of_bridge(bridge, *family)).collect()
            }
            // What is carried over comes by chain INPUT: the tables behind these rules decide on it.
            Part::Endpoint(_) | Part::Carried(_) => Vec::new(),
            Part::Redirect(redirect) => {
                bridge(&redirect.way.bridge).map_or_else(Vec::new, |bridge| of_redirect(redirect, bridge))
            }
            Part::Opening(opening) => {
                bridge(&opening.door.bridge).map_or_else(Vec::new, |bridge| of_opening(opening, bridge))
            }
        };
        lines.into_iter().map(|line| (line, ())).collect()
    }
}

/// What `iptables-save` found of interest before a replacement or removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Our [`jumps`] in built-in chains, as often as they are there.
    pub jumps: Vec<(XTable, String)>,
    /// Every chain that is neither built in nor empty of name: ours, DOCKER-USER, strangers'.
    pub chains: BTreeSet<(XTable, String)>,
    /// The rules of our chains.
    pub rules: BTreeSet<(XTable, String)>,
}

impl Found {
    /// Reads the output of `iptables-save` or `ip6tables-save`.
    pub fn parse(saved: &str, family: IpFamily) -> Self {
        let mut found = Self::default();
        let mut table = None;
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = XTable::ALL.into_iter().find(|table| table.as_str() == name.trim());
            }
            let Some(table) = table else { continue };
            if let Some((name, policy)) = line.strip_prefix(':').and_then(|chain| chain.split_once(' ')) {
                if policy.starts_with('-') {
                    found.chains.insert((table, name.to_owned()));
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let rule = rule.trim_end();
                let chain = rule.split(' ').next().unwrap_or_default();
                if chains(table).contains(&chain) {
                    found.rules.insert((table, rule.to_owned()));
                } else if jumps(table, family).contains(&rule) {
                    found.jumps.push((table, rule.to_owned()));
                }
            }
        }
        found
    }

    /// Whether these are exactly the rules of this policy.
    pub fn is(&self, compiled: &Compiled<Lines>, family: IpFamily) -> bool {
        let mut wanted: BTreeSet<(XTable, String)> = compiled
            .iter()
            .filter(|(line, ())| line.family == family)
            .map(|(line, ())| (line.table, line.rule.clone()))
            .collect();
        for table in XTable::ALL {
            wanted.extend(fixed(table, family).iter().map(|rule| (table, (*rule).to_owned())));
        }
        let led = XTable::ALL
            .into_iter()
            .flat_map(|table| jumps(table, family).iter().map(move |jump| (table, *jump)));
        self.rules == wanted
            && led.into_iter().all(|(table, jump)| self.jumps.iter().any(|(t, j)| *t == table && j == jump))
    }
}

/// Input that makes our chains be this policy, whatever was in them. Each table changes at once.
pub fn replacement(compiled: &Compiled<Lines>, family: IpFamily, found: &Found) -> String {
    let mut out = String::new();
    for table in XTable::ALL {
        section(&mut out, table, |out| {
            for chain in chains(table) {
                let _ = writeln!(out, ":{chain} - [0:0]");
            }
            if table == XTable::Filter && !found.chains.contains(&(table, USER_CHAIN.to_owned())) {
                let _ = writeln!(out, ":{USER_CHAIN} - [0:0]");
            }
            remove_jumps(out, table, found);
            // Each goes to the top, so that the first is first in the end.
            for jump in jumps(table, family).iter().rev() {
                let _ = writeln!(out, "-I {jump}");
            }
            for rule in fixed(table, family) {
                let _ = writeln!(out, "-A {rule}");
            }
            // Lines sort by family, table and place: those at the head come first.
            for (line, ()) in
                compiled.iter().filter(|(line, ())| line.family == family && line.table == table)
            {
                let _ = writeln!(out, "-A {}", line.rule);
            }
        });
    }
    out
}

/// Input that carries out a difference; empty if it does not concern the family.
pub fn change(difference: &Difference<Line, ()>, family: IpFamily) -> String {
    let mut out = String::new();
    for table in XTable::ALL {
        let here = |line: &&Line| line.family == family && line.table == table;
        let remove: Vec<&Line> = difference.remove.iter().map(|(line, ())| line).filter(here).collect();
        let add: Vec<&Line> = difference.add.iter().map(|(line, ())| line).filter(here).collect();
        if remove.is_empty() && add.is_empty() {
            continue;
        }
        section(&mut out, table, |out| {
            for line in add {
                let _ = match line.place {
                    Place::Head => writeln!(out, "-I {}", line.rule),
                    Place::Tail => writeln!(out, "-A {}", line.rule),
                };
            }
            for line in remove {
                let _ = writeln!(out, "-D {}", line.rule);
            }
        });
    }
    out
}

/// Input that removes our chains and what leads to them; DOCKER-USER stays, as the user's.
pub fn removal(found: &Found) -> String {
    let mut out = String::new();
    for table in XTable::ALL {
        let there: Vec<&&str> = chains(table)
            .iter()
            .filter(|chain| found.chains.contains(&(table, (**chain).to_owned())))
            .collect();
        if there.is_empty() && !found.jumps.iter().any(|(of, _)| *of == table) {
            continue;
        }
        section(&mut out, table, |out| {
            remove_jumps(out, table, found);
            for chain in &there {
                let _ = writeln!(out, "-F {chain}");
            }
            for chain in &there {
                let _ = writeln!(out, "-X {chain}");
            }
        });
    }
    out
}

fn section(out: &mut String, table: XTable, body: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "*{table}");
    body(out);
    out.push_str("COMMIT\n");
}

fn remove_jumps(out: &mut String, table: XTable, found: &Found) {
    for (_, jump) in found.jumps.iter().filter(|(of, _)| *of == table) {
        let _ = writeln!(out, "-D {jump}");
    }
}

fn of_bridge(bridge: &BridgePolicy, family: IpFamily) -> Vec<Line> {
    let access = Access::of(bridge, family);
    let mut lines = filter_lines(bridge, family, access);
    if access.translates() && has_family(bridge, family) {
        lines.extend(nat_lines(bridge, family));
    }
    lines
}

fn filter_lines(bridge: &BridgePolicy, family: IpFamily, access: Access) -> Vec<Line> {
    let br = &bridge.bridge;
    let mut lines = Vec::new();
    let mut add = |place, rule: String| lines.push(Line { family, table: XTable::Filter, place, rule });
    add(Place::Tail, format!("DOCKER-BRIDGE -o {br} -j DOCKER"));
    add(Place::Tail, format!("{FROM_BRIDGES} -i {br} -j DROP"));
    add(Place::Tail, format!("{TO_BRIDGES} -o {br} -j DROP"));
    if bridge.isolate {
        // Before DOCKER-CT lets answers pass.
        add(Place::Head, format!("DOCKER-CT ! -i {br} -o {br} -j {FROM_BRIDGES}"));
        add(Place::Head, format!("DOCKER-CT -i {br} ! -o {br} -j {TO_BRIDGES}"));
    }
    if access == Access::Closed {
        add(Place::Tail, format!("DOCKER-INTERNAL ! -i {br} -o {br} -j DROP"));
        add(Place::Tail, format!("DOCKER-INTERNAL -i {br} ! -o {br} -j DROP"));
    } else {
        add(Place::Tail, format!("DOCKER-FORWARD -i {br} -j ACCEPT"));
    }
    add(Place::Tail, format!("DOCKER-CT -o {br} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
    if access.translates() {
        add(Place::Head, format!("DOCKER -o {br} -m conntrack --ctstate DNAT -j ACCEPT"));
    }
    if access == Access::Routed {
        add(
            Place::Head,
            match family {
                IpFamily::V4 => format!("DOCKER -o {br} -p icmp -m icmp --icmp-type 8 -j ACCEPT"),
                IpFamily::V6 => format!("DOCKER -o {br} -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT"),
            },
        );
    }
    if bridge.icc {
        add(Place::Head, format!("DOCKER -i {br} -o {br} -j ACCEPT"));
    } else {
        add(Place::Tail, format!("DOCKER -i {br} -o {br} -j DROP"));
    }
    match access {
        Access::NatUnprotected => add(Place::Tail, format!("DOCKER ! -i {br} -o {br} -j ACCEPT")),
        Access::Nat | Access::Routed => add(Place::Tail, format!("DOCKER ! -i {br} -o {br} -j DROP")),
        Access::Closed => {}
    }
    lines
}

fn nat_lines(bridge: &BridgePolicy, family: IpFamily) -> Vec<Line> {
    let br = &bridge.bridge;
    let mut lines = Vec::new();
    let mut add = |rule: String| lines.push(Line { family, table: XTable::Nat, place: Place::Tail, rule });
    if family == IpFamily::V4 {
        add(format!("{OUR_CHAIN} -s 127.0.0.0/8 -o {br} -j MASQUERADE"));
    }
    for subnet in bridge.subnets.iter().filter(|subnet| IpFamily::of(subnet.addr()) == family) {
        let subnet = subnet.trunc();
        add(format!("{OUR_CHAIN} -s {subnet} -o {br} -m conntrack --ctstate DNAT -j MASQUERADE"));
        if bridge.masquerade {
            match fixed_source(bridge, family) {
                Some(source) => {
                    add(format!("{OUR_CHAIN} -s {subnet} ! -o {br} -j SNAT --to-source {source}"))
                }
                None => add(format!("{OUR_CHAIN} -s {subnet} ! -o {br} -j MASQUERADE")),
            }
        }
    }
    lines
}

fn of_redirect(redirect: &Redirect, bridge: &BridgePolicy) -> Vec<Line> {
    let v4 = redirect.way.target.is_ipv4();
    let access = Access::of(bridge, IpFamily::of(redirect.way.target));
    if !access.translates() || !can_translate(redirect) {
        return Vec::new();
    }
    let allowed = allowed(&redirect.way.from, v4);
    let each = |ports: &str, to: &str| -> Vec<Line> {
        allowed.iter().map(|source| translation(&redirect.way, source, ports, to)).collect()
    };
    let target = redirect.way.target;
    if is_range(redirect.ports) {
        // Without a port in it the packet's own is kept.
        return each(&dports(redirect.ports), &target.to_string());
    }
    redirect
        .each()
        .flat_map(|(port, to)| each(&port.to_string(), &SocketAddr::new(target, to).to_string()))
        .collect()
}

/// Direct routing to published ports, from anywhere or from some links.
fn of_opening(opening: &Opening, bridge: &BridgePolicy) -> Vec<Line> {
    let v4 = opening.door.target.is_ipv4();
    let links: Vec<Option<&IfName>> = match Access::of(bridge, IpFamily::of(opening.door.target)) {
        Access::Closed | Access::NatUnprotected => Vec::new(),
        Access::Routed => vec![None],
        Access::Nat if bridge.direct_routing => vec![None],
        Access::Nat => bridge.trusted_interfaces.iter().map(Some).collect(),
    };
    let ports = if is_range(opening.ports) {
        vec![dports(opening.ports)]
    } else {
        (opening.ports.first..=opening.ports.last).map(|port| port.to_string()).collect()
    };
    let allowed = allowed(&opening.door.from, v4);
    let lines = links.into_iter().flat_map(|link| allowed.iter().map(move |source| (source, link)));
    lines
        .flat_map(|(source, link)| {
            ports.iter().map(move |ports| opening_line(&opening.door, source, link, ports))
        })
        .collect()
}

/// ` -s NETWORK` of each network that a port is open to, or nothing if it is open to all.
fn allowed(from: &[IpNet], v4: bool) -> Vec<String> {
    if from.is_empty() {
        return vec![String::new()];
    }
    let everywhere = |net: &IpNet| net.prefix_len() == 0;
    let text = |net: IpNet| if everywhere(&net) { String::new() } else { format!(" -s {net}") };
    sources(from, v4).map(text).collect()
}

/// As `--dport` takes a range.
fn dports(ports: PortRange) -> String {
    format!("{}:{}", ports.first, ports.last)
}

fn opening_line(door: &Door, source: &str, link: Option<&IfName>, ports: &str) -> Line {
    let mut rule = format!("DOCKER{source} -d {}", host_net(door.target));
    if let Some(link) = link {
        let _ = write!(rule, " -i {link}");
    }
    let proto = door.proto;
    let _ = write!(rule, " -o {} -p {proto} -m {proto} --dport {ports} -j ACCEPT", door.bridge);
    Line { family: IpFamily::of(door.target), table: XTable::Filter, place: Place::Head, rule }
}

fn translation(way: &Way, source: &str, ports: &str, to: &str) -> Line {
    let (place, destination) = match way.host_ip.is_unspecified() {
        true => (Place::Tail, String::new()),
        // One address of the host comes before all of them.
        false => (Place::Head, format!(" -d {}", host_net(way.host_ip))),
    };
    let proto = way.proto;
    let rule = format!(
        "DOCKER{source}{destination} -p {proto} -m {proto} --dport {ports} -j DNAT --to-destination {to}"
    );
    Line { family: IpFamily::of(way.target), table: XTable::Nat, place, rule }
}

/// `/32` or `/128`, as `iptables-save` prints one address.
fn host_net(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

//! The rule set as text in nft's language, for snapshots, documents and people. `nft -f` takes it.

use std::fmt::{self, Display, Write};

use super::compile::{Compiled, Elements};
use super::ruleset::{
    Chain, ChainKind, DataType, ElementData, ElementKey, EtherType, Field, Hook, HookPoint, IpFamily, Queue,
    Rule, Set, SetData, SetName, Statement, Table, TableFamily, Value, Verdict,
};
use super::skeleton::skeleton;

/// The whole rule set of a policy: `table … { … }` for each of our tables.
pub fn render(compiled: &Compiled<Elements>, queue: Option<Queue>) -> String {
    let elements: Vec<(&ElementKey, &ElementData)> = compiled.iter().collect();
    skeleton(queue).iter().map(|table| render_table(table, &elements)).collect::<Vec<_>>().join("\n")
}

/// One table with those of the elements that are in its sets.
pub fn render_table(table: &Table, elements: &[(&ElementKey, &ElementData)]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut text, table, elements);
    text
}

fn write_table(out: &mut String, table: &Table, elements: &[(&ElementKey, &ElementData)]) -> fmt::Result {
    writeln!(out, "table {} {} {{", table.family, table.name)?;
    for set in &table.sets {
        write_set(out, set, elements)?;
    }
    for chain in &table.chains {
        write_chain(out, chain)?;
    }
    out.push_str("}\n");
    Ok(())
}

fn write_set(out: &mut String, set: &Set, elements: &[(&ElementKey, &ElementData)]) -> fmt::Result {
    let kind = if set.data == SetData::None { "set" } else { "map" };
    writeln!(out, "\t{kind} {} {{", set.name)?;
    write!(out, "\t\ttype {}", Dotted(set.key))?;
    match set.data {
        SetData::None => {}
        SetData::Verdict => out.push_str(" : verdict"),
        SetData::Values(types) => write!(out, " : {}", Dotted(types))?,
    }
    out.push('\n');
    if set.interval {
        out.push_str("\t\tflags interval\n");
    }
    let mut first = true;
    for (key, data) in elements.iter().filter(|(key, _)| key.set == set.name) {
        out.push_str(if first { "\t\telements = {\n" } else { ",\n" });
        first = false;
        write!(out, "\t\t\t{}", ElementText(key, data))?;
    }
    if !first {
        out.push_str("\n\t\t}\n");
    }
    out.push_str("\t}\n");
    Ok(())
}

fn write_chain(out: &mut String, chain: &Chain) -> fmt::Result {
    writeln!(out, "\tchain {} {{", chain.name)?;
    if let Some(hook) = &chain.hook {
        writeln!(out, "\t\t{hook}")?;
    }
    for rule in &chain.rules {
        writeln!(out, "\t\t{rule}")?;
    }
    out.push_str("\t}\n");
    Ok(())
}

/// Things joined by nft's concatenation dot.
struct Dotted<'a, T>(&'a [T]);

impl<T: Display> Display for Dotted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" . ")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

struct ElementText<'a>(&'a ElementKey, &'a ElementData);

impl Display for ElementText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Dotted(&self.0.key))?;
        match self.1 {
            ElementData::None => Ok(()),
            ElementData::Verdict(verdict) => write!(f, " : {verdict}"),
            ElementData::Values(values) => write!(f, " : {}", Dotted(values)),
        }
    }
}

impl Display for ElementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {{ {} }}", self.set.family(), self.set, Dotted(&self.key))
    }
}

impl Display for ElementData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
            Self::Values(values) => write!(f, "{}", Dotted(values)),
        }
    }
}

impl Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NfProto => "nf_proto",
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::IfName => "ifname",
            Self::EtherAddr => "ether_addr",
        })
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let point = match self.point {
            HookPoint::Prerouting => "prerouting",
            HookPoint::Input => "input",
            HookPoint::Forward => "forward",
            HookPoint::Output => "output",
            HookPoint::Postrouting => "postrouting",
        };
        write!(f, "type {kind} hook {point} priority {}; policy accept;", self.priority)
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, statement) in self.statements.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{statement}")?;
        }
        if !self.comment.is_empty() {
            write!(f, " comment \"{}\"", self.comment)?;
        }
        Ok(())
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NfProto => "meta nfproto",
            Self::L4Proto => "meta l4proto",
            Self::Iifname => "iifname",
            Self::Oifname => "oifname",
            Self::EtherType => "meta protocol",
            Self::EtherSaddr => "ether saddr",
            Self::ArpSaddrEther => "arp saddr ether",
            Self::ArpSaddrIp => "arp saddr ip",
            Self::ArpDaddrIp => "arp daddr ip",
            Self::Icmp6Target => "icmpv6 taddr",
            Self::IpSaddr => "ip saddr",
            Self::IpDaddr => "ip daddr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::ThSport => "th sport",
            Self::ThDport => "th dport",
            Self::IcmpType => "icmp type",
            Self::Icmp6Type => "icmpv6 type",
        })
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare { field, equal: true, value } => write!(f, "{field} {value}"),
            Self::Compare { field, equal: false, value } => write!(f, "{field} != {value}"),
            Self::Prefix { field, network, prefix } => write!(f, "{field} {network}/{prefix}"),
            Self::Established => f.write_str("ct state established,related"),
            Self::Dnatted => f.write_str("ct status dnat"),
            Self::ToThisHost => f.write_str("fib daddr type local"),
            Self::InSet(fields, set) => write!(f, "{} @{set}", Dotted(fields)),
            Self::VerdictMap(fields, map) => write!(f, "{} vmap @{map}", Dotted(fields)),
            Self::DnatMap(fields, map) | Self::DnatAddressMap(fields, map) => {
                write!(f, "dnat {} to {} map @{map}", nat_family(*map), Dotted(fields))
            }
            Self::SnatMap(fields, map) => {
                write!(f, "snat {} to {} map @{map}", nat_family(*map), Dotted(fields))
            }
            Self::Masquerade => f.write_str("masquerade"),
            Self::SetPort(field, port, _) => write!(f, "{field} set {port}"),
            Self::Marked(bit) => write!(f, "meta mark & {bit:#010x} == {bit:#010x}"),
            Self::Unmarked(bit) => write!(f, "meta mark & {bit:#010x} == 0x00000000"),
            Self::Mark(bit) => write!(f, "meta mark set meta mark | {bit:#010x}"),
            Self::Unmark(bit) => write!(f, "meta mark set meta mark & {:#010x}", !bit),
            Self::Counter => f.write_str("counter"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Opens => f.write_str("tcp flags & (fin | syn | rst | ack) == syn"),
            Self::Queue(queue) => write!(f, "queue num {}", queue.number),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
        }
    }
}

fn nat_family(map: SetName) -> &'static str {
    match map.address_family() {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NfProto(IpFamily::V4) => f.write_str("ipv4"),
            Self::NfProto(IpFamily::V6) => f.write_str("ipv6"),
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv6(address) => write!(f, "{address}"),
            Self::Proto(proto) => write!(f, "{proto}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::IfName(name) => write!(f, "\"{name}\""),
            Self::Lo => f.write_str("\"lo\""),
            Self::Ether(mac) => write!(f, "{mac}"),
            Self::IcmpType(number) | Self::ProtoNumber(number) => write!(f, "{number}"),
            Self::EtherType(EtherType::Ip) => f.write_str("ip"),
            Self::EtherType(EtherType::Arp) => f.write_str("arp"),
            Self::EtherType(EtherType::Ip6) => f.write_str("ip6"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Ports(ports) => write!(f, "{}-{}", ports.first, ports.last),
        }
    }
}

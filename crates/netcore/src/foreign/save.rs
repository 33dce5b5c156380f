//! Reading what `iptables-save` prints, for rules that are in no nf_tables: those of iptables-legacy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Base, Chain, Comparison, Expr, Family, Field, Hook, Table, Tool, Verdict};
use crate::model::Proto;

/// The tables of one family in the output of `iptables-legacy-save` (`ip6tables-legacy-save`). Matches
/// that it does not know become [`Expr::Perhaps`].
pub fn read_save(text: &str, family: Family) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table {
                family,
                name: name.to_owned(),
                tool: Tool::IptablesLegacy,
                chains: BTreeMap::new(),
                sets: BTreeMap::new(),
            });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            // Translation drops nothing.
            let hook = match name {
                _ if table.name == "nat" => None,
                "PREROUTING" if table.name == "raw" => Some(Hook::Raw),
                "PREROUTING" => Some(Hook::Prerouting),
                "INPUT" => Some(Hook::Input),
                "FORWARD" => Some(Hook::Forward),
                "POSTROUTING" => Some(Hook::Postrouting),
                _ => None,
            };
            let base = hook.map(|hook| Base { hook, drops: policy == "DROP", links: Vec::new() });
            table.chains.insert(name.to_owned(), Chain { base, rules: Vec::new() });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (name, rest) = rule.split_once(' ').unwrap_or((rule, ""));
            let rule = read_rule(rest, family);
            table.chains.entry(name.to_owned()).or_default().rules.push(rule);
        }
    }
    for table in &mut tables {
        if table.chains.contains_key("ufw-user-forward") || table.chains.contains_key("ufw6-user-forward") {
            table.tool = Tool::Ufw;
        }
    }
    tables
}

/// The words of a rule; quoted ones are comments and prefixes, which mean nothing.
fn words(rule: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (number, part) in rule.split('"').enumerate() {
        match number % 2 {
            0 => words.extend(part.split_whitespace()),
            _ => words.push(part),
        }
    }
    words
}

fn read_rule(rule: &str, family: Family) -> Vec<Expr> {
    let mut exprs = Vec::new();
    let words = words(rule);
    let mut words = words.iter().copied().peekable();
    let mut invert = false;
    while let Some(word) = words.next() {
        match word {
            "!" => {
                invert = true;
                continue;
            }
            "-j" | "-g" => {
                if let Some(verdict) = words.next().and_then(|target| target_of(word, target)) {
                    exprs.push(Expr::Verdict(verdict));
                }
                // What follows is the target's own.
                return exprs;
            }
            "-m" => drop(words.next()),
            "--comment" => drop(words.next()),
            _ => {
                let value = words.next_if(|next| !next.starts_with('-') && *next != "!").unwrap_or_default();
                match test(word, value, family, invert) {
                    Some(mut test) => exprs.append(&mut test),
                    None => exprs.push(Expr::Perhaps),
                }
            }
        }
        invert = false;
    }
    exprs
}

fn target_of(option: &str, target: &str) -> Option<Verdict> {
    Some(match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "QUEUE" | "NFQUEUE" => Verdict::Elsewhere,
        // These do their work and let the next rule decide.
        "LOG" | "NFLOG" | "ULOG" | "MARK" | "CONNMARK" | "TCPMSS" | "TRACE" | "CT" | "SET" | "CLASSIFY"
        | "CHECKSUM" | "DSCP" | "TTL" | "HL" | "SECMARK" | "CONNSECMARK" | "AUDIT" => return None,
        chain if option == "-g" => Verdict::Goto(chain.to_owned()),
        chain => Verdict::Jump(chain.to_owned()),
    })
}

fn equal(field: Field, bytes: Vec<u8>, invert: bool) -> Vec<Expr> {
    let how = if invert { Comparison::Ne } else { Comparison::Eq };
    vec![Expr::Load { field, to: 0, len: bytes.len() }, Expr::Compare { at: 0, how, bytes }]
}

/// What one option tests; `None` if that is not known.
fn test(option: &str, value: &str, family: Family, invert: bool) -> Option<Vec<Expr>> {
    match option {
        "-i" | "-o" => {
            let field = if option == "-i" { Field::InName } else { Field::OutName };
            let mut bytes = value.trim_end_matches('+').as_bytes().to_vec();
            if !value.ends_with('+') {
                // The whole name, with its end.
                bytes.push(0);
            }
            Some(equal(field, bytes, invert))
        }
        "-s" | "-d" => address(option == "-s", value, family, invert),
        "-p" => {
            let number = match value {
                "icmp" => 1,
                "ipv6-icmp" | "icmpv6" => 58,
                _ => match value.parse::<Proto>() {
                    Ok(proto) => proto.number(),
                    Err(_) => value.parse().ok()?,
                },
            };
            Some(equal(Field::Protocol, vec![number], invert))
        }
        "--dport" => {
            let (first, last) = value.split_once(':').unwrap_or((value, value));
            let bytes = |port: &str| Some(port.parse::<u16>().ok()?.to_be_bytes().to_vec());
            Some(vec![
                Expr::Load { field: Field::Transport(2), to: 0, len: 2 },
                Expr::Range { at: 0, least: bytes(first)?, greatest: bytes(last)?, invert },
            ])
        }
        "--ctstate" | "--state" => states(value, invert),
        _ => None,
    }
}

fn address(source: bool, value: &str, family: Family, invert: bool) -> Option<Vec<Expr>> {
    let net: IpNet = match value.parse() {
        Ok(net) => net,
        Err(_) => IpNet::from(value.parse::<IpAddr>().ok()?),
    };
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (mask, bytes) = (octets(net.netmask()), octets(net.network()));
    let at = match (family, source) {
        (Family::Ip6, true) => 8,
        (Family::Ip6, false) => 24,
        (_, true) => 12,
        (_, false) => 16,
    };
    let how = if invert { Comparison::Ne } else { Comparison::Eq };
    Some(vec![
        Expr::Load { field: Field::Network(at), to: 0, len: mask.len() },
        Expr::Mask { from: 0, to: 0, xor: vec![0; mask.len()], mask },
        Expr::Compare { at: 0, how, bytes },
    ])
}

/// nf_tables' bits for the names of states; translation is a bit of the status there.
fn states(value: &str, invert: bool) -> Option<Vec<Expr>> {
    let mut bits: u32 = 0;
    for name in value.split(',') {
        bits |= match name {
            "INVALID" => 1,
            "ESTABLISHED" => 1 << 1,
            "RELATED" => 1 << 2,
            "NEW" => 1 << 3,
            "UNTRACKED" => 1 << 6,
            "DNAT" if value == "DNAT" => return Some(bit(Field::Status, 1 << 5, invert)),
            _ => return None,
        };
    }
    Some(bit(Field::State, bits, invert))
}

/// One of these bits is set.
fn bit(field: Field, bits: u32, invert: bool) -> Vec<Expr> {
    let how = if invert { Comparison::Eq } else { Comparison::Ne };
    vec![
        Expr::Load { field, to: 0, len: 4 },
        Expr::Mask { from: 0, to: 0, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Compare { at: 0, how, bytes: vec![0; 4] },
    ]
}

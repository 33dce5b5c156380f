//! Reading what other programs' firewalls have in the host's namespace. Nothing of it is ever changed.
//!
//! nf_tables is dumped over netlink: chains, their rules, and of the sets those that rules refer to. What
//! iptables-legacy keeps is in no nf_tables: only where the kernel says that it has tables there
//! (`/proc/net/ip_tables_names`) is its program asked.

mod expr;
mod sets;
mod xt;

use std::collections::{BTreeMap, BTreeSet};

use portolan_netcore::firewall::TABLE;
use portolan_netcore::firewall::ruleset::IpFamily;
use portolan_netcore::foreign::{self, Base, Expr, Family, Hook, Ruleset, Table, Tool};

use crate::error::Failure;
use crate::firewall::FirewallBackend;
use crate::host::LinuxHost;
use crate::iptables;
use crate::netlink::{Attr, Attrs, Batch, NetlinkError, Protocol, Reply, Socket, flags};
use crate::observe;

const SUBSYSTEM: u16 = 10 << 8;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
/// Size of `struct nfgenmsg`, which begins with the family.
const NFGENMSG_LEN: usize = 4;

const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_DEVICES: u16 = 4;
const NF_DROP: u32 = 0;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;

/// A table by family and name.
type Key = (Family, String);

impl LinuxHost {
    /// All rules of others that decide what passes.
    pub(crate) fn read_foreign(&self) -> Result<Ruleset, Failure> {
        let (links, routes) =
            self.with_socket(|socket| Ok((observe::links(socket)?, observe::routes(socket)?)))?;
        let default = routes.iter().filter(|route| route.destination.prefix_len() == 0);
        let best = default.min_by_key(|route| (route.destination.addr().is_ipv6(), route.metric));
        let egress = best.and_then(|route| links.get(&route.device?)).map(|link| link.name.to_string());
        // iptables' own rules of ours lead to these; what comes before them is others'.
        let ours: &[&str] = match self.firewall().backend() {
            FirewallBackend::Iptables => &["DOCKER-FORWARD"],
            FirewallBackend::Nftables | FirewallBackend::Off => &[],
        };
        let mut tables = nftables()?;
        for (family, of) in [(IpFamily::V4, Family::Ip), (IpFamily::V6, Family::Ip6)] {
            if has_legacy(family) {
                tables.extend(foreign::read_save(&iptables::save_legacy(family)?, of));
            }
        }
        Ok(Ruleset {
            tables,
            links: links.into_iter().map(|(index, link)| (link.name.to_string(), index)).collect(),
            egress,
            bridge_netfilter: self
                .sysctls
                .read("net/bridge/bridge-nf-call-iptables")
                .is_ok_and(|value| value == "1"),
            ours: ours.iter().map(|name| (*name).to_owned()).collect(),
        })
    }
}

/// iptables-legacy has tables that can drop.
fn has_legacy(family: IpFamily) -> bool {
    let path = match family {
        IpFamily::V4 => "/proc/thread-self/net/ip_tables_names",
        IpFamily::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name != "nat"))
}

fn family(reply: &Reply<'_>) -> Option<Family> {
    Some(match i32::from(*reply.payload.first()?) {
        libc::NFPROTO_INET => Family::Inet,
        libc::NFPROTO_IPV4 => Family::Ip,
        libc::NFPROTO_IPV6 => Family::Ip6,
        libc::NFPROTO_BRIDGE => Family::Bridge,
        libc::NFPROTO_NETDEV => Family::Netdev,
        _ => return None,
    })
}

fn number(family: Family) -> u8 {
    let number = match family {
        Family::Inet => libc::NFPROTO_INET,
        Family::Ip => libc::NFPROTO_IPV4,
        Family::Ip6 => libc::NFPROTO_IPV6,
        Family::Bridge => libc::NFPROTO_BRIDGE,
        Family::Netdev => libc::NFPROTO_NETDEV,
    };
    number as u8
}

/// Tables with a base chain that decides about us. None on a kernel without nf_tables.
fn nftables() -> Result<Vec<Table>, NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut tables = match chains(&mut socket) {
        Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT)) => {
            return Ok(Vec::new());
        }
        found => found?,
    };
    tables.retain(|_, table| table.chains.values().any(|chain| chain.base.is_some()));
    rules(&mut socket, &mut tables)?;
    for table in tables.values_mut() {
        table.tool = tool(table);
        for name in referred(table) {
            let set = sets::read(&mut socket, table.family, &table.name, &name)?;
            table.sets.insert(name, set);
        }
    }
    Ok(tables.into_values().collect())
}

fn chains(socket: &mut Socket) -> Result<BTreeMap<Key, Table>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(GET_CHAIN, flags::DUMP, &[0; NFGENMSG_LEN]);
    socket.dump(&mut batch, BTreeMap::new, |tables, reply| {
        let attrs = reply.attrs(NFGENMSG_LEN);
        let text = |kind| attrs.get(kind).and_then(|attr| attr.text());
        let (Some(family), Some(name), Some(chain)) = (family(&reply), text(CHAIN_TABLE), text(CHAIN_NAME))
        else {
            return;
        };
        if name == TABLE {
            return;
        }
        let attached = attrs.get(CHAIN_HOOK).map(|hook| hook.nested());
        let hook = attached.as_ref().and_then(|hook| {
            let number = hook.get(HOOK_NUMBER)?.be32()?;
            let priority = hook.get(HOOK_PRIORITY)?.be32()? as i32;
            let of_ip = || Hook::of(number, priority).filter(|_| family != Family::Netdev);
            Hook::of_link(family, number).or_else(of_ip)
        });
        // Chains of the type nat translate; they are no place to drop.
        let hook = hook.filter(|_| text(CHAIN_TYPE) != Some("nat"));
        let drops = attrs.get(CHAIN_POLICY).and_then(|policy| policy.be32()) == Some(NF_DROP);
        let links = attached.map(hooked_links).unwrap_or_default();
        let base = hook.map(|hook| Base { hook, drops, links });
        let table = tables.entry((family, name.to_owned())).or_insert_with(|| Table {
            family,
            name: name.to_owned(),
            tool: Tool::Nft,
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
        });
        table.chains.insert(chain.to_owned(), foreign::Chain { base, rules: Vec::new() });
    })
}

/// The links of a chain of single links.
fn hooked_links(hook: Attrs<'_>) -> Vec<String> {
    let text = |attr: Attr<'_>| attr.text().map(str::to_owned);
    match hook.get(HOOK_DEVICES) {
        Some(several) => several.nested().filter_map(text).collect(),
        None => hook.get(HOOK_DEVICE).and_then(text).into_iter().collect(),
    }
}

fn rules(socket: &mut Socket, tables: &mut BTreeMap<Key, Table>) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message(GET_RULE, flags::DUMP, &[0; NFGENMSG_LEN]);
    let wanted = &*tables;
    let rules = socket.dump(&mut batch, Vec::new, |rules, reply| {
        let attrs = reply.attrs(NFGENMSG_LEN);
        let text = |kind| Some(attrs.get(kind)?.text()?.to_owned());
        let (Some(family), Some(table), Some(chain)) = (family(&reply), text(RULE_TABLE), text(RULE_CHAIN))
        else {
            return;
        };
        let key = (family, table);
        if wanted.contains_key(&key) {
            let exprs = attrs.get(RULE_EXPRESSIONS).map_or(Attrs::new(&[]), |exprs| exprs.nested());
            rules.push((key, chain, expr::read_rule(exprs)));
        }
    })?;
    for (key, chain, rule) in rules {
        let chain = tables.get_mut(&key).and_then(|table| table.chains.get_mut(&chain));
        if let Some(chain) = chain {
            chain.rules.push(rule);
        }
    }
    Ok(())
}

/// Whose table it is, by what each program calls its chains.
fn tool(table: &Table) -> Tool {
    let has = |chain: &str| table.chains.contains_key(chain);
    if table.name == "firewalld" {
        return Tool::Firewalld;
    }
    if has("ufw-user-forward") || has("ufw6-user-forward") {
        return Tool::Ufw;
    }
    let iptables = matches!(table.family, Family::Ip | Family::Ip6)
        && matches!(table.name.as_str(), "filter" | "mangle" | "raw" | "security")
        && ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].into_iter().any(has);
    if iptables { Tool::IptablesNft } else { Tool::Nft }
}

/// The sets that its rules name.
fn referred(table: &Table) -> BTreeSet<String> {
    let exprs = table.chains.values().flat_map(|chain| &chain.rules).flatten();
    exprs
        .filter_map(|expr| match expr {
            Expr::Lookup { set, .. } => Some(set.clone()),
            Expr::VerdictMap { map, .. } => Some(map.clone()),
            _ => None,
        })
        .collect()
}

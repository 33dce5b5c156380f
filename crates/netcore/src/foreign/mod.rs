//! Other programs' firewalls: what they would do to our traffic, and what lets it through.
//!
//! An `accept` ends one table only: what ufw, firewalld, libvirt, another engine or an administrator drops
//! elsewhere stays dropped, whatever our tables say. We never change what is theirs. Their rules are
//! read into the model of this file ([`Ruleset`]; [`read_save`] for iptables-legacy), a packet of each kind of traffic that we
//! have ([`Flow`]) is sent through it, and what would not arrive is a [`Finding`] with the
//! commands that change it.
//!
//! The evaluation is conservative. A match that is not understood, or that depends on what is not known
//! of the packet (where a client comes from), may or may not apply; traffic is called dropped only if
//! no combination of those lets it pass, and [`Finding::partly`] if it is dropped unless one of them does.

mod advice;
mod evaluate;
mod packet;
mod ports;
mod save;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use advice::{Finding, Flow, Place, findings, unjudged};
pub use packet::{Address, Packet, Port};
pub use ports::{Service, port_findings};
pub use save::read_save;

/// The families of tables that matter to us. Display: nft's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// Frames that a bridge switches.
    Bridge,
    /// Whatever comes and goes by single links.
    Netdev,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        })
    }
}

/// How a table is changed by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// Native nf_tables: `nft`.
    Nft,
    /// iptables' rules kept in nf_tables: `iptables-nft`.
    IptablesNft,
    /// The old kernel interface: `iptables-legacy`.
    IptablesLegacy,
    /// Uncomplicated firewall, in iptables' tables: `ufw`.
    Ufw,
    /// `firewall-cmd`.
    Firewalld,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nftables",
            Self::IptablesNft => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
        })
    }
}

/// All rules of others in one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Their tables.
    pub tables: Vec<Table>,
    /// The index of each link, which rules may name in place of it.
    pub links: BTreeMap<String, u32>,
    /// The link of the host's default route: where outside is.
    pub egress: Option<String>,
    /// Bridged frames pass the hooks of IP too (br_netfilter).
    pub bridge_netfilter: bool,
    /// Chains of ours in tables that we share with others (the iptables backend's): they let our
    /// traffic pass for good.
    pub ours: BTreeSet<String>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// By what it is changed.
    pub tool: Tool,
    /// Its chains.
    pub chains: BTreeMap<String, Chain>,
    /// Its sets and maps.
    pub sets: BTreeMap<String, Set>,
}

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; none for those that rules jump to.
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Vec<Expr>>,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its hook.
    pub hook: Hook,
    /// Its policy is drop.
    pub drops: bool,
    /// The links that it is about, at [`Hook::Ingress`] and [`Hook::Egress`].
    pub links: Vec<String>,
}

/// The hooks that decide about our traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Whatever arrives by a link, before anything else sees it.
    Ingress,
    /// Whatever arrives, before it is known which connection it belongs to (`raw`).
    Raw,
    /// Whatever arrives, before its destination is translated (`mangle`).
    Prerouting,
    /// Whatever arrives, while its destination is translated or after it, before it is routed.
    Translated,
    /// To this host's own sockets.
    Input,
    /// Through this host.
    Forward,
    /// Whatever leaves, before its source is translated.
    Postrouting,
    /// Whatever leaves by a link, after everything else.
    Egress,
}

/// Connections are looked up at `NF_IP_PRI_CONNTRACK`.
const CONNTRACK: i32 = -200;
/// Destinations are translated at `NF_IP_PRI_NAT_DST`.
const DESTINATION_NAT: i32 = -100;
/// Sources are translated at `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: i32 = 100;

impl Hook {
    /// The hook of IP (`NF_INET_*`) with this number, as a chain of this priority sees it. None where it
    /// does not decide about our traffic.
    pub fn of(number: u32, priority: i32) -> Option<Self> {
        match number {
            0 if priority < CONNTRACK => Some(Self::Raw),
            0 if priority < DESTINATION_NAT => Some(Self::Prerouting),
            0 => Some(Self::Translated),
            1 => Some(Self::Input),
            2 => Some(Self::Forward),
            4 if priority < SOURCE_NAT => Some(Self::Postrouting),
            _ => None,
        }
    }

    /// The hook of single links with this number: of the family `netdev` (`NF_NETDEV_*`), or of IP
    /// (`NF_INET_INGRESS`).
    pub fn of_link(family: Family, number: u32) -> Option<Self> {
        match (family, number) {
            (Family::Netdev, 0) | (Family::Inet, 5) => Some(Self::Ingress),
            (Family::Netdev, 1) => Some(Self::Egress),
            _ => None,
        }
    }

    /// Which connection a packet belongs to is not known yet.
    pub(crate) fn is_before_conntrack(self) -> bool {
        matches!(self, Self::Ingress | Self::Raw)
    }

    /// Where a packet goes is not decided yet.
    pub fn is_before_routing(self) -> bool {
        matches!(self, Self::Ingress | Self::Raw | Self::Prerouting | Self::Translated)
    }

    /// A packet to a published port still has the host's port and address.
    pub fn is_before_translation(self) -> bool {
        matches!(self, Self::Ingress | Self::Raw | Self::Prerouting)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Raw | Self::Prerouting | Self::Translated => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        })
    }
}

/// One expression of nf_tables' machine: it works on 64 bytes of registers, addressed here by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads a part of the packet or what is known of it.
    Load {
        /// What.
        field: Field,
        /// First byte of the registers.
        to: usize,
        /// Number of bytes.
        len: usize,
    },
    /// Loads a constant.
    Constant {
        /// First byte of the registers.
        to: usize,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// `to = from & mask ^ xor`.
    Mask {
        /// First byte read.
        from: usize,
        /// First byte written.
        to: usize,
        /// Bits that are kept.
        mask: Vec<u8>,
        /// Bits that are turned.
        xor: Vec<u8>,
    },
    /// Goes on if the registers compare so with a constant (bytes in memory's order).
    Compare {
        /// First byte of the registers.
        at: usize,
        /// How.
        how: Comparison,
        /// The constant.
        bytes: Vec<u8>,
    },
    /// Goes on if the registers are between two constants, both included.
    Range {
        /// First byte of the registers.
        at: usize,
        /// The least value.
        least: Vec<u8>,
        /// The greatest value.
        greatest: Vec<u8>,
        /// Goes on if they are not between.
        invert: bool,
    },
    /// Goes on if the set has the registers' value.
    Lookup {
        /// The set's name.
        set: String,
        /// First byte of the registers.
        at: usize,
        /// Goes on if it has not.
        invert: bool,
    },
    /// Takes the verdict that the map has for the registers' value.
    VerdictMap {
        /// The map's name.
        map: String,
        /// First byte of the registers.
        at: usize,
    },
    /// Writes what we do not know to registers that we do not know.
    Forget,
    /// A match that may or may not apply.
    Perhaps,
    /// The end of the rule.
    Verdict(Verdict),
}

/// What can be known of a packet without knowing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Name of the link it came by, 16 bytes.
    InName,
    /// Name of the link it goes to, 16 bytes.
    OutName,
    /// Index of the link it came by, in memory's order.
    InIndex,
    /// Index of the link it goes to, in memory's order.
    OutIndex,
    /// Name of the bridge that it came into.
    InBridge,
    /// Name of the bridge that it leaves by.
    OutBridge,
    /// `NFPROTO_*`, a byte.
    Family,
    /// EtherType, two bytes.
    EtherType,
    /// Number of the protocol above IP, a byte.
    Protocol,
    /// Bits of `NF_CT_STATE_BIT`, four bytes in memory's order.
    State,
    /// Bits of `IPS_*`, four bytes in memory's order.
    Status,
    /// The IP header from this byte on.
    Network(usize),
    /// The header above it from this byte on.
    Transport(usize),
    /// Anything else.
    Unknown,
}

/// How registers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This chain's hook lets it pass.
    Accept,
    /// It is dropped, or refused with an answer.
    Drop,
    /// Another chain, then the next rule.
    Jump(String),
    /// Another chain, then back to where this one was called.
    Goto(String),
    /// Back to where this chain was called.
    Return,
    /// A program in user space decides, or something else that is not known; taken for an accept.
    Elsewhere,
}

/// A set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Its elements.
    pub elements: Vec<Element>,
    /// Not all of its elements are known.
    pub partial: bool,
}

/// One element of a set: a value, or all from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The value, or the least.
    pub least: Vec<u8>,
    /// The greatest, if it is a range.
    pub greatest: Option<Vec<u8>>,
    /// What a verdict map says.
    pub verdict: Option<Verdict>,
}

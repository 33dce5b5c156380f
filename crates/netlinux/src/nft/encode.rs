//! The rule set's syntax tree as nf_tables messages.

use ipnet::IpNet;
use portolan_netcore::firewall::ruleset::{
    Chain, ChainKind, DataType, ElementData, ElementKey, Hook, HookPoint, IpFamily, Set, SetData, Table,
    TableFamily, Value, Verdict,
};
use portolan_netcore::firewall::{Difference, TABLE};
use portolan_netcore::model::Proto;

use super::batch::{About, Batch};
use super::consts::*;
use super::expr;
use super::wire::Writer;

/// Elements go out in messages of at most this many bytes: a nested attribute ends at 64 KiB.
const CHUNK: usize = 32 * 1024;

pub(super) fn family(family: TableFamily) -> u8 {
    match family {
        TableFamily::Ip => NFPROTO_IPV4,
        TableFamily::Inet => NFPROTO_INET,
        TableFamily::Bridge => NFPROTO_BRIDGE,
    }
}

/// A table with its chains, sets and rules; it must not be there yet.
pub(super) fn add_table(batch: &mut Batch, table: &Table, flags: u32) {
    let proto = family(table.family);
    batch.push(About::AddTable(table.name), NFT_MSG_NEWTABLE, proto, NLM_F_CREATE, |w| {
        w.text(NFTA_TABLE_NAME, table.name);
        w.be32(NFTA_TABLE_FLAGS, flags);
    });
    for chain in &table.chains {
        add_chain(batch, table, chain);
    }
    for (id, set) in table.sets.iter().enumerate() {
        add_set(batch, table, set, id as u32 + 1);
    }
    for chain in &table.chains {
        for (index, rule) in chain.rules.iter().enumerate() {
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            batch.push(About::Rule(chain.name, index), NFT_MSG_NEWRULE, proto, flags, |w| {
                w.text(NFTA_RULE_TABLE, table.name);
                w.text(NFTA_RULE_CHAIN, chain.name);
                w.nest(NFTA_RULE_EXPRESSIONS, |w| expr::rule(w, rule, table.family));
                if !rule.comment.is_empty() {
                    w.bytes(NFTA_RULE_USERDATA, &comment(rule.comment));
                }
            });
        }
    }
}

/// Deletes a table and all in it; it must be there.
pub(super) fn delete_table(batch: &mut Batch, of: TableFamily, name: &'static str) {
    batch.push(About::DeleteTable(name), NFT_MSG_DELTABLE, family(of), 0, |w| w.text(NFTA_TABLE_NAME, name));
}

fn add_chain(batch: &mut Batch, table: &Table, chain: &Chain) {
    batch.push(About::Chain(chain.name), NFT_MSG_NEWCHAIN, family(table.family), NLM_F_CREATE, |w| {
        w.text(NFTA_CHAIN_TABLE, table.name);
        w.text(NFTA_CHAIN_NAME, chain.name);
        if let Some(hook) = &chain.hook {
            w.nest(NFTA_CHAIN_HOOK, |w| {
                w.be32(NFTA_HOOK_HOOKNUM, hook_number(hook));
                w.be32(NFTA_HOOK_PRIORITY, hook.priority as u32);
            });
            w.be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
            w.text(
                NFTA_CHAIN_TYPE,
                match hook.kind {
                    ChainKind::Filter => "filter",
                    ChainKind::Nat => "nat",
                },
            );
        }
    });
}

/// `NF_INET_*`; a bridge's hooks have the same numbers.
fn hook_number(hook: &Hook) -> u32 {
    match hook.point {
        HookPoint::Prerouting => 0,
        HookPoint::Input => 1,
        HookPoint::Forward => 2,
        HookPoint::Output => 3,
        HookPoint::Postrouting => 4,
    }
}

fn add_set(batch: &mut Batch, table: &Table, set: &Set, id: u32) {
    batch.push(About::Set(set.name), NFT_MSG_NEWSET, family(table.family), NLM_F_CREATE, |w| {
        w.text(NFTA_SET_TABLE, table.name);
        w.text(NFTA_SET_NAME, set.name.as_str());
        let concat = if set.key.len() > 1 { NFT_SET_CONCAT } else { 0 };
        let map = if set.data == SetData::None { 0 } else { NFT_SET_MAP };
        let interval = if set.interval { NFT_SET_INTERVAL } else { 0 };
        w.be32(NFTA_SET_FLAGS, concat | map | interval);
        w.be32(NFTA_SET_KEY_TYPE, type_number(set.key));
        w.be32(NFTA_SET_KEY_LEN, length(set.key));
        match set.data {
            SetData::None => {}
            SetData::Verdict => w.be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT),
            SetData::Values(types) => {
                w.be32(NFTA_SET_DATA_TYPE, type_number(types));
                w.be32(NFTA_SET_DATA_LEN, length(types));
            }
        }
        if set.key.len() > 1 {
            w.nest(NFTA_SET_DESC, |w| {
                w.nest(NFTA_SET_DESC_CONCAT, |w| {
                    for field in set.key {
                        w.nest(NFTA_LIST_ELEM, |w| w.be32(NFTA_SET_FIELD_LEN, width(*field)));
                    }
                });
            });
        }
        w.be32(NFTA_SET_ID, id);
        w.bytes(NFTA_SET_USERDATA, &byte_orders(set));
    });
}

/// Elements to be added, in as many messages as their size asks for.
pub(super) fn add_elements<'a>(
    batch: &mut Batch,
    elements: impl IntoIterator<Item = (&'a ElementKey, &'a ElementData)>,
) {
    change_elements(batch, elements.into_iter().map(|(key, data)| (key, Some(data))), NFT_MSG_NEWSETELEM);
}

/// Elements to be deleted.
fn delete_elements<'a>(batch: &mut Batch, elements: impl IntoIterator<Item = &'a ElementKey>) {
    change_elements(batch, elements.into_iter().map(|key| (key, None)), NFT_MSG_DELSETELEM);
}

/// The transaction of a change: what goes, then what comes, of the elements that are `here`.
pub(super) fn difference(
    difference: &Difference<ElementKey, ElementData>,
    here: impl Fn(&ElementKey) -> bool,
) -> Batch {
    let mut batch = Batch::new();
    delete_elements(&mut batch, difference.remove.iter().map(|(key, _)| key).filter(|key| here(key)));
    let add = difference.add.iter().map(|(key, data)| (key, data)).filter(|(key, _)| here(key));
    add_elements(&mut batch, add);
    batch
}

fn change_elements<'a>(
    batch: &mut Batch,
    elements: impl Iterator<Item = (&'a ElementKey, Option<&'a ElementData>)>,
    kind: u16,
) {
    let mut elements = elements.peekable();
    while let Some(set) = elements.peek().map(|(key, _)| key.set) {
        let (about, flags) = match kind {
            NFT_MSG_NEWSETELEM => (About::AddElements(set), NLM_F_CREATE),
            _ => (About::DeleteElements(set), 0),
        };
        batch.push(about, kind, family(set.family()), flags, |w| {
            w.text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
            w.text(NFTA_SET_ELEM_LIST_SET, set.as_str());
            w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                let limit = w.len() + CHUNK;
                while let Some((key, data)) = elements.next_if(|(key, _)| key.set == set && w.len() < limit) {
                    w.nest(NFTA_LIST_ELEM, |w| element(w, key, data));
                }
            });
        });
    }
}

fn element(w: &mut Writer, key: &ElementKey, data: Option<&ElementData>) {
    w.nest(NFTA_SET_ELEM_KEY, |w| w.bytes(NFTA_DATA_VALUE, &values(&key.key)));
    if key.key.iter().any(|value| matches!(value, Value::Net(_) | Value::Ports(_))) {
        let last = |value: &Value| match value {
            Value::Net(net) => net.broadcast().into(),
            Value::Ports(ports) => Value::Port(ports.last),
            other => other.clone(),
        };
        let last: Vec<Value> = key.key.iter().map(last).collect();
        w.nest(NFTA_SET_ELEM_KEY_END, |w| w.bytes(NFTA_DATA_VALUE, &values(&last)));
    }
    match data {
        None | Some(ElementData::None) => {}
        Some(ElementData::Verdict(verdict)) => w.nest(NFTA_SET_ELEM_DATA, |w| verdict_data(w, *verdict)),
        Some(ElementData::Values(data)) => {
            w.nest(NFTA_SET_ELEM_DATA, |w| w.bytes(NFTA_DATA_VALUE, &values(data)));
        }
    }
}

pub(super) fn verdict_data(w: &mut Writer, verdict: Verdict) {
    w.nest(NFTA_DATA_VERDICT, |w| {
        let (code, chain) = match verdict {
            Verdict::Accept => (NF_ACCEPT, None),
            Verdict::Drop => (NF_DROP, None),
            Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
        };
        w.be32(NFTA_VERDICT_CODE, code);
        if let Some(chain) = chain {
            w.text(NFTA_VERDICT_CHAIN, chain);
        }
    });
}

/// Concatenated values, each padded to whole registers of four bytes.
fn values(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    for part in values {
        value(&mut bytes, part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    // The key of a set of one field has the field's own length.
    if let [only] = values {
        bytes.truncate(value_width(only));
    }
    bytes
}

/// One value's bytes, unpadded.
pub(super) fn value(bytes: &mut Vec<u8>, of: &Value) {
    match of {
        Value::NfProto(IpFamily::V4) => bytes.push(NFPROTO_IPV4),
        Value::NfProto(IpFamily::V6) => bytes.push(NFPROTO_IPV6),
        Value::Ipv4(address) => bytes.extend_from_slice(&address.octets()),
        Value::Ipv6(address) => bytes.extend_from_slice(&address.octets()),
        Value::Proto(proto) => bytes.push(proto_number(*proto)),
        Value::Port(port) => bytes.extend_from_slice(&port.to_be_bytes()),
        Value::IfName(name) => link_name(bytes, name.as_str()),
        Value::Lo => link_name(bytes, "lo"),
        Value::Ether(mac) => bytes.extend_from_slice(&mac.0),
        Value::IcmpType(number) | Value::ProtoNumber(number) => bytes.push(*number),
        Value::EtherType(carried) => bytes.extend_from_slice(&carried.number().to_be_bytes()),
        // The first of the interval.
        Value::Net(net) => self::value(bytes, &net.network().into()),
        Value::Ports(ports) => self::value(bytes, &Value::Port(ports.first)),
    }
}

fn value_width(value: &Value) -> usize {
    match value {
        Value::NfProto(_) | Value::Proto(_) | Value::IcmpType(_) | Value::ProtoNumber(_) => 1,
        Value::Port(_) | Value::Ports(_) | Value::EtherType(_) => 2,
        Value::Ipv4(_) | Value::Net(IpNet::V4(_)) => 4,
        Value::Ether(_) => 6,
        Value::Ipv6(_) | Value::Net(IpNet::V6(_)) | Value::IfName(_) | Value::Lo => 16,
    }
}

fn link_name(bytes: &mut Vec<u8>, name: &str) {
    let end = bytes.len() + libc::IFNAMSIZ;
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(end, 0);
}

fn proto_number(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => libc::IPPROTO_TCP as u8,
        Proto::Udp => libc::IPPROTO_UDP as u8,
        Proto::Sctp => libc::IPPROTO_SCTP as u8,
    }
}

fn width(kind: DataType) -> u32 {
    match kind {
        DataType::NfProto | DataType::InetProto => 1,
        DataType::InetService => 2,
        DataType::Ipv4Addr => 4,
        DataType::EtherAddr => 6,
        DataType::Ipv6Addr | DataType::IfName => 16,
    }
}

/// The length of a key or of data: of one field its own, of several in whole registers.
fn length(types: &[DataType]) -> u32 {
    match types {
        [only] => width(*only),
        several => several.iter().map(|kind| width(*kind).next_multiple_of(4)).sum(),
    }
}

/// nft's number of a type (`enum datatypes`), six bits for each field of a concatenation. The kernel
/// keeps it for `nft list`.
fn type_number(types: &[DataType]) -> u32 {
    types.iter().fold(0, |number, kind| {
        (number << 6)
            | match kind {
                DataType::NfProto => 2,
                DataType::Ipv4Addr => 7,
                DataType::Ipv6Addr => 8,
                DataType::EtherAddr => 9,
                DataType::InetProto => 12,
                DataType::InetService => 13,
                DataType::IfName => 41,
            }
    })
}

/// `enum byteorder` of nft: links' names and families are in host order, the rest in the network's.
fn byte_orders(set: &Set) -> Vec<u8> {
    const HOST: u32 = 1;
    const NETWORK: u32 = 2;
    let order = |types: &[DataType]| match types {
        [DataType::IfName | DataType::NfProto | DataType::InetProto] => HOST,
        _ => NETWORK,
    };
    let mut bytes = Vec::with_capacity(12);
    let mut number = |kind: u8, value: u32| {
        bytes.extend_from_slice(&[kind, 4]);
        bytes.extend_from_slice(&value.to_ne_bytes());
    };
    number(UDATA_SET_KEYBYTEORDER, order(set.key));
    if let SetData::Values(types) = set.data {
        number(UDATA_SET_DATABYTEORDER, order(types));
    }
    bytes
}

/// A comment as libnftables keeps it: type, length, text, zero.
fn comment(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(127)];
    let mut bytes = vec![UDATA_RULE_COMMENT, text.len() as u8 + 1];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}

//! Rules as nf_tables expressions: loads into registers, comparisons and what is done.

use std::net::IpAddr;

use portolan_netcore::firewall::ruleset::{
    EtherType, Field, IpFamily, Queue, QueueForm, Rule, SetName, Statement, TableFamily, Value, Verdict,
};
use portolan_netcore::model::Proto;

use super::consts::*;
use super::encode;
use super::wire::Writer;

/// The expressions of a rule, each an element of the list under `NFTA_RULE_EXPRESSIONS`.
pub(super) fn rule(w: &mut Writer, rule: &Rule, table: TableFamily) {
    // In a table of one family every packet is of it.
    let mut family = (table == TableFamily::Ip).then_some(IpFamily::V4);
    for statement in &rule.statements {
        depend(w, statement, &mut family);
        write(w, statement);
    }
}

/// Reading an IPv4 header out of an IPv6 packet would be nonsense: the first statement that needs a
/// family is preceded by a comparison of it, which `nft list` leaves out again.
fn depend(w: &mut Writer, statement: &Statement, known: &mut Option<IpFamily>) {
    let needed = match statement {
        Statement::Compare { field: Field::EtherType, equal: true, value: Value::EtherType(carried) } => {
            *known = match carried {
                EtherType::Ip => Some(IpFamily::V4),
                EtherType::Ip6 => Some(IpFamily::V6),
                EtherType::Arp => None,
            };
            None
        }
        Statement::Compare { field: Field::NfProto, equal: true, value: Value::NfProto(family) } => {
            *known = Some(*family);
            None
        }
        Statement::Compare { field, .. } | Statement::Prefix { field, .. } => family_of(&[*field]),
        Statement::InSet(fields, _) | Statement::VerdictMap(fields, _) => family_of(fields),
        Statement::DnatMap(fields, _)
        | Statement::DnatAddressMap(fields, _)
        | Statement::SnatMap(fields, _) => family_of(fields),
        _ => None,
    };
    if let Some(family) = needed.filter(|family| *known != Some(*family)) {
        load(w, Field::NfProto, NFT_REG32_00);
        compare(w, NFT_CMP_EQ, &bytes_of(&Value::NfProto(family)));
        *known = Some(family);
    }
}

fn family_of(fields: &[Field]) -> Option<IpFamily> {
    fields.iter().find_map(|field| match field {
        Field::IpSaddr | Field::IpDaddr => Some(IpFamily::V4),
        Field::Ip6Saddr | Field::Ip6Daddr => Some(IpFamily::V6),
        _ => None,
    })
}

fn write(w: &mut Writer, statement: &Statement) {
    match statement {
        Statement::Compare { field, equal, value } => {
            load(w, *field, NFT_REG32_00);
            compare(w, if *equal { NFT_CMP_EQ } else { NFT_CMP_NEQ }, &bytes_of(value));
        }
        Statement::Prefix { field, network, prefix } => prefix_match(w, *field, *network, *prefix),
        Statement::Established => ct_bits(w, NFT_CT_STATE, CT_ESTABLISHED_OR_RELATED),
        Statement::Dnatted => ct_bits(w, NFT_CT_STATUS, IPS_DST_NAT),
        Statement::ToThisHost => {
            expression(w, "fib", |w| {
                w.be32(NFTA_FIB_DREG, NFT_REG32_00);
                w.be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
                w.be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
            });
            compare(w, NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes());
        }
        Statement::InSet(fields, set) => lookup(w, fields, *set, None),
        Statement::VerdictMap(fields, map) => lookup(w, fields, *map, Some(NFT_REG_VERDICT)),
        Statement::DnatMap(fields, map) => {
            lookup(w, fields, *map, Some(NFT_REG32_00));
            nat(w, NFT_NAT_DNAT, map.address_family(), true);
        }
        Statement::DnatAddressMap(fields, map) => {
            lookup(w, fields, *map, Some(NFT_REG32_00));
            nat(w, NFT_NAT_DNAT, map.address_family(), false);
        }
        Statement::SnatMap(fields, map) => {
            lookup(w, fields, *map, Some(NFT_REG32_00));
            nat(w, NFT_NAT_SNAT, map.address_family(), false);
        }
        Statement::Masquerade => expression(w, "masq", |_| {}),
        Statement::SetPort(field, port, proto) => set_port(w, *field, *port, *proto),
        Statement::Marked(bit) => {
            load_meta(w, NFT_META_MARK, NFT_REG32_00);
            mask(w, &bit.to_ne_bytes(), 0);
            compare(w, NFT_CMP_EQ, &bit.to_ne_bytes());
        }
        Statement::Unmarked(bit) => {
            load_meta(w, NFT_META_MARK, NFT_REG32_00);
            mask(w, &bit.to_ne_bytes(), 0);
            compare(w, NFT_CMP_EQ, &[0; 4]);
        }
        Statement::Mark(bit) => set_mark(w, !bit, *bit),
        Statement::Unmark(bit) => set_mark(w, !bit, 0),
        Statement::Counter => expression(w, "counter", |w| {
            w.bytes(NFTA_COUNTER_BYTES, &0_u64.to_be_bytes());
            w.bytes(NFTA_COUNTER_PACKETS, &0_u64.to_be_bytes());
        }),
        Statement::Reset => expression(w, "reject", |w| w.be32(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST)),
        Statement::Opens => opens(w),
        Statement::Queue(queue) => queue_to(w, *queue),
        Statement::Verdict(verdict) => immediate_verdict(w, *verdict),
    }
}

fn expression(w: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    w.nest(NFTA_LIST_ELEM, |w| {
        w.text(NFTA_EXPR_NAME, name);
        w.nest(NFTA_EXPR_DATA, body);
    });
}

/// Loads a field into the registers from `register` on.
fn load(w: &mut Writer, field: Field, register: u32) {
    let meta = |w: &mut Writer, key| load_meta(w, key, register);
    let (base, offset) = match field {
        Field::NfProto => return meta(w, NFT_META_NFPROTO),
        Field::L4Proto => return meta(w, NFT_META_L4PROTO),
        Field::Iifname => return meta(w, NFT_META_IIFNAME),
        Field::Oifname => return meta(w, NFT_META_OIFNAME),
        Field::EtherType => return meta(w, NFT_META_PROTOCOL),
        Field::EtherSaddr => (NFT_PAYLOAD_LL_HEADER, 6),
        Field::ArpSaddrEther => (NFT_PAYLOAD_NETWORK_HEADER, 8),
        Field::ArpSaddrIp => (NFT_PAYLOAD_NETWORK_HEADER, 14),
        Field::ArpDaddrIp => (NFT_PAYLOAD_NETWORK_HEADER, 24),
        Field::Icmp6Target => (NFT_PAYLOAD_TRANSPORT_HEADER, 8),
        Field::IpSaddr => (NFT_PAYLOAD_NETWORK_HEADER, 12),
        Field::IpDaddr => (NFT_PAYLOAD_NETWORK_HEADER, 16),
        Field::Ip6Saddr => (NFT_PAYLOAD_NETWORK_HEADER, 8),
        Field::Ip6Daddr => (NFT_PAYLOAD_NETWORK_HEADER, 24),
        Field::ThSport => (NFT_PAYLOAD_TRANSPORT_HEADER, 0),
        Field::ThDport => (NFT_PAYLOAD_TRANSPORT_HEADER, 2),
        Field::IcmpType | Field::Icmp6Type => (NFT_PAYLOAD_TRANSPORT_HEADER, 0),
    };
    load_payload(w, base, offset, field_width(field), register);
}

fn load_payload(w: &mut Writer, base: u32, offset: u32, length: u32, register: u32) {
    expression(w, "payload", |w| {
        w.be32(NFTA_PAYLOAD_DREG, register);
        w.be32(NFTA_PAYLOAD_BASE, base);
        w.be32(NFTA_PAYLOAD_OFFSET, offset);
        w.be32(NFTA_PAYLOAD_LEN, length);
    });
}

fn load_meta(w: &mut Writer, key: u32, register: u32) {
    expression(w, "meta", |w| {
        w.be32(NFTA_META_DREG, register);
        w.be32(NFTA_META_KEY, key);
    });
}

/// mark = (mark & keep) ^ set
fn set_mark(w: &mut Writer, keep: u32, set: u32) {
    load_meta(w, NFT_META_MARK, NFT_REG32_00);
    mask(w, &keep.to_ne_bytes(), set);
    expression(w, "meta", |w| {
        w.be32(NFTA_META_KEY, NFT_META_MARK);
        w.be32(NFTA_META_SREG, NFT_REG32_00);
    });
}

fn field_width(field: Field) -> u32 {
    match field {
        Field::NfProto | Field::L4Proto | Field::IcmpType | Field::Icmp6Type => 1,
        Field::ThSport | Field::ThDport | Field::EtherType => 2,
        Field::IpSaddr | Field::IpDaddr | Field::ArpSaddrIp | Field::ArpDaddrIp => 4,
        Field::EtherSaddr | Field::ArpSaddrEther => 6,
        Field::Iifname | Field::Oifname | Field::Ip6Saddr | Field::Ip6Daddr | Field::Icmp6Target => 16,
    }
}

fn compare(w: &mut Writer, operator: u32, value: &[u8]) {
    expression(w, "cmp", |w| {
        w.be32(NFTA_CMP_SREG, NFT_REG32_00);
        w.be32(NFTA_CMP_OP, operator);
        w.nest(NFTA_CMP_DATA, |w| w.bytes(NFTA_DATA_VALUE, value));
    });
}

/// value = (value & mask) ^ xor, `xor` being the first bytes.
fn mask(w: &mut Writer, mask: &[u8], xor: u32) {
    let mut flips = vec![0; mask.len()];
    flips.iter_mut().zip(xor.to_ne_bytes()).for_each(|(flip, byte)| *flip = byte);
    expression(w, "bitwise", |w| {
        w.be32(NFTA_BITWISE_SREG, NFT_REG32_00);
        w.be32(NFTA_BITWISE_DREG, NFT_REG32_00);
        w.be32(NFTA_BITWISE_LEN, mask.len() as u32);
        w.nest(NFTA_BITWISE_MASK, |w| w.bytes(NFTA_DATA_VALUE, mask));
        w.nest(NFTA_BITWISE_XOR, |w| w.bytes(NFTA_DATA_VALUE, &flips));
    });
}

fn prefix_match(w: &mut Writer, field: Field, network: IpAddr, prefix: u8) {
    load(w, field, NFT_REG32_00);
    let network = bytes_of(&Value::from(network));
    if usize::from(prefix) < network.len() * 8 {
        let bits = usize::from(prefix);
        let ones: Vec<u8> = (0..network.len())
            .map(|i| match bits.saturating_sub(i * 8) {
                0 => 0,
                rest if rest >= 8 => 0xff,
                rest => 0xff << (8 - rest),
            })
            .collect();
        mask(w, &ones, 0);
    }
    compare(w, NFT_CMP_EQ, &network);
}

fn ct_bits(w: &mut Writer, key: u32, bits: u32) {
    expression(w, "ct", |w| {
        w.be32(NFTA_CT_DREG, NFT_REG32_00);
        w.be32(NFTA_CT_KEY, key);
    });
    mask(w, &bits.to_ne_bytes(), 0);
    compare(w, NFT_CMP_NEQ, &[0; 4]);
}

/// Loads the fields side by side, as concatenated keys are, and looks them up.
fn lookup(w: &mut Writer, fields: &[Field], set: SetName, result: Option<u32>) {
    let mut register = NFT_REG32_00;
    for field in fields {
        load(w, *field, register);
        register += field_width(*field).div_ceil(4);
    }
    expression(w, "lookup", |w| {
        w.text(NFTA_LOOKUP_SET, set.as_str());
        w.be32(NFTA_LOOKUP_SREG, NFT_REG32_00);
        if let Some(register) = result {
            w.be32(NFTA_LOOKUP_DREG, register);
        }
    });
}

/// Translates to the address in the first registers and, if `port`, to the port right behind it.
fn nat(w: &mut Writer, kind: u32, family: IpFamily, port: bool) {
    let (number, registers) = match family {
        IpFamily::V4 => (NFPROTO_IPV4, 1),
        IpFamily::V6 => (NFPROTO_IPV6, 4),
    };
    expression(w, "nat", |w| {
        w.be32(NFTA_NAT_TYPE, kind);
        w.be32(NFTA_NAT_FAMILY, u32::from(number));
        w.be32(NFTA_NAT_REG_ADDR_MIN, NFT_REG32_00);
        if port {
            w.be32(NFTA_NAT_REG_PROTO_MIN, NFT_REG32_00 + registers);
        }
    });
}

/// The kernel corrects the transport checksum by the difference, unless the device computes it.
fn set_port(w: &mut Writer, field: Field, port: u16, proto: Proto) {
    immediate(w, &port.to_be_bytes());
    let offset = if field == Field::ThSport { 0 } else { 2 };
    expression(w, "payload", |w| {
        w.be32(NFTA_PAYLOAD_SREG, NFT_REG32_00);
        w.be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
        w.be32(NFTA_PAYLOAD_OFFSET, offset);
        w.be32(NFTA_PAYLOAD_LEN, 2);
        let checksum = match proto {
            Proto::Tcp => Some(16),
            Proto::Udp => Some(6),
            // SCTP's is a CRC over the packet, which cannot be corrected so; no skeleton asks for it.
            Proto::Sctp => None,
        };
        if let Some(offset) = checksum {
            w.be32(NFTA_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET);
            w.be32(NFTA_PAYLOAD_CSUM_OFFSET, offset);
        }
    });
}

/// Of TCP, and neither an answer nor an end.
fn opens(w: &mut Writer) {
    load(w, Field::L4Proto, NFT_REG32_00);
    compare(w, NFT_CMP_EQ, &bytes_of(&Value::Proto(Proto::Tcp)));
    load_payload(w, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS_OFFSET, 1, NFT_REG32_00);
    mask(w, &[TCP_FIN_SYN_RST_ACK], 0);
    compare(w, NFT_CMP_EQ, &[TCP_SYN]);
}

fn queue_to(w: &mut Writer, queue: Queue) {
    match queue.form {
        QueueForm::Native => expression(w, "queue", |w| {
            w.bytes(NFTA_QUEUE_NUM, &queue.number.to_be_bytes());
            w.bytes(NFTA_QUEUE_TOTAL, &1_u16.to_be_bytes());
        }),
        QueueForm::Xtables => expression(w, "target", |w| {
            w.text(NFTA_TARGET_NAME, "NFQUEUE");
            w.be32(NFTA_TARGET_REV, 3);
            // `struct xt_NFQ_info_v3`: number, how many, flags; as long as its alignment makes it.
            let mut info = [0; 8];
            info[..2].copy_from_slice(&queue.number.to_ne_bytes());
            info[2..4].copy_from_slice(&1_u16.to_ne_bytes());
            w.bytes(NFTA_TARGET_INFO, &info);
        }),
    }
}

fn immediate(w: &mut Writer, value: &[u8]) {
    expression(w, "immediate", |w| {
        w.be32(NFTA_IMMEDIATE_DREG, NFT_REG32_00);
        w.nest(NFTA_IMMEDIATE_DATA, |w| w.bytes(NFTA_DATA_VALUE, value));
    });
}

fn immediate_verdict(w: &mut Writer, verdict: Verdict) {
    expression(w, "immediate", |w| {
        w.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        w.nest(NFTA_IMMEDIATE_DATA, |w| encode::verdict_data(w, verdict));
    });
}

fn bytes_of(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    encode::value(&mut bytes, value);
    bytes
}

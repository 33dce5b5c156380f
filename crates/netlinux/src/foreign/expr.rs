//! nf_tables' expressions (`include/uapi/linux/netfilter/nf_tables.h`).

use portolan_netcore::foreign::{Comparison, Expr, Field, Verdict};

use super::xt;
use crate::netlink::{Attr, Attrs};

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const REGISTER_BYTES: usize = 64;

/// The expressions of one rule.
pub(super) fn read_rule(exprs: Attrs<'_>) -> Vec<Expr> {
    let mut rule = Vec::new();
    for expr in exprs {
        let expr = expr.nested();
        let name = expr.get(EXPR_NAME).and_then(|name| name.text()).unwrap_or_default();
        let data = expr.get(EXPR_DATA).map_or(Attrs::new(&[]), |data| data.nested());
        match read(name, &data) {
            Some(mut exprs) => rule.append(&mut exprs),
            // Without an attribute that it must have, it is not the expression that we know.
            None => rule.extend([Expr::Forget, Expr::Perhaps]),
        }
    }
    rule
}

fn read(name: &str, data: &Attrs<'_>) -> Option<Vec<Expr>> {
    let one = |expr| Some(vec![expr]);
    match name {
        "meta" => meta(data),
        "payload" => payload(data),
        "ct" => ct(data),
        "cmp" => one(compare(data)?),
        "range" => one(range(data)?),
        "bitwise" => one(bitwise(data)?),
        "lookup" => lookup(data),
        "immediate" => immediate(data),
        "reject" => one(Expr::Verdict(Verdict::Drop)),
        "queue" | "synproxy" | "tproxy" | "fwd" => one(Expr::Verdict(Verdict::Elsewhere)),
        // They count, note, mark or translate, and the rule goes on.
        "counter" | "log" | "notrack" | "objref" | "last" | "dup" | "masq" | "nat" | "redir" => {
            Some(Vec::new())
        }
        "match" => xt::read_match(data),
        "target" => Some(xt::read_target(data)),
        // limit, quota, connlimit, fib, socket, dynset, numgen, ... : it depends.
        _ => None,
    }
}

/// The first byte of a register: four of sixteen bytes, or sixteen of four.
fn register(attr: Attr<'_>) -> Option<usize> {
    match attr.be32()? {
        number @ 1..=4 => Some((number as usize - 1) * 16),
        number @ 8..=23 => Some((number as usize - 8) * 4),
        _ => None,
    }
}

fn value(attr: Attr<'_>) -> Option<Vec<u8>> {
    attr.nested().get(DATA_VALUE).map(|value| value.payload.to_vec())
}

/// Registers from `at` that hold `len` bytes.
fn fits(at: usize, len: usize) -> Option<usize> {
    (at + len <= REGISTER_BYTES).then_some(at)
}

fn load(to: usize, field: Field, len: usize) -> Option<Vec<Expr>> {
    Some(vec![Expr::Load { field, to: fits(to, len)?, len }])
}

fn meta(data: &Attrs<'_>) -> Option<Vec<Expr>> {
    // With a source register it writes the packet's mark or the like.
    let Some(to) = data.get(1) else { return Some(Vec::new()) };
    let to = register(to)?;
    match data.get(2)?.be32()? {
        1 => load(to, Field::EtherType, 2),
        4 => load(to, Field::InIndex, 4),
        5 => load(to, Field::OutIndex, 4),
        6 => load(to, Field::InName, 16),
        7 => load(to, Field::OutName, 16),
        15 => load(to, Field::Family, 1),
        16 => load(to, Field::Protocol, 1),
        17 => load(to, Field::InBridge, 16),
        18 => load(to, Field::OutBridge, 16),
        _ => load(to, Field::Unknown, 4),
    }
}

fn payload(data: &Attrs<'_>) -> Option<Vec<Expr>> {
    let Some(to) = data.get(1) else { return Some(Vec::new()) };
    let (to, base) = (register(to)?, data.get(2)?.be32()?);
    let (offset, len) = (data.get(3)?.be32()? as usize, data.get(4)?.be32()? as usize);
    let field = match base {
        0 if offset == 12 && len == 2 => Field::EtherType,
        1 => Field::Network(offset),
        2 => Field::Transport(offset),
        _ => Field::Unknown,
    };
    load(to, field, len)
}

fn ct(data: &Attrs<'_>) -> Option<Vec<Expr>> {
    let Some(to) = data.get(1) else { return Some(Vec::new()) };
    match data.get(2)?.be32()? {
        0 => load(register(to)?, Field::State, 4),
        2 => load(register(to)?, Field::Status, 4),
        _ => Some(vec![Expr::Forget]),
    }
}

fn compare(data: &Attrs<'_>) -> Option<Expr> {
    let how = match data.get(2)?.be32()? {
        0 => Comparison::Eq,
        1 => Comparison::Ne,
        2 => Comparison::Lt,
        3 => Comparison::Le,
        4 => Comparison::Gt,
        5 => Comparison::Ge,
        _ => return None,
    };
    let bytes = value(data.get(3)?)?;
    Some(Expr::Compare { at: fits(register(data.get(1)?)?, bytes.len())?, how, bytes })
}

fn range(data: &Attrs<'_>) -> Option<Expr> {
    let (least, greatest) = (value(data.get(3)?)?, value(data.get(4)?)?);
    let at = fits(register(data.get(1)?)?, least.len().max(greatest.len()))?;
    Some(Expr::Range { at, least, greatest, invert: data.get(2)?.be32()? == 1 })
}

fn bitwise(data: &Attrs<'_>) -> Option<Expr> {
    let operation = data.get(6).and_then(|operation| operation.be32()).unwrap_or(0);
    if operation != 0 {
        return None;
    }
    let (mask, xor) = (value(data.get(4)?)?, value(data.get(5)?)?);
    let from = fits(register(data.get(1)?)?, mask.len())?;
    Some(Expr::Mask { from, to: fits(register(data.get(2)?)?, mask.len())?, mask, xor })
}

fn lookup(data: &Attrs<'_>) -> Option<Vec<Expr>> {
    let (set, at) = (data.get(1)?.text()?.to_owned(), register(data.get(2)?)?);
    let invert = data.get(5).and_then(|flags| flags.be32()).unwrap_or(0) & 1 != 0;
    match data.get(3).and_then(|to| to.be32()) {
        None => Some(vec![Expr::Lookup { set, at, invert }]),
        // The register of verdicts.
        Some(0) => Some(vec![Expr::VerdictMap { map: set, at }]),
        Some(_) => None,
    }
}

fn immediate(data: &Attrs<'_>) -> Option<Vec<Expr>> {
    let (to, what) = (data.get(1)?, data.get(2)?);
    if let Some(verdict) = what.nested().get(DATA_VERDICT) {
        return Some(read_verdict(verdict.nested()).map(Expr::Verdict).into_iter().collect());
    }
    let bytes = value(what)?;
    Some(vec![Expr::Constant { to: fits(register(to)?, bytes.len())?, bytes }])
}

/// None for `continue`, which is none.
pub(super) fn read_verdict(data: Attrs<'_>) -> Option<Verdict> {
    let code = data.get(VERDICT_CODE)?.be32()? as i32;
    let chain = || Some(data.get(VERDICT_CHAIN)?.text()?.to_owned());
    Some(match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 | -2 => return None,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => Verdict::Elsewhere,
    })
}

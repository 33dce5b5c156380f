//! What iptables-nft puts into nf_tables as it is in xtables: matches and targets with a structure of
//! their own (`include/uapi/linux/netfilter/xt_*.h`).

use portolan_netcore::foreign::{Comparison, Expr, Field, Verdict};

use crate::netlink::Attrs;

const NAME: u16 = 1;
const INFO: u16 = 3;

/// None for what we do not know: it may match.
pub(super) fn read_match(data: &Attrs<'_>) -> Option<Vec<Expr>> {
    let info = data.get(INFO)?.payload;
    match data.get(NAME)?.text()? {
        "comment" => Some(Vec::new()),
        "conntrack" => conntrack(info),
        // `struct xt_state_info`.
        "state" => Some(states(u32::from_ne_bytes(*info.first_chunk()?), false)),
        // `struct xt_tcp`: four ports, an option, flags, inversions; `struct xt_udp`: without those between.
        "tcp" => ports(info, info.get(8..11)?.iter().any(|byte| *byte != 0), *info.get(11)?),
        "udp" => ports(info, false, *info.get(8)?),
        _ => None,
    }
}

pub(super) fn read_target(data: &Attrs<'_>) -> Vec<Expr> {
    match data.get(NAME).and_then(|name| name.text()) {
        Some("REJECT" | "DROP") => vec![Expr::Verdict(Verdict::Drop)],
        Some("NFQUEUE" | "TPROXY" | "SYNPROXY") | None => vec![Expr::Verdict(Verdict::Elsewhere)],
        // The others do their work and let the next rule decide.
        Some(_) => Vec::new(),
    }
}

/// `struct xt_conntrack_mtinfo1` to 3: eight addresses, two times, a protocol and four ports come first.
fn conntrack(info: &[u8]) -> Option<Vec<Expr>> {
    const STATE: u16 = 1;
    const STATE_ALIAS: u16 = 1 << 13;
    let at = |at: usize| Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?));
    let (tests, inverted, mask) = (at(146)?, at(148)?, at(150)?);
    (tests & !STATE_ALIAS == STATE).then(|| states(mask.into(), inverted & STATE != 0))
}

/// xtables' bits of a connection's state (`XT_CONNTRACK_STATE_*`) as nf_tables'.
fn states(mask: u32, invert: bool) -> Vec<Expr> {
    const DNAT: u32 = 1 << 7;
    const UNTRACKED: u32 = 1 << 8;
    let how = if invert { Comparison::Eq } else { Comparison::Ne };
    let test = |field, bits: u32| {
        vec![
            Expr::Load { field, to: 0, len: 4 },
            Expr::Mask { from: 0, to: 0, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
            Expr::Compare { at: 0, how, bytes: vec![0; 4] },
        ]
    };
    if mask == DNAT {
        return test(Field::Status, 1 << 5);
    }
    // INVALID, ESTABLISHED, RELATED and NEW have the same bits.
    let bits = (mask & 0xf) | if mask & UNTRACKED != 0 { 1 << 6 } else { 0 };
    if mask & !(0xf | UNTRACKED) == 0 { test(Field::State, bits) } else { vec![Expr::Perhaps] }
}

/// Source ports and destination ports, each from and to.
fn ports(info: &[u8], more: bool, inverted: u8) -> Option<Vec<Expr>> {
    let at = |at: usize| Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?));
    let any_source = at(0)? == 0 && at(2)? == u16::MAX;
    if more || !any_source {
        return None;
    }
    Some(vec![
        Expr::Load { field: Field::Transport(2), to: 0, len: 2 },
        Expr::Range {
            at: 0,
            least: at(4)?.to_be_bytes().to_vec(),
            greatest: at(6)?.to_be_bytes().to_vec(),
            invert: inverted & 2 != 0,
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_match_is_understood_and_others_are_not() {
        let mut info = vec![0; 164];
        info[146..148].copy_from_slice(&0x2001_u16.to_ne_bytes());
        info[150..152].copy_from_slice(&6_u16.to_ne_bytes());
        assert_eq!(conntrack(&info).unwrap(), states(6, false));
        info[146..148].copy_from_slice(&0x3_u16.to_ne_bytes());
        assert_eq!(conntrack(&info), None);
    }
}

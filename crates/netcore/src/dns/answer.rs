//! What a sandbox is told about a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Zone, ZoneRecord, ZoneView, Zones};
use crate::model::SandboxId;

/// How long an answer about a container may be kept, seconds. Short, because an address changes
/// hands the moment its container is removed; Docker says 600.
pub const TTL_SECONDS: u32 = 5;

/// The kinds of question that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Anything else.
    Other,
}

/// A question, already taken off the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name in any case, without the final dot.
    pub name: &'a str,
    /// What about it.
    pub kind: QuestionType,
}

/// One record of an answer; its owner is the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// RFC 1035 A.
    A(Ipv4Addr),
    /// RFC 3596 AAAA.
    Aaaa(Ipv6Addr),
    /// RFC 1035 PTR, without the final dot.
    Ptr(String),
}

/// What to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name is ours. With no records: NOERROR and nothing else, since a known name must never
    /// be asked for outside.
    Known(Vec<RecordData>),
    /// Not ours: ask the sandbox's upstreams.
    Forward,
    /// Not ours, and nothing may leave (or there is nobody to ask): SERVFAIL, as Docker answers.
    Unanswerable,
    /// The sandbox is not known: REFUSED.
    Refused,
}

/// Answers `question` as `sandbox` sees the world.
pub fn answer(zones: &Zones, sandbox: &SandboxId, question: &Question<'_>) -> Answer {
    let Some(view) = zones.sandboxes.get(sandbox) else { return Answer::Refused };
    let name = question.name.to_ascii_lowercase();
    match question.kind {
        QuestionType::Ptr => match address_of_reverse_name(&name).and_then(|ip| name_of(zones, view, ip)) {
            Some(name) => Answer::Known(vec![RecordData::Ptr(name)]),
            None => outside(view, &name, false),
        },
        kind => match addresses_of(zones, view, &name) {
            Some(addresses) => Answer::Known(addresses.into_iter().filter_map(|a| record(a, kind)).collect()),
            None => outside(view, &name, matches!(kind, QuestionType::A | QuestionType::Aaaa)),
        },
    }
}

/// A name that is not ours. With the user's `ndots` above 0 a name without a dot is meant to be
/// completed by a search domain first, and asking for it outside would leak it: NODATA.
fn outside(view: &ZoneView, name: &str, is_host: bool) -> Answer {
    let single_label = is_host && !name.contains('.') && view.ndots.is_some_and(|n| n > 0);
    if single_label {
        Answer::Known(Vec::new())
    } else if view.upstreams.is_empty() {
        Answer::Unanswerable
    } else {
        Answer::Forward
    }
}

fn record(address: IpAddr, kind: QuestionType) -> Option<RecordData> {
    match (address, kind) {
        (IpAddr::V4(ip), QuestionType::A) => Some(RecordData::A(ip)),
        (IpAddr::V6(ip), QuestionType::Aaaa) => Some(RecordData::Aaaa(ip)),
        _ => None,
    }
}

/// All addresses of a name, or `None` if it is not ours. Links come first, then plain names in the
/// order of the sandbox's networks, then `name.network`.
fn addresses_of(zones: &Zones, view: &ZoneView, name: &str) -> Option<Vec<IpAddr>> {
    if let Some(addresses) = view.links.get(name) {
        return Some(addresses.clone());
    }
    let visible = || view.networks.iter().filter_map(|id| zones.networks.get(id));
    visible().find_map(|zone| lookup(zone, name)).or_else(|| {
        // A container's name and a network's may both have dots: try every place to cut.
        name.rmatch_indices('.').find_map(|(dot, _)| {
            let (host, network) = (&name[..dot], &name[dot + 1..]);
            visible()
                .filter(|zone| zone.name.eq_ignore_ascii_case(network))
                .find_map(|zone| lookup(zone, host))
        })
    })
}

fn lookup(zone: &Zone, name: &str) -> Option<Vec<IpAddr>> {
    let mut known = false;
    let mut addresses = Vec::new();
    for record in zone.records.iter().filter(|record| record.names.iter().any(|n| n == name)) {
        known = true;
        addresses.extend_from_slice(&record.addresses);
    }
    known.then_some(addresses)
}

fn name_of(zones: &Zones, view: &ZoneView, address: IpAddr) -> Option<String> {
    view.networks.iter().filter_map(|id| zones.networks.get(id)).find_map(|zone| {
        let has = |record: &&ZoneRecord| record.addresses.contains(&address);
        let first = zone.records.iter().find(has)?.names.first()?;
        Some(format!("{first}.{}", zone.name))
    })
}

/// The address in `4.3.2.1.in-addr.arpa` or 32 nibbles of `ip6.arpa` (RFC 1035 3.5, RFC 3596 2.5).
fn address_of_reverse_name(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut parts = labels.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut count = 0;
    for label in labels.rsplit('.') {
        if label.len() != 1 {
            return None;
        }
        bits = (bits << 4) | u128::from(u8::from_str_radix(label, 16).ok()?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dns::Upstream;
    use crate::model::NetworkId;

    fn network(n: u8) -> NetworkId {
        NetworkId::from_bytes([n; 32])
    }

    fn sandbox(n: u8) -> SandboxId {
        SandboxId::from_bytes([n; 32])
    }

    fn record_of(names: &[&str], addresses: &[&str]) -> ZoneRecord {
        ZoneRecord {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    /// `front` has web (twice, as replicas of `svc`) and a dual-stack `db.one`; `back` has `db`.
    fn zones() -> Zones {
        let upstream = Upstream { address: "192.0.2.53:53".parse().unwrap(), from_host: false };
        let front = Zone {
            name: "front".into(),
            records: vec![
                record_of(&["web1", "svc", "0123456789ab"], &["172.18.0.2"]),
                record_of(&["web2", "svc"], &["172.18.0.3"]),
                record_of(&["db.one"], &["172.18.0.4", "fd00::4"]),
            ],
        };
        let back = Zone { name: "back.net".into(), records: vec![record_of(&["db"], &["172.19.0.2"])] };
        let both = ZoneView {
            networks: vec![network(1), network(2)],
            links: BTreeMap::from([("alias".to_owned(), vec!["172.18.0.2".parse().unwrap()])]),
            upstreams: vec![upstream.clone()],
            ndots: None,
        };
        let inside = ZoneView { networks: vec![network(1)], ..ZoneView::default() };
        let dotted = ZoneView {
            networks: vec![network(1)],
            upstreams: vec![upstream],
            ndots: Some(1),
            ..ZoneView::default()
        };
        Zones {
            networks: BTreeMap::from([(network(1), front), (network(2), back)]),
            sandboxes: BTreeMap::from([(sandbox(1), both), (sandbox(2), inside), (sandbox(3), dotted)]),
        }
    }

    fn ask(who: u8, name: &str, kind: QuestionType) -> Answer {
        answer(&zones(), &sandbox(who), &Question { name, kind })
    }

    fn a(addresses: &[&str]) -> Answer {
        Answer::Known(addresses.iter().map(|a| RecordData::A(a.parse().unwrap())).collect())
    }

    #[test]
    fn a_name_is_found_in_any_case_and_by_alias() {
        assert_eq!(ask(1, "Web1", QuestionType::A), a(&["172.18.0.2"]));
        assert_eq!(ask(1, "0123456789ab", QuestionType::A), a(&["172.18.0.2"]));
        assert_eq!(ask(1, "svc", QuestionType::A), a(&["172.18.0.2", "172.18.0.3"]));
        assert_eq!(ask(1, "alias", QuestionType::A), a(&["172.18.0.2"]));
    }

    #[test]
    fn a_network_name_qualifies_even_where_both_have_dots() {
        assert_eq!(ask(1, "web2.front", QuestionType::A), a(&["172.18.0.3"]));
        assert_eq!(ask(1, "db.one.front", QuestionType::A), a(&["172.18.0.4"]));
        assert_eq!(ask(1, "db.back.net", QuestionType::A), a(&["172.19.0.2"]));
        assert_eq!(ask(1, "web2.back.net", QuestionType::A), Answer::Forward);
    }

    #[test]
    fn a_known_name_never_leaves() {
        assert_eq!(ask(1, "web1", QuestionType::Aaaa), Answer::Known(vec![]));
        assert_eq!(ask(1, "web1", QuestionType::Other), Answer::Known(vec![]));
        let aaaa = vec![RecordData::Aaaa("fd00::4".parse().unwrap())];
        assert_eq!(ask(1, "db.one", QuestionType::Aaaa), Answer::Known(aaaa));
    }

    #[test]
    fn a_sandbox_sees_only_its_own_networks() {
        assert_eq!(ask(1, "db", QuestionType::A), a(&["172.19.0.2"]));
        assert_eq!(ask(2, "db", QuestionType::A), Answer::Unanswerable);
        assert_eq!(ask(2, "alias", QuestionType::A), Answer::Unanswerable);
        assert_eq!(ask(9, "web1", QuestionType::A), Answer::Refused);
    }

    #[test]
    fn unknown_names_go_upstream_only_where_they_may() {
        assert_eq!(ask(1, "example.org", QuestionType::A), Answer::Forward);
        assert_eq!(ask(1, "plain", QuestionType::A), Answer::Forward);
        assert_eq!(ask(2, "example.org", QuestionType::A), Answer::Unanswerable);
        assert_eq!(ask(3, "plain", QuestionType::A), Answer::Known(vec![]));
        assert_eq!(ask(3, "example.org", QuestionType::A), Answer::Forward);
    }

    #[test]
    fn an_address_has_its_first_name_and_its_network() {
        let name = |text: &str| Answer::Known(vec![RecordData::Ptr(text.into())]);
        assert_eq!(ask(1, "2.0.18.172.in-addr.arpa", QuestionType::Ptr), name("web1.front"));
        let reverse = format!("4.{}d.f.ip6.arpa", "0.".repeat(29));
        assert_eq!(ask(1, &reverse, QuestionType::Ptr), name("db.one.front"));
        assert_eq!(ask(1, "9.0.18.172.in-addr.arpa", QuestionType::Ptr), Answer::Forward);
        assert_eq!(ask(2, "2.0.19.172.in-addr.arpa", QuestionType::Ptr), Answer::Unanswerable);
        assert_eq!(ask(1, "172.in-addr.arpa", QuestionType::Ptr), Answer::Forward);
    }
}

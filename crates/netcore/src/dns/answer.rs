//! What a sandbox is told about a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reverse::address_of_reverse_name;
use super::service::{self, Service};
use super::{Upstreams, Zone, ZoneRecord, ZoneView, Zones};
use crate::model::SandboxId;

/// How long an answer about a container may be kept, seconds. Short, because an address changes
/// hands the moment its container is removed; Docker says 600.
pub const TTL_SECONDS: u32 = 5;

/// The domain under which the host finds containers: `<container>.<network>.portolan.internal`.
/// `internal` is set aside for private use and never delegated (ICANN resolution 2024.07.29.06).
pub const HOST_DOMAIN: &str = "portolan.internal";

/// The kinds of question that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuestionType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// The containers and port of a service.
    Srv,
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
    /// RFC 2782 SRV, priority and weight 0.
    Srv {
        /// The container's own port.
        port: u16,
        /// `<container>.<network>`, without the final dot.
        target: String,
        /// The target's addresses, for the additional section.
        addresses: Vec<IpAddr>,
    },
}

/// What to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name is ours. With no records: NOERROR and nothing else, since a known name must never
    /// be asked for outside.
    Known(Vec<RecordData>),
    /// The name would be ours if it existed: NXDOMAIN.
    Missing,
    /// Not ours: ask the sandbox's upstreams.
    Forward,
    /// Not ours, and nothing may leave (or there is nobody to ask): SERVFAIL, as Docker answers.
    Unanswerable,
    /// The sandbox is not known, or the name is none of our business: REFUSED.
    Refused,
}

/// Answers `question` as `sandbox` sees the world.
pub fn answer(zones: &Zones, sandbox: &SandboxId, question: &Question<'_>) -> Answer {
    let Some(view) = zones.view(sandbox) else { return Answer::Refused };
    let seen = Seen { zones, view };
    let name = question.name.to_ascii_lowercase();
    let known = match question.kind {
        QuestionType::Ptr => address_of_reverse_name(&name)
            .and_then(|ip| seen.name_of(ip))
            .map(|name| vec![RecordData::Ptr(name)])
            // A container's name has no PTR records, but is no less ours.
            .or_else(|| seen.tell(&name, |_| Vec::new())),
        kind => service::parse(&name)
            .and_then(|service| seen.tell(service.host, |found| found.services(&service, kind)))
            .or_else(|| seen.tell(&name, |found| found.addresses(kind))),
    };
    known.map_or_else(|| outside(view, &name, question.kind), Answer::Known)
}

/// Answers the host, which sees every network that has names: `<container>.<network>.portolan.internal`
/// and addresses of containers; nothing else.
pub fn answer_host(zones: &Zones, question: &Question<'_>) -> Answer {
    let name = question.name.to_ascii_lowercase();
    if question.kind == QuestionType::Ptr
        && let Some(address) = address_of_reverse_name(&name)
    {
        let first = zones.all().find_map(|zone| full_name(zone, zone.at(address)?));
        return first.map_or(Answer::Refused, |name| {
            Answer::Known(vec![RecordData::Ptr(format!("{name}.{HOST_DOMAIN}"))])
        });
    }
    let Some(inner) = name.strip_suffix(HOST_DOMAIN) else { return Answer::Refused };
    match inner.strip_suffix('.') {
        // The domain itself is there, with nothing to say about it.
        None if inner.is_empty() => Answer::Known(Vec::new()),
        None => Answer::Refused,
        Some(inner) => find_in_all(zones, inner, exact)
            .or_else(|| find_in_all(zones, inner, wildcard))
            .map(|found| found.addresses(question.kind))
            .or_else(|| is_above_a_network(zones, inner).then(Vec::new))
            .map_or(Answer::Missing, Answer::Known),
    }
}

/// A network, or labels that networks' names end with: a name with others below it is there (RFC 8020).
fn is_above_a_network(zones: &Zones, name: &str) -> bool {
    zones.zones_named(name).next().is_some()
        || zones.all().any(|zone| {
            let network = zone.name().to_ascii_lowercase();
            network.strip_suffix(name).is_some_and(|above| above.ends_with('.'))
        })
}

/// `name.network` on any network.
fn find_in_all<'a>(zones: &'a Zones, name: &str, find: Find<'a>) -> Option<Found<'a>> {
    cuts(name).find_map(|(host, network)| zones.zones_named(network).find_map(|zone| find(zone, host)))
}

/// A name that is not ours. With the user's `ndots` above 0 a name without a dot is meant to be
/// completed by a search domain first, and asking for it outside would leak it: NODATA.
fn outside(view: &ZoneView, name: &str, kind: QuestionType) -> Answer {
    let is_host = matches!(kind, QuestionType::A | QuestionType::Aaaa);
    if is_host && !name.contains('.') && view.ndots.is_some_and(|n| n > 0) {
        return Answer::Known(Vec::new());
    }
    match &view.upstreams {
        Upstreams::Nobody => Answer::Unanswerable,
        Upstreams::Own(servers) if servers.is_empty() => Answer::Unanswerable,
        Upstreams::Own(_) | Upstreams::Host => Answer::Forward,
    }
}

/// The records of one name on one network; none for a link that leads to a container that is gone.
struct Found<'a> {
    records: Vec<(&'a Zone, &'a ZoneRecord)>,
}

impl<'a> Found<'a> {
    /// Those that are ready, or all if none is.
    fn ready(&self) -> impl Iterator<Item = &(&'a Zone, &'a ZoneRecord)> {
        let any = self.records.iter().any(|(_, record)| !record.unready);
        self.records.iter().filter(move |(_, record)| !(any && record.unready))
    }

    fn addresses(&self, kind: QuestionType) -> Vec<RecordData> {
        let all = self.ready().flat_map(|(_, record)| &record.addresses);
        all.filter_map(|address| match (address, kind) {
            (IpAddr::V4(ip), QuestionType::A) => Some(RecordData::A(*ip)),
            (IpAddr::V6(ip), QuestionType::Aaaa) => Some(RecordData::Aaaa(*ip)),
            _ => None,
        })
        .collect()
    }

    fn services(&self, service: &Service<'_>, kind: QuestionType) -> Vec<RecordData> {
        if kind != QuestionType::Srv {
            return Vec::new();
        }
        self.ready()
            .filter(|(_, record)| {
                let mut ports = record.ports.iter();
                ports.any(|(proto, ports)| *proto == service.proto && ports.contains(service.port))
            })
            .filter_map(|(zone, record)| {
                Some(RecordData::Srv {
                    port: service.port,
                    target: full_name(zone, record)?,
                    addresses: record.addresses.clone(),
                })
            })
            .collect()
    }
}

/// `<container>.<network>`
fn full_name(zone: &Zone, record: &ZoneRecord) -> Option<String> {
    Some(format!("{}.{}", record.names.first()?, zone.name()))
}

/// What a sandbox can see.
struct Seen<'a> {
    zones: &'a Zones,
    view: &'a ZoneView,
}

impl<'a> Seen<'a> {
    /// What is known about a name, or `None` if it is not ours. Links come first, then plain names in the
    /// order of the sandbox's networks, then `name.network`; wildcards last of all. A container may be in
    /// several of these networks, not each with both address families: the first that has anything of the
    /// kind that was asked for tells it.
    fn tell(&self, name: &str, of: impl Fn(&Found<'a>) -> Vec<RecordData>) -> Option<Vec<RecordData>> {
        if let Some(link) = self.view.links.get(name) {
            let zone = self.visible().find(|(id, _)| **id == link.network).map(|(_, zone)| zone);
            let found = zone.and_then(|zone| exact(zone, &link.name));
            return Some(found.map(|found| of(&found)).unwrap_or_default());
        }
        let zones: Vec<&'a Zone> = self.visible().map(|(_, zone)| zone).collect();
        let by = |find: Find<'a>| {
            first_telling(zones.iter().filter_map(|zone| find(zone, name)), &of).or_else(|| {
                cuts(name).find_map(|(host, network)| {
                    let named = zones.iter().filter(|zone| zone.name().eq_ignore_ascii_case(network));
                    first_telling(named.filter_map(|zone| find(zone, host)), &of)
                })
            })
        };
        by(exact).or_else(|| by(wildcard))
    }

    fn visible(&self) -> impl Iterator<Item = (&'a crate::model::NetworkId, &'a Zone)> + use<'a> {
        let zones = self.zones;
        self.view.networks.iter().filter_map(move |id| Some((id, zones.zone(id)?)))
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.visible().find_map(|(_, zone)| full_name(zone, zone.at(address)?))
    }
}

/// A container's name and a network's may both have dots: every place to cut, from the right.
fn cuts(name: &str) -> impl Iterator<Item = (&str, &str)> {
    name.rmatch_indices('.').map(|(dot, _)| (&name[..dot], &name[dot + 1..]))
}

/// The first records that there are; none if there are only names. `None` without a name.
fn first_telling<'a>(
    found: impl Iterator<Item = Found<'a>>,
    of: impl Fn(&Found<'a>) -> Vec<RecordData>,
) -> Option<Vec<RecordData>> {
    let mut known = None;
    for found in found {
        let records = of(&found);
        if !records.is_empty() {
            return Some(records);
        }
        known = Some(records);
    }
    known
}

/// A way to find a name in one zone.
type Find<'a> = fn(&'a Zone, &str) -> Option<Found<'a>>;

fn exact<'a>(zone: &'a Zone, name: &str) -> Option<Found<'a>> {
    let records: Vec<_> = zone.named(name).map(|record| (zone, record)).collect();
    (!records.is_empty()).then_some(Found { records })
}

/// The closest `*.suffix` above a name (RFC 4592 has it match any number of labels).
fn wildcard<'a>(zone: &'a Zone, name: &str) -> Option<Found<'a>> {
    name.match_indices('.').find_map(|(dot, _)| exact(zone, &format!("*{}", &name[dot..])))
}

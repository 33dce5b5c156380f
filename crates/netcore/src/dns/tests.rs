//! What one is told: a small world of two networks, asked by several sandboxes and by the host.

use std::collections::BTreeMap;

use super::*;
use crate::model::{EndpointId, NetworkId, PortRange, Proto, SandboxId};

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
        ports: vec![(Proto::Tcp, PortRange::one(80))],
        unready: false,
    }
}

fn put(network_number: u8, endpoint: u8, record: ZoneRecord) -> ZoneChange {
    let endpoint = EndpointId::from_bytes([endpoint; 32]);
    ZoneChange::Record { network: network(network_number), endpoint, record }
}

fn see(number: u8, view: ZoneView) -> ZoneChange {
    ZoneChange::View { sandbox: sandbox(number), view }
}

/// `front` has web (twice, as replicas of `svc`), a dual-stack `db.one` and wildcards; `back.net` has `db`.
fn zones() -> Zones {
    let own = Upstreams::Own(vec!["192.0.2.53:53".parse().unwrap()]);
    let link = |name: &str| LinkTarget { network: network(1), name: name.to_owned() };
    let both = ZoneView {
        networks: vec![network(1), network(2)],
        links: BTreeMap::from([("alias".to_owned(), link("web1")), ("stale".to_owned(), link("gone"))]),
        upstreams: own.clone(),
        ndots: None,
    };
    let front = vec![network(1)];
    let changes = [
        ZoneChange::Network { id: network(1), name: "front".into() },
        ZoneChange::Network { id: network(2), name: "back.net".into() },
        put(1, 1, record_of(&["web1", "svc", "0123456789ab"], &["172.18.0.2"])),
        put(1, 2, record_of(&["web2", "svc"], &["172.18.0.3"])),
        put(1, 3, record_of(&["db.one"], &["172.18.0.4", "fd00::4"])),
        put(1, 4, record_of(&["proxy", "*.app", "x.app.home"], &["172.18.0.5"])),
        put(1, 5, record_of(&["deep", "*.b.app"], &["172.18.0.6"])),
        put(2, 6, record_of(&["db"], &["172.19.0.2"])),
        see(1, both),
        see(2, ZoneView { networks: front.clone(), ..ZoneView::default() }),
        see(3, ZoneView { networks: front, upstreams: own, ndots: Some(1), ..ZoneView::default() }),
        see(4, ZoneView { networks: vec![network(2)], upstreams: Upstreams::Host, ..ZoneView::default() }),
    ];
    let mut zones = Zones::default();
    changes.into_iter().for_each(|change| zones.apply(change));
    zones
}

fn ask(who: u8, name: &str, kind: QuestionType) -> Answer {
    answer(&zones(), &sandbox(who), &Question { name, kind })
}

fn a(addresses: &[&str]) -> Answer {
    Answer::Known(addresses.iter().map(|a| RecordData::A(a.parse().unwrap())).collect())
}

fn ptr(text: &str) -> Answer {
    Answer::Known(vec![RecordData::Ptr(text.into())])
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
    assert_eq!(ask(1, "web2.FRONT", QuestionType::A), a(&["172.18.0.3"]));
    assert_eq!(ask(1, "db.one.front", QuestionType::A), a(&["172.18.0.4"]));
    assert_eq!(ask(1, "db.back.net", QuestionType::A), a(&["172.19.0.2"]));
    assert_eq!(ask(1, "web2.back.net", QuestionType::A), Answer::Forward);
}

#[test]
fn a_wildcard_answers_for_every_name_below_it_unless_another_is_closer() {
    assert_eq!(ask(1, "a.app", QuestionType::A), a(&["172.18.0.5"]));
    assert_eq!(ask(1, "z.y.x.App", QuestionType::A), a(&["172.18.0.5"]));
    assert_eq!(ask(1, "a.b.app", QuestionType::A), a(&["172.18.0.6"]), "the longer suffix");
    assert_eq!(ask(1, "a.app.front", QuestionType::A), a(&["172.18.0.5"]), "with the network's name");
    assert_eq!(ask(1, "a.app", QuestionType::Aaaa), Answer::Known(vec![]), "and never leaves");
    assert_eq!(ask(1, "app", QuestionType::A), Answer::Forward, "not the name itself");
    assert_eq!(ask(1, "webapp", QuestionType::A), Answer::Forward);
}

#[test]
fn a_known_name_never_leaves() {
    for kind in [QuestionType::Aaaa, QuestionType::Other, QuestionType::Srv, QuestionType::Ptr] {
        assert_eq!(ask(1, "web1", kind), Answer::Known(vec![]), "{kind:?}");
    }
    assert_eq!(
        ask(1, "stale", QuestionType::A),
        Answer::Known(vec![]),
        "nor a link to a container that is gone"
    );
    let aaaa = vec![RecordData::Aaaa("fd00::4".parse().unwrap())];
    assert_eq!(ask(1, "db.one", QuestionType::Aaaa), Answer::Known(aaaa));
}

#[test]
fn another_network_tells_the_family_that_the_first_has_none_of() {
    let mut zones = zones();
    zones.apply(put(1, 7, record_of(&["both"], &["fd00::7"])));
    zones.apply(put(2, 8, record_of(&["both"], &["172.19.0.8"])));
    let ask = |kind| answer(&zones, &sandbox(1), &Question { name: "both", kind });
    assert_eq!(ask(QuestionType::A), a(&["172.19.0.8"]));
    assert_eq!(ask(QuestionType::Aaaa), Answer::Known(vec![RecordData::Aaaa("fd00::7".parse().unwrap())]));
    assert_eq!(ask(QuestionType::Other), Answer::Known(vec![]));
}

#[test]
fn a_sandbox_sees_only_its_own_networks() {
    assert_eq!(ask(1, "db", QuestionType::A), a(&["172.19.0.2"]));
    assert_eq!(ask(2, "db", QuestionType::A), Answer::Unanswerable);
    assert_eq!(ask(2, "alias", QuestionType::A), Answer::Unanswerable);
    assert_eq!(ask(4, "web1.front", QuestionType::A), Answer::Forward);
    assert_eq!(ask(9, "web1", QuestionType::A), Answer::Refused);
}

#[test]
fn unknown_names_go_upstream_only_where_they_may() {
    assert_eq!(ask(1, "example.org", QuestionType::A), Answer::Forward);
    assert_eq!(ask(1, "plain", QuestionType::A), Answer::Forward);
    assert_eq!(ask(2, "example.org", QuestionType::A), Answer::Unanswerable);
    assert_eq!(ask(2, "9.0.18.172.in-addr.arpa", QuestionType::Ptr), Answer::Unanswerable);
    assert_eq!(ask(3, "plain", QuestionType::A), Answer::Known(vec![]));
    assert_eq!(ask(3, "example.org", QuestionType::A), Answer::Forward);
}

#[test]
fn an_address_has_its_first_name_and_its_network() {
    assert_eq!(ask(1, "2.0.18.172.in-addr.arpa", QuestionType::Ptr), ptr("web1.front"));
    let reverse = format!("4.{}d.f.ip6.arpa", "0.".repeat(29));
    assert_eq!(ask(1, &reverse, QuestionType::Ptr), ptr("db.one.front"));
    assert_eq!(ask(1, "9.0.18.172.in-addr.arpa", QuestionType::Ptr), Answer::Forward);
    assert_eq!(ask(2, "2.0.19.172.in-addr.arpa", QuestionType::Ptr), Answer::Unanswerable);
    assert_eq!(ask(1, "172.in-addr.arpa", QuestionType::Ptr), Answer::Forward);
}

#[test]
fn a_service_has_a_port_of_each_replica_that_offers_it() {
    let srv = |target: &str, address: &str| RecordData::Srv {
        port: 80,
        target: target.into(),
        addresses: vec![address.parse().unwrap()],
    };
    let both = vec![srv("web1.front", "172.18.0.2"), srv("web2.front", "172.18.0.3")];
    assert_eq!(ask(1, "_80._tcp.svc", QuestionType::Srv), Answer::Known(both.clone()));
    assert_eq!(ask(1, "_HTTP._tcp.svc.front", QuestionType::Srv), Answer::Known(both));
    assert_eq!(ask(1, "_81._tcp.svc", QuestionType::Srv), Answer::Known(vec![]), "not offered");
    assert_eq!(ask(1, "_80._udp.svc", QuestionType::Srv), Answer::Known(vec![]), "nor over UDP");
    assert_eq!(ask(1, "_80._tcp.svc", QuestionType::A), Answer::Known(vec![]));
    assert_eq!(ask(1, "_80._tcp.nosuch", QuestionType::Srv), Answer::Forward);
}

#[test]
fn what_is_not_ready_leaves_the_answer_as_long_as_another_is() {
    let mut zones = zones();
    let ask = |zones: &Zones| answer(zones, &sandbox(1), &Question { name: "svc", kind: QuestionType::A });
    let unready =
        |names: &[&str], address: &str| ZoneRecord { unready: true, ..record_of(names, &[address]) };
    zones.apply(put(1, 1, unready(&["web1", "svc"], "172.18.0.2")));
    assert_eq!(ask(&zones), a(&["172.18.0.3"]));
    zones.apply(put(1, 2, unready(&["web2", "svc"], "172.18.0.3")));
    assert_eq!(ask(&zones), a(&["172.18.0.2", "172.18.0.3"]), "none is: all are told");
}

#[test]
fn the_host_finds_containers_by_their_full_name_only() {
    let zones = zones();
    let ask = |name: &str, kind| answer_host(&zones, &Question { name, kind });
    assert_eq!(ask("web1.front.portolan.internal", QuestionType::A), a(&["172.18.0.2"]));
    assert_eq!(ask("DB.back.net.Portolan.Internal", QuestionType::A), a(&["172.19.0.2"]));
    assert_eq!(ask("a.app.front.portolan.internal", QuestionType::A), a(&["172.18.0.5"]));
    assert_eq!(ask("web1.front.portolan.internal", QuestionType::Other), Answer::Known(vec![]));
    assert_eq!(ask("front.portolan.internal", QuestionType::A), Answer::Known(vec![]));
    assert_eq!(ask("net.portolan.internal", QuestionType::A), Answer::Known(vec![]), "back.net is below it");
    assert_eq!(ask("portolan.internal", QuestionType::A), Answer::Known(vec![]));
    assert_eq!(ask("web9.front.portolan.internal", QuestionType::A), Answer::Missing);
    assert_eq!(ask("web1.portolan.internal", QuestionType::A), Answer::Missing);
    assert_eq!(ask("notportolan.internal", QuestionType::A), Answer::Refused);
    assert_eq!(ask("example.org", QuestionType::A), Answer::Refused);
    assert_eq!(ask("2.0.18.172.in-addr.arpa", QuestionType::Ptr), ptr("web1.front.portolan.internal"));
    assert_eq!(ask("8.8.8.8.in-addr.arpa", QuestionType::Ptr), Answer::Refused);
}

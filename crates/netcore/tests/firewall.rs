//! The rule sets as text, for every combination of options, and that changes add up to the whole.
//!
//! The texts are in `firewall/`; `PORTOLAN_BLESS=1 cargo test -p portolan-netcore --test firewall`
//! writes them anew, for a person to read the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use portolan_netcore::firewall::iptables::{self, Found, Lines};
use portolan_netcore::firewall::ruleset::{
    ElementData, ElementKey, IpFamily, Queue, QueueForm, SetName, Table, Value,
};
use portolan_netcore::firewall::{
    BridgePolicy, CarriedPort, Change, Compile, Compiled, Elements, EndpointPolicy, FirewallPolicy,
    PolicyItem, PublishedPort, dns_table, floor, render, render_table, user_table,
};
use portolan_netcore::model::{EndpointId, GatewayMode, IfName, MacAddr, PortBinding, Proto};
use proptest::prelude::*;

fn same_as_file(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/firewall").join(name);
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    for (number, (got, want)) in text.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(got, want, "{name}:{}", number + 1);
    }
    assert_eq!(text.lines().count(), wanted.lines().count(), "{name}");
}

fn bridge(name: &str, number: u8) -> BridgePolicy {
    let subnets = [format!("172.{number}.0.0/16"), format!("fd{number}::/64")];
    let subnets = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
    BridgePolicy::new(IfName::new(name).unwrap(), subnets)
}

fn endpoint(bridge: &str, seed: u8) -> EndpointPolicy {
    EndpointPolicy {
        id: EndpointId::from_bytes([seed; 32]),
        bridge: IfName::new(bridge).unwrap(),
        host_ifname: IfName::new(&format!("veth{seed:07}")).unwrap(),
        mac: MacAddr([2, 0x42, 172, 17, 0, seed]),
        addresses: vec![IpAddr::from([172, 17, 0, seed])],
        source_guard: true,
    }
}

fn port(bridge: &str, host: &str, host_port: u16, target: &str, container_port: u16) -> PublishedPort {
    let host_ip = host.parse().unwrap();
    PublishedPort {
        binding: PortBinding { proto: Proto::Tcp, container_port, host_ip, host_port },
        bridge: IfName::new(bridge).unwrap(),
        target: target.parse().unwrap(),
        from: Vec::new(),
    }
}

/// Ports that lead to the same ports.
fn row(bridge: &str, host: &str, ports: RangeInclusive<u16>, target: &str) -> Vec<PolicyItem> {
    ports.map(|number| PolicyItem::Port(port(bridge, host, number, target, number))).collect()
}

fn carried(bridge: &str, host: &str, host_port: u16, from: &str) -> CarriedPort {
    let host_ip = host.parse().unwrap();
    CarriedPort {
        binding: PortBinding { proto: Proto::Tcp, container_port: 0, host_ip, host_port },
        bridge: IfName::new(bridge).unwrap(),
        from: from.split_whitespace().map(|net| net.parse().unwrap()).collect(),
    }
}

fn carried_row(bridge: &str, host: &str, ports: RangeInclusive<u16>, from: &str) -> Vec<PolicyItem> {
    ports.map(|number| PolicyItem::Carried(carried(bridge, host, number, from))).collect()
}

fn story() -> FirewallPolicy {
    let docker0 = bridge("docker0", 17);
    let user = bridge("br-0123456789ab", 18);
    FirewallPolicy {
        bridges: [docker0, user].into_iter().map(|bridge| (bridge.bridge.clone(), bridge)).collect(),
        endpoints: [endpoint("docker0", 4)]
            .into_iter()
            .map(|endpoint| (endpoint.id.clone(), endpoint))
            .collect(),
        published: [
            port("docker0", "0.0.0.0", 18080, "172.17.0.4", 80),
            port("docker0", "127.0.0.1", 8443, "172.17.0.4", 443),
            port("docker0", "::", 18080, "fd17::4", 80),
        ]
        .into(),
        carried: [carried("docker0", "::", 18080, ""), carried("docker0", "::1", 8443, "")].into(),
    }
}

#[test]
fn the_reference_documents_story() {
    let queue = Some(Queue { number: 5, form: QueueForm::Native });
    same_as_file("story.nft", &render(&Compiled::<Elements>::new(&story()).unwrap(), queue));
    let lines = Compiled::<Lines>::new(&story()).unwrap();
    let mut text = String::new();
    for family in IpFamily::BOTH {
        writeln!(text, "# {family:?}\n{}", iptables::replacement(&lines, family, &Found::default())).unwrap();
    }
    same_as_file("story.iptables", &text);
    same_as_file("sandbox-dns.nft", &render_table(&dns_table(40000, 40001), &[]));
    same_as_file("user.nft", &render_table(&user_table(), &[]));
    // The sets and the other table are those of the story.
    let [inet, _] = floor(queue);
    let chains = inet.chains.into_iter().filter(|chain| chain.hook.is_some()).collect();
    same_as_file("floor.nft", &render_table(&Table { sets: Vec::new(), chains, ..inet }, &[]));
}

#[test]
fn every_combination_of_options() {
    let mut nft = String::new();
    let mut tables = String::new();
    for (title, bridge) in combinations() {
        let mut items = vec![
            PolicyItem::Bridge(bridge),
            PolicyItem::Endpoint(endpoint("br-x", 2)),
            PolicyItem::Port(port("br-x", "0.0.0.0", 8080, "172.17.0.2", 80)),
            PolicyItem::Port(port("br-x", "::1", 8080, "fd17::2", 80)),
            PolicyItem::Carried(carried("br-x", "::", 8081, "")),
            PolicyItem::Carried(carried("br-x", "::1", 8082, "2001:db8::/32 10.0.0.0/8")),
        ];
        items.extend(row("br-x", "0.0.0.0", 9000..=9009, "172.17.0.2"));
        items.extend(carried_row("br-x", "::", 9000..=9009, "2001:db8::/32"));
        items.extend(row("br-x", "2001:db8::1", 9000..=9009, "fd17::2"));
        writeln!(nft, "# {title}").unwrap();
        let change = Compiled::<Elements>::default().change(&[], &items).unwrap();
        for (key, data) in change.difference.add {
            writeln!(nft, "{key} : {data}").unwrap();
        }
        writeln!(tables, "# {title}").unwrap();
        let change = Compiled::<Lines>::default().change(&[], &items).unwrap();
        for family in IpFamily::BOTH {
            write!(tables, "## {family:?}\n{}", iptables::change(&change.difference, family)).unwrap();
        }
    }
    same_as_file("combinations.nft", &nft);
    same_as_file("combinations.iptables", &tables);
}

fn combinations() -> Vec<(String, BridgePolicy)> {
    let modes = [GatewayMode::Nat, GatewayMode::NatUnprotected, GatewayMode::Routed, GatewayMode::Isolated];
    let mut all = Vec::new();
    for mode in modes {
        for internal in [false, true] {
            for icc in [true, false] {
                for source in ["masquerade", "fixed", "none"] {
                    let mut bridge = bridge("br-x", 17);
                    (bridge.gateway_mode_ipv4, bridge.gateway_mode_ipv6) = (mode, mode);
                    (bridge.internal, bridge.icc, bridge.masquerade) = (internal, icc, source != "none");
                    if source == "fixed" {
                        bridge.snat_ipv4 = Some("192.0.2.1".parse().unwrap());
                        bridge.snat_ipv6 = Some("2001:db8::1".parse().unwrap());
                    }
                    all.push((format!("{mode:?} internal={internal} icc={icc} source={source}"), bridge));
                }
            }
        }
    }
    all.push(("Nat isolate=true".to_owned(), BridgePolicy { isolate: true, ..bridge("br-x", 17) }));
    let trusted_interfaces = vec![IfName::new("eth1").unwrap()];
    all.push(("Nat trusted=eth1".to_owned(), BridgePolicy { trusted_interfaces, ..bridge("br-x", 17) }));
    all
}

#[test]
fn one_target_behind_two_ports_stays_open_until_both_are_gone() {
    let first = PolicyItem::Port(port("docker0", "0.0.0.0", 1, "172.17.0.4", 80));
    let second = PolicyItem::Port(port("docker0", "0.0.0.0", 2, "172.17.0.4", 80));
    let mut compiled =
        Compiled::<Elements>::new(&FirewallPolicy { published: [].into(), ..story() }).unwrap();
    let removed = |change: Change<Elements>| change.difference.remove.len();
    compiled.change(&[], &[first.clone(), second.clone()]).unwrap();
    assert_eq!(removed(compiled.change(&[first], &[]).unwrap()), 1, "the host port");
    assert_eq!(
        removed(compiled.change(&[second], &[]).unwrap()),
        3,
        "the host port, the target and its hairpin"
    );
}

#[test]
fn one_port_among_ten_thousand_costs_what_one_alone_does() {
    let many = |count: u16| {
        let ports =
            (0..count).map(|number| port("docker0", "0.0.0.0", 20_000 + number, "172.17.0.4", number));
        Compiled::<Elements>::new(&FirewallPolicy { published: ports.collect(), ..story() }).unwrap()
    };
    let one = PolicyItem::Port(port("docker0", "0.0.0.0", 80, "172.17.0.4", 40_000));
    let alone = many(1).change(&[], std::slice::from_ref(&one)).unwrap().difference;
    let among = many(10_000).change(&[], std::slice::from_ref(&one)).unwrap().difference;
    assert_eq!(among, alone);
    assert_eq!((among.remove.len(), among.add.len()), (0, 2), "the host port and its target");
}

/// The kernel goes through all verdict maps of a table whenever one gets a verdict that leads to a chain.
#[test]
fn what_there_may_be_thousands_of_is_in_no_verdict_map() {
    for (title, bridge) in combinations() {
        let policy =
            FirewallPolicy { bridges: [(bridge.bridge.clone(), bridge)].into(), ..FirewallPolicy::default() };
        let many = [
            PolicyItem::Endpoint(endpoint("br-x", 2)),
            PolicyItem::Port(port("br-x", "0.0.0.0", 8080, "172.17.0.2", 80)),
            PolicyItem::Carried(carried("br-x", "::", 8081, "")),
            PolicyItem::Carried(carried("br-x", "::1", 8082, "2001:db8::/32")),
            PolicyItem::Carried(carried("br-gone", "::1", 8083, "")),
        ];
        let mut compiled = Compiled::<Elements>::new(&policy).unwrap();
        for (key, data) in compiled.change(&[], &many).unwrap().difference.add {
            assert!(!matches!(data, ElementData::Verdict(_)), "{title}: {key} : {data}");
        }
    }
}

/// A carried port is open to nobody if its bridge is not there.
#[test]
fn a_carried_port_without_its_bridge_is_for_nobody() {
    let port = PolicyItem::Carried(carried("br-gone", "::", 8081, "::/0"));
    let change = Compiled::<Elements>::default().change(&[], &[port]).unwrap();
    let sets: Vec<SetName> = change.difference.add.iter().map(|(key, _)| key.set).collect();
    assert_eq!(sets, [SetName::CarriedAny, SetName::CarriedSomeAny, SetName::CarriedApartAny]);
}

/// What an item less or more of a range means.
#[test]
fn a_range_is_one_element_and_parts_where_a_port_goes() {
    let mut compiled =
        Compiled::<Elements>::new(&FirewallPolicy { published: [].into(), ..story() }).unwrap();
    let keys = |changed: &[(ElementKey, ElementData)]| -> Vec<String> {
        changed.iter().map(|(key, data)| format!("{} {} {data}", key.set, keys_of(key))).collect()
    };
    let all = row("docker0", "0.0.0.0", 8000..=8100, "172.17.0.4");
    let added = compiled.change(&[], &all).unwrap().difference;
    let whole = [
        "self4 172.17.0.4 . 172.17.0.4 nothing",
        "ranges4 0.0.0.0/0 . 0.0.0.0/0 . tcp . 8000-8100 172.17.0.4",
        "open_ranges4 0.0.0.0/0 . 172.17.0.4 . tcp . 8000-8100 nothing",
    ];
    assert_eq!((keys(&added.remove), keys(&added.add)), (vec![], whole.map(str::to_owned).to_vec()));
    let parted = compiled.change(&all[5..6], &[]).unwrap().difference;
    assert_eq!(keys(&parted.remove), &whole[1..]);
    // Too few to be a range of their own.
    let few = |number: u16| {
        [
            format!("published4_any tcp . {number} 172.17.0.4 . {number}"),
            format!("open4 172.17.0.4 . tcp . {number} nothing"),
        ]
    };
    let mut parts: Vec<String> = (8000..8005).flat_map(few).collect();
    let after = [whole[1], whole[2]].map(|element| element.replace("8000-", "8006-"));
    parts.extend(after.clone());
    let (mut got, mut want) = (keys(&parted.add), parts);
    got.sort();
    want.sort();
    assert_eq!(got, want);
    let mut back = compiled.change(&[], &all[5..6]).unwrap().difference;
    assert_eq!(keys(&back.add), &whole[1..]);
    // What is single goes when the range is there.
    let moved = back.split_off_moved();
    assert_eq!((keys(&back.remove), keys(&moved.remove).len()), (after.to_vec(), 10));
    assert!(moved.add.is_empty());
}

fn keys_of(key: &ElementKey) -> String {
    let text = key.to_string();
    text.split_once("{ ").unwrap().1.trim_end_matches(" }").to_owned()
}

/// In the set of those that are for some as well, where its single ports go when the range is there.
#[test]
fn carried_ports_in_a_row_are_a_range_too() {
    let mut compiled = Compiled::<Elements>::new(&FirewallPolicy { carried: [].into(), ..story() }).unwrap();
    let row = carried_row("docker0", "::", 8000..=8009, "2001:db8::/32 10.0.0.0/8");
    let keys = |changed: &[(ElementKey, ElementData)]| -> Vec<String> {
        changed.iter().map(|(key, _)| format!("{} {}", key.set, keys_of(key))).collect()
    };
    let whole = [
        "carried_ranges6 ::/0 . tcp . 8000-8009",
        "carried_some_ranges6 ::/0 . tcp . 8000-8009",
        "carried6_from 2001:db8::/32 . ::/0 . tcp . 8000-8009",
    ];
    assert_eq!(keys(&compiled.change(&[], &row).unwrap().difference.add), whole);
    let parted = compiled.change(&row[4..5], &[]).unwrap().difference;
    assert_eq!((keys(&parted.remove), parted.add.len()), (whole.map(str::to_owned).to_vec(), 9 * 3));
    let mut back = compiled.change(&[], &row[4..5]).unwrap().difference;
    let moved = back.split_off_moved();
    assert_eq!((keys(&back.add), back.remove.len()), (whole.map(str::to_owned).to_vec(), 9));
    assert!(
        back.remove.iter().all(|(key, _)| key.set == SetName::Carried6From),
        "intervals must not overlap"
    );
    assert_eq!(moved.remove.len(), 2 * 9);
}

/// A port of a range costs what the range costs, not what is in it, and another's is none of its business.
#[test]
fn one_port_of_a_range_of_ten_thousand_costs_two_ranges() {
    let all = row("docker0", "0.0.0.0", 20_000..=29_999, "172.17.0.4");
    let mut compiled =
        Compiled::<Elements>::new(&FirewallPolicy { published: [].into(), ..story() }).unwrap();
    assert_eq!(compiled.change(&[], &all).unwrap().difference.add.len(), 3);
    let middle = compiled.change(&all[5000..5001], &[]).unwrap().difference;
    assert_eq!((middle.remove.len(), middle.add.len()), (2, 4));
    let other = row("docker0", "0.0.0.0", 25_000..=25_000, "172.17.0.5");
    let other = compiled.change(&[], &other).unwrap().difference;
    assert_eq!((other.remove.len(), other.add.len()), (0, 3), "of another container in the gap");
}

/// The same ports of one container by two addresses, of which one is for some clients only.
#[test]
fn what_a_range_opens_does_not_depend_on_the_way() {
    let mut compiled =
        Compiled::<Elements>::new(&FirewallPolicy { published: [].into(), ..story() }).unwrap();
    let restricted = |items: Vec<PolicyItem>, from: &str| -> Vec<PolicyItem> {
        let with = |item| match item {
            PolicyItem::Port(port) => {
                PolicyItem::Port(PublishedPort { from: vec![from.parse().unwrap()], ..port })
            }
            other => other,
        };
        items.into_iter().map(with).collect()
    };
    let wide = restricted(row("docker0", "127.0.0.1", 100..=120, "172.17.0.4"), "10.0.0.0/8");
    let within = restricted(row("docker0", "192.0.2.1", 110..=130, "172.17.0.4"), "10.1.0.0/16");
    compiled.change(&[], &wide).unwrap();
    compiled.change(&[], &within).unwrap();
    let open = |compiled: &Compiled<Elements>| -> Vec<String> {
        compiled
            .iter()
            .filter(|(key, _)| key.set == SetName::OpenRanges4)
            .map(|(key, _)| keys_of(key))
            .collect()
    };
    let both = ["10.0.0.0/8 . 172.17.0.4 . tcp . 100-120", "10.1.0.0/16 . 172.17.0.4 . tcp . 121-130"];
    assert_eq!(open(&compiled), both);
    compiled.change(&[], &row("docker0", "::1", 110..=119, "fd17::4")).unwrap();
    let everybody = row("docker0", "198.51.100.1", 105..=114, "172.17.0.4");
    compiled.change(&[], &everybody).unwrap();
    let parted = ["0.0.0.0/0 . 172.17.0.4 . tcp . 105-114", "10.1.0.0/16 . 172.17.0.4 . tcp . 121-130"];
    assert_eq!(open(&compiled), parted, "the rest of the wide one is too short");
    compiled.change(&everybody, &[]).unwrap();
    assert_eq!(open(&compiled), both);
    compiled.change(&[wide, within].concat(), &[]).unwrap();
    assert_eq!(open(&compiled), [""; 0]);
}

#[test]
fn iptables_has_one_rule_for_a_range() {
    let mut compiled = Compiled::<Lines>::new(&FirewallPolicy { published: [].into(), ..story() }).unwrap();
    let mut items = row("docker0", "0.0.0.0", 8000..=8100, "172.17.0.4");
    items.extend(row("docker0", "2001:db8::1", 8000..=8100, "fd17::4"));
    let lines = |change: Change<Lines>| -> Vec<String> {
        change.difference.add.into_iter().map(|(line, ())| line.rule).collect()
    };
    let whole = [
        "DOCKER -p tcp -m tcp --dport 8000:8100 -j DNAT --to-destination 172.17.0.4",
        "DOCKER -d 2001:db8::1/128 -p tcp -m tcp --dport 8000:8100 -j DNAT --to-destination fd17::4",
    ];
    assert_eq!(lines(compiled.change(&[], &items).unwrap()), whole);
    // A range that is elsewhere in the container is single ports: what nf_tables cannot say, neither does iptables.
    let offset: Vec<PolicyItem> = (0..20)
        .map(|n| PolicyItem::Port(port("docker0", "0.0.0.0", 9000 + n, "172.17.0.4", 7000 + n)))
        .collect();
    assert_eq!(lines(compiled.change(&[], &offset).unwrap()).len(), 20);
}

#[test]
fn one_host_port_cannot_lead_to_two_targets() {
    let mut compiled = Compiled::<Elements>::new(&story()).unwrap();
    let before: Vec<_> = compiled.iter().map(|(key, data)| (key.clone(), data.clone())).collect();
    let taken = PolicyItem::Port(port("docker0", "0.0.0.0", 18080, "172.17.0.5", 80));
    let conflict = compiled.change(&[], std::slice::from_ref(&taken)).unwrap_err();
    assert_eq!(conflict.item, taken.to_string());
    assert_eq!(compiled.policy(), &story());
    let after: Vec<_> = compiled.iter().map(|(key, data)| (key.clone(), data.clone())).collect();
    assert_eq!(before, after);
}

#[test]
fn what_iptables_save_prints_is_recognised() {
    let compiled = Compiled::<Lines>::new(&story()).unwrap();
    let input = iptables::replacement(&compiled, IpFamily::V4, &Found::default());
    let saved = input.replace("-I ", "-A ");
    assert!(Found::parse(&saved, IpFamily::V4).is(&compiled, IpFamily::V4));
    let tampered = saved.replace("-j DROP", "-j ACCEPT");
    assert!(!Found::parse(&tampered, IpFamily::V4).is(&compiled, IpFamily::V4));
    let unhooked = saved.replace("-A FORWARD -j DOCKER-FORWARD\n", "");
    assert!(!Found::parse(&unhooked, IpFamily::V4).is(&compiled, IpFamily::V4));
}

/// Few names, so that items meet: the same bridge with other options, a port that moves.
fn item() -> impl Strategy<Value = Vec<PolicyItem>> {
    let mode =
        prop_oneof![Just(GatewayMode::Nat), Just(GatewayMode::NatUnprotected), Just(GatewayMode::Routed)];
    let bridges = (0..3_u8, any::<(bool, bool, bool)>(), mode).prop_map(
        |(number, (internal, icc, masquerade), mode)| {
            let mut bridge = bridge(&format!("br{number}"), 20 + number);
            bridge.isolate = !masquerade;
            (bridge.internal, bridge.icc, bridge.masquerade, bridge.gateway_mode_ipv4) =
                (internal, icc, masquerade, mode);
            PolicyItem::Bridge(bridge)
        },
    );
    let endpoints =
        (0..3_u8, 1..5_u8).prop_map(|(on, seed)| PolicyItem::Endpoint(endpoint(&format!("br{on}"), seed)));
    let sources = || {
        prop_oneof![
            Just(vec![]),
            Just(vec!["10.0.0.0/8".parse().unwrap()]),
            Just(vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]),
        ]
    };
    let ports = (0..3_u8, 1..4_u16, 2..4_u8, sources()).prop_map(|(on, host, target, from)| {
        let port = port(&format!("br{on}"), "0.0.0.0", host, &format!("172.20.0.{target}"), 80);
        PolicyItem::Port(PublishedPort { from, ..port })
    });
    let row =
        (0..2_u8, 1..20_u16, 0..14_u16, 2..4_u8, sources()).prop_map(|(on, first, more, target, from)| {
            let items = row(
                &format!("br{on}"),
                "0.0.0.0",
                first..=first + more,
                &format!("172.{}.0.{target}", 20 + on),
            );
            let with = |item| match item {
                PolicyItem::Port(port) => PolicyItem::Port(PublishedPort { from: from.clone(), ..port }),
                other => other,
            };
            items.into_iter().map(with).collect::<Vec<_>>()
        });
    let from = prop_oneof![Just(""), Just("fd00::/8 10.0.0.0/8"), Just("10.0.0.0/8")];
    let carried = (0..3_u8, 1..4_u16, prop_oneof![Just("::"), Just("::1")], from)
        .prop_map(|(on, host, ip, from)| PolicyItem::Carried(carried(&format!("br{on}"), ip, host, from)));
    let from = prop_oneof![Just(""), Just("fd00::/8 10.0.0.0/8")];
    let carried_row = (0..2_u8, 1..20_u16, 0..14_u16, prop_oneof![Just("::"), Just("::1")], from).prop_map(
        |(on, first, more, ip, from)| carried_row(&format!("br{on}"), ip, first..=first + more, from),
    );
    let single = prop_oneof![bridges, endpoints, ports, carried].prop_map(|item| vec![item]);
    prop_oneof![4 => single, 1 => row, 1 => carried_row]
}

fn items(most: usize) -> impl Strategy<Value = Vec<PolicyItem>> {
    prop::collection::vec(item(), 0..most).prop_map(|items| items.concat())
}

fn changes_add_up<C: Compile>(changes: &[(Vec<PolicyItem>, Vec<PolicyItem>)]) -> Result<(), TestCaseError> {
    let mut compiled = Compiled::<C>::default();
    let mut kernel = BTreeMap::new();
    for (remove, add) in changes {
        let Ok(Change { difference, .. }) = compiled.change(remove, add) else { continue };
        for (key, data) in difference.remove {
            prop_assert!(kernel.remove(&key) == Some(data), "{:?} was not there", key);
        }
        for (key, data) in difference.add {
            prop_assert!(kernel.insert(key.clone(), data).is_none(), "{:?} was there", key);
        }
        let whole = Compiled::<C>::new(compiled.policy()).unwrap();
        let whole: Vec<_> = whole.iter().collect();
        prop_assert!(whole == kernel.iter().collect::<Vec<_>>());
    }
    Ok(())
}

proptest! {
    #[test]
    fn changes_add_up_to_the_whole(
        changes in prop::collection::vec((items(3), items(4)), 1..12)
    ) {
        changes_add_up::<Elements>(&changes)?;
        changes_add_up::<Lines>(&changes)?;
    }

    #[test]
    fn a_change_taken_back_leaves_no_trace(
        first in items(8),
        remove in items(4),
        add in items(4),
    ) {
        let mut compiled = Compiled::<Elements>::default();
        prop_assume!(compiled.change(&[], &first).is_ok());
        let before = compiled.clone();
        if let Ok(change) = compiled.change(&remove, &add) {
            compiled.undo(change.undo);
        }
        prop_assert_eq!(compiled.policy(), before.policy());
        prop_assert!(compiled.iter().eq(before.iter()));
    }

    /// Ranges are the single ports put together: the same ports lead to the same places, each by one element,
    /// whatever the order in which they came and went.
    #[test]
    fn ranges_are_the_single_ports_put_together(
        rows in prop::collection::vec((0..2_u8, 1..60_u16, 0..30_u16, any::<bool>()), 1..8),
    ) {
        let mut compiled = Compiled::<Elements>::default();
        let bridges = [0, 1].map(|on| PolicyItem::Bridge(bridge(&format!("br{on}"), 20 + on)));
        compiled.change(&[], &bridges).unwrap();
        let mut model = BTreeMap::new();
        for (on, first, more, comes) in rows {
            let ports = first..=first + more;
            let target = format!("172.{}.0.2", 20 + on);
            let row = |on: &str, target: &str| row(on, "0.0.0.0", ports.clone(), target);
            // A host port has one holder.
            let gone = [row("br0", "172.20.0.2"), row("br1", "172.21.0.2")].concat();
            let come = if comes { row(&format!("br{on}"), &target) } else { Vec::new() };
            compiled.change(&gone, &come).unwrap();
            model.retain(|port, _| !ports.contains(port));
            model.extend(ports.filter(|_| comes).map(|port| (port, target.clone())));
        }
        let mut leads = BTreeMap::new();
        for (key, data) in compiled.iter() {
            let ports = match (key.set, key.key.last()) {
                (SetName::Ranges4, Some(Value::Ports(ports))) => ports.first..=ports.last,
                (SetName::Published4Any, Some(Value::Port(port))) => *port..=*port,
                _ => continue,
            };
            for port in ports {
                let to = data.to_string().trim_end_matches(&format!(" . {port}")).to_owned();
                prop_assert!(leads.insert(port, to).is_none(), "{} is there twice", port);
            }
        }
        prop_assert_eq!(leads, model);
    }
}

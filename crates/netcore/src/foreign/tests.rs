use std::collections::BTreeSet;

use super::*;
use crate::firewall::BridgePolicy;
use crate::model::{IfName, Proto};

fn bridge() -> BridgePolicy {
    BridgePolicy::new(IfName::new("docker0").unwrap(), vec!["172.17.0.0/16".parse().unwrap()])
}

/// The findings about forwarding for these lines of a filter table, in iptables-save's words.
fn found(lines: &str, service: Option<&Service>) -> Vec<Finding> {
    let tables = read_save(&format!("*filter\n:INPUT ACCEPT [0:0]\n{lines}\nCOMMIT\n"), Family::Ip);
    let ruleset = Ruleset {
        tables,
        egress: Some("eth0".to_owned()),
        ours: BTreeSet::from(["DOCKER-FORWARD".to_owned()]),
        ..Ruleset::default()
    };
    match service {
        None => findings(&ruleset, &bridge()),
        Some(service) => port_findings(&ruleset, &bridge(), &[*service]),
    }
}

fn flows(findings: &[Finding]) -> BTreeSet<Flow> {
    findings.iter().flat_map(|one| one.flows.iter().copied()).collect()
}

const UFW: &str = ":FORWARD DROP [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-skip-to-policy-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-skip-to-policy-forward -j DROP";

#[test]
fn nothing_is_said_of_what_lets_all_pass() {
    assert_eq!(found(":FORWARD ACCEPT [0:0]", None), []);
    assert_eq!(
        found(":FORWARD ACCEPT [0:0]\n-A FORWARD -i wg0 -j DROP\n-A FORWARD -p udp -j DROP", None),
        []
    );
    assert_eq!(found(":FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate INVALID -j DROP", None), []);
    // Perhaps is not enough to cry.
    assert_eq!(found(":FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set bad src -j DROP", None), []);
    assert_eq!(
        found(":FORWARD DROP [0:0]\n-A FORWARD -i docker+ -j ACCEPT\n-A FORWARD -o docker0 -j ACCEPT", None),
        []
    );
}

#[test]
fn a_policy_of_drop_takes_everything() {
    let found = found(":FORWARD DROP [0:0]", None);
    assert_eq!(flows(&found), BTreeSet::from([Flow::Out, Flow::OutReplies, Flow::In, Flow::InReplies]));
    assert!(found[0].is_severe());
    assert_eq!(found[0].place, Place { chain: "FORWARD".to_owned(), rule: None });
    assert_eq!(
        found[0].fix,
        [
            "iptables-legacy -I FORWARD -i docker0 -j ACCEPT",
            "iptables-legacy -I FORWARD -o docker0 -j ACCEPT"
        ]
    );
}

#[test]
fn ufw_takes_new_connections_and_is_named() {
    let found = found(UFW, None);
    assert_eq!(flows(&found), BTreeSet::from([Flow::Out, Flow::In]));
    assert_eq!(found[0].tool, Tool::Ufw);
    assert_eq!(found[0].fix, ["ufw route allow in on docker0", "ufw route allow out on docker0"]);
    let allowed =
        format!("{UFW}\n-A ufw-user-forward -i docker0 -j ACCEPT\n-A ufw-user-forward -o docker0 -j ACCEPT");
    assert_eq!(super::tests::found(&allowed, None), []);
}

#[test]
fn what_some_rule_may_let_through_is_dropped_partly() {
    let found = found(
        ":FORWARD DROP [0:0]\n-A FORWARD -s 10.0.0.0/8 -o docker0 -j ACCEPT\n-A FORWARD -i docker0 -j ACCEPT",
        None,
    );
    assert_eq!(flows(&found), BTreeSet::from([Flow::In, Flow::OutReplies]));
    assert!(found.iter().all(|one| one.partly && !one.is_severe()));
}

/// A port of this address, published everywhere.
fn service(port: u16, address: [u8; 4], host_port: u16) -> Service {
    let host = Some([0, 0, 0, 0].into());
    Service {
        proto: Proto::Tcp,
        port,
        address: Some(address.into()),
        host,
        host_port: Some(host_port),
        count: 1,
    }
}

#[test]
fn one_port_is_judged_by_its_own_rules() {
    let rules = ":FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -d 172.17.0.2/32 -o docker0 -p tcp -m tcp --dport 80:89 -j ACCEPT";
    let service = |port, last| service(port, [172, 17, 0, last], 1);
    assert_eq!(found(rules, Some(&service(80, 2))), []);
    assert_eq!(flows(&found(rules, Some(&service(90, 2)))), BTreeSet::from([Flow::In]));
    assert_eq!(flows(&found(rules, Some(&service(80, 3)))), BTreeSet::from([Flow::In]));
    let published = ":FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT";
    assert_eq!(found(published, Some(&service(90, 2))), []);
}

#[test]
fn chains_return_and_go_on_where_they_should() {
    let called = ":FORWARD ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n-A FORWARD JUMP A\n-A FORWARD -j REJECT\n-A A -i docker0 -j RETURN\n-A A -j ACCEPT";
    // Back from the called chain the next rule refuses; after a goto there is none.
    assert_eq!(
        flows(&found(&called.replace("JUMP", "-j"), None)),
        BTreeSet::from([Flow::Out, Flow::InReplies])
    );
    assert_eq!(found(&called.replace("JUMP", "-g"), None), []);
    let place = &found(&called.replace("JUMP", "-j"), None)[0].place;
    assert_eq!(place.to_string(), "rule 2 of chain FORWARD drops or rejects it");
}

#[test]
fn what_our_own_chains_let_pass_does_pass() {
    assert_eq!(found(":FORWARD DROP [0:0]\n:DOCKER-FORWARD - [0:0]\n-A FORWARD -j DOCKER-FORWARD", None), []);
    let before = ":FORWARD DROP [0:0]\n-A FORWARD -i docker0 -j DROP\n-A FORWARD -j DOCKER-FORWARD";
    assert_eq!(flows(&found(before, None)), BTreeSet::from([Flow::Out, Flow::InReplies]));
}

/// The findings about these tables, in iptables-save's words.
fn found_in(tables: &str) -> Vec<Finding> {
    let tables = read_save(tables, Family::Ip);
    let ruleset = Ruleset { tables, egress: Some("eth0".to_owned()), ..Ruleset::default() };
    findings(&ruleset, &bridge())
}

#[test]
fn what_is_dropped_before_it_is_routed_or_after_is_found_as_well() {
    let raw = found_in("*raw\n:PREROUTING DROP [0:0]\n-A PREROUTING -i docker0 -j ACCEPT\nCOMMIT\n");
    assert_eq!(flows(&raw), BTreeSet::from([Flow::In, Flow::OutReplies]));
    assert!(raw[0].is_severe());
    assert_eq!(raw[0].fix, ["iptables-legacy -t raw -I PREROUTING -i eth0 -j ACCEPT"]);
    let mangle = found_in("*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i docker0 -j DROP\nCOMMIT\n");
    assert_eq!(flows(&mangle), BTreeSet::from([Flow::Out, Flow::InReplies]));
    assert_eq!(mangle[0].fix, ["iptables-legacy -t mangle -I PREROUTING -i docker0 -j ACCEPT"]);
    let leaving = found_in("*mangle\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o docker0 -j DROP\nCOMMIT\n");
    assert_eq!(flows(&leaving), BTreeSet::from([Flow::In, Flow::OutReplies]));
    assert_eq!(leaving[0].fix, ["iptables-legacy -t mangle -I POSTROUTING -o docker0 -j ACCEPT"]);
}

#[test]
fn nothing_is_said_of_what_cannot_be_known_before_a_packet_is_routed() {
    // No connection is known in raw, no address behind a translation yet.
    let silent = [
        "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack --ctstate NEW -j DROP\nCOMMIT\n",
        "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP\nCOMMIT\n",
        "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        "*raw\n:OUTPUT DROP [0:0]\nCOMMIT\n",
    ];
    for tables in silent {
        assert_eq!(found_in(tables), [], "{tables}");
    }
    let new = found_in(
        "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack --ctstate NEW -j DROP\nCOMMIT\n",
    );
    assert_eq!(flows(&new), BTreeSet::from([Flow::In, Flow::Out]));
    assert_eq!(
        [Hook::of(0, -300), Hook::of(0, -150), Hook::of(0, -100), Hook::of(4, 300)],
        [Some(Hook::Raw), Some(Hook::Prerouting), Some(Hook::Translated), None]
    );
}

/// What is found of these ports in tables in iptables-save's words.
fn ports_in(tables: &str, services: &[Service]) -> Vec<Finding> {
    let tables = read_save(tables, Family::Ip);
    let ruleset = Ruleset { tables, egress: Some("eth0".to_owned()), ..Ruleset::default() };
    port_findings(&ruleset, &bridge(), services)
}

#[test]
fn host_ports_are_judged_where_destinations_are_not_translated_yet() {
    let web = service(80, [172, 17, 0, 2], 8000);
    for (table, word) in [("raw", "PREROUTING"), ("mangle", "PREROUTING")] {
        let rules = |rule: &str| format!("*{table}\n:{word} ACCEPT [0:0]\n-A {word} {rule}\nCOMMIT\n");
        let found = ports_in(&rules("-i eth0 -p tcp -m tcp --dport 8000 -j DROP"), &[web]);
        let [one] = found.as_slice() else { panic!("{table}: {found:?}") };
        assert!(one.is_severe());
        assert_eq!(
            (flows(&found), one.port_names()),
            (BTreeSet::from([Flow::In]), vec!["8000/tcp".to_owned()])
        );
        assert_eq!(
            one.fix,
            [format!("iptables-legacy -t {table} -I PREROUTING -i eth0 -p tcp --dport 8000 -j ACCEPT")]
        );
        assert_eq!(
            one.to_string(),
            format!(
                "table ip {table} (iptables-legacy) drops connections to published ports (host port 8000/tcp) of docker0: rule 1 of chain PREROUTING drops or rejects it"
            )
        );
        // The container's port is another, as are other protocols, sources, links and addresses.
        for silent in [
            "-p tcp -m tcp --dport 80 -j DROP",
            "-p udp -m udp --dport 8000 -j DROP",
            "-s 10.0.0.0/8 -p tcp -m tcp --dport 8000 -j DROP",
            "-i wg0 -p tcp -m tcp --dport 8000 -j DROP",
            "-d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j DROP",
        ] {
            assert_eq!(ports_in(&rules(silent), &[web]), [], "{table}: {silent}");
        }
        // What drops all is told of the network, once.
        assert_eq!(ports_in(&rules("-j DROP"), &[web]), []);
        assert_eq!(found_in(&rules("-j DROP")).len(), 1);
    }
}

#[test]
fn an_accept_before_a_drop_of_everything_leaves_the_other_ports_closed() {
    let rules = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 22 -j ACCEPT
-A PREROUTING -i eth0 -j DROP\nCOMMIT\n";
    // By the network alone nobody can say.
    assert!(found_in(rules).iter().all(|one| one.partly));
    let services = [service(80, [172, 17, 0, 2], 8000), service(22, [172, 17, 0, 2], 22)];
    let found = ports_in(rules, &services);
    let names: Vec<_> = found.iter().filter(|one| one.is_severe()).flat_map(Finding::port_names).collect();
    assert_eq!(names, ["8000/tcp"]);
}

#[test]
fn addresses_of_the_host_decide_where_a_port_is_published_on_one() {
    let rules =
        "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 192.0.2.1/32 -p tcp --dport 8000 -j DROP\nCOMMIT\n";
    let on = |host: [u8; 4]| Service { host: Some(host.into()), ..service(80, [172, 17, 0, 2], 8000) };
    assert_eq!(ports_in(rules, &[on([192, 0, 2, 1])]).len(), 1);
    assert_eq!(ports_in(rules, &[on([192, 0, 2, 2])]), []);
    // Nobody outside reaches loopback, whatever anybody drops.
    let all = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 8000 -j DROP\nCOMMIT\n";
    assert_eq!(ports_in(all, &[on([127, 0, 0, 1])]), []);
    // A port that is not taken yet may be any.
    assert_eq!(ports_in(all, &[Service { host_port: None, ..on([0, 0, 0, 0]) }]), []);
}

#[test]
fn ten_thousand_ports_are_told_by_their_runs() {
    let rules = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 9000:9999 -j DROP
-A PREROUTING -p tcp --dport 15000 -j DROP\nCOMMIT\n";
    let services: Vec<Service> =
        (8000..18000).map(|port| service(port - 7000, [172, 17, 0, 2], port)).collect();
    let found = ports_in(rules, &services);
    let told: Vec<_> = found.iter().map(|one| (one.place.rule, one.port_names().join(","))).collect();
    let wanted = [(Some(1), "9000-9999/tcp".to_owned()), (Some(2), "15000/tcp".to_owned())];
    assert_eq!(told, wanted);
    assert!(found[0].fix[0].ends_with("--dport 9000:9999 -j ACCEPT"), "{:?}", found[0].fix);
}

#[test]
fn a_command_names_a_few_ports_and_no_hundreds() {
    let odd: String =
        (0..9).map(|n| format!("-A PREROUTING -p tcp --dport {} -j BAD\n", 8001 + 2 * n)).collect();
    let rules = format!("*raw\n:PREROUTING ACCEPT [0:0]\n:BAD - [0:0]\n{odd}-A BAD -j DROP\nCOMMIT\n");
    let services: Vec<Service> = (8000..8100).map(|port| service(80, [172, 17, 0, 2], port)).collect();
    let found = ports_in(&rules, &services);
    assert_eq!((found.len(), found[0].ports.len()), (1, 9));
    assert_eq!(found[0].fix, ["iptables-legacy -t raw -I PREROUTING -i eth0 -j ACCEPT"]);
    assert!(found[0].to_string().contains("8015/tcp and 1 more"), "{}", found[0]);
}

fn native(rules: Vec<Vec<Expr>>, sets: BTreeMap<String, Set>, family: Family) -> Ruleset {
    let chain = Chain { base: Some(Base { hook: Hook::Forward, drops: false, links: Vec::new() }), rules };
    let table = Table {
        family,
        name: "t".to_owned(),
        tool: Tool::Nft,
        chains: BTreeMap::from([("f".to_owned(), chain)]),
        sets,
    };
    Ruleset { tables: vec![table], egress: Some("eth0".to_owned()), ..Ruleset::default() }
}

#[test]
fn maps_and_intervals_are_looked_up() {
    let element = |least: Vec<u8>, verdict| Element { least, greatest: None, verdict: Some(verdict) };
    let states = Set {
        elements: vec![
            element(2_u32.to_ne_bytes().to_vec(), Verdict::Accept),
            element(8_u32.to_ne_bytes().to_vec(), Verdict::Drop),
        ],
        partial: false,
    };
    let rule = vec![
        Expr::Load { field: Field::State, to: 16, len: 4 },
        Expr::VerdictMap { map: "s".to_owned(), at: 16 },
    ];
    let ruleset = native(vec![rule], BTreeMap::from([("s".to_owned(), states)]), Family::Inet);
    let found = findings(&ruleset, &bridge());
    assert_eq!(flows(&found), BTreeSet::from([Flow::Out, Flow::In]));
    assert_eq!(
        found[0].fix,
        [
            "nft insert rule inet t f iifname docker0 accept",
            "nft insert rule inet t f oifname docker0 accept"
        ]
    );

    let range = Set {
        elements: vec![Element {
            least: vec![172, 16, 0, 0],
            greatest: Some(vec![172, 31, 255, 255]),
            verdict: None,
        }],
        partial: false,
    };
    let from = vec![
        Expr::Load { field: Field::Network(12), to: 0, len: 4 },
        Expr::Lookup { set: "r".to_owned(), at: 0, invert: false },
        Expr::Verdict(Verdict::Drop),
    ];
    let ruleset = native(vec![from], BTreeMap::from([("r".to_owned(), range)]), Family::Ip);
    assert_eq!(flows(&findings(&ruleset, &bridge())), BTreeSet::from([Flow::Out, Flow::InReplies]));
}

#[test]
fn the_bridges_own_hooks_see_what_stays_within() {
    let ruleset = native(vec![vec![Expr::Verdict(Verdict::Drop)]], BTreeMap::new(), Family::Bridge);
    let found = findings(&ruleset, &bridge());
    assert_eq!(flows(&found), BTreeSet::from([Flow::Within]));
    assert_eq!(found[0].fix, ["nft insert rule bridge t f meta ibrname docker0 accept"]);
    assert_eq!(findings(&ruleset, &BridgePolicy { icc: false, ..bridge() }), []);
}

#[test]
fn chains_of_single_links_are_judged_where_our_traffic_passes() {
    let of = |hook, link: &str| {
        let mut ruleset = native(Vec::new(), BTreeMap::new(), Family::Netdev);
        let port = vec![
            Expr::Load { field: Field::Protocol, to: 0, len: 1 },
            Expr::Compare { at: 0, how: Comparison::Eq, bytes: vec![6] },
            Expr::Load { field: Field::Transport(2), to: 0, len: 2 },
            Expr::Compare { at: 0, how: Comparison::Eq, bytes: 8084_u16.to_be_bytes().to_vec() },
            Expr::Verdict(Verdict::Drop),
        ];
        let base = Some(Base { hook, drops: false, links: vec![link.to_owned()] });
        ruleset.tables[0].chains.insert("f".to_owned(), Chain { base, rules: vec![port] });
        ruleset
    };
    let services = [service(80, [172, 17, 0, 2], 8084), service(80, [172, 17, 0, 2], 8085)];
    let outside = of(Hook::Ingress, "eth0");
    let found = port_findings(&outside, &bridge(), &services);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].port_names(), ["8084/tcp"]);
    assert_eq!(found[0].fix, ["nft insert rule netdev t f tcp dport 8084 accept"]);
    assert_eq!(unjudged(&outside, &[&bridge()]), Vec::<String>::new());

    let to_container = of(Hook::Egress, "docker0");
    assert_eq!(port_findings(&to_container, &bridge(), &services), [], "it is port 80 by then");

    let elsewhere = of(Hook::Ingress, "eth1");
    assert_eq!(port_findings(&elsewhere, &bridge(), &services), []);
    assert_eq!(unjudged(&elsewhere, &[&bridge()]), ["chain f of table netdev t on eth1"]);
}

//! Networks: what is created, who reaches whom, by which name.

use portolan_e2e::{eventually, has_line, hear, inspect, is_portolan, run_server};
use portolan_testkit::Engine;

fn pings(engine: &Engine, from: &str, to: &str) -> bool {
    engine.docker(&["exec", from, "ping", "-c1", "-W1", to]).code == 0
}

fn run(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "600"]].concat()).ok();
}

#[test]
fn networks_are_isolated_from_each_other() {
    let engine = Engine::start();
    for name in ["red", "blue"] {
        engine.docker(&["network", "create", name]).ok();
        run(&engine, &format!("{name}1"), &["--network", name]);
        run(&engine, &format!("{name}2"), &["--network", name]);
    }
    run(&engine, "plain", &[]);
    assert!(pings(&engine, "red1", "red2") && pings(&engine, "blue1", "blue2"));
    assert!(!pings(&engine, "red1", "blue1"), "a name of another network is unknown");
    assert!(!pings(&engine, "red1", "172.19.0.2") && !pings(&engine, "blue1", "172.18.0.2"));
    assert!(!pings(&engine, "plain", "172.18.0.2") && !pings(&engine, "red1", "172.17.0.2"));
    assert!(pings(&engine, "red1", "172.18.0.1"), "its gateway is reached");
}

#[test]
fn a_container_joins_and_leaves_networks_while_it_runs() {
    let engine = Engine::start();
    for name in ["one", "two"] {
        engine.docker(&["network", "create", name]).ok();
    }
    run(&engine, "first", &["--network", "one"]);
    run(&engine, "peer", &["--network", "two", "--network-alias", "friend"]);
    engine.docker(&["network", "connect", "--alias", "joined", "two", "first"]).ok();
    assert!(
        pings(&engine, "first", "friend")
            && pings(&engine, "peer", "joined")
            && pings(&engine, "peer", "first")
    );
    has_line(engine.docker(&["exec", "first", "ip", "-o", "addr"]).ok(), &["eth1", "172.19.0.3/16"]);
    has_line(
        engine.docker(&["network", "connect", "two", "first"]).fails(),
        &["already exists in network two"],
    );
    engine.docker(&["network", "disconnect", "two", "first"]).ok();
    assert!(!pings(&engine, "peer", "joined"));
    assert!(!engine.docker(&["exec", "first", "ip", "-o", "link"]).ok().contains("eth1"));
    has_line(engine.docker(&["network", "rm", "two"]).fails(), &["has active endpoints"]);
    engine.docker(&["rm", "-f", "peer", "first"]).ok();
    engine.docker(&["network", "rm", "one", "two"]).ok();
    assert!(!engine.host().run(&["ip", "-o", "link"]).ok().contains("br-"), "the bridges are gone");
}

#[test]
fn an_address_is_the_lowest_free_or_the_one_asked_for() {
    let engine = Engine::start();
    let create = [
        "network",
        "create",
        "--subnet",
        "10.77.0.0/24",
        "--gateway",
        "10.77.0.254",
        "--ip-range",
        "10.77.0.64/26",
        "sub",
    ];
    engine.docker(&create).ok();
    run(&engine, "x1", &["--network", "sub"]);
    run(&engine, "x2", &["--network", "sub", "--ip", "10.77.0.9"]);
    let address = |name: &str| inspect(&engine, name, "{{.NetworkSettings.Networks.sub.IPAddress}}");
    let first: u8 = address("x1").rsplit('.').next().and_then(|n| n.parse().ok()).expect("an address");
    assert!((64..128).contains(&first), "{first} comes from the range");
    assert_eq!(address("x2"), "10.77.0.9");
    has_line(engine.docker(&["exec", "x1", "ip", "route"]).ok(), &["default via 10.77.0.254"]);
    let taken = engine.docker(&[
        "run",
        "-d",
        "--name",
        "x3",
        "--network",
        "sub",
        "--ip",
        "10.77.0.9",
        "busybox",
        "sleep",
        "9",
    ]);
    has_line(taken.fails(), &["ddress already in use"]);
    let outside = engine.docker(&[
        "run",
        "-d",
        "--name",
        "x4",
        "--network",
        "sub",
        "--ip",
        "10.78.0.9",
        "busybox",
        "sleep",
        "9",
    ]);
    assert_ne!(outside.code, 0, "an address of another subnet is refused");
    has_line(
        engine.docker(&["network", "create", "--subnet", "10.77.0.0/25", "over"]).fails(),
        &["overlaps"],
    );
    engine.docker(&["restart", "-t", "0", "x1"]).ok();
    assert_eq!(address("x2"), "10.77.0.9");
}

#[test]
fn network_create_says_what_is_wrong() {
    let engine = Engine::start();
    let create = |words: &[&str]| engine.docker(&[&["network", "create"], words].concat());
    create(&["mine"]).ok();
    has_line(create(&["mine"]).fails(), &["network with name mine already exists"]);
    has_line(create(&["--driver", "nosuch", "n1"]).fails(), &["nosuch"]);
    assert_ne!(create(&["--subnet", "10.1.2.3.4/24", "n2"]).code, 0);
    assert_ne!(create(&["--subnet", "10.1.0.0/24", "--gateway", "10.9.0.1", "n3"]).code, 0);
    for (words, docker, ours) in [
        (&["--scope", "swarm", "n4"][..], "swarm", "scope \"swarm\" are not supported"),
        (&["--ingress", "n5"], "ngress", "ingress networks need a swarm"),
        (&["--ipam-driver", "weave", "n6"], "weave", "plugin \"weave\" not found"),
    ] {
        let refused = create(words);
        has_line(refused.fails(), &[if is_portolan(&engine) { ours } else { docker }]);
    }
    if is_portolan(&engine) {
        let unknown = create(&["--ipam-opt", "nosuch=1", "n7"]);
        has_line(unknown.fails(), &["unknown option \"nosuch\" of the IPAM driver"]);
    }
    has_line(
        engine.docker(&["network", "rm", "bridge"]).fails(),
        &["pre-defined network and cannot be removed"],
    );
    has_line(engine.docker(&["network", "inspect", "nothere"]).fails(), &["network", "nothere"]);
    has_line(
        engine.docker(&["run", "--network", "nothere", "busybox"]).fails(),
        &["network nothere not found"],
    );
    engine.docker(&["network", "prune", "-f"]).ok();
    assert!(!engine.docker(&["network", "ls"]).ok().contains("mine"));
}

#[test]
fn an_internal_network_has_no_way_out() {
    let engine = Engine::start();
    let host = engine.host();
    let outside = portolan_testkit::Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    run(&engine, "free", &[]);
    assert!(pings(&engine, "free", "198.51.100.1"), "masqueraded on the way out");
    engine.docker(&["network", "create", "--internal", "shut"]).ok();
    run(&engine, "caged", &["--network", "shut"]);
    run(&engine, "mate", &["--network", "shut"]);
    assert!(!pings(&engine, "caged", "198.51.100.1"));
    assert!(pings(&engine, "caged", "mate"));
    if is_portolan(&engine) {
        let key = ["-o", "com.docker.network.internal=true", "keyed"];
        engine.docker(&[&["network", "create"], &key[..]].concat()).ok();
        run(&engine, "keyed", &["--network", "keyed"]);
        assert!(!pings(&engine, "keyed", "198.51.100.1"), "the key says the same");
        // Docker 20.10 leaves a route that leads nowhere.
        assert!(!engine.docker(&["exec", "caged", "ip", "route"]).ok().contains("default"));
    }
}

#[test]
fn icc_off_parts_containers_of_one_network() {
    let engine = Engine::start();
    engine.docker(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart"]).ok();
    run_server(&engine, "s1", 7000, "hello", &["--network", "apart", "-p", "7000:7000"]);
    run(&engine, "s2", &["--network", "apart"]);
    assert!(!pings(&engine, "s2", "s1"));
    eventually("but it is published", 10, || {
        (hear(engine.host(), "127.0.0.1", 7000) == "hello").then_some(())
    });
}

#[test]
fn modes_that_conflict_are_refused() {
    let engine = Engine::start();
    run(&engine, "base", &[]);
    let run = |words: &[&str]| engine.docker(&[&["run", "--rm"], words, &["busybox", "true"]].concat());
    has_line(run(&["--net", "container:base", "-p", "80:80"]).fails(), &["conflicting options"]);
    has_line(run(&["--net", "container:base", "--hostname", "x"]).fails(), &["conflicting options"]);
    has_line(run(&["--net", "container:base", "--dns", "192.0.2.1"]).fails(), &["conflicting options"]);
    has_line(run(&["--net", "container:nothere"]).fails(), &["No such container: nothere"]);
    has_line(
        run(&["--net", "bridge", "--ip", "172.17.0.9"]).fails(),
        &["specified IP address is supported on user"],
    );
    engine.docker(&["create", "--name", "idle", "busybox"]).ok();
    has_line(run(&["--net", "container:idle"]).fails(), &["non running container"]);
}

#[test]
fn files_of_a_container_follow_its_options() {
    let engine = Engine::start();
    engine.docker(&["network", "create", "net1"]).ok();
    let cat = |flags: &[&str], file: &str| {
        engine.docker(&[&["run", "--rm"], flags, &["busybox", "cat", file]].concat())
    };
    has_line(cat(&["--add-host", "far:192.0.2.7"], "/etc/hosts").ok(), &["192.0.2.7\tfar"]);
    has_line(cat(&["--add-host", "up:host-gateway"], "/etc/hosts").ok(), &["172.17.0.1\tup"]);
    let dns = cat(
        &["--dns", "192.0.2.53", "--dns-search", "corp.example", "--dns-option", "timeout:1"],
        "/etc/resolv.conf",
    );
    for line in ["nameserver 192.0.2.53", "search corp.example", "options timeout:1"] {
        has_line(dns.ok(), &[line]);
    }
    let embedded = cat(&["--network", "net1", "--dns", "192.0.2.53"], "/etc/resolv.conf");
    has_line(embedded.ok(), &["nameserver 127.0.0.11"]);
    has_line(embedded.ok(), &["options", "ndots:0"]);
    assert_eq!(cat(&["-h", "named"], "/etc/hostname").ok(), "named");
    let linked = "sleep 600";
    engine.docker(&["run", "-d", "--name", "target", "busybox", "sh", "-c", linked]).ok();
    has_line(cat(&["--link", "target:alias"], "/etc/hosts").ok(), &["172.17.0.2\talias"]);
}

#[test]
fn a_freed_address_is_given_out_and_works_at_once() {
    let engine = Engine::start();
    engine.docker(&["network", "create", "mine"]).ok();
    for _ in 0..10 {
        let ask = "ip -o -4 addr show eth0; ping -c1 -W1 172.18.0.1";
        let told = engine.docker(&["run", "--rm", "--network", "mine", "busybox", "sh", "-c", ask]);
        has_line(told.ok(), &["172.18.0.2/16"]);
        has_line(told.ok(), &["1 packets received"]);
    }
}

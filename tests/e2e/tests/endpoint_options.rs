//! Options of endpoints, one by one: what `--network`, `connect`, `--link`, `--sysctl`, `--add-host` do to the kernel.

use portolan_e2e::{
    eventually, fetch, has_line, has_since, hear, inspect, is_portolan, run_server, skip_before,
};
use portolan_testkit::{Client, Engine, Host, Output, run as run_words, skip};

fn run(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "600"]].concat()).ok();
}

fn network(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["network", "create"], flags, &[name]].concat()).ok();
}

fn exec(engine: &Engine, name: &str, line: &str) -> String {
    engine.docker(&["exec", name, "sh", "-c", line]).stdout.trim().to_owned()
}

fn pings(engine: &Engine, from: &str, to: &str) -> bool {
    engine.docker(&["exec", from, "ping", "-c1", "-W2", to]).code == 0
}

/// Runs the client as one that speaks an older version of the API.
fn older(engine: &Engine, version: &str, words: &[&str]) -> Output {
    let mut all = vec!["env".into(), format!("DOCKER_API_VERSION={version}").into()];
    all.extend(engine.client());
    all.extend(words.iter().map(Into::into));
    run_words::<std::ffi::OsString>(&all, None)
}

#[test]
fn a_link_local_address_is_one_more_on_the_interface() {
    let engine = Engine::start();
    network(&engine, "net", &["--subnet", "10.81.0.0/24"]);
    run(&engine, "one", &["--network", "net", "--link-local-ip", "169.254.7.1"]);
    run(&engine, "two", &[]);
    let connect = ["network", "connect", "--link-local-ip", "169.254.7.2", "net", "two"];
    engine.docker(&connect).ok();
    has_line(&exec(&engine, "one", "ip -o addr show eth0"), &["10.81.0.2/24"]);
    has_line(&exec(&engine, "one", "ip -o addr show eth0"), &["169.254.7.1/16"]);
    has_line(&exec(&engine, "two", "ip -o addr show eth1"), &["169.254.7.2/16"]);
    assert!(pings(&engine, "two", "169.254.7.1"));
    let shown = "{{.NetworkSettings.Networks.net.IPAMConfig.LinkLocalIPs}}";
    assert_eq!(inspect(&engine, "two", shown), "[169.254.7.2]");
    if !is_portolan(&engine) {
        return;
    }
    run(&engine, "six", &["--network", "name=net,link-local-ip=fe80::77,link-local-ip=169.254.7.3"]);
    run(&engine, "seven", &["--network", "net", "--link-local-ip", "fe80::78"]);
    has_line(&exec(&engine, "six", "ip -o addr show eth0"), &["fe80::77/64"]);
    assert!(pings(&engine, "seven", "fe80::77%eth0"));
    assert!(pings(&engine, "six", "169.254.7.1"));
    let bad = engine.docker(&["create", "--network", "name=net,link-local-ip=0.0.0.0", "busybox"]);
    has_line(bad.fails(), &["invalid link local IP address: 0.0.0.0"]);
    let elsewhere = engine.docker(&["create", "--network", "name=net,link-local-ip=10.81.0.1", "busybox"]);
    has_line(elsewhere.fails(), &["invalid link local IP address: 10.81.0.1"]);
}

#[test]
fn a_link_on_the_default_bridge_is_told_by_variables() {
    let engine = Engine::start();
    run(&engine, "db", &["--expose", "5432", "--expose", "53/udp", "-e", "MODE=fast"]);
    run(&engine, "web", &["--link", "db:my-store"]);
    let address = inspect(&engine, "db", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    let environment = engine.docker(&["exec", "web", "env"]);
    for line in [
        format!("MY_STORE_PORT_5432_TCP=tcp://{address}:5432"),
        format!("MY_STORE_PORT_5432_TCP_ADDR={address}"),
        "MY_STORE_PORT_5432_TCP_PORT=5432".to_owned(),
        "MY_STORE_PORT_5432_TCP_PROTO=tcp".to_owned(),
        format!("MY_STORE_PORT_53_UDP=udp://{address}:53"),
        "MY_STORE_NAME=/web/my-store".to_owned(),
        "MY_STORE_ENV_MODE=fast".to_owned(),
    ] {
        assert!(environment.stdout.lines().any(|got| got == line), "no {line} in\n{}", environment.stdout);
    }
    if is_portolan(&engine) {
        // Docker 20.10 takes UDP first.
        has_line(environment.ok(), &[&format!("MY_STORE_PORT=tcp://{address}:5432")]);
    }
    assert_eq!(exec(&engine, "web", "tr '\\0' '\\n' </proc/1/environ | grep -c ^MY_STORE"), "11");
    has_line(&exec(&engine, "web", "cat /etc/hosts"), &[&address, "my-store", "db"]);
    let id = inspect(&engine, "db", "{{.Id}}");
    has_line(&exec(&engine, "web", "cat /etc/hosts"), &["my-store", &id[..12]]);
    assert_eq!(inspect(&engine, "web", "{{.HostConfig.Links}}"), "[/db:/web/my-store]");
    let names = engine.docker(&["ps", "--no-trunc", "-f", "name=db", "--format", "{{.Names}}"]);
    let mut names: Vec<_> = names.ok().split(',').collect();
    names.sort_unstable();
    assert_eq!(names, ["db", "web/my-store"]);
    engine.docker(&["stop", "-t", "0", "db"]).ok();
    let alone = engine.docker(&["run", "--rm", "--link", "db", "busybox", "true"]);
    has_line(alone.fails(), &["Cannot link to a non running container: /db AS "]);
    network(&engine, "net", &[]);
    run(&engine, "away", &["--network", "net"]);
    let away = engine.docker(&["run", "--rm", "--link", "away:db", "busybox", "true"]);
    has_line(away.fails(), &["default", "network"]);
    let nobody = engine.docker(&["create", "--link", "nosuch:db", "busybox"]);
    has_line(nobody.fails(), &["could not get container for nosuch: No such container: nosuch"]);
    run(&engine, "hosted", &["--network", "host"]);
    let hosted = engine.docker(&["create", "--link", "hosted:db", "busybox"]);
    has_line(hosted.fails(), &["host type networking can't be used with links"]);
}

#[test]
fn an_interface_s_sysctl_of_an_older_client_moves_to_its_endpoint() {
    let engine = Engine::start();
    network(&engine, "net", &[]);
    let key = "net.ipv4.conf.eth0.log_martians=1";
    for (name, version) in [("old", "1.41"), ("newer", "1.47")] {
        if version > "1.41" && !has_since(&engine, 28) {
            continue;
        }
        let words =
            ["run", "-d", "--name", name, "--network", "net", "--sysctl", key, "busybox", "sleep", "600"];
        older(&engine, version, &words).ok();
        assert_eq!(exec(&engine, name, "cat /proc/sys/net/ipv4/conf/eth0/log_martians"), "1", "{version}");
        assert_eq!(exec(&engine, name, "cat /proc/sys/net/ipv4/conf/lo/log_martians"), "0", "{version}");
    }
    if !has_since(&engine, 28) {
        return;
    }
    let other =
        ["create", "--network", "net", "--sysctl", "net.ipv4.conf.eth1.log_martians=1", "busybox", "true"];
    has_line(older(&engine, "1.47", &other).fails(), &["unable to determine network endpoint"]);
}

#[test]
fn sysctls_of_the_namespace_are_its_own() {
    let engine = Engine::start();
    let before = engine.host().sh("cat /proc/sys/net/ipv4/ip_default_ttl").ok().to_owned();
    run(&engine, "cc", &["--sysctl", "net.ipv4.ip_default_ttl=77", "--sysctl", "net.core.somaxconn=99"]);
    assert_eq!(
        exec(&engine, "cc", "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/net/core/somaxconn"),
        "77\n99"
    );
    assert_eq!(engine.host().sh("cat /proc/sys/net/ipv4/ip_default_ttl").ok(), before);
    run(&engine, "peer", &[]);
    let address = inspect(&engine, "cc", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    has_line(&exec(&engine, "peer", &format!("ping -c1 -W2 {address}")), &["ttl=77"]);
}

#[test]
fn the_host_is_reached_by_host_gateway() {
    let engine = Engine::start();
    network(&engine, "net", &["--subnet", "10.81.0.0/24"]);
    for (name, net) in [("plain", "bridge"), ("named", "net")] {
        run(
            &engine,
            name,
            &["--network", net, "--add-host", "up:host-gateway", "--add-host", "far:192.0.2.7"],
        );
        has_line(&exec(&engine, name, "cat /etc/hosts"), &["172.17.0.1", "up"]);
        has_line(&exec(&engine, name, "cat /etc/hosts"), &["192.0.2.7", "far"]);
        assert!(pings(&engine, name, "up"));
    }
}

#[test]
fn resolvers_and_search_domains_as_asked() {
    let engine = Engine::start();
    network(&engine, "net", &[]);
    let dns = ["--dns", "192.0.2.53", "--dns", "192.0.2.54", "--dns-search", "corp.example"];
    let flags = [dns.as_slice(), &["--dns-option", "attempts:1", "--dns-option", "ndots:2"]].concat();
    run(&engine, "plain", &flags);
    run(&engine, "named", &[flags.as_slice(), &["--network", "net"]].concat());
    let conf = |name: &str| exec(&engine, name, "grep -v '^#' /etc/resolv.conf");
    let plain = conf("plain");
    let mut lines: Vec<_> = plain.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "nameserver 192.0.2.53",
            "nameserver 192.0.2.54",
            "options attempts:1 ndots:2",
            "search corp.example"
        ]
    );
    let named = conf("named");
    has_line(&named, &["nameserver 127.0.0.11"]);
    has_line(&named, &["search corp.example"]);
    has_line(&named, &["options", "attempts:1", "ndots:2"]);
    assert!(!named.contains("192.0.2"), "they are asked by the resolver: {named}");
}

#[test]
fn a_running_container_is_connected_with_every_option() {
    let engine = Engine::start();
    network(&engine, "first", &["--subnet", "10.81.0.0/24"]);
    network(&engine, "second", &["--ipv6", "--subnet", "10.82.0.0/24", "--subnet", "fd00:82::/64"]);
    run(&engine, "sql", &["--network", "second"]);
    run(&engine, "cc", &["--network", "first"]);
    let mut words = vec!["network", "connect", "--ip", "10.82.0.50", "--ip6", "fd00:82::50"];
    words.extend(["--alias", "a1", "--alias", "a2", "--link", "sql:store", "--link-local-ip", "169.254.9.9"]);
    let new = has_since(&engine, 28);
    if new {
        words.extend(["--driver-opt", "com.docker.network.endpoint.ifname=wan7", "--gw-priority", "3"]);
    }
    words.extend(["second", "cc"]);
    engine.docker(&words).ok();
    let ifname = if new { "wan7" } else { "eth1" };
    let links = exec(&engine, "cc", "ip -o addr");
    for address in ["10.82.0.50/24", "fd00:82::50/64", "169.254.9.9/16"] {
        has_line(&links, &[ifname, address]);
    }
    for name in ["a1", "a2", "cc"] {
        has_line(&exec(&engine, "sql", &format!("ping -4 -c1 -W2 {name}")), &["10.82.0.50"]);
    }
    has_line(&exec(&engine, "sql", "ping -6 -c1 -W2 a1"), &["64 bytes from fd00:82::50"]);
    has_line(&exec(&engine, "cc", "ping -4 -c1 -W2 store"), &["10.82.0.2"]);
    if new {
        has_line(&exec(&engine, "cc", "ip route"), &["default via 10.82.0.1 dev wan7"]);
        has_line(&exec(&engine, "cc", "ip -6 route"), &["default via fd00:82::1 dev wan7"]);
    }
    engine.docker(&["network", "disconnect", "second", "cc"]).ok();
    assert!(!exec(&engine, "cc", "ip -o link").contains(ifname), "the interface goes");
    has_line(&exec(&engine, "cc", "ip route"), &["default via 10.81.0.1 dev eth0"]);
    assert!(!pings(&engine, "sql", "a1"), "and the name with it");
}

#[test]
fn published_ports_follow_the_gateway() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "several networks at create") {
        return;
    }
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    network(&engine, "anet", &["--subnet", "10.81.0.0/24"]);
    network(&engine, "bnet", &["--subnet", "10.82.0.0/24"]);
    let flags = ["--network", "anet", "--network", "bnet", "-p", "8080:80"];
    run_server(&engine, "cc", 80, "hello", &flags);
    let heard = || {
        eventually("an answer", 5, || (hear(&outside, "198.51.100.2", 8080) == "hello").then_some(()));
    };
    heard();
    engine.docker(&["network", "disconnect", "anet", "cc"]).ok();
    has_line(&exec(&engine, "cc", "ip route"), &["default via 10.82.0.1"]);
    heard();
    engine.docker(&["network", "connect", "anet", "cc"]).ok();
    has_line(&exec(&engine, "cc", "ip route"), &["default via 10.81.0.1"]);
    heard();
    assert!(fetch(&outside, "http://198.51.100.2:8081/").code != 0);
}

#[test]
fn each_family_has_a_way_out_of_its_own() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "gateways by family") {
        return;
    }
    network(&engine, "afour", &["--subnet", "10.81.0.0/24"]);
    network(&engine, "both", &["--ipv6", "--subnet", "10.82.0.0/24", "--subnet", "fd00:82::/64"]);
    network(&engine, "six", &["--ipv4=false", "--ipv6", "--subnet", "fd00:83::/64"]);
    let ways = |name: &str| {
        let line = "ip route | grep ^default; ip -6 route | grep ^default";
        exec(&engine, name, line)
            .lines()
            .filter_map(|line| Some(line.split(' ').nth(2)?.to_owned()))
            .collect::<Vec<_>>()
    };
    run(&engine, "plain", &["--network", "afour", "--network", "both"]);
    assert_eq!(ways("plain"), ["10.82.0.1", "fd00:82::1"], "both families go before a lower name");
    run(&engine, "cc", &["--network", "name=afour,gw-priority=1", "--network", "both", "--network", "six"]);
    // Docker 28 lets both families go before the priority; those after it do not.
    if is_portolan(&engine) {
        assert_eq!(
            ways("cc"),
            ["10.81.0.1", "fd00:82::1"],
            "the gateway has no IPv6: the next best stands in"
        );
    }
    engine.docker(&["network", "disconnect", "both", "cc"]).ok();
    assert_eq!(ways("cc"), ["10.81.0.1", "fd00:83::1"]);
    engine.docker(&["network", "connect", "--gw-priority", "2", "both", "cc"]).ok();
    assert_eq!(ways("cc"), ["10.82.0.1", "fd00:82::1"]);
    engine.docker(&["network", "disconnect", "afour", "cc"]).ok();
    engine.docker(&["network", "disconnect", "both", "cc"]).ok();
    assert_eq!(ways("cc"), ["fd00:83::1"]);
}

#[test]
fn neighbours_hear_of_an_ipv6_address() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "announcements of addresses") {
        return;
    }
    network(&engine, "net", &["--ipv6", "--subnet", "10.81.0.0/24", "--subnet", "fd00:81::/64"]);
    // A kernel with accept_untracked_na makes an entry of an advertisement that nobody asked for.
    let sysctls = "com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.accept_untracked_na=1,net.ipv6.conf.IFNAME.forwarding=1";
    run(&engine, "ear", &["--network", &format!("name=net,\"driver-opt={sysctls}\"")]);
    let heard = |address: &str| exec(&engine, "ear", "ip -6 neigh").contains(&format!("{address} "));
    let option = "driver-opt=com.docker.network.advertise_addr_nmsgs";
    run(&engine, "loud", &["--network", &format!("name=net,ip6=fd00:81::50,{option}=1")]);
    eventually("an advertisement", 3, || heard("fd00:81::50").then_some(()));
    run(&engine, "quiet", &["--network", &format!("name=net,ip6=fd00:81::51,{option}=0")]);
    run(&engine, "late", &["--network", "name=net,ip6=fd00:81::52"]);
    eventually("by default too", 5, || heard("fd00:81::52").then_some(()));
    // Docker 28 is heard all the same.
    assert!(!heard("fd00:81::51") || !is_portolan(&engine), "told to be quiet");
}

#[test]
fn the_host_reaches_macvlan_containers_on_request() {
    let engine = Engine::start();
    let outside = Host::new("outside");
    outside.wire("up0", "192.0.2.1/24", engine.host(), "nic0", "198.51.100.9/32");
    let create =
        ["-d", "macvlan", "--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.64/26", "-o", "parent=nic0"];
    let reaches = |from: &Host, to: &str| from.run(&["busybox", "ping", "-c1", "-W1", to]).code == 0;
    network(&engine, "plain", &create);
    run(&engine, "far", &["--network", "plain", "--ip", "192.0.2.70"]);
    assert!(reaches(&outside, "192.0.2.70"));
    assert!(!reaches(engine.host(), "192.0.2.70"), "the kernel does not let it");
    engine.docker(&["rm", "-f", "far"]).ok();
    engine.docker(&["network", "rm", "plain"]).ok();
    if !is_portolan(&engine) {
        return;
    }
    network(&engine, "near", &[create.as_slice(), &["-o", "portolan.host_access=true"]].concat());
    run(&engine, "cc", &["--network", "near", "--ip", "192.0.2.70"]);
    assert!(reaches(engine.host(), "192.0.2.70") && reaches(&outside, "192.0.2.70"));
    let route = engine.host().run(&["ip", "route", "get", "192.0.2.70"]).ok().to_owned();
    let own = route
        .split_whitespace()
        .skip_while(|word| *word != "src")
        .nth(1)
        .expect("a source address")
        .to_owned();
    assert!(pings(&engine, "cc", &own));
    engine.docker(&["rm", "-f", "cc"]).ok();
    assert!(!engine.host().run(&["ip", "route"]).ok().contains("192.0.2.70"), "its route goes with it");
    engine.docker(&["network", "rm", "near"]).ok();
    assert!(!engine.host().run(&["ip", "-o", "link"]).ok().contains("macvlan"));
}

/// Our own client takes the same words; the engine answers it the same.
#[test]
fn both_clients_have_the_same_words() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("about our own client and engine");
    }
    network(&engine, "net", &["--subnet", "10.81.0.0/24"]);
    let socket = format!("unix://{}", engine.socket().display());
    let spec = "name=net,alias=one,ip=10.81.0.40,mac-address=02:aa:bb:cc:dd:01,link-local-ip=169.254.3.3,gw-priority=2,driver-opt=com.docker.network.endpoint.ifname=lan0";
    // Ours by the name of the other is ours all the same.
    let link = engine.home().join("docker");
    std::os::unix::fs::symlink(Client::Portolan.program(), &link).expect("a link");
    for program in [Client::Docker.program(), Client::Portolan.program(), link.clone()] {
        let words = ["run", "--rm", "--network", spec, "busybox", "ip", "-o", "addr", "show", "lan0"];
        let program = program.to_string_lossy();
        let shown = run_words(&[&[&*program, "--host", &socket], words.as_slice()].concat(), None);
        has_line(shown.ok(), &["lan0", "10.81.0.40/24"]);
        has_line(shown.ok(), &["lan0", "169.254.3.3/16"]);
    }
    for words in [
        &["version", "--format", "{{.Client.Version}}"][..],
        &["network", "ls", "--no-trunc"],
        &["inspect", "nosuch"],
    ] {
        let said = |program: &std::path::Path| {
            let program = program.to_string_lossy();
            let output = run_words(&[&[&*program, "--host", &socket], words].concat(), None);
            (output.code, output.all())
        };
        assert_eq!(said(&link), said(&Client::Portolan.program()), "{words:?}");
    }
}

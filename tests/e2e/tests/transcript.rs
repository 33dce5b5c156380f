//! The reference document on container networks, command by command: what it shows must be seen.

use portolan_e2e::{eventually, fetch, has_line, inspect, is_portolan};
use portolan_testkit::{Engine, Firewall, Output};

/// One column of a busybox `ifconfig eth0`.
fn address_lines(output: &Output) -> Vec<&str> {
    output.stdout.lines().filter(|line| line.contains("HWaddr") || line.contains("inet addr")).collect()
}

fn veths(engine: &Engine) -> Vec<String> {
    let links = engine.host().run(&["ip", "-o", "link", "show", "type", "veth"]);
    links
        .ok()
        .lines()
        .filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned()))
        .collect()
}

#[test]
fn bridge_mode_gives_each_container_an_address_on_docker0() {
    let engine = Engine::builder().image("busybox").image("nginx").start();
    let host = engine.host();
    has_line(
        host.run(&["ifconfig", "docker0"]).ok(),
        &["inet 172.17.0.1", "netmask 255.255.0.0", "172.17.255.255"],
    );

    let first = engine.docker(&["run", "-tid", "--net=bridge", "--name", "docker_bri1", "nginx"]);
    let id = first.ok();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "run -d prints the id: {id}");
    engine.docker(&["run", "-tid", "--net=bridge", "--name", "docker_bri2", "nginx"]).ok();

    let veths = veths(&engine);
    assert_eq!(veths.len(), 2, "a veth pair for each container");
    let bridges = host.run(&["brctl", "show"]);
    for veth in &veths {
        assert!(bridges.ok().contains(veth.as_str()), "brctl show lists {veth}:\n{}", bridges.stdout);
    }
    has_line(host.run(&["route", "-n"]).ok(), &["172.17.0.0", "0.0.0.0", "255.255.0.0", "docker0"]);

    let inside = engine.docker_tty("exec -ti docker_bri1 /bin/bash -c 'ifconfig -a; route -n; tty'");
    has_line(&inside.stdout, &["inet 172.17.0.2", "netmask 255.255.0.0"]);
    // That of Docker since 28 is random.
    if is_portolan(&engine) || engine.major() < 28 {
        has_line(&inside.stdout, &["ether 02:42:ac:11:00:02"]);
    }
    has_line(&inside.stdout, &["0.0.0.0", "172.17.0.1", "0.0.0.0", "UG", "eth0"]);
    has_line(&inside.stdout, &["/dev/pts/"]);
    has_line(engine.docker(&["exec", "docker_bri2", "ifconfig", "eth0"]).ok(), &["inet 172.17.0.3 "]);
    has_line(&fetch(host, "http://172.17.0.2/").stdout, &["nginx"]);
    assert_eq!(
        inspect(&engine, "docker_bri1", "{{.NetworkSettings.Networks.bridge.IPAddress}}"),
        "172.17.0.2"
    );
    assert_eq!(inspect(&engine, "docker_bri1", "{{.NetworkSettings.Networks.bridge.Gateway}}"), "172.17.0.1");
}

#[test]
fn publishing_a_port_is_a_dnat_rule() {
    let engine = Engine::builder().image("nginx").start();
    let host = engine.host();
    engine.docker(&["run", "-d", "--name", "docker_pub", "-p", "18080:80", "nginx"]).ok();
    match Firewall::from_env() {
        Firewall::Iptables => {
            let rules = host.run(&["iptables", "-t", "nat", "-vnL"]);
            has_line(rules.ok(), &["DNAT", "tcp dpt:18080", "to:172.17.0.2:80"]);
            has_line(rules.ok(), &["MASQUERADE", "172.17.0.0/16"]);
        }
        Firewall::Nftables => {
            let rules = host.run(&["nft", "list", "ruleset"]);
            has_line(rules.ok(), &["18080", "172.17.0.2", "80"]);
            has_line(rules.ok(), &["masquerade"]);
        }
    }
    for url in ["http://127.0.0.1:18080/", "http://172.17.0.1:18080/"] {
        eventually("nginx answers", 5, || fetch(host, url).stdout.contains("nginx").then_some(()));
    }
    has_line(engine.docker(&["port", "docker_pub"]).ok(), &["80/tcp -> 0.0.0.0:18080"]);
    assert_eq!(host.run(&["cat", "/proc/sys/net/ipv4/ip_forward"]).ok(), "1");
    engine.docker(&["rm", "-f", "docker_pub"]).ok();
    assert_eq!(veths(&engine), Vec::<String>::new(), "nothing is left");
    let rules = host.sh("iptables -t nat -S; nft list ruleset 2>/dev/null");
    assert!(!rules.stdout.contains("18080"), "nor a rule:\n{}", rules.stdout);
}

#[test]
fn host_mode_is_the_host_s_own_network() {
    let engine = Engine::start();
    let id = engine.docker(&["run", "-itd", "--net=host", "busybox"]);
    has_line(
        &engine.docker_tty(&format!("exec -it {} ifconfig", &id.ok()[..10])).stdout,
        &["docker0", "Link encap"],
    );
    let names = |output: &Output| -> Vec<String> {
        output
            .ok()
            .lines()
            .filter_map(|l| Some(l.split(": ").nth(1)?.split('@').next()?.to_owned()))
            .collect()
    };
    let inside = names(&engine.docker(&["exec", id.ok(), "ip", "-o", "link"]));
    assert_eq!(inside, names(&engine.host().run(&["ip", "-o", "link"])));
    assert_eq!(veths(&engine), Vec::<String>::new());
}

#[test]
fn container_mode_shares_one_namespace() {
    let engine = Engine::start();
    engine.docker(&["run", "-itd", "--name", "old", "busybox"]).ok();
    let wiped = engine.docker(&["rm", "-f", "CONTAINER", "old"]);
    has_line(&wiped.all(), &["No such container: CONTAINER"]);
    assert_eq!(wiped.stdout.trim(), "old", "the others are removed all the same");

    let cmz = engine.docker(&["run", "-itd", "--name", "cmz", "busybox"]);
    let listed = engine.docker(&["ps", "-l"]);
    has_line(listed.ok(), &["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    has_line(listed.ok(), &[&cmz.ok()[..12], "busybox", "\"sh\"", "ago", "Up", "cmz"]);
    engine.docker(&["run", "-tid", "--net=container:cmz", "--name", "docker_con1", "busybox"]).ok();
    let exec = |name: &str, words: &[&str]| engine.docker(&[&["exec", name], words].concat());
    let (a, b) = (exec("cmz", &["ifconfig", "eth0"]), exec("docker_con1", &["ifconfig", "eth0"]));
    assert_eq!(address_lines(&a), address_lines(&b));
    has_line(a.ok(), &["inet addr:172.17.0.2", "Bcast:172.17.255.255", "Mask:255.255.0.0"]);
    for (kind, shared) in [("net", true), ("pid", false), ("mnt", false), ("uts", false)] {
        let of = |name| exec(name, &["readlink", &format!("/proc/self/ns/{kind}")]).ok().to_owned();
        assert_eq!(of("cmz") == of("docker_con1"), shared, "the {kind} namespace");
    }
    engine.docker(&["exec", "-d", "cmz", "sh", "-c", "echo from-cmz | nc -l -p 9000"]).ok();
    let heard = eventually("the two talk over lo", 5, || {
        let heard = exec("docker_con1", &["sh", "-c", "nc -w 2 127.0.0.1 9000 </dev/null"]).stdout;
        (!heard.is_empty()).then_some(heard)
    });
    assert_eq!(heard.trim(), "from-cmz");
}

#[test]
fn none_mode_has_lo_and_nothing_else() {
    let engine = Engine::start();
    engine.docker(&["run", "-tid", "--net=none", "--name", "docker_non1", "busybox"]).ok();
    let links = engine.docker_tty("exec -it docker_non1 ifconfig -a");
    has_line(&links.stdout, &["inet addr:127.0.0.1", "Mask:255.0.0.0"]);
    assert!(!links.stdout.contains("eth"), "{}", links.stdout);
    assert_eq!(engine.docker(&["exec", "docker_non1", "ip", "route"]).ok(), "");
}

#[test]
fn a_network_of_one_s_own_has_names() {
    let engine = Engine::start();
    for name in ["web", "db"] {
        engine.docker(&["run", "-itd", "--name", name, "busybox"]).ok();
    }
    has_line(&engine.docker(&["exec", "web", "ping", "-c1", "-W1", "db"]).all(), &["bad address 'db'"]);
    let network = engine.docker(&["network", "create", "cmz_network"]);
    let networks = engine.docker(&["network", "ls"]);
    has_line(networks.ok(), &["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
    for row in [["bridge", "bridge"], ["host", "host"], ["none", "null"], ["cmz_network", "bridge"]] {
        has_line(networks.ok(), &[row[0], row[1], "local"]);
    }
    has_line(networks.ok(), &[&network.ok()[..12], "cmz_network"]);
    let start = |name| {
        engine.docker(&["run", "-itd", "--name", name, "--net=cmz_network", "busybox"]).ok().to_owned()
    };
    let (web1, db1) = (start("web1"), start("db1"));
    let ping = engine.docker_tty("exec -it web1 ping -c1 db1");
    has_line(&ping.stdout, &["PING db1 (172.18.0.3)"]);
    has_line(&ping.stdout, &["1 packets transmitted, 1 packets received, 0% packet loss"]);
    has_line(
        &engine.docker_tty("exec -it db1 ping -c1 web1").stdout,
        &["64 bytes from 172.18.0.2: seq=0 ttl=64"],
    );
    let hosts = engine.docker(&["exec", "db1", "cat", "/etc/hosts"]);
    has_line(hosts.ok(), &["127.0.0.1\tlocalhost"]);
    has_line(hosts.ok(), &["::1\tlocalhost ip6-localhost ip6-loopback"]);
    has_line(hosts.ok(), &[&format!("172.18.0.3\t{}", &db1[..12])]);
    let across = engine.docker(&["exec", "web", "ping", "-c1", "-W1", "172.18.0.3"]);
    has_line(&across.all(), &["100% packet loss"]);
    inspected(&engine, network.ok(), &[(&web1, "web1", "172.18.0.2/16"), (&db1, "db1", "172.18.0.3/16")]);
}

fn inspected(engine: &Engine, id: &str, containers: &[(&str, &str, &str)]) {
    let network = engine.docker(&["network", "inspect", "cmz_network"]).json()[0].clone();
    for (field, value) in [
        ("Name", "cmz_network".into()),
        ("Id", id.into()),
        ("Scope", "local".into()),
        ("Driver", "bridge".into()),
        ("EnableIPv6", false.into()),
        ("Internal", false.into()),
        ("Attachable", false.into()),
        ("Ingress", false.into()),
        ("ConfigOnly", false.into()),
    ] {
        let value: serde_json::Value = value;
        assert_eq!(network[field], value, "{field}");
    }
    assert_eq!(network["IPAM"]["Driver"], "default");
    assert_eq!(network["IPAM"]["Config"][0]["Subnet"], "172.18.0.0/16");
    assert_eq!(network["IPAM"]["Config"][0]["Gateway"], "172.18.0.1");
    assert_eq!(network["ConfigFrom"]["Network"], "");
    for (id, name, address) in containers {
        let container = &network["Containers"][id];
        assert_eq!((&container["Name"], &container["IPv4Address"]), (&(*name).into(), &(*address).into()));
        assert_eq!(container["IPv6Address"], "");
        assert_eq!(container["EndpointID"].as_str().map(str::len), Some(64));
        assert_eq!(container["MacAddress"].as_str().map(str::len), Some(17));
    }
}

//! Drivers and options of networks, looked at in the kernel and by packets.

use portolan_e2e::{eventually, has_line, inspect, is_portolan, skip_before, skip_on_docker};
use portolan_testkit::{Engine, Host};

fn create(engine: &Engine, words: &[&str]) {
    engine.docker(&[&["network", "create"], words].concat()).ok();
}

fn run(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "600"]].concat()).ok();
}

fn pings(engine: &Engine, from: &str, to: &str) -> bool {
    engine.docker(&["exec", from, "ping", "-c1", "-W1", to]).code == 0
}

fn inside(engine: &Engine, name: &str, words: &[&str]) -> String {
    engine.docker(&[&["exec", name], words].concat()).ok().to_owned()
}

/// A pair of links in the host: `nic0` for the engine, `nic1` as what is at the cable's other end.
fn cable(host: &Host) {
    host.run(&["ip", "link", "add", "nic0", "up", "type", "veth", "peer", "name", "nic1"]).ok();
    host.run(&["ip", "link", "set", "nic1", "up"]).ok();
}

#[test]
fn macvlan_containers_reach_each_other_and_not_the_host() {
    let engine = Engine::start();
    cable(engine.host());
    create(
        &engine,
        &[
            "-d",
            "macvlan",
            "-o",
            "parent=nic0",
            "--subnet",
            "10.71.0.0/24",
            "--gateway",
            "10.71.0.254",
            "lan",
        ],
    );
    run(&engine, "one", &["--network", "lan"]);
    run(&engine, "two", &["--network", "lan", "--ip", "10.71.0.77"]);
    assert!(pings(&engine, "one", "10.71.0.77") && pings(&engine, "one", "two"));
    has_line(&inside(&engine, "two", &["ip", "addr", "show", "eth0"]), &["10.71.0.77/24"]);
    has_line(&inside(&engine, "one", &["ip", "route"]), &["default via 10.71.0.254 dev eth0"]);
    assert!(!engine.host().run(&["ip", "-o", "link"]).ok().contains("br-"), "no bridge is made for it");
    engine.docker(&["rm", "-f", "one", "two"]).ok();
    engine.docker(&["network", "rm", "lan"]).ok();
    let missing = engine.docker(&["network", "create", "-d", "macvlan", "-o", "parent=nic7", "lan"]);
    has_line(missing.fails(), &["nic7"]);
    macvlan_modes_are_the_links(&engine);
}

fn macvlan_modes_are_the_links(engine: &Engine) {
    for (number, mode) in ["bridge", "private", "vepa", "passthru"].into_iter().enumerate() {
        let (option, subnet) = (format!("macvlan_mode={mode}"), format!("10.71.{number}.0/24"));
        create(engine, &["-d", "macvlan", "-o", "parent=nic0", "-o", &option, "--subnet", &subnet, "one"]);
        let words = ["run", "-d", "--name", mode, "--network", "one", "-p", "80", "busybox", "sleep", "600"];
        let made = engine.docker(&words);
        made.ok();
        if is_portolan(engine) {
            has_line(&made.all(), &["no ports are published on the network one (macvlan)"]);
        }
        let pid = inspect(engine, mode, "{{.State.Pid}}");
        let links = engine.host().run(&["nsenter", "-t", &pid, "-n", "ip", "-d", "link", "show", "eth0"]);
        has_line(links.ok(), &[&format!("macvlan mode {mode}")]);
        if mode == "passthru" {
            let parent = engine.host().run(&["ip", "-br", "link", "show", "nic0"]).ok().to_owned();
            let own = inside(engine, mode, &["cat", "/sys/class/net/eth0/address"]);
            assert!(parent.contains(own.trim()), "{own} is not the parent's: {parent}");
        }
        engine.docker(&["rm", "-f", mode]).ok();
        engine.docker(&["network", "rm", "one"]).ok();
    }
}

#[test]
fn a_macvlan_network_gives_the_host_access_on_request() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "access of the host to macvlan networks") {
        return;
    }
    cable(engine.host());
    let options = ["-d", "macvlan", "-o", "parent=nic0", "-o", "portolan.host_access=true"];
    create(&engine, &[&options[..], &["--subnet", "10.71.0.0/24", "lan"]].concat());
    run(&engine, "one", &["--network", "lan"]);
    let address = inspect(&engine, "one", "{{.NetworkSettings.Networks.lan.IPAddress}}");
    engine.host().run(&["busybox", "ping", "-c1", "-W2", &address]).ok();
    engine.docker(&["rm", "-f", "one"]).ok();
    engine.docker(&["network", "rm", "lan"]).ok();
    let links = engine.host().run(&["ip", "-o", "link"]).ok().to_owned();
    assert!(!links.contains("pm-"), "the host's own link goes with the network: {links}");
}

#[test]
fn what_the_kernel_lacks_is_said() {
    let engine = Engine::start();
    let probe = Host::new("probe");
    probe.run(&["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]).ok();
    if probe.run(&["ip", "link", "add", "link", "v0", "name", "i0", "type", "ipvlan"]).code == 0 {
        return;
    }
    cable(engine.host());
    let made = engine.docker(&["network", "create", "-d", "ipvlan", "-o", "parent=nic0", "iv"]);
    let failed = if made.code != 0 {
        made
    } else {
        engine.docker(&["run", "--rm", "--network", "iv", "busybox", "true"])
    };
    assert_ne!(failed.code, 0);
    if is_portolan(&engine) {
        has_line(failed.fails(), &["kernel has no links of type ipvlan"]);
    }
}

#[test]
fn containers_of_a_network_without_ipv6_have_none() {
    let engine = Engine::start();
    create(&engine, &["--subnet", "10.72.0.0/24", "-o", "com.docker.network.bridge.name=br-four", "four"]);
    run(&engine, "one", &["--network", "four"]);
    assert_eq!(inside(&engine, "one", &["cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"]).trim(), "1");
    assert!(!inside(&engine, "one", &["ip", "addr"]).contains("inet6 fe80"), "not even link-local");
    let ra = engine.host().run(&["sysctl", "-n", "net.ipv6.conf.br-four.accept_ra"]);
    assert_eq!(ra.ok().trim(), "0");
    // A name that is somebody else's link: refused, and the link stays.
    cable(engine.host());
    let taken = engine.docker(&["network", "create", "-o", "com.docker.network.bridge.name=nic0", "taken"]);
    has_line(taken.fails(), &["nic0"]);
    engine.host().run(&["ip", "link", "show", "nic0"]).ok();
}

#[test]
fn an_ipv6_network_needs_no_subnet_and_takes_no_advertisements() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "IPv6 without a subnet") {
        // Docker before 27 wants a subnet.
        return;
    }
    create(&engine, &["--ipv6", "six"]);
    create(&engine, &["--ipv6", "seven"]);
    run(&engine, "one", &["--network", "six"]);
    run(&engine, "two", &["--network", "six"]);
    let address = inspect(&engine, "two", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}");
    assert!(address.starts_with("fd"), "{address} is unique local");
    assert!(pings(&engine, "one", &address));
    if is_portolan(&engine) {
        assert_eq!(inside(&engine, "one", &["cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"]).trim(), "0");
    }
    let subnet = |name: &str| {
        let format = "{{range .IPAM.Config}}{{.Subnet}} {{end}}";
        engine.docker(&["network", "inspect", "--format", format, name]).ok().to_owned()
    };
    let prefix =
        |text: String| text.split(' ').find(|net| net.ends_with("/64")).map(|net| net[..12].to_owned());
    assert_eq!(prefix(subnet("six")), prefix(subnet("seven")), "one /48 a host");
    assert_ne!(subnet("six"), subnet("seven"));
    create(&engine, &["--ipv4=false", "--ipv6", "only"]);
    run(&engine, "alone", &["--network", "only"]);
    assert_eq!(inspect(&engine, "alone", "{{.NetworkSettings.Networks.only.IPAddress}}"), "");
    let keys = ["-o", "com.docker.network.enable_ipv4=false", "-o", "com.docker.network.enable_ipv6=true"];
    create(&engine, &[&keys[..], &["keyed"]].concat());
    run(&engine, "keyed", &["--network", "keyed"]);
    let shown = inside(&engine, "keyed", &["ip", "-o", "address", "show", "eth0"]);
    assert!(shown.contains("inet6 fd") && !shown.contains("inet "), "{shown}");
}

#[test]
fn routes_and_metrics_are_in_the_container() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "static routes") {
        return;
    }
    let routes = "portolan.routes=10.9.0.0/16,10.73.0.7,50;10.66.0.0/16,blackhole;\
        10.67.0.0/16,unreachable;10.68.0.0/16,prohibit";
    create(&engine, &["--subnet", "10.73.0.0/24", "-o", routes, "-o", "portolan.metric=7", "net"]);
    run(&engine, "one", &["--network", "net"]);
    let table = inside(&engine, "one", &["ip", "route"]);
    has_line(&table, &["default via 10.73.0.1 dev eth0", "metric 7"]);
    has_line(&table, &["10.9.0.0/16 via 10.73.0.7 dev eth0", "metric 50"]);
    has_line(&table, &["blackhole 10.66.0.0/16"]);
    for (kind, net, says) in
        [("unreachable", "10.67.0", "No route to host"), ("prohibit", "10.68.0", "Permission denied")]
    {
        has_line(&table, &[&format!("{kind} {net}.0/16")]);
        let asked = engine.docker(&["exec", "one", "ping", "-c1", "-W1", &format!("{net}.1")]);
        assert!(asked.all().contains(says), "{kind}: {}", asked.all());
    }
    for (route, part) in [
        ("10.9.0.0/16,10.73.1.255", "it is the broadcast address"),
        ("10.9.0.0/16,10.73.1.0", "it is the address of the subnet"),
        ("10.73.1.0/24,10.73.1.7", "10.73.1.0/24 is the network's own subnet"),
    ] {
        let option = format!("portolan.routes={route}");
        let refused = engine.docker(&["network", "create", "--subnet", "10.73.1.0/24", "-o", &option, "no"]);
        has_line(refused.fails(), &[part]);
    }
    create(&engine, &["-o", "portolan.no_default_route=true", "side"]);
    run(&engine, "two", &["--network", "side"]);
    assert!(!inside(&engine, "two", &["ip", "route"]).contains("default"));
}

#[test]
fn an_unmanaged_bridge_gets_ports_and_nothing_else() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "unmanaged bridges") {
        return;
    }
    let host = engine.host();
    host.run(&["ip", "link", "add", "br-lan", "up", "type", "bridge"]).ok();
    let name = "com.docker.network.bridge.name=br-lan";
    create(&engine, &["-o", name, "-o", "portolan.unmanaged=true", "--subnet", "10.74.0.0/24", "lan"]);
    cable(host);
    for (link, part) in [
        ("docker0", "bridge docker0 is that of network bridge"),
        ("nic0", "link nic0 is not a bridge"),
        ("br-no", "bridge br-no was not found"),
    ] {
        let name = format!("com.docker.network.bridge.name={link}");
        let words = ["-o", &name, "-o", "portolan.unmanaged=true", "--subnet", "10.77.0.0/24", "no"];
        has_line(engine.docker(&[&["network", "create"], &words[..]].concat()).fails(), &[part]);
    }
    run(&engine, "one", &["--network", "lan"]);
    run(&engine, "two", &["--network", "lan"]);
    assert!(pings(&engine, "one", "two"));
    assert!(!host.run(&["ip", "-o", "addr", "show", "br-lan"]).ok().contains("10.74."));
    assert!(!host.run(&["nft", "list", "ruleset"]).stdout.contains("br-lan"));
    engine.docker(&["rm", "-f", "one", "two"]).ok();
    engine.docker(&["network", "rm", "lan"]).ok();
    host.run(&["ip", "link", "show", "br-lan"]).ok();
}

#[test]
fn isolation_holds_for_published_ports_too() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "isolation of published ports") {
        return;
    }
    create(&engine, &["--ipv6", "open"]);
    create(&engine, &["--ipv6", "-o", "portolan.isolate=true", "apart"]);
    let serve = "while true; do echo hello | nc -l -p 80; done";
    for (name, network, port) in [("alone", "apart", "8081:80"), ("other", "open", "8082:80")] {
        let words =
            ["run", "-d", "--name", name, "--network", network, "-p", port, "busybox", "sh", "-c", serve];
        engine.docker(&words).ok();
    }
    let hears = |from: &str, port: &str| {
        ["-4", "-6"].map(|family| {
            let gateway = format!("$(ip {family} route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')");
            let line = format!("nc -w 2 {gateway} {port} </dev/null");
            engine.docker(&["exec", from, "sh", "-c", &line]).stdout.contains("hello")
        })
    };
    run(&engine, "client", &["--network", "open"]);
    for family in [0, 1] {
        eventually("open networks lead to published ports", 5, || {
            hears("client", "8082")[family].then_some(())
        });
    }
    assert_eq!((hears("client", "8081"), hears("alone", "8082")), ([false; 2], [false; 2]));
}

#[test]
fn addresses_are_counted_and_given_in_turn() {
    let engine = Engine::start();
    create(
        &engine,
        &["--subnet", "10.75.0.0/28", "--ipam-opt", "com.docker.network.ipam.serial=true", "turn"],
    );
    let address = || {
        let words = ["run", "--rm", "--network", "turn", "busybox", "ip", "-o", "-4", "addr", "show", "eth0"];
        engine.docker(&words).ok().to_owned()
    };
    has_line(&address(), &["10.75.0.2/28"]);
    if skip_on_docker(&engine, "serial allocation and counted addresses") {
        return;
    }
    has_line(&address(), &["10.75.0.3/28"]);
    // An address is in use until the kernel is done with the namespace it was in.
    eventually("three addresses in use, and thirteen left", 5, || {
        let seen = engine.docker(&["network", "inspect", "-v", "turn"]).json();
        let numbers = &seen[0]["Status"]["IPAM"]["Subnets"]["10.75.0.0/28"];
        let counts = numbers["IPsInUse"].as_u64().zip(numbers["DynamicIPsAvailable"].as_u64());
        (counts == Some((3, 13))).then_some(())
    });
}

#[test]
fn sizes_come_from_the_pools_and_links_may_be_without_addresses() {
    let engine = Engine::start();
    // As in Docker, a name may be any text, and an empty one for a link is none.
    let unset = ["-o", "com.docker.network.bridge.name=", "-o", "com.docker.network.container_iface_prefix="];
    create(&engine, &[&unset[..], &["--subnet", "10.78.0.0/24", "a b/c"]].concat());
    run(&engine, "named", &["--network", "a b/c"]);
    has_line(&inside(&engine, "named", &["ip", "addr", "show", "eth0"]), &["10.78.0.2/24"]);
    engine.docker(&["network", "create", " "]).fails();
    if skip_on_docker(&engine, "sizes from the pools, networks without addresses") {
        // Docker before 29.
        return;
    }
    create(&engine, &["--ipv6", "--subnet", "0.0.0.0/26", "--subnet", "::/80", "sized"]);
    run(&engine, "one", &["--network", "sized"]);
    run(&engine, "two", &["--network", "sized"]);
    let addresses = inside(&engine, "one", &["ip", "addr", "show", "eth0"]);
    has_line(&addresses, &["inet 172.", "/26"]);
    has_line(&addresses, &["inet6 fd", "/80 scope global"]);
    assert!(pings(&engine, "one", "two"));
    create(&engine, &["--subnet", "0.0.0.0/26", "again"]);
    let subnet = |name: &str| {
        let format = "{{(index .IPAM.Config 0).Subnet}}";
        engine.docker(&["network", "inspect", "--format", format, name]).ok().trim().to_owned()
    };
    assert!(subnet("again").ends_with("/26") && subnet("again") != subnet("sized"));
    create(&engine, &["--ipam-driver", "null", "-o", "com.docker.network.bridge.name=br-bare", "bare"]);
    run(&engine, "bare", &["--network", "bare"]);
    let seen = inside(&engine, "bare", &["ip", "addr", "show", "eth0"]);
    assert!(seen.contains("LOWER_UP") && !seen.contains("inet"), "{seen}");
    assert_eq!(inside(&engine, "bare", &["ip", "route"]).trim(), "");
    assert!(!engine.host().run(&["ip", "-4", "addr", "show", "br-bare"]).ok().contains("inet"));
}

#[test]
fn there_are_more_than_thirty_networks() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "more than thirty networks") {
        return;
    }
    for number in 0..40 {
        create(&engine, &[&format!("n{number}")]);
    }
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    has_line(engine.docker(&["network", "inspect", "--format", format, "n39"]).ok(), &["10.64.9.0/24"]);
}

#[test]
fn a_configuration_network_is_for_others() {
    let engine = Engine::start();
    create(&engine, &["--config-only", "--subnet", "10.76.0.0/24", "conf"]);
    create(&engine, &["--config-from", "conf", "made"]);
    let format = "{{(index .IPAM.Config 0).Subnet}} {{.ConfigFrom.Network}}";
    has_line(engine.docker(&["network", "inspect", "--format", format, "made"]).ok(), &["10.76.0.0/24 conf"]);
    engine.docker(&["network", "rm", "conf"]).fails();
    assert_ne!(engine.docker(&["run", "--rm", "--network", "conf", "busybox", "true"]).code, 0);
}

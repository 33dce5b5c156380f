//! The driver options of Docker's networks, one by one: what each does to the kernel and to packets.
//!
//! ```text
//!   container -- bridge -- engine's host 192.0.2.1 ---- wan0 ---- outside 192.0.2.2
//!                                        fd02::1                  fd02::2
//! ```

use std::process::{Child, Command, Stdio};

use portolan_e2e::{
    eventually, has_line, hear, inspect, is_portolan, portolan, run_server, skip_before, skip_on_docker,
};
use portolan_testkit::{Engine, EngineKind, Host};

/// Says to each TCP client at port 7000 whom it takes it for.
const MIRROR: &str = "import socket\n\
    s = socket.create_server(('::', 7000), family=socket.AF_INET6, dualstack_ipv6=True)\n\
    while True:\n c, a = s.accept(); c.sendall((a[0] + '\\n').encode()); c.close()\n";

/// Sends a router advertisement (RFC 4861, section 4.2) by a link: a default route for half an hour, and
/// the hop limit.
const ADVERTISE: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
limit = int(sys.argv[2]) if len(sys.argv) > 2 else 64
link = socket.if_nametoindex(sys.argv[1])
s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, limit, 0, 1800, 0, 0), ("ff02::1", 0, 0, link))
"#;

/// A host at the other end of the engine's `wan0`, which knows no way to containers.
struct Outside {
    host: Host,
    mirror: Child,
}

impl Outside {
    fn of(engine: &Engine) -> Self {
        let host = Host::new("outside");
        engine.host().wire("wan0", "192.0.2.1/24", &host, "wan1", "192.0.2.2/24");
        for (at, link, address) in [(engine.host(), "wan0", "fd02::1/64"), (&host, "wan1", "fd02::2/64")] {
            at.run(&["ip", "address", "add", address, "dev", link, "nodad"]).ok();
        }
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", host.name())).args(["python3", "-c", MIRROR]);
        let mirror = command.stdout(Stdio::null()).spawn().expect("python3");
        let outside = Self { host, mirror };
        eventually("the mirror", 10, || (!outside.seen_by_itself().is_empty()).then_some(()));
        outside
    }

    fn seen_by_itself(&self) -> String {
        hear(&self.host, "127.0.0.1", 7000)
    }

    /// A way to a subnet by the engine's host.
    fn knows(&self, subnet: &str) {
        let via = if subnet.contains(':') { "fd02::1" } else { "192.0.2.1" };
        self.host.run(&["ip", "route", "add", subnet, "via", via]).ok();
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.mirror.kill();
        let _ = self.mirror.wait();
    }
}

fn create(engine: &Engine, words: &[&str]) {
    engine.docker(&[&["network", "create"], words].concat()).ok();
}

fn run(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "600"]].concat()).ok();
}

fn inside(engine: &Engine, name: &str, words: &[&str]) -> String {
    engine.docker(&[&["exec", name], words].concat()).ok().to_owned()
}

fn bridge(name: &str) -> String {
    format!("com.docker.network.bridge.name={name}")
}

/// Waits until a container's server is there. It answers one client at a time: this one is gone then.
fn listens(engine: &Engine, name: &str, port: u16) {
    let line = format!("nc -w 1 127.0.0.1 {port} </dev/null");
    let answers = || !engine.docker(&["exec", name, "sh", "-c", &line]).stdout.is_empty();
    eventually(&format!("a server at port {port} of {name}"), 10, || answers().then_some(()));
    // The next one is started by a loop.
    std::thread::sleep(std::time::Duration::from_millis(200));
}

/// The answer to `POST /networks/create`, and its status as the last line.
fn post(engine: &Engine, body: &str) -> String {
    let socket = engine.socket();
    let socket = socket.to_string_lossy();
    let url = "http://localhost/v1.47/networks/create";
    let json = "Content-Type: application/json";
    let words =
        ["curl", "-sS", "-w", "\n%{http_code}", "--unix-socket", &socket, "-H", json, "-d", body, url];
    engine.host().run(&words).ok().to_owned()
}

/// Whom the host outside takes a container for; empty if it does not hear it.
fn seen_as(engine: &Engine, name: &str, address: &str) -> String {
    let line = format!("nc -w 2 {address} 7000 </dev/null");
    let seen = engine.docker(&["exec", name, "sh", "-c", &line]).stdout;
    seen.trim().trim_start_matches("::ffff:").to_owned()
}

#[test]
fn names_mtu_and_prefix_are_the_links() {
    let engine = Engine::start();
    let options = [
        "-o",
        &bridge("br-app"),
        "-o",
        "com.docker.network.driver.mtu=1400",
        "-o",
        "com.docker.network.container_iface_prefix=net",
    ];
    create(&engine, &[&options[..], &["app"]].concat());
    run(&engine, "one", &["--network", "app"]);
    has_line(&inside(&engine, "one", &["ip", "link"]), &["net0", "mtu 1400"]);
    has_line(
        engine.host().run(&["ip", "link", "show", "master", "br-app"]).ok(),
        &["mtu 1400", "master br-app"],
    );
    // A bridge that is too small for IPv6 has no settings for it.
    create(&engine, &["-o", &bridge("br-small"), "-o", "com.docker.network.driver.mtu=1000", "small"]);
    run(&engine, "two", &["--network", "small"]);
    has_line(&inside(&engine, "two", &["ip", "link"]), &["eth0", "mtu 1000"]);
    let six = ["--ipv6", "--subnet", "fd83::/64", "-o", "com.docker.network.driver.mtu=1279", "six"];
    let refused = engine.docker(&[&["network", "create"], &six[..]].concat());
    if is_portolan(&engine) {
        has_line(refused.fails(), &["1279 is too small for IPv6, which needs 1280"]);
    }
    let taken = engine.docker(&["network", "create", "-o", &bridge("br-app"), "other"]);
    has_line(taken.fails(), &["networks have same bridge name"]);
}

/// What somebody else made is used, keeps what it has, and stays.
#[test]
fn a_bridge_that_is_there_is_adopted() {
    let mut engine = Engine::start();
    let run_on = |engine: &Engine, words: &[&str]| engine.host().run(words).ok().to_owned();
    for (name, address) in [("br-lan", "10.90.0.1/24"), ("br-two", "10.91.0.9/24")] {
        run_on(&engine, &["ip", "link", "add", name, "type", "bridge"]);
        run_on(&engine, &["ip", "address", "add", address, "dev", name]);
    }
    create(&engine, &["-o", &bridge("br-lan"), "--subnet", "10.90.0.0/24", "lan"]);
    run_server(&engine, "web", 80, "hello", &["--network", "lan", "-p", "8090:80"]);
    listens(&engine, "web", 80);
    has_line(&inside(&engine, "web", &["ip", "route"]), &["default via 10.90.0.1"]);
    assert_eq!(hear(engine.host(), "127.0.0.1", 8090), "hello");
    create(&engine, &["-o", &bridge("br-two"), "--subnet", "10.92.0.0/24", "two"]);
    run(&engine, "one", &["--network", "two"]);
    inside(&engine, "one", &["ping", "-c1", "-W2", "10.92.0.1"]);
    let addresses = |engine: &Engine, name: &str| run_on(engine, &["ip", "-4", "address", "show", name]);
    has_line(&addresses(&engine, "br-two"), &["10.92.0.1/24"]);
    if is_portolan(&engine) {
        adopted_bridges_are_healed(&mut engine);
        has_line(&addresses(&engine, "br-two"), &["10.91.0.9/24"]);
        let shown = engine.docker(&["network", "inspect", "-v", "lan"]).json()[0]["Status"].clone();
        assert!(shown["OverlappingRoutes"].is_null(), "{shown}");
        // Not of two networks, nor as somebody else's bridge of one that has it.
        let unmanaged =
            ["-o", &bridge("br-lan"), "-o", "portolan.unmanaged=true", "--subnet", "10.93.0.0/24"];
        let refused = engine.docker(&[&["network", "create"], &unmanaged[..], &["un"]].concat());
        has_line(refused.fails(), &["bridge br-lan is that of network lan"]);
    }
    let taken = engine.docker(&["network", "create", "-o", &bridge("br-lan"), "other"]);
    has_line(taken.fails(), &["networks have same bridge name"]);
    engine.docker(&["rm", "-f", "web", "one"]).ok();
    engine.docker(&["network", "rm", "lan", "two"]).ok();
    has_line(&addresses(&engine, "br-lan"), &["10.90.0.1/24"]);
    let two = addresses(&engine, "br-two");
    if is_portolan(&engine) {
        assert!(two.contains("10.91.0.9/24") && !two.contains("10.92.0.1"), "{two}");
        for name in ["br-lan", "br-two"] {
            let key = format!("net.ipv4.conf.{name}.route_localnet");
            assert_eq!(run_on(&engine, &["sysctl", "-n", &key]).trim(), "0", "{name}");
        }
        assert!(!engine.host().run(&["nft", "list", "ruleset"]).stdout.contains("br-lan"));
    }
}

/// What is taken away of what is ours comes back; so does a bridge's own network when the bridge does.
fn adopted_bridges_are_healed(engine: &mut Engine) {
    let there = |engine: &Engine| {
        let seen = engine.host().run(&["ip", "-4", "address", "show", "br-two"]).stdout;
        seen.contains("10.92.0.1/24").then_some(())
    };
    let delete = ["ip", "address", "del", "10.92.0.1/24", "dev", "br-two"];
    engine.host().run(&delete).ok();
    eventually("the address to be put back", 5, || there(engine));
    engine.kill_daemon();
    engine.host().run(&delete).ok();
    engine.start_daemon();
    there(engine).expect("the address is put back at start");
    assert_eq!(hear(engine.host(), "127.0.0.1", 8090), "hello");
    engine.host().run(&["ip", "link", "del", "br-two"]).ok();
    engine.host().run(&["ip", "link", "add", "br-two", "type", "bridge"]).ok();
    engine.host().run(&["ip", "address", "add", "10.91.0.9/24", "dev", "br-two"]).ok();
    eventually("the new bridge to be used", 20, || there(engine));
    eventually("its port to be back", 20, || {
        (engine.docker(&["exec", "one", "ping", "-c1", "-W1", "10.92.0.1"]).code == 0).then_some(())
    });
}

#[test]
fn packets_leave_by_masquerade_by_a_fixed_source_or_as_they_are() {
    let engine = Engine::start();
    let outside = Outside::of(&engine);
    engine.host().run(&["ip", "address", "add", "192.0.2.9/24", "dev", "wan0"]).ok();
    create(&engine, &["masked"]);
    create(
        &engine,
        &["--subnet", "10.81.1.0/24", "-o", "com.docker.network.bridge.enable_ip_masquerade=false", "plain"],
    );
    create(&engine, &["-o", "com.docker.network.host_ipv4=192.0.2.9", "fixed"]);
    outside.knows("10.81.1.0/24");
    // Docker 28 drops what comes to a container's address from outside, answers too.
    let plain = if is_portolan(&engine) || engine.major() < 28 { "10.81.1.2" } else { "" };
    for (network, seen) in [("masked", "192.0.2.1"), ("plain", plain), ("fixed", "192.0.2.9")] {
        run(&engine, network, &["--network", network]);
        assert_eq!(seen_as(&engine, network, "192.0.2.2"), seen, "{network}");
    }
}

#[test]
fn inhibit_ipv4_leaves_the_bridge_without_an_address() {
    let engine = Engine::start();
    let inhibit = ["-o", "com.docker.network.bridge.inhibit_ipv4=true", "-o", &bridge("br-bare")];
    create(&engine, &[&inhibit[..], &["--subnet", "10.81.2.0/24", "bare"]].concat());
    run(&engine, "one", &["--network", "bare"]);
    assert!(!engine.host().run(&["ip", "-4", "addr", "show", "br-bare"]).ok().contains("inet"));
    has_line(&inside(&engine, "one", &["ip", "addr"]), &["10.81.2.2/24"]);
}

#[test]
fn host_binding_is_the_address_of_ports_published_without_one() {
    let engine = Engine::start();
    let outside = Outside::of(&engine);
    create(&engine, &["-o", "com.docker.network.bridge.host_binding_ipv4=192.0.2.1", "lan"]);
    run_server(&engine, "web", 80, "hello", &["--network", "lan", "-p", "8080:80"]);
    has_line(engine.docker(&["port", "web"]).ok(), &["80/tcp -> 192.0.2.1:8080"]);
    listens(&engine, "web", 80);
    assert_eq!(hear(&outside.host, "192.0.2.1", 8080), "hello");
    assert_eq!(hear(engine.host(), "127.0.0.1", 8080), "");
    if !is_portolan(&engine) {
        return;
    }
    // Addresses of IPv6 for a container that has none, by the network's key and by the port's own word.
    create(&engine, &["-o", "com.docker.network.bridge.host_binding_ipv4=::", "six"]);
    run_server(&engine, "app", 80, "six", &["--network", "six", "-p", "8081:80", "-p", "[fd02::1]:8082:80"]);
    listens(&engine, "app", 80);
    for (port, v4) in [(8081, ""), (8082, "")] {
        let heard = ["[fd02::1]", "192.0.2.1"].map(|address| hear(&outside.host, address, port));
        assert_eq!(heard, ["six", v4], "{port}");
    }
}

#[test]
fn subnets_of_both_families_with_ranges_and_kept_addresses() {
    let engine = Engine::start();
    let words = [
        "--ipv6",
        "--subnet",
        "10.81.3.0/24",
        "--ip-range",
        "10.81.3.64/28",
        "--gateway",
        "10.81.3.254",
        "--aux-address",
        "printer=10.81.3.64",
        "--subnet",
        "fd81:3::/64",
        "--ip-range",
        "fd81:3::c0:0/112",
        "--gateway",
        "fd81:3::fe",
        "--aux-address",
        "scanner=fd81:3::1",
        "--label",
        "team=a",
        "--attachable",
        "--scope",
        "local",
        "both",
    ];
    create(&engine, &words);
    run(&engine, "one", &["--network", "both"]);
    let addresses = inside(&engine, "one", &["ip", "addr", "show", "eth0"]);
    has_line(&addresses, &["inet 10.81.3.65/24"]);
    has_line(&addresses, &["inet6 fd81:3::c0:", "/64"]);
    assert!(!addresses.contains("fd81:3::1/") && !addresses.contains("dadfailed"), "{addresses}");
    has_line(&inside(&engine, "one", &["ip", "route"]), &["default via 10.81.3.254"]);
    has_line(&inside(&engine, "one", &["ip", "-6", "route"]), &["default via fd81:3::fe"]);
    let json = engine.docker(&["network", "inspect", "both"]).json();
    assert_eq!(json[0]["IPAM"]["Config"][0]["AuxiliaryAddresses"]["printer"], "10.81.3.64");
    assert_eq!((&json[0]["Attachable"], &json[0]["Labels"]["team"]), (&true.into(), &"a".into()));
}

#[test]
fn pools_of_the_daemon_are_where_subnets_come_from() {
    let engine =
        Engine::builder().arg("--default-address-pool=base=10.82.0.0/16,size=26").image("busybox").start();
    create(&engine, &["one"]);
    create(&engine, &["two"]);
    let subnet = |name| {
        let format = "{{(index .IPAM.Config 0).Subnet}}";
        engine.docker(&["network", "inspect", "--format", format, name]).ok().to_owned()
    };
    assert_eq!(
        [subnet("bridge"), subnet("one"), subnet("two")],
        ["10.82.0.0/26", "10.82.0.64/26", "10.82.0.128/26"]
    );
}

#[test]
fn a_macvlan_network_may_have_several_subnets() {
    let engine = Engine::start();
    let host = engine.host();
    host.run(&["ip", "link", "add", "nic0", "up", "type", "veth", "peer", "name", "nic1"]).ok();
    let vlan = host.run(&["ip", "link", "add", "link", "nic0", "name", "probe", "type", "vlan", "id", "9"]);
    let parent = if vlan.code == 0 { "nic0.7" } else { "nic0" };
    let subnets = ["--subnet", "10.83.0.0/24", "--subnet", "10.83.1.0/24"];
    create(
        &engine,
        &[&["-d", "macvlan", "-o", &format!("parent={parent}")], &subnets[..], &["lan"]].concat(),
    );
    run(&engine, "one", &["--network", "lan", "--ip", "10.83.1.7"]);
    has_line(&inside(&engine, "one", &["ip", "addr", "show", "eth0"]), &["10.83.1.7/24"]);
    run(&engine, "two", &["--network", "lan"]);
    // The docker CLI keeps subnets in no order, so that either may be the first.
    has_line(&inside(&engine, "two", &["ip", "addr", "show", "eth0"]), &["10.83.", "/24"]);
    if vlan.code != 0 {
        return;
    }
    has_line(host.run(&["ip", "-d", "link", "show", "nic0.7"]).ok(), &["vlan", "id 7"]);
    engine.docker(&["rm", "-f", "one", "two"]).ok();
    engine.docker(&["network", "rm", "lan"]).ok();
    assert_ne!(host.run(&["ip", "link", "show", "nic0.7"]).code, 0, "the VLAN goes with its network");
}

/// What `exposure` says of a container, if the engine is one that has it.
fn exposes(engine: &Engine, words: &[&str]) {
    if is_portolan(engine) {
        has_line(portolan(engine, &["exposure"]).ok(), words);
    }
}

#[test]
fn gateway_modes_say_who_gets_in_and_as_whom_packets_leave() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "gateway modes") {
        return;
    }
    let outside = Outside::of(&engine);
    // (mode, what the host outside hears at a published and at another port of the container itself)
    let modes = [("nat", "", ""), ("nat-unprotected", "open", "shut"), ("routed", "open", "")];
    for (number, (mode, published, other)) in modes.into_iter().enumerate() {
        let subnet = format!("10.84.{number}.0/24");
        let option = format!("com.docker.network.bridge.gateway_mode_ipv4={mode}");
        create(&engine, &["--subnet", &subnet, "-o", &option, mode]);
        outside.knows(&subnet);
        let port = format!("808{number}:80");
        let serve =
            "while true; do echo open | nc -l -p 80; done & while true; do echo shut | nc -l -p 81; done";
        engine
            .docker(&[
                "run",
                "-d",
                "--name",
                mode,
                "--network",
                mode,
                "-p",
                &port,
                "busybox",
                "sh",
                "-c",
                serve,
            ])
            .ok();
        listens(&engine, mode, 80);
        listens(&engine, mode, 81);
        let address = inspect(&engine, mode, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        let heard = [80, 81].map(|port| hear(&outside.host, &address, port));
        assert_eq!(heard, [published, other], "{mode}");
        let shown = engine.docker(&["port", mode, "80"]).ok().to_owned();
        let place = if mode == "routed" { String::new() } else { format!("808{number}") };
        assert!(shown.lines().any(|line| *line == format!("0.0.0.0:{place}")), "{mode}: {shown}");
        let by_host = hear(&outside.host, "192.0.2.1", 8080 + number as u16);
        assert_eq!(by_host, if mode == "routed" { "" } else { "open" }, "{mode}");
        let seen = if mode == "routed" { address.as_str() } else { "192.0.2.1" };
        assert_eq!(seen_as(&engine, mode, "192.0.2.2"), seen, "{mode}");
    }
    exposes(&engine, &["0.0.0.0:8080/tcp", "every interface", "published on every address"]);
    exposes(&engine, &["0.0.0.0:8081/tcp", "all ports of the container are open"]);
    exposes(&engine, &["routed", "open to those who route to its address"]);
}

#[test]
fn a_trusted_link_leads_to_containers_directly() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "trusted_host_interfaces") {
        return;
    }
    let outside = Outside::of(&engine);
    let trusted = "com.docker.network.bridge.trusted_host_interfaces=eth9:wan0";
    create(&engine, &["--subnet", "10.85.0.0/24", "-o", trusted, "open"]);
    outside.knows("10.85.0.0/24");
    run_server(&engine, "web", 80, "hello", &["--network", "open", "-p", "8080:80"]);
    listens(&engine, "web", 80);
    assert_eq!(hear(&outside.host, "10.85.0.2", 80), "hello");
    exposes(&engine, &["0.0.0.0:8080/tcp", "also at the container's own address", "eth9, wan0"]);
}

#[test]
fn an_isolated_network_is_without_the_host() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "gateway mode isolated") {
        return;
    }
    let isolated = "com.docker.network.bridge.gateway_mode_ipv4=isolated";
    let refused = engine.docker(&["network", "create", "-o", isolated, "open"]);
    has_line(refused.fails(), &["gateway mode 'isolated' can only be used for an internal network"]);
    create(&engine, &["--internal", "-o", isolated, "-o", &bridge("br-iso"), "iso"]);
    for name in ["one", "two"] {
        run(&engine, name, &["--network", "iso"]);
    }
    assert!(!engine.host().run(&["ip", "-4", "addr", "show", "br-iso"]).ok().contains("inet"));
    inside(&engine, "one", &["ping", "-c1", "-W2", "two"]);
    assert!(!inside(&engine, "one", &["ip", "route"]).contains("default"));
    // Not by link-local addresses either, whichever families the network has.
    let six = "com.docker.network.bridge.gateway_mode_ipv6=isolated";
    let subnet = ["--subnet", "fd87::/64", "-o", &bridge("br-iso6"), "iso6"];
    create(&engine, &[&["--internal", "--ipv6", "-o", isolated, "-o", six][..], &subnet].concat());
    run(&engine, "three", &["--network", "iso6"]);
    let own = inside(&engine, "three", &["ip", "-6", "addr", "show", "eth0", "scope", "link"]);
    let own = own.split_whitespace().find(|word| word.starts_with("fe80::")).expect("it has one").to_owned();
    let own = own.split('/').next().expect("an address").to_owned();
    // Docker 28 leaves a bridge of IPv4 alone its link-local address.
    for link in if is_portolan(&engine) { &["br-iso", "br-iso6"][..] } else { &["br-iso6"] } {
        let key = format!("net.ipv6.conf.{link}.disable_ipv6");
        assert_eq!(engine.host().run(&["sysctl", "-n", &key]).ok().trim(), "1", "{link}");
        assert!(!engine.host().run(&["ip", "addr", "show", link]).ok().contains("inet"), "{link}");
    }
    let reached = engine.host().run(&["busybox", "ping", "-c1", "-W1", "-I", "br-iso6", &own]);
    assert_ne!(reached.code, 0, "{}", reached.all());
    // Bridges of other networks keep theirs, as in Docker.
    assert_eq!(engine.host().run(&["sysctl", "-n", "net.ipv6.conf.docker0.disable_ipv6"]).ok().trim(), "0");
}

#[test]
fn ipv6_is_translated_or_routed_and_can_be_the_rule() {
    let dual = "--default-network-opt=bridge=com.docker.network.enable_ipv6=true";
    let engine = Engine::builder();
    let engine = if EngineKind::is_old() { engine } else { engine.arg(dual) };
    let engine = engine.image("busybox").start();
    if skip_before(&engine, 28, "IPv6 without a subnet") {
        return;
    }
    let outside = Outside::of(&engine);
    // The host's way out is what a router says: forwarding does not end that.
    let learnt = || engine.host().run(&["ip", "-6", "route", "show", "default"]).ok().to_owned();
    if is_portolan(&engine) {
        // Until the router's link-local address is past duplicate address detection.
        eventually("a route to be learnt", 10, || {
            outside.host.run(&["python3", "-c", ADVERTISE, "wan1"]).ok();
            learnt().contains("proto ra").then_some(())
        });
    }
    // A hardened host, on which new links are without IPv6.
    engine.host().run(&["sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1"]).ok();
    create(&engine, &["dual"]);
    assert_eq!(engine.host().run(&["sysctl", "-n", "net.ipv6.conf.all.forwarding"]).ok().trim(), "1");
    if is_portolan(&engine) {
        assert!(learnt().contains("proto ra"), "the host lost its way out: {}", learnt());
        outside.host.run(&["python3", "-c", ADVERTISE, "wan1", "7"]).ok();
        eventually("the router's next word to be heard", 5, || learnt().contains("hoplimit 7").then_some(()));
    }
    run(&engine, "nat", &["--network", "dual"]);
    assert_eq!(seen_as(&engine, "nat", "fd02::2"), "fd02::1", "NAT66");
    assert_eq!(seen_as(&engine, "nat", "192.0.2.2"), "192.0.2.1");

    let routed = "com.docker.network.bridge.gateway_mode_ipv6=routed";
    create(&engine, &["--subnet", "fd86::/64", "-o", routed, "open"]);
    outside.knows("fd86::/64");
    run(&engine, "routed", &["--network", "open"]);
    let own = inspect(&engine, "routed", "{{.NetworkSettings.Networks.open.GlobalIPv6Address}}");
    assert_eq!(seen_as(&engine, "routed", "fd02::2"), own);

    let fixed = "com.docker.network.host_ipv6=fd02::9";
    engine.host().run(&["ip", "address", "add", "fd02::9/64", "dev", "wan0", "nodad"]).ok();
    create(&engine, &["-o", fixed, "fixed"]);
    run(&engine, "fixed", &["--network", "fixed"]);
    assert_eq!(seen_as(&engine, "fixed", "fd02::2"), "fd02::9");
}

#[test]
fn a_gateway_may_be_link_local() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "link-local gateways") {
        return;
    }
    let _outside = Outside::of(&engine);
    // docker's client wants the gateway in the subnet; ours and the engine do not.
    let addresses = ["--ipv6", "--subnet", "fd87::/64", "--gateway", "fe80::1"];
    portolan(&engine, &[&["network", "create"], addresses.as_slice(), &["ll"]].concat()).ok();
    run(&engine, "one", &["--network", "ll"]);
    has_line(&inside(&engine, "one", &["ip", "-6", "route"]), &["default via fe80::1 dev eth0"]);
    assert_eq!(seen_as(&engine, "one", "fd02::2"), "fd02::1");
}

#[test]
fn the_host_s_end_of_a_link_has_the_name_asked_for() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "names of the host's links") {
        return;
    }
    create(&engine, &["front"]);
    run(&engine, "one", &["--network", "name=front,driver-opt=portolan.endpoint.host_ifname=web0"]);
    has_line(engine.host().run(&["ip", "link", "show", "web0"]).ok(), &["master br-"]);
    let taken = ["--network", "name=front,driver-opt=portolan.endpoint.host_ifname=web0"];
    let refused = engine.docker(&[&["run", "-d"], &taken[..], &["busybox", "true"]].concat());
    has_line(refused.fails(), &["interface name web0 is in use on the host already"]);
}

#[test]
fn a_route_that_overlaps_with_a_network_is_told_and_shown() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "events of routes") {
        return;
    }
    let _outside = Outside::of(&engine);
    create(&engine, &["--subnet", "10.88.0.0/24", "net"]);
    let shown = || {
        engine.docker(&["network", "inspect", "-v", "net"]).json()[0]["Status"]["OverlappingRoutes"].clone()
    };
    assert!(shown().is_null());
    engine.host().run(&["ip", "route", "add", "10.88.0.128/25", "via", "192.0.2.2"]).ok();
    eventually("the route in inspect", 5, || {
        (shown() == serde_json::json!(["10.88.0.128/25"])).then_some(())
    });
    engine.host().run(&["ip", "route", "del", "10.88.0.128/25"]).ok();
    eventually("no route in inspect", 5, || shown().is_null().then_some(()));
    let format = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.route}}";
    let now = engine.host().run(&["date", "+%s"]).ok().parse::<u64>().expect("a number of seconds");
    let (since, until) = ((now - 60).to_string(), (now + 1).to_string());
    let events =
        ["events", "--since", &since, "--until", &until, "--filter", "type=network", "--format", format];
    let events = engine.docker(&events).ok().to_owned();
    has_line(&events, &["overlap net 10.88.0.128/25"]);
    has_line(&events, &["overlap-end net 10.88.0.128/25"]);
    a_policy_table_counts_once_a_rule_leads_to_it(&engine, &shown);
    a_vpn_for_everything_leaves_networks(&engine);
}

/// As Tailscale and WireGuard have them.
fn a_policy_table_counts_once_a_rule_leads_to_it(engine: &Engine, shown: &impl Fn() -> serde_json::Value) {
    let host = engine.host();
    for route in ["10.88.0.0/26", "172.18.0.0/24"] {
        host.run(&["ip", "route", "add", route, "dev", "wan0", "table", "52"]).ok();
    }
    assert!(shown().is_null());
    host.run(&["ip", "rule", "add", "pref", "5270", "lookup", "52"]).ok();
    eventually("the route of table 52 in inspect", 5, || {
        (shown() == serde_json::json!(["10.88.0.0/26"])).then_some(())
    });
    create(engine, &["beside"]);
    assert_eq!(inspect_network(engine, "beside"), "172.19.0.0/16");
    host.run(&["ip", "rule", "del", "pref", "5270"]).ok();
    eventually("no route in inspect", 5, || shown().is_null().then_some(()));
}

/// As OpenVPN has it (`redirect-gateway def1`).
fn a_vpn_for_everything_leaves_networks(engine: &Engine) {
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        engine.host().run(&["ip", "route", "add", half, "via", "192.0.2.2"]).ok();
    }
    create(engine, &["vpn"]);
    assert_eq!(inspect_network(engine, "vpn"), "172.18.0.0/16");
    let status = engine.docker(&["network", "inspect", "-v", "vpn"]).json()[0]["Status"].clone();
    assert_eq!(status["OverlappingRoutes"], serde_json::json!(["128.0.0.0/1"]));
}

fn inspect_network(engine: &Engine, name: &str) -> String {
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    engine.docker(&["network", "inspect", "--format", format, name]).ok().trim().to_owned()
}

#[test]
fn the_mtu_follows_the_way_out() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "portolan.mtu") {
        return;
    }
    let _outside = Outside::of(&engine);
    let host = engine.host();
    host.run(&["ip", "link", "set", "wan0", "mtu", "1450"]).ok();
    host.run(&["ip", "route", "add", "default", "via", "192.0.2.2"]).ok();
    create(&engine, &["-o", "portolan.mtu=auto", "-o", &bridge("br-auto"), "auto"]);
    run(&engine, "one", &["--network", "auto"]);
    has_line(&inside(&engine, "one", &["ip", "link", "show", "eth0"]), &["mtu 1450"]);
    host.run(&["ip", "link", "set", "wan0", "mtu", "1380"]).ok();
    eventually("the container's MTU to follow", 5, || {
        inside(&engine, "one", &["ip", "link", "show", "eth0"]).contains("mtu 1380").then_some(())
    });
    has_line(host.run(&["ip", "link", "show", "br-auto"]).ok(), &["mtu 1380"]);
    run(&engine, "two", &["--network", "auto"]);
    has_line(&inside(&engine, "two", &["ip", "link", "show", "eth0"]), &["mtu 1380"]);
    // Below 1280 the kernel takes a link's IPv6 away: a network that has it stays large enough.
    let six = ["--ipv6", "--subnet", "fd84::/64", "-o", "portolan.mtu=auto", "-o", &bridge("br-six"), "six"];
    create(&engine, &six);
    run(&engine, "three", &["--network", "six"]);
    let has = |name: &str, mtu: u32| {
        eventually("the MTU to follow", 5, || {
            let link = inside(&engine, name, &["ip", "link", "show", "eth0"]);
            link.contains(&format!("mtu {mtu} ")).then_some(())
        });
    };
    has("three", 1380);
    for (uplink, with_ipv6) in [(1000, 1280), (1500, 1500)] {
        host.run(&["ip", "link", "set", "wan0", "mtu", &uplink.to_string()]).ok();
        has("two", uplink);
        has("three", with_ipv6);
        inside(&engine, "three", &["ping", "-c1", "-W2", "fd84::1"]);
        has_line(host.run(&["ip", "link", "show", "br-auto"]).ok(), &[&format!("mtu {uplink}")]);
    }
    assert_eq!(host.run(&["sysctl", "-n", "net.ipv6.conf.br-auto.accept_ra"]).ok().trim(), "0");
    assert!(!engine.log().contains("repair-failed"), "{}", engine.log());
}

#[test]
fn vlans_part_ports_of_one_bridge() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "VLANs on a bridge") {
        return;
    }
    let host = engine.host();
    let filtering = host.run(&["ip", "link", "add", "br-lan", "up", "type", "bridge", "vlan_filtering", "1"]);
    let unmanaged = ["-o", "portolan.unmanaged=true", "-o", "com.docker.network.bridge.name=br-lan"];
    if filtering.code != 0 {
        host.run(&["ip", "link", "add", "br-lan", "up", "type", "bridge"]).ok();
        create(
            &engine,
            &[&unmanaged[..], &["-o", "portolan.vlan=10", "--subnet", "10.89.0.0/24", "ten"]].concat(),
        );
        let failed = engine.docker(&["run", "--rm", "--network", "ten", "busybox", "true"]);
        has_line(failed.fails(), &["VLAN filtering"]);
        let failed = engine.docker(&["network", "create", "-o", "portolan.vlan=10", "own"]);
        has_line(failed.fails(), &["VLAN filtering"]);
        assert!(!host.run(&["ip", "-o", "link"]).ok().contains("br-own"));
        return;
    }
    for (name, vlan) in [("ten", "10"), ("more", "10"), ("twenty", "20")] {
        let words = ["-o", &format!("portolan.vlan={vlan}"), "--ipam-driver", "default", name];
        let subnet = [
            "--subnet",
            if name == "ten" {
                "10.89.0.0/25"
            } else if name == "more" {
                "10.89.0.128/25"
            } else {
                "10.89.1.0/24"
            },
        ];
        create(&engine, &[&unmanaged[..], &subnet[..], &words[..]].concat());
        run(&engine, name, &["--network", name]);
    }
    for (to, hears) in [("more", true), ("twenty", false)] {
        let address = inspect(&engine, to, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        inside(&engine, "ten", &["sh", "-c", "ip neigh flush dev eth0"]);
        let asked = engine.docker(&["exec", "ten", "arping", "-c", "2", "-w", "3", "-I", "eth0", &address]);
        assert_eq!(asked.stdout.contains("reply from"), hears, "{to}: {}", asked.all());
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_dockers_status() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "all mistakes at once") {
        return;
    }
    let post = |body: &str| post(&engine, body);
    let wrong = r#"{"Name":"x","Options":{"com.docker.network.driver.mtu":"9"},"IPAM":{"Config":[
        {"Subnet":"10.0.0.1/24","IPRange":"10.0.0.0/16","Gateway":"10.0.1.1","AuxiliaryAddresses":{"a":"fd00::1"}}]}}"#;
    let answer = post(wrong);
    for part in [
        "it should be 10.0.0.0/24",
        "bigger than its parent",
        "invalid gateway 10.0.1.1",
        "auxiliary address a",
        "driver.mtu",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    assert!(answer.ends_with("400"), "{answer}");
    for (body, status) in [
        (r#"{"Name":"bridge"}"#, "403"),
        (r#"{"Name":"x","Driver":"weave"}"#, "404"),
        (r#"{"Name":"x","EnableIPv4":false}"#, "400"),
        (r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"172.17.0.0/24"}]}}"#, "403"),
        (r#"{"Name":"x"}"#, "201"),
        (r#"{"Name":"x"}"#, "409"),
    ] {
        let body = body.to_owned();
        let answer = post(&body);
        // EnableIPv4 counts from version 1.48 on: before, it is not looked at.
        let status = if body.contains("EnableIPv4") { "201" } else { status };
        if body.contains("EnableIPv4") {
            engine.docker(&["network", "rm", "x"]).ok();
        }
        assert!(answer.ends_with(status), "{body}: {answer}");
    }
}

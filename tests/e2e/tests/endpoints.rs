//! Endpoints: interfaces, addresses, gateways, links, and namespaces that containers share.

use portolan_e2e::{eventually, has_line, has_since, inspect, is_portolan, skip_before};
use portolan_testkit::{Engine, skip};

fn run(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "600"]].concat()).ok();
}

fn network(engine: &Engine, name: &str, subnet: &str) {
    engine.docker(&["network", "create", "--subnet", subnet, name]).ok();
}

fn exec(engine: &Engine, name: &str, line: &str) -> String {
    engine.docker(&["exec", name, "sh", "-c", line]).stdout.trim().to_owned()
}

fn default_route(engine: &Engine, name: &str) -> String {
    exec(engine, name, "ip route | sed -n 's/^default via \\([^ ]*\\) dev \\([^ ]*\\).*/\\1 \\2/p'")
}

fn lines(engine: &Engine, name: &str, file: &str) -> usize {
    exec(engine, name, &format!("wc -l < {file}")).parse().unwrap_or(0)
}

#[test]
fn several_networks_at_create_with_every_key() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "several networks at create") {
        return;
    }
    network(&engine, "zeta", "10.81.0.0/24");
    network(&engine, "alpha", "10.82.0.0/24");
    engine
        .docker(&[
            "network",
            "create",
            "--ipv6",
            "--subnet",
            "fd00:83::/64",
            "--subnet",
            "10.83.0.0/24",
            "beta",
        ])
        .ok();
    run(
        &engine,
        "cc",
        &[
            "--network",
            "name=zeta,alias=one,alias=two,ip=10.81.0.40,mac-address=02:aa:bb:cc:dd:01",
            "--network",
            "name=alpha,gw-priority=7,driver-opt=com.docker.network.endpoint.ifname=lan0",
            "--network",
            "name=beta,ip6=fd00:83::99,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0\"",
        ],
    );
    let links = exec(&engine, "cc", "ip -o addr");
    let zeta = exec(&engine, "cc", "ip -o addr | sed -n 's/^[0-9]*: \\([^ ]*\\) .*10.81.0.40.*/\\1/p'");
    has_line(&links, &[&zeta, "10.81.0.40/24"]);
    has_line(&links, &["lan0", "10.82.0.2/24"]);
    let beta = exec(&engine, "cc", "ip -o addr | sed -n 's/^[0-9]*: \\([^ ]*\\) .*10.83.0.2.*/\\1/p'");
    has_line(&links, &[&beta, "fd00:83::99/64"]);
    let order = || exec(&engine, "cc", "ip -o link | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'");
    // Docker goes by their priorities and names.
    for _ in if is_portolan(&engine) { 0..3 } else { 0..0 } {
        assert_eq!(order().split_whitespace().collect::<Vec<_>>(), ["lo", "eth0", "lan0", &beta], "as given");
        engine.docker(&["restart", "-t", "0", "cc"]).ok();
    }
    has_line(&exec(&engine, "cc", &format!("ip link show {zeta}")), &["02:aa:bb:cc:dd:01"]);
    // Docker 28 lets both families go before the priority; those after it do not.
    if is_portolan(&engine) {
        assert_eq!(default_route(&engine, "cc"), "10.82.0.1 lan0", "the highest priority");
    }
    let sysctls =
        format!("cat /proc/sys/net/ipv4/conf/{beta}/log_martians /proc/sys/net/ipv4/conf/{beta}/forwarding");
    assert_eq!(exec(&engine, "cc", &sysctls), "1\n0");
    run(&engine, "peer", &["--network", "zeta"]);
    for name in ["one", "two", "cc"] {
        has_line(&exec(&engine, "peer", &format!("ping -c1 -W2 {name}")), &["10.81.0.40"]);
    }
    assert_eq!(inspect(&engine, "cc", "{{.NetworkSettings.Networks.alpha.GwPriority}}"), "7");
}

#[test]
fn a_bad_endpoint_is_refused_at_create() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker 20.10 knows none of these");
    }
    network(&engine, "net", "10.81.0.0/24");
    let refused = |spec: &str, why: &str| {
        let words = ["create", "--network", spec, "busybox"];
        has_line(engine.docker(&words).fails(), &[why]);
    };
    refused("name=net,ip=10.99.0.1", "no configured subnet");
    refused(
        "name=net,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.eth0.forwarding=1",
        "IFNAME",
    );
    refused("name=net,driver-opt=com.docker.network.advertise_addr_nmsgs=4", "range 0 to 3");
    refused("name=net,driver-opt=com.docker.network.advertise_addr_ms=99", "range 100 to 2000");
    refused("name=net,driver-opt=unheard-of=1", "unheard-of");
    has_line(
        engine
            .docker(&["create", "--network", "net", "--sysctl", "net.ipv4.conf.eth0.forwarding=1", "busybox"])
            .fails(),
        &["must be supplied using driver option"],
    );
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "", "nothing is left of them");
}

#[test]
fn the_default_route_moves_to_the_next_gateway_and_back() {
    let engine = Engine::start();
    network(&engine, "anet", "10.81.0.0/24");
    network(&engine, "bnet", "10.82.0.0/24");
    run(&engine, "cc", &["--network", "bnet"]);
    assert_eq!(default_route(&engine, "cc"), "10.82.0.1 eth0");
    engine.docker(&["network", "connect", "anet", "cc"]).ok();
    assert_eq!(default_route(&engine, "cc"), "10.81.0.1 eth1", "the first by name");
    engine.docker(&["network", "disconnect", "anet", "cc"]).ok();
    assert_eq!(default_route(&engine, "cc"), "10.82.0.1 eth0");
    engine.docker(&["network", "connect", "anet", "cc"]).ok();
    // Docker 20 counts on, we take the lowest name that is free.
    let again = if has_since(&engine, 28) { "10.81.0.1 eth1" } else { "10.81.0.1 eth2" };
    assert_eq!(default_route(&engine, "cc"), again);
    engine.docker(&["network", "disconnect", "bnet", "cc"]).ok();
    assert_eq!(default_route(&engine, "cc"), again);
    if has_since(&engine, 28) {
        engine.docker(&["network", "connect", "--gw-priority", "1", "bnet", "cc"]).ok();
        assert_eq!(default_route(&engine, "cc"), "10.82.0.1 eth0");
    }
}

#[test]
fn what_a_stopped_container_is_connected_to_is_there_when_it_starts() {
    let engine = Engine::start();
    network(&engine, "mine", "10.81.0.0/24");
    network(&engine, "early", "10.82.0.0/24");
    engine.docker(&["create", "--name", "cc", "--network", "mine", "busybox", "sleep", "600"]).ok();
    let connect = ["network", "connect", "--ip", "10.82.0.77", "--alias", "nick", "early", "cc"];
    engine.docker(&connect).ok();
    assert_eq!(
        inspect(&engine, "cc", "{{.NetworkSettings.Networks.early.IPAMConfig.IPv4Address}}"),
        "10.82.0.77"
    );
    has_line(&inspect(&engine, "cc", "{{.NetworkSettings.Networks.early.Aliases}}"), &["nick"]);
    engine.docker(&["start", "cc"]).ok();
    has_line(&exec(&engine, "cc", "ip -o addr"), &["10.82.0.77/24"]);
    run(&engine, "peer", &["--network", "early"]);
    has_line(&exec(&engine, "peer", "ping -c1 -W2 nick"), &["10.82.0.77"]);
    let hosts = exec(&engine, "cc", "cat /etc/hosts");
    has_line(&hosts, &["10.82.0.77"]);
    has_line(&hosts, &["10.81.0.2"]);
    engine.docker(&["stop", "-t", "0", "cc"]).ok();
    engine.docker(&["network", "disconnect", "early", "cc"]).ok();
    engine.docker(&["start", "cc"]).ok();
    assert!(!exec(&engine, "cc", "ip -o addr").contains("10.82."));
    engine.docker(&["network", "connect", "early", "cc"]).ok();
    if is_portolan(&engine) {
        // eth1 for good: the order is that of connecting, not of names.
        engine.docker(&["restart", "-t", "0", "cc"]).ok();
        has_line(&exec(&engine, "cc", "ip -o addr"), &["eth0", "10.81.0."]);
        has_line(&exec(&engine, "cc", "ip -o addr"), &["eth1", "10.82.0."]);
    }
    engine.docker(&["network", "disconnect", "early", "cc"]).ok();
    assert!(!exec(&engine, "cc", "cat /etc/hosts").contains("10.82."), "its line goes at once");
}

#[test]
fn neighbours_hear_of_a_new_endpoint() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "announcements of addresses") {
        return;
    }
    network(&engine, "net", "10.81.0.0/24");
    // A kernel with arp_accept makes an entry of a gratuitous ARP, and of nothing else that it hears.
    run(
        &engine,
        "ear",
        &[
            "--network",
            "name=net,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.arp_accept=1",
        ],
    );
    let heard = |address: &str| exec(&engine, "ear", "ip neigh").contains(&format!("{address} "));
    let option = "driver-opt=com.docker.network.advertise_addr_nmsgs";
    run(&engine, "loud", &["--network", &format!("name=net,ip=10.81.0.50,{option}=1")]);
    eventually("an announcement", 3, || heard("10.81.0.50").then_some(()));
    run(&engine, "other", &["--network", "name=net,ip=10.81.0.51,mac-address=02:aa:bb:cc:dd:05"]);
    eventually("an announcement of another hardware address", 3, || heard("10.81.0.51").then_some(()));
    run(
        &engine,
        "quiet",
        &["--network", &format!("name=net,ip=10.81.0.52,mac-address=02:aa:bb:cc:dd:06,{option}=0")],
    );
    run(&engine, "late", &["--network", "name=net,ip=10.81.0.53"]);
    engine.docker(&["network", "disconnect", "net", "loud"]).ok();
    eventually("by default, after a second", 5, || heard("10.81.0.53").then_some(()));
    // Docker 28 is heard all the same.
    assert!(!heard("10.81.0.52") || !is_portolan(&engine), "told to be quiet");
}

#[test]
fn links_follow_their_target() {
    let engine = Engine::start();
    run(&engine, "db", &[]);
    run(&engine, "web", &["--link", "db:store"]);
    let first = inspect(&engine, "db", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    has_line(&exec(&engine, "web", "cat /etc/hosts"), &[&first, "store", "db"]);
    engine.docker(&["stop", "-t", "0", "db"]).ok();
    engine.docker(&["network", "disconnect", "bridge", "db"]).ok();
    run(&engine, "filler", &[]);
    engine.docker(&["network", "connect", "bridge", "db"]).ok();
    engine.docker(&["start", "db"]).ok();
    let second = inspect(&engine, "db", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    assert_ne!(first, second);
    eventually("the link's new address", 5, || {
        let hosts = exec(&engine, "web", "cat /etc/hosts");
        (hosts.contains(&format!("{second}\tstore")) && !hosts.contains(&format!("{first}\tstore")))
            .then_some(())
    });
    has_line(&exec(&engine, "web", "ping -c1 -W2 store"), &[&second]);
    engine.docker(&["rm", "--link", "/web/store"]).ok();
    assert_eq!(inspect(&engine, "web", "{{len .HostConfig.Links}}"), "0");

    network(&engine, "net", "10.81.0.0/24");
    run(&engine, "sql", &["--network", "net"]);
    run(&engine, "app", &["--network", "net", "--link", "sql:base"]);
    run(&engine, "third", &["--network", "net"]);
    has_line(&exec(&engine, "app", "ping -c1 -W2 base"), &["10.81.0.2"]);
    assert_eq!(exec(&engine, "third", "ping -c1 -W2 base"), "", "an alias of a link is the linker's own");
}

#[test]
fn addresses_stay_with_their_container() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker gives an address away when its container stops");
    }
    network(&engine, "net", "10.81.0.0/24");
    let address =
        |engine: &Engine, name: &str| exec(engine, name, "ip -o -4 addr show eth0 | awk '{print $4}'");
    run(&engine, "aa", &["--network", "net"]);
    assert_eq!(address(&engine, "aa"), "10.81.0.2/24");
    engine.docker(&["stop", "-t", "0", "aa"]).ok();
    run(&engine, "bb", &["--network", "net"]);
    assert_eq!(address(&engine, "bb"), "10.81.0.3/24");
    engine.stop_daemon();
    engine.start_daemon();
    run(&engine, "cc", &["--network", "net"]);
    assert_eq!(address(&engine, "cc"), "10.81.0.4/24");
    engine.docker(&["start", "aa"]).ok();
    assert_eq!(address(&engine, "aa"), "10.81.0.2/24");

    engine.docker(&["create", "--name", "fixed", "--network", "net", "--ip", "10.81.0.5", "busybox"]).ok();
    run(&engine, "dd", &["--network", "net"]);
    assert_eq!(address(&engine, "dd"), "10.81.0.6/24", "reserved at create");
    engine.docker(&["create", "--name", "next", "--network", "net", "--ip", "10.81.0.5", "busybox"]).ok();
    let reserved = engine.docker(&["start", "next"]);
    has_line(reserved.fails(), &["Address already in use", "10.81.0.5", "container fixed ("]);
    engine.docker(&["rm", "next"]).ok();
    engine.docker(&["rm", "fixed"]).ok();
    run(&engine, "ee", &["--network", "net", "--ip", "10.81.0.5"]);
}

/// What `docker compose up` does when a service with an address of its own changes.
#[test]
fn a_replacement_is_made_with_the_address_of_what_it_replaces() {
    let engine = Engine::start();
    network(&engine, "net", "10.81.0.0/24");
    let address = |name: &str| exec(&engine, name, "ip -o -4 addr show eth0 | awk '{print $4}'");
    run(&engine, "app", &["--network", "net", "--ip", "10.81.0.2"]);
    let new = ["--network", "net", "--ip", "10.81.0.2", "busybox", "sleep", "600"];
    engine.docker(&[["create", "--name", "new-app"].as_slice(), &new].concat()).ok();
    run(&engine, "other", &[]);
    engine.docker(&["create", "--name", "late", "busybox", "sleep", "600"]).ok();
    engine.docker(&["network", "connect", "--ip", "10.81.0.2", "net", "late"]).ok();
    let early = engine.docker(&["start", "new-app"]);
    has_line(early.fails(), &["Address already in use"]);
    let running = engine.docker(&["network", "connect", "--ip", "10.81.0.2", "net", "other"]);
    has_line(running.fails(), &["Address already in use"]);
    if is_portolan(&engine) {
        has_line(early.fails(), &["10.81.0.2", "container app ("]);
    }
    engine.docker(&["stop", "-t", "0", "app"]).ok();
    engine.docker(&["rm", "app"]).ok();
    run(&engine, "between", &["--network", "net"]);
    engine.docker(&["rename", "new-app", "app"]).ok();
    if is_portolan(&engine) {
        assert_ne!(address("between"), "10.81.0.2/24", "it is kept for who asked for it");
    } else {
        engine.docker(&["rm", "-f", "between"]).ok();
    }
    engine.docker(&["start", "app"]).ok();
    assert_eq!(address("app"), "10.81.0.2/24");
    has_line(engine.docker(&["start", "late"]).fails(), &["Address already in use"]);
}

/// `x`, and `side` in its namespace with a connection to `peer` over which a line comes every 50 ms.
fn share(engine: &Engine) {
    network(engine, "net", "10.81.0.0/24");
    let serve = "while :; do while :; do echo tick; sleep 0.05; done | nc -l -p 9000; done";
    engine.docker(&["run", "-d", "--name", "peer", "--network", "net", "busybox", "sh", "-c", serve]).ok();
    run(engine, "xx", &["--network", "net", "--stop-signal", "KILL", "--restart", "always"]);
    let listen = "sleep 600 | nc 10.81.0.2 9000 > /tmp/ticks; echo over > /tmp/over; sleep 600";
    let side = ["run", "-d", "--name", "side", "--network", "container:xx", "busybox", "sh", "-c", listen];
    engine.docker(&side).ok();
    eventually("the connection", 5, || (lines(engine, "side", "/tmp/ticks") > 3).then_some(()));
}

fn goes_on(engine: &Engine) {
    let before = lines(engine, "side", "/tmp/ticks");
    eventually("the connection goes on", 5, || {
        (lines(engine, "side", "/tmp/ticks") > before + 3).then_some(())
    });
    assert_eq!(exec(engine, "side", "cat /tmp/over"), "");
    has_line(&exec(engine, "side", "ip -o addr show eth0"), &["10.81.0.3/24"]);
    let namespace = |name: &str| exec(engine, name, "readlink /proc/self/ns/net");
    assert_eq!(namespace("xx"), namespace("side"));
}

#[test]
fn a_shared_namespace_outlives_the_restart_of_its_owner() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker takes the namespace's interfaces away with its owner's process");
    }
    share(&engine);
    engine.docker(&["restart", "-t", "0", "xx"]).ok();
    goes_on(&engine);
    // Whoever joins a container that has joined another is with that other.
    run(&engine, "inner", &["--network", "container:side"]);
    assert_eq!(exec(&engine, "inner", "cat /etc/hosts"), exec(&engine, "xx", "cat /etc/hosts"));
    has_line(&exec(&engine, "inner", "ip -o addr show eth0"), &["10.81.0.3/24"]);
    engine.docker(&["rm", "-f", "inner"]).ok();
    let pid = inspect(&engine, "xx", "{{.State.Pid}}");
    engine.host().run(&["kill", "-9", &pid]).ok();
    eventually("its policy restarts it", 5, || {
        let now = inspect(&engine, "xx", "{{.State.Running}} {{.State.Pid}}");
        (now.starts_with("true") && !now.ends_with(&format!(" {pid}"))).then_some(())
    });
    goes_on(&engine);
    engine.docker(&["stop", "-t", "0", "xx"]).ok();
    has_line(&exec(&engine, "side", "ip -o addr show eth0"), &["10.81.0.3/24"]);
    has_line(engine.docker(&["network", "rm", "net"]).fails(), &["has active endpoints"]);
    engine.docker(&["start", "xx"]).ok();
    goes_on(&engine);
    // A daemon that finds it stopped leaves the others their namespace.
    engine.docker(&["update", "--restart", "no", "xx"]).ok();
    engine.docker(&["stop", "-t", "0", "xx"]).ok();
    engine.kill_daemon();
    engine.start_daemon();
    has_line(&exec(&engine, "side", "ip -o addr show eth0"), &["10.81.0.3/24"]);
    engine.docker(&["update", "--restart", "always", "xx"]).ok();
    engine.docker(&["start", "xx"]).ok();
    goes_on(&engine);
    // Its process ends while no daemon looks.
    let pid = inspect(&engine, "xx", "{{.State.Pid}}");
    engine.kill_daemon();
    engine.host().run(&["kill", "-9", &pid]).ok();
    engine.start_daemon();
    eventually("the new daemon restarts it", 10, || {
        inspect(&engine, "xx", "{{.State.Running}}").contains("true").then_some(())
    });
    goes_on(&engine);
}

#[test]
fn a_shared_namespace_goes_with_the_last_who_needs_it() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker takes the namespace's interfaces away with its owner's process");
    }
    share(&engine);
    engine.docker(&["stop", "-t", "0", "xx"]).ok();
    engine.docker(&["rm", "-f", "side"]).ok();
    let attached =
        || engine.docker(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "net"]);
    assert_eq!(attached().ok(), "peer", "nobody runs in it");
    engine.docker(&["start", "xx"]).ok();
    run(&engine, "side", &["--network", "container:xx"]);
    engine.docker(&["rm", "-f", "xx"]).ok();
    assert_eq!(attached().ok(), "peer", "the owner is removed");
    assert_eq!(exec(&engine, "side", "ip -o link | wc -l"), "1", "the loopback is left");
    has_line(engine.docker(&["restart", "-t", "0", "side"]).fails(), &["No such container"]);
    engine.docker(&["rm", "-f", "side", "peer"]).ok();
    engine.docker(&["network", "rm", "net"]).ok();
    assert!(!engine.host().run(&["ip", "-o", "link"]).ok().contains("veth"));
}

#[test]
fn whoever_joins_while_the_owner_restarts_has_a_network() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker takes the namespace's interfaces away with its owner's process");
    }
    network(&engine, "net", "10.81.0.0/24");
    run(&engine, "xx", &["--network", "net", "--stop-signal", "KILL"]);
    let enough = std::sync::atomic::AtomicBool::new(false);
    let joined = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..400 {
                if enough.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                engine.docker(&["restart", "-t", "0", "xx"]).ok();
            }
        });
        let mut joined = 0;
        for _ in 0..200 {
            let words =
                ["run", "-d", "--name", "side", "--network", "container:xx", "busybox", "sleep", "600"];
            // It is refused while the owner does not run.
            if engine.docker(&words).code == 0 {
                joined += 1;
                has_line(&exec(&engine, "side", "ip -o addr show eth0"), &["10.81.0.2/24"]);
            }
            engine.docker(&["rm", "-f", "side"]);
            if joined == 5 {
                break;
            }
        }
        enough.store(true, std::sync::atomic::Ordering::Relaxed);
        joined
    });
    assert_eq!(joined, 5, "some are let in");
}

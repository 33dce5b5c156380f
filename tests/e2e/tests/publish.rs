//! Published ports: from everywhere they should be reached, and from nowhere else.

use portolan_e2e::{eventually, has_line, hear, inspect, is_portolan, portolan, run_server, skip_before};
use portolan_testkit::{Engine, EngineKind, Firewall, Host, skip};

fn reached(host: &Host, address: &str, port: u16) -> String {
    eventually("the port answers", 10, || Some(hear(host, address, port)).filter(|heard| !heard.is_empty()))
}

#[test]
fn a_port_is_reached_from_everywhere() {
    let engine = Engine::start();
    let host = engine.host();
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    run_server(&engine, "server", 7000, "hello", &["-p", "8000:7000"]);
    for (who, address) in
        [(host, "127.0.0.1"), (host, "172.17.0.1"), (host, "198.51.100.2"), (&outside, "198.51.100.2")]
    {
        assert_eq!(reached(who, address, 8000), "hello", "{} by {address}", who.name());
    }
    engine.docker(&["network", "create", "other"]).ok();
    let from = |flags: &[&str], address: &str| {
        let line = format!("nc -w 2 {address} 8000 </dev/null");
        engine.docker(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", &line]].concat()).stdout
    };
    assert_eq!(from(&["--network", "other"], "198.51.100.2").trim(), "hello", "from another network");
    assert_eq!(from(&[], "172.17.0.1").trim(), "hello", "from its own network");
    let hairpin = engine.docker(&["exec", "server", "sh", "-c", "nc -w 2 198.51.100.2 8000 </dev/null"]);
    assert_eq!(hairpin.stdout.trim(), "hello", "from itself");
    engine.docker(&["stop", "-t", "0", "server"]).ok();
    assert_eq!(hear(&outside, "198.51.100.2", 8000), "", "closed when it stops");
}

#[test]
fn addresses_ranges_protocols_and_free_ports() {
    let engine = Engine::start();
    let flags = ["-p", "127.0.0.1:8001:80", "-p", "9000-9002:9000-9002", "-p", "5353:53/udp", "-p", "7777"];
    engine
        .docker(&[&["run", "-d", "--name", "many"], flags.as_slice(), &["busybox", "sleep", "600"]].concat())
        .ok();
    let ports = engine.docker(&["port", "many"]);
    for line in [
        "80/tcp -> 127.0.0.1:8001",
        "9001/tcp -> 0.0.0.0:9001",
        "53/udp -> 0.0.0.0:5353",
        "7777/tcp -> 0.0.0.0:",
    ] {
        has_line(ports.ok(), &[line]);
    }
    assert_eq!(engine.docker(&["port", "many", "80"]).ok(), "127.0.0.1:8001");
    let free: u16 =
        inspect(&engine, "many", r#"{{(index (index .NetworkSettings.Ports "7777/tcp") 0).HostPort}}"#)
            .parse()
            .expect("a port");
    assert!(free >= 1024);
    has_line(engine.docker(&["ps"]).ok(), &["127.0.0.1:8001->80/tcp"]);
    has_line(engine.docker(&["port", "many", "81"]).fails(), &["No public port '81"]);
    engine.docker(&["run", "-d", "--name", "all", "--expose", "81", "-P", "busybox", "sleep", "600"]).ok();
    has_line(engine.docker(&["port", "all"]).ok(), &["81/tcp -> 0.0.0.0:"]);
    let shown = |name: &str| inspect(&engine, name, "{{json .NetworkSettings.Ports}}");
    engine.docker(&["run", "-d", "--name", "closed", "--expose", "81", "busybox", "sleep", "600"]).ok();
    assert_eq!(shown("closed"), r#"{"81/tcp":null}"#);
    let lone =
        ["run", "-d", "--name", "lone", "--network", "none", "--expose", "81", "busybox", "sleep", "600"];
    engine.docker(&lone).ok();
    assert_eq!(shown("lone"), "{}", "nothing can be published there");
    if is_portolan(&engine) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.pid())).expect("it runs");
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
        let [soft, hard, _] = files.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{files}") };
        assert_eq!(soft, hard, "each port takes a file");
    }
}

/// What there is of the engine's containers: mounts, control groups, namespaces, processes, links.
fn traces(engine: &Engine) -> String {
    let home = engine.home().display();
    let ids =
        engine.docker(&["ps", "-aq", "--no-trunc"]).ok().split_whitespace().collect::<Vec<_>>().join("|");
    let lines = [
        format!("grep -F {home}/ /proc/mounts | sort"),
        format!("find /sys/fs/cgroup -type d | grep -E '{ids}' | sort"),
        format!("find {home}/exec | sort"),
        format!("ps -eo args | grep -E '{ids}' | grep -v grep | sort"),
        "ip -o link | sed 's/@.*//' | sort".to_owned(),
    ];
    lines.map(|line| engine.host().sh(&line).stdout).join("--\n")
}

#[test]
fn a_port_that_is_taken_is_refused_and_nothing_stays() {
    let engine = Engine::start();
    engine.docker(&["run", "-d", "--name", "first", "-p", "8002:80", "busybox", "sleep", "600"]).ok();
    engine.docker(&["create", "--name", "third", "-p", "8002:80", "busybox", "sleep", "600"]).ok();
    let before = traces(&engine);
    engine.docker(&["start", "third"]).fails();
    if is_portolan(&engine) {
        assert!(before.contains("portolan-shim"), "{before}");
        eventually("a start that fails half-way leaves nothing", 5, || {
            (traces(&engine) == before).then_some(())
        });
    }
    engine.docker(&["rm", "third"]).ok();
    let second =
        engine.docker(&["run", "-d", "--name", "second", "-p", "8002:80", "busybox", "sleep", "600"]);
    assert_eq!(second.code, 125);
    has_line(&second.stderr, &["Bind for 0.0.0.0:8002 failed: port is already allocated"]);
    assert_eq!(inspect(&engine, "second", "{{.State.Running}}"), "false");
    eventually("only the first has a link", 5, || {
        (engine.host().sh("ip -o link | grep -c veth").stdout.trim() == "1").then_some(())
    });
    engine.docker(&["rm", "-f", "first"]).ok();
    engine.docker(&["start", "second"]).ok();
    has_line(engine.docker(&["port", "second"]).ok(), &["80/tcp -> 0.0.0.0:8002"]);
}

#[test]
fn a_port_of_another_program_is_refused() {
    let engine = Engine::start();
    let script = "import socket,time\ns=socket.socket(); s.bind(('0.0.0.0',8003)); s.listen(); print('up', flush=True); time.sleep(60)";
    let mut words = engine.host().prefix();
    words.extend(["python3", "-c", script].map(Into::into));
    let mut other = std::process::Command::new(&words[0]).args(&words[1..]).spawn().expect("python3 runs");
    eventually("it listens", 10, || {
        engine.host().sh("ss -ltn | grep -q :8003 || netstat -ltn | grep -q :8003").code.eq(&0).then_some(())
    });
    let refused = engine.docker(&["run", "-d", "-p", "8003:80", "busybox", "sleep", "600"]);
    has_line(refused.fails(), &["8003", "address already in use"]);
    other.kill().expect("it is ours");
    other.wait().expect("it is ours");
}

#[test]
fn unpublished_ports_and_loopback_ones_are_closed_to_neighbours() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "filter before its container addresses") {
        return;
    }
    let host = engine.host();
    let neighbour = Host::new("neighbour");
    neighbour.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    neighbour.run(&["ip", "route", "add", "172.17.0.0/16", "via", "198.51.100.2"]).ok();
    neighbour.run(&["ip", "route", "add", "127.0.0.1/32", "via", "198.51.100.2", "table", "99"]);
    run_server(&engine, "server", 7000, "hello", &["-p", "127.0.0.1:8004:7000"]);
    assert_eq!(reached(host, "127.0.0.1", 8004), "hello");
    assert_eq!(hear(&neighbour, "172.17.0.2", 7000), "", "no direct routing to a container");
    assert_eq!(hear(&neighbour, "198.51.100.2", 8004), "", "loopback only");
    run_server(&engine, "open", 7001, "open", &["-p", "8005:7001"]);
    assert_eq!(reached(&neighbour, "198.51.100.2", 8005), "open");
    assert_eq!(hear(&neighbour, "172.17.0.3", 7001), "", "published is not routed");
    // A virtual address that moves to the neighbour takes its port along.
    host.run(&["ip", "addr", "add", "198.51.100.77/24", "dev", "up1"]).ok();
    run_server(&engine, "virtual", 7002, "here", &["-p", "198.51.100.77:8006:7002"]);
    assert_eq!(reached(host, "198.51.100.77", 8006), "here");
    host.run(&["ip", "addr", "del", "198.51.100.77/24", "dev", "up1"]).ok();
    neighbour.run(&["ip", "addr", "add", "198.51.100.77/24", "dev", "up0"]).ok();
    assert_eq!(hear(host, "198.51.100.77", 8006), "", "the neighbour has nothing there");
}

#[test]
fn the_daemon_s_flags_say_where_ports_are_and_who_is_routed_to_them() {
    if EngineKind::is_old() {
        skip!("this dockerd has no --allow-direct-routing");
    }
    let engine =
        Engine::builder().arg("--allow-direct-routing").arg("--ip=198.51.100.2").image("busybox").start();
    let (host, neighbour) = (engine.host(), Host::new("neighbour"));
    neighbour.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    neighbour.run(&["ip", "route", "add", "172.17.0.0/16", "via", "198.51.100.2"]).ok();
    run_server(&engine, "open", 7000, "open", &["-p", "8005:7000", "-p", "0.0.0.0:8006:7000"]);
    has_line(engine.docker(&["port", "open"]).ok(), &["7000/tcp -> 198.51.100.2:8005"]);
    run_server(&engine, "shut", 7001, "shut", &[]);
    assert_eq!(reached(host, "172.17.0.3", 7001), "shut");
    assert_eq!(reached(&neighbour, "198.51.100.2", 8005), "open");
    assert_eq!(hear(host, "127.0.0.1", 8005), "", "at that address alone");
    assert_eq!(reached(host, "127.0.0.1", 8006), "open", "unless another is named");
    assert_eq!(reached(&neighbour, "172.17.0.2", 7000), "open", "what is published is routed");
    assert_eq!(hear(&neighbour, "172.17.0.3", 7001), "", "what is not is closed");
    if is_portolan(&engine) {
        let words = ["0.0.0.0:8006/tcp", "also at the container's own address"];
        has_line(portolan(&engine, &["exposure"]).ok(), &words);
    }
}

#[test]
fn udp_is_published_too() {
    let engine = Engine::start();
    engine.docker(&["run", "-d", "--name", "udp", "-p", "8006:7000/udp", "busybox", "sleep", "600"]).ok();
    // The image has no program that serves UDP: one of the host's runs in the container's namespace.
    let netns = format!("--net=/proc/{}/ns/net", inspect(&engine, "udp", "{{.State.Pid}}"));
    let serve = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('',7000))\n\
                 while True: data,peer=s.recvfrom(9); s.sendto(b'pong '+peer[0].encode(),peer)";
    let mut server = std::process::Command::new("nsenter")
        .args([netns.as_str(), "python3", "-c", serve])
        .spawn()
        .expect("nsenter runs");
    let ask = "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(0.5)\n\
               s.sendto(b'ping',(sys.argv[1],8006)); print(s.recv(99).decode())";
    for address in ["127.0.0.1", "172.17.0.1"] {
        eventually("udp answers", 10, || {
            engine.host().run(&["python3", "-c", ask, address]).stdout.contains("pong").then_some(())
        });
    }
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
}

/// Each of the container's ports says its number.
const SERVED: &str =
    "for p in 7999 8000 8049 8050 8051 8100 8101; do while true; do echo $p | nc -l -p $p; done & done; wait";

#[test]
fn a_range_is_reached_to_its_ends_and_parts_where_a_port_goes() {
    let mut engine = Engine::start();
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    let flags = ["run", "-d", "--name", "web", "-p", "8000-8100:8000-8100", "busybox", "sh", "-c", SERVED];
    engine.docker(&flags).ok();
    let heard = |port: u16| hear(&outside, "198.51.100.2", port);
    let answer = |ports: &[u16]| {
        for port in ports {
            eventually(&format!("{port} answers"), 10, || (heard(*port) == port.to_string()).then_some(()));
        }
    };
    answer(&[8000, 8050, 8100]);
    assert_eq!((heard(7999).as_str(), heard(8101).as_str()), ("", ""), "beside it");
    if !is_portolan(&engine) {
        return;
    }
    let rules = match Firewall::from_env() {
        Firewall::Nftables => "nft list map inet portolan ranges4",
        Firewall::Iptables => "iptables -t nat -S DOCKER",
    };
    let ranges = |engine: &Engine| {
        let listed = engine.host().sh(rules).stdout.replace(':', "-");
        ["8000-8100", "8000-8049", "8051-8100"]
            .into_iter()
            .filter(|range| listed.contains(range))
            .collect::<Vec<_>>()
    };
    assert_eq!(ranges(&engine), ["8000-8100"]);
    portolan(&engine, &["port", "rm", "web", "8050"]).ok();
    assert_eq!(ranges(&engine), ["8000-8049", "8051-8100"]);
    let parted = || {
        answer(&[8000, 8049, 8051, 8100]);
        assert_eq!(heard(8050), "");
    };
    parted();
    engine.kill_daemon();
    parted();
    engine.start_daemon();
    parted();
    // Who may flush: with nftables nobody.
    engine.host().sh("nft flush ruleset; iptables -t nat -F; iptables -F");
    eventually("the rules are back", 10, || (ranges(&engine) == ["8000-8049", "8051-8100"]).then_some(()));
    parted();
    portolan(&engine, &["port", "add", "web", "8050:8050"]).ok();
    answer(&[8049, 8050, 8051]);
    assert_eq!(ranges(&engine), ["8000-8100"]);
}

//! The daemon's options for the network `bridge`: what they do to the kernel and to packets.

use std::process::{Command, Stdio};

use portolan_e2e::{eventually, has_line, is_portolan, skip_on_docker};
use portolan_testkit::{Engine, EngineKind, Host, portolan_binary};

fn run(engine: &Engine, name: &str) {
    engine.docker(&["run", "-d", "--name", name, "busybox", "sleep", "600"]).ok();
}

fn inside(engine: &Engine, name: &str, line: &str) -> String {
    engine.docker(&["exec", name, "sh", "-c", line]).stdout.trim().to_owned()
}

fn pings(engine: &Engine, from: &str, to: &str) -> bool {
    engine.docker(&["exec", from, "ping", "-c1", "-W1", to]).code == 0
}

fn bridge_addresses(engine: &Engine) -> String {
    engine.host().run(&["ip", "-o", "addr", "show", "dev", "docker0"]).ok().to_owned()
}

fn flags(words: &[&str]) -> Engine {
    let builder = words.iter().fold(Engine::builder(), |builder, word| builder.arg(*word));
    builder.image("busybox").start()
}

fn is_docker() -> bool {
    EngineKind::from_env() == EngineKind::Docker
}

#[test]
fn addresses_gateways_and_mtu_are_those_of_the_flags() {
    let v4 = ["--bip", "10.50.0.3/24", "--fixed-cidr", "10.50.0.128/25", "--default-gateway", "10.50.0.254"];
    let v6 = ["--ipv6", "--fixed-cidr-v6", "fd50::/64", "--default-gateway-v6", "fd50::fe", "--mtu", "1400"];
    let engine = flags(&[&v4[..], &v6].concat());
    run(&engine, "one");
    has_line(&bridge_addresses(&engine), &["inet 10.50.0.3/24"]);
    has_line(&bridge_addresses(&engine), &["inet6 fd50::1/64"]);
    let addresses = inside(&engine, "one", "ip addr show eth0");
    has_line(&addresses, &["mtu 1400"]);
    has_line(&addresses, &["inet 10.50.0.128/24"]);
    has_line(&addresses, &["inet6 fd50::", "/64 scope global"]);
    has_line(&inside(&engine, "one", "ip route"), &["default via 10.50.0.254"]);
    has_line(&inside(&engine, "one", "ip -6 route"), &["default via fd50::fe"]);
    for gateway in ["10.50.0.3", "fd50::1"] {
        // Docker's addresses are tentative for a second.
        eventually(gateway, 5, || pings(&engine, "one", gateway).then_some(()));
    }
}

/// Whom somebody outside takes a container for.
fn seen_as(engine: &Engine, name: &str, outside: &Host) -> String {
    let line = "import socket; s = socket.create_server(('192.0.2.2', 7000)); print(s.accept()[1][0])";
    let mut words = outside.prefix();
    words.extend(["python3", "-c", line].map(Into::into));
    let mut server = Command::new(&words[0]);
    let server = server.args(&words[1..]).stdout(Stdio::piped()).spawn().expect("python3");
    eventually("a connection", 10, || {
        let connect = ["exec", name, "nc", "-w", "1", "192.0.2.2", "7000"];
        (engine.docker_with(&connect, Some(b"")).code == 0).then_some(())
    });
    let output = server.wait_with_output().expect("its output");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_range_alone_is_the_subnet_and_containers_are_alone_as_they_are() {
    let mut words = vec!["--fixed-cidr", "10.60.0.0/16", "--icc=false", "--ip-masq=false"];
    // With Docker 20.10 the subnet is 172.17.0.0/16 then, and the range has no effect.
    words.extend(is_docker().then_some(["--bip", "10.60.0.1/16"]).into_iter().flatten());
    let engine = flags(&words);
    let outside = Host::new("outside");
    engine.host().wire("wan0", "192.0.2.1/24", &outside, "wan1", "192.0.2.2/24");
    outside.run(&["ip", "route", "add", "10.60.0.0/16", "via", "192.0.2.1"]).ok();
    run(&engine, "one");
    run(&engine, "two");
    has_line(&bridge_addresses(&engine), &["inet 10.60.0.1/16"]);
    has_line(&inside(&engine, "one", "ip addr show eth0"), &["inet 10.60.0.2/16"]);
    assert!(pings(&engine, "one", "10.60.0.1"));
    assert!(!pings(&engine, "one", "10.60.0.3"), "--icc=false");
    // Docker 28 drops what comes to a container's address from outside, answers too.
    if is_portolan(&engine) || engine.major() < 28 {
        assert_eq!(seen_as(&engine, "one", &outside), "10.60.0.2", "--ip-masq=false");
    }
}

/// A configuration that changes under containers that run waits for their end.
#[test]
fn the_subnet_stays_while_containers_run_in_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let configure = |json: &str| std::fs::write(file.path(), json).unwrap();
    configure(r#"{"ipv6": true, "bip": "10.70.0.1/24", "bip6": "fd70::7/64"}"#);
    // Docker 20.10 has no bip6, and stops containers with the daemon.
    if is_docker() {
        configure(r#"{"bip": "10.70.0.1/24"}"#);
    }
    let mut engine = Engine::builder().arg("--config-file").arg(file.path()).image("busybox").start();
    run(&engine, "one");
    has_line(&bridge_addresses(&engine), &["inet 10.70.0.1/24"]);
    assert!(pings(&engine, "one", "10.70.0.1"));
    if skip_on_docker(&engine, "--bip6") {
        return;
    }
    let reaches = |engine: &Engine| pings(engine, "one", "10.70.0.1") && pings(engine, "one", "fd70::7");
    has_line(&bridge_addresses(&engine), &["inet6 fd70::7/64"]);
    assert!(reaches(&engine));
    for json in [
        r#"{"ipv6": true, "bip": "10.71.0.1/24", "fixed-cidr-v6": "fd71::/64"}"#,
        r#"{"bip": "10.71.0.1/24"}"#,
    ] {
        engine.stop_daemon();
        configure(json);
        engine.start_daemon();
        has_line(&bridge_addresses(&engine), &["inet 10.70.0.1/24"]);
        assert!(reaches(&engine), "{json}");
    }
    engine.docker(&["rm", "-f", "one"]).ok();
    engine.stop_daemon();
    engine.start_daemon();
    has_line(&bridge_addresses(&engine), &["inet 10.71.0.1/24"]);
    assert!(!bridge_addresses(&engine).contains("10.70.0.1"));
}

/// A bridge that somebody else made, of a LAN say, is used as it is.
#[test]
fn a_bridge_that_is_named_and_there_is_used_as_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{}").unwrap();
    let mut engine = Engine::builder().arg("--config-file").arg(file.path()).image("busybox").start();
    engine.stop_daemon();
    let host = engine.host();
    host.run(&["ip", "link", "add", "br-own", "type", "bridge"]).ok();
    host.run(&["ip", "address", "add", "10.80.0.7/24", "dev", "br-own"]).ok();
    std::fs::write(file.path(), r#"{"bridge": "br-own"}"#).unwrap();
    engine.start_daemon();
    run(&engine, "one");
    has_line(&inside(&engine, "one", "ip route"), &["default via 10.80.0.7"]);
    has_line(&inside(&engine, "one", "ip addr show eth0"), &["inet 10.80.0.", "/24"]);
    assert!(pings(&engine, "one", "10.80.0.7"));
    has_line(engine.host().run(&["ip", "link", "show", "master", "br-own"]).ok(), &["veth"]);
    engine.docker(&["rm", "-f", "one"]).ok();
    engine.stop_daemon();
    std::fs::write(file.path(), "{}").unwrap();
    engine.start_daemon();
    let left = engine.host().run(&["ip", "address", "show", "br-own"]).ok().to_owned();
    has_line(&left, &["inet 10.80.0.7/24"]);
    assert_eq!(left.matches("inet ").count(), 1, "{left}");
}

#[test]
fn what_would_break_every_container_is_refused_at_start() {
    let mut engine = Engine::start();
    if skip_on_docker(&engine, "a daemon that the test starts itself") {
        return;
    }
    engine.stop_daemon();
    let home = engine.home().display().to_string();
    for (words, part) in [
        (vec!["--bip", "10.50.0.1/24", "--fixed-cidr", "10.60.0.0/16"], "invalid --fixed-cidr 10.60.0.0/16"),
        (
            vec!["--bip", "10.50.0.1/24", "--default-gateway", "10.60.0.1"],
            "invalid --default-gateway 10.60.0.1",
        ),
        (vec!["--bip", "10.50.0.0/24"], "invalid --bip 10.50.0.0/24"),
        (vec!["--ipv6", "--fixed-cidr-v6", "ff02::/64"], "multicast subnet ff02::/64 is not allowed"),
        (vec!["--bip6", "fd50::1/64"], "--bip6 needs --ipv6"),
        (vec!["--mtu", "20"], "invalid --mtu 20"),
    ] {
        let data = format!("{home}/data2");
        let mut all = vec![portolan_binary().display().to_string(), "daemon".into()];
        all.extend(["--host", "unix:///tmp/never", "--data-root", &data].map(str::to_owned));
        all.extend(
            ["--exec-root", &format!("{home}/exec2"), "--pidfile", &format!("{home}/pid2")]
                .map(str::to_owned),
        );
        all.extend(words.iter().map(|&word| word.to_owned()));
        let refused = engine.host().run(&[&["timeout".to_owned(), "20".to_owned()][..], &all].concat());
        assert_ne!(refused.code, 124, "it starts with {words:?}");
        has_line(refused.fails(), &[part]);
    }
}

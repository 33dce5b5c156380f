//! What a crash of the daemon leaves standing, and that nothing is left behind.

use std::time::Duration;

use portolan_e2e::{eventually, has_line, hear, inspect, is_portolan, run_server};
use portolan_testkit::{Engine, EngineBuilder, EngineKind, Firewall, Host, skip};

/// dockerd keeps containers over a restart only when told to.
fn durable() -> EngineBuilder {
    let builder = Engine::builder().image("busybox");
    match EngineKind::from_env() {
        EngineKind::Docker => builder.arg("--live-restore"),
        EngineKind::Portolan => builder,
    }
}

/// The parent of a container's first process.
fn shim_of(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().to_owned()
}

#[test]
fn containers_their_logs_and_ports_survive_a_kill_of_the_daemon() {
    let mut engine = durable().start();
    if !is_portolan(&engine) {
        skip!("dockerd does not come back by itself after a kill: its containerd is still there");
    }
    engine.docker(&["network", "create", "mine"]).ok();
    run_server(&engine, "server", 7000, "alive", &["--network", "mine", "-p", "8000:7000"]);
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "ticker",
            "busybox",
            "sh",
            "-c",
            "while :; do echo tick; sleep 0.1; done",
        ])
        .ok();
    engine.docker(&["run", "-di", "--name", "cat", "busybox", "cat"]).ok();
    engine.docker(&["restart", "-t", "0", "cat"]).ok();
    let first = inspect(&engine, "cat", "{{.State.StartedAt}}");
    let pid = inspect(&engine, "server", "{{.State.Pid}}");
    let address = inspect(&engine, "server", "{{.NetworkSettings.Networks.mine.IPAddress}}");
    eventually("it answers", 10, || (hear(engine.host(), "127.0.0.1", 8000) == "alive").then_some(()));

    engine.docker(&["restart", "-t", "0", "cat"]).ok();
    let killed = engine.host().run(&["date", "-u", "+%FT%T.%NZ"]).ok().to_owned();
    engine.kill_daemon();
    eventually("the data path does not need the daemon", 5, || {
        (hear(engine.host(), "127.0.0.1", 8000) == "alive").then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    engine.start_daemon();

    assert_eq!(inspect(&engine, "server", "{{.State.Running}} {{.State.Pid}}"), format!("true {pid}"));
    assert_eq!(inspect(&engine, "server", "{{.NetworkSettings.Networks.mine.IPAddress}}"), address);
    let second = inspect(&engine, "cat", "{{.State.StartedAt}}");
    assert!(
        first < second && second < killed,
        "the start just before the kill is known: {first} {second} {killed}"
    );
    eventually("it answers again", 10, || (hear(engine.host(), "127.0.0.1", 8000) == "alive").then_some(()));
    let ticks = || engine.docker(&["logs", "ticker"]).stdout.lines().count();
    let before = ticks();
    assert!(before >= 5, "output during the outage is kept: {before} lines");
    eventually("logs go on", 10, || (ticks() > before).then_some(()));
    assert_eq!(engine.docker(&["exec", "server", "echo", "exec works"]).ok(), "exec works");
    engine.docker(&["run", "--rm", "--network", "mine", "busybox", "ping", "-c1", "-W2", "server"]).ok();
    engine.docker(&["stop", "-t", "0", "server"]).ok();
    assert_eq!(hear(engine.host(), "127.0.0.1", 8000), "", "the port is closed with it");
    has_line(engine.docker(&["ps"]).ok(), &["ticker"]);
}

#[test]
fn an_exit_during_the_outage_is_known_afterwards() {
    let mut engine = durable().start();
    if !is_portolan(&engine) {
        skip!("dockerd loses what a container writes while it is away");
    }
    engine
        .docker(&["run", "-d", "--name", "brief", "busybox", "sh", "-c", "sleep 1; echo last words; exit 17"])
        .ok();
    engine.kill_daemon();
    std::thread::sleep(Duration::from_millis(1500));
    engine.start_daemon();
    eventually("the exit is recorded", 10, || {
        (inspect(&engine, "brief", "{{.State.Status}} {{.State.ExitCode}}") == "exited 17").then_some(())
    });
    assert_eq!(engine.docker(&["logs", "brief"]).ok(), "last words");
}

#[test]
fn a_clean_stop_leaves_containers_running_unless_told_otherwise() {
    let mut engine = durable().start();
    engine.docker(&["run", "-d", "--name", "stays", "busybox", "sleep", "600"]).ok();
    let pid = inspect(&engine, "stays", "{{.State.Pid}}");
    engine.stop_daemon();
    assert!(!engine.socket().exists() || !is_portolan(&engine), "the socket is gone");
    assert_eq!(engine.host().run(&["kill", "-0", &pid]).code, 0, "live-restore is the default");
    engine.start_daemon();
    assert_eq!(inspect(&engine, "stays", "{{.State.Pid}}"), pid);
    engine.interrupt_daemon();
    assert!(!engine.socket().exists() || !is_portolan(&engine), "the socket is gone after ^C");
    assert!(!engine.home().join("pid").exists(), "and the pid file");
    engine.start_daemon();
    assert_eq!(inspect(&engine, "stays", "{{.State.Pid}}"), pid);

    let mut other = Engine::builder().image("busybox").arg("--live-restore=false").start();
    other.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "ram"]).ok();
    other.docker(&["run", "-d", "--name", "goes", "-v", "ram:/ram", "busybox", "sleep", "600"]).ok();
    let pid = inspect(&other, "goes", "{{.State.Pid}}");
    let data = other.home().join("data/volumes").display().to_string();
    let mounted = |engine: &Engine| engine.host().run(&["grep", "-c", &data, "/proc/mounts"]).stdout;
    assert_eq!(mounted(&other), "1\n");
    other.stop_daemon();
    assert_ne!(other.host().run(&["kill", "-0", &pid]).code, 0);
    assert_eq!(mounted(&other), "0\n", "what was mounted for it goes with it");
}

#[test]
fn a_container_whose_shim_is_killed_ends_and_leaves_nothing() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("containerd's shims have other names");
    }
    engine.docker(&["run", "-d", "--name", "orphan", "-p", "8000:80", "busybox", "sleep", "600"]).ok();
    let pid = inspect(&engine, "orphan", "{{.State.Pid}}");
    engine.host().run(&["kill", "-9", &shim_of(&pid)]).ok();
    eventually("it is seen to have ended", 10, || {
        (inspect(&engine, "orphan", "{{.State.Running}}") == "false").then_some(())
    });
    assert_eq!(inspect(&engine, "orphan", "{{.State.ExitCode}}"), "137");
    assert_ne!(engine.host().run(&["kill", "-0", &pid]).code, 0, "its process is gone");
    engine.docker(&["start", "orphan"]).ok();
    assert_eq!(inspect(&engine, "orphan", "{{.State.Running}}"), "true", "and it can be started again");
}

#[test]
fn a_shim_that_does_not_answer_keeps_nobody() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("containerd's shims have other names");
    }
    for name in ["silent", "fine"] {
        engine.docker(&["run", "-d", "--name", name, "busybox", "sleep", "600"]).ok();
    }
    let pids = ["silent", "fine"].map(|name| inspect(&engine, name, "{{.State.Pid}}"));
    let shim = shim_of(&pids[0]);
    engine.host().run(&["kill", "-STOP", &shim]).ok();
    engine.kill_daemon();
    engine.start_daemon();
    for (name, pid) in ["silent", "fine"].into_iter().zip(&pids) {
        assert_eq!(
            inspect(&engine, name, "{{.State.Running}} {{.State.Pid}}"),
            format!("true {pid}"),
            "{name}"
        );
    }
    assert_eq!(engine.docker(&["exec", "fine", "echo", "goes on"]).ok(), "goes on");
    engine.docker(&["rm", "-f", "silent"]).ok();
    for process in [&pids[0], &shim] {
        eventually("it is gone, and its shim with it", 10, || {
            (engine.host().run(&["kill", "-0", process]).code != 0).then_some(())
        });
    }
}

/// By hand, or by a program that tidies /run up: what runs of ours cannot be found any more, and is in nobody's way.
#[test]
fn a_removed_exec_root_leaves_nothing_running_and_keeps_no_daemon_from_starting() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("containerd's shims have other names");
    }
    engine.docker(&["run", "-d", "--name", "once", "-p", "8000:80", "busybox", "sleep", "600"]).ok();
    engine.docker(&["run", "-d", "--name", "again", "--restart", "always", "busybox", "sleep", "600"]).ok();
    let pids = ["once", "again"].map(|name| inspect(&engine, name, "{{.State.Pid}}"));
    let shims = pids.each_ref().map(|pid| shim_of(pid));
    let exec = engine.home().join("exec").display().to_string();
    // Sandboxes' namespaces are mounted there, and stay.
    engine.host().run(&["rm", "-rf", &exec]);
    assert_eq!(inspect(&engine, "once", "{{.State.Running}}"), "true", "the daemon has them still");
    let resolver = format!("^/proc/self/exe resolver {exec}/");
    engine.host().run(&["pgrep", "-f", &resolver]).ok();
    engine.kill_daemon();
    eventually("the resolver ends, which kept tables and ports", 10, || {
        (engine.host().run(&["pgrep", "-f", &resolver]).code != 0).then_some(())
    });
    engine.start_daemon();
    assert_eq!(inspect(&engine, "once", "{{.State.Running}} {{.State.ExitCode}}"), "false 137");
    eventually("it is started by its policy", 10, || {
        (inspect(&engine, "again", "{{.State.Running}}") == "true").then_some(())
    });
    for process in pids.iter().chain(&shims) {
        eventually("no other runs beside it", 10, || {
            (engine.host().run(&["kill", "-0", process]).code != 0).then_some(())
        });
    }
    engine.docker(&["start", "once"]).ok();
    for name in ["once", "again"] {
        assert_eq!(engine.docker(&["exec", name, "echo", "runs"]).ok(), "runs");
    }
}

#[test]
fn nothing_is_left_when_all_is_removed() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("dockerd does not come back by itself after a kill: its containerd is still there");
    }
    let traces = |engine: &Engine| {
        let home = engine.home().display();
        engine.host().sh(&format!("ip -o link | grep -c veth; ls {home}/exec/netns 2>/dev/null | grep -vc default; grep -c '{home}/.*overlay' /proc/mounts; nft list ruleset | grep -cw 8000; true")).stdout
    };
    engine.docker(&["network", "create", "mine"]).ok();
    for round in 0..3 {
        for n in 0..4 {
            let (name, port) = (format!("c{n}"), format!("{}:80", 8000 + n));
            engine
                .docker(&[
                    "run",
                    "-d",
                    "--name",
                    &name,
                    "--network",
                    "mine",
                    "-p",
                    &port,
                    "busybox",
                    "sleep",
                    "600",
                ])
                .ok();
        }
        if round == 1 {
            engine.kill_daemon();
            engine.start_daemon();
        }
        engine.wipe();
        if is_portolan(&engine) {
            assert_eq!(
                traces(&engine),
                "0\n0\n0\n0\n",
                "links, namespaces, mounts, rules after round {round}"
            );
        }
    }
    engine.docker(&["network", "rm", "mine"]).ok();
    assert!(!engine.host().run(&["ip", "-o", "link"]).ok().contains("br-"));
}

/// Files that say which backend the daemon has, and a folder whose programs of iptables are the older ones.
struct Backends {
    file: tempfile::NamedTempFile,
    legacy: tempfile::TempDir,
}

impl Backends {
    fn new() -> Self {
        let legacy = tempfile::tempdir().expect("a directory");
        for family in ["iptables", "ip6tables"] {
            for part in ["", "-save", "-restore"] {
                let link = legacy.path().join(format!("{family}{part}"));
                std::os::unix::fs::symlink("/usr/sbin/xtables-legacy-multi", link).expect("a link");
            }
        }
        let own = Self { file: tempfile::NamedTempFile::new().expect("a file"), legacy };
        own.choose("{}");
        own
    }

    fn choose(&self, json: &str) {
        std::fs::write(self.file.path(), json).expect("it is ours");
    }

    fn engine(&self, legacy: bool) -> Engine {
        let builder = Engine::builder().arg("--config-file").arg(self.file.path()).image("busybox");
        let path = std::env::var("PATH").unwrap_or_default();
        match legacy {
            true => builder.env("PATH", format!("{}:{path}", self.legacy.path().display())).start(),
            false => builder.start(),
        }
    }
}

/// The other backend holds what the one before held, and nothing of that is left; both variants of iptables.
#[test]
fn the_backend_can_be_changed_under_running_containers() {
    if EngineKind::from_env() == EngineKind::Docker {
        skip!("Docker's are another story");
    }
    // It begins with nftables, whatever the others have.
    if Firewall::from_env() == Firewall::Iptables {
        return;
    }
    let backends = Backends::new();
    let lacks = Host::new("probe").run(&["/usr/sbin/xtables-legacy-multi", "iptables", "-t", "nat", "-S"]);
    let variants = if lacks.code == 0 { &[("nft", false), ("legacy", true)][..] } else { &[("nft", false)] };
    for &(variant, legacy) in variants {
        let mut engine = backends.engine(legacy);
        let outside = Host::new("outside");
        outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
        outside.sh("ip route add 172.17.0.0/16 via 198.51.100.2").ok();
        run_server(&engine, "server", 7000, "alive", &["-p", "8000:7000"]);
        // The rules beside the user's own.
        let rules = |engine: &Engine, family: &str| {
            let saved = engine.host().run(&[&format!("/usr/sbin/xtables-{variant}-multi"), family]);
            saved.ok().lines().filter(|line| line.starts_with("-A") && !line.contains("DOCKER-USER")).count()
        };
        for (round, backend) in ["nftables", "iptables", "nftables"].into_iter().enumerate() {
            if round > 0 {
                engine.stop_daemon();
                backends.choose(&format!(r#"{{"firewall-backend": "{backend}"}}"#));
                engine.start_daemon();
            }
            let what = format!("{backend}, {variant}, round {round}");
            eventually(&what, 10, || (hear(&outside, "198.51.100.2", 8000) == "alive").then_some(()));
            assert_eq!(hear(&outside, "172.17.0.2", 7000), "", "closed: {what}");
            let counts = ["iptables-save", "ip6tables-save"].map(|family| rules(&engine, family));
            // Beside iptables there is a floor, which translates nothing.
            let native = engine.host().run(&["nft", "list", "table", "inet", "portolan"]).stdout;
            let as_chosen = match backend {
                "iptables" => counts.iter().all(|count| *count > 5) && !native.contains("dnat ip to"),
                _ => counts == [0, 0] && native.contains("dnat ip to"),
            };
            assert!(as_chosen, "{what}: {counts:?} {native}");
        }
        backends.choose("{}");
    }
}

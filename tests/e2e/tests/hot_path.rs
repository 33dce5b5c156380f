//! What `run` does not do: start helper programs.

use std::process::{Command, Stdio};

use portolan_e2e::{eventually, is_portolan};
use portolan_testkit::{Engine, Firewall, skip};

#[test]
fn run_executes_nothing_but_the_container_s_program() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("dockerd runs containerd-shim, runc, iptables and docker-proxy");
    }
    if Firewall::from_env() == Firewall::Iptables {
        skip!("the iptables backend runs iptables-restore by its nature");
    }
    engine.docker(&["network", "create", "mine"]).ok();
    let words = ["run", "--rm", "--network", "mine", "-p", "8000:80", "busybox", "true"];
    engine.docker(&words).ok();
    let trace = engine.home().join("trace");
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", engine.pid())).unwrap_or_default();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=execve", "-o"]).arg(&trace);
    for pid in std::iter::once(engine.pid().to_string()).chain(children.split_whitespace().map(str::to_owned))
    {
        command.args(["-p", &pid]);
    }
    let mut strace = command.stdin(Stdio::null()).spawn().expect("strace runs");
    eventually("strace is attached", 10, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).ok()?;
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")).then_some(())
    });
    engine.docker(&words).ok();
    engine.host().run(&["kill", "-INT", &strace.id().to_string()]).ok();
    strace.wait().expect("strace is our child");
    let executed = std::fs::read_to_string(&trace).expect("a trace");
    let programs: Vec<_> =
        executed.lines().filter(|line| line.contains("execve(") && line.contains(" = 0")).collect();
    assert_eq!(programs.len(), 1, "{executed}");
    assert!(programs[0].contains("true"), "{executed}");
}

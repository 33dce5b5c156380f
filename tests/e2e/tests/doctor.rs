//! `portolan doctor` finds what is broken on purpose, and says so no more when it is mended. What a namespace
//! cannot provoke (a kernel that lacks a feature, a full table of connections) is in the unit tests of
//! `portolan-net`.

use std::os::unix::ffi::OsStrExt;

use portolan_e2e::{eventually, has_line, is_portolan};
use portolan_testkit::{Engine, Host, Output, portolan_binary, run, skip};

fn doctor(engine: &Engine) -> Output {
    let socket = format!("unix://{}", engine.socket().display());
    let mut words = engine.host().prefix();
    words.extend([portolan_binary().into_os_string(), "-H".into(), socket.into(), "doctor".into()]);
    run(&words, None)
}

/// It has this problem, with this advice.
fn finds(engine: &Engine, problem: &[&str], advice: &str) {
    let ill = doctor(engine);
    assert_eq!(ill.code, 1, "{}", ill.all());
    has_line(&ill.stdout, &[&["problem"], problem].concat());
    has_line(&ill.stdout, &[advice]);
}

fn is_well(engine: &Engine, what: &str) {
    eventually(what, 10, || {
        let well = doctor(engine);
        (well.code == 0).then_some(())
    });
}

#[test]
fn strict_return_paths_with_two_uplinks_are_found() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no doctor");
    }
    let host = engine.host();
    let outside = [Host::new("one"), Host::new("two")];
    outside[0].wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    outside[1].wire("up0", "203.0.113.1/24", host, "up2", "203.0.113.2/24");
    host.sh("ip route add default via 198.51.100.1; ip route add default via 203.0.113.1 metric 9").ok();
    host.sh("for i in all up1 up2; do sysctl -qw net.ipv4.conf.$i.rp_filter=0; done").ok();
    is_well(&engine, "nothing is wrong");
    host.sh("sysctl -qw net.ipv4.conf.up2.rp_filter=1").ok();
    let fix = "sysctl -w net.ipv4.conf.up2.rp_filter=2";
    finds(&engine, &["rp_filter", "up2 filters by the strict reverse path"], fix);
    host.sh(fix).ok();
    is_well(&engine, "the advice helps");
}

#[test]
fn a_namespace_that_belongs_to_no_container_is_found_and_goes_with_the_next_start() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no doctor");
    }
    is_well(&engine, "nothing is wrong");
    let (exec, short, id) =
        (engine.home().join("exec").display().to_string(), "a".repeat(12), "a".repeat(64));
    let pin = format!("{exec}/netns/{short}");
    let line = format!(
        "touch {pin} && ln -s {id} {exec}/netns-ids/{short} && unshare --net mount --bind /proc/self/ns/net {pin}"
    );
    engine.host().sh(&line).ok();
    let problem = format!("network namespace {short} belongs to no container");
    finds(&engine, &["leftovers", &problem], "fix: systemctl restart portolan");
    engine.kill_daemon();
    engine.start_daemon();
    is_well(&engine, "the advice helps");
    assert!(!std::path::Path::new(&pin).exists());
}

/// The process that answers names.
fn resolver(engine: &Engine) -> Option<String> {
    let socket = engine.home().join("exec/resolver.sock");
    std::fs::read_dir("/proc").expect("procfs").flatten().find_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).skip(1);
        let is = words.next() == Some(b"resolver") && words.next() == Some(socket.as_os_str().as_bytes());
        is.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

/// A process that stands still, until this goes.
struct Stopped<'a>(&'a str);

impl<'a> Stopped<'a> {
    fn new(pid: &'a str) -> Self {
        run(&["kill", "-STOP", pid], None).ok();
        let stopped = Self(pid);
        // A signal takes effect when the process next runs.
        eventually("it stands still", 10, || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
            status.contains("State:\tT").then_some(())
        });
        stopped
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        run(&["kill", "-CONT", self.0], None);
    }
}

#[test]
fn a_resolver_that_hangs_is_found_and_does_not_hang_the_doctor() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no doctor");
    }
    engine.docker(&["network", "create", "named"]).ok();
    engine.docker(&["run", "-d", "--network", "named", "busybox", "sleep", "600"]).ok();
    is_well(&engine, "nothing is wrong");
    let pid = eventually("it runs", 10, || resolver(&engine));
    let stopped = Stopped::new(&pid);
    finds(&engine, &["resolver", "the resolver does not answer"], "fix: systemctl restart portolan");
    drop(stopped);
    is_well(&engine, "it answers again");
}

//! Processes of the engine are killed at random moments of a busy life: afterwards it works, tells the
//! truth, and nothing is left. `PORTOLAN_CHAOS_SEED` repeats a run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_e2e::{inspect, is_portolan};
use portolan_testkit::{Engine, run, skip};

/// How long it goes on.
const DURATION: Duration = Duration::from_secs(15);

/// xorshift64: a test needs a seed more than it needs quality.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What is left of containers in the kernel and on disk, in words.
fn traces(engine: &Engine) -> Vec<String> {
    let mut traces = Vec::new();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    traces.extend(lines(&engine.host().sh("ip -o link | grep -o 'veth[^@:]*'").stdout));
    traces.extend(helpers(engine, "portolan-shim").into_iter().map(|pid| format!("shim {pid}")));
    for directory in ["exec/shims", "exec/netns", "data/containers"] {
        for entry in std::fs::read_dir(engine.home().join(directory)).into_iter().flatten().flatten() {
            traces.push(entry.path().display().to_string());
        }
    }
    traces.push(
        engine.host().sh("nft list ruleset | grep -v counter | sed 's, # progname .*,,' | sort").stdout,
    );
    traces
}

fn all_processes() -> impl Iterator<Item = (u32, String)> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        Some((pid, command.replace('\0', " ").trim().to_owned()))
    })
}

/// Those that live in the engine's network namespace and whose command line has `word`.
fn helpers(engine: &Engine, word: &str) -> Vec<u32> {
    let pids = run(&["ip", "netns", "pids", engine.host().name()], None).stdout;
    let pids: Vec<u32> = pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    all_processes()
        .filter(|(pid, command)| pids.contains(pid) && command.contains(word))
        .map(|(pid, _)| pid)
        .collect()
}

fn kill(pid: u32) {
    run(&["kill", "-9", &pid.to_string()], None);
}

/// Round after round of what people do; any of it may fail.
fn live(client: &[std::ffi::OsString], worker: u64, stop: &AtomicBool) {
    let docker = |words: &[&str]| {
        let mut all = client.to_vec();
        all.extend(words.iter().map(std::ffi::OsString::from));
        run(&all, None)
    };
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let name = format!("w{worker}-{round}");
        let port = format!("{}:80", 20_000 + worker * 1000 + round);
        docker(&["run", "-d", "--name", &name, "-p", &port, "busybox", "sleep", "600"]);
        docker(&["network", "connect", "mesh", &name]);
        docker(&["exec", &name, "true"]);
        docker(&["network", "disconnect", "mesh", &name]);
        docker(&["run", "--rm", "--network", "mesh", "busybox", "true"]);
        if round % 3 != 0 {
            docker(&["rm", "-f", &name]);
        }
    }
}

#[test]
fn whatever_is_killed_nothing_is_lost_or_left() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("dockerd does not come back by itself after a kill: its containerd is still there");
    }
    let seed =
        std::env::var("PORTOLAN_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
    let mut random = Random(seed);
    engine.docker(&["network", "create", "mesh"]).ok();
    let quiet = traces(&engine);
    engine.docker(&["run", "-d", "--name", "rock", "--network", "mesh", "busybox", "sleep", "600"]).ok();
    let rock = inspect(&engine, "rock", "{{.State.Pid}}");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let client = engine.client();
            let stop = &stop;
            scope.spawn(move || live(&client, worker, stop));
        }
        let end = Instant::now() + DURATION;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100 + random.below(700)));
            strike(&mut engine, &mut random, &rock);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(inspect(&engine, "rock", "{{.State.Running}} {{.State.Pid}}"), format!("true {rock}"));
    let told = engine.docker(&["run", "--rm", "--network", "mesh", "busybox", "nslookup", "rock"]);
    assert!(told.all().contains("rock"), "names are answered: {}", told.all());
    for id in engine.docker(&["ps", "-q", "--no-trunc"]).ok().split_whitespace() {
        let pid = inspect(&engine, id, "{{.State.Pid}}");
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "what is said to run runs: {id}");
    }
    let ids: Vec<String> = engine.docker(&["ps", "-aq"]).ok().split_whitespace().map(str::to_owned).collect();
    let words: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    engine.docker(&words).ok();
    let mut left = Vec::new();
    for _ in 0..50 {
        left = traces(&engine);
        if left == quiet {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(left, quiet, "no trace is left");
}

/// Kills one process, and starts the daemon again if it was the one.
fn strike(engine: &mut Engine, random: &mut Random, rock: &str) {
    let one_of = |pids: Vec<u32>, random: &mut Random| {
        if pids.is_empty() { None } else { pids.get(random.below(pids.len() as u64) as usize).copied() }
    };
    match random.below(6) {
        0 => {
            engine.kill_daemon();
            std::thread::sleep(Duration::from_millis(random.below(200)));
            engine.start_daemon();
        }
        1 => helpers(engine, "portolan-launcher").into_iter().for_each(kill),
        2 => helpers(engine, "resolver").into_iter().for_each(kill),
        3 => {
            let rocks = run(&["ps", "-o", "ppid=", "-p", rock], None).stdout.trim().to_owned();
            let shims = helpers(engine, "portolan-shim").into_iter();
            let shims = shims.filter(|pid| pid.to_string() != rocks).collect();
            one_of(shims, random).into_iter().for_each(kill);
        }
        _ => {
            let ids = engine.docker(&["ps", "-q", "-f", "name=w"]);
            let ids: Vec<String> = ids.stdout.split_whitespace().map(str::to_owned).collect();
            let pids = ids.iter().filter_map(|id| {
                engine.docker(&["inspect", "-f", "{{.State.Pid}}", id]).stdout.trim().parse().ok()
            });
            let pids = pids.filter(|pid| *pid != 0).collect();
            one_of(pids, random).into_iter().for_each(kill);
        }
    }
}

//! The black-box suite: a client drives an engine and the tests look at what it prints, at the kernel
//! and at packets. It knows nothing of either's inside, so that it can be pointed at a real dockerd
//! (`make test-docker`) and be proven there. The tests are in `tests/`; this is what they share.

pub mod attack;

use std::time::{Duration, Instant};

use portolan_testkit::{Engine, EngineKind, Host, Output, portolan_binary, run};

/// Runs `check` until it gives a value, for at most `seconds`; `what` is for the message.
#[track_caller]
pub fn eventually<T>(what: &str, seconds: u64, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asserts that some line of `text` has `words` in this order, with anything between them.
#[track_caller]
pub fn has_line(text: &str, words: &[&str]) {
    let matches = |line: &&str| {
        let mut rest = *line;
        words.iter().all(|word| match rest.find(word) {
            Some(at) => {
                rest = &rest[at + word.len()..];
                true
            }
            None => false,
        })
    };
    assert!(text.lines().any(|line| matches(&line)), "no line has {words:?} in\n{text}");
}

/// Fetches a page in `host`, giving up after five seconds.
pub fn fetch(host: &Host, url: &str) -> Output {
    host.run(&["curl", "-sS", "-g", "-m", "5", "--noproxy", "*", url])
}

/// The value that a template of `inspect` gives.
pub fn inspect(engine: &Engine, name: &str, template: &str) -> String {
    engine.docker(&["inspect", "--format", template, name]).ok().to_owned()
}

/// Starts a container that answers `answer` to every TCP connection on `port`.
pub fn run_server(engine: &Engine, name: &str, port: u16, answer: &str, flags: &[&str]) {
    let serve = format!("while true; do echo {answer} | nc -l -p {port}; done");
    let words = [&["run", "-d", "--name", name], flags, &["busybox", "sh", "-c", &serve]].concat();
    engine.docker(&words).ok();
}

/// What a TCP server says to a client in `host`; empty if it cannot be reached within two seconds.
pub fn hear(host: &Host, address: &str, port: u16) -> String {
    let line = format!("curl -s -m 2 telnet://{address}:{port} </dev/null");
    host.run(&["sh", "-c", &line]).stdout.trim().to_owned()
}

/// The process that answers names for this engine, and keeps what is to outlive its daemon.
pub fn resolver(engine: &Engine) -> Option<u32> {
    let socket = engine.home().join("exec/resolver.sock");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"resolver") && words.next() == Some(socket.as_os_str().as_encoded_bytes())
    })
}

/// Runs our own client, whichever the tests otherwise use.
pub fn portolan(engine: &Engine, words: &[&str]) -> Output {
    let socket = format!("unix://{}", engine.socket().display());
    let binary = portolan_binary().display().to_string();
    run(&[&[binary.as_str(), "--host", &socket], words].concat(), None)
}

/// Whether the engine under test is ours, for what Docker does not have.
pub fn is_portolan(engine: &Engine) -> bool {
    engine.kind() == EngineKind::Portolan
}

/// Whether the engine under test has what Docker has since this major version: ours does.
pub fn has_since(engine: &Engine, major: u32) -> bool {
    is_portolan(engine) || engine.major() >= major
}

/// Whether to leave a test out because Docker's engine is the one under test and has no `what`; says so.
pub fn skip_on_docker(engine: &Engine, what: &str) -> bool {
    skips_for(!is_portolan(engine), what)
}

/// The same of what Docker has since this major version.
pub fn skip_before(engine: &Engine, major: u32, what: &str) -> bool {
    skips_for(!has_since(engine, major), what)
}

#[expect(clippy::print_stdout, reason = "scripts/test.sh counts and names what is left out")]
fn skips_for(skips: bool, what: &str) -> bool {
    if skips {
        println!("SKIPPED: this dockerd has no {what}");
    }
    skips
}

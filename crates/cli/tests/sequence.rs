//! What the CLI says to a daemon, held against a daemon that is only a script.
//!
//! The CLI runs as a process of its own: this test program again, told by the environment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

const ID: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";

/// The CLI itself, when this program is run as it; nothing otherwise.
#[test]
fn cli() {
    if let Ok(words) = std::env::var("PORTOLAN_CLI_WORDS") {
        let argv = words.split('\u{1f}').map(Into::into).collect();
        let status = portolan_cli::main(argv);
        // libtest has no way to end with a status of ours.
        std::process::exit(if status == std::process::ExitCode::from(3) { 3 } else { 1 });
    }
}

#[derive(Default)]
struct State {
    requests: Vec<String>,
    heads: Vec<Vec<String>>,
    bodies: Vec<String>,
    started: bool,
    ended: bool,
}

#[derive(Default)]
struct Daemon {
    state: Mutex<State>,
    changed: Condvar,
}

impl Daemon {
    fn serve(self: Arc<Daemon>, listener: UnixListener) {
        for stream in listener.incoming() {
            let daemon = self.clone();
            std::thread::spawn(move || daemon.connection(stream.unwrap()));
        }
    }

    fn connection(&self, stream: UnixStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some((line, headers)) = read_head(&mut reader) {
            let length = header(&headers, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            self.change(|state| {
                state.requests.push(line.clone());
                state.heads.push(headers.clone());
                state.bodies.push(String::from_utf8(body).unwrap());
            });
            if line.contains("/create") {
                answer(&mut writer, "201 Created", &format!("{{\"Id\":\"{ID}\",\"Warnings\":[]}}"));
            } else if line.contains("/start") {
                self.change(|state| state.started = true);
                writer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            } else if line.contains("/wait") {
                // The headers go out at once, the body when the container is over.
                writer
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .unwrap();
                self.until(|state| state.ended);
                writer.write_all(b"10\r\n{\"StatusCode\":3}\r\n0\r\n\r\n").unwrap();
            } else if line.contains("/attach") {
                assert_eq!(header(&headers, "upgrade"), Some("tcp"));
                writer
                    .write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                    .unwrap();
                self.until(|state| state.started);
                let mut input = Vec::new();
                // Ends only if the client closes its half.
                reader.read_to_end(&mut input).unwrap();
                frame(&mut writer, 1, &[b"echo:", input.as_slice()].concat());
                frame(&mut writer, 2, b"on stderr\n");
                self.change(|state| state.ended = true);
                return;
            } else if line.contains("/portolan/") {
                answer(&mut writer, "404 Not Found", "{\"message\":\"page not found\"}");
            } else {
                answer(&mut writer, "404 Not Found", "{\"message\":\"no such route\"}");
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn until(&self, reached: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !reached(state)).unwrap());
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(String, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let request = lines.remove(0);
    Some((request.trim_end_matches(" HTTP/1.1").to_owned(), lines))
}

fn header<'h>(headers: &'h [String], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn answer(writer: &mut impl Write, status: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    writer.write_all(text.as_bytes()).unwrap();
}

fn frame(writer: &mut impl Write, kind: u8, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    writer.write_all(&[kind, 0, 0, 0]).unwrap();
    writer.write_all(&length).unwrap();
    // In two pieces: a frame may arrive in parts.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    writer.write_all(first).unwrap();
    writer.flush().unwrap();
    writer.write_all(second).unwrap();
}

struct Ran {
    stdout: String,
    stderr: String,
    status: Option<i32>,
    requests: Vec<String>,
    heads: Vec<Vec<String>>,
    bodies: Vec<String>,
}

/// The CLI at work on a daemon of its own.
struct Running {
    child: Child,
    daemon: Arc<Daemon>,
    socket: PathBuf,
}

fn begin(name: &str, words: &[&str], environment: &[(&str, &Path)]) -> Running {
    let socket = std::env::temp_dir().join(format!("portolan-cli-{name}-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = Arc::new(Daemon::default());
    let served = daemon.clone();
    std::thread::spawn(move || served.serve(listener));
    let host = format!("unix://{}", socket.display());
    let argv = [&["portolan", "--host", &host], words].concat().join("\u{1f}");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cli", "--nocapture"])
        .env("PORTOLAN_CLI_WORDS", argv)
        .env("DOCKER_CONFIG", "/nonexistent")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Running { child, daemon, socket }
}

impl Running {
    fn end(self) -> Ran {
        let output = self.child.wait_with_output().unwrap();
        std::fs::remove_file(&self.socket).unwrap();
        let state = std::mem::take(&mut *self.daemon.state.lock().unwrap());
        Ran {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            status: output.status.code(),
            requests: state.requests,
            heads: state.heads,
            bodies: state.bodies,
        }
    }
}

fn run(name: &str, words: &[&str], input: &[u8]) -> Ran {
    let mut running = begin(name, words, &[]);
    running.child.stdin.take().unwrap().write_all(input).unwrap();
    running.end()
}

#[test]
fn run_creates_attaches_waits_and_then_starts() {
    let ran = run("run", &["run", "-i", "--rm", "busybox", "cat"], b"hello\n");
    let at = |part: &str| {
        ran.requests
            .iter()
            .position(|request| request.contains(part))
            .unwrap_or_else(|| panic!("no {part} in {:?}", ran.requests))
    };
    assert_eq!(ran.requests.len(), 4, "nothing more is asked: {:?}", ran.requests);
    assert_eq!(at("POST /containers/create"), 0);
    assert!(at("/attach?stream=1&stdin=1&stdout=1&stderr=1") < at("/start"));
    assert!(at("/wait?condition=removed") < at("/start"));
    assert!(ran.stdout.contains("echo:hello\n"), "{}", ran.stdout);
    assert!(ran.stderr.contains("on stderr\n"), "{}", ran.stderr);
    assert_eq!(ran.status, Some(3));
}

#[test]
fn run_in_the_background_prints_the_id() {
    let ran = run("detached", &["run", "-tid", "--name", "web", "busybox"], b"");
    assert!(ran.stdout.contains(ID));
    assert_eq!(
        ran.requests,
        ["POST /containers/create?name=web".to_owned(), format!("POST /containers/{ID}/start")]
    );
}

#[test]
fn errors_of_the_daemon_read_as_in_docker() {
    let mut ran = run("error", &["rm", "-f", "web", "db"], b"");
    assert!(ran.stderr.contains("Error response from daemon: no such route\n"));
    // The containers are removed side by side.
    ran.requests.sort();
    assert_eq!(ran.requests, ["DELETE /containers/db?force=1", "DELETE /containers/web?force=1"]);
}

#[test]
fn a_daemon_that_is_not_ours_is_told_from_one_that_lacks_a_container() {
    for (words, path) in [
        (&["doctor"][..], "/portolan/doctor"),
        (&["exposure"], "/portolan/exposure"),
        (&["port", "add", "web", "8080:80"], "/portolan/containers/web/ports"),
    ] {
        let ran = run(words[0], words, b"");
        let said = format!("has no {path}: it is not Portolan, or an older one\n");
        assert!(ran.stderr.contains("the daemon at unix://") && ran.stderr.contains(&said), "{}", ran.stderr);
    }
}

#[test]
fn a_missing_daemon_is_told_with_the_way_out() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cli", "--nocapture"])
        .env("PORTOLAN_CLI_WORDS", "portolan\u{1f}-H\u{1f}unix:///nonexistent.sock\u{1f}ps")
        .output()
        .unwrap();
    let stderr = String::from_utf8(child.stderr).unwrap();
    assert!(stderr.contains("unix:///nonexistent.sock"), "{stderr}");
    assert!(stderr.contains("sudo portolan daemon --host unix:///nonexistent.sock"), "{stderr}");
}

#[test]
fn a_container_that_ignores_signals_can_be_left() {
    let mut running = begin("ignored", &["run", "-i", "busybox", "cat"], &[]);
    let input = running.child.stdin.take();
    let pid = rustix::process::Pid::from_child(&running.child);
    running.daemon.until(|state| state.started);
    for sent in 1..=3 {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let kills =
            |state: &State| state.requests.iter().filter(|line| line.contains("/kill?signal=INT")).count();
        if sent < 3 {
            running.daemon.until(|state| kills(state) == sent);
        }
    }
    let ran = running.end();
    drop(input);
    assert!(ran.stderr.contains("got 3 SIGTERM/SIGINTs, forcefully exiting"), "{}", ran.stderr);
    assert_eq!(ran.status, Some(1));
}

#[test]
fn the_configuration_file_is_followed() {
    let directory = std::env::temp_dir().join(format!("portolan-cli-followed-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let config = r#"{"HttpHeaders": {"X-Mine": "1"}, "detachKeys": "ctrl-x",
        "proxies": {"default": {"httpProxy": "http://p:1"}}}"#;
    std::fs::write(directory.join("config.json"), config).unwrap();
    let mut running = begin("config", &["run", "-i", "busybox", "cat"], &[("DOCKER_CONFIG", &directory)]);
    drop(running.child.stdin.take());
    let ran = running.end();
    std::fs::remove_dir_all(directory).unwrap();
    assert!(ran.heads.iter().all(|head| header(head, "x-mine") == Some("1")), "{:?}", ran.heads);
    assert!(ran.bodies[0].contains(r#""HTTP_PROXY=http://p:1","http_proxy=http://p:1""#), "{:?}", ran.bodies);
    assert!(ran.requests.iter().any(|line| line.contains("detachKeys=ctrl-x")), "{:?}", ran.requests);
}

#[test]
fn the_way_to_a_command_that_is_not_there_fails() {
    let ran = run("topic", &["help", "nosuch"], b"");
    assert!(ran.stderr.contains("unknown help topic: nosuch"), "{}", ran.stderr);
    assert_eq!(ran.status, Some(1));
}

//! What the CLI says to a daemon, held against a daemon that is only a script.
//!
//! The CLI runs as a process of its own: this test program again, told by the environment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
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
            self.state.lock().unwrap().requests.push(line.clone());
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
}

fn run(name: &str, words: &[&str], input: &[u8]) -> Ran {
    let path: PathBuf = std::env::temp_dir().join(format!("portolan-cli-{name}-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = Arc::new(Daemon::default());
    let served = daemon.clone();
    std::thread::spawn(move || served.serve(listener));
    let host = format!("unix://{}", path.display());
    let argv = [&["portolan", "--host", &host], words].concat().join("\u{1f}");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cli", "--nocapture"])
        .env("PORTOLAN_CLI_WORDS", argv)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let requests = std::mem::take(&mut daemon.state.lock().unwrap().requests);
    Ran {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code(),
        requests,
    }
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

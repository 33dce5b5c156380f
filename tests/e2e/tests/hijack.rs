//! Clients that take over their connection the old way: no `Upgrade` header, `200 OK`, then raw bytes.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use portolan_e2e::is_portolan;
use portolan_testkit::Engine;

/// A client that speaks HTTP by hand.
struct Client(UnixStream);

impl Client {
    fn new(engine: &Engine) -> Self {
        let stream = UnixStream::connect(engine.socket()).expect("the engine listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        Self(stream)
    }

    fn send(&mut self, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let head = format!(
            "POST /v1.41{path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.0.write_all(&[head.as_bytes(), body.as_bytes()].concat()).expect("sent");
    }

    /// Everything up to the empty line.
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("text")
    }

    /// Status and JSON of an ordinary answer.
    fn answer(&mut self) -> (String, serde_json::Value) {
        let head = self.head();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).expect("a body");
        let status = head.lines().next().unwrap_or_default().to_owned();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn exec(&mut self, container: &str, body: &str) -> String {
        self.send(&format!("/containers/{container}/exec"), "", body);
        let (status, answer) = self.answer();
        answer["Id"].as_str().unwrap_or_else(|| panic!("{status} {answer}")).to_owned()
    }

    /// Ends what we say and hears all the rest.
    fn finish(&mut self) -> Vec<u8> {
        self.0.shutdown(Shutdown::Write).expect("one side closed");
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("the rest");
        rest
    }
}

/// The text of one stream out of framed output.
fn demultiplex(mut framed: &[u8], stream: u8) -> String {
    let mut text = Vec::new();
    while let [kind, _, _, _, a, b, c, d, tail @ ..] = framed {
        let (piece, rest) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        if *kind == stream {
            text.extend_from_slice(piece);
        }
        framed = rest;
    }
    assert!(framed.is_empty(), "a broken frame: {framed:?}");
    String::from_utf8(text).expect("text")
}

#[test]
fn an_exec_without_upgrade_on_a_used_connection() {
    let engine = Engine::start();
    engine.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let mut client = Client::new(&engine);
    let body = r#"{"Cmd":["sh","-c","cat; echo err >&2"],"AttachStdin":true,"AttachStdout":true,"AttachStderr":true}"#;
    let exec = client.exec("c1", body);
    client.send(&format!("/exec/{exec}/start"), "", r#"{"Detach":false,"Tty":false}"#);
    let head = client.head();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("application/vnd.docker.raw-stream"),
        "{head}"
    );
    client.0.write_all(b"hello\n").expect("input");
    let output = client.finish();
    assert_eq!(
        (demultiplex(&output, 1), demultiplex(&output, 2)),
        ("hello\n".to_owned(), "err\n".to_owned())
    );
}

#[test]
fn input_right_behind_an_upgrade_is_not_lost() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        // Docker loses what comes in the same packet as the head.
        return;
    }
    engine.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let mut client = Client::new(&engine);
    let exec = client.exec("c1", r#"{"Cmd":["cat"],"AttachStdin":true,"AttachStdout":true}"#);
    client.send(&format!("/exec/{exec}/start"), "Connection: Upgrade\r\nUpgrade: tcp\r\n", "{}");
    client.0.write_all(b"early").expect("input");
    assert!(client.head().starts_with("HTTP/1.1 101 UPGRADED\r\n"));
    assert_eq!(demultiplex(&client.finish(), 1), "early");
}

#[test]
fn an_attach_without_upgrade_before_the_start() {
    let engine = Engine::start();
    engine.docker(&["create", "-i", "--name", "c1", "busybox", "sh", "-c", "echo one; cat"]).ok();
    let mut attached = Client::new(&engine);
    attached.send("/containers/c1/attach?stream=1&stdin=1&stdout=1&stderr=1", "", "");
    assert!(attached.head().starts_with("HTTP/1.1 200 OK\r\n"));
    let mut waiting = Client::new(&engine);
    waiting.send("/containers/c1/wait?condition=next-exit", "", "");
    assert!(waiting.head().starts_with("HTTP/1.1 200 OK\r\n"), "the head comes before the end");
    let mut client = Client::new(&engine);
    client.send("/containers/c1/start", "", "");
    assert!(client.answer().0.contains("204"));
    attached.0.write_all(b"two\n").expect("input");
    assert_eq!(demultiplex(&attached.finish(), 1), "one\ntwo\n");
    let mut outcome = [0; 4096];
    let read = waiting.0.read(&mut outcome).expect("the outcome");
    assert!(String::from_utf8_lossy(&outcome[..read]).contains("\"StatusCode\":0"));
}

#[test]
fn errors_of_hijack_requests_are_ordinary_answers() {
    let engine = Engine::start();
    let mut client = Client::new(&engine);
    client.send("/exec/nope/start", "", r#"{"Detach":false}"#);
    let (status, answer) = client.answer();
    assert!(status.contains("404"), "{status}");
    assert_eq!(answer["message"].as_str().map(|text| text.contains("nope")), Some(true), "{answer}");
}

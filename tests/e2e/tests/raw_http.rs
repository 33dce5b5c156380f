//! What arrives on the socket is not always HTTP, JSON or sense: every answer that is an error says why in JSON, and
//! the engine neither dies nor panics nor keeps a descriptor. `PORTOLAN_FUZZ_SEED` repeats a run.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use portolan_e2e::{eventually, inspect, is_portolan};
use portolan_testkit::{Engine, skip};

/// An answer: its status, head and body.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// Takes the bytes of a connection apart; status 0 if they are no answer.
    fn parse(bytes: &[u8]) -> Self {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Self::default();
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = bytes[end + 4..].to_vec();
        if head.contains("transfer-encoding: chunked") {
            body = unchunk(&body);
        }
        Answer { status, head, body }
    }

    fn message(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["message"].as_str().unwrap_or_default().to_owned()
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size =
            std::str::from_utf8(&bytes[..line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && bytes.len() >= line + 4 + size) else { break };
        body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 4 + size..];
    }
    body
}

fn connect(engine: &Engine) -> UnixStream {
    let stream = UnixStream::connect(engine.socket()).expect("the engine listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Sends bytes, then nothing more, and reads to the end. A reset or a timeout is a failure of the engine.
#[track_caller]
fn send(engine: &Engine, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(engine);
    stream.write_all(bytes).expect("the engine takes what is sent");
    stream.shutdown(std::net::Shutdown::Write).expect("the end of what is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the engine ends its answer");
    answer
}

fn request(engine: &Engine, method: &str, path: &str, body: &[u8]) -> Answer {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    let mut stream = connect(engine);
    // Takeovers have no end of their own.
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    stream.write_all(&bytes).expect("the engine takes the request");
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }
    Answer::parse(&answer)
}

#[track_caller]
fn refused(engine: &Engine, bytes: &[u8], status: u16, words: &str) {
    let answer = Answer::parse(&send(engine, bytes));
    assert_eq!(answer.status, status, "{}", answer.head);
    assert!(answer.message().contains(words), "{answer:?}");
}

fn descriptors(engine: &Engine) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).map_or(0, Iterator::count)
}

#[test]
fn what_is_no_request_is_answered_with_a_reason() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Go's HTTP server answers these in plain text");
    }
    refused(&engine, b"garbage\r\n\r\n", 400, "malformed HTTP request");
    refused(&engine, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed");
    refused(
        &engine,
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)).as_bytes(),
        414,
        "URI",
    );
    let header = format!("GET /_ping HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(600_000));
    refused(&engine, header.as_bytes(), 431, "header");
    let many: String = (0..500).map(|number| format!("X-{number}: a\r\n")).collect();
    refused(&engine, format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes(), 431, "header");
    let lengths =
        b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\n{} xx";
    refused(&engine, lengths, 400, "malformed");
    let chunk = b"POST /networks/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    refused(&engine, chunk, 400, "request body");
    let cut = b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{";
    refused(&engine, cut, 400, "request body");
    let takeover = b"POST /containers/x/attach HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n";
    refused(&engine, takeover, 400, "malformed");
}

#[test]
fn a_body_that_is_too_large_still_gets_its_answer() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("dockerd reads bodies of any length");
    }
    let piece = vec![b'['; 1 << 20];
    for path in ["/networks/create", "/exec/x/start"] {
        let mut stream = connect(&engine);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            100 << 20
        );
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..100 {
            stream.write_all(&piece).expect("the client may write to the end");
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("no reset");
        let answer = Answer::parse(&bytes);
        assert_eq!((answer.status, answer.message().contains("too large")), (413, true), "{answer:?}");
    }
}

#[test]
fn http_is_taken_as_it_comes() {
    let engine = Engine::start();
    assert_eq!(Answer::parse(&send(&engine, b"GET /_ping HTTP/1.0\r\nHost: x\r\n\r\n")).body, b"OK");
    assert_eq!(Answer::parse(&send(&engine, b"GET http://d/_ping HTTP/1.1\r\nHost: d\r\n\r\n")).body, b"OK");
    let chunked = "POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\n{\"Nam\r\n6\r\ne\":\"ch\r\n4\r\nk1\"}\r\n0\r\n\r\n";
    let ping = "GET /_ping HTTP/1.1\r\nHost: x\r\n";
    let pipelined = format!("{ping}\r\n{ping}\r\n{ping}Connection: close\r\n\r\n");
    for (pieces, status) in [
        (&["GET /_pi", "ng HTTP/1.1\r\nHo", "st: x\r\nConnection: close\r\n\r\n"][..], 200),
        (&[chunked], 201),
        (&[pipelined.as_str()], 200),
        // Not encoded, as people write it to curl.
        (
            &[
                "GET /networks?filters={\"name\":[\"bridge\"]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            ],
            200,
        ),
    ] {
        let mut client = connect(&engine);
        for piece in pieces {
            client.write_all(piece.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(Answer::parse(&answer).status, status, "{text}");
        assert_eq!(
            text.matches("HTTP/1.1 ").count(),
            pieces.concat().matches("HTTP/1.1\r\n").count(),
            "{text}"
        );
    }
    engine.docker(&["network", "rm", "chk1"]).ok();
}

/// A client may shut down its sending half and still wait for an answer that takes its time (`nc -N`).
#[test]
fn a_client_with_nothing_more_to_say_still_gets_its_answer() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("dockerd gives up what a client waits for that has half closed");
    }
    let name = "half";
    engine.docker(&["run", "-d", "--name", name, "busybox", "sleep", "60"]).ok();
    let mut waiting = connect(&engine);
    let wait = format!("POST /containers/{name}/wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    waiting.write_all(wait.as_bytes()).unwrap();
    waiting.shutdown(std::net::Shutdown::Write).unwrap();
    engine.docker(&["kill", name]).ok();
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("\"StatusCode\":137"), "{text}");
    engine.docker(&["rm", name]).ok();
}

#[test]
fn clients_that_leave_in_the_middle_leave_nothing() {
    let engine = Engine::start();
    let before = descriptors(&engine);
    // In the middle of a request, of an answer that has no end, and of that after the end of the request.
    let whole = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
    for (request, half_close) in [("GET /ev", false), (whole, false), (whole, true)] {
        let clients: Vec<UnixStream> = (0..300)
            .map(|_| {
                let mut client = connect(&engine);
                client.write_all(request.as_bytes()).unwrap();
                if half_close {
                    client.shutdown(std::net::Shutdown::Write).unwrap();
                }
                client
            })
            .collect();
        eventually("they are taken in", 10, || {
            (half_close || descriptors(&engine) >= before + 300).then_some(())
        });
        drop(clients);
        eventually("they are let go", 10, || (descriptors(&engine) <= before + 2).then_some(()));
    }
}

/// How long random requests are sent.
const DURATION: Duration = Duration::from_secs(8);

/// xorshift64: a test needs a seed more than it needs quality.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or_default()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn value(&mut self, depth: usize) -> serde_json::Value {
        use serde_json::{Value, json};
        match self.below(if depth > 3 { 6 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!([0, -1, 1, i64::MAX, i64::MIN][self.below(5)]),
            3 => json!(1e300),
            4 => json!(self.one(TEXTS)),
            5 => json!("x".repeat(self.below(5000))),
            6 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => Value::Object(
                (0..self.below(5)).map(|_| (self.one(KEYS).to_owned(), self.value(depth + 1))).collect(),
            ),
        }
    }

    /// A body: half of a right one, a right one with strange parts, or anything.
    fn body(&mut self) -> Vec<u8> {
        let mut right =
            serde_json::json!({"Image": "busybox", "Cmd": ["true"], "Name": "fuzz", "Container": "fz"});
        match self.below(4) {
            0 => {
                right[self.one(KEYS)] = self.value(0);
                right["HostConfig"] =
                    (0..self.below(4)).map(|_| (self.one(KEYS).to_owned(), self.value(0))).collect();
                right.to_string().into_bytes()
            }
            1 => {
                let mut text = right.to_string().into_bytes();
                let (at, len) = (self.below(text.len()), self.below(text.len()));
                text[at] = u8::try_from(self.below(256)).unwrap_or_default();
                text.truncate(len);
                text
            }
            _ => self.value(0).to_string().into_bytes(),
        }
    }
}

const TEXTS: &[&str] = &[
    "",
    "fz",
    "busybox",
    "bridge",
    "host",
    "..",
    "/",
    "../../etc/passwd",
    "a b",
    "%00",
    "%ff",
    "\u{0}",
    "☃",
    "sha256:0",
    "container:fz",
    "10.0.0.0/8",
    "::1",
    "80/tcp",
    "{\"a\":1}",
    "-1",
    "99999999999999999999",
    "a:b:c:d:e",
    "*",
    "[",
];

const KEYS: &[&str] = &[
    "Binds",
    "Mounts",
    "NetworkMode",
    "PortBindings",
    "RestartPolicy",
    "Memory",
    "NanoCpus",
    "Ulimits",
    "Devices",
    "CapAdd",
    "SecurityOpt",
    "Tmpfs",
    "LogConfig",
    "Sysctls",
    "Env",
    "Labels",
    "Healthcheck",
    "ExposedPorts",
    "Volumes",
    "WorkingDir",
    "User",
    "Entrypoint",
    "StopSignal",
    "MacAddress",
    "IPAM",
    "Options",
    "Driver",
    "EnableIPv6",
    "Config",
    "Subnet",
    "EndpointConfig",
    "NetworkingConfig",
    "EndpointsConfig",
    "Aliases",
    "IPAMConfig",
    "Links",
    "ShmSize",
    "CpusetCpus",
    "PidsLimit",
    "Dns",
    "ExtraHosts",
    "GroupAdd",
    "VolumesFrom",
    "Type",
    "Target",
    "Source",
    "Name",
];

/// `{}` is a name or any text.
const ROUTES: &[&str] = &[
    "POST /containers/create?name={}",
    "POST /containers/{}/start",
    "POST /containers/{}/stop?t={}",
    "POST /containers/{}/kill?signal={}",
    "POST /containers/{}/update",
    "POST /containers/{}/rename?name={}",
    "POST /containers/{}/resize?h={}&w={}",
    "POST /containers/{}/exec",
    "POST /exec/{}/start",
    "POST /exec/{}/resize?h={}&w={}",
    "POST /containers/prune?filters={}",
    "PUT /containers/{}/archive?path={}",
    "POST /networks/create",
    "POST /networks/{}/connect",
    "POST /networks/{}/disconnect",
    "POST /networks/prune?filters={}",
    "POST /volumes/create",
    "POST /volumes/prune?filters={}",
    "POST /images/load",
    "POST /images/create?fromSrc=-&repo={}",
    "POST /images/{}/tag?repo={}&tag={}",
    "POST /commit?container={}&repo={}",
    "POST /build?t={}",
    "POST /swarm/init",
    "DELETE /networks/{}",
    "DELETE /volumes/{}",
    "DELETE /containers/x{}",
    "DELETE /images/x{}",
    "GET /containers/json?filters={}&limit={}",
    "GET /networks?filters={}",
    "GET /images/json?filters={}",
    "GET /volumes?filters={}",
    "GET /events?until=1&since={}&filters={}",
    "GET /containers/{}/logs?stdout=1&tail={}&since={}",
    "GET /containers/{}/top?ps_args={}",
    "GET /containers/{}/archive?path={}",
    "HEAD /containers/{}/archive?path={}",
    "GET /images/{}/json?platform={}",
    "GET /system/df?type={}",
    "PUT /nosuch/{}",
    "POST /v1.{}/containers/create",
    "PATCH /containers/{}",
    "GET /containers/{}/stats?stream=0&one-shot=1",
];

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn fill(route: &str, random: &mut Random) -> String {
    let mut parts = route.split("{}");
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let text = match random.below(5) {
            0 => random.value(2).to_string(),
            1 | 2 => "fz".to_owned(),
            _ => random.one(TEXTS).to_owned(),
        };
        path.extend([escaped(&text.chars().take(200).collect::<String>()).as_str(), part]);
    }
    path
}

#[test]
fn random_requests_neither_kill_nor_leak() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("what dockerd says to nonsense is not ours to judge");
    }
    // With an init, so that it ends when a random request stops it.
    engine.docker(&["create", "--init", "--name", "fz", "busybox", "sleep", "600"]).ok();
    let seed = std::env::var("PORTOLAN_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = Random(seed);
    // A random request may give its name to another.
    let image = inspect(&engine, "busybox", "{{.Id}}");
    let before = descriptors(&engine);
    let end = Instant::now() + DURATION;
    let mut sent = 0;
    while Instant::now() < end {
        let (method, route) = random.one(ROUTES).split_once(' ').expect("a method and a path");
        let (path, body) = (fill(route, &mut random), random.body());
        let answer = request(&engine, method, &path, &body);
        let text = String::from_utf8_lossy(&body);
        let context =
            || format!("{method} {path} {} -> {answer:?}", text.chars().take(300).collect::<String>());
        assert!((200..600).contains(&answer.status) || answer.status == 101, "{}", context());
        if answer.status >= 400 && method != "HEAD" {
            assert!(!answer.message().is_empty(), "an error says why: {}", context());
        }
        sent += 1;
    }
    assert!(sent > 50, "only {sent} requests were answered in time");
    assert!(!engine.log().contains("panicked"), "{}", engine.log());
    eventually("descriptors are let go", 10, || (descriptors(&engine) <= before + 6).then_some(()));
    assert_eq!(engine.docker(&["run", "--rm", &image, "echo", "alive"]).ok(), "alive");
}

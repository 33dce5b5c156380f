//! What a client must not send: each gets a status, a message that names it, and leaves no trace.

use portolan_e2e::{has_line, is_portolan};
use portolan_testkit::{Engine, Output};

/// One request with curl: the status on the last line, after the body.
fn request(engine: &Engine, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
    let socket = engine.socket();
    let url = format!("http://localhost{path}");
    // dockerd looks for a name in all of a huge body, which takes a busy machine half a minute.
    let seconds = if is_portolan(engine) { "20" } else { "90" };
    let mut words = vec!["curl", "-sS", "-m", seconds, "--unix-socket", socket.to_str().expect("text")];
    words.extend(["-X", method, "-w", "\n%{http_code}", "-H", "Content-Type: application/json"]);
    if body.is_some() {
        words.extend(["--data-binary", "@-"]);
    }
    words.push(&url);
    let output: Output = portolan_testkit::run(&words, body.map(str::as_bytes));
    let (body, status) = output.ok().rsplit_once('\n').unwrap_or(("", &output.stdout));
    (status.trim().parse().unwrap_or(0), body.to_owned())
}

#[track_caller]
fn refused(engine: &Engine, method: &str, path: &str, body: Option<&str>, status: u16, words: &[&str]) {
    let (got, text) = request(engine, method, path, body);
    // Docker 20.10 says 500 to some bodies where later versions say 400.
    let old = !is_portolan(engine) && (got, status) == (500, 400);
    assert!(got == status || old, "{method} {path}: {got} instead of {status}: {text}");
    let message: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    has_line(message["message"].as_str().unwrap_or_default(), words);
}

#[test]
fn malformed_requests_are_named() {
    let engine = Engine::start();
    let create = "/v1.41/containers/create";
    refused(&engine, "POST", create, Some("{\"Image\": "), 400, &[]);
    refused(&engine, "POST", create, Some("{\"Image\": 5}"), 400, &[]);
    refused(
        &engine,
        "POST",
        create,
        Some("{\"Image\": \"busybox\", \"HostConfig\": [[\"/tmp:/a\"]]}"),
        400,
        &[],
    );
    refused(&engine, "POST", "/v1.41/networks/create", Some("[\"arrnet\"]"), 400, &[]);
    refused(&engine, "POST", create, Some("{\"Image\": \"nosuchimage\"}"), 404, &["nosuchimage"]);
    refused(
        &engine,
        "POST",
        "/v1.41/containers/create?name=b%40d",
        Some("{\"Image\":\"busybox\"}"),
        400,
        &["b@d"],
    );
    refused(&engine, "GET", "/v1.41/containers/nothere/json", None, 404, &["No such container: nothere"]);
    refused(&engine, "GET", "/v1.41/images/nothere/json", None, 404, &["No such image: nothere"]);
    refused(&engine, "GET", "/v1.41/networks/nothere", None, 404, &["network nothere not found"]);
    refused(&engine, "GET", "/v1.41/containers/json?filters=%7Bbad", None, 400, &[]);
    refused(&engine, "POST", "/v1.41/networks/create", Some("{\"Name\":\"host\"}"), 403, &["host"]);
    refused(&engine, "DELETE", "/v1.41/networks/host", None, 403, &["pre-defined"]);
    refused(&engine, "GET", "/v9.99/info", None, 400, &["client version 9.99 is too new"]);
    refused(&engine, "GET", "/v1.41/nosuchpage", None, 404, &["page not found"]);
    for path in ["/v1.41/swarm", "/v1.41/nodes", "/v1.41/services"] {
        refused(&engine, "GET", path, None, 503, &["This node is not a swarm manager"]);
    }
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn a_huge_body_is_turned_away() {
    let engine = Engine::start();
    let huge = format!("{{\"Image\":\"{}\"}}", "x".repeat(32 << 20));
    let (status, text) = request(&engine, "POST", "/v1.41/containers/create", Some(&huge));
    assert!((400..500).contains(&status), "{status} {}", &text[..text.len().min(200)]);
    assert_eq!(request(&engine, "GET", "/_ping", None), (200, "OK".to_owned()), "the engine lives");
}

#[test]
fn an_ambiguous_prefix_is_not_guessed() {
    let engine = Engine::start();
    let mut firsts = std::collections::HashMap::<char, u32>::new();
    // 17 ids cannot all differ in their first of 16 digits.
    for _ in 0..17 {
        let id = engine.docker(&["create", "busybox"]);
        *firsts.entry(id.ok().chars().next().expect("an id")).or_default() += 1;
    }
    let (digit, _) = firsts.into_iter().find(|(_, count)| *count > 1).expect("two share a digit");
    let (status, text) = request(&engine, "GET", &format!("/v1.41/containers/{digit}/json"), None);
    assert!(status == 400 || status == 404 || status == 500, "{status} {text}");
    assert!(text.to_lowercase().contains("multiple"), "{text}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let engine = Engine::start();
    let refuse = |flags: &[&str], words: &[&str]| {
        let output = engine.docker(&[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        has_line(output.fails(), words);
    };
    refuse(&["-p", "99999:80"], &["99999"]);
    refuse(&["-p", "80:80/nosuch"], &["nosuch"]);
    refuse(&["-v", "relative/path:/x"], &["relative/path"]);
    refuse(&["-m", "1k"], &["emory"]);
    refuse(&["--cap-add", "NOSUCH"], &["NOSUCH"]);
    refuse(&["--security-opt", "nosuch=1"], &["nosuch"]);
    has_line(engine.docker(&["create", "--restart", "sometimes", "busybox"]).fails(), &["sometimes"]);
    refuse(&["--restart", "always", "--rm"], &["onflicting options"]);
    refuse(&["--runtime", "nosuch"], &["nosuch"]);
    refuse(&["--ulimit", "nosuch=1"], &["nosuch"]);
    refuse(&["--log-driver", "nosuch"], &["nosuch"]);
    refuse(&["--device", "/dev/nosuch"], &["/dev/nosuch"]);
    refuse(&["--net", "container:"], &["container"]);
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
    assert_eq!(engine.host().sh("ip -o link | grep -c veth").stdout.trim(), "0");
}

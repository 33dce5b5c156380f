//! No option is ignored in silence: what a client asks for takes effect or is refused by name.

use portolan_e2e::{has_line, inspect, is_portolan};
use portolan_testkit::{Engine, Output, skip};

fn get(engine: &Engine, method: &str, path: &str) -> String {
    let socket = engine.socket();
    let url = format!("http://localhost{path}");
    let words = [
        "curl",
        "-sS",
        "-g",
        "-m",
        "20",
        "-X",
        method,
        "-d",
        if path.starts_with("/containers/create") { "{\"Image\":\"busybox\"}" } else { "" },
        "-H",
        "Content-Type: application/json",
        "--unix-socket",
        socket.to_str().expect("text"),
        &url,
    ];
    let output: Output = portolan_testkit::run(&words, None);
    output.ok().to_owned()
}

/// The query parameters of the Engine API v1.51, with values that are allowed. Not here: those of swarm, plugins,
/// build, push and search, which are refused as a whole; `detachKeys` of start, which Docker ignores too (the
/// attachment has it); `verbose` of networks, which is about swarm.
const PARAMETERS: &[&str] = &[
    "GET /containers/json?all=1&limit=1&size=1&filters={}",
    "POST /containers/create?name=xx&platform=linux/amd64",
    "GET /containers/cc/json?size=1",
    "GET /containers/cc/top?ps_args=-ef",
    "GET /containers/cc/logs?follow=0&stdout=1&stderr=1&since=1&until=2&timestamps=1&tail=1&details=1",
    "GET /containers/cc/stats?stream=0&one-shot=1",
    "POST /containers/cc/resize?h=10&w=10",
    "POST /containers/cc/restart?signal=KILL&t=0",
    "POST /containers/cc/wait?condition=not-running",
    "POST /containers/cc/attach?detachKeys=ctrl-a&logs=1&stream=0&stdin=0&stdout=1&stderr=1",
    "HEAD /containers/cc/archive?path=/",
    "GET /containers/cc/archive?path=/etc",
    "POST /containers/prune?filters={}",
    "GET /images/json?all=1&filters={}&shared-size=1&digests=1&manifests=1",
    "GET /images/busybox/json?manifests=1",
    "GET /images/busybox/json?platform={\"os\":\"linux\",\"architecture\":\"amd64\"}",
    "GET /images/busybox/history?platform={\"os\":\"linux\",\"architecture\":\"amd64\"}",
    "GET /images/busybox/get?platform={\"os\":\"linux\",\"architecture\":\"amd64\"}",
    "GET /images/get?names=busybox&platform={\"os\":\"linux\",\"architecture\":\"amd64\"}",
    "POST /images/busybox/tag?repo=a&tag=b",
    "POST /commit?container=cc&repo=z&tag=b&comment=c&author=d&pause=0&changes=ENV+a=b",
    "POST /images/prune?filters={}",
    "GET /events?since=1&until=2&filters={}",
    "GET /system/df?type=volume",
    "GET /volumes?filters={}",
    "POST /volumes/prune?filters={}",
    "GET /networks?filters={}",
    "GET /networks/bridge?verbose=1&scope=local",
    "POST /networks/prune?filters={}",
    "DELETE /images/z:b?force=1&noprune=1&platforms={\"os\":\"linux\",\"architecture\":\"amd64\"}",
    "POST /containers/cc/kill?signal=KILL",
    "POST /containers/cc/stop?signal=KILL&t=0",
    "POST /containers/cc/rename?name=dd",
    "DELETE /containers/dd?v=1&force=1&link=0",
];

#[test]
fn every_parameter_of_the_api_is_looked_at() {
    let engine = Engine::builder().arg("--debug").image("busybox").start();
    if !is_portolan(&engine) {
        skip!("it reads our log");
    }
    engine.docker(&["run", "-dit", "--name", "cc", "busybox", "sleep", "600"]).ok();
    for request in PARAMETERS {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let path = path.replace('"', "%22");
        if path.contains("/wait") || method == "HEAD" {
            // Answers that never end, or have no body.
            let socket = engine.socket();
            let words = ["curl", "-s", "-g", "-m", "1", if method == "HEAD" { "-I" } else { "-XPOST" }];
            let url = format!("http://localhost{path}");
            let words = [&words[..], &["--unix-socket", socket.to_str().expect("text"), &url]].concat();
            portolan_testkit::run(&words, None);
        } else {
            let answer = get(&engine, method, &path);
            assert!(!answer.starts_with("{\"message\""), "{request}: {answer}");
        }
    }
    // The log of a parameter that does nothing, so that the test can fail.
    get(&engine, "GET", "/containers/json?nosuch=1");
    let log = engine.log();
    let idle: Vec<&str> = log.lines().filter(|line| line.contains("parameters without effect")).collect();
    assert_eq!(idle.len(), 1, "{idle:?}");
    has_line(idle[0], &["/containers/json", "nosuch"]);
}

#[test]
fn an_image_is_for_its_platform_only() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker's own store of images knows one platform of each");
    }
    let own = inspect(&engine, "busybox", "{{.Architecture}}");
    let other = if own == "arm64" { "amd64" } else { "arm64" };
    let asked = |path: &str, architecture: &str| {
        get(
            &engine,
            "GET",
            &format!("{path}?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22{architecture}%22%7D"),
        )
    };
    for path in ["/images/busybox/json", "/images/busybox/history", "/images/busybox/get"] {
        let answer = asked(path, other);
        let words = "image with reference busybox was found but its platform";
        assert!(answer.contains(words) && answer.contains(&format!("(linux/{other})")), "{path}: {answer}");
    }
    let create = |platform: &str| {
        let socket = engine.socket().display().to_string();
        let url = format!("http://localhost/v1.51/containers/create?platform={platform}");
        let words = ["curl", "-s", "--unix-socket", &socket, "-H", "Content-Type: application/json", "-d"];
        engine.host().run(&[&words, [r#"{"Image":"busybox"}"#, &url].as_slice()].concat()).ok().to_owned()
    };
    let refused = format!("its platform (linux/{own}) does not match the specified platform (linux/{other})");
    assert!(create(&format!("linux/{other}")).contains(&refused));
    has_line(&create(&own), &["\"Id\""]);
    let config = asked("/images/busybox/json", &own);
    // Clients of any version expect these, set or not.
    has_line(&config, &["\"RootFS\"", "\"OnBuild\":null,\"User\":\"\",\"Volumes\":null,\"WorkingDir\":"]);
    has_line(&get(&engine, "GET", "/images/busybox/json?platform=linux"), &["failed to parse platform"]);
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("dockerd has some of it, and ignores the rest");
    }
    let refused = |host: &str, words: &str| {
        let body = format!(r#"{{"Image":"busybox","Volumes":{{"/data":{{}}}},"HostConfig":{host}}}"#);
        let socket = engine.socket();
        let words_of_curl =
            ["curl", "-sS", "-m", "20", "-H", "Content-Type: application/json", "--data-binary", "@-"];
        let at = ["--unix-socket", socket.to_str().expect("text"), "http://x/containers/create"];
        let answer = portolan_testkit::run(&[&words_of_curl[..], &at].concat(), Some(body.as_bytes()));
        has_line(answer.ok(), &[words]);
    };
    refused(r#"{"KernelMemory": 8388608}"#, "HostConfig.KernelMemory is not supported");
    refused(r#"{"VolumeDriver": "nosuch"}"#, "error looking up volume plugin nosuch");
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
}

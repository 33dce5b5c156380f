//! Ports that come and go while a container runs, and who may use them.

use portolan_e2e::{eventually, has_line, hear, is_portolan, run_server};
use portolan_testkit::{Engine, Host, Output, portolan_binary, run, skip};

fn portolan(engine: &Engine, words: &[&str]) -> Output {
    let socket = format!("unix://{}", engine.socket().display());
    let binary = portolan_binary().display().to_string();
    run(&[&[binary.as_str(), "--host", &socket], words].concat(), None)
}

#[test]
fn ports_of_a_running_container_come_and_go_and_stay_over_restarts() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker publishes at creation only");
    }
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    run_server(&engine, "web", 7000, "hello", &["-p", "8000:7000"]);
    let heard = |port: u16| hear(&outside, "198.51.100.2", port);
    eventually("the first port answers", 10, || (heard(8000) == "hello").then_some(()));
    assert_eq!(heard(8001), "");
    portolan(&engine, &["port", "add", "web", "8001:7000"]).ok();
    eventually("the second too", 5, || (heard(8001) == "hello").then_some(()));
    has_line(engine.docker(&["port", "web"]).ok(), &["7000/tcp -> 0.0.0.0:8001"]);
    portolan(&engine, &["port", "rm", "web", "8000"]).ok();
    assert_eq!(heard(8000), "", "unpublished");
    has_line(
        portolan(&engine, &["port", "rm", "web", "8000"]).fails(),
        &["does not publish host port 8000/tcp"],
    );
    engine.docker(&["run", "-d", "--name", "other", "-p", "8000:80", "busybox", "sleep", "600"]).ok();
    has_line(
        portolan(&engine, &["port", "add", "web", "8000:7000"]).fails(),
        &["port is already allocated", "other"],
    );
    engine.kill_daemon();
    engine.start_daemon();
    eventually("over the daemon's death", 10, || (heard(8001) == "hello").then_some(()));
    engine.docker(&["restart", "-t", "0", "web"]).ok();
    eventually("over its own restart", 10, || (heard(8001) == "hello").then_some(()));
    engine.docker(&["stop", "-t", "0", "web"]).ok();
    portolan(&engine, &["port", "add", "web", "8003:7000"]).ok();
    engine.docker(&["start", "web"]).ok();
    eventually("added while it was stopped", 10, || (heard(8003) == "hello").then_some(()));
}

#[test]
fn a_port_for_some_is_closed_to_others() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no allow-lists");
    }
    let host = engine.host();
    let (friend, stranger) = (Host::new("friend"), Host::new("stranger"));
    friend.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    stranger.wire("up0", "203.0.113.1/24", host, "up2", "203.0.113.2/24");
    let label = "portolan.publish.from.7000/tcp=198.51.100.0/24";
    run_server(&engine, "web", 7000, "hello", &["-p", "8000:7000", "--label", label]);
    eventually("a friend is let in", 10, || (hear(&friend, "198.51.100.2", 8000) == "hello").then_some(()));
    assert_eq!(hear(&stranger, "203.0.113.2", 8000), "", "a stranger is not");
    portolan(&engine, &["port", "add", "--from", "203.0.113.1", "web", "8001:7000"]).ok();
    eventually("nor the other way", 5, || (hear(&stranger, "203.0.113.2", 8001) == "hello").then_some(()));
    assert_eq!(hear(&friend, "198.51.100.2", 8001), "");
    let shown = portolan(&engine, &["exposure"]);
    has_line(
        shown.ok(),
        &["0.0.0.0:8001/tcp", "web", "172.17.0.2:7000", "every interface", "203.0.113.1/32"],
    );
}

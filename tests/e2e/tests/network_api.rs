//! The networks' part of the API: filters, events, and the JSON that each version of it shows.

use std::collections::BTreeSet;

use portolan_e2e::{eventually, has_line, has_since, inspect, is_portolan, skip_before};
use portolan_testkit::{Engine, run as run_words};
use serde_json::Value;

fn create(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["network", "create"], flags, &[name]].concat()).ok();
}

/// The names that `network ls` shows.
fn listed(engine: &Engine, filters: &[&str]) -> BTreeSet<String> {
    let mut words = vec!["network", "ls", "--format", "{{.Name}}"];
    words.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
    engine.docker(&words).ok().lines().map(str::to_owned).collect()
}

fn names(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// Asks the engine itself; the answer's status and JSON.
fn ask(engine: &Engine, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let socket = engine.socket();
    let socket = socket.to_string_lossy();
    let url = format!("http://engine{path}");
    let mut words = vec!["curl", "-sS", "-g", "-X", method, "-w", "\n%{http_code}", "--unix-socket", &socket];
    let text = body.map(Value::to_string).unwrap_or_default();
    if body.is_some() {
        words.extend(["-H", "Content-Type: application/json", "-d", &text]);
    }
    words.push(&url);
    let output = run_words(&words, None);
    let text = output.ok();
    let (json, status) = text.rsplit_once('\n').unwrap_or(("", text));
    (status.parse().expect("a status"), serde_json::from_str(json).unwrap_or(Value::Null))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn lists_are_filtered_as_by_docker() {
    let engine = Engine::start();
    create(&engine, "front", &["--label", "tier=one", "--label", "blue"]);
    create(&engine, "front-2", &["--label", "tier=two"]);
    create(&engine, "back", &["--internal"]);
    let run = ["run", "-d", "--name", "cc", "--network", "back", "busybox", "sleep", "600"];
    engine.docker(&run).ok();
    let id = engine.docker(&["network", "inspect", "-f", "{{.Id}}", "back"]).ok().to_owned();
    for (filters, wanted) in [
        (&["driver=bridge"] as &[&str], "bridge front front-2 back"),
        (&["driver=host", "driver=null"], "host none"),
        (&["type=builtin"], "bridge host none"),
        (&["type=custom"], "front front-2 back"),
        (&["name=front"], "front front-2"),
        (&["name=^front$"], "front"),
        (&["name=^(front|back)$"], "front back"),
        (&["name=front-2", "name=back"], "front-2 back"),
        (&["name=("], ""),
        (&[&format!("id={id}")], "back"),
        (&[&format!("id={}", &id[..10])], "back"),
        (&[&format!("id=^{}", &id[..10])], "back"),
        (&["label=tier"], "front front-2"),
        (&["label=tier=two"], "front-2"),
        (&["label=tier", "label=blue"], "front"),
        (&["scope=local", "type=custom"], "front front-2 back"),
        (&["scope=swarm"], ""),
    ] {
        assert_eq!(listed(&engine, filters), names(wanted), "{filters:?}");
    }
    if is_portolan(&engine) {
        // Docker 20.10 forgets to look who is attached.
        assert_eq!(listed(&engine, &["dangling=true"]), names("front front-2"));
        assert_eq!(listed(&engine, &["dangling=0"]), names("bridge host none back"));
    }
    for (filter, error) in [
        ("colour=red", "nvalid filter 'colour"),
        ("label!=tier", "nvalid filter 'label!"),
        ("until=1h", "nvalid filter 'until"),
        ("type=mine", "nvalid filter: 'type'='mine'"),
        (
            "dangling=maybe",
            "nvalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        ),
    ] {
        has_line(engine.docker(&["network", "ls", "--filter", filter]).fails(), &[error]);
    }
    let twice = ["network", "ls", "--filter", "dangling=1", "--filter", "dangling=0"];
    has_line(engine.docker(&twice).fails(), &["got more than one value for filter key \"dangling\""]);
}

#[test]
fn prune_takes_what_its_filters_leave() {
    let engine = Engine::start();
    for (name, label) in [("one", "a=1"), ("two", "a=2"), ("three", "keep"), ("used", "a=1")] {
        create(&engine, name, &["--label", label]);
    }
    engine.docker(&["run", "-d", "--name", "cc", "--network", "used", "busybox", "sleep", "600"]).ok();
    let prune = |filters: &[&str]| {
        let flags = filters.iter().flat_map(|filter| ["--filter", filter]).collect::<Vec<_>>();
        engine.docker(&[&["network", "prune", "-f"], flags.as_slice()].concat())
    };
    let left = |wanted: &str| assert_eq!(listed(&engine, &["type=custom"]), names(wanted));
    prune(&["until=1h"]).ok();
    left("one two three used");
    assert!(prune(&["until=yesterday"]).fails().contains("yesterday"));
    has_line(prune(&["until=1h", "until=2h"]).fails(), &["more than one until filter"]);
    has_line(prune(&["driver=bridge"]).fails(), &["nvalid filter 'driver"]);
    has_line(prune(&["label=a=1"]).ok(), &["one"]);
    left("two three used");
    // Docker counts in whole seconds: what was made in this one is not before now.
    eventually("what is not kept goes", 3, || {
        prune(&["label!=keep", "until=0s"]).ok();
        (listed(&engine, &["type=custom"]) == names("three used")).then_some(())
    });
    assert!(!engine.host().run(&["ip", "-o", "link"]).ok().contains("state UP group default qlen 0"));
    prune(&[]).ok();
    left("used");
    let bridges = engine.host().sh("ip -o link show type bridge | wc -l").ok().to_owned();
    assert_eq!(bridges, "2", "docker0 and that of the network in use");
    // Who is stopped uses nothing, and does not start without its network.
    engine.docker(&["stop", "-t", "0", "cc"]).ok();
    engine.docker(&["create", "--name", "never", "--network", "used", "busybox", "true"]).ok();
    has_line(prune(&[]).ok(), &["used"]);
    left("");
    for name in ["cc", "never"] {
        has_line(engine.docker(&["start", name]).fails(), &["network", "not found"]);
    }
    create(&engine, "other", &[]);
    engine.docker(&["network", "connect", "other", "cc"]).ok();
    has_line(engine.docker(&["start", "cc"]).fails(), &["network", "not found"]);
}

#[test]
fn events_have_dockers_attributes() {
    let engine = Engine::start();
    let since = engine.docker(&["info", "-f", "{{.SystemTime}}"]).ok().to_owned();
    create(&engine, "net", &[]);
    engine.docker(&["create", "--name", "cc", "--network", "net", "busybox", "sleep", "600"]).ok();
    engine.docker(&["start", "cc"]).ok();
    let (id, container) = (
        engine.docker(&["network", "inspect", "-f", "{{.Id}}", "net"]).ok().to_owned(),
        inspect(&engine, "cc", "{{.Id}}"),
    );
    engine.docker(&["network", "disconnect", "net", "cc"]).ok();
    engine.docker(&["network", "connect", "net", "cc"]).ok();
    engine.docker(&["rm", "-f", "cc"]).ok();
    engine.docker(&["network", "rm", "net"]).ok();
    engine.docker(&["network", "prune", "-f"]).ok();
    let until = engine.docker(&["info", "-f", "{{.SystemTime}}"]).ok().to_owned();
    let events = |filter: &str| {
        let words =
            ["events", "--since", &since, "--until", &until, "--filter", filter, "--format", "{{json .}}"];
        let lines = engine.docker(&words).ok().to_owned();
        let parse = |line: &str| serde_json::from_str::<Value>(line).expect("an event");
        lines.lines().map(parse).collect::<Vec<_>>()
    };
    let all = events("type=network");
    let mut actions: Vec<_> = all.iter().filter_map(|event| event["Action"].as_str()).collect();
    // Docker 20.10 tells twice of a disconnect.
    actions.dedup();
    let wanted = ["create", "connect", "disconnect", "connect", "disconnect", "destroy", "prune"];
    assert_eq!(actions, wanted);
    for event in &all {
        let (action, actor) = (event["Action"].as_str().unwrap_or(""), &event["Actor"]);
        let attributes = match action {
            "prune" => serde_json::json!({"reclaimed": "0"}),
            "connect" | "disconnect" => {
                serde_json::json!({"container": container, "name": "net", "type": "bridge"})
            }
            _ => serde_json::json!({"name": "net", "type": "bridge"}),
        };
        assert_eq!(actor["Attributes"], attributes, "{action}");
        assert_eq!(actor["ID"], if action == "prune" { "" } else { &id }, "{action}");
        assert_eq!(event["scope"], "local");
    }
    // Those of the container's own life, of which networks are a part.
    let of_network = events("network=net");
    assert!(of_network.len() >= 6 && of_network.iter().all(|event| event["Type"] == "network"));
}

/// What `GET /networks/{id}` shows to a client that speaks `version`, beside its `Containers`.
fn shown<'a>(engine: &Engine, version: &str, holder: &'a mut Value) -> Vec<&'a str> {
    *holder = ask(engine, "GET", &format!("/v{version}/networks/net"), None).1;
    keys(holder)
}

const OLD: [&str; 15] = [
    "Name",
    "Id",
    "Created",
    "Scope",
    "Driver",
    "EnableIPv6",
    "IPAM",
    "Internal",
    "Attachable",
    "Ingress",
    "ConfigFrom",
    "ConfigOnly",
    "Containers",
    "Options",
    "Labels",
];

#[test]
fn each_version_shows_a_network_as_it_was() {
    let engine = Engine::start();
    let flags = [
        "--subnet",
        "10.81.0.0/24",
        "--ip-range",
        "10.81.0.64/26",
        "--aux-address",
        "printer=10.81.0.9",
        "--gateway",
        "10.81.0.1",
    ];
    create(
        &engine,
        "net",
        &[flags.as_slice(), &["--label", "a=b", "-o", "com.docker.network.driver.mtu=1400"]].concat(),
    );
    engine.docker(&["run", "-d", "--name", "cc", "--network", "net", "busybox", "sleep", "600"]).ok();
    let mut network = Value::Null;
    let mut new = OLD.to_vec();
    new.insert(5, "EnableIPv4");
    // Docker 28 shows every version what it knows itself.
    let old = if is_portolan(&engine) || engine.major() < 28 { OLD.to_vec() } else { new.clone() };
    assert_eq!(shown(&engine, "1.41", &mut network), old);
    assert_eq!(keys(&network["IPAM"]), ["Driver", "Options", "Config"]);
    assert_eq!(
        network["IPAM"]["Config"],
        serde_json::json!([{"Subnet": "10.81.0.0/24", "IPRange": "10.81.0.64/26", "Gateway": "10.81.0.1",
            "AuxiliaryAddresses": {"printer": "10.81.0.9"}}])
    );
    assert_eq!(network["Options"], serde_json::json!({"com.docker.network.driver.mtu": "1400"}));
    assert_eq!(network["Labels"], serde_json::json!({"a": "b"}));
    let id = inspect(&engine, "cc", "{{.Id}}");
    let container = &network["Containers"][&id];
    assert_eq!(keys(container), ["Name", "EndpointID", "MacAddress", "IPv4Address", "IPv6Address"]);
    let device = engine.docker(&["exec", "cc", "ip", "-o", "addr", "show", "eth0"]).ok().to_owned();
    assert!(device.contains(container["IPv4Address"].as_str().unwrap_or("?")), "{container} {device}");
    let listed = ask(&engine, "GET", "/v1.41/networks?filters=%7B%22name%22:[%22net%22]%7D", None).1;
    assert_eq!(keys(&listed[0]), old);
    assert_eq!(listed[0]["Containers"], serde_json::json!({}), "lists show none");

    let (status, error) = ask(&engine, "GET", "/v1.41/networks/net?verbose=perhaps", None);
    assert_eq!(status, 400);
    has_line(error["message"].as_str().unwrap_or(""), &["invalid value for verbose: perhaps"]);
    assert_eq!(ask(&engine, "GET", "/v1.41/networks/net?scope=swarm", None).0, 404);
    assert_eq!(ask(&engine, "GET", "/v1.41/networks/net?scope=local", None).0, 200);
    let verbose =
        engine.docker(&["network", "inspect", "--verbose", "-f", "{{.Name}} {{len .Containers}}", "net"]);
    assert_eq!(verbose.ok(), "net 1");
    if !has_since(&engine, 28) {
        return;
    }
    for version in ["1.40", "1.44", "1.47"] {
        assert_eq!(shown(&engine, version, &mut network), old, "{version}");
    }
    for version in ["1.48", "1.49", "1.51"] {
        assert_eq!(shown(&engine, version, &mut network), new, "{version}");
    }
    if !is_portolan(&engine) {
        return;
    }
    let (_, verbose) = ask(&engine, "GET", "/networks/net?verbose=true", None);
    let usage = &verbose["Status"]["IPAM"]["Subnets"]["10.81.0.0/24"];
    // The network and broadcast addresses, the gateway, the printer and the container; the range's 64 less it.
    assert_eq!(keys(usage), ["IPsInUse", "DynamicIPsAvailable"]);
    assert_eq!(usage["DynamicIPsAvailable"], 63);
}

#[test]
fn each_version_takes_and_shows_endpoints_as_it_did() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "such versions of the API") {
        return;
    }
    create(&engine, "net", &["--subnet", "10.81.0.0/24"]);
    create(&engine, "other", &["--subnet", "10.82.0.0/24"]);
    let body = |nets: &[&str]| {
        let endpoint =
            serde_json::json!({"Aliases": ["nick"], "MacAddress": "02:00:00:00:00:09", "GwPriority": 4});
        let endpoints: serde_json::Map<_, _> =
            nets.iter().map(|net| ((*net).to_owned(), endpoint.clone())).collect();
        serde_json::json!({"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "net"},
            "NetworkingConfig": {"EndpointsConfig": endpoints}})
    };
    let make = |version: &str, name: &str, nets: &[&str]| {
        let path = format!("/v{version}/containers/create?name={name}");
        let answer = ask(&engine, "POST", &path, Some(&body(nets)));
        if answer.0 == 201 {
            engine.docker(&["start", name]).ok();
        }
        answer
    };
    let endpoint = |version: &str, name: &str| {
        ask(&engine, "GET", &format!("/v{version}/containers/{name}/json"), None).1["NetworkSettings"]["Networks"]
            ["net"]
            .clone()
    };
    let (status, error) = make("1.43", "two", &["net", "other"]);
    assert_eq!(status, 400);
    has_line(error["message"].as_str().unwrap_or(""), &["multiple network endpoints"]);
    assert_eq!(make("1.44", "two", &["net", "other"]).0, 201);
    has_line(engine.docker(&["exec", "two", "ip", "-o", "addr"]).ok(), &["10.82.0."]);

    let hardware =
        |name: &str| engine.docker(&["exec", name, "cat", "/sys/class/net/eth0/address"]).ok().to_owned();
    assert_eq!(make("1.43", "old", &["net"]).0, 201);
    assert_ne!(hardware("old"), "02:00:00:00:00:09", "an endpoint has one since v1.44");
    engine.docker(&["rm", "-f", "old", "two"]).ok();
    assert_eq!(make("1.47", "cc", &["net"]).0, 201);
    assert_eq!(hardware("cc"), "02:00:00:00:00:09");
    let short = inspect(&engine, "cc", "{{.Id}}")[..12].to_owned();
    let nick = serde_json::json!(["nick"]);
    assert_eq!(endpoint("1.44", "cc")["Aliases"], serde_json::json!(["nick", short]));
    assert_eq!(endpoint("1.45", "cc")["Aliases"], nick);
    assert_eq!(endpoint("1.44", "cc")["DNSNames"], serde_json::json!(["cc", "nick", short]));
    // Docker shows it to those who did not know it.
    assert!(endpoint("1.43", "cc")["DNSNames"].is_null() || !is_portolan(&engine));
    let whole = |version: &str| ask(&engine, "GET", &format!("/v{version}/containers/cc/json"), None).1;
    assert_eq!(whole("1.51")["Config"]["MacAddress"], "02:00:00:00:00:09", "the main network's");
    let listed = ask(&engine, "GET", "/v1.51/containers/json", None).1;
    let brief = &listed[0]["NetworkSettings"]["Networks"]["net"];
    for key in ["Links", "Aliases", "DriverOpts", "DNSNames"] {
        assert!(brief[key].is_null(), "{key} in a list: {brief}");
    }
    assert!(ask(&engine, "GET", "/v1.51/networks/none", None).1["IPAM"]["Config"].is_null());
    let named =
        serde_json::json!({"Image": "busybox", "Hostname": "hh", "HostConfig": {"NetworkMode": "net"}});
    assert_eq!(ask(&engine, "POST", "/v1.51/containers/create?name=named", Some(&named)).0, 201);
    let id = inspect(&engine, "named", "{{.Id}}");
    assert_eq!(endpoint("1.44", "named")["Aliases"], serde_json::json!([&id[..12], "hh"]));
    let fresh = endpoint("1.51", "named");
    assert!(fresh["NetworkID"] == "" && fresh["DNSNames"].is_null(), "it was never there: {fresh}");
    engine.docker(&["run", "--name", "ran", "busybox", "true"]).ok();
    let bridge = engine.docker(&["network", "inspect", "-f", "{{.Id}}", "bridge"]).ok().to_owned();
    assert_eq!(inspect(&engine, "ran", "{{.NetworkSettings.Networks.bridge.NetworkID}}"), bridge.trim());
    assert!(endpoint("1.47", "cc").get("GwPriority").is_none());
    assert_eq!(endpoint("1.48", "cc")["GwPriority"], 0, "v1.47 could not ask for one");
    engine.docker(&["rm", "-f", "cc"]).ok();
    assert_eq!(make("1.48", "cc", &["net"]).0, 201);
    assert_eq!(endpoint("1.48", "cc")["GwPriority"], 4);

    let bare = serde_json::json!({"Name": "six", "EnableIPv4": false, "EnableIPv6": true});
    assert_eq!(ask(&engine, "POST", "/v1.47/networks/create", Some(&bare)).0, 201);
    // Options of address management are shown as they were given, be it none.
    let options = ["network", "inspect", "-f", "{{json .IPAM.Options}}"];
    assert_eq!(engine.docker(&[&options[..], &["six"]].concat()).ok().trim(), "null");
    let given = serde_json::json!({"Name": "given", "IPAM": {"Options": {}}});
    assert_eq!(ask(&engine, "POST", "/v1.47/networks/create", Some(&given)).0, 201);
    assert_eq!(engine.docker(&[&options[..], &["given"]].concat()).ok().trim(), "{}");
    assert_eq!(engine.docker(&["network", "inspect", "-f", "{{.EnableIPv4}}", "six"]).ok(), "true");
    engine.docker(&["network", "rm", "six"]).ok();
    assert_eq!(ask(&engine, "POST", "/v1.48/networks/create", Some(&bare)).0, 201);
    assert_eq!(engine.docker(&["network", "inspect", "-f", "{{.EnableIPv4}}", "six"]).ok(), "false");
}

#[test]
fn a_container_joins_what_its_request_names_and_nothing_else() {
    let engine = Engine::start();
    create(&engine, "net", &["--subnet", "10.81.0.0/24"]);
    create(&engine, "inside", &["--internal", "--subnet", "10.82.0.0/24"]);
    let make = |mode: Option<&str>, endpoints: Value| {
        let body = serde_json::json!({"Image": "busybox", "Cmd": ["sleep", "600"],
            "HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": endpoints}});
        ask(&engine, "POST", "/v1.41/containers/create?name=cc", Some(&body))
    };
    let start = || ask(&engine, "POST", "/v1.41/containers/cc/start", None);
    let joined = || {
        let shown = ask(&engine, "GET", "/v1.41/containers/cc/json", None).1;
        keys(&shown["NetworkSettings"]["Networks"]).join(" ")
    };
    let none = serde_json::json!({});
    let inside = serde_json::json!({"inside": {}});
    for (mode, endpoints, networks) in [
        (None, &none, "bridge"),
        (None, &inside, "inside"),
        (Some("default"), &inside, "inside"),
        (Some("bridge"), &inside, "inside"),
        (Some("net"), &none, "net"),
        (Some("net"), &inside, "inside"),
        (Some("none"), &inside, "inside"),
        (Some("default"), &serde_json::json!({"default": {}}), "bridge"),
    ] {
        assert_eq!(make(mode, endpoints.clone()).0, 201, "{mode:?} {endpoints}");
        assert_eq!(start().0, 204, "{mode:?} {endpoints}");
        assert_eq!(joined(), networks, "{mode:?} {endpoints}");
        let links = engine.docker(&["exec", "cc", "ip", "-o", "link"]).ok().lines().count();
        assert_eq!(links, 2, "{mode:?} {endpoints}: the loopback and one more");
        engine.docker(&["rm", "-f", "cc"]).ok();
    }
    assert_eq!(make(None, serde_json::json!({"nosuch": {}})).0, 201);
    assert_eq!(start().0, 404, "that it does not exist is found at start");
    engine.docker(&["rm", "-f", "cc"]).ok();
    if !is_portolan(&engine) {
        return;
    }
    let message = |answer: (u16, Value)| (answer.0, answer.1["message"].as_str().unwrap_or("").to_owned());
    let refused = message(make(None, serde_json::json!({"net": null})));
    assert_eq!(refused, (400, "invalid config for network net: EndpointsConfig is nil".to_owned()));
    let static_ip = serde_json::json!({"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.9"}}});
    let (status, why) = message(make(None, static_ip));
    assert_eq!(status, 400);
    has_line(&why, &["user specified IP address is supported on user defined networks only"]);
    let path = "/v1.51/containers/create";
    let mac = serde_json::json!({"Image": "busybox", "MacAddress": "02:00:00:00:00:09",
        "HostConfig": {"NetworkMode": "net"}, "NetworkingConfig": {"EndpointsConfig": inside}});
    let (status, why) = message(ask(&engine, "POST", path, Some(&mac)));
    assert_eq!(status, 400);
    has_line(&why, &["NetworkMode must match the identity of a network"]);
    let lost = serde_json::json!({"Image": "busybox", "HostConfig": {"NetworkMode": "nosuch"},
        "NetworkingConfig": {"EndpointsConfig": inside}});
    assert_eq!(ask(&engine, "POST", &format!("{path}?name=cc"), Some(&lost)).0, 201);
    let (status, why) = message(start());
    assert_eq!(status, 404);
    has_line(&why, &["could not find a network matching network mode nosuch"]);
    for verb in ["connect", "disconnect"] {
        for body in [serde_json::json!({}), serde_json::json!({"Container": ""})] {
            let answer = message(ask(&engine, "POST", &format!("/v1.51/networks/net/{verb}"), Some(&body)));
            assert_eq!(answer, (400, "invalid name or ID supplied: \"\"".to_owned()), "{verb} {body}");
        }
    }
    let stranger = serde_json::json!({"Container": "cc"});
    assert_eq!(ask(&engine, "POST", "/v1.51/networks/net/disconnect", Some(&stranger)).0, 500);
}

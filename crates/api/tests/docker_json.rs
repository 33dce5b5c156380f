//! Our types against JSON of the real thing: answers of dockerd 20.10 (API 1.41) and requests of the docker CLI 28.
//!
//! Read and written again, nothing of it may be lost or change its form (`null`, `[]` and absent are three
//! different things), apart from what newer versions of the API took away, which each test names.
#![allow(clippy::unwrap_used, reason = "a helper of tests panics as they do")]

use portolan_api::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn read(path: &str) -> String {
    let path = format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Collects where `ours` differs from `theirs`: keys of theirs that are lost or changed, keys that only we have.
fn differences(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                match ours.get(key) {
                    None => found.push(format!("{path}.{key} lost")),
                    Some(our) => differences(&format!("{path}.{key}"), value, our, found),
                }
            }
            found.extend(
                ours.keys().filter(|key| !theirs.contains_key(*key)).map(|key| format!("{path}.{key} added")),
            );
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                differences(&format!("{path}[{index}]"), theirs, ours, found);
            }
        }
        _ if theirs == ours => {}
        _ => found.push(format!("{path}: {theirs} became {ours}")),
    }
}

/// `allowed`: ends of the differences that are meant.
fn survives<T: DeserializeOwned + Serialize>(text: &str, allowed: &[&str]) {
    let theirs: Value = serde_json::from_str(text).unwrap();
    let typed: T = serde_json::from_str(text).unwrap();
    let mut found = Vec::new();
    differences("", &theirs, &serde_json::to_value(typed).unwrap(), &mut found);
    found.retain(|difference| !allowed.iter().any(|end| difference.ends_with(end)));
    assert!(found.is_empty(), "{found:#?}");
}

/// Fields of endpoints that came after 1.41.
const NEW_IN_ENDPOINTS: &str = ".DNSNames added";

#[test]
fn containers() {
    // Kernel memory went with the kernel's support for it.
    let changes = [NEW_IN_ENDPOINTS, ".KernelMemory lost", ".KernelMemoryTCP lost"];
    survives::<ContainerInspect>(&read("docker-20.10/inspect.json"), &changes);
    survives::<ContainerInspect>(&read("docker-20.10/plain.json"), &changes);
    survives::<Vec<ContainerSummary>>(&read("docker-20.10/list.json"), &[NEW_IN_ENDPOINTS]);
    survives::<TopResponse>(&read("docker-20.10/top.json"), &[]);
    survives::<StatsResponse>(&read("docker-20.10/stats.json"), &[]);
    survives::<ExecInspect>(&read("docker-20.10/exec.json"), &[]);
}

#[test]
fn networks_and_volumes() {
    survives::<Network>(&read("docker-20.10/network.json"), &[]);
    survives::<VolumeListResponse>(&read("docker-20.10/volumes.json"), &[]);
}

#[test]
fn images() {
    // Before 1.50 empty fields of the configuration were shown: the daemon adds them.
    let omitted = [
        ".Config.Hostname lost",
        ".Config.Domainname lost",
        ".Config.User lost",
        ".Config.AttachStdin lost",
        ".Config.AttachStdout lost",
        ".Config.AttachStderr lost",
        ".Config.Tty lost",
        ".Config.OpenStdin lost",
        ".Config.StdinOnce lost",
        ".Config.Image lost",
        ".Config.Volumes lost",
        ".Config.WorkingDir lost",
        ".Config.Entrypoint lost",
        ".Config.OnBuild lost",
    ];
    survives::<ImageInspect>(&read("docker-20.10/image.json"), &omitted);
    // From 1.43 on it is a list.
    survives::<Vec<ImageSummary>>(&read("docker-20.10/images.json"), &[".RepoDigests: null became []"]);
    survives::<Vec<HistoryItem>>(&read("docker-20.10/history.json"), &[]);
}

#[test]
fn the_daemon_itself() {
    let gone = [
        ".KernelMemory lost",
        ".AllowNondistributableArtifactsCIDRs lost",
        ".AllowNondistributableArtifactsHostnames lost",
        ".CDISpecDirs added",
        ".InitCommit.Expected lost",
    ];
    survives::<SystemInfo>(&read("docker-20.10/info.json"), &gone);
    survives::<Version>(&read("docker-20.10/version.json"), &[]);
    let changes = [NEW_IN_ENDPOINTS, ".BuilderSize lost", ".RepoDigests: null became []"];
    survives::<DiskUsage>(&read("docker-20.10/df.json"), &changes);
    for line in read("docker-20.10/events.ndjson").lines() {
        survives::<EventMessage>(line, &[]);
    }
}

#[test]
fn requests_of_the_cli() {
    survives::<CreateRequest>(&read("docker-cli-28/create.json"), &[]);
    survives::<ExecConfig>(&read("docker-cli-28/exec.json"), &[]);
    survives::<NetworkCreate>(&read("docker-cli-28/network.json"), &[]);
}

#[test]
fn null_and_strange_fields_are_taken() {
    let text = r#"{"Image": null, "Env": null, "Cmd": "sh", "Entrypoint": ["a", "b"], "Strange": {"x": 1},
        "ExposedPorts": {"80/tcp": null}, "HostConfig": {"Memory": null, "RestartPolicy": null,
        "PortBindings": {"80/tcp": null}}, "NetworkingConfig": null}"#;
    let request: CreateRequest = serde_json::from_str(text).unwrap();
    assert_eq!(request.config.cmd.unwrap().0, ["sh"]);
    assert_eq!(request.config.entrypoint.unwrap().0, ["a", "b"]);
    assert!(request.config.exposed_ports.unwrap().contains_key("80/tcp"));
    assert_eq!(request.host_config.unwrap().port_bindings.unwrap()["80/tcp"], None);
    assert!(serde_json::from_str::<CreateRequest>(r#"{"Tty": "yes"}"#).is_err());
}

//! Pull from a registry: Debian's docker-registry on the loopback of the engine's host, filled by skopeo.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portolan_e2e::{eventually, has_line, inspect, is_portolan};
use portolan_testkit::{Engine, Output, repository, run};
use serde_json::{Value, json};

/// `user` with the password `secret`.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// A registry in the engine's host. Ends when dropped.
struct Registry {
    process: Child,
    storage: PathBuf,
}

impl Registry {
    /// At 127.0.0.1:5000, plain http, for everybody.
    fn start(engine: &Engine) -> Self {
        Self::serve(engine, "http://127.0.0.1:5000", "")
    }

    /// At 127.0.0.1:5000, for `user` with the password `secret`.
    fn private(engine: &Engine) -> Self {
        let users = engine.home().join("htpasswd");
        std::fs::write(&users, HTPASSWD).expect("a file");
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display());
        Self::serve(engine, "http://127.0.0.1:5000", &auth)
    }

    /// At 192.0.2.1:5000, which is no loopback address, with a certificate that nobody signed.
    fn with_tls(engine: &Engine) -> Self {
        let path = |name: &str| engine.home().join(name).display().to_string();
        let (key, certificate) = (path("key.pem"), path("cert.pem"));
        let make = format!(
            "ip address add 192.0.2.1/32 dev lo && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
             -nodes -days 2 -subj /CN=registry -addext subjectAltName=IP:192.0.2.1 -keyout {key} -out {certificate}"
        );
        engine.host().sh(&make).ok();
        let tls = format!("  tls: {{certificate: {certificate}, key: {key}}}\n");
        Self::serve(engine, "https://192.0.2.1:5000", &tls)
    }

    fn serve(engine: &Engine, url: &str, more: &str) -> Self {
        let home = engine.home().join("registry");
        std::fs::create_dir_all(&home).expect("a directory");
        let storage = home.join("storage");
        let address = url.split("//").nth(1).expect("an address");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n{more}",
            storage.display()
        );
        let file = home.join("config.yml");
        std::fs::write(&file, config).expect("a file");
        let mut words = engine.host().prefix();
        let script = repository().join("scripts/registry.sh");
        let program = run(&[script], None).ok().to_owned();
        words.extend([program.into(), "serve".into(), file.into()]);
        let log = std::fs::File::create(home.join("log")).expect("a file");
        let process = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let ask = format!("curl -sk -o /dev/null -w '%{{http_code}}' {url}/v2/");
        eventually("the registry answers", 20, || {
            ["200", "401"].contains(&engine.host().sh(&ask).stdout.trim()).then_some(())
        });
        Self { process, storage }
    }

    /// The file of a blob.
    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        self.storage.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Saves images of the engine's and pushes the archive's first one to `target`, such as `app:1`, at
/// 127.0.0.1:5000 unless it names an address.
fn push(engine: &Engine, image: &str, target: &str, flags: &[&str]) {
    let archive = engine.home().join("pushed.tar");
    engine.docker(&["save".as_ref(), "-o".as_ref(), archive.as_os_str(), OsStr::new(image)]).ok();
    let from = format!("docker-archive:{}", archive.display());
    let address = if target.starts_with("192.") { "" } else { "127.0.0.1:5000/" };
    copy(engine, &from, &format!("docker://{address}{target}"), flags).ok();
    std::fs::remove_file(archive).expect("the archive");
}

fn copy(engine: &Engine, from: &str, to: &str, flags: &[&str]) -> Output {
    let mut words = vec!["skopeo", "--insecure-policy", "copy", "-q"];
    if to.starts_with("docker:") {
        words.push("--dest-tls-verify=false");
    }
    words.extend(flags);
    words.extend([from, to]);
    engine.host().run(&words)
}

/// A manifest as the registry has it.
fn manifest(engine: &Engine, name: &str, tag: &str, flags: &str) -> Value {
    let line = format!(
        "curl -sf {flags} -H 'Accept: application/vnd.oci.image.manifest.v1+json' -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' http://127.0.0.1:5000/v2/{name}/manifests/{tag}"
    );
    engine.host().sh(&line).json()
}

/// Another image than busybox: two layers more.
fn layered(engine: &Engine, name: &str) {
    for step in ["one", "two"] {
        let from = if step == "one" { "busybox" } else { name };
        engine.docker(&["run", "--name", "step", from, "sh", "-c", &format!("echo {step} > /{step}")]).ok();
        engine.docker(&["commit", "step", name]).ok();
        engine.docker(&["rm", "step"]).ok();
    }
}

/// The files and directories of the store, for comparisons.
fn stored(engine: &Engine) -> Vec<String> {
    let data = engine.home().join("data");
    let places = ["overlay/l", "overlay/s", "overlay/new", "overlay2", "tmp", "image/configs"];
    let mut found = Vec::new();
    for place in places {
        let entries = std::fs::read_dir(data.join(place)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| format!("{place}/{}", entry.file_name().to_string_lossy())));
    }
    // Docker's driver has a directory of short links.
    found.retain(|path| path != "overlay2/l");
    found.sort();
    found
}

#[test]
fn images_are_pulled_by_tag_and_by_digest() {
    let engine = Engine::start();
    let _registry = Registry::start(&engine);
    layered(&engine, "layered");
    push(&engine, "layered", "a/app:1", &[]);
    let id = inspect(&engine, "layered", "{{.Id}}");
    engine.docker(&["rmi", "-f", "layered"]).ok();
    engine.docker(&["rmi", "-f", "busybox"]).ok();
    let name = "127.0.0.1:5000/a/app:1";

    let pulled = engine.docker(&["pull", name]);
    has_line(pulled.ok(), &["1: Pulling from a/app"]);
    assert_eq!(pulled.ok().matches("Pull complete").count(), 3, "{}", pulled.stdout);
    has_line(pulled.ok(), &["Digest: sha256:"]);
    has_line(pulled.ok(), &[&format!("Status: Downloaded newer image for {name}")]);
    assert_eq!(pulled.ok().lines().last(), Some(name));
    assert_eq!(inspect(&engine, name, "{{.Id}}"), id, "the same image as was pushed");
    assert_eq!(engine.docker(&["run", "--rm", name, "cat", "/one", "/two"]).ok(), "one\ntwo");

    let digest = inspect(&engine, name, "{{index .RepoDigests 0}}");
    has_line(pulled.ok(), &[&format!("Digest: {}", digest.split('@').nth(1).expect("a digest"))]);
    let again = engine.docker(&["pull", name]);
    has_line(again.ok(), &[&format!("Status: Image is up to date for {name}")]);
    assert!(!again.ok().contains("Pull complete"), "{}", again.stdout);

    engine.docker(&["rmi", "-f", &id]).ok();
    let by_digest = engine.docker(&["pull", &digest]);
    has_line(by_digest.ok(), &[&format!("Status: Downloaded newer image for {digest}")]);
    assert_eq!(inspect(&engine, &digest, "{{.Id}}"), id);
    assert_eq!(inspect(&engine, &digest, "{{json .RepoTags}}"), "[]");
    has_line(engine.docker(&["pull", &digest]).ok(), &["Status: Image is up to date for"]);
    assert_eq!(engine.docker(&["pull", "-q", name]).ok(), name);
}

#[test]
fn run_pulls_what_is_missing() {
    let engine = Engine::start();
    let _registry = Registry::start(&engine);
    push(&engine, "busybox", "bb:latest", &[]);
    engine.docker(&["rmi", "-f", "busybox"]).ok();
    let ran = engine.docker(&["run", "--rm", "127.0.0.1:5000/bb", "echo", "works"]);
    assert_eq!(ran.ok(), "works");
    has_line(&ran.stderr, &["Unable to find image '127.0.0.1:5000/bb:latest' locally"]);
    has_line(&ran.stderr, &["latest: Pulling from bb"]);
    has_line(&ran.stderr, &["Status: Downloaded newer image for 127.0.0.1:5000/bb:latest"]);
}

#[test]
fn both_manifest_formats_and_all_compressions_are_pulled() {
    let engine = Engine::start();
    let _registry = Registry::start(&engine);
    let mut forms = vec![("gzip", vec!["--format", "oci"]), ("v2s2", vec!["--format", "v2s2"])];
    if is_portolan(&engine) {
        // Debian's dockerd is older than its support for zstd.
        forms.push(("zstd", vec!["--format", "oci", "--dest-compress-format", "zstd"]));
    }
    for (tag, flags) in &forms {
        push(&engine, "busybox", &format!("bb:{tag}"), flags);
    }
    for (tag, _) in &forms {
        engine.docker(&["rmi", "-f", "busybox"]);
        let name = format!("127.0.0.1:5000/bb:{tag}");
        let ran = engine.docker(&["run", "--rm", &name, "echo", "works"]);
        assert_eq!(ran.ok(), "works", "{tag}");
        engine.docker(&["rmi", "-f", &name]).ok();
    }
}

#[test]
fn what_is_not_there_is_told_in_dockers_words() {
    let engine = Engine::start();
    let registry = Registry::start(&engine);
    push(&engine, "busybox", "bb:latest", &[]);
    let missing = engine.docker(&["pull", "127.0.0.1:5000/bb:nope"]);
    has_line(
        missing.fails(),
        &["manifest for 127.0.0.1:5000/bb:nope not found: manifest unknown: manifest unknown"],
    );
    let nobody = engine.docker(&["pull", "127.0.0.1:5000/nobody"]);
    has_line(nobody.fails(), &["127.0.0.1:5000/nobody", "not found"]);
    has_line(engine.docker(&["pull", "scratch"]).fails(), &["'scratch' is a reserved name"]);
    drop(registry);
    let gone = engine.docker(&["pull", "127.0.0.1:5000/bb"]);
    has_line(gone.fails(), &["Get \"http://127.0.0.1:5000/v2/\"", "connection refused"]);
    let run = engine.docker(&["run", "--rm", "127.0.0.1:5000/bb", "true"]);
    assert_eq!(run.code, 125);
}

#[test]
fn a_wrong_blob_leaves_nothing() {
    let engine = Engine::start();
    let registry = Registry::start(&engine);
    layered(&engine, "layered");
    push(&engine, "layered", "app:1", &[]);
    engine.docker(&["rmi", "-f", "layered"]).ok();
    engine.docker(&["rmi", "-f", "busybox"]).ok();
    let layers = manifest(&engine, "app", "1", "")["layers"].clone();
    let layer = layers[1]["digest"].as_str().expect("a digest");
    let path = registry.blob(layer);
    let good = std::fs::read(&path).expect("the blob");
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0xff;
    std::fs::write(&path, &bad).expect("the blob");
    let before = eventually("removed layers are gone", 10, || {
        let now = stored(&engine);
        now.iter().all(|path| !path.starts_with("overlay/l") && !path.starts_with("overlay2/")).then_some(now)
    });
    let pulled = engine.docker(&["pull", "127.0.0.1:5000/app:1"]);
    has_line(pulled.fails(), &[&format!("filesystem layer verification failed for digest {layer}")]);
    assert_eq!(engine.docker(&["images", "-aq"]).ok(), "");
    eventually("nothing is left of the pull", 10, || (stored(&engine) == before).then_some(()));

    std::fs::write(&path, &good).expect("the blob");
    let name = "127.0.0.1:5000/app:1";
    assert_eq!(engine.docker(&["run", "--rm", name, "cat", "/one", "/two"]).ok(), "one\ntwo");
}

#[test]
fn a_private_registry_wants_a_login() {
    let engine = Engine::start();
    let _registry = Registry::private(&engine);
    push(&engine, "busybox", "bb:latest", &["--dest-creds", "user:secret"]);
    engine.docker(&["rmi", "-f", "busybox"]).ok();
    let client = client_with_config(&engine);
    let client = |words: &[&str], input: Option<&str>| {
        let mut all = client.clone();
        all.extend(words.iter().map(|word| (*word).to_owned()));
        run(&all, input.map(str::as_bytes))
    };
    let name = "127.0.0.1:5000/bb";
    has_line(client(&["pull", name], None).fails(), &["no basic auth credentials"]);
    let login = ["login", "-u", "user", "--password-stdin", "127.0.0.1:5000"];
    let wrong = client(&login, Some("wrong\n"));
    has_line(
        wrong.fails(),
        &["login attempt to http://127.0.0.1:5000/v2/ failed with status: 401 Unauthorized"],
    );
    has_line(client(&login, Some("secret\n")).ok(), &["Login Succeeded"]);
    let config = std::fs::read_to_string(engine.home().join("client/config.json")).expect("the file");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["auths"]["127.0.0.1:5000"]["auth"], "dXNlcjpzZWNyZXQ=");
    assert_eq!(client(&["run", "--rm", name, "echo", "works"], None).ok(), "works");
    has_line(client(&["pull", name], None).ok(), &["Status: Image is up to date"]);
    has_line(
        client(&["logout", "127.0.0.1:5000"], None).ok(),
        &["Removing login credentials for 127.0.0.1:5000"],
    );
    has_line(client(&["pull", name], None).fails(), &["no basic auth credentials"]);
}

/// The client with a configuration directory of its own, which both clients take from `DOCKER_CONFIG`.
fn client_with_config(engine: &Engine) -> Vec<String> {
    let mut words =
        vec!["env".to_owned(), format!("DOCKER_CONFIG={}", engine.home().join("client").display())];
    words.extend(engine.client().iter().map(|word| word.to_string_lossy().into_owned()));
    words
}

fn sha256(path: &Path) -> String {
    let output = run(&[OsStr::new("sha256sum"), path.as_os_str()], None);
    output.ok().split(' ').next().expect("a digest").to_owned()
}

/// Adds a blob to an OCI layout; its descriptor.
fn add_blob(layout: &Path, media_type: &str, content: &Value) -> Value {
    let bytes = serde_json::to_vec(content).expect("JSON");
    let temporary = layout.join("new");
    std::fs::write(&temporary, &bytes).expect("a file");
    let hex = sha256(&temporary);
    std::fs::rename(&temporary, layout.join("blobs/sha256").join(&hex)).expect("a file");
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
}

fn read_blob(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let path = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    serde_json::from_slice(&std::fs::read(path).expect("the blob")).expect("JSON")
}

#[test]
fn of_an_index_the_image_for_the_platform_is_pulled() {
    let engine = Engine::start();
    let _registry = Registry::start(&engine);
    let layout = engine.home().join("layout");
    push(&engine, "busybox", "bb:plain", &["--format", "oci"]);
    let from = "docker://127.0.0.1:5000/bb:plain";
    copy(&engine, from, &format!("oci:{}", layout.display()), &["--src-tls-verify=false"]).ok();
    engine.docker(&["rmi", "-f", "busybox"]).ok();
    let index: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).expect("the index")).expect("JSON");
    let image = read_blob(&layout, &index["manifests"][0]);
    let config = read_blob(&layout, &image["config"]);
    let mut entries = Vec::new();
    for (architecture, variant) in [("s390x", ""), ("arm64", "v8"), ("amd64", "")] {
        let mut config = config.clone();
        config["architecture"] = architecture.into();
        let mut image = image.clone();
        image["config"] = add_blob(&layout, "application/vnd.oci.image.config.v1+json", &config);
        let mut entry = add_blob(&layout, "application/vnd.oci.image.manifest.v1+json", &image);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        if !variant.is_empty() {
            entry["platform"]["variant"] = variant.into();
        }
        entries.push(entry);
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let list = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
    let list = add_blob(&layout, media_type, &list);
    let digest = list["digest"].as_str().expect("a digest").to_owned();
    let index = json!({"schemaVersion": 2, "manifests": [list]});
    std::fs::write(layout.join("index.json"), index.to_string()).expect("the index");
    let to = "docker://127.0.0.1:5000/multi:1";
    copy(&engine, &format!("oci:{}", layout.display()), to, &["--all"]).ok();

    let name = "127.0.0.1:5000/multi:1";
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    has_line(engine.docker(&["pull", name]).ok(), &[&format!("Digest: {digest}")]);
    assert_eq!(inspect(&engine, name, "{{.Architecture}}"), host);
    has_line(&inspect(&engine, name, "{{json .RepoDigests}}"), &[&digest]);
    has_line(engine.docker(&["pull", name]).ok(), &["Status: Image is up to date"]);
    engine.docker(&["pull", "--platform", "linux/s390x", name]).ok();
    assert_eq!(inspect(&engine, name, "{{.Architecture}}"), "s390x");
    let other = engine.docker(&["pull", "--platform", "linux/riscv64", name]);
    has_line(other.fails(), &["no matching manifest for linux/riscv64"]);
    has_line(engine.docker(&["pull", name]).ok(), &["Status: Downloaded newer image"]);
    assert_eq!(engine.docker(&["run", "--rm", name, "echo", "works"]).ok(), "works");
}

#[test]
fn two_clients_pull_the_same_at_the_same_time() {
    let engine = Engine::start();
    let _registry = Registry::start(&engine);
    layered(&engine, "layered");
    push(&engine, "layered", "app:1", &[]);
    push(&engine, "busybox", "app:2", &[]);
    let foreign = engine.docker(&["pull", "--platform", "linux/s390x", "127.0.0.1:5000/app:2"]);
    foreign.ok();
    if is_portolan(&engine) {
        // Docker 20.10 says so to its own log alone.
        has_line(
            foreign.ok(),
            &["WARNING: image with reference", "but", "does not match the specified platform"],
        );
    }
    engine.docker(&["rmi", "127.0.0.1:5000/app:2"]).ok();
    engine.docker(&["rmi", "-f", "layered"]).ok();
    engine.docker(&["rmi", "-f", "busybox"]).ok();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = ["1", "1", "2", "1"]
            .into_iter()
            .map(|tag| {
                let engine = &engine;
                scope.spawn(move || engine.docker(&["pull", &format!("127.0.0.1:5000/app:{tag}")]))
            })
            .collect();
        for pull in pulls {
            has_line(pull.join().expect("a pull").ok(), &["Status: "]);
        }
    });
    assert_eq!(engine.docker(&["run", "--rm", "127.0.0.1:5000/app:1", "cat", "/two"]).ok(), "two");
    assert_eq!(engine.docker(&["run", "--rm", "127.0.0.1:5000/app:2", "echo", "two"]).ok(), "two");
}

#[test]
fn all_tags_are_pulled() {
    let engine = Engine::start();
    let _registry = Registry::start(&engine);
    for tag in ["a", "b", "c"] {
        push(&engine, "busybox", &format!("bb:{tag}"), &[]);
    }
    engine.docker(&["rmi", "-f", "busybox"]).ok();
    has_line(engine.docker(&["pull", "-a", "127.0.0.1:5000/bb"]).ok(), &["Status: Downloaded newer image"]);
    let tags = engine.docker(&["images", "--format", "{{.Tag}}", "127.0.0.1:5000/bb"]);
    let mut tags: Vec<_> = tags.ok().lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["a", "b", "c"]);
}

#[test]
fn a_certificate_must_be_good_unless_told_otherwise() {
    let name = "192.0.2.1:5000/bb:1";
    let strict = Engine::start();
    let _registry = Registry::with_tls(&strict);
    push(&strict, "busybox", name, &[]);
    strict.docker(&["rmi", "-f", "busybox"]).ok();
    has_line(
        strict.docker(&["pull", name]).fails(),
        &["Get \"https://192.0.2.1:5000/v2/\": ", "certificate"],
    );

    let lax = Engine::builder().image("busybox").arg("--insecure-registry").arg("192.0.2.1:5000").start();
    let _registry = Registry::with_tls(&lax);
    push(&lax, "busybox", name, &[]);
    lax.docker(&["rmi", "-f", "busybox"]).ok();
    assert_eq!(lax.docker(&["run", "--rm", name, "echo", "works"]).ok(), "works");
}

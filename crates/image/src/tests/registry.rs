//! Pulls from a registry that is only a script, and does what real ones do on a bad day.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Home, Tar};
use crate::digest::Digest;
use crate::registry::{Credentials, LayerStatus, Progress, Pulled, Registries, RegistryConfig};
use crate::{Error, Reference, Result};

/// A request as the script sees it.
struct Asked {
    /// Path and query.
    target: String,
    /// By name in lower case.
    headers: HashMap<String, String>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Where the range that was asked for begins.
    fn from(&self) -> usize {
        let range = self.header("range").trim_start_matches("bytes=");
        range.trim_end_matches('-').parse().unwrap_or(0)
    }
}

/// What the script answers.
struct Reply {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Send only so many bytes of the body...
    sent: usize,
    /// ...and then keep silent rather than hang up.
    stall: bool,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: Vec::new(), sent: body.len(), body, stall: false }
    }

    fn header(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    fn cut(mut self, sent: usize) -> Self {
        self.sent = sent.min(self.body.len());
        self
    }

    fn not_found() -> Self {
        Self::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
    }
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

/// Serves a script on loopback; returns `127.0.0.1:port`. The thread ends with the test.
fn serve(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script: Arc<Script> = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let script = script.clone();
            // A client that comes with TLS, or goes away, is no failure.
            std::thread::spawn(move || answer(stream.unwrap(), &*script));
        }
    });
    address
}

fn answer(mut stream: TcpStream, script: &Script) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let first = lines.next()?.ok()?;
        let target = first.split(' ').nth(1)?.to_owned();
        let mut headers = HashMap::new();
        for line in lines.by_ref() {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let reply = script(&Asked { target, headers });
        let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
        for header in &reply.headers {
            head += &format!("{header}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        if !first.starts_with("HEAD") {
            stream.write_all(&reply.body[..reply.sent]).ok()?;
        }
        if reply.stall {
            std::thread::sleep(Duration::from_secs(30));
        }
        if reply.sent < reply.body.len() {
            return None;
        }
    }
}

/// An image of two layers, by the paths under `/v2/app/`.
#[derive(Clone)]
struct App {
    files: HashMap<String, Vec<u8>>,
    layers: Vec<String>,
}

impl App {
    fn new() -> Self {
        let noise: String = (0..60_000u32)
            .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
            .collect();
        let layers = [Tar::new().file("one", &noise).bytes(), Tar::new().file("two", "2").bytes()];
        let digests: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = config.to_string().into_bytes();
        let describe = |bytes: &Vec<u8>, kind: &str| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": Digest::of(bytes).to_string(), "size": bytes.len(),
            })
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe(&config, "config.v1+json"),
            "layers": layers.iter().map(|layer| describe(layer, "layer.v1.tar")).collect::<Vec<_>>(),
        });
        let mut files = HashMap::from([("manifests/1".to_owned(), manifest.to_string().into_bytes())]);
        files.insert(format!("blobs/{}", Digest::of(&config)), config);
        for (digest, layer) in digests.iter().zip(layers) {
            files.insert(format!("blobs/{digest}"), layer);
        }
        Self { files, layers: digests }
    }

    /// What a registry without whims answers.
    fn reply(&self, asked: &Asked) -> Reply {
        if asked.target == "/v2/" {
            return Reply::new(200, "{}");
        }
        let file = asked.target.split_once("app/").and_then(|(_, path)| self.files.get(path));
        file.map_or_else(Reply::not_found, |bytes| Reply::new(200, bytes.clone()))
    }

    fn is_layer(&self, asked: &Asked, number: usize) -> bool {
        asked.target.ends_with(&self.layers[number])
    }
}

fn registries(config: RegistryConfig) -> Registries {
    Registries::new(RegistryConfig { certificates: Vec::new(), ..config })
}

fn user() -> Credentials {
    Credentials { username: "u".into(), password: "p".into(), ..Credentials::default() }
}

async fn pull(home: &Home, name: &str, config: RegistryConfig) -> Result<Pulled> {
    let reference = Reference::parse(name).unwrap();
    registries(config).pull(&home.store, &reference, None, &user(), |_| {}).await
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    for ranges in [true, false] {
        let (app, home) = (App::new(), Home::new());
        let starts = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (app.clone(), starts.clone());
        let address = serve(move |asked| {
            let reply = script.reply(asked);
            if !script.is_layer(asked, 0) {
                return reply;
            }
            seen.lock().unwrap().push(asked.from());
            match asked.from() {
                0 if seen.lock().unwrap().len() == 1 => reply.cut(20_000),
                from if from > 0 && ranges => Reply::new(206, reply.body[from..].to_vec()),
                _ => reply,
            }
        });
        let told = Arc::new(Mutex::new(Vec::new()));
        let lines = told.clone();
        let reference = Reference::parse(&format!("{address}/app:1")).unwrap();
        let report = move |line| lines.lock().unwrap().push(line);
        let registries = registries(RegistryConfig::default());
        let pulled = registries.pull(&home.store, &reference, None, &user(), report).await.unwrap();
        assert!(pulled.updated);
        assert_eq!(*starts.lock().unwrap(), [0, 20_000], "ranges: {ranges}");
        let retried =
            told.lock().unwrap().iter().any(|line| {
                matches!(line, Progress::Layer { status: LayerStatus::Retrying { seconds: 1 }, .. })
            });
        assert!(retried);
        let inspect = home.store.inspect(&reference.to_string()).unwrap();
        assert_eq!(inspect.repo_digests, [format!("{address}/app@{}", pulled.digest)]);
        assert_eq!(super::read(inspect.layer_dirs[0].join("two")), "2");
    }
}

#[tokio::test]
async fn what_never_comes_whole_leaves_nothing() {
    let (app, home) = (App::new(), Home::new());
    let script = app.clone();
    let address = serve(move |asked| match script.reply(asked) {
        reply if script.is_layer(asked, 1) => reply.cut(100),
        reply => reply,
    });
    let config = RegistryConfig { max_attempts: 2, ..RegistryConfig::default() };
    let error = pull(&home, &format!("{address}/app:1"), config).await.unwrap_err();
    assert!(matches!(&error, Error::Registry(text) if text.contains("/blobs/")), "{error}");
    assert_eq!(home.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_blob_that_is_not_its_digest_is_not_tried_again() {
    let (app, home) = (App::new(), Home::new());
    let tries = Arc::new(Mutex::new(0));
    let (script, count) = (app.clone(), tries.clone());
    let address = serve(move |asked| {
        let mut reply = script.reply(asked);
        if script.is_layer(asked, 0) {
            *count.lock().unwrap() += 1;
            reply.body[30_000] ^= 1;
        }
        reply
    });
    let error = pull(&home, &format!("{address}/app:1"), RegistryConfig::default()).await.unwrap_err();
    let wanted = format!("filesystem layer verification failed for digest {}", app.layers[0]);
    assert_eq!(error.to_string(), wanted);
    assert_eq!(*tries.lock().unwrap(), 1);
    assert_eq!(home.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing() {
    let (app, home) = (App::new(), Home::new());
    let script = app.clone();
    let address = serve(move |asked| {
        let stall = script.is_layer(asked, 1);
        Reply { stall, ..script.reply(asked).cut(if stall { 10 } else { usize::MAX }) }
    });
    let name = format!("{address}/app:1");
    let pull = pull(&home, &name, RegistryConfig::default());
    assert!(tokio::time::timeout(Duration::from_millis(500), pull).await.is_err(), "it waits for the layer");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !home.leftovers().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", home.leftovers());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn tokens_are_asked_for_and_renewed() {
    let (app, home) = (App::new(), Home::new());
    let given = Arc::new(Mutex::new(Vec::new()));
    let (script, tokens) = (app.clone(), given.clone());
    let own_address = Arc::new(Mutex::new(String::new()));
    let realm = own_address.clone();
    let address = serve(move |asked| {
        let mut tokens = tokens.lock().unwrap();
        if asked.target.starts_with("/token?") {
            tokens.push(format!("{} {}", asked.target, asked.header("authorization")));
            return Reply::new(200, format!(r#"{{"token":"t{}"}}"#, tokens.len()));
        }
        let current = format!("Bearer t{}", tokens.len());
        // The first token does not outlive the manifest.
        let expired = tokens.len() == 1 && asked.target.contains("/blobs/");
        if asked.header("authorization") != current || expired {
            let challenge = format!(
                "www-authenticate: Bearer realm=\"http://{}/token\",service=\"s\"",
                realm.lock().unwrap()
            );
            return Reply::new(401, "{}").header(challenge);
        }
        script.reply(asked)
    });
    own_address.lock().unwrap().clone_from(&address);
    pull(&home, &format!("{address}/app:1"), RegistryConfig::default()).await.unwrap();
    let wanted = "/token?service=s&scope=repository%3Aapp%3Apull&account=u Basic dTpw";
    assert_eq!(*given.lock().unwrap(), [wanted, wanted]);
}

#[tokio::test]
async fn without_credentials_dockers_words_say_so() {
    let home = Home::new();
    let address = serve(|_| Reply::new(401, "{}").header("www-authenticate: Basic realm=\"r\""));
    let reference = Reference::parse(&format!("{address}/app:1")).unwrap();
    let registries = registries(RegistryConfig::default());
    let nobody = Credentials::default();
    let error = registries.pull(&home.store, &reference, None, &nobody, |_| {}).await.unwrap_err();
    assert!(error.to_string().ends_with("/manifests/1\": no basic auth credentials"), "{error}");
    let refused = registries.login(&address, &user()).await.unwrap_err();
    let wanted = format!("login attempt to http://{address}/v2/ failed with status: 401 Unauthorized");
    assert_eq!(refused.to_string(), wanted);
    assert!(matches!(refused, Error::Unauthorized(_)));
}

#[tokio::test]
async fn a_mirror_comes_first_and_gets_no_credentials() {
    let (app, home) = (App::new(), Home::new());
    let secrets = Arc::new(Mutex::new(Vec::new()));
    let (script, seen) = (app.clone(), secrets.clone());
    let good = serve(move |asked| {
        seen.lock().unwrap().push(asked.header("authorization").to_owned());
        script.reply(asked)
    });
    let empty = serve(|_| Reply::not_found());
    let mirrors = vec![format!("http://{empty}"), format!("http://{good}")];
    let config = RegistryConfig { mirrors, ..RegistryConfig::default() };
    pull(&home, "me/app:1", config).await.unwrap();
    assert!(home.store.resolve("me/app:1").is_ok());
    assert!(secrets.lock().unwrap().iter().all(String::is_empty));
}

#[tokio::test]
async fn a_redirected_download_takes_no_credentials_along() {
    let (app, home) = (App::new(), Home::new());
    let secrets = Arc::new(Mutex::new(Vec::new()));
    let (script, seen) = (app.clone(), secrets.clone());
    let storage = serve(move |asked| {
        seen.lock().unwrap().push(asked.header("authorization").to_owned());
        script.reply(asked)
    });
    let script = app.clone();
    let address = serve(move |asked| {
        if asked.header("authorization") != "Basic dTpw" {
            return Reply::new(401, "{}").header("www-authenticate: Basic realm=\"r\"");
        }
        if asked.target.contains("/blobs/") {
            return Reply::new(307, "").header(format!("location: http://{storage}{}", asked.target));
        }
        script.reply(asked)
    });
    pull(&home, &format!("{address}/app:1"), RegistryConfig::default()).await.unwrap();
    let secrets = secrets.lock().unwrap();
    assert_eq!(secrets.len(), 3, "configuration and layers");
    assert!(secrets.iter().all(String::is_empty));
}

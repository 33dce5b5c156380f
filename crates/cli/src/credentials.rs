//! The credentials of registries, where Docker's CLI keeps them: in `config.json`, or with a helper program
//! (`credsStore`, `credHelpers`) that the file names.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use portolan_api::AuthConfig;
use serde_json::{Map, Value, json};

use crate::config::ConfigFile;
use crate::failure::Failure;
use crate::json::Json;

/// Docker Hub's key in the file.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";
/// The user name with which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// The key of the registry that an image's name begins with.
pub(crate) fn key_of_image(image: &str) -> String {
    match crate::reference::canonical(image).split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) | None => HUB.to_owned(),
        Some((domain, _)) => domain.to_owned(),
    }
}

/// A server's address without scheme and path.
pub(crate) fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

impl ConfigFile {
    /// What `X-Registry-Auth` says for an image: its registry's credentials, or nobody's.
    ///
    /// # Errors
    /// When a helper fails.
    pub(crate) fn header_for(&self, image: &str) -> Result<String, Failure> {
        let auth = self.get(&key_of_image(image))?.unwrap_or_default();
        let text = serde_json::to_string(&auth).map_err(|why| Failure::new(why.to_string()))?;
        Ok(URL_SAFE.encode(text))
    }

    /// The credentials for a registry, by its key.
    ///
    /// # Errors
    /// When a helper fails.
    pub(crate) fn get(&self, key: &str) -> Result<Option<AuthConfig>, Failure> {
        if let Some(helper) = self.helper(key) {
            return helper.get(key);
        }
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let exact = auths.get(key);
        // Old files have addresses where newer ones have hosts.
        let found =
            exact.or_else(|| auths.iter().find(|(name, _)| host_of(name) == key).map(|(_, auth)| auth));
        Ok(found.map(|auth| decode(key, auth)))
    }

    /// Keeps credentials; the path of the file if they are in it, and not with a helper.
    ///
    /// # Errors
    /// When a helper fails or the file cannot be written.
    pub(crate) fn store(&mut self, auth: &AuthConfig) -> Result<Option<&Path>, Failure> {
        let key = auth.server_address.as_str();
        if let Some(helper) = self.helper(key) {
            helper.store(auth)?;
            // Docker's CLI leaves a mark of where somebody is logged in.
            self.auths().insert(key.to_owned(), json!({}));
            self.write()?;
            return Ok(None);
        }
        let mut entry = json!({"auth": STANDARD.encode(format!("{}:{}", auth.username, auth.password))});
        if !auth.identity_token.is_empty() {
            entry["identitytoken"] = auth.identity_token.as_str().into();
        }
        self.auths().insert(key.to_owned(), entry);
        self.write()?;
        Ok(Some(&self.path))
    }

    /// Forgets credentials, under any of these keys.
    ///
    /// # Errors
    /// When the file cannot be written. What a helper does not know is no failure.
    pub(crate) fn erase(&mut self, keys: &[String]) -> Result<(), Failure> {
        for key in keys {
            if let Some(helper) = self.helper(key) {
                let _ = helper.run("erase", key);
            }
        }
        let auths = self.auths();
        let before = auths.len();
        auths.retain(|name, _| !keys.contains(name));
        if auths.len() == before { Ok(()) } else { self.write() }
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        if !self.content["auths"].is_object() {
            self.content["auths"] = json!({});
        }
        self.content["auths"].as_object_mut().expect("it was just made an object")
    }

    fn helper(&self, key: &str) -> Option<Helper> {
        let own =
            self.content.get("credHelpers").and_then(|helpers| helpers.get(key)).and_then(Value::as_str);
        let name =
            own.or_else(|| self.content.get("credsStore")?.as_str()).filter(|name| !name.is_empty())?;
        Some(Helper(format!("docker-credential-{name}")))
    }
}

fn decode(key: &str, entry: &Value) -> AuthConfig {
    let mut auth = AuthConfig {
        username: entry.text("username").to_owned(),
        password: entry.text("password").to_owned(),
        identity_token: entry.text("identitytoken").to_owned(),
        registry_token: entry.text("registrytoken").to_owned(),
        server_address: key.to_owned(),
    };
    let pair = STANDARD.decode(entry.text("auth")).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((username, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
        auth.username = username.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    auth
}

/// A program that keeps credentials (Docker's credential helper protocol).
struct Helper(String);

impl Helper {
    fn get(&self, key: &str) -> Result<Option<AuthConfig>, Failure> {
        let answer = match self.run("get", key) {
            Ok(answer) => answer,
            Err(why) if why.contains("credentials not found") => return Ok(None),
            Err(why) => return Err(Failure::new(format!("error getting credentials - {why}"))),
        };
        let answer: Value = serde_json::from_str(&answer)
            .map_err(|why| Failure::new(format!("error getting credentials - {}: {why}", self.0)))?;
        let (username, secret) = (answer.text("Username").to_owned(), answer.text("Secret").to_owned());
        let mut auth = AuthConfig { server_address: key.to_owned(), ..AuthConfig::default() };
        if username == TOKEN_USER {
            auth.identity_token = secret;
        } else {
            (auth.username, auth.password) = (username, secret);
        }
        Ok(Some(auth))
    }

    fn store(&self, auth: &AuthConfig) -> Result<(), Failure> {
        let (username, secret) = match auth.identity_token.as_str() {
            "" => (auth.username.as_str(), auth.password.as_str()),
            token => (TOKEN_USER, token),
        };
        let input = json!({"ServerURL": auth.server_address, "Username": username, "Secret": secret});
        let stored = self.run("store", &input.to_string());
        stored.map(drop).map_err(|why| Failure::new(format!("error storing credentials - {why}")))
    }

    fn run(&self, action: &str, input: &str) -> Result<String, String> {
        let spawn = || {
            let mut child = Command::new(&self.0)
                .arg(action)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        };
        let output = spawn().map_err(|why| format!("{}: {why}", self.0))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() { Ok(text) } else { Err(format!("{}: {text}", self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn config(content: Value) -> ConfigFile {
        ConfigFile { path: PathBuf::new(), content }
    }

    #[test]
    fn keys_are_dockers() {
        assert_eq!(key_of_image("nginx"), HUB);
        assert_eq!(key_of_image("me/app:1"), HUB);
        assert_eq!(key_of_image("ghcr.io/a/b"), "ghcr.io");
        assert_eq!(key_of_image("127.0.0.1:5000/a@sha256:x"), "127.0.0.1:5000");
        assert_eq!(host_of("https://index.docker.io/v1/"), "index.docker.io");
    }

    #[test]
    fn credentials_are_found_under_old_keys_too() {
        let file = config(json!({"auths": {
            "https://old.example/v1/": {"auth": STANDARD.encode("u:p:q")},
            "new.example": {"identitytoken": "t"}
        }}));
        let old = file.get("old.example").unwrap().unwrap();
        assert_eq!((old.username.as_str(), old.password.as_str()), ("u", "p:q"));
        assert_eq!(file.get("new.example").unwrap().unwrap().identity_token, "t");
        assert_eq!(file.get("other.example").unwrap(), None);
    }

    #[test]
    fn what_else_the_file_says_stays() {
        let directory = std::env::temp_dir().join(format!("portolan-cli-config-{}", std::process::id()));
        let path = directory.join("config.json");
        let mut file = ConfigFile::read(path.clone()).unwrap();
        file.content["psFormat"] = "x".into();
        let auth = AuthConfig {
            username: "u".to_owned(),
            password: "p".to_owned(),
            server_address: "r:5000".to_owned(),
            ..AuthConfig::default()
        };
        file.store(&auth).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = ConfigFile::read(path.clone()).unwrap();
        assert_eq!(again.get("r:5000").unwrap().unwrap().password, "p");
        again.erase(&["r:5000".to_owned()]).unwrap();
        let last = ConfigFile::read(path).unwrap();
        assert_eq!(last.content, json!({"psFormat": "x", "auths": {}}));
        std::fs::remove_dir_all(directory).unwrap();
    }
}

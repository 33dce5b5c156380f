//! The client's configuration file: Docker's `config.json`, of which this follows what users of its CLI rely on.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::json::Json;

/// The client's configuration file.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) content: Value,
}

/// The variables that `proxies` sets, and the key of each.
const PROXIES: [(&str, &str); 5] = [
    ("HTTP_PROXY", "httpProxy"),
    ("HTTPS_PROXY", "httpsProxy"),
    ("NO_PROXY", "noProxy"),
    ("FTP_PROXY", "ftpProxy"),
    ("ALL_PROXY", "allProxy"),
];

impl ConfigFile {
    /// The file in the directory named by `--config`, by `$DOCKER_CONFIG`, or `~/.docker`.
    pub(crate) fn locate(named: Option<&str>) -> PathBuf {
        let directory = named.map(PathBuf::from).or_else(|| {
            let directory = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty());
            directory.map(PathBuf::from).or_else(|| {
                let home = std::env::var_os("HOME").filter(|value| !value.is_empty())?;
                Some(Path::new(&home).join(".docker"))
            })
        });
        directory.unwrap_or_default().join("config.json")
    }

    /// Reads the file; empty if there is none.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON object.
    pub(crate) fn read(path: PathBuf) -> Result<ConfigFile, Failure> {
        let wrong =
            |why: String| Failure::new(format!("Error loading config file: {}: {why}", path.display()));
        let content = match std::fs::read_to_string(&path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => json!({}),
            Err(why) => return Err(wrong(why.to_string())),
            Ok(text) if text.trim().is_empty() => json!({}),
            Ok(text) => serde_json::from_str(&text).map_err(|why| wrong(why.to_string()))?,
        };
        if !content.is_object() {
            return Err(wrong("not a JSON object".to_owned()));
        }
        Ok(ConfigFile { path, content })
    }

    /// No file.
    pub(crate) fn empty(path: PathBuf) -> ConfigFile {
        ConfigFile { path, content: json!({}) }
    }

    /// The text under a key, such as `psFormat` or `currentContext`.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.content.text(key)
    }

    /// The directory that the file is in.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The headers that every request carries.
    ///
    /// # Errors
    /// When one cannot be a header.
    pub(crate) fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.content.entries("HttpHeaders") {
            let header = HeaderName::try_from(name).ok();
            let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
            let (Some(header), Some(value)) = (header, value) else {
                let file = self.path.display();
                return Err(Failure::new(format!(
                    "{file}: HttpHeaders: {name:?} cannot be sent as a header"
                )));
            };
            headers.insert(header, value);
        }
        Ok(headers)
    }

    /// The variables of the daemon's proxies, or the default ones, that `env` does not set already.
    pub(crate) fn proxy_variables(&self, host: &str, env: &[String]) -> Vec<String> {
        let proxies = self.content.at(&["proxies"]);
        let own = proxies.get(host).unwrap_or(proxies.get_or_null("default"));
        let is_set = |name: &str| env.iter().any(|set| set.split('=').next() == Some(name));
        let mut out = Vec::new();
        for (name, key) in PROXIES {
            let value = own.text(key);
            let names = [name.to_owned(), name.to_lowercase()];
            let wanted = names.iter().filter(|name| !value.is_empty() && !is_set(name));
            out.extend(wanted.map(|name| format!("{name}={value}")));
        }
        out
    }

    /// Replaces the file as a whole; readable for its owner only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        // A symlink stays one.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let wrong =
            |why: io::Error| Failure::new(format!("error saving credentials: {}: {why}", path.display()));
        let text =
            serde_json::to_string_pretty(&self.content).map_err(|why| Failure::new(why.to_string()))?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(wrong)?;
        }
        let new = path.with_extension(format!("json.{}", std::process::id()));
        let written = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&new, &path));
        written.map_err(|why| {
            let _ = std::fs::remove_file(&new);
            wrong(why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(content: Value) -> ConfigFile {
        ConfigFile { path: PathBuf::from("/c/config.json"), content }
    }

    #[test]
    fn proxies_are_the_daemons_or_the_default_ones() {
        let file = config(json!({"proxies": {
            "default": {"httpProxy": "http://p:1", "noProxy": "a,b"},
            "tcp://d:1": {"httpsProxy": "http://q:2"},
        }}));
        assert_eq!(
            file.proxy_variables("unix:///x", &["http_proxy=mine".to_owned(), "NO_PROXY".to_owned()]),
            ["HTTP_PROXY=http://p:1", "no_proxy=a,b"]
        );
        assert_eq!(
            file.proxy_variables("tcp://d:1", &[]),
            ["HTTPS_PROXY=http://q:2", "https_proxy=http://q:2"]
        );
        assert!(config(json!({})).proxy_variables("unix:///x", &[]).is_empty());
    }

    #[test]
    fn headers_are_checked() {
        assert_eq!(config(json!({"HttpHeaders": {"X-A": "1"}})).headers().unwrap()["x-a"], "1");
        let why = config(json!({"HttpHeaders": {"X A": "1"}})).headers().unwrap_err();
        assert!(why.text().contains("\"X A\""), "{why:?}");
    }
}

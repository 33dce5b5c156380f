//! How the daemon is set up: dockerd's flags and configuration file, with dockerd's names.
//!
//! Flags and file fill the same [`Settings`]: the file's keys are the flags' names (plural where a flag may be
//! repeated). A directive given in both is an error, as in dockerd, and so is one that nobody knows. What dockerd
//! has and we do not is refused by name, with the reason ([`absent`]).

mod absent;
mod build;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use portolan_engine::EngineConfig;
use serde_json::{Map, Value};

pub(crate) use settings::Settings;

/// A configuration that cannot be used; the text is for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Something is wrong with a flag, or with what flags and file say together.
    #[error("{0}")]
    Invalid(String),
    /// Something is wrong with the configuration file.
    #[error("unable to configure the daemon with file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Where clients come in (`--host`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path`: a socket that is made, mode 0660.
    Unix(PathBuf),
    /// `tcp://address:port`, without TLS.
    Tcp(SocketAddr),
    /// `fd://`: the sockets that systemd passed (`LISTEN_FDS`).
    Systemd,
}

/// Who writes the firewall's rules (`--firewall-backend`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirewallBackend {
    /// Our own nftables tables.
    #[default]
    Nftables,
    /// iptables-restore, with rules as Docker's.
    Iptables,
}

impl FirewallBackend {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            FirewallBackend::Nftables => "nftables",
            FirewallBackend::Iptables => "iptables",
        }
    }
}

/// How much is logged (`--log-level`).
pub use tracing::Level as LogLevel;

/// How the daemon is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients come in; never empty.
    pub hosts: Vec<Host>,
    /// Group of the unix sockets (`--group`); `docker` or `portolan`, whichever exists, if none.
    pub group: Option<String>,
    /// `--pidfile`.
    pub pidfile: PathBuf,
    /// `--config-file`, read again on SIGHUP.
    pub config_file: PathBuf,
    /// `--metrics-addr`: where `GET /metrics` is answered besides, to whoever connects.
    pub metrics: Option<SocketAddr>,
    /// `--debug` or `--log-level`.
    pub log_level: LogLevel,
    /// `--label`: `key=value`, shown by `docker info`.
    pub labels: Vec<String>,
    /// `--validate`: check the configuration and end.
    pub validate: bool,
    /// `--experimental`.
    pub experimental: bool,
    /// `--firewall-backend`.
    pub firewall_backend: FirewallBackend,
    /// `--host-names`: where the resolver answers this host.
    pub host_names: Option<SocketAddr>,
    /// `--registry-mirror`.
    pub registry_mirrors: Vec<String>,
    /// `--insecure-registry`.
    pub insecure_registries: Vec<String>,
    /// `--http-proxy`, `--https-proxy`, `--no-proxy`.
    pub proxies: Proxies,
    /// What the user should know: options that are accepted but have nothing to act on.
    pub warnings: Vec<String>,
    /// The engine, and in it the networks.
    pub engine: EngineConfig,
    /// The flags alone, to be merged with the file again.
    flags: Map<String, Value>,
    /// Flags and file together.
    given: Map<String, Value>,
}

/// What [`Config::reload`] can change while the daemon runs.
const RELOADABLE: [&str; 11] = [
    "debug",
    "log-level",
    "labels",
    "live-restore",
    "shutdown-timeout",
    "registry-mirrors",
    "insecure-registries",
    "max-concurrent-downloads",
    "max-download-attempts",
    "default-runtime",
    "runtimes",
];

/// Proxies for pulls and pushes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`.
    pub http: String,
    /// For `https://`.
    pub https: String,
    /// Hosts without a proxy.
    pub no_proxy: String,
}

/// What the command line says to do.
#[derive(Debug)]
pub enum Command {
    /// Run, or with `validate` only check.
    Run(Box<Config>),
    /// Print this text and end with status 0: `--help`, `--version`.
    Print(String),
}

/// The flags of `portolan daemon` and of `dockerd`.
#[derive(Debug, clap::Parser)]
#[command(
    name = "portolan daemon",
    bin_name = "portolan daemon",
    about = "Serves the Docker Engine API",
    long_about = "Serves the Docker Engine API. The flags and the configuration file have dockerd's names.",
    version = crate::identity::VERSION,
    disable_version_flag = true,
    max_term_width = 100
)]
struct Args {
    /// Configuration file; its keys are the names of the flags, plural where a flag may be repeated
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Check the configuration and end
    #[arg(long)]
    validate: bool,
    /// Print the version and end
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    settings: Settings,
}

/// The configuration file, if the user names none.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/portolan/daemon.json";

/// The configuration file of a daemon that is called `dockerd`: the one that is there already.
const DOCKERD_CONFIG_FILE: &str = "/etc/docker/daemon.json";

/// The configuration file for a daemon that is called by this name (`args[0]`).
fn default_config_file(called: &std::ffi::OsStr) -> &'static str {
    match std::path::Path::new(called).file_name() {
        Some(name) if name == "dockerd" => DOCKERD_CONFIG_FILE,
        _ => DEFAULT_CONFIG_FILE,
    }
}

/// Reads the command line (`args[0]` is the program's name) and the configuration file.
///
/// # Errors
/// Unknown or unsupported options, values that are none, directives in both places.
pub fn parse_args(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Command, ConfigError> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let default_file = default_config_file(args.first().map(OsString::as_os_str).unwrap_or_default());
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Command::Print(error.render().to_string()));
        }
        Err(error) => return Err(ConfigError::Invalid(explain(&error))),
    };
    let explicit = args.config_file.is_some();
    let path = args.config_file.unwrap_or_else(|| PathBuf::from(default_file));
    let flags = args.settings.to_map();
    let file = read_file(&path, explicit)?;
    let mut config = merge(&flags, file, &path)?;
    config.validate = args.validate;
    Ok(Command::Run(Box::new(config)))
}

/// clap's words, or ours for an option of dockerd's that we do not have.
fn explain(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
    {
        let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
        if let Some(reason) = absent::reason(name) {
            return format!("the option --{name} is not supported: {reason}");
        }
    }
    error.render().to_string().trim_end().trim_start_matches("error: ").to_owned()
}

/// Reads the file; a default file that is missing is empty.
fn read_file(path: &std::path::Path, explicit: bool) -> Result<Map<String, Value>, ConfigError> {
    let fail = |reason: String| ConfigError::File { path: path.display().to_string(), reason };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => return Ok(Map::new()),
        Err(error) => return Err(fail(error.to_string())),
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(&text).map_err(|error| fail(format!("invalid JSON: {error}")))
}

/// Puts flags and file together.
fn merge(
    flags: &Map<String, Value>,
    mut file: Map<String, Value>,
    path: &std::path::Path,
) -> Result<Config, ConfigError> {
    let fail = |reason: String| ConfigError::File { path: path.display().to_string(), reason };
    flatten_proxies(&mut file).map_err(fail)?;
    file.retain(|key, value| absent::reason(key).is_none() || !is_off(value));
    // dockerd's own example of a file has every key, most of them empty: as good as not there.
    file.retain(|_, value| value.as_str() != Some(""));
    // The name that the key had before it could hold two.
    if let Some(one) = file.remove("host-gateway-ip") {
        file.entry("host-gateway-ips").or_insert_with(|| Value::Array(vec![one]));
    }
    check_names(&file).map_err(fail)?;
    let both: Vec<String> = file
        .iter()
        .filter_map(|(key, from_file)| {
            let from_flag = flags.get(key)?;
            Some(format!("{key}: (from flag: {}, from file: {})", plain(from_flag), plain(from_file)))
        })
        .collect();
    if !both.is_empty() {
        return Err(fail(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            both.join(", ")
        )));
    }
    // Each half is read on its own, so that an error says which half is wrong.
    let settings = Settings::from_map(file.clone()).map_err(fail)?;
    drop(settings);
    let mut all = flags.clone();
    all.extend(file);
    let settings = Settings::from_map(all.clone()).map_err(ConfigError::Invalid)?;
    build::build(settings, flags.clone(), all, path.to_path_buf())
}

/// dockerd's file groups the proxies: `{"proxies": {"http-proxy": ...}}`.
fn flatten_proxies(file: &mut Map<String, Value>) -> Result<(), String> {
    match file.remove("proxies") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(proxies)) => {
            file.extend(proxies);
            Ok(())
        }
        Some(_) => Err("proxies must be an object".to_owned()),
    }
}

/// Whether a directive switches off what it names: `"tls": false` asks for nothing that we do not have.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Refuses keys that we do not have, naming all of them.
fn check_names(file: &Map<String, Value>) -> Result<(), String> {
    let known = Settings::names();
    let unknown: Vec<&String> = file.keys().filter(|key| !known.contains(key.as_str())).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let (absent, strange): (Vec<&String>, Vec<&String>) =
        unknown.into_iter().partition(|key| absent::reason(key).is_some());
    let mut reasons: Vec<String> = absent
        .iter()
        .map(|key| format!("{key} is not supported: {}", absent::reason(key).unwrap_or_default()))
        .collect();
    if !strange.is_empty() {
        let names: Vec<&str> = strange.iter().map(|key| key.as_str()).collect();
        reasons.push(format!(
            "the following directives don't match any configuration option: {}",
            names.join(", ")
        ));
    }
    Err(reasons.join("; "))
}

/// A value as dockerd prints it in its message: `[a b]`, `text`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

impl Config {
    /// Reads the file again: what of it can change while the daemon runs is taken from the result.
    ///
    /// # Errors
    /// As [`parse_args`]; the daemon goes on as it is.
    pub fn reload(&self) -> Result<Config, ConfigError> {
        let file = read_file(&self.config_file, false)?;
        merge(&self.flags, file, &self.config_file)
    }

    /// Keys that say something else in `again` and have an effect only when the daemon is started with them.
    pub fn kept_until_restart(&self, again: &Config) -> Vec<String> {
        let keys: std::collections::BTreeSet<&String> = self.given.keys().chain(again.given.keys()).collect();
        keys.into_iter()
            .filter(|key| {
                !RELOADABLE.contains(&key.as_str()) && self.given.get(*key) != again.given.get(*key)
            })
            .cloned()
            .collect()
    }

    /// What an event tells of a reload, with dockerd's words.
    pub fn reload_attributes(&self) -> BTreeMap<String, String> {
        let list = |items: &[String]| serde_json::json!(items).to_string();
        let (engine, registry) = (&self.engine, &self.engine.registry);
        let runtimes: Vec<String> =
            engine.runtimes.iter().map(|(name, path)| format!("{name}:{}", path.display())).collect();
        BTreeMap::from(
            [
                ("debug", (self.log_level >= LogLevel::DEBUG).to_string()),
                ("default-runtime", engine.default_runtime.clone().unwrap_or_else(|| "runc".to_owned())),
                ("insecure-registries", list(&self.insecure_registries)),
                ("labels", list(&self.labels)),
                ("live-restore", engine.live_restore.to_string()),
                ("max-concurrent-downloads", registry.max_downloads.to_string()),
                ("max-download-attempts", registry.max_attempts.to_string()),
                ("registry-mirrors", list(&self.registry_mirrors)),
                ("runtimes", runtimes.join(" ")),
                ("shutdown-timeout", engine.shutdown_timeout.as_secs().to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        )
    }
}

#[cfg(test)]
mod tests;

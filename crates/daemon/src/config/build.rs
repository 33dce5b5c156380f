//! Settings, checked, become the configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use portolan_engine::EngineConfig;
use portolan_engine::model::LogConfig;
use portolan_image::registry::RegistryConfig;
use portolan_net::NetConfig;
use portolan_runtime::{Rlimit, SeccompProfile};
use serde_json::{Map, Value};

use super::settings::{Settings, Switch};
use super::values::{KeyValue, Ulimit};
use super::{Config, ConfigError, FirewallBackend, Host, LogLevel, Proxies};

type Result<T> = std::result::Result<T, ConfigError>;

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(ConfigError::Invalid(message.into()))
}

/// Checks everything and fills in the defaults.
pub(super) fn build(
    settings: Settings,
    flags: Map<String, Value>,
    given: Map<String, Value>,
    config_file: PathBuf,
) -> Result<Config> {
    let mut warnings = Vec::new();
    refuse(&settings)?;
    warn(&settings, &mut warnings);
    let exec_root = settings.exec_root.clone().unwrap_or_else(|| PathBuf::from("/run/portolan"));
    check_labels(&settings)?;
    check_seccomp_profile(&settings)?;
    if let (Some(bridge), Some(bip)) = (&settings.bridge, &settings.bip) {
        return invalid(format!(
            "--bridge {bridge} and --bip {bip} exclude each other: the address of the default bridge is whose it is"
        ));
    }
    Ok(Config {
        hosts: hosts(&settings)?,
        group: settings.group.clone(),
        pidfile: settings.pidfile.clone().unwrap_or_else(|| exec_root.join("portolan.pid")),
        config_file,
        metrics: metrics(&settings)?,
        log_level: log_level(&settings)?,
        labels: settings.label.clone().unwrap_or_default(),
        validate: false,
        experimental: on(settings.experimental, false),
        firewall_backend: firewall_backend(&settings)?,
        host_names: host_names(&settings)?,
        registry_mirrors: settings.registry_mirror.clone().unwrap_or_default(),
        insecure_registries: settings.insecure_registry.clone().unwrap_or_default(),
        proxies: Proxies {
            http: settings.http_proxy.clone().unwrap_or_default(),
            https: settings.https_proxy.clone().unwrap_or_default(),
            no_proxy: settings.no_proxy.clone().unwrap_or_default(),
        },
        warnings,
        engine: engine(settings, exec_root)?,
        flags,
        given,
    })
}

/// Each key has one value.
fn check_labels(settings: &Settings) -> Result<()> {
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for label in settings.label.iter().flatten() {
        let Some((key, value)) = label.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return invalid(format!("bad attribute format: {label}"));
        };
        if let Some(other) = values.insert(key, value).filter(|other| *other != value) {
            return invalid(format!("labels: conflict labels for {label} and {key}={other}"));
        }
    }
    Ok(())
}

/// Each container would else find out at its start.
fn check_seccomp_profile(settings: &Settings) -> Result<()> {
    let path = match settings.seccomp_profile.as_deref() {
        None | Some("" | "builtin" | "unconfined") => return Ok(()),
        Some(path) => path,
    };
    let checked = std::fs::read_to_string(path)
        .map_err(|error| error.to_string())
        .and_then(|text| SeccompProfile::Json(text).check().map_err(|error| error.to_string()));
    match checked {
        Ok(()) => Ok(()),
        Err(error) => invalid(format!("invalid --seccomp-profile {path}: {error}")),
    }
}

fn on(switch: Option<Switch>, default: bool) -> bool {
    switch.map_or(default, |Switch(on)| on)
}

const CGROUPFS: &str = "native.cgroupdriver=cgroupfs";
const SYSTEMD: &str = "native.cgroupdriver=systemd";

/// Features of dockerd's that choose between parts which we do not have two of, and why it makes no difference.
const WITHOUT_EFFECT: [(&str, &str); 2] = [
    ("buildkit", "images are not built"),
    ("containerd-snapshotter", "there is one image store, and no containerd"),
];

/// The features that are asked for.
fn features(settings: &Settings) -> impl Iterator<Item = &KeyValue> {
    settings.feature.iter().flatten().filter(|feature| feature.value != "false" && feature.value != "0")
}

/// Values that dockerd has and we do not.
fn refuse(settings: &Settings) -> Result<()> {
    let only = |name: &str, value: &Option<String>, allowed: &[&str]| match value {
        Some(value) if !allowed.contains(&value.as_str()) => {
            invalid(format!("--{name} {value} is not supported: only {}", allowed.join(", ")))
        }
        _ => Ok(()),
    };
    only("storage-driver", &settings.storage_driver, &["overlay2"])?;
    only("log-driver", &settings.log_driver, &["json-file", "none"])?;
    only("log-format", &settings.log_format, &["text"])?;
    only("default-cgroupns-mode", &settings.default_cgroupns_mode, &["private", "host"])?;
    only("default-ipc-mode", &settings.default_ipc_mode, &["private"])?;
    if let Some(option) = settings.storage_opt.iter().flatten().next() {
        return invalid(format!("--storage-opt {option} is not supported: overlay2 has no options here"));
    }
    for option in settings.exec_opt.iter().flatten() {
        if ![CGROUPFS, SYSTEMD].contains(&option.as_str()) {
            return invalid(format!("--exec-opt {option} is not supported: only {CGROUPFS} and {SYSTEMD}"));
        }
    }
    for KeyValue { key, .. } in features(settings) {
        if !WITHOUT_EFFECT.iter().any(|(name, _)| name == key) {
            return invalid(format!("the feature {key} is not supported"));
        }
    }
    if on(settings.selinux_enabled, false) {
        return invalid("--selinux-enabled is not supported: SELinux labels are not set");
    }
    if !on(settings.ip6tables, true) && on(settings.iptables, true) {
        return invalid("--ip6tables=false is not supported on its own: --iptables=false turns off both");
    }
    Ok(())
}

/// Options that are accepted, so that dockerd's unit files and configuration go on working, but that act on
/// nothing.
fn warn(settings: &Settings, warnings: &mut Vec<String>) {
    let mut note = |given: bool, text: &str| {
        if given {
            warnings.push(text.to_owned());
        }
    };
    note(
        settings.containerd.is_some() || settings.containerd_namespace.is_some(),
        "--containerd has no effect: each container has a shim of its own",
    );
    note(
        settings.max_concurrent_uploads.is_some(),
        "--max-concurrent-uploads has no effect: images are not pushed",
    );
    note(
        settings.exec_opt.iter().flatten().any(|option| option == SYSTEMD),
        "native.cgroupdriver=systemd has no effect: containers' cgroups are made directly, as with cgroupfs",
    );
    for KeyValue { key, .. } in features(settings) {
        for (_, why) in WITHOUT_EFFECT.iter().filter(|(name, _)| name == key) {
            note(true, &format!("the feature {key} has no effect: {why}"));
        }
    }
    note(
        settings.network_control_plane_mtu.is_some(),
        "--network-control-plane-mtu has no effect: there is no swarm",
    );
}

fn hosts(settings: &Settings) -> Result<Vec<Host>> {
    let given = settings.host.iter().flatten().map(|text| host(text)).collect::<Result<Vec<_>>>()?;
    Ok(match given[..] {
        [] => vec![Host::Unix(PathBuf::from("/run/portolan/portolan.sock"))],
        _ => given,
    })
}

/// One `--host`.
fn host(text: &str) -> Result<Host> {
    let wrong = |why: &str| invalid(format!("invalid --host {text}: {why}"));
    match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Host::Unix(PathBuf::from(path))),
        Some(("unix", _)) => wrong("write unix:// and an absolute path"),
        Some(("fd", "" | "*")) => Ok(Host::Systemd),
        Some(("fd", _)) => wrong("only fd:// is supported, which takes all sockets of systemd"),
        Some(("tcp", address)) => match address.trim_end_matches('/').parse::<SocketAddr>() {
            Ok(address) => Ok(Host::Tcp(address)),
            Err(_) => wrong("write tcp:// and an address with its port, such as tcp://127.0.0.1:2375"),
        },
        _ => wrong("write unix://, tcp:// or fd://"),
    }
}

/// An empty one is none, as in dockerd's file.
fn metrics(settings: &Settings) -> Result<Option<SocketAddr>> {
    match settings.metrics_addr.as_deref().unwrap_or_default() {
        "" => Ok(None),
        text => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => invalid(format!(
                "invalid --metrics-addr {text}: write an address and a port, such as 127.0.0.1:9323"
            )),
        },
    }
}

fn log_level(settings: &Settings) -> Result<LogLevel> {
    if on(settings.debug, false) {
        return Ok(LogLevel::DEBUG);
    }
    match settings.log_level.as_deref().unwrap_or("info") {
        "trace" => Ok(LogLevel::TRACE),
        "debug" => Ok(LogLevel::DEBUG),
        "info" => Ok(LogLevel::INFO),
        "warn" => Ok(LogLevel::WARN),
        "error" | "fatal" | "panic" => Ok(LogLevel::ERROR),
        other => invalid(format!("invalid logging level: {other}")),
    }
}

/// One address, unless it is a word or all of them.
fn host_binding(settings: &Settings) -> Result<Option<IpAddr>> {
    match settings.ip.as_deref().unwrap_or_default() {
        "" | "any" | "loopback" => Ok(None),
        text => match text.parse::<IpAddr>() {
            Ok(address) => Ok(Some(address).filter(|address| !address.is_unspecified())),
            Err(_) => invalid(format!("invalid --ip {text:?}: any, loopback, or an address")),
        },
    }
}

fn firewall_backend(settings: &Settings) -> Result<FirewallBackend> {
    match settings.firewall_backend.as_deref().unwrap_or_default() {
        "" | "nftables" => Ok(FirewallBackend::Nftables),
        "iptables" => Ok(FirewallBackend::Iptables),
        other => invalid(format!("invalid firewall-backend {other}: nftables or iptables")),
    }
}

/// An address, with port 53 unless it names another.
fn host_names(settings: &Settings) -> Result<Option<SocketAddr>> {
    let Some(text) = &settings.host_names else { return Ok(None) };
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    match address {
        Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
        Ok(_) => invalid(format!(
            "invalid --host-names {text}: only a loopback address, such as 127.0.0.54, is this host's alone"
        )),
        Err(_) => invalid(format!(
            "invalid --host-names {text}: write an address, such as 127.0.0.54 or 127.0.0.1:5353"
        )),
    }
}

fn engine(settings: Settings, exec_root: PathBuf) -> Result<EngineConfig> {
    let net = net(&settings, exec_root.clone())?;
    let registry = registry(&settings)?;
    let default_runtime =
        settings.default_runtime.filter(|name| name != "runc" && name != "io.containerd.runc.v2");
    let runtimes: BTreeMap<String, PathBuf> = settings
        .add_runtime
        .unwrap_or_default()
        .into_iter()
        .map(|KeyValue { key, value }| (key, PathBuf::from(value)))
        .collect();
    if let Some(name) = &default_runtime
        && !runtimes.contains_key(name)
    {
        return invalid(format!("specified default runtime '{name}' does not exist"));
    }
    Ok(EngineConfig {
        data_root: settings.data_root.unwrap_or_else(|| PathBuf::from("/var/lib/portolan")),
        exec_root,
        live_restore: on(settings.live_restore, true),
        shutdown_timeout: Duration::from_secs(
            u64::try_from(settings.shutdown_timeout.unwrap_or(15)).unwrap_or(u64::MAX),
        ),
        default_log: LogConfig {
            driver: settings.log_driver.unwrap_or_else(|| "json-file".to_owned()),
            options: settings
                .log_opt
                .unwrap_or_default()
                .into_iter()
                .map(|KeyValue { key, value }| (key, value))
                .collect(),
        },
        dns: settings.dns.unwrap_or_default(),
        dns_search: settings.dns_search.unwrap_or_default(),
        dns_options: settings.dns_opt.unwrap_or_default(),
        init: on(settings.init, false),
        default_ulimits: settings.default_ulimit.unwrap_or_default().into_iter().map(rlimit).collect(),
        default_shm_size_bytes: settings.default_shm_size.map_or(64 << 20, |size| size.0),
        cgroup_parent: settings.cgroup_parent.unwrap_or_default(),
        default_cgroupns: settings.default_cgroupns_mode.and_then(|mode| mode.parse().ok()),
        seccomp_profile: settings.seccomp_profile.filter(|profile| profile != "builtin"),
        no_new_privileges: on(settings.no_new_privileges, false),
        host_gateway_ips: settings.host_gateway_ip.unwrap_or_default(),
        runtimes,
        default_runtime,
        net,
        registry,
        host_resolv_conf: settings.resolv_conf.unwrap_or_else(|| PathBuf::from("/etc/resolv.conf")),
    })
}

/// How registries are reached, beside [`Config`]'s own fields, which `docker info` shows.
fn registry(settings: &Settings) -> Result<RegistryConfig> {
    let default = RegistryConfig::default();
    for mirror in settings.registry_mirror.iter().flatten() {
        let host = mirror.strip_prefix("https://").or_else(|| mirror.strip_prefix("http://"));
        if host.unwrap_or_default().is_empty() {
            return invalid(format!(
                "invalid mirror: unsupported scheme in \"{mirror}\": must use either 'https://' or 'http://'"
            ));
        }
    }
    for registry in settings.insecure_registry.iter().flatten() {
        if registry.contains("://") {
            return invalid(format!("insecure registry {registry} should not contain '://'"));
        }
    }
    let count = |given: Option<u32>, name: &str, default: u32| match given {
        Some(0) => invalid(format!("invalid {name}: 0")),
        given => Ok(given.unwrap_or(default)),
    };
    let downloads = count(settings.max_concurrent_downloads, "max concurrent downloads", 3)?;
    Ok(RegistryConfig {
        mirrors: settings.registry_mirror.clone().unwrap_or_default(),
        insecure: settings.insecure_registry.clone().unwrap_or_default(),
        http_proxy: settings.http_proxy.clone().unwrap_or_default(),
        https_proxy: settings.https_proxy.clone().unwrap_or_default(),
        no_proxy: settings.no_proxy.clone().unwrap_or_default(),
        max_downloads: usize::try_from(downloads).unwrap_or(usize::MAX),
        max_attempts: count(settings.max_download_attempts, "max download attempts", default.max_attempts)?,
        ..default
    })
}

fn rlimit(Ulimit { name, soft, hard }: Ulimit) -> Rlimit {
    // -1 is unlimited, which is all ones in the kernel.
    Rlimit { name, soft: soft.cast_unsigned(), hard: hard.cast_unsigned() }
}

/// 0 leaves it to the kernel, whose least for IPv4 is 68 bytes (RFC 791) and for IPv6 1280 (RFC 8200).
fn mtu(given: Option<u32>, ipv6: bool) -> Result<Option<u32>> {
    let least = if ipv6 { 1280 } else { 68 };
    match given {
        None | Some(0) => Ok(None),
        Some(mtu) if (least..=65_535).contains(&mtu) => Ok(Some(mtu)),
        Some(mtu) => invalid(format!("invalid --mtu {mtu}: it is not between {least} and 65535 bytes")),
    }
}

fn net(settings: &Settings, exec_root: PathBuf) -> Result<NetConfig> {
    let bridge = settings.bridge.as_deref().unwrap_or("docker0");
    let default_bridge = match bridge {
        "none" => None,
        name => match name.parse() {
            Ok(name) => Some(name),
            Err(error) => return invalid(format!("invalid --bridge: {error}")),
        },
    };
    let ipv6 = on(settings.ipv6, false);
    for (flag, given) in [
        ("--bip6", settings.bip6.is_some()),
        ("--fixed-cidr-v6", settings.fixed_cidr_v6.is_some()),
        ("--default-gateway-v6", settings.default_gateway_v6.is_some()),
    ] {
        if given && !ipv6 {
            return invalid(format!("{flag} needs --ipv6"));
        }
    }
    let mut address_pools = Vec::new();
    for pool in settings.default_address_pool.iter().flatten() {
        if pool.size < pool.base.prefix_len() || pool.size > pool.base.max_prefix_len() {
            return invalid(format!(
                "invalid --default-address-pool: networks of /{} do not fit into {}",
                pool.size, pool.base
            ));
        }
        address_pools.push((pool.base, pool.size));
    }
    let mut network_options: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for option in settings.default_network_opt.iter().flatten() {
        if !matches!(option.driver.as_str(), "bridge" | "macvlan" | "ipvlan") {
            return invalid(format!(
                "invalid --default-network-opt: there is no network driver {:?}",
                option.driver
            ));
        }
        let of_driver = network_options.entry(option.driver.clone()).or_default();
        of_driver.insert(option.key.clone(), option.value.clone());
    }
    let host_binding = host_binding(settings)?;
    Ok(NetConfig {
        exec_root,
        default_bridge,
        bip: settings.bip,
        bip6: settings.bip6,
        fixed_cidr: settings.fixed_cidr,
        fixed_cidr_v6: settings.fixed_cidr_v6,
        ipv6,
        default_gateway: settings.default_gateway,
        default_gateway_v6: settings.default_gateway_v6,
        icc: on(settings.icc, true),
        masquerade: on(settings.ip_masq, true),
        mtu: mtu(settings.mtu, ipv6)?,
        host_binding,
        loopback_binding: settings.ip.as_deref() == Some("loopback"),
        address_pools,
        network_options,
        ip_forward: on(settings.ip_forward, true),
        userland_proxy: on(settings.userland_proxy, true),
        direct_routing: on(settings.allow_direct_routing, false),
        firewall: on(settings.iptables, true),
        dns: settings.dns.clone().unwrap_or_default(),
        default_bridge_names: on(settings.default_bridge_names, false),
    })
}

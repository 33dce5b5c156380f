use std::io::Write;

use super::*;

fn parse(args: &[&str], file: &str) -> Result<Config, ConfigError> {
    let mut stored = tempfile::NamedTempFile::new().unwrap();
    stored.write_all(file.as_bytes()).unwrap();
    let path = stored.path().to_str().unwrap().to_owned();
    let all = ["dockerd", "--config-file", &path].into_iter().chain(args.iter().copied());
    match parse_args(all)? {
        Command::Run(config) => Ok(*config),
        Command::Print(text) => panic!("{text}"),
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = parse(&[], "").unwrap();
    assert_eq!(config.hosts, [Host::Unix("/run/portolan/portolan.sock".into())]);
    assert_eq!(config.engine.data_root, PathBuf::from("/var/lib/portolan"));
    assert!(config.engine.live_restore && config.engine.net.icc && config.engine.net.ip_forward);
    assert_eq!(config.engine.net.default_bridge.unwrap().as_str(), "docker0");
    assert_eq!(config.firewall_backend, FirewallBackend::Nftables);
}

#[test]
fn a_docker_unit_and_daemon_json_work() {
    let file = r#"{
        "hosts": ["unix:///tmp/a.sock", "tcp://127.0.0.1:2375"], "debug": true, "mtu": 1400, "icc": false,
        "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}], "log-opts": {"max-size": "10m"},
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}},
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}},
        "runtimes": {"crun": {"path": "/usr/bin/crun"}}, "userland-proxy": false, "labels": ["a=b"],
        "bip": "172.26.0.1/16", "dns": ["10.0.0.53"], "features": {"buildkit": false}, "default-shm-size": "64M",
        "proxies": {"http-proxy": "http://proxy:3128"}
    }"#;
    let config =
        parse(&["--containerd=/run/containerd/containerd.sock", "--live-restore=false"], file).unwrap();
    assert_eq!(config.hosts.len(), 2);
    assert_eq!(config.log_level, LogLevel::DEBUG);
    assert_eq!(config.engine.net.mtu, Some(1400));
    assert_eq!(config.engine.net.address_pools, [("10.10.0.0/16".parse().unwrap(), 24)]);
    assert_eq!(config.engine.net.network_options["bridge"]["com.docker.network.driver.mtu"], "1400");
    assert_eq!(config.engine.default_log.options["max-size"], "10m");
    assert_eq!(config.engine.default_ulimits[0].hard, 64000);
    assert_eq!(config.engine.default_shm_size_bytes, 64 << 20);
    assert_eq!(config.proxies.http, "http://proxy:3128");
    assert!(!config.engine.live_restore && !config.engine.net.icc);
    assert!(config.warnings[0].contains("--containerd"), "{:?}", config.warnings);
}

#[test]
fn flags_say_the_same_as_the_file() {
    let args = [
        "-H",
        "fd://",
        "--default-address-pool",
        "base=10.0.0.0/8,size=24",
        "--log-opt",
        "max-file=2",
        "--icc=false",
        "--default-ulimit",
        "nofile=1:2",
        "--dns",
        "1.1.1.1",
        "--dns",
        "8.8.8.8",
        "-D",
        "--bridge",
        "none",
        "--firewall-backend",
        "iptables",
        "--default-shm-size",
        "1g",
    ];
    let config = parse(&args, "").unwrap();
    assert_eq!(config.hosts, [Host::Systemd]);
    assert_eq!(config.engine.dns.len(), 2);
    assert_eq!(config.engine.default_log.options["max-file"], "2");
    assert!(!config.engine.net.icc && config.engine.net.default_bridge.is_none());
    assert_eq!(config.firewall_backend, FirewallBackend::Iptables);
    assert_eq!(config.engine.default_shm_size_bytes, 1 << 30);
}

#[test]
fn what_is_given_twice_is_refused() {
    let error = parse(&["--debug", "--label", "a=b"], r#"{"debug": false, "labels": ["c=d"]}"#).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(
            "the following directives are specified both as a flag and in the configuration file: "
        ),
        "{text}"
    );
    assert!(text.contains("debug: (from flag: true, from file: false)"), "{text}");
    assert!(text.contains("labels: (from flag: [a=b], from file: [c=d])"), "{text}");
}

#[test]
fn what_nobody_knows_is_refused_by_name() {
    let text = parse(&[], r#"{"debugg": true, "tlsverify": true}"#).unwrap_err().to_string();
    assert!(text.contains("the following directives don't match any configuration option: debugg"), "{text}");
    assert!(text.contains("tlsverify is not supported: there is no TLS"), "{text}");
    let text = parse(&["--tlsverify"], "").unwrap_err().to_string();
    assert!(text.starts_with("the option --tlsverify is not supported: there is no TLS"), "{text}");
    let text = parse(&["--colour"], "").unwrap_err().to_string();
    assert!(text.contains("--colour"), "{text}");
}

#[test]
fn wrong_values_are_named() {
    let text = parse(&[], r#"{"mtu": "large"}"#).unwrap_err().to_string();
    assert!(text.contains("mtu: invalid type"), "{text}");
    let text = parse(&[], r#"{"mtu": -1}"#).unwrap_err().to_string();
    assert!(text.contains("mtu: invalid value"), "{text}");
    for (args, part) in [
        (vec!["--storage-driver", "btrfs"], "--storage-driver btrfs is not supported"),
        (vec!["-H", "ssh://x"], "invalid --host ssh://x"),
        (vec!["--default-address-pool", "base=10.0.0.0/24,size=16"], "do not fit"),
        (vec!["--default-runtime", "kata"], "specified default runtime 'kata' does not exist"),
        (vec!["--default-network-opt", "bridge"], "write driver=key=value"),
        (vec!["--default-network-opt", "tap=mtu=1"], "no network driver \"tap\""),
        (vec!["--label", "x"], "bad attribute format: x"),
        (vec!["--label", "a=b", "--label", "a=c"], "labels: conflict labels for a=c and a=b"),
        (vec!["--seccomp-profile", "/no/such/file"], "invalid --seccomp-profile /no/such/file: No such file"),
        (vec!["--seccomp-profile", "/proc/version"], "invalid --seccomp-profile /proc/version: "),
        (
            vec!["--bridge", "br0", "--bip", "10.0.0.1/24"],
            "--bridge br0 and --bip 10.0.0.1/24 exclude each other",
        ),
        (vec!["--mtu", "65536"], "invalid --mtu 65536"),
        (vec!["--log-level", "loud"], "invalid logging level: loud"),
    ] {
        let text = parse(&args, "").unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
    assert!(parse(&[], "{").unwrap_err().to_string().contains("invalid JSON"));
}

#[test]
fn reloading_takes_the_files_new_words() {
    let mut stored = tempfile::NamedTempFile::new().unwrap();
    write!(stored, r#"{{"labels": ["a=1"]}}"#).unwrap();
    let path = stored.path().to_str().unwrap().to_owned();
    let Command::Run(config) = parse_args(["dockerd", "--config-file", &path, "--mtu", "1300"]).unwrap()
    else {
        panic!("not a daemon")
    };
    std::fs::write(&path, r#"{"labels": ["a=2"], "debug": true}"#).unwrap();
    let again = config.reload().unwrap();
    assert_eq!((again.labels[0].as_str(), again.log_level), ("a=2", LogLevel::DEBUG));
    assert_eq!(again.engine.net.mtu, Some(1300));
    assert_eq!(again.reload_attributes()["labels"], r#"["a=2"]"#);
    assert!(config.kept_until_restart(&again).is_empty());
    std::fs::write(&path, r#"{"labels": ["a=2"], "icc": false, "dns": ["192.0.2.1"]}"#).unwrap();
    assert_eq!(config.kept_until_restart(&config.reload().unwrap()), ["dns", "icc"]);
}

#[test]
fn a_daemon_called_dockerd_reads_dockers_file() {
    let file = |called: &str| default_config_file(called.as_ref());
    assert_eq!(file("/usr/bin/dockerd"), "/etc/docker/daemon.json");
    assert_eq!(file("dockerd"), "/etc/docker/daemon.json");
    assert_eq!(file("daemon"), "/etc/portolan/daemon.json");
    assert_eq!(file("portoland"), "/etc/portolan/daemon.json");
}

#[test]
fn switching_off_what_is_not_there_is_fine() {
    let file = r#"{"tls": false, "tlsverify": false, "authorization-plugins": [], "userns-remap": ""}"#;
    assert!(parse(&[], file).is_ok());
    let refused = parse(&[], r#"{"tls": true, "userns-remap": ""}"#).unwrap_err().to_string();
    assert!(refused.contains("tls is not supported") && !refused.contains("userns-remap"), "{refused}");
}

#[test]
fn the_files_of_real_hosts_start_and_say_what_has_no_effect() {
    let file = r#"{
        "exec-opts": ["native.cgroupdriver=systemd"], "features": {"buildkit": true}, "log-driver": "json-file",
        "storage-driver": "overlay2", "default-cgroupns-mode": "host"
    }"#;
    let config = parse(&[], file).unwrap();
    let warned = |word: &str| config.warnings.iter().any(|warning| warning.contains(word));
    assert!(warned("native.cgroupdriver=systemd") && warned("buildkit"), "{:?}", config.warnings);
    assert_eq!(config.engine.default_cgroupns, Some(portolan_engine::model::NamespaceSetting::Host));
    for (file, part) in [
        (r#"{"features": {"cdi": true}}"#, "the feature cdi is not supported"),
        (r#"{"exec-opts": ["native.foo=bar"]}"#, "--exec-opt native.foo=bar is not supported"),
        (r#"{"storage-opts": ["size=1G"]}"#, "--storage-opt size=1G is not supported"),
        (r#"{"default-cgroupns-mode": "shared"}"#, "--default-cgroupns-mode shared is not supported"),
    ] {
        let text = parse(&[], file).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

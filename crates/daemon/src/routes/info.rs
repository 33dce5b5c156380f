//! `GET /info` and `GET /version`

use std::collections::BTreeMap;
use std::fs;

use http::StatusCode;
use jiff::Timestamp;
use portolan_api as api;
use portolan_api::ApiVersion;
use portolan_engine::model::EngineInfo;

use crate::http::{Answer, Request, json};
use crate::identity::{NEWEST_API, OLDEST_API, PLATFORM, VERSION};
use crate::state::State;

/// Name of the built-in runtime.
const BUILT_IN_RUNTIME: &str = "portolan";

/// `GET /version`
pub(super) fn version(state: &State) -> api::Version {
    let host = &state.host;
    let details = BTreeMap::from(
        [
            ("ApiVersion", NEWEST_API.to_string()),
            ("MinAPIVersion", OLDEST_API.to_string()),
            ("Os", "linux".to_owned()),
            ("Arch", crate::host::GO_ARCH.to_owned()),
            ("KernelVersion", host.kernel.clone()),
            ("Experimental", state.config.experimental.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    api::Version {
        platform: api::Platform { name: PLATFORM.to_owned() },
        components: vec![api::ComponentVersion {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details,
        }],
        version: VERSION.to_owned(),
        api_version: NEWEST_API.to_string(),
        min_api_version: OLDEST_API.to_string(),
        git_commit: String::new(),
        go_version: String::new(),
        os: "linux".to_owned(),
        arch: crate::host::GO_ARCH.to_owned(),
        kernel_version: host.kernel.clone(),
        experimental: state.config.experimental,
        build_time: String::new(),
    }
}

/// `GET /info`
pub(super) async fn info(state: &State, request: &Request) -> Answer {
    let engine = state.engine.info().await?;
    json(StatusCode::OK, &system_info(state, engine, request.version))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn system_info(state: &State, engine: EngineInfo, version: ApiVersion) -> api::SystemInfo {
    let (host, config, reloadable) = (&state.host, &state.config, state.reloadable());
    let cgroup = host.cgroup;
    let old = |value: bool| (version < ApiVersion::new(1, 50)).then_some(value);
    let commit = |id: &str| api::Commit {
        id: id.to_owned(),
        expected: if version < ApiVersion::new(1, 49) { id.to_owned() } else { String::new() },
    };
    api::SystemInfo {
        id: engine.id,
        containers: count(engine.containers),
        containers_running: count(engine.running),
        containers_paused: count(engine.paused),
        containers_stopped: count(engine.stopped),
        images: count(engine.images),
        driver: "overlay2".to_owned(),
        driver_status: driver_status(host.backing),
        plugins: plugins(),
        memory_limit: cgroup.memory,
        swap_limit: cgroup.swap,
        cpu_cfs_period: cgroup.cfs,
        cpu_cfs_quota: cgroup.cfs,
        cpu_shares: cgroup.shares,
        cpu_set: cgroup.cpuset,
        pids_limit: cgroup.pids,
        oom_kill_disable: cgroup.oom_kill_disable,
        ipv4_forwarding: fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|on| on.trim() == "1"),
        bridge_nf_iptables: old(false),
        bridge_nf_ip6tables: old(false),
        debug: reloadable.debug,
        n_fd: fs::read_dir("/proc/self/fd").map_or(-1, |entries| count(entries.count())),
        n_goroutines: count(tokio::runtime::Handle::current().metrics().num_alive_tasks()),
        system_time: Timestamp::now().to_string(),
        logging_driver: engine.logging_driver,
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: engine.cgroup_version.to_string(),
        n_events_listener: count(engine.event_listeners),
        kernel_version: host.kernel.clone(),
        operating_system: host.os.clone(),
        os_version: host.os_version.clone(),
        os_type: "linux".to_owned(),
        architecture: host.machine.clone(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(registries(state)),
        ncpu: count(host.cpus),
        mem_total: i64::try_from(host.memory).unwrap_or(i64::MAX),
        docker_root_dir: engine.data_root.to_string_lossy().into_owned(),
        http_proxy: config.proxies.http.clone(),
        https_proxy: config.proxies.https.clone(),
        no_proxy: config.proxies.no_proxy.clone(),
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        labels: reloadable.labels,
        experimental_build: config.experimental,
        server_version: VERSION.to_owned(),
        runtimes: runtimes(state),
        default_runtime: reloadable.default_runtime.unwrap_or_else(|| BUILT_IN_RUNTIME.to_owned()),
        swarm: api::SwarmInfo { local_node_state: "inactive".to_owned(), ..Default::default() },
        live_restore_enabled: engine.live_restore,
        init_binary: "portolan".to_owned(),
        containerd_commit: commit(""),
        runc_commit: commit(VERSION),
        init_commit: commit(VERSION),
        security_options: security_options(state),
        default_address_pools: address_pools(state),
        firewall_backend: (version >= ApiVersion::new(1, 49)).then(|| api::FirewallInfo {
            driver: config.firewall_backend.as_str().to_owned(),
            info: Vec::new(),
        }),
        warnings: Some(warnings(state, engine.warnings)).filter(|warnings| !warnings.is_empty()),
        ..api::SystemInfo::default()
    }
}

fn driver_status(backing: &str) -> Vec<[String; 2]> {
    [
        ["Backing Filesystem", backing],
        ["Supports d_type", "true"],
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
    ]
    .map(|row| row.map(str::to_owned))
    .into()
}

fn plugins() -> api::PluginsInfo {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    api::PluginsInfo {
        volume: list(&["local"]),
        network: list(&["bridge", "host", "ipvlan", "macvlan", "null"]),
        authorization: None,
        log: list(&["json-file", "none"]),
    }
}

fn registries(state: &State) -> api::RegistryServiceConfig {
    let config = state.reloadable();
    let (cidrs, hosts): (Vec<&String>, Vec<&String>) =
        config.insecure_registries.iter().partition(|registry| registry.parse::<ipnet::IpNet>().is_ok());
    let mut insecure_registry_cidrs = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    insecure_registry_cidrs.extend(cidrs.into_iter().cloned());
    let hub = api::IndexInfo {
        name: "docker.io".to_owned(),
        mirrors: config.registry_mirrors.clone(),
        secure: true,
        official: true,
    };
    let mut index_configs = BTreeMap::from([("docker.io".to_owned(), hub)]);
    for host in hosts {
        let index =
            api::IndexInfo { name: host.clone(), mirrors: Vec::new(), secure: false, official: false };
        index_configs.insert(host.clone(), index);
    }
    api::RegistryServiceConfig {
        insecure_registry_cidrs,
        index_configs,
        mirrors: Some(config.registry_mirrors.clone()).filter(|mirrors| !mirrors.is_empty()),
    }
}

fn runtimes(state: &State) -> BTreeMap<String, api::RuntimeInfo> {
    let built_in = api::RuntimeInfo { path: BUILT_IN_RUNTIME.to_owned(), ..Default::default() };
    let mut runtimes = BTreeMap::from([(BUILT_IN_RUNTIME.to_owned(), built_in)]);
    for (name, path) in state.reloadable().runtimes {
        let path = path.to_string_lossy().into_owned();
        runtimes.insert(name, api::RuntimeInfo { path, ..Default::default() });
    }
    runtimes
}

fn security_options(state: &State) -> Vec<String> {
    let profile = state.config.engine.seccomp_profile.as_deref().unwrap_or("builtin");
    let mut options = vec![format!("name=seccomp,profile={profile}")];
    if state.host.apparmor {
        options.insert(0, "name=apparmor".to_owned());
    }
    if state.config.engine.no_new_privileges {
        options.push("name=no-new-privileges".to_owned());
    }
    options
}

fn address_pools(state: &State) -> Vec<api::NetworkAddressPool> {
    let pools = &state.config.engine.net.address_pools;
    pools
        .iter()
        .map(|(base, size)| api::NetworkAddressPool { base: base.to_string(), size: i64::from(*size) })
        .collect()
}

fn warnings(state: &State, of_engine: Vec<String>) -> Vec<String> {
    let cgroup = state.host.cgroup;
    let mut warnings = state.config.warnings.clone();
    for (missing, text) in [
        (!cgroup.memory, "WARNING: No memory limit support"),
        (!cgroup.swap, "WARNING: No swap limit support"),
        (!cgroup.cfs, "WARNING: No cpu cfs quota support"),
        (!cgroup.shares, "WARNING: No cpu shares support"),
        (!cgroup.cpuset, "WARNING: No cpuset support"),
        (!cgroup.pids, "WARNING: No pids limit support"),
    ] {
        if missing {
            warnings.push(text.to_owned());
        }
    }
    warnings.extend(of_engine.into_iter().map(|text| format!("WARNING: {text}")));
    for host in &state.config.hosts {
        if let crate::config::Host::Tcp(address) = host {
            warnings.push(format!(
                "WARNING: API is accessible on http://{address} without encryption.\n         Access to the remote API is equivalent to root access on the host."
            ));
        }
    }
    warnings
}

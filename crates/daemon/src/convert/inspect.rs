//! `GET /containers/{id}/json`.

use std::path::PathBuf;

use portolan_api::{self as api, ApiVersion};
use portolan_engine::model::{ContainerSnapshot, ContainerState, Health, NetworkSnapshot, Status};
use portolan_netcore::model::MacAddr;

use super::container::config_to_api;
use super::endpoint::{Shown, endpoint_to_api};
use super::host_config::host_config_to_api;
use super::mount::mount_point;
use super::{none_if_empty, rfc3339, text};

/// Name of the storage driver.
const DRIVER: &str = "overlay2";

/// From this version on `Config` has no MAC address of the main network.
const MAIN_MAC_GONE: ApiVersion = ApiVersion::new(1, 52);

/// Everything there is to know.
pub(crate) fn container_inspect(
    mut snapshot: ContainerSnapshot,
    version: ApiVersion,
) -> api::ContainerInspect {
    let path =
        |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = |size: Option<u64>| size.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
    let mac_address = main_mac(&snapshot).filter(|_| version < MAIN_MAC_GONE);
    let network = std::mem::take(&mut snapshot.network);
    let settings = network_settings(network, &Shown::new(&snapshot, version));
    let mut config = config_to_api(snapshot.config, version);
    config.mac_address = text(mac_address);
    api::ContainerInspect {
        network_settings: settings,
        id: snapshot.id.to_string(),
        created: rfc3339(Some(snapshot.created)),
        path: snapshot.path,
        args: snapshot.args,
        state: state(snapshot.state),
        image: snapshot.image_id,
        resolv_conf_path: path(snapshot.resolv_conf_path),
        hostname_path: path(snapshot.hostname_path),
        hosts_path: path(snapshot.hosts_path),
        log_path: path(snapshot.log_path),
        name: format!("/{}", snapshot.name),
        restart_count: i64::from(snapshot.restart_count),
        driver: DRIVER.to_owned(),
        platform: "linux".to_owned(),
        app_armor_profile: snapshot.apparmor_profile,
        exec_ids: none_if_empty(snapshot.exec_ids),
        host_config: host_config_to_api(snapshot.host_config, version),
        graph_driver: api::GraphDriver { data: Some(snapshot.graph_driver), name: DRIVER.to_owned() },
        size_rw: bytes(snapshot.size_rw),
        size_root_fs: bytes(snapshot.size_root_fs),
        mounts: snapshot.mounts.into_iter().map(mount_point).collect(),
        config,
        ..api::ContainerInspect::default()
    }
}

/// The MAC address that was asked for in the network of `NetworkMode`, which used to be the container's.
fn main_mac(container: &ContainerSnapshot) -> Option<MacAddr> {
    let name = container.host_config.network_mode.network_name()?;
    let mut endpoints = container.network.endpoints.iter();
    endpoints.find(|endpoint| endpoint.network_name == name)?.settings.mac
}

fn state(state: ContainerState) -> api::ContainerState {
    api::ContainerState {
        running: state.status.is_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        dead: state.status == Status::Dead,
        status: state.status.as_str().to_owned(),
        oom_killed: state.oom_killed,
        pid: i64::from(state.pid),
        exit_code: i64::from(state.exit_code),
        error: state.error,
        started_at: rfc3339(state.started_at),
        finished_at: rfc3339(state.finished_at),
        health: state.health.map(health),
    }
}

fn health(health: Health) -> api::Health {
    let result = |result: portolan_engine::model::HealthResult| api::HealthResult {
        start: rfc3339(Some(result.start)),
        end: rfc3339(Some(result.end)),
        exit_code: i64::from(result.exit_code),
        output: result.output,
    };
    api::Health {
        status: health.status.as_str().to_owned(),
        failing_streak: i64::from(health.failing_streak),
        log: Some(health.log.into_iter().map(result).collect()),
    }
}

fn network_settings(network: NetworkSnapshot, shown: &Shown<'_>) -> api::NetworkSettings {
    let binding = |binding: portolan_netcore::model::PortBinding| api::PortBinding {
        host_ip: binding.host_ip.to_string(),
        // A port of gateway mode routed has no place on the host.
        host_port: Some(binding.host_port)
            .filter(|port| *port != 0)
            .map_or_else(String::new, |port| port.to_string()),
        from: Vec::new(),
    };
    let ports = network.ports.into_iter().map(|(port, bindings)| {
        (port.to_string(), none_if_empty(bindings.into_iter().map(binding).collect()))
    });
    let networks: std::collections::BTreeMap<_, _> = network
        .endpoints
        .into_iter()
        .map(|endpoint| (endpoint.network_name.clone(), Some(endpoint_to_api(endpoint, shown))))
        .collect();
    // The fields of old, from when there was only one network.
    let bridge = networks.get("bridge").cloned().flatten().unwrap_or_default();
    api::NetworkSettings {
        sandbox_id: text(network.sandbox_id),
        sandbox_key: network.sandbox_key.map(|key| key.to_string_lossy().into_owned()).unwrap_or_default(),
        ports: ports.collect(),
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        mac_address: bridge.mac_address,
        networks,
        ..api::NetworkSettings::default()
    }
}

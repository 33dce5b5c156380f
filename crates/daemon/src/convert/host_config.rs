//! `HostConfig`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_api::{self as api, ApiVersion, StrSlice};
use portolan_engine::model::{
    ContainerPort, DeviceMapping, HostConfig, HostPort, LogConfig, NamespaceSetting,
};
use portolan_netcore::model::PortRange;
use portolan_runtime::Rlimit;

use super::mount::{mount_from_api, mount_to_api};
use super::resources::{limits_from_api, restart_policy_from_api};
use super::{none_if_empty, text};
use crate::http::ApiError;

/// `HostConfig` as a client sends it; what we do not have is refused by name.
pub(super) fn host_config_from_api(
    host: api::HostConfig,
    version: ApiVersion,
) -> Result<HostConfig, ApiError> {
    if host.device_requests.as_ref().is_some_and(|requests| !requests.is_empty()) {
        return Err(ApiError::invalid(
            "could not select device driver: HostConfig.DeviceRequests is not supported",
        ));
    }
    let resources = limits_from_api(&host)?;
    let mode = |field: &str, value: &str| -> Result<NamespaceSetting, ApiError> {
        value.parse().map_err(|_| ApiError::invalid(format!("invalid {field}: {value}")))
    };
    Ok(HostConfig {
        network_mode: host.network_mode.parse().map_err(|error| ApiError::invalid(format!("{error}")))?,
        port_bindings: port_bindings(host.port_bindings.unwrap_or_default())?.into_iter().collect(),
        restart_policy: restart_policy_from_api(&host.restart_policy)?,
        cgroupns_mode: mode("cgroup namespace mode", &host.cgroupns_mode)?,
        ipc_mode: mode("IPC mode", &host.ipc_mode)?,
        pid_mode: mode("PID mode", &host.pid_mode)?,
        uts_mode: mode("UTS mode", &host.uts_mode)?,
        userns_mode: mode("user namespace mode", &host.userns_mode)?,
        binds: host.binds.unwrap_or_default(),
        mounts: host
            .mounts
            .unwrap_or_default()
            .into_iter()
            .map(|mount| mount_from_api(mount, version))
            .collect::<Result<_, _>>()?,
        container_id_file: host.container_id_file,
        log_config: LogConfig {
            driver: host.log_config.kind,
            options: host.log_config.config.unwrap_or_default(),
        },
        publish_all_ports: host.publish_all_ports,
        auto_remove: host.auto_remove,
        volume_driver: host.volume_driver,
        volumes_from: host.volumes_from.unwrap_or_default(),
        console_size: Some(host.console_size)
            .filter(|size| *size != [0, 0])
            .map(|[rows, columns]| (rows, columns)),
        annotations: host.annotations,
        cap_add: host.cap_add.unwrap_or_default().0,
        cap_drop: host.cap_drop.unwrap_or_default().0,
        dns: addresses("dns", host.dns)?,
        dns_options: host.dns_options.unwrap_or_default(),
        dns_search: host.dns_search.unwrap_or_default(),
        extra_hosts: host.extra_hosts.unwrap_or_default(),
        group_add: host.group_add.unwrap_or_default(),
        cgroup: host.cgroup,
        links: host.links.unwrap_or_default(),
        oom_score_adj: i32::try_from(host.oom_score_adj)
            .ok()
            .filter(|score| (-1000..=1000).contains(score))
            .ok_or_else(|| {
                ApiError::invalid(format!(
                    "Invalid value {}, range for oom score adj is [-1000, 1000]",
                    host.oom_score_adj
                ))
            })?,
        privileged: host.privileged,
        readonly_rootfs: host.readonly_rootfs,
        security_opt: host.security_opt.unwrap_or_default(),
        storage_opt: host.storage_opt,
        tmpfs: host.tmpfs,
        shm_size_bytes: u64::try_from(host.shm_size)
            .map_err(|_| ApiError::invalid("SHM size can not be less than 0"))?,
        sysctls: host.sysctls,
        runtime: host.runtime,
        isolation: host.isolation,
        init: host.init,
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        devices: host.devices.unwrap_or_default().into_iter().map(device).collect(),
        device_cgroup_rules: host.device_cgroup_rules.unwrap_or_default(),
        cgroup_parent: host.cgroup_parent,
        ulimits: host
            .ulimits
            .unwrap_or_default()
            .into_iter()
            .map(|limit| Rlimit {
                name: limit.name,
                // -1 is unlimited, which is all ones in the kernel.
                soft: limit.soft.cast_unsigned(),
                hard: limit.hard.cast_unsigned(),
            })
            .collect(),
        resources,
    })
}

/// Addresses, or which text is none.
pub(crate) fn addresses(field: &str, given: Option<Vec<String>>) -> Result<Vec<std::net::IpAddr>, ApiError> {
    let parse = |text: String| {
        text.trim().parse().map_err(|_| ApiError::invalid(format!("{text} is not an ip address ({field})")))
    };
    given.unwrap_or_default().into_iter().map(parse).collect()
}

fn device(device: api::DeviceMapping) -> DeviceMapping {
    DeviceMapping {
        path_on_host: device.path_on_host,
        path_in_container: device.path_in_container,
        cgroup_permissions: device.cgroup_permissions,
    }
}

/// `PortBindings`: ports of the container may be ranges too (`8000-8010/tcp`), as far as the host's go along.
pub(crate) fn port_bindings(given: api::PortMap) -> Result<BTreeMap<ContainerPort, Vec<HostPort>>, ApiError> {
    let mut bindings = BTreeMap::new();
    for (port, hosts) in given {
        let port: ContainerPort =
            port.parse().map_err(|_| ApiError::invalid(format!("invalid port specification: {port:?}")))?;
        if port.port == 0 {
            return Err(ApiError::invalid(format!("invalid port specification: \"{port}\"")));
        }
        let hosts = hosts.unwrap_or_default().into_iter().map(host_port).collect::<Result<Vec<_>, _>>()?;
        bindings.insert(port, hosts);
    }
    Ok(bindings)
}

fn host_port(binding: api::PortBinding) -> Result<HostPort, ApiError> {
    let ip = host_address(&binding.host_ip)?;
    let from = binding.from.iter().map(|text| source(text)).collect::<Result<_, _>>()?;
    Ok(HostPort { ip, ports: host_ports(&binding.host_port)?, from })
}

/// An address of the host, none if the text is empty. IPv4 in IPv6 is IPv4.
pub(crate) fn host_address(given: &str) -> Result<Option<IpAddr>, ApiError> {
    if given.is_empty() {
        return Ok(None);
    }
    let invalid = |why: &str| ApiError::invalid(format!("invalid IP address in port mapping: {given}{why}"));
    let address: IpAddr =
        given.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| invalid(""))?;
    match address.to_canonical() {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Err(invalid(": a link-local address is one of many links, and ports are published without one"))
        }
        address => Ok(Some(address)),
    }
}

/// A network, or one address.
fn source(text: &str) -> Result<ipnet::IpNet, ApiError> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from);
    let net = text.parse::<ipnet::IpNet>().ok().or_else(address).map(|net| net.trunc());
    net.ok_or_else(|| {
        ApiError::invalid(format!("invalid source of a published port: {text:?} is not a network"))
    })
}

/// `8080`, `8000-8010`; empty and 0 are ephemeral.
pub(crate) fn host_ports(text: &str) -> Result<Option<PortRange>, ApiError> {
    let invalid = || ApiError::invalid(format!("invalid port specification: {text:?}"));
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| invalid());
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 || first > last {
        return Err(invalid());
    }
    Ok(Some(PortRange { first, last }))
}

/// `HostConfig` as inspect shows it: `null` and `[]` where Docker's CLI would have sent them.
pub(super) fn host_config_to_api(host: HostConfig, version: ApiVersion) -> api::HostConfig {
    let limits = host.resources;
    let fourty_two = version >= ApiVersion::new(1, 42);
    api::HostConfig {
        binds: none_if_empty(host.binds),
        container_id_file: host.container_id_file,
        log_config: api::LogConfig { kind: host.log_config.driver, config: Some(host.log_config.options) },
        network_mode: host.network_mode.to_string(),
        port_bindings: Some(host.port_bindings.iter().map(port_binding_to_api).collect()),
        restart_policy: api::RestartPolicy {
            name: host.restart_policy.name.as_str().to_owned(),
            maximum_retry_count: i64::from(host.restart_policy.maximum_retry_count),
        },
        auto_remove: host.auto_remove,
        volume_driver: host.volume_driver,
        volumes_from: none_if_empty(host.volumes_from),
        console_size: host
            .console_size
            .filter(|_| fourty_two)
            .map_or([0, 0], |(rows, columns)| [rows, columns]),
        annotations: host.annotations,
        cap_add: none_if_empty(host.cap_add).map(StrSlice),
        cap_drop: none_if_empty(host.cap_drop).map(StrSlice),
        cgroupns_mode: host.cgroupns_mode.to_string(),
        dns: Some(host.dns.iter().map(ToString::to_string).collect()),
        dns_options: Some(host.dns_options),
        dns_search: Some(host.dns_search),
        extra_hosts: none_if_empty(host.extra_hosts),
        group_add: none_if_empty(host.group_add),
        ipc_mode: host.ipc_mode.to_string(),
        cgroup: host.cgroup,
        links: none_if_empty(host.links),
        oom_score_adj: i64::from(host.oom_score_adj),
        pid_mode: host.pid_mode.to_string(),
        privileged: host.privileged,
        publish_all_ports: host.publish_all_ports,
        readonly_rootfs: host.readonly_rootfs,
        security_opt: none_if_empty(host.security_opt),
        storage_opt: host.storage_opt,
        tmpfs: host.tmpfs,
        uts_mode: host.uts_mode.to_string(),
        userns_mode: host.userns_mode.to_string(),
        shm_size: i64::try_from(host.shm_size_bytes).unwrap_or(i64::MAX),
        sysctls: host.sysctls,
        runtime: host.runtime,
        isolation: host.isolation,
        cpu_shares: limits.cpu_shares,
        memory: limits.memory,
        nano_cpus: limits.nano_cpus,
        cgroup_parent: host.cgroup_parent,
        blkio_weight: limits.blkio_weight,
        blkio_weight_device: Some(Vec::new()),
        blkio_device_read_bps: Some(Vec::new()),
        blkio_device_write_bps: Some(Vec::new()),
        blkio_device_read_iops: Some(Vec::new()),
        blkio_device_write_iops: Some(Vec::new()),
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        devices: Some(host.devices.into_iter().map(device_to_api).collect()),
        device_cgroup_rules: none_if_empty(host.device_cgroup_rules),
        memory_reservation: limits.memory_reservation,
        memory_swap: limits.memory_swap,
        memory_swappiness: limits.memory_swappiness,
        oom_kill_disable: limits.oom_kill_disable,
        pids_limit: limits.pids_limit,
        ulimits: Some(host.ulimits.into_iter().map(ulimit_to_api).collect()),
        mounts: none_if_empty(host.mounts.into_iter().map(mount_to_api).collect()),
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        init: host.init,
        ..api::HostConfig::default()
    }
}

fn port_binding_to_api(
    (port, hosts): (&ContainerPort, &Vec<HostPort>),
) -> (String, Option<Vec<api::PortBinding>>) {
    let binding = |host: &HostPort| api::PortBinding {
        host_ip: text(host.ip),
        host_port: host.ports.map_or_else(String::new, |range| match range.first == range.last {
            true => range.first.to_string(),
            false => format!("{}-{}", range.first, range.last),
        }),
        from: host.from.iter().map(ToString::to_string).collect(),
    };
    (port.to_string(), Some(hosts.iter().map(binding).collect()))
}

fn device_to_api(device: DeviceMapping) -> api::DeviceMapping {
    api::DeviceMapping {
        path_on_host: device.path_on_host,
        path_in_container: device.path_in_container,
        cgroup_permissions: device.cgroup_permissions,
    }
}

fn ulimit_to_api(limit: Rlimit) -> api::Ulimit {
    api::Ulimit { name: limit.name, hard: limit.hard.cast_signed(), soft: limit.soft.cast_signed() }
}

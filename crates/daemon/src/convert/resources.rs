//! Limits.

use portolan_api as api;
use portolan_engine::model::{ResourceLimits, RestartPolicy, RestartPolicyName, UpdateRequest};

use super::port_bindings;
use crate::http::ApiError;

/// The limits of a `HostConfig`; those that we do not have are refused by name.
pub(super) fn limits_from_api(host: &api::HostConfig) -> Result<ResourceLimits, ApiError> {
    let given = [
        (host.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()), "BlkioWeightDevice"),
        (host.blkio_device_read_bps.as_ref().is_some_and(|list| !list.is_empty()), "BlkioDeviceReadBps"),
        (host.blkio_device_write_bps.as_ref().is_some_and(|list| !list.is_empty()), "BlkioDeviceWriteBps"),
        (host.blkio_device_read_iops.as_ref().is_some_and(|list| !list.is_empty()), "BlkioDeviceReadIOps"),
        (host.blkio_device_write_iops.as_ref().is_some_and(|list| !list.is_empty()), "BlkioDeviceWriteIOps"),
        (host.cpu_realtime_period != 0, "CpuRealtimePeriod"),
        (host.cpu_realtime_runtime != 0, "CpuRealtimeRuntime"),
        (host.kernel_memory != 0, "KernelMemory"),
        (host.kernel_memory_tcp != 0, "KernelMemoryTCP"),
        (host.cpu_count != 0, "CpuCount"),
        (host.cpu_percent != 0, "CpuPercent"),
        (host.io_maximum_iops != 0, "IOMaximumIOps"),
        (host.io_maximum_bandwidth != 0, "IOMaximumBandwidth"),
    ];
    if let Some((_, name)) = given.iter().find(|(given, _)| *given) {
        return Err(ApiError::invalid(format!("HostConfig.{name} is not supported")));
    }
    Ok(ResourceLimits {
        memory: host.memory,
        memory_swap: host.memory_swap,
        memory_reservation: host.memory_reservation,
        // What the CLI sends for "not given".
        memory_swappiness: host.memory_swappiness.filter(|swappiness| *swappiness != -1),
        nano_cpus: host.nano_cpus,
        cpu_shares: host.cpu_shares,
        cpu_period: host.cpu_period,
        cpu_quota: host.cpu_quota,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids_limit: host.pids_limit,
        blkio_weight: host.blkio_weight,
        oom_kill_disable: host.oom_kill_disable,
    })
}

/// `RestartPolicy`, checked as Docker does.
pub(super) fn restart_policy_from_api(policy: &api::RestartPolicy) -> Result<RestartPolicy, ApiError> {
    let name: RestartPolicyName =
        policy.name.parse().map_err(|error| ApiError::invalid(format!("{error}")))?;
    let count = policy.maximum_retry_count;
    if name != RestartPolicyName::OnFailure && count != 0 && !policy.name.is_empty() {
        let negative = if count < 0 { " and cannot be negative" } else { "" };
        return Err(ApiError::invalid(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
        )));
    }
    let maximum_retry_count = u32::try_from(count)
        .map_err(|_| ApiError::invalid("invalid restart policy: maximum retry count cannot be negative"))?;
    Ok(RestartPolicy { name, maximum_retry_count })
}

/// The body of update.
pub(crate) fn update_request(body: &api::UpdateConfig) -> Result<UpdateRequest, ApiError> {
    let restart_policy = match body.restart_policy.name.as_str() {
        "" => None,
        _ => Some(restart_policy_from_api(&body.restart_policy)?),
    };
    let port_bindings = body.port_bindings.clone().map(port_bindings).transpose()?;
    let port_bindings = port_bindings.map(|bindings| bindings.into_iter().collect());
    Ok(UpdateRequest { resources: limits_from_api(body)?, restart_policy, port_bindings })
}

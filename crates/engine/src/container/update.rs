//! `POST /containers/{id}/update`.

use std::collections::BTreeMap;

use super::record::Record;
use super::{spec, validate};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::live_ports;
use crate::model::{ResourceLimits, RestartPolicyName, Status, UpdateRequest};

impl Engine {
    /// `POST /containers/{id}/update`. Warnings.
    ///
    /// # Errors
    /// `Invalid` for limits that make no sense, and for ports and limits that change at once; `Conflict` for a
    /// container that is being removed; as [`Engine::container_ports`]. Nothing has changed then.
    pub async fn container_update(&self, name: &str, request: UpdateRequest) -> Result<Vec<String>> {
        let mut warnings = validate::resources(&request.resources, true)?;
        let container = self.inner.containers.find(name)?;
        let _turn = container.gate.lock().await;
        let wrap =
            |error: EngineError| error.context(format_args!("Cannot update container {}", container.id));
        let (limits, before, running, ports) = container.with(|record| -> Result<_> {
            let host = &record.definition.host_config;
            if let Some(policy) = request.restart_policy {
                validate::restart_policy(policy)?;
                if host.auto_remove && policy.name != RestartPolicyName::No {
                    return Err(EngineError::invalid("Restart policy cannot be updated because AutoRemove is enabled for the container"));
                }
            }
            if record.removing || matches!(record.state.shown.status, Status::Removing | Status::Dead) {
                return Err(EngineError::conflict("Container is marked for removal and cannot be \"update\"."));
            }
            let limits = merged(&host.resources, &request.resources)?;
            let ports = request.port_bindings.map(|wanted| live_ports::decide_all(record, wanted));
            let ports = ports.transpose()?.flatten();
            if ports.is_some() && limits != host.resources {
                return Err(EngineError::invalid(
                    "ports and limits cannot change in one request: either may fail when the other is done",
                ));
            }
            Ok((limits, host.resources.clone(), record.shim.clone(), ports))
        })
        .map_err(wrap)?;
        if let Some(ports) = &ports {
            warnings.extend(self.change_ports(&container, ports).await.map_err(wrap)?);
        }
        if let Some(shim) = running.filter(|_| limits != before) {
            shim.update(&spec::resources(&limits)).await.map_err(|error| wrap(error.into()))?;
        }
        let write = container.with(|record: &mut Record| {
            record.definition.host_config.resources = limits;
            if let Some(policy) = request.restart_policy {
                record.definition.host_config.restart_policy = policy;
            }
            if let Some(ports) = ports {
                ports.keep(&mut record.definition);
            }
            record.write()
        });
        self.inner.database.commit(vec![write]).await?;
        self.container_event(&container, "update", BTreeMap::new());
        Ok(warnings)
    }
}

/// What is set in the request replaces what there is.
fn merged(old: &ResourceLimits, new: &ResourceLimits) -> Result<ResourceLimits> {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: &String| if new.is_empty() { old.clone() } else { new.clone() };
    if new.nano_cpus > 0 && (old.cpu_period > 0 || old.cpu_quota > 0) {
        return Err(EngineError::conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set",
        ));
    }
    if (new.cpu_period > 0 || new.cpu_quota > 0) && old.nano_cpus > 0 {
        return Err(EngineError::conflict(
            "Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set",
        ));
    }
    let memory = number(old.memory, new.memory);
    if new.memory > old.memory && new.memory_swap == 0 && old.memory_swap > 0 && new.memory > old.memory_swap
    {
        return Err(EngineError::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    Ok(ResourceLimits {
        memory,
        memory_swap: number(old.memory_swap, new.memory_swap),
        memory_reservation: number(old.memory_reservation, new.memory_reservation),
        memory_swappiness: new.memory_swappiness.or(old.memory_swappiness),
        nano_cpus: number(old.nano_cpus, new.nano_cpus),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        pids_limit: new.pids_limit.or(old.pids_limit),
        blkio_weight: if new.blkio_weight == 0 { old.blkio_weight } else { new.blkio_weight },
        oom_kill_disable: new.oom_kill_disable.or(old.oom_kill_disable),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_changes() {
        let old = ResourceLimits { memory: 10 << 20, cpu_shares: 5, ..ResourceLimits::default() };
        let new = ResourceLimits { memory: 20 << 20, ..ResourceLimits::default() };
        let merged = merged(&old, &new).unwrap();
        assert_eq!((merged.memory, merged.cpu_shares), (20 << 20, 5));
        let old = ResourceLimits { nano_cpus: 1, ..ResourceLimits::default() };
        let new = ResourceLimits { cpu_quota: 1000, ..ResourceLimits::default() };
        assert!(super::merged(&old, &new).is_err());
    }
}

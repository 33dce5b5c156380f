//! From a container's definition to what the runtime is handed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_netcore::model::ContainerId;
use portolan_runtime::{
    ContainerSpec, Device, Mount, MountKind, NamespaceMode, Others, Resources, Rlimit, RootfsSpec,
    SeccompProfile, Stdio, UserSpec,
};

use super::defaults::SHM_BYTES;
use super::record::Definition;
use super::{logging, merge, propagation, security};
use crate::apparmor;
use crate::engine::{Engine, blocking, cgroup_version};
use crate::error::{EngineError, Result};
use crate::model::{HostConfig, MountPoint, MountType, NamespaceSetting, ResourceLimits};

/// Limits as the runtime wants them.
pub(crate) fn resources(limits: &ResourceLimits) -> Resources {
    let set = |value: i64| Some(value).filter(|v| *v != 0);
    Resources {
        memory_bytes: set(limits.memory),
        // As Docker: as much swap as memory, unless told otherwise.
        memory_swap_bytes: set(limits.memory_swap)
            .or_else(|| set(limits.memory).filter(|m| *m > 0).map(|m| m.saturating_mul(2))),
        memory_reservation_bytes: set(limits.memory_reservation),
        nano_cpus: set(limits.nano_cpus),
        cpu_shares: u64::try_from(limits.cpu_shares).ok().filter(|v| *v > 0),
        cpu_period_us: u64::try_from(limits.cpu_period).ok().filter(|v| *v > 0),
        cpu_quota_us: set(limits.cpu_quota),
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        pids_limit: limits.pids_limit.filter(|v| *v > 0),
        blkio_weight: Some(limits.blkio_weight).filter(|v| *v > 0),
        oom_kill_disable: limits.oom_kill_disable.filter(|disable| *disable),
    }
}

/// Binds, volumes and tmpfs, the nearer to the root first; then the engine's own files, unless something
/// is mounted over them.
fn mounts(points: &[MountPoint], files: &[(&str, PathBuf)], readonly_files: bool) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = points.iter().map(mount_of).collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    for (target, source) in files {
        if mounts.iter().all(|mount| mount.target != Path::new(target)) {
            mounts.push(Mount {
                target: PathBuf::from(target),
                kind: MountKind::Bind {
                    source: source.clone(),
                    subpath: PathBuf::new(),
                    propagation: "rprivate".to_owned(),
                    recursive: true,
                },
                readonly: readonly_files,
            });
        }
    }
    mounts
}

fn mount_of(point: &MountPoint) -> Mount {
    let kind = match point.kind {
        MountType::Tmpfs => {
            let options = point.tmpfs_options.iter().filter(|o| !matches!(o.as_str(), "ro" | "rw"));
            MountKind::Tmpfs { options: options.cloned().collect() }
        }
        MountType::Bind | MountType::Volume => MountKind::Bind {
            source: point.source.clone(),
            subpath: PathBuf::from(&point.subpath),
            propagation: if point.propagation.is_empty() { "rprivate" } else { &point.propagation }
                .to_owned(),
            recursive: !point.non_recursive,
        },
    };
    Mount { target: PathBuf::from(&point.destination), kind, readonly: !point.rw }
}

impl Engine {
    /// What a container's cgroup is below.
    pub(crate) fn cgroup_parent(&self, host: &HostConfig) -> String {
        match host.cgroup_parent.as_str() {
            "" => self.inner.config.cgroup_parent.clone(),
            parent => parent.to_owned(),
        }
    }

    /// What the runtime is handed to make this container. `network` is its namespace, `files` are the
    /// engine's own files by their path inside.
    ///
    /// # Errors
    /// A container whose namespace it wants to share does not run.
    pub(crate) async fn container_spec(
        &self,
        definition: &Definition,
        rootfs: RootfsSpec,
        netns: Option<Arc<OwnedFd>>,
        files: &[(&str, PathBuf)],
    ) -> Result<ContainerSpec> {
        let (config, host) = (&definition.config, &definition.host_config);
        propagation::check(definition)?;
        let options = security::security_options(&host.security_opt, self.inner.config.no_new_privileges)?;
        let unmasked = options.system_paths_unconfined || host.privileged;
        let paths = |own: &Option<Vec<String>>| if unmasked { Some(Vec::new()) } else { own.clone() };
        let id = definition.id.to_string();
        let env = merge::environment(config, config.tty, self.link_variables(definition));
        let log = logging::log_spec(&host.log_config, &self.log_path(&definition.id), definition, &env)?;
        let (pid, pid_of) = self.namespace(&host.pid_mode, "PID").await?;
        let (ipc, ipc_of) = self.namespace(&host.ipc_mode, "IPC").await?;
        Ok(ContainerSpec {
            rootfs,
            args: definition.args.clone(),
            env,
            cwd: if config.working_dir.is_empty() { "/" } else { &config.working_dir }.to_owned(),
            user: UserSpec { user: config.user.clone(), additional_groups: host.group_add.clone() },
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            stdio: Stdio {
                tty: config.tty,
                open_stdin: config.open_stdin,
                stdin_once: config.stdin_once,
                size: host.console_size.filter(|size| *size != (0, 0)),
            },
            log,
            netns,
            others: Others { pid: pid_of, ipc: ipc_of, uts: None },
            pid,
            ipc,
            uts: match host.uts_mode {
                NamespaceSetting::Host => NamespaceMode::Host,
                _ => NamespaceMode::Private,
            },
            cgroupns: self.cgroupns(host),
            mounts: mounts(&definition.mounts, files, host.readonly_rootfs),
            // An older database has none.
            shm_size_bytes: if host.shm_size_bytes == 0 { SHM_BYTES } else { host.shm_size_bytes },
            readonly_rootfs: host.readonly_rootfs,
            privileged: host.privileged,
            capabilities: security::capabilities(host)?,
            seccomp: self.seccomp(host, options.seccomp)?,
            apparmor: self.apparmor(&options.apparmor, host.privileged).await?,
            no_new_privileges: options.no_new_privileges,
            masked_paths: paths(&host.masked_paths),
            readonly_paths: paths(&host.readonly_paths),
            devices: devices(host),
            device_cgroup_rules: host.device_cgroup_rules.clone(),
            resources: resources(&host.resources),
            rlimits: self.rlimits(host),
            sysctls: host.sysctls.iter().filter(|(key, _)| !key.starts_with("net.")).map(own).collect(),
            oom_score_adj: Some(host.oom_score_adj),
            init: host.init.unwrap_or(self.inner.config.init),
            cgroup_parent: self.cgroup_parent(host),
            runtime: self.runtime_path(&host.runtime)?,
            annotations: host.annotations.clone(),
            id,
        })
    }

    /// The binary of a runtime; none for the built-in one.
    ///
    /// # Errors
    /// `Invalid`: `unknown or invalid runtime name: x`.
    pub(crate) fn runtime_path(&self, name: &str) -> Result<Option<PathBuf>> {
        let live = self.live();
        let name = if name.is_empty() { live.default_runtime.as_deref().unwrap_or("") } else { name };
        match (name, live.runtimes.get(name)) {
            (_, Some(path)) => Ok(Some(path.clone())),
            ("" | "runc" | "io.containerd.runc.v2" | "portolan", None) => Ok(None),
            _ => Err(EngineError::invalid(format!("unknown or invalid runtime name: {name}"))),
        }
    }

    /// `<data-root>/containers/<id>/<id>-json.log`, as in Docker.
    pub(crate) fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.directory(id.as_str()).join(format!("{id}-json.log"))
    }

    /// The cgroup namespace that a container gets on this host.
    pub(crate) fn cgroupns(&self, host: &HostConfig) -> NamespaceMode {
        cgroupns(host, self.inner.config.default_cgroupns.as_ref(), cgroup_version())
    }

    /// A namespace, and the process whose it is if it is another container's.
    async fn namespace(
        &self,
        setting: &NamespaceSetting,
        kind: &str,
    ) -> Result<(NamespaceMode, Option<Arc<OwnedFd>>)> {
        let of = match setting {
            NamespaceSetting::Host => return Ok((NamespaceMode::Host, None)),
            NamespaceSetting::Container(of) => of,
            _ => return Ok((NamespaceMode::Private, None)),
        };
        let other = self.inner.containers.find(of)?;
        let (shim, ipc) =
            other.with(|record| (record.shim.clone(), record.definition.host_config.ipc_mode.clone()));
        let shareable = !matches!(ipc, NamespaceSetting::Default | NamespaceSetting::Private);
        if kind == "IPC" && !shareable {
            return Err(EngineError::conflict(format!(
                "cannot join IPC of container {of}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
                 container)"
            )));
        }
        let process = match shim {
            Some(shim) => shim.process().await.ok(),
            None => None,
        };
        match process {
            Some(process) => Ok((NamespaceMode::Other, Some(process))),
            None => Err(EngineError::conflict(format!(
                "cannot join {kind} of a non running container: {}",
                other.id
            ))),
        }
    }

    /// The AppArmor profile of a process that is about to start; ours is loaded then.
    pub(crate) async fn apparmor(&self, asked: &str, privileged: bool) -> Result<Option<String>> {
        let profile = self.inner.apparmor.profile(asked, privileged)?;
        if profile.as_deref() == Some(apparmor::PROFILE) {
            blocking(|| apparmor::keep_loaded(Path::new("/"))).await?;
        }
        Ok(profile)
    }

    fn seccomp(&self, host: &HostConfig, own: Option<SeccompProfile>) -> Result<SeccompProfile> {
        if host.privileged {
            return Ok(SeccompProfile::Unconfined);
        }
        match (own, self.inner.config.seccomp_profile.as_deref()) {
            (Some(own), _) => Ok(own),
            (None, None | Some("" | "builtin")) => Ok(SeccompProfile::Default),
            (None, Some("unconfined")) => Ok(SeccompProfile::Unconfined),
            (None, Some(path)) => std::fs::read_to_string(path).map(SeccompProfile::Json).map_err(|error| {
                EngineError::internal(format!("opening seccomp profile ({path}) failed: {error}"))
            }),
        }
    }

    fn rlimits(&self, host: &HostConfig) -> Vec<Rlimit> {
        let mut limits: BTreeMap<&str, &Rlimit> =
            self.inner.config.default_ulimits.iter().map(|limit| (limit.name.as_str(), limit)).collect();
        limits.extend(host.ulimits.iter().map(|limit| (limit.name.as_str(), limit)));
        limits.into_values().cloned().collect()
    }
}

/// As Docker: the container's own word, else the daemon's, else private where cgroups are version 2. Privileged
/// containers see the host's unless they ask, but only in version 1: in version 2 the cgroups of the whole host would
/// be theirs to write.
fn cgroupns(host: &HostConfig, configured: Option<&NamespaceSetting>, version: u32) -> NamespaceMode {
    let default = match configured {
        _ if host.privileged && version == 1 => &NamespaceSetting::Host,
        Some(mode) => mode,
        None if version == 1 => &NamespaceSetting::Host,
        None => &NamespaceSetting::Private,
    };
    match (&host.cgroupns_mode, default) {
        (NamespaceSetting::Host, _) | (NamespaceSetting::Default, NamespaceSetting::Host) => {
            NamespaceMode::Host
        }
        _ => NamespaceMode::Private,
    }
}

fn own((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn devices(host: &HostConfig) -> Vec<Device> {
    host.devices
        .iter()
        .map(|device| Device {
            host_path: PathBuf::from(&device.path_on_host),
            container_path: PathBuf::from(match device.path_in_container.as_str() {
                "" => &device.path_on_host,
                path => path,
            }),
            permissions: match device.cgroup_permissions.as_str() {
                "" => "rwm".to_owned(),
                permissions => permissions.to_owned(),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_twice_the_memory_unless_told() {
        let limits = ResourceLimits { memory: 100, ..ResourceLimits::default() };
        assert_eq!(resources(&limits).memory_swap_bytes, Some(200));
        let limits = ResourceLimits {
            memory: 100,
            memory_swap: -1,
            pids_limit: Some(-1),
            ..ResourceLimits::default()
        };
        assert_eq!(resources(&limits).memory_swap_bytes, Some(-1));
        assert_eq!(resources(&limits).pids_limit, None);
    }

    #[test]
    fn only_in_version_1_do_the_privileged_see_the_hosts_cgroups() {
        use NamespaceSetting::{Default, Host, Private};
        let mode = |own: NamespaceSetting, privileged, configured: Option<NamespaceSetting>, version| {
            let host = HostConfig { cgroupns_mode: own, privileged, ..HostConfig::default() };
            cgroupns(&host, configured.as_ref(), version)
        };
        assert_eq!(mode(Default, false, None, 1), NamespaceMode::Host);
        assert_eq!(mode(Default, false, Some(Private), 1), NamespaceMode::Private);
        assert_eq!(mode(Default, true, Some(Private), 1), NamespaceMode::Host);
        assert_eq!(mode(Private, true, None, 1), NamespaceMode::Private);
        assert_eq!(mode(Default, false, None, 2), NamespaceMode::Private);
        assert_eq!(mode(Default, true, None, 2), NamespaceMode::Private);
        assert_eq!(mode(Host, true, None, 2), NamespaceMode::Host);
        assert_eq!(mode(Default, true, Some(Host), 2), NamespaceMode::Host);
    }
}

//! The OCI runtime specification of a container, for external runtimes.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md>

use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use crate::cgroup::{DeviceRule, default_rules};
use crate::defaults::{ALL_CAPABILITIES, MASKED_PATHS, READONLY_PATHS};
use crate::seccomp::{self, Action, Operator};
use crate::setup::device_rule;
use crate::spec::{ContainerSpec, ExecSpec, Mount, MountKind, NamespaceMode, Resources, RootfsSpec};
use crate::wire::Handed;
use crate::{Error, Result};

/// The whole container. `joined` are paths of namespaces.
pub(crate) fn spec(container: &ContainerSpec, joined: &Handed<String>, cgroup: &str) -> Result<Spec> {
    let init =
        container.init.then(|| Error::Invalid("--init is not available with an external runtime".into()));
    if let Some(error) = init {
        return Err(error);
    }
    let beneath =
        |mount: &Mount| matches!(&mount.kind, MountKind::Bind { subpath, .. } if subpath != Path::new(""));
    if container.mounts.iter().any(beneath) {
        // A path is all that other runtimes take, and containers could make it lead anywhere.
        return Err(Error::Invalid("subpaths of volumes are not available with an external runtime".into()));
    }
    let mut value = json!({
        "ociVersion": "1.0.2",
        "process": process(container, None)?,
        "root": {"path": container.rootfs.target, "readonly": container.readonly_rootfs},
        "mounts": mounts(container),
        "annotations": container.annotations,
        "linux": {
            "namespaces": namespaces(container, joined),
            "cgroupsPath": cgroup,
            "resources": resources(container)?,
            "sysctl": container.sysctls,
            "devices": devices(container)?,
            "rootfsPropagation": "rprivate",
        },
    });
    if container.uts == NamespaceMode::Private {
        value["hostname"] = json!(container.hostname);
        if !container.domainname.is_empty() {
            value["domainname"] = json!(container.domainname);
        }
    }
    if !container.privileged {
        let or = |paths: &Option<Vec<String>>, default: &[&str]| {
            paths.as_ref().map_or(json!(default), |own| json!(own))
        };
        value["linux"]["maskedPaths"] = or(&container.masked_paths, &MASKED_PATHS);
        value["linux"]["readonlyPaths"] = or(&container.readonly_paths, &READONLY_PATHS);
        if let Some(profile) = seccomp::resolve(&container.seccomp, &container.capabilities)? {
            value["linux"]["seccomp"] = seccomp_value(&profile);
        }
    }
    serde_json::from_value(value)
        .map_err(|error| Error::Invalid(format!("cannot express the container as OCI: {error}")))
}

/// A process to be executed in it.
pub(crate) fn exec_process(container: &ContainerSpec, exec: &ExecSpec) -> Result<Process> {
    serde_json::from_value(process(container, Some(exec))?)
        .map_err(|error| Error::Invalid(format!("cannot express the exec as OCI: {error}")))
}

fn process(container: &ContainerSpec, exec: Option<&ExecSpec>) -> Result<Value> {
    let privileged = container.privileged || exec.is_some_and(|exec| exec.privileged);
    let names = if privileged {
        ALL_CAPABILITIES.map(str::to_owned).to_vec()
    } else {
        container.capabilities.clone()
    };
    let own = crate::sys::own_capabilities().unwrap_or(u64::MAX);
    let allowed =
        |name: &&String| crate::defaults::capability_number(name).is_some_and(|n| own & (1 << n) != 0);
    let names: Vec<&String> = names.iter().filter(allowed).collect();
    let (user, cwd) = match exec {
        Some(exec) => (
            if exec.user.is_empty() { &container.user.user } else { &exec.user },
            if exec.cwd.is_empty() { &container.cwd } else { &exec.cwd },
        ),
        None => (&container.user.user, &container.cwd),
    };
    let size = exec.map_or(container.stdio.size, |exec| exec.size);
    let mut value = json!({
        "terminal": exec.map_or(container.stdio.tty, |exec| exec.tty),
        "user": user_value(&container.rootfs, user, &container.user.additional_groups)?,
        "args": exec.map_or(&container.args, |exec| &exec.args),
        "env": exec.map_or(&container.env, |exec| &exec.env),
        "cwd": cwd,
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "rlimits": container.rlimits.iter().map(|limit| json!({
            "type": format!("RLIMIT_{}", limit.name.trim_start_matches("RLIMIT_").to_uppercase()),
            "soft": limit.soft, "hard": limit.hard,
        })).collect::<Vec<_>>(),
        "noNewPrivileges": container.no_new_privileges,
    });
    if let Some(score) = container.oom_score_adj {
        value["oomScoreAdj"] = json!(score);
    }
    if let Some(profile) = &container.apparmor {
        value["apparmorProfile"] = json!(profile);
    }
    if let Some((height, width)) = size {
        value["consoleSize"] = json!({"height": height, "width": width});
    }
    Ok(value)
}

/// The runtime wants numbers. The files are read through the mounted root; a symlink that leads
/// elsewhere is refused rather than followed.
fn user_value(rootfs: &RootfsSpec, user: &str, additional: &[String]) -> Result<Value> {
    let read = |name: &str| crate::setup::read_beneath(&rootfs.target, name);
    let found = crate::setup::resolve_user(user, additional, &read("etc/passwd"), &read("etc/group"));
    let found = found.map_err(|failure| Error::Refused(failure.message))?;
    Ok(json!({"uid": found.uid, "gid": found.gid, "additionalGids": found.groups}))
}

fn namespaces(container: &ContainerSpec, joined: &Handed<String>) -> Value {
    let mut list = vec![json!({"type": "mount"})];
    if let Some(path) = &joined.netns {
        list.push(json!({"type": "network", "path": path}));
    }
    let kinds = [
        ("pid", &joined.pid, &container.pid),
        ("ipc", &joined.ipc, &container.ipc),
        ("uts", &joined.uts, &container.uts),
        ("cgroup", &None, &container.cgroupns),
    ];
    for (kind, path, mode) in kinds {
        match mode {
            NamespaceMode::Private => list.push(json!({"type": kind})),
            NamespaceMode::Host => {}
            NamespaceMode::Other => list.push(json!({"type": kind, "path": path})),
        }
    }
    Value::Array(list)
}

fn mounts(container: &ContainerSpec) -> Value {
    let sys = if container.privileged { "rw" } else { "ro" };
    let shm = if container.shm_size_bytes == 0 { 64 << 20 } else { container.shm_size_bytes };
    let hardened = ["nosuid", "noexec", "nodev"];
    let with = |extra: &[&str]| hardened.iter().chain(extra).copied().map(str::to_owned).collect::<Vec<_>>();
    let defaults = [
        ("/proc", "proc", with(&[])),
        (
            "/dev",
            "tmpfs",
            vec!["nosuid".into(), "strictatime".into(), "mode=755".into(), "size=65536k".into()],
        ),
        (
            "/dev/pts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
                .map(str::to_owned)
                .to_vec(),
        ),
        ("/sys", "sysfs", with(&[sys])),
        ("/sys/fs/cgroup", "cgroup", with(&["relatime", sys])),
        ("/dev/mqueue", "mqueue", with(&[])),
        ("/dev/shm", "tmpfs", with(&["mode=1777", &format!("size={shm}")])),
    ];
    let given = |target: &str| container.mounts.iter().any(|mount| mount.target == Path::new(target));
    let mut list: Vec<Value> = defaults
        .into_iter()
        .filter(|(target, _, _)| !given(target))
        .map(|(target, kind, options)| json!({"destination": target, "type": kind, "source": kind, "options": options}))
        .collect();
    for mount in &container.mounts {
        let access = if mount.readonly { "ro" } else { "rw" };
        list.push(match &mount.kind {
            MountKind::Bind { source, propagation, recursive, .. } => {
                let bind = if *recursive { "rbind" } else { "bind" };
                let propagation = if propagation.is_empty() { "rprivate" } else { propagation };
                json!({"destination": mount.target, "type": "bind", "source": source,
                       "options": [bind, propagation, access]})
            }
            MountKind::Tmpfs { options } => {
                let own =
                    options.iter().flat_map(|options| options.split(',')).filter(|option| !option.is_empty());
                let options: Vec<&str> = hardened.iter().copied().chain([access]).chain(own).collect();
                json!({"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options})
            }
        });
    }
    Value::Array(list)
}

fn devices(container: &ContainerSpec) -> Result<Value> {
    let mut list = Vec::new();
    for device in &container.devices {
        let rule = device_rule(device)?;
        list.push(json!({"path": device.container_path, "type": rule.kind.to_string(),
                         "major": rule.major, "minor": rule.minor, "fileMode": 0o666}));
    }
    Ok(Value::Array(list))
}

fn resources(container: &ContainerSpec) -> Result<Value> {
    let Resources { cpuset_cpus, cpuset_mems, .. } = &container.resources;
    let own = &container.resources;
    let rule = |rule: DeviceRule| {
        let mut value = json!({"allow": true, "type": rule.kind.to_string(), "access": rule.access});
        if let Some(major) = rule.major {
            value["major"] = json!(major);
        }
        if let Some(minor) = rule.minor {
            value["minor"] = json!(minor);
        }
        value
    };
    let mut devices = vec![json!({"allow": container.privileged, "access": "rwm"})];
    if !container.privileged {
        devices.extend(default_rules().into_iter().map(rule));
        for device in &container.devices {
            devices.push(rule(device_rule(device)?));
        }
        for text in &container.device_cgroup_rules {
            devices.push(rule(DeviceRule::parse(text)?));
        }
    }
    let (period, quota) = match own.nano_cpus.filter(|nano_cpus| *nano_cpus > 0) {
        Some(nano_cpus) => (Some(100_000), Some(nano_cpus / 10_000)),
        None => (own.cpu_period_us.filter(|n| *n > 0), own.cpu_quota_us.filter(|n| *n != 0)),
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let given = |number: Option<i64>| number.filter(|number| *number != 0);
    let mut value = json!({
        "devices": devices,
        "cpu": {"shares": own.cpu_shares.filter(|n| *n > 0), "period": period, "quota": quota,
                "cpus": text(cpuset_cpus), "mems": text(cpuset_mems)},
        "memory": {"limit": given(own.memory_bytes), "swap": given(own.memory_swap_bytes),
                   "reservation": given(own.memory_reservation_bytes), "disableOOMKiller": own.oom_kill_disable},
    });
    if let Some(limit) = given(own.pids_limit) {
        value["pids"] = json!({"limit": limit});
    }
    if let Some(weight) = own.blkio_weight.filter(|n| *n > 0) {
        value["blockIO"] = json!({"weight": weight});
    }
    Ok(value)
}

fn seccomp_value(profile: &seccomp::Profile) -> Value {
    let action = |action: Action| match action {
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Errno(number) => ("SCMP_ACT_ERRNO", Some(number)),
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::Trace(message) => ("SCMP_ACT_TRACE", Some(message)),
        Action::Log => ("SCMP_ACT_LOG", None),
    };
    let operator = |operator: Operator| match operator {
        Operator::Equal => "SCMP_CMP_EQ",
        Operator::NotEqual => "SCMP_CMP_NE",
        Operator::Less => "SCMP_CMP_LT",
        Operator::LessOrEqual => "SCMP_CMP_LE",
        Operator::Greater => "SCMP_CMP_GT",
        Operator::GreaterOrEqual => "SCMP_CMP_GE",
        Operator::MaskedEqual => "SCMP_CMP_MASKED_EQ",
    };
    let rules: Vec<Value> = profile
        .rules
        .iter()
        .map(|rule| {
            let (name, number) = action(rule.action);
            let conditions = rule.conditions.iter().map(|condition| {
                json!({"index": condition.argument, "value": condition.value, "valueTwo": condition.second,
                       "op": operator(condition.operator)})
            });
            json!({"names": rule.names, "action": name, "errnoRet": number, "args": conditions.collect::<Vec<_>>()})
        })
        .collect();
    let architectures = if cfg!(target_arch = "x86_64") {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    } else {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    };
    let (default, number) = action(profile.default);
    json!({"defaultAction": default, "defaultErrnoRet": number, "architectures": architectures, "syscalls": rules})
}

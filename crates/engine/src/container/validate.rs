//! What is wrong with a request before anything is looked up, in Docker's words.

use crate::container::security;
use crate::container::signal;
use crate::error::{EngineError, Result};
use crate::files::hosts::split_extra_host;
use crate::model::{
    ContainerConfig, CreateRequest, HealthConfig, HostConfig, NamespaceSetting, NetworkMode, ResourceLimits,
    RestartPolicy, RestartPolicyName,
};
use crate::network::is_predefined;

/// HOST_NAME_MAX of linux/limits.h.
const LONGEST_HOSTNAME: usize = 64;
const LEAST_MEMORY: i64 = 6 << 20;
/// Of the durations of a health check; 0 is the default.
pub(crate) const LEAST_HEALTH_NS: i64 = 1_000_000;

/// Checks a request to create a container. Warnings.
///
/// # Errors
/// `Invalid`, naming what is wrong; `NotImplemented` for what this engine does not have.
pub(crate) fn request(request: &mut CreateRequest) -> Result<Vec<String>> {
    let (config, host) = (&mut request.config, &mut request.host_config);
    network_mode(config, host)?;
    check_config(config)?;
    let mut warnings = check_host(config, host)?;
    warnings.extend(resources(&host.resources, false)?);
    for (name, endpoint) in &request.endpoints {
        let mut wrong = Vec::new();
        if is_predefined(name) && (endpoint.ipv4.is_some() || endpoint.ipv6.is_some()) {
            wrong.push("user specified IP address is supported on user defined networks only");
        }
        if is_predefined(name) && !endpoint.aliases.is_empty() {
            wrong.push("network-scoped alias is supported only for containers in user defined networks");
        }
        if !wrong.is_empty() {
            let wrong = wrong.join("\n");
            return Err(invalid(format!(
                "invalid config for network {name}: invalid endpoint settings:\n{wrong}"
            )));
        }
        if matches!(host.network_mode, NetworkMode::Container(_)) {
            if endpoint.mac.is_some() {
                return Err(conflicting("mac-address and the network mode"));
            }
            return Err(invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
    }
    if request.endpoints.keys().any(|name| name == "host" || name == "none") && request.endpoints.len() > 1 {
        return Err(invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    Ok(warnings)
}

fn invalid(text: impl Into<String>) -> EngineError {
    EngineError::invalid(text)
}

fn conflicting(what: &str) -> EngineError {
    EngineError::invalid(format!("conflicting options: {what}"))
}

/// Options that make no sense in somebody else's network namespace.
fn network_mode(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let in_container = matches!(host.network_mode, NetworkMode::Container(_));
    let in_host = host.network_mode == NetworkMode::Host;
    if in_container {
        if !config.hostname.is_empty() {
            return Err(conflicting("hostname and the network mode"));
        }
        if !host.links.is_empty() {
            return Err(conflicting(
                "container type network can't be used with links. This would result in undefined behavior",
            ));
        }
        if !host.dns.is_empty() {
            return Err(conflicting("dns and the network mode"));
        }
        if !host.extra_hosts.is_empty() {
            return Err(conflicting("custom host-to-IP mapping and the network mode"));
        }
    }
    if (in_container || in_host) && config.mac_address.is_some() {
        return Err(conflicting("mac-address and the network mode"));
    }
    if in_container && (!host.port_bindings.is_empty() || host.publish_all_ports) {
        return Err(conflicting("port publishing and the container type network mode"));
    }
    if in_container && !config.exposed_ports.is_empty() {
        return Err(conflicting("port exposing and the container type network mode"));
    }
    if host.uts_mode == NamespaceSetting::Host && !config.hostname.is_empty() {
        return Err(conflicting("hostname and the UTS mode"));
    }
    if in_host && !host.links.is_empty() {
        return Err(conflicting(
            "host type networking can't be used with links. This would result in undefined behavior",
        ));
    }
    Ok(())
}

fn check_config(config: &mut ContainerConfig) -> Result<()> {
    if config.hostname.len() > LONGEST_HOSTNAME {
        return Err(invalid(format!(
            "hostname {:?} is too long (maximum {LONGEST_HOSTNAME} bytes)",
            config.hostname
        )));
    }
    if !config.hostname.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Err(invalid(format!("invalid hostname: {:?}", config.hostname)));
    }
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return Err(invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        config.working_dir = super::mounts::clean(&config.working_dir);
    }
    if let Some(text) = config.stop_signal.as_deref().filter(|text| !text.is_empty()) {
        signal::parse(text)?;
    }
    if let Some(bad) = config.env.iter().find(|e| e.is_empty() || e.starts_with('=') || e.contains('\0')) {
        return Err(invalid(format!("invalid environment variable: {bad}")));
    }
    config.healthcheck.as_ref().map_or(Ok(()), health)
}

fn health(check: &HealthConfig) -> Result<()> {
    for (name, value) in [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
    ] {
        if value != 0 && value < LEAST_HEALTH_NS {
            return Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    match check.test.first().map(String::as_str) {
        None | Some("" | "NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => Err(invalid(format!("Unknown healthcheck type: {other:?} (try 'CMD')"))),
    }
}

fn check_host(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    restart_policy(host.restart_policy)?;
    if host.auto_remove && host.restart_policy.name != RestartPolicyName::No {
        return Err(invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for entry in &host.extra_hosts {
        split_extra_host(entry)?;
    }
    if let Some(port) = host.port_bindings.keys().find(|port| port.port == 0) {
        return Err(invalid(format!("invalid port specification: \"{port}\"")));
    }
    security::capabilities(host)?;
    security::security_options(&host.security_opt, false)?;
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(invalid(format!("invalid isolation '{}' on linux", host.isolation)));
    }
    if host.annotations.contains_key("") {
        return Err(invalid("invalid Annotations: the empty string is not permitted as an annotation key"));
    }
    if !host.storage_opt.is_empty() {
        return Err(invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    namespaces(host)?;
    if host.network_mode == NetworkMode::Host && !host.port_bindings.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if host.network_mode == NetworkMode::Bridge && !host.links.is_empty() {
        warnings.push(
            "Links on the default bridge network are deprecated and will be removed in a future release. \
             Use a custom network instead."
                .to_owned(),
        );
    }
    sysctls(host)?;
    if let Some(rule) = host.device_cgroup_rules.iter().find(|rule| !is_device_rule(rule)) {
        return Err(invalid(format!("invalid device cgroup rule format: '{rule}'")));
    }
    for device in &host.devices {
        if !device.cgroup_permissions.bytes().all(|b| b"rwm".contains(&b)) {
            return Err(invalid(format!("invalid device mode: {}", device.cgroup_permissions)));
        }
    }
    if config.network_disabled && !host.port_bindings.is_empty() {
        warnings.push("Published ports are discarded when networking is disabled".to_owned());
    }
    Ok(warnings)
}

fn namespaces(host: &HostConfig) -> Result<()> {
    use NamespaceSetting::{Container, Default, Host, None, Private, Shareable};
    if !matches!(host.ipc_mode, Default | Private | Shareable | None | Host | Container(_)) {
        return Err(invalid(format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if host.ipc_mode == None {
        return Err(EngineError::not_implemented("IPC mode none is not supported by this engine"));
    }
    if !matches!(host.pid_mode, Default | Private | Host | Container(_)) {
        return Err(invalid(format!("invalid PID mode: {}", host.pid_mode)));
    }
    if !matches!(host.uts_mode, Default | Private | Host) {
        return Err(invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.cgroupns_mode, Default | Private | Host) {
        return Err(invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    if !matches!(host.userns_mode, Default | Host) {
        return Err(invalid(format!("invalid user namespace mode: {}", host.userns_mode)));
    }
    Ok(())
}

/// Sysctls of a namespace that is the host's would change the host.
fn sysctls(host: &HostConfig) -> Result<()> {
    for key in host.sysctls.keys() {
        let shared_net = matches!(host.network_mode, NetworkMode::Host | NetworkMode::Container(_));
        let shared_ipc = matches!(host.ipc_mode, NamespaceSetting::Host | NamespaceSetting::Container(_));
        let in_ipc = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
        ]
        .contains(&key.as_str())
            || key.starts_with("fs.mqueue.");
        let allowed = match key.as_str() {
            key if key.starts_with("net.") => !shared_net,
            "kernel.domainname" => host.uts_mode != NamespaceSetting::Host,
            _ => in_ipc && !shared_ipc,
        };
        if !allowed {
            return Err(invalid(format!(
                "sysctl {key:?} is not allowed: it is not in a namespace of the container's own"
            )));
        }
    }
    Ok(())
}

/// `type major:minor access`, such as `c 10:* rwm`.
fn is_device_rule(rule: &str) -> bool {
    let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
    let mut words = rule.split(' ');
    let kind = words.next().is_some_and(|word| matches!(word, "a" | "b" | "c"));
    let numbers = words.next().and_then(|w| w.split_once(':')).is_some_and(|(a, b)| number(a) && number(b));
    let access =
        words.next().is_some_and(|w| (1..=3).contains(&w.len()) && w.bytes().all(|b| b"rwm".contains(&b)));
    kind && numbers && access && words.next().is_none()
}

/// Checks a restart policy.
///
/// # Errors
/// `Invalid`: only `on-failure` takes a count.
pub(crate) fn restart_policy(policy: RestartPolicy) -> Result<()> {
    if policy.maximum_retry_count > 0 && policy.name != RestartPolicyName::OnFailure {
        return Err(invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    Ok(())
}

/// Checks limits. Warnings.
///
/// # Errors
/// `Invalid` with Docker's text.
pub(crate) fn resources(limits: &ResourceLimits, update: bool) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if limits.memory != 0 && limits.memory < LEAST_MEMORY {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if limits.memory > 0 && limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if limits.memory == 0 && limits.memory_swap > 0 && !update {
        return Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    match limits.memory_swappiness {
        None | Some(-1) => {}
        Some(0..=100) => {
            warnings.push("Memory swappiness is not supported. Memory swappiness discarded.".to_owned())
        }
        Some(value) => {
            return Err(invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100")));
        }
    }
    if limits.memory_reservation > 0 && limits.memory_reservation < LEAST_MEMORY {
        return Err(invalid("Minimum memory reservation allowed is 6MB"));
    }
    if limits.memory > 0 && limits.memory_reservation > limits.memory {
        return Err(invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    if limits.oom_kill_disable == Some(true) && limits.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the \
             system running out of resources."
                .to_owned(),
        );
    }
    cpu(limits)?;
    if limits.blkio_weight > 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return Err(invalid("Range of blkio weight is from 10 to 1000"));
    }
    Ok(warnings)
}

fn cpu(limits: &ResourceLimits) -> Result<()> {
    if limits.nano_cpus > 0 && limits.cpu_period > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    if limits.nano_cpus > 0 && limits.cpu_quota > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
    }
    if limits.nano_cpus != 0 {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        if !(0..=most).contains(&limits.nano_cpus) {
            return Err(invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
    }
    if limits.cpu_shares < 0 {
        return Err(invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            limits.cpu_shares
        )));
    }
    if limits.cpu_period != 0 && !(1000..=1_000_000).contains(&limits.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1000 {
        return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    cpuset("cpus", "CPUs", &limits.cpuset_cpus, &available(&CPU_FILES))?;
    cpuset("mems", "memory nodes", &limits.cpuset_mems, &available(&NODE_FILES))
}

/// Where the CPUs that there are can be read: with cgroup v2, with v1, and on any host.
const CPU_FILES: [&str; 3] = [
    "/sys/fs/cgroup/cpuset.cpus.effective",
    "/sys/fs/cgroup/cpuset/cpuset.effective_cpus",
    "/sys/devices/system/cpu/online",
];

/// The same for memory nodes.
const NODE_FILES: [&str; 3] = [
    "/sys/fs/cgroup/cpuset.mems.effective",
    "/sys/fs/cgroup/cpuset/cpuset.effective_mems",
    "/sys/devices/system/node/online",
];

/// The content of the first of these files that there is and that says something; empty if none does.
fn available(files: &[&str]) -> String {
    let read = |file: &&str| std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
    files.iter().filter_map(read).find(|text| !text.is_empty()).unwrap_or_default()
}

/// Checks a list against the one of what there is (any, if that is not known).
fn cpuset(field: &str, what: &str, wanted: &str, available: &str) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted_ranges =
        ranges(wanted).ok_or_else(|| invalid(format!("Invalid value {wanted} for cpuset {field}")))?;
    let there = ranges(available).unwrap_or_default();
    let is_there = |number: u32| there.iter().any(|range| range.contains(&number));
    // The kernel knows at most 8192: a longer range leaves what is there after a few steps.
    if !there.is_empty() && !wanted_ranges.into_iter().flatten().all(is_there) {
        return Err(invalid(format!(
            "Requested {what} are not available - requested {wanted}, available: {available}"
        )));
    }
    Ok(())
}

/// `0-2,4`
fn ranges(list: &str) -> Option<Vec<std::ops::RangeInclusive<u32>>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
        (!range.is_empty()).then_some(range)
    };
    list.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HostPort;

    fn check(change: impl FnOnce(&mut CreateRequest)) -> Result<Vec<String>> {
        let mut request = CreateRequest::default();
        change(&mut request);
        super::request(&mut request)
    }

    fn text(change: impl FnOnce(&mut CreateRequest)) -> String {
        check(change).unwrap_err().message().to_owned()
    }

    #[test]
    fn another_containers_network_takes_no_settings() {
        let of = |request: &mut CreateRequest| {
            request.host_config.network_mode = NetworkMode::Container("x".to_owned());
        };
        assert!(check(of).is_ok());
        let hostname = text(|r| {
            of(r);
            r.config.hostname = "h".to_owned();
        });
        assert_eq!(hostname, "conflicting options: hostname and the network mode");
        let publish = text(|r| {
            of(r);
            r.host_config.port_bindings.insert("80/tcp".parse().unwrap(), vec![HostPort::default()]);
        });
        assert_eq!(publish, "conflicting options: port publishing and the container type network mode");
        let expose = text(|r| {
            of(r);
            r.config.exposed_ports.insert("80/tcp".parse().unwrap(), ());
        });
        assert_eq!(expose, "conflicting options: port exposing and the container type network mode");
    }

    #[test]
    fn ports_on_the_hosts_network_are_a_warning() {
        let warnings = check(|r| {
            r.host_config.network_mode = NetworkMode::Host;
            r.host_config.port_bindings.insert("80/tcp".parse().unwrap(), vec![HostPort::default()]);
        });
        assert_eq!(warnings.unwrap(), ["Published ports are discarded when using host network mode"]);
    }

    #[test]
    fn limits() {
        assert_eq!(text(|r| r.host_config.resources.memory = 1 << 20), "Minimum memory limit allowed is 6MB");
        assert!(
            text(|r| r.host_config.resources.nano_cpus = i64::MAX).starts_with("range of CPUs is from 0.01")
        );
        assert_eq!(
            text(|r| r.host_config.resources.cpuset_cpus = "0-x".to_owned()),
            "Invalid value 0-x for cpuset cpus"
        );
        assert!(check(|r| r.host_config.resources.cpuset_cpus = "0".to_owned()).is_ok());
        let error = cpuset("cpus", "CPUs", "1,0-99", "0-1").unwrap_err();
        assert_eq!(error.message(), "Requested CPUs are not available - requested 1,0-99, available: 0-1");
        assert!(cpuset("mems", "memory nodes", "0-4294967295", "0-3,5").is_err());
        assert!(cpuset("cpus", "CPUs", "1-2,5", "0-3,5").is_ok());
    }

    #[test]
    fn other_mistakes() {
        assert!(text(|r| r.config.working_dir = "x".to_owned()).contains("needs to be an absolute path"));
        assert_eq!(text(|r| r.config.stop_signal = Some("FOO".to_owned())), "Invalid signal: FOO");
        assert!(text(|r| r.config.env.push("=x".to_owned())).contains("invalid environment variable"));
        assert!(text(|r| r.host_config.device_cgroup_rules.push("c 1:x r".to_owned())).contains("c 1:x r"));
        assert!(
            text(|r| drop(r.host_config.sysctls.insert("vm.swappiness".into(), "1".into())))
                .contains("vm.swappiness")
        );
        assert!(
            text(|r| {
                r.host_config.auto_remove = true;
                r.host_config.restart_policy.name = RestartPolicyName::Always;
            })
            .contains("AutoRemove")
        );
    }
}

//! Limits and devices.

use portolan_api::{DeviceMapping, HostConfig, ThrottleDevice, Ulimit, WeightDevice};

use crate::flags::Matches;
use crate::units;

/// Sets the limits of the flags that `run`, `create` and `update` share.
pub(crate) fn set_limits(host: &mut HostConfig, matches: &Matches) {
    let int = |flag: &str| matches.int(flag).unwrap_or_default();
    let bytes = |flag: &str| matches.bytes(flag).unwrap_or_default();
    let text = |flag: &str| matches.text_or_empty(flag).to_owned();
    host.memory = bytes("memory");
    host.memory_reservation = bytes("memory-reservation");
    host.memory_swap = bytes("memory-swap");
    host.cpu_shares = int("cpu-shares");
    host.cpu_period = int("cpu-period");
    host.cpu_quota = int("cpu-quota");
    host.cpu_realtime_period = int("cpu-rt-period");
    host.cpu_realtime_runtime = int("cpu-rt-runtime");
    host.cpuset_cpus = text("cpuset-cpus");
    host.cpuset_mems = text("cpuset-mems");
    host.blkio_weight = u16::try_from(int("blkio-weight")).unwrap_or_default();
    host.nano_cpus =
        matches.text("cpus").and_then(|value| units::parse_nano_cpus(value).ok()).unwrap_or_default();
    host.pids_limit = matches.int("pids-limit");
}

/// Sets the limits that only `run` and `create` have.
///
/// # Errors
/// Docker's text.
pub(crate) fn set_create_limits(host: &mut HostConfig, matches: &Matches) -> Result<(), String> {
    set_limits(host, matches);
    if let Some(swappiness) = matches.int("memory-swappiness") {
        if !(-1..=100).contains(&swappiness) {
            return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
        }
        host.memory_swappiness = Some(swappiness);
    }
    host.oom_kill_disable = Some(matches.on("oom-kill-disable"));
    host.oom_score_adj = matches.int("oom-score-adj").unwrap_or_default();
    host.shm_size = matches.bytes("shm-size").unwrap_or_default();
    let all = |flag: &str, read: fn(&str) -> Result<ThrottleDevice, String>| {
        let list: Result<Vec<_>, _> = matches.list(flag).into_iter().map(read).collect();
        list.map(|list| (!list.is_empty()).then_some(list))
    };
    host.blkio_device_read_bps = all("device-read-bps", bps)?;
    host.blkio_device_write_bps = all("device-write-bps", bps)?;
    host.blkio_device_read_iops = all("device-read-iops", iops)?;
    host.blkio_device_write_iops = all("device-write-iops", iops)?;
    let weights: Result<Vec<_>, _> = matches.list("blkio-weight-device").into_iter().map(weight).collect();
    host.blkio_weight_device = Some(weights?).filter(|list| !list.is_empty());
    let ulimits: Result<Vec<_>, _> = matches.list("ulimit").into_iter().map(ulimit).collect();
    host.ulimits = Some(ulimits?).filter(|list| !list.is_empty());
    let devices: Result<Vec<_>, _> = matches.list("device").into_iter().map(device).collect();
    host.devices = Some(devices?);
    Ok(())
}

/// Reads `--ulimit`: `name=soft[:hard]`.
///
/// # Errors
/// Docker's text.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let wrong = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    const NAMES: &[&str] = &[
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(if soft == -1 {
            format!(
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            )
        } else {
            format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        });
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Checks `--ulimit`.
pub(crate) fn check_ulimit(text: &str) -> Result<(), String> {
    ulimit(text).map(drop)
}

fn device_value(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text
        .split_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

fn bps(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let rate = units::parse_bytes(value).map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate: rate.unsigned_abs() })
}

fn iops(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let rate = value.parse().map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer")
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

fn weight(text: &str) -> Result<WeightDevice, String> {
    let (path, value) = device_value(text)?;
    let weight = value
        .parse()
        .ok()
        .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
        .ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// Checks `--device-read-bps` and `--device-write-bps`.
pub(crate) fn check_bps(text: &str) -> Result<(), String> {
    bps(text).map(drop)
}

/// Checks `--device-read-iops` and `--device-write-iops`.
pub(crate) fn check_iops(text: &str) -> Result<(), String> {
    iops(text).map(drop)
}

/// Checks `--blkio-weight-device`.
pub(crate) fn check_weight(text: &str) -> Result<(), String> {
    weight(text).map(drop)
}

/// Checks `--device-cgroup-rule`: `c 42:* rmw`.
pub(crate) fn check_device_rule(text: &str) -> Result<(), String> {
    let parts: Vec<_> = text.split(' ').collect();
    let fine = match parts.as_slice() {
        [kind, numbers, access] => {
            let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
            matches!(*kind, "a" | "b" | "c")
                && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&access.len())
                && access.chars().all(|c| "rwm".contains(c))
        }
        _ => false,
    };
    if fine { Ok(()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

/// Reads `--device`: `host[:container[:rwm]]`.
fn device(text: &str) -> Result<DeviceMapping, String> {
    let is_access = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let parts: Vec<_> = text.split(':').collect();
    let (host, container, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, access] if is_access(access) => (*host, *host, *access),
        [host, container] => (*host, *container, "rwm"),
        [host, container, access] if is_access(access) => (*host, *container, *access),
        [_, _, access] => return Err(format!("bad mode specified: {access}")),
        _ => return Err(format!("bad format for path: {text}")),
    };
    if !host.starts_with('/') {
        return Err(format!("{host} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_resources() {
        assert_eq!(ulimit("nofile=1024:2048").map(|one| (one.soft, one.hard)), Ok((1024, 2048)));
        assert_eq!(ulimit("core=-1").map(|one| one.hard), Ok(-1));
        assert!(ulimit("nofile=3:2").unwrap_err().contains("3 > 2"));
        assert_eq!(ulimit("x=1").unwrap_err(), "invalid ulimit type: x");
        assert!(check_device_rule("c 1:* rw").is_ok());
        assert!(check_device_rule("c 1 rw").is_err());
        assert_eq!(device("/dev/a:rw").unwrap().cgroup_permissions, "rw");
        assert!(device("/dev/a:/dev/b:x").is_err());
    }
}

//! What the kernel counts.

use std::collections::BTreeMap;
use std::path::Path;

use super::Cgroup;
use super::layout::Layout;
use crate::Result;
use crate::status::Stats;

/// `USER_HZ`, the unit of v1's cpuacct.stat: 100 on every architecture Linux still builds for.
const TICK_NS: u64 = 10_000_000;

impl Cgroup {
    /// Reads all counters; a controller that is missing counts nothing.
    pub(crate) fn stats(&self) -> Result<Stats> {
        // The one thing that must be there: otherwise the container is gone.
        super::read(&self.main_directory().join("cgroup.procs"))?;
        Ok(match self.layout {
            Layout::V1(_) => self.stats_v1(),
            Layout::V2(_) => self.stats_v2(),
        })
    }

    fn text(&self, controller: &str, name: &str) -> String {
        self.file(controller, name).and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
    }

    fn number(&self, controller: &str, name: &str) -> u64 {
        self.text(controller, name).trim().parse().unwrap_or(0)
    }

    fn table(&self, controller: &str, name: &str) -> BTreeMap<String, u64> {
        table(&self.text(controller, name))
    }

    fn stats_v1(&self) -> Stats {
        let ticks = self.table("cpuacct", "cpuacct.stat");
        let throttle = self.table("cpu", "cpu.stat");
        let get = |table: &BTreeMap<String, u64>, key: &str| table.get(key).copied().unwrap_or(0);
        let percpu = self.text("cpuacct", "cpuacct.usage_percpu");
        Stats {
            cpu_total_ns: self.number("cpuacct", "cpuacct.usage"),
            cpu_percpu_ns: percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
            cpu_kernel_ns: get(&ticks, "system") * TICK_NS,
            cpu_user_ns: get(&ticks, "user") * TICK_NS,
            throttling_periods: get(&throttle, "nr_periods"),
            throttled_periods: get(&throttle, "nr_throttled"),
            throttled_ns: get(&throttle, "throttled_time"),
            memory_usage: self.number("memory", "memory.usage_in_bytes"),
            memory_max_usage: self.number("memory", "memory.max_usage_in_bytes"),
            memory_limit: limit(self.number("memory", "memory.limit_in_bytes")),
            memory_failures: self.number("memory", "memory.failcnt"),
            memory_stat: self.table("memory", "memory.stat"),
            pids: self.number("pids", "pids.current"),
            pids_limit: self.number("pids", "pids.max"),
            io_bytes: blkio(&self.text("blkio", "blkio.throttle.io_service_bytes_recursive")),
            io_operations: blkio(&self.text("blkio", "blkio.throttle.io_serviced_recursive")),
        }
    }

    fn stats_v2(&self) -> Stats {
        let cpu = self.table("cpu", "cpu.stat");
        let micro = |key: &str| cpu.get(key).copied().unwrap_or(0) * 1000;
        let count = |key: &str| cpu.get(key).copied().unwrap_or(0);
        let io = self.text("io", "io.stat");
        Stats {
            cpu_total_ns: micro("usage_usec"),
            cpu_percpu_ns: Vec::new(),
            cpu_kernel_ns: micro("system_usec"),
            cpu_user_ns: micro("user_usec"),
            throttling_periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_ns: micro("throttled_usec"),
            memory_usage: self.number("memory", "memory.current"),
            memory_max_usage: self.number("memory", "memory.peak"),
            memory_limit: match self.number("memory", "memory.max") {
                0 => limit(u64::MAX),
                bytes => limit(bytes),
            },
            memory_failures: self.table("memory", "memory.events").get("max").copied().unwrap_or(0),
            memory_stat: self.table("memory", "memory.stat"),
            pids: self.number("pids", "pids.current"),
            pids_limit: self.number("pids", "pids.max"),
            io_bytes: io_stat(&io, &[("rbytes", "read"), ("wbytes", "write")]),
            io_operations: io_stat(&io, &[("rios", "read"), ("wios", "write")]),
        }
    }
}

/// No container can use more than the machine has.
fn limit(bytes: u64) -> u64 {
    let meminfo = std::fs::read_to_string(Path::new("/proc/meminfo")).unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kilobytes| kilobytes * 1024);
    bytes.min(total)
}

/// `key value` lines.
fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// `8:0 Read 4096` lines.
fn blkio(text: &str) -> Vec<(u64, u64, String, u64)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let kind = words.next()?.to_lowercase();
            Some((major.parse().ok()?, minor.parse().ok()?, kind, words.next()?.parse().ok()?))
        })
        .collect()
}

/// `8:0 rbytes=4096 wbytes=0 ...` lines.
fn io_stat(text: &str, keys: &[(&str, &str)]) -> Vec<(u64, u64, String, u64)> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let Some((device, counters)) = line.split_once(' ') else { continue };
        let Some((major, minor)) = device.split_once(':') else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        let counters: BTreeMap<&str, &str> =
            counters.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        for (key, name) in keys {
            if let Some(value) = counters.get(key).and_then(|value| value.parse().ok()) {
                rows.push((major, minor, (*name).to_owned(), value));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_block_devices() {
        assert_eq!(blkio("8:0 Read 5\n8:0 Total 9\nTotal 9\n")[0], (8, 0, "read".into(), 5));
        let rows = io_stat("254:0 rbytes=7 wbytes=8 rios=1 wios=2\n", &[("rios", "read"), ("wios", "write")]);
        assert_eq!(rows, [(254, 0, "read".into(), 1), (254, 0, "write".into(), 2)]);
    }
}

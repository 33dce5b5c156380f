//! `docker stats`: the cgroup's numbers, the host's CPU time and the interfaces' counters.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::read_to_string;

use jiff::Timestamp;

use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::model::{InterfaceStats, StatsSample};

impl Engine {
    /// `GET /containers/{id}/stats`: one sample; the daemon calls again each second to stream. A container
    /// that does not run has an empty one.
    ///
    /// # Errors
    /// `NotFound`, or the cgroup cannot be read.
    pub async fn container_stats(&self, name: &str) -> Result<StatsSample> {
        let container = self.inner.containers.find(name)?;
        let Ok(shim) = container.running_shim() else { return Ok(StatsSample::default()) };
        let stats = shim.stats().await?;
        // One that has just ended has no interfaces.
        let counters = shim.open_proc("net/dev").await.ok();
        let (host_cpu_ns, online_cpus, host_memory, networks) = blocking(move || {
            let (cpu, cpus) = host_cpu(&read("/proc/stat"));
            Ok((
                cpu,
                cpus,
                host_memory(&read("/proc/meminfo")),
                interfaces(
                    &counters.and_then(|file| read_to_string(File::from(file)).ok()).unwrap_or_default(),
                ),
            ))
        })
        .await?;
        let limited = stats.memory_limit > 0 && (host_memory == 0 || stats.memory_limit < host_memory);
        Ok(StatsSample {
            read: Some(Timestamp::now()),
            cpu_total_ns: stats.cpu_total_ns,
            cpu_user_ns: stats.cpu_user_ns,
            cpu_system_ns: stats.cpu_kernel_ns,
            host_cpu_ns,
            online_cpus,
            throttling: (stats.throttling_periods, stats.throttled_periods, stats.throttled_ns),
            memory_usage: stats.memory_usage,
            memory_max_usage: stats.memory_max_usage,
            memory_limit: if limited { stats.memory_limit } else { host_memory },
            memory_stats: stats.memory_stat,
            pids_current: stats.pids,
            pids_limit: stats.pids_limit,
            blkio_bytes: stats.io_bytes,
            networks,
        })
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// CPU time of the host in nanoseconds (user to steal, as Docker counts), and its CPUs; from /proc/stat.
fn host_cpu(stat: &str) -> (u64, u32) {
    const TICKS_PER_SECOND: u64 = 100;
    let mut total = 0;
    let mut cpus = 0;
    for line in stat.lines().filter(|line| line.starts_with("cpu")) {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("cpu") {
            let ticks: u64 = words.take(7).filter_map(|word| word.parse::<u64>().ok()).sum();
            total = ticks * (1_000_000_000 / TICKS_PER_SECOND);
        } else {
            cpus += 1;
        }
    }
    (total, cpus)
}

/// `MemTotal` of /proc/meminfo, bytes.
fn host_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// Counters of /proc/net/dev, without `lo`.
fn interfaces(dev: &str) -> BTreeMap<String, InterfaceStats> {
    let mut interfaces = BTreeMap::new();
    for line in dev.lines().skip(2) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let counters: Vec<u64> = rest.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        let name = name.trim();
        if name == "lo" || counters.len() < 12 {
            continue;
        }
        let stats = InterfaceStats {
            rx_bytes: counters[0],
            rx_packets: counters[1],
            rx_errors: counters[2],
            rx_dropped: counters[3],
            tx_bytes: counters[8],
            tx_packets: counters[9],
            tx_errors: counters[10],
            tx_dropped: counters[11],
        };
        interfaces.insert(name.to_owned(), stats);
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files() {
        assert_eq!(host_cpu("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\ncpu1 1\nintr 5\n"), (280_000_000, 2));
        assert_eq!(host_memory("MemTotal:  2 kB\nMemFree: 1 kB\n"), 2048);
        let dev = "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let found = interfaces(dev);
        assert_eq!(found.len(), 1);
        assert_eq!((found["eth0"].rx_bytes, found["eth0"].tx_dropped), (1, 8));
    }
}

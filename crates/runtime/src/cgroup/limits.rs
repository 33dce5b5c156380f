//! Limits, written as each version has them.

use super::layout::Layout;
use super::{Cgroup, read, write};
use crate::spec::Resources;
use crate::{Error, Result};

const DEFAULT_PERIOD_US: u64 = 100_000;

/// CFS bandwidth: (period, quota), microseconds; quota -1 is unlimited.
fn bandwidth(resources: &Resources) -> Option<(u64, i64)> {
    if let Some(nano_cpus) = resources.nano_cpus.filter(|nano_cpus| *nano_cpus > 0) {
        return Some((DEFAULT_PERIOD_US, nano_cpus / 10_000));
    }
    let period = resources.cpu_period_us.filter(|period| *period > 0);
    let quota = resources.cpu_quota_us.filter(|quota| *quota != 0);
    (period.is_some() || quota.is_some()).then(|| (period.unwrap_or(DEFAULT_PERIOD_US), quota.unwrap_or(-1)))
}

impl Cgroup {
    /// Applies what is given and leaves the rest.
    pub(crate) fn apply(&self, resources: &Resources) -> Result<()> {
        match self.layout {
            Layout::V1(_) => self.apply_v1(resources),
            Layout::V2(_) => self.apply_v2(resources),
        }
    }

    fn set(&self, controller: &str, name: &str, value: impl ToString) -> Result<()> {
        write(&self.required(controller, name)?, &value.to_string())
    }

    fn apply_v1(&self, resources: &Resources) -> Result<()> {
        self.memory_v1(resources)?;
        if let Some(shares) = resources.cpu_shares.filter(|shares| *shares > 0) {
            self.set("cpu", "cpu.shares", shares)?;
        }
        if let Some((period, quota)) = bandwidth(resources) {
            self.set("cpu", "cpu.cfs_period_us", period)?;
            self.set("cpu", "cpu.cfs_quota_us", quota)?;
        }
        if !resources.cpuset_cpus.is_empty() {
            self.set("cpuset", "cpuset.cpus", &resources.cpuset_cpus)?;
        }
        if !resources.cpuset_mems.is_empty() {
            self.set("cpuset", "cpuset.mems", &resources.cpuset_mems)?;
        }
        if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
            self.set("pids", "pids.max", pids_max(limit))?;
        }
        if let Some(weight) = resources.blkio_weight.filter(|weight| *weight > 0) {
            let bfq = self.required("blkio", "blkio.bfq.weight")?;
            let name = if bfq.exists() { "blkio.bfq.weight" } else { "blkio.weight" };
            self.set("blkio", name, weight)?;
        }
        if let Some(disable) = resources.oom_kill_disable {
            let file = self.required("memory", "memory.oom_control")?;
            // Only a change is written: kernels without the feature refuse even the default.
            let current = read(&file)?.lines().any(|line| line == "oom_kill_disable 1");
            if current != disable {
                write(&file, if disable { "1" } else { "0" })?;
            }
        }
        Ok(())
    }

    fn memory_v1(&self, resources: &Resources) -> Result<()> {
        let limit = resources.memory_bytes.filter(|limit| *limit != 0);
        let with_swap = resources.memory_swap_bytes.filter(|limit| *limit != 0);
        let swap_file = self.file("memory", "memory.memsw.limit_in_bytes").filter(|file| file.exists());
        let set_limit = || limit.map_or(Ok(()), |limit| self.set("memory", "memory.limit_in_bytes", limit));
        match (&swap_file, with_swap) {
            (Some(file), Some(with_swap)) => {
                // The sum may never be below the part: the one that grows goes first.
                let current: i64 = read(file)?.trim().parse().unwrap_or(i64::MAX);
                if with_swap == -1 || with_swap > current {
                    write(file, &with_swap.to_string())?;
                    set_limit()?;
                } else {
                    set_limit()?;
                    write(file, &with_swap.to_string())?;
                }
            }
            // A kernel without swap accounting limits memory only, as Docker does with a warning.
            _ => set_limit()?,
        }
        if let Some(soft) = resources.memory_reservation_bytes.filter(|soft| *soft != 0) {
            self.set("memory", "memory.soft_limit_in_bytes", soft)?;
        }
        Ok(())
    }

    fn apply_v2(&self, resources: &Resources) -> Result<()> {
        self.memory_v2(resources)?;
        if let Some(shares) = resources.cpu_shares.filter(|shares| *shares > 0) {
            // 2..262144 to 1..10000, the conversion that all runtimes share.
            let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
            self.set("cpu", "cpu.weight", weight)?;
        }
        if let Some((period, quota)) = bandwidth(resources) {
            let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
            self.set("cpu", "cpu.max", format!("{quota} {period}"))?;
        }
        if !resources.cpuset_cpus.is_empty() {
            self.set("cpuset", "cpuset.cpus", &resources.cpuset_cpus)?;
        }
        if !resources.cpuset_mems.is_empty() {
            self.set("cpuset", "cpuset.mems", &resources.cpuset_mems)?;
        }
        if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
            self.set("pids", "pids.max", pids_max(limit))?;
        }
        if let Some(weight) = resources.blkio_weight.filter(|weight| *weight > 0) {
            let weight = 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
            self.set("io", "io.weight", weight)?;
        }
        if resources.oom_kill_disable == Some(true) {
            return Err(Error::Invalid("disabling the OOM killer is not possible with cgroup v2".into()));
        }
        Ok(())
    }

    fn memory_v2(&self, resources: &Resources) -> Result<()> {
        let limit = resources.memory_bytes.filter(|limit| *limit != 0);
        let max = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
        if let Some(with_swap) = resources.memory_swap_bytes.filter(|limit| *limit != 0) {
            // v2 counts swap alone, Docker's option counts both.
            let swap = match (with_swap, limit) {
                (-1, _) => -1,
                (sum, Some(memory)) if memory > 0 => (sum - memory).max(0),
                _ => return Err(Error::Invalid("a limit of memory and swap needs a limit of memory".into())),
            };
            if self.file("memory", "memory.swap.max").is_some_and(|file| file.exists()) {
                self.set("memory", "memory.swap.max", max(swap))?;
            }
        }
        if let Some(limit) = limit {
            self.set("memory", "memory.max", max(limit))?;
        }
        if let Some(soft) = resources.memory_reservation_bytes.filter(|soft| *soft != 0) {
            self.set("memory", "memory.low", max(soft))?;
        }
        Ok(())
    }
}

fn pids_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

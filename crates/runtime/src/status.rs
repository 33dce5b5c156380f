//! What a container came to, and what it uses.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How the first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// When.
    pub finished_at: Timestamp,
    /// When it had been started, if the shim has lived to tell.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
}

/// Where a container stands, as its shim tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShimState {
    /// Set up, waiting for `start`.
    Created,
    /// Running (or paused), since then; shims of earlier versions do not say since when.
    Running(Option<Timestamp>),
    /// Over.
    Exited(ExitStatus),
}

/// One of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output; everything, with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a container uses now, from its control groups. What the kernel does not count is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time in total, nanoseconds.
    pub cpu_total_ns: u64,
    /// CPU time per CPU, nanoseconds (cgroup v1 only).
    pub cpu_percpu_ns: Vec<u64>,
    /// CPU time in the kernel, nanoseconds.
    pub cpu_kernel_ns: u64,
    /// CPU time in user mode, nanoseconds.
    pub cpu_user_ns: u64,
    /// Enforcement periods that have passed.
    pub throttling_periods: u64,
    /// Periods in which the container was throttled.
    pub throttled_periods: u64,
    /// Time throttled, nanoseconds.
    pub throttled_ns: u64,
    /// Memory in use, bytes.
    pub memory_usage: u64,
    /// Most memory ever in use, bytes (cgroup v1 and newer v2).
    pub memory_max_usage: u64,
    /// Limit of memory, bytes.
    pub memory_limit: u64,
    /// How often the limit was hit.
    pub memory_failures: u64,
    /// `memory.stat` as the kernel has it.
    pub memory_stat: BTreeMap<String, u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Limit of processes; 0 if unlimited.
    pub pids_limit: u64,
    /// Bytes moved: (device major, minor, `read`/`write`/..., bytes).
    pub io_bytes: Vec<(u64, u64, String, u64)>,
    /// Operations: (device major, minor, `read`/`write`/..., number).
    pub io_operations: Vec<(u64, u64, String, u64)>,
}

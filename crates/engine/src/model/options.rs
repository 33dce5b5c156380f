//! What the commands take and give besides containers themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use portolan_netcore::model::ContainerId;
use serde::{Deserialize, Serialize};

use super::{Bindings, Filters, ResourceLimits, RestartPolicy};

/// `POST /containers/{id}/stop` and `/restart`.
#[derive(Clone, Debug, Default)]
pub struct StopOptions {
    /// `?signal=`; the container's stop signal if none.
    pub signal: Option<String>,
    /// `?t=`, seconds until SIGKILL; -1 waits for ever; the container's own if none.
    pub timeout_s: Option<i64>,
}

/// `DELETE /containers/{id}`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// `?force=`: kill it first.
    pub force: bool,
    /// `?v=`: its anonymous volumes too.
    pub volumes: bool,
    /// `?link=`: remove only the link of this name.
    pub link: bool,
}

/// `?condition=` of `POST /containers/{id}/wait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// `not-running`: now, if it does not run.
    #[default]
    NotRunning,
    /// `next-exit`: from now on.
    NextExit,
    /// `removed`.
    Removed,
}

/// Answer of `wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitOutcome {
    /// `StatusCode`.
    pub exit_code: i32,
    /// `Error.Message`, if waiting failed.
    pub error: Option<String>,
}

/// `GET /containers/json`.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// `?all=`.
    pub all: bool,
    /// `?limit=`: the newest so many; implies `all`.
    pub limit: Option<usize>,
    /// `?size=`.
    pub size: bool,
    /// `?filters=`.
    pub filters: Filters,
}

/// `GET /containers/{id}/logs`.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// `?stdout=`.
    pub stdout: bool,
    /// `?stderr=`.
    pub stderr: bool,
    /// `?follow=`.
    pub follow: bool,
    /// `?since=`.
    pub since: Option<Timestamp>,
    /// `?until=`.
    pub until: Option<Timestamp>,
    /// `?timestamps=`: each line starts with its time.
    pub timestamps: bool,
    /// `?details=`: each line starts with the log driver's extra attributes.
    pub details: bool,
    /// `?tail=`: the last so many lines; all if none.
    pub tail: Option<usize>,
}

/// `POST /containers/{id}/attach`.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// `?logs=`: what was written before comes first.
    pub logs: bool,
    /// `?stream=`: what is written from now on.
    pub stream: bool,
    /// `?stdin=`.
    pub stdin: bool,
    /// `?stdout=`.
    pub stdout: bool,
    /// `?stderr=`.
    pub stderr: bool,
    /// `?detachKeys=`: `ctrl-p,ctrl-q` if none.
    pub detach_keys: Option<String>,
}

/// `POST /containers/{id}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecConfig {
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, added to the container's.
    pub env: Vec<String>,
    /// `User`; the container's if empty.
    pub user: String,
    /// `WorkingDir`; the container's if empty.
    pub working_dir: String,
    /// `Tty`.
    pub tty: bool,
    /// `Privileged`.
    pub privileged: bool,
    /// `AttachStdin`.
    pub attach_stdin: bool,
    /// `AttachStdout`.
    pub attach_stdout: bool,
    /// `AttachStderr`.
    pub attach_stderr: bool,
    /// `DetachKeys`: `ctrl-p,ctrl-q` if none.
    pub detach_keys: Option<String>,
    /// `ConsoleSize`: (rows, columns).
    pub console_size: Option<(u16, u16)>,
}

/// `POST /exec/{id}/start`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecStartOptions {
    /// `Detach`.
    pub detach: bool,
    /// `Tty`, which replaces the one of the exec's creation.
    pub tty: bool,
    /// `ConsoleSize`: (rows, columns).
    pub console_size: Option<(u16, u16)>,
}

/// `GET /exec/{id}/json`.
#[derive(Clone, Debug)]
pub struct ExecSnapshot {
    /// `ID`.
    pub id: String,
    /// `ContainerID`.
    pub container_id: ContainerId,
    /// What was asked for.
    pub config: ExecConfig,
    /// `Running`.
    pub running: bool,
    /// `ExitCode`; none until it ended.
    pub exit_code: Option<i32>,
    /// `Pid` on the host; 0 until it started.
    pub pid: i32,
    /// `CanRemove`: it ended.
    pub can_remove: bool,
}

/// `GET /containers/{id}/top`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopTable {
    /// `Titles`.
    pub titles: Vec<String>,
    /// `Processes`.
    pub processes: Vec<Vec<String>>,
}

/// `POST /containers/{id}/update`: only what is set is changed.
#[derive(Clone, Debug, Default)]
pub struct UpdateRequest {
    /// The limits; 0, empty and `None` leave a limit as it is.
    pub resources: ResourceLimits,
    /// `RestartPolicy`.
    pub restart_policy: Option<RestartPolicy>,
    /// `PortBindings`, all of them: ports that are not among them are unpublished.
    pub port_bindings: Option<Bindings>,
}

/// One sample for `GET /containers/{id}/stats`.
#[derive(Clone, Debug, Default)]
pub struct StatsSample {
    /// When it was read; none if the container does not run.
    pub read: Option<Timestamp>,
    /// CPU time used, nanoseconds.
    pub cpu_total_ns: u64,
    /// Of it in user mode.
    pub cpu_user_ns: u64,
    /// Of it in the kernel.
    pub cpu_system_ns: u64,
    /// CPU time of the whole host, nanoseconds.
    pub host_cpu_ns: u64,
    /// CPUs of the host.
    pub online_cpus: u32,
    /// CFS periods, throttled periods, throttled time in nanoseconds.
    pub throttling: (u64, u64, u64),
    /// Memory in use, bytes.
    pub memory_usage: u64,
    /// Most memory in use so far, bytes (cgroup v1).
    pub memory_max_usage: u64,
    /// The limit, bytes; the host's memory if none.
    pub memory_limit: u64,
    /// The kernel's `memory.stat`.
    pub memory_stats: BTreeMap<String, u64>,
    /// Processes and threads.
    pub pids_current: u64,
    /// The limit; 0 if none.
    pub pids_limit: u64,
    /// Bytes by device: (major, minor, operation, bytes).
    pub blkio_bytes: Vec<(u64, u64, String, u64)>,
    /// Counters by interface.
    pub networks: BTreeMap<String, InterfaceStats>,
}

/// Counters of one interface, from `/proc/<pid>/net/dev`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Received.
    pub rx_errors: u64,
    /// Received.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Sent.
    pub tx_errors: u64,
    /// Sent.
    pub tx_dropped: u64,
}

/// One line of `docker diff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `Path`, absolute.
    pub path: String,
    /// `Kind`.
    pub kind: ChangeKind,
}

/// What happened to a path since the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// 0.
    Modified,
    /// 1.
    Added,
    /// 2.
    Deleted,
}

/// What `X-Docker-Container-Path-Stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// `name`.
    pub name: String,
    /// `size`, bytes.
    pub size: u64,
    /// The kernel's `st_mode`.
    pub mode: u32,
    /// `mtime`.
    pub mtime: Timestamp,
    /// `linkTarget`.
    pub link_target: String,
}

/// `POST /commit`.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// `?repo=` and `?tag=`.
    pub reference: Option<portolan_image::Reference>,
    /// `?comment=`.
    pub comment: String,
    /// `?author=`.
    pub author: String,
    /// `?pause=`: freeze the container meanwhile.
    pub pause: bool,
    /// `?changes=`: Dockerfile instructions.
    pub changes: Vec<String>,
    /// The body: settings that replace the container's own.
    pub config: Option<super::ContainerConfig>,
}

/// A volume. Docker: `Volume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `Name`.
    pub name: String,
    /// `CreatedAt`.
    pub created_at: Timestamp,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `Options` of the local driver (`type`, `o`, `device`).
    pub options: BTreeMap<String, String>,
    /// `Mountpoint`.
    pub mountpoint: PathBuf,
    /// It was made for a container, without a name.
    pub anonymous: bool,
}

/// `POST /volumes/create`.
#[derive(Clone, Debug, Default)]
pub struct VolumeSpec {
    /// `Name`; made up if empty.
    pub name: String,
    /// `Driver`: `local` or empty.
    pub driver: String,
    /// `DriverOpts`.
    pub options: BTreeMap<String, String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
}

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids or names.
    pub deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// `GET /events`.
#[derive(Clone, Debug, Default)]
pub struct EventsOptions {
    /// `?since=`: those of the past come first.
    pub since: Option<Timestamp>,
    /// `?until=`: the stream ends then.
    pub until: Option<Timestamp>,
    /// `?filters=`.
    pub filters: Filters,
}

/// The engine's numbers for `GET /info`.
#[derive(Clone, Debug, Default)]
pub struct EngineInfo {
    /// `ID`: made at the first start.
    pub id: String,
    /// `Containers`.
    pub containers: usize,
    /// `ContainersRunning`.
    pub running: usize,
    /// `ContainersPaused`.
    pub paused: usize,
    /// `ContainersStopped`.
    pub stopped: usize,
    /// `Images`.
    pub images: usize,
    /// `DockerRootDir`.
    pub data_root: PathBuf,
    /// `LiveRestoreEnabled`.
    pub live_restore: bool,
    /// `CgroupVersion`: 1 or 2.
    pub cgroup_version: u32,
    /// `NEventsListener`.
    pub event_listeners: usize,
    /// Default `LoggingDriver`.
    pub logging_driver: String,
    /// What whoever runs the host should know; some of `Warnings`.
    pub warnings: Vec<String>,
}

/// `GET /system/df`.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// `LayersSize`, bytes.
    pub layers_bytes: u64,
    /// Containers with `size_rw` and `size_root_fs`.
    pub containers: Vec<super::ContainerSnapshot>,
    /// Volumes, their size in bytes and the number of containers that use them.
    pub volumes: Vec<(Volume, u64, usize)>,
}

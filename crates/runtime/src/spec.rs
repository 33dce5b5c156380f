//! What a container is, in the engine's words. Everything is resolved: no names left to look up but
//! the user, which is looked up in the container's own /etc/passwd.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A container to be created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its root file system.
    pub rootfs: RootfsSpec,
    /// Entrypoint and command; never empty.
    pub args: Vec<String>,
    /// `KEY=value`, complete (PATH, HOSTNAME, TERM included).
    pub env: Vec<String>,
    /// Working directory; made if missing.
    pub cwd: String,
    /// User and groups.
    pub user: UserSpec,
    /// Hostname, unless `uts` is the host's.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// Standard streams.
    pub stdio: Stdio,
    /// Where output is kept.
    pub log: LogSpec,
    /// The network namespace to join; the host's if none. Travels beside the message, as a descriptor.
    #[serde(skip)]
    pub netns: Option<Arc<OwnedFd>>,
    /// Whose namespaces are joined where they are [`NamespaceMode::Other`]. Travel beside the message.
    #[serde(skip)]
    pub others: Others,
    /// PID namespace.
    pub pid: NamespaceMode,
    /// IPC namespace.
    pub ipc: NamespaceMode,
    /// UTS namespace: private or host.
    pub uts: NamespaceMode,
    /// Cgroup namespace: private or host.
    pub cgroupns: NamespaceMode,
    /// Bind mounts, volumes, tmpfs and the engine's own files (/etc/hosts ...), in the order to be mounted.
    pub mounts: Vec<Mount>,
    /// Size of /dev/shm, bytes.
    pub shm_size_bytes: u64,
    /// Mount the root read-only.
    pub readonly_rootfs: bool,
    /// Full access: all capabilities, all devices, no masks, no seccomp.
    pub privileged: bool,
    /// The capabilities to have (names with `CAP_`), already combined from defaults, adds and drops.
    pub capabilities: Vec<String>,
    /// Seccomp.
    pub seccomp: SeccompProfile,
    /// AppArmor profile name, if the host has AppArmor.
    pub apparmor: Option<String>,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `None`: Docker's defaults; an empty list masks nothing (`systempaths=unconfined`).
    pub masked_paths: Option<Vec<String>>,
    /// `None`: Docker's defaults.
    pub readonly_paths: Option<Vec<String>>,
    /// Devices beyond the default ones.
    pub devices: Vec<Device>,
    /// `device_cgroup_rules`, as given (`c 10:200 rwm`).
    pub device_cgroup_rules: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// `RLIMIT_*`.
    pub rlimits: Vec<Rlimit>,
    /// Sysctls but for `net.*`, which are set with the network.
    pub sysctls: BTreeMap<String, String>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Run the engine's own init as pid 1.
    pub init: bool,
    /// Parent of the container's cgroup; `/docker`-like default if empty.
    pub cgroup_parent: String,
    /// Name of an OCI runtime binary in place of the built-in one (`--runtime`).
    pub runtime: Option<PathBuf>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An overlay file system; the shim mounts it in a mount namespace of its own, so that it goes with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootfsSpec {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The container's own layer.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
    /// An existing empty directory to mount it on.
    pub target: PathBuf,
}

/// Standard streams of the first process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Stdio {
    /// A pseudo-terminal.
    pub tty: bool,
    /// Keep standard input open without a client.
    pub open_stdin: bool,
    /// Close standard input when the first client that attached to it leaves.
    pub stdin_once: bool,
    /// First size of the terminal: (rows, columns).
    pub size: Option<(u16, u16)>,
}

/// Where output is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LogSpec {
    /// Nowhere.
    None,
    /// Docker's json-file format: `{"log":"...","stream":"stdout","time":"..."}` a line.
    JsonFile {
        /// The file.
        path: PathBuf,
        /// Rotate at this size, bytes; never if none.
        max_size_bytes: Option<u64>,
        /// Files to keep, at least 1.
        max_files: u32,
        /// Compress those that are rotated.
        #[serde(default)]
        compress: bool,
        /// Written with every line, as `attrs`.
        #[serde(default)]
        attributes: BTreeMap<String, String>,
    },
}

impl LogSpec {
    /// One file that grows, with nothing beside the lines.
    pub fn json_file(path: PathBuf) -> Self {
        let (max_size_bytes, attributes) = (None, BTreeMap::new());
        Self::JsonFile { path, max_size_bytes, max_files: 1, compress: false, attributes }
    }
}

/// `user[:group]`, names or numbers, as in Docker's `User`; empty is root.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UserSpec {
    /// `user[:group]`.
    pub user: String,
    /// `--group-add`, names or numbers.
    pub additional_groups: Vec<String>,
}

/// Which namespace of a kind the container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container's process (`container:X`), which is in [`Others`].
    Other,
}

/// Processes whose namespaces are joined, by their pidfds: a pid may be another's by the time it is used.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// Whose PID namespace.
    pub pid: Option<Arc<OwnedFd>>,
    /// Whose IPC namespace, /dev/shm and /dev/mqueue.
    pub ipc: Option<Arc<OwnedFd>>,
    /// Whose UTS namespace.
    pub uts: Option<Arc<OwnedFd>>,
}

/// What a mount is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// What of the source, for volumes; never outside of it, whatever links there are. All if empty.
        subpath: PathBuf,
        /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`.
        propagation: String,
        /// Submounts come along.
        recursive: bool,
    },
    /// An empty file system in memory, with mount options such as `size=64m,mode=1777`.
    Tmpfs {
        /// Options, separated.
        options: Vec<String>,
    },
}

/// A mount inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; made if missing, never through a symlink out of the root.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// Read-only.
    pub readonly: bool,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host.
    pub host_path: PathBuf,
    /// Path inside.
    pub container_path: PathBuf,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// Limits; `None` and 0 are unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes of memory.
    pub memory_bytes: Option<i64>,
    /// Bytes of memory and swap; -1 unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// Soft limit, bytes.
    pub memory_reservation_bytes: Option<i64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CFS period, microseconds.
    pub cpu_period_us: Option<u64>,
    /// CFS quota, microseconds.
    pub cpu_quota_us: Option<i64>,
    /// Cpuset, such as `0-1`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Most processes; -1 unlimited.
    pub pids_limit: Option<i64>,
    /// Block IO weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Do not kill on out of memory.
    pub oom_kill_disable: Option<bool>,
}

/// One `--ulimit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `nofile`, `nproc`, ...
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Seccomp.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// Equal in effect to Docker's default profile for the container's capabilities.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON format.
    Json(String),
}

/// A process to be run in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecSpec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Complete environment.
    pub env: Vec<String>,
    /// Working directory; the container's if empty.
    pub cwd: String,
    /// The container's user if empty.
    pub user: String,
    /// A pseudo-terminal.
    pub tty: bool,
    /// First size of the terminal: (rows, columns).
    pub size: Option<(u16, u16)>,
    /// Connect standard input.
    pub attach_stdin: bool,
    /// Connect standard output.
    pub attach_stdout: bool,
    /// Connect standard error.
    pub attach_stderr: bool,
    /// All capabilities.
    pub privileged: bool,
}

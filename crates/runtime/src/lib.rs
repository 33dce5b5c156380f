//! Containers as processes: the launcher, one shim per container, exec, logs on disk.
//!
//! ```text
//! daemon ──(Launcher)──> launcher ──fork──> shim ──clone3──> the container's first process
//!    └──────(Shim: unix socket per container)──┘ └──setns──> processes executed in it
//! ```
//! `spec` holds what the engine hands over; `client` is the daemon's side; `launcher`, `shim` and
//! `setup::init` are processes of their own, forked from the launcher, whose entry is [`launcher_main`]; `setup` is
//! what happens between clone and exec. Why there is no crate underneath: docs/adr/0002-runtime.md.

mod cgroup;
mod client;
mod defaults;
mod error;
mod external;
mod identity;
mod launcher;
mod logs;
mod oci;
mod seccomp;
mod setup;
mod shim;
mod spec;
mod state;
mod status;
mod sys;
mod wire;

pub use client::{
    AttachInput, AttachOptions, AttachOutput, AttachStream, Exec, Launcher, LauncherConfig, Shim,
};
pub use defaults::{ALL_CAPABILITIES, DEFAULT_CAPABILITIES, MASKED_PATHS, READONLY_PATHS};
pub use error::{Error, Result};
pub use launcher::launcher_main;
pub use logs::{LogEntry, LogOptions, LogReader};
pub use setup::check_user;
pub use spec::{
    ContainerSpec, Device, ExecSpec, LogSpec, Mount, MountKind, NamespaceMode, Others, Resources, Rlimit,
    RootfsSpec, SeccompProfile, Stdio, UserSpec,
};
pub use status::{ExitStatus, OutputStream, ShimState, Stats};

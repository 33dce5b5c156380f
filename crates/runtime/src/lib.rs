//! Containers as processes: the launcher, one shim per container, exec, logs on disk.
//!
//! `spec` holds what the engine hands over; the OCI bundle is made from it here.

mod spec;

pub use spec::{
    ContainerSpec, Device, ExecSpec, LogSpec, Mount, MountKind, NamespaceMode, Resources, Rlimit, RootfsSpec,
    SeccompProfile, Stdio, UserSpec,
};

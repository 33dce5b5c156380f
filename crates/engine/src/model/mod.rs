//! The engine's words: what is asked for and what is answered. The daemon converts them to Docker's JSON.

mod container;
mod event;
mod filters;
mod host_config;
mod options;
mod snapshot;
mod stored_ports;

pub use container::{
    ContainerConfig, ContainerPort, CreateRequest, Created, EndpointSettings, EndpointsConfig, HealthConfig,
    InvalidPort,
};
pub use event::{Event, EventType};
pub use filters::{Expressions, Filters};
pub use host_config::{
    Bindings, DeviceMapping, HostConfig, HostPort, InvalidMode, LogConfig, MountSpec, MountType,
    NamespaceSetting, NetworkMode, ResourceLimits, RestartPolicy, RestartPolicyName,
};
pub use options::{
    AttachOptions, Change, ChangeKind, CommitRequest, DiskUsage, EngineInfo, EventsOptions, ExecConfig,
    ExecSnapshot, ExecStartOptions, InterfaceStats, ListOptions, LogOptions, PathStat, Pruned, RemoveOptions,
    StatsSample, StopOptions, TopTable, UpdateRequest, Volume, VolumeSpec, WaitCondition, WaitOutcome,
};
pub use snapshot::{
    ContainerSnapshot, ContainerState, EndpointSnapshot, Health, HealthResult, HealthStatus, MountPoint,
    NetworkSnapshot, Status,
};

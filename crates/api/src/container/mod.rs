//! Containers.

mod config;
mod host_config;
mod inspect;
mod misc;
mod stats;
mod summary;

pub use config::{ContainerConfig, CreateRequest, CreateResponse, HealthConfig};
pub use host_config::{
    DeviceMapping, DeviceRequest, HostConfig, LogConfig, PortBinding, PortMap, RestartPolicy, ThrottleDevice,
    Ulimit, UpdateConfig, WeightDevice,
};
pub use inspect::{ContainerInspect, ContainerState, Health, HealthResult, NetworkSettings};
pub use misc::{
    ContainersPruneReport, FilesystemChange, PathStat, TopResponse, UpdateResponse, WaitError, WaitResponse,
};
pub use stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, InterfaceStats, MemoryStats, PidsStats, StatsResponse,
    StorageStats, ThrottlingData,
};
pub use summary::{ContainerSummary, Port, SummaryHostConfig, SummaryNetworkSettings};

//! `GET /containers/{id}/stats`. The names are in snake case on the wire as well.

use std::collections::BTreeMap;

use crate::wire::is_default;

wire! { snake_case;
    /// One sample.
    pub struct StatsResponse {
        /// `/` and the name.
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        /// The container's id.
        #[serde(skip_serializing_if = "is_default")]
        pub id: String,
        /// When it was taken: RFC 3339 with nanoseconds.
        pub read: String,
        /// When the sample before it was taken; the year 1 if there is none.
        pub preread: String,
        /// Processes.
        pub pids_stats: PidsStats,
        /// Block devices.
        pub blkio_stats: BlkioStats,
        /// Windows only.
        pub num_procs: u32,
        /// Windows only.
        pub storage_stats: StorageStats,
        /// CPU time.
        pub cpu_stats: CpuStats,
        /// CPU time of the sample before.
        pub precpu_stats: CpuStats,
        /// Memory.
        pub memory_stats: MemoryStats,
        /// Interfaces by name.
        #[serde(skip_serializing_if = "is_default")]
        pub networks: BTreeMap<String, InterfaceStats>,
    }

    /// Processes.
    pub struct PidsStats {
        /// Now.
        #[serde(skip_serializing_if = "is_default")]
        pub current: u64,
        /// At most; 18446744073709551615 without limit.
        #[serde(skip_serializing_if = "is_default")]
        pub limit: u64,
    }

    /// CPU time, nanoseconds.
    pub struct CpuStats {
        /// Of the container.
        pub cpu_usage: CpuUsage,
        /// Of the host.
        #[serde(skip_serializing_if = "is_default")]
        pub system_cpu_usage: u64,
        /// CPUs.
        #[serde(skip_serializing_if = "is_default")]
        pub online_cpus: u32,
        /// How often it was throttled.
        pub throttling_data: ThrottlingData,
    }

    /// CPU time of a container, nanoseconds.
    pub struct CpuUsage {
        /// In all.
        pub total_usage: u64,
        /// By CPU (cgroup v1 only).
        #[serde(skip_serializing_if = "is_default")]
        pub percpu_usage: Vec<u64>,
        /// In the kernel.
        pub usage_in_kernelmode: u64,
        /// In user space.
        pub usage_in_usermode: u64,
    }

    /// How often a container was throttled.
    pub struct ThrottlingData {
        /// Periods.
        pub periods: u64,
        /// Periods in which it was.
        pub throttled_periods: u64,
        /// Nanoseconds for which it was.
        pub throttled_time: u64,
    }

    /// Memory, bytes.
    pub struct MemoryStats {
        /// Now.
        #[serde(skip_serializing_if = "is_default")]
        pub usage: u64,
        /// Most so far (cgroup v1 only).
        #[serde(skip_serializing_if = "is_default")]
        pub max_usage: u64,
        /// The fields of memory.stat.
        #[serde(skip_serializing_if = "is_default")]
        pub stats: BTreeMap<String, u64>,
        /// How often the limit was hit (cgroup v1 only).
        #[serde(skip_serializing_if = "is_default")]
        pub failcnt: u64,
        /// At most.
        #[serde(skip_serializing_if = "is_default")]
        pub limit: u64,
    }

    /// Block devices.
    pub struct BlkioStats {
        /// Bytes.
        pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        /// Operations.
        pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
        /// Operations that wait.
        pub io_queue_recursive: Option<Vec<BlkioEntry>>,
        /// Time of service.
        pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
        /// Time of waiting.
        pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        /// Merged.
        pub io_merged_recursive: Option<Vec<BlkioEntry>>,
        /// Time.
        pub io_time_recursive: Option<Vec<BlkioEntry>>,
        /// Sectors.
        pub sectors_recursive: Option<Vec<BlkioEntry>>,
    }

    /// A number of a block device.
    pub struct BlkioEntry {
        /// Major number.
        pub major: u64,
        /// Minor number.
        pub minor: u64,
        /// `read`, `write`, ...
        pub op: String,
        /// The number.
        pub value: u64,
    }

    /// Windows only.
    pub struct StorageStats {
        /// Windows only.
        #[serde(skip_serializing_if = "is_default")]
        pub read_count_normalized: u64,
        /// Windows only.
        #[serde(skip_serializing_if = "is_default")]
        pub read_size_bytes: u64,
    }

    /// An interface.
    pub struct InterfaceStats {
        /// Bytes in.
        pub rx_bytes: u64,
        /// Packets in.
        pub rx_packets: u64,
        /// Errors in.
        pub rx_errors: u64,
        /// Packets in that were dropped.
        pub rx_dropped: u64,
        /// Bytes out.
        pub tx_bytes: u64,
        /// Packets out.
        pub tx_packets: u64,
        /// Errors out.
        pub tx_errors: u64,
        /// Packets out that were dropped.
        pub tx_dropped: u64,
    }
}

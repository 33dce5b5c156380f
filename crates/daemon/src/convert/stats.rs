//! Statistics.

use portolan_api as api;
use portolan_engine::model::StatsSample;

use super::rfc3339;

/// One line of `GET /containers/{id}/stats`; `before` is the sample that rates are computed from.
pub(crate) fn stats(
    id: &str,
    name: &str,
    sample: &StatsSample,
    before: Option<&StatsSample>,
) -> api::StatsResponse {
    let networks = sample.networks.iter().map(|(interface, counters)| {
        let counters = api::InterfaceStats {
            rx_bytes: counters.rx_bytes,
            rx_packets: counters.rx_packets,
            rx_errors: counters.rx_errors,
            rx_dropped: counters.rx_dropped,
            tx_bytes: counters.tx_bytes,
            tx_packets: counters.tx_packets,
            tx_errors: counters.tx_errors,
            tx_dropped: counters.tx_dropped,
        };
        (interface.clone(), counters)
    });
    let running = sample.read.is_some();
    let blkio = sample.blkio_bytes.iter().map(|(major, minor, op, value)| api::BlkioEntry {
        major: *major,
        minor: *minor,
        op: op.clone(),
        value: *value,
    });
    api::StatsResponse {
        name: format!("/{name}"),
        id: id.to_owned(),
        read: rfc3339(sample.read),
        preread: rfc3339(before.and_then(|before| before.read)),
        pids_stats: api::PidsStats {
            current: sample.pids_current,
            // No limit is all ones, as in Docker.
            limit: if running && sample.pids_limit == 0 { u64::MAX } else { sample.pids_limit },
        },
        blkio_stats: api::BlkioStats {
            io_service_bytes_recursive: running.then(|| blkio.collect()),
            ..api::BlkioStats::default()
        },
        cpu_stats: cpu(sample),
        precpu_stats: before.map(cpu).unwrap_or_default(),
        memory_stats: api::MemoryStats {
            usage: sample.memory_usage,
            max_usage: sample.memory_max_usage,
            stats: sample.memory_stats.clone(),
            failcnt: 0,
            limit: sample.memory_limit,
        },
        networks: networks.collect(),
        ..api::StatsResponse::default()
    }
}

fn cpu(sample: &StatsSample) -> api::CpuStats {
    let (periods, throttled_periods, throttled_time) = sample.throttling;
    api::CpuStats {
        cpu_usage: api::CpuUsage {
            total_usage: sample.cpu_total_ns,
            percpu_usage: Vec::new(),
            usage_in_kernelmode: sample.cpu_system_ns,
            usage_in_usermode: sample.cpu_user_ns,
        },
        system_cpu_usage: sample.host_cpu_ns,
        online_cpus: sample.online_cpus,
        throttling_data: api::ThrottlingData { periods, throttled_periods, throttled_time },
    }
}

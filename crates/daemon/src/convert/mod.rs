//! Docker's JSON to the engine's words and back.

mod container;
#[cfg(test)]
mod coverage;
mod endpoint;
mod event;
mod exec;
mod filters;
mod host_config;
mod image;
mod inspect;
mod mount;
mod network;
mod resources;
mod stats;
mod status;
mod summary;
mod sysctl;
mod time;
mod volume;

pub(crate) use container::{config_from_api, create_request};
pub(crate) use endpoint::endpoint_from_api;
pub(crate) use event::event;
pub(crate) use exec::{exec_config, exec_inspect, exec_start};
pub(crate) use filters::{filters, image_list_filter, image_prune_filter};
pub(crate) use host_config::{addresses, host_address, host_ports, port_bindings};
pub(crate) use image::{deleted, history_item, image_inspect, image_summary, platform};
pub(crate) use inspect::container_inspect;
pub(crate) use network::{network, network_spec, network_status};
pub(crate) use resources::update_request;
pub(crate) use stats::stats;
pub(crate) use summary::container_summary;
pub(crate) use time::{go_mode, parse_time, rfc3339};
pub(crate) use volume::{volume, volume_spec, volume_usage};

/// `None` where Go has a nil slice.
fn none_if_empty<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}

/// The text of something that may not be there; empty if not.
fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

//! `GET /containers/json`.

use jiff::Timestamp;
use portolan_api::{self as api, ApiVersion};
use portolan_engine::model::{ContainerPort, ContainerSnapshot};
use portolan_netcore::model::PortBinding;

use super::endpoint::{Shown, endpoint_to_api};
use super::mount::mount_point;
use super::status::status_text;

/// An item of the list.
pub(crate) fn container_summary(
    mut snapshot: ContainerSnapshot,
    now: Timestamp,
    version: ApiVersion,
) -> api::ContainerSummary {
    let bytes = |size: Option<u64>| size.and_then(|size| i64::try_from(size).ok()).unwrap_or_default();
    let endpoints = std::mem::take(&mut snapshot.network.endpoints);
    let shown = Shown::new(&snapshot, version);
    let networks = endpoints.into_iter().map(|endpoint| {
        let name = endpoint.network_name.clone();
        // Of what was asked for, lists show addresses only.
        let brief = api::EndpointSettings {
            links: None,
            aliases: None,
            driver_opts: None,
            dns_names: None,
            ..endpoint_to_api(endpoint, &shown)
        };
        (name, Some(brief))
    });
    let networks = networks.collect();
    let annotations =
        if version < ApiVersion::new(1, 46) { Default::default() } else { snapshot.host_config.annotations };
    api::ContainerSummary {
        names: [&snapshot.name]
            .into_iter()
            .chain(&snapshot.link_names)
            .map(|name| format!("/{name}"))
            .collect(),
        image: snapshot.config.image,
        image_id: snapshot.image_id,
        command: command(&snapshot.path, &snapshot.args),
        created: snapshot.created.as_second(),
        ports: snapshot.network.ports.iter().flat_map(|(port, bindings)| ports(*port, bindings)).collect(),
        size_rw: bytes(snapshot.size_rw),
        size_root_fs: bytes(snapshot.size_root_fs),
        labels: snapshot.config.labels,
        state: snapshot.state.status.as_str().to_owned(),
        status: status_text(&snapshot.state, now),
        host_config: api::SummaryHostConfig {
            network_mode: snapshot.host_config.network_mode.to_string(),
            annotations,
        },
        network_settings: api::SummaryNetworkSettings { networks },
        mounts: snapshot.mounts.into_iter().map(mount_point).collect(),
        id: snapshot.id.to_string(),
    }
}

/// Program and arguments as one text; an argument with blanks is quoted.
fn command(path: &str, args: &[String]) -> String {
    let mut command = path.to_owned();
    for arg in args {
        command.push(' ');
        match arg.contains(' ') {
            true => command.push_str(&format!("'{arg}'")),
            false => command.push_str(arg),
        }
    }
    command
}

/// A port as often as it is published, or once if it is not.
fn ports(port: ContainerPort, bindings: &[PortBinding]) -> Vec<api::Port> {
    let private =
        api::Port { private_port: port.port, kind: port.proto.as_str().to_owned(), ..api::Port::default() };
    if bindings.is_empty() {
        return vec![private];
    }
    let published = |binding: &PortBinding| api::Port {
        ip: binding.host_ip.to_string(),
        public_port: binding.host_port,
        ..private.clone()
    };
    bindings.iter().map(published).collect()
}

//! Networks.

use jiff::Timestamp;
use portolan_api::{self as api, ApiVersion};
use portolan_net::{IpamPoolSpec, NetworkEndpoint, NetworkInfo, NetworkSpec};
use portolan_netcore::model::IpamConfig;

use super::{rfc3339, text};
use crate::http::ApiError;

/// The body of `POST /networks/create`; what we do not have is refused by name.
pub(crate) fn network_spec(body: api::NetworkCreate, version: ApiVersion) -> Result<NetworkSpec, ApiError> {
    if body.config_only || body.config_from.as_ref().is_some_and(|from| !from.network.is_empty()) {
        return Err(ApiError::invalid("config-only networks are not supported"));
    }
    if body.ingress {
        return Err(ApiError::invalid("ingress networks need a swarm, which is not supported"));
    }
    let ipam = body.ipam.unwrap_or_default();
    let pool = |config: api::IpamConfig| IpamPoolSpec {
        subnet: config.subnet,
        ip_range: config.ip_range,
        gateway: config.gateway,
        auxiliary: config.auxiliary_addresses,
    };
    Ok(NetworkSpec {
        name: body.name,
        driver: body.driver,
        ipv4: body.enable_ipv4.filter(|_| version >= ApiVersion::new(1, 48)),
        ipv6: body.enable_ipv6,
        internal: body.internal,
        attachable: body.attachable,
        scope: body.scope,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options.unwrap_or_default(),
        ipam: ipam.config.unwrap_or_default().into_iter().map(pool).collect(),
        options: body.options.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    })
}

/// A network; with its endpoints in `GET /networks/{id}`, without in lists.
pub(crate) fn network(info: NetworkInfo, with_endpoints: bool, version: ApiVersion) -> api::Network {
    let network = info.network;
    let created = Timestamp::from_nanosecond(i128::from(network.created_ns)).ok();
    let endpoints = if with_endpoints { info.endpoints } else { Vec::new() };
    api::Network {
        driver: network.driver.name().to_owned(),
        id: network.id.to_string(),
        name: network.name,
        created: rfc3339(created),
        scope: "local".to_owned(),
        enable_ipv4: Some(network.ipv4).filter(|_| version >= ApiVersion::new(1, 48)),
        enable_ipv6: network.ipv6,
        ipam: api::Ipam {
            driver: network.ipam_driver,
            options: Some(network.ipam_options).filter(|options| !options.is_empty() || !network.predefined),
            config: Some(network.ipam.into_iter().map(ipam_config).collect()),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: api::ConfigReference::default(),
        config_only: false,
        containers: endpoints.into_iter().map(endpoint).collect(),
        options: Some(network.options),
        labels: Some(network.labels),
    }
}

fn ipam_config(config: IpamConfig) -> api::IpamConfig {
    api::IpamConfig {
        subnet: config.subnet.to_string(),
        ip_range: text(config.ip_range),
        gateway: text(config.gateway),
        auxiliary_addresses: config.auxiliary.into_iter().map(|(name, ip)| (name, ip.to_string())).collect(),
    }
}

fn endpoint(endpoint: NetworkEndpoint) -> (String, api::EndpointResource) {
    let resource = api::EndpointResource {
        name: endpoint.container_name,
        endpoint_id: endpoint.id.to_string(),
        mac_address: text(endpoint.mac),
        ipv4_address: text(endpoint.ipv4),
        ipv6_address: text(endpoint.ipv6),
    };
    (endpoint.container.to_string(), resource)
}

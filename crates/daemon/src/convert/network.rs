//! Networks.

use jiff::Timestamp;
use portolan_api::{self as api, ApiVersion};
use portolan_net::{Conflict, IpamPoolSpec, NetworkEndpoint, NetworkInfo, NetworkSpec, SubnetUsage};
use portolan_netcore::model::IpamConfig;

use super::{none_if_empty, rfc3339, text};
use crate::http::ApiError;

/// The body of `POST /networks/create`; what we do not have is refused by name.
pub(crate) fn network_spec(body: api::NetworkCreate, version: ApiVersion) -> Result<NetworkSpec, ApiError> {
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
        config_only: body.config_only,
        config_from: body.config_from.map(|from| from.network).unwrap_or_default(),
        scope: body.scope,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options,
        ipam: ipam.config.unwrap_or_default().into_iter().map(pool).collect(),
        options: body.options.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    })
}

/// From this version on a network shows how full its subnets are.
const STATUS: ApiVersion = ApiVersion::new(1, 52);

/// How full a network's subnets are, for versions that have it and for `verbose`; and what is in its way,
/// whenever something is.
pub(crate) fn network_status(
    info: &NetworkInfo,
    verbose: bool,
    version: ApiVersion,
    conflicts: &[Conflict],
) -> Option<api::NetworkStatus> {
    let subnet = |usage: &SubnetUsage| {
        let numbers = api::SubnetStatus { ips_in_use: usage.in_use, dynamic_ips_available: usage.available };
        (usage.subnet.to_string(), numbers)
    };
    let firewall: Vec<_> =
        conflicts.iter().filter(|one| one.network == info.network.id).map(conflict).collect();
    let wanted = verbose || version >= STATUS || !firewall.is_empty();
    (wanted && info.network.driver.has_links()).then(|| api::NetworkStatus {
        ipam: api::IpamStatus { subnets: info.usage.iter().map(subnet).collect() },
        overlapping_routes: info.overlaps.iter().map(ToString::to_string).collect(),
        firewall,
    })
}

fn conflict(conflict: &Conflict) -> api::FirewallConflict {
    let finding = &conflict.finding;
    api::FirewallConflict {
        owner: finding.tool.to_string(),
        table: format!("{} {}", finding.family, finding.table),
        chain: finding.chain.clone(),
        drops: finding.flows.iter().map(|flow| flow.as_str().to_owned()).collect(),
        ports: finding.port_names(),
        partly: finding.partly,
        why: finding.place.to_string(),
        fix: finding.fix.clone(),
    }
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
            driver: network.ipam_driver.clone(),
            options: network.ipam_options,
            config: none_if_empty(match network.ipam_driver.as_str() {
                // Docker's driver `null` has all there is.
                "null" if !network.config_only => {
                    vec![api::IpamConfig { subnet: "0.0.0.0/0".to_owned(), ..api::IpamConfig::default() }]
                }
                _ => network.ipam.into_iter().map(ipam_config).collect(),
            }),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: api::ConfigReference { network: network.config_from.unwrap_or_default() },
        config_only: network.config_only,
        containers: endpoints.into_iter().map(endpoint).collect(),
        options: Some(network.options),
        labels: Some(network.labels),
        status: None,
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

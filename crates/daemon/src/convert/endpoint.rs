//! `EndpointSettings`: what a client asks for, and what it got.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_api::{self as api, ApiVersion, EndpointIpamConfig};
use portolan_engine::model::{EndpointSettings, EndpointSnapshot};

use super::{none_if_empty, text};
use crate::http::ApiError;

/// What a client asks for.
pub(crate) fn endpoint_from_api(
    settings: api::EndpointSettings,
    version: ApiVersion,
) -> Result<EndpointSettings, ApiError> {
    let ipam = settings.ipam_config.unwrap_or_default();
    let ipv4 = match ipam.ipv4_address.as_str() {
        "" => None,
        given => {
            Some(given.parse().map_err(|_| ApiError::invalid(format!("invalid IPv4 address: {given}")))?)
        }
    };
    let ipv6 = match ipam.ipv6_address.as_str() {
        "" => None,
        given => {
            Some(given.parse().map_err(|_| ApiError::invalid(format!("invalid IPv6 address: {given}")))?)
        }
    };
    let mac = match settings.mac_address.as_str() {
        "" => None,
        given => Some(given.parse().map_err(|_| ApiError::invalid(format!("invalid MAC address: {given}")))?),
    };
    Ok(EndpointSettings {
        ipv4,
        ipv6,
        link_local_ips: link_local(&ipam.link_local_ips)?,
        links: settings.links.unwrap_or_default(),
        aliases: settings.aliases.unwrap_or_default(),
        mac,
        driver_opts: settings.driver_opts.unwrap_or_default(),
        gw_priority: settings.gw_priority.filter(|_| version >= ApiVersion::new(1, 48)).unwrap_or_default(),
    })
}

fn link_local(given: &[String]) -> Result<Vec<IpAddr>, ApiError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| ApiError::invalid(format!("invalid link-local IP address: {text}")))
    };
    given.iter().map(parse).collect()
}

/// An endpoint as inspect shows it. `short_id` is an alias that versions before 1.45 show too.
pub(super) fn endpoint_to_api(
    snapshot: EndpointSnapshot,
    short_id: &str,
    version: ApiVersion,
) -> api::EndpointSettings {
    let asked = snapshot.settings;
    let ipam = EndpointIpamConfig {
        ipv4_address: text(asked.ipv4),
        ipv6_address: text(asked.ipv6),
        link_local_ips: asked.link_local_ips.iter().map(ToString::to_string).collect(),
    };
    let mut aliases = asked.aliases;
    let user_defined = !snapshot.dns_names.is_empty();
    if version < ApiVersion::new(1, 45) && user_defined && !aliases.iter().any(|alias| alias == short_id) {
        aliases.push(short_id.to_owned());
    }
    let got = snapshot.endpoint;
    let got = got.as_ref();
    let ipv4 = got.and_then(|endpoint| endpoint.ipv4);
    let ipv6 = got.and_then(|endpoint| endpoint.ipv6);
    api::EndpointSettings {
        ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default()),
        links: none_if_empty(asked.links),
        aliases: none_if_empty(aliases),
        mac_address: match got {
            Some(endpoint) if ipv4.is_some() || ipv6.is_some() => endpoint.mac.to_string(),
            _ => text(asked.mac),
        },
        driver_opts: Some(asked.driver_opts).filter(|opts: &BTreeMap<_, _>| !opts.is_empty()),
        gw_priority: Some(asked.gw_priority).filter(|_| version >= ApiVersion::new(1, 48)),
        network_id: text(snapshot.network_id),
        endpoint_id: text(got.map(|endpoint| &endpoint.id)),
        gateway: text(got.and_then(|endpoint| endpoint.gateway_ipv4)),
        ip_address: text(ipv4.map(|net| net.addr())),
        ip_prefix_len: ipv4.map_or(0, |net| net.prefix_len()),
        ipv6_gateway: text(got.and_then(|endpoint| endpoint.gateway_ipv6)),
        global_ipv6_address: text(ipv6.map(|net| net.addr())),
        global_ipv6_prefix_len: ipv6.map_or(0, |net| net.prefix_len()),
        dns_names: none_if_empty(snapshot.dns_names).filter(|_| version >= ApiVersion::new(1, 44)),
    }
}

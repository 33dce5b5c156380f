//! `EndpointSettings`: what a client asks for, and what it got.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use portolan_api::{self as api, ApiVersion, EndpointIpamConfig};
use portolan_engine::model::{
    ContainerSnapshot, EndpointSettings, EndpointSnapshot, EndpointsConfig, NetworkMode,
};

use super::{none_if_empty, text};
use crate::http::ApiError;

/// What a client asks for.
///
/// # Errors
/// Whatever of it cannot be understood, all of it at once.
pub(crate) fn endpoint_from_api(
    settings: api::EndpointSettings,
    version: ApiVersion,
) -> Result<EndpointSettings, ApiError> {
    let ipam = settings.ipam_config.unwrap_or_default();
    let mut wrong = Vec::new();
    let ipv4 = parse(&ipam.ipv4_address, "invalid IPv4 address", &mut wrong);
    let ipv6 = parse(&ipam.ipv6_address, "invalid IPv6 address", &mut wrong);
    let mut link_local_ips = Vec::new();
    for address in &ipam.link_local_ips {
        link_local_ips.extend(parse::<IpAddr>(address, "invalid link-local IP address", &mut wrong));
    }
    let mac = parse(&settings.mac_address, "invalid MAC address", &mut wrong);
    let wrong = match wrong.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => Some(format!("* {}", several.join("\n* "))),
    };
    if let Some(wrong) = wrong {
        return Err(ApiError::invalid(format!("invalid endpoint settings:\n{wrong}")));
    }
    Ok(EndpointSettings {
        ipv4,
        ipv6,
        link_local_ips,
        links: settings.links.unwrap_or_default(),
        aliases: settings.aliases.unwrap_or_default(),
        mac,
        driver_opts: settings.driver_opts.unwrap_or_default(),
        gw_priority: settings.gw_priority.filter(|_| version >= ApiVersion::new(1, 48)).unwrap_or_default(),
    })
}

/// None if nothing was given; what cannot be read is noted.
fn parse<T: FromStr>(given: &str, what: &str, wrong: &mut Vec<String>) -> Option<T> {
    let parsed = (!given.is_empty()).then(|| given.parse())?;
    parsed.map_err(|_| wrong.push(format!("{what}: {given}"))).ok()
}

/// The endpoint that settings of the whole container belong to: the one in the network of `NetworkMode`. If the
/// request names no network at all, it is made.
///
/// # Errors
/// The request names networks, but not that one: adding it would join a network that nobody asked for.
pub(super) fn endpoint_of_mode<'a>(
    mode: &NetworkMode,
    endpoints: &'a mut EndpointsConfig,
    version: ApiVersion,
) -> Result<&'a mut EndpointSettings, ApiError> {
    let name = mode.network_name().unwrap_or_default();
    // Those versions know only one, whatever it is called.
    let only = version < ApiVersion::new(1, 44) && !endpoints.is_empty();
    if endpoints.is_empty() {
        return Ok(endpoints.entry(name.to_owned()).or_default());
    }
    let found = endpoints.iter_mut().find(|(network, _)| only || *network == name);
    found.map(|(_, endpoint)| endpoint).ok_or_else(|| {
        ApiError::invalid(
            "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
        )
    })
}

/// Whose endpoints are shown, and to whom.
pub(super) struct Shown<'a> {
    /// The container's short id and host name: aliases that versions before 1.45 show too.
    pub(super) own_names: [&'a str; 2],
    /// It has run: what it got from networks then is shown when it does not run, too.
    pub(super) started: bool,
    pub(super) version: ApiVersion,
}

impl<'a> Shown<'a> {
    pub(super) fn new(container: &'a ContainerSnapshot, version: ApiVersion) -> Self {
        Self {
            own_names: [container.id.short(), &container.config.hostname],
            started: container.state.started_at.is_some(),
            version,
        }
    }
}

/// An endpoint as inspect shows it.
pub(super) fn endpoint_to_api(
    snapshot: EndpointSnapshot,
    &Shown { own_names, started, version }: &Shown<'_>,
) -> api::EndpointSettings {
    let started = started || snapshot.endpoint.is_some();
    let asked = snapshot.settings;
    let ipam = EndpointIpamConfig {
        ipv4_address: text(asked.ipv4),
        ipv6_address: text(asked.ipv6),
        link_local_ips: asked.link_local_ips.iter().map(ToString::to_string).collect(),
    };
    let mut aliases = asked.aliases;
    if version < ApiVersion::new(1, 45) && !snapshot.predefined {
        for name in own_names {
            if !aliases.iter().any(|alias| alias == name) {
                aliases.push(name.to_owned());
            }
        }
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
        network_id: text(snapshot.network_id.filter(|_| started)),
        endpoint_id: text(got.map(|endpoint| &endpoint.id)),
        gateway: text(got.and_then(|endpoint| endpoint.gateway_ipv4)),
        ip_address: text(ipv4.map(|net| net.addr())),
        ip_prefix_len: ipv4.map_or(0, |net| net.prefix_len()),
        ipv6_gateway: text(got.and_then(|endpoint| endpoint.gateway_ipv6)),
        global_ipv6_address: text(ipv6.map(|net| net.addr())),
        global_ipv6_prefix_len: ipv6.map_or(0, |net| net.prefix_len()),
        dns_names: none_if_empty(snapshot.dns_names).filter(|_| started && version >= ApiVersion::new(1, 44)),
    }
}

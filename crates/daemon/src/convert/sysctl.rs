//! Sysctls of an interface among those of the container: a matter of the endpoint since v1.46 of the API.

use portolan_api::ApiVersion;
use portolan_engine::model::{EndpointsConfig, HostConfig, NetworkMode};

use super::endpoint::endpoint_of_mode;
use crate::http::ApiError;

/// The endpoint's option that takes them.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// Moves `net.*.*.eth0.*` to the endpoint in the network of `NetworkMode`. Warnings that it did.
///
/// # Errors
/// An interface other than eth0, whose network nobody can know; and from v1.48 any.
pub(super) fn place(
    host: &mut HostConfig,
    endpoints: &mut EndpointsConfig,
    version: ApiVersion,
) -> Result<Vec<String>, ApiError> {
    if !matches!(host.network_mode, NetworkMode::Bridge | NetworkMode::Network(_)) {
        return Ok(Vec::new());
    }
    let mut moved = Vec::new();
    for (key, value) in &host.sysctls {
        let parts: Vec<&str> = key.splitn(5, '.').collect();
        let ["net", family, table, ifname, rest] = parts.as_slice() else { continue };
        if !ifname.starts_with("eth") {
            continue;
        }
        if version >= ApiVersion::new(1, 48) {
            return Err(ApiError::invalid(format!(
                "interface specific sysctl setting \"{key}\" must be supplied using driver option '{SYSCTLS}'"
            )));
        }
        if *ifname != "eth0" {
            return Err(ApiError::invalid(format!(
                "unable to determine network endpoint for sysctl {key}, use driver option '{SYSCTLS}' to set per-interface sysctls"
            )));
        }
        moved.push((key.clone(), format!("net.{family}.{table}.IFNAME.{rest}={value}")));
    }
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let endpoint = endpoint_of_mode(&host.network_mode, endpoints, version)
        .map_err(|error| error.context("unable to find a network for an interface's sysctl"))?;
    let options = &mut endpoint.driver_opts;
    let mut warnings = Vec::new();
    for (key, option) in moved {
        host.sysctls.remove(&key);
        warnings.push(format!("Migrated sysctl \"{key}\" to DriverOpts{{\"{SYSCTLS}\":\"{option}\"}}."));
        let all = options.entry(SYSCTLS.to_owned()).or_default();
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(&option);
    }
    // Versions before per-endpoint sysctls never told of them.
    Ok(if version < ApiVersion::new(1, 46) { Vec::new() } else { warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(key: &str, minor: u32) -> Result<(HostConfig, EndpointsConfig, Vec<String>), ApiError> {
        let mut host = HostConfig { network_mode: NetworkMode::Bridge, ..HostConfig::default() };
        host.sysctls.insert(key.to_owned(), "1".to_owned());
        let mut endpoints = EndpointsConfig::new();
        let warnings = place(&mut host, &mut endpoints, ApiVersion::new(1, minor))?;
        Ok((host, endpoints, warnings))
    }

    #[test]
    fn an_interfaces_sysctl_moves_to_its_endpoint() {
        let (host, endpoints, warnings) = placed("net.ipv4.conf.eth0.forwarding", 46).unwrap();
        assert!(host.sysctls.is_empty());
        assert_eq!(endpoints["bridge"].driver_opts[SYSCTLS], "net.ipv4.conf.IFNAME.forwarding=1");
        assert_eq!(warnings.len(), 1);
        let (host, endpoints, _) = placed("net.ipv4.ip_forward", 46).unwrap();
        assert!(host.sysctls.len() == 1 && endpoints.is_empty());
    }

    #[test]
    fn what_cannot_be_placed_is_refused() {
        assert!(placed("net.ipv4.conf.eth1.forwarding", 46).is_err());
        assert!(placed("net.ipv4.conf.eth0.forwarding", 48).is_err());
        assert!(placed("net.ipv4.conf.all.forwarding", 48).is_ok());
    }
}

//! `Config` and the body of create.

use std::collections::BTreeMap;

use portolan_api::{self as api, ApiVersion, Empty, StrSlice};
use portolan_engine::model::{ContainerConfig, ContainerPort, CreateRequest, HealthConfig, NetworkMode};

use super::endpoint::{endpoint_from_api, endpoint_of_mode};
use super::host_config::host_config_from_api;
use super::none_if_empty;
use crate::http::ApiError;

/// The body of create, and warnings about what the client's version of the API means by it.
pub(crate) fn create_request(
    body: api::CreateRequest,
    name: Option<&str>,
    platform: Option<&str>,
    version: ApiVersion,
) -> Result<(CreateRequest, Vec<String>), ApiError> {
    if body.config == api::ContainerConfig::default() {
        return Err(ApiError::invalid("config cannot be empty in order to create a container"));
    }
    let mut host = body.host_config.unwrap_or_default();
    let default_mode = matches!(host.network_mode.as_str(), "" | "default");
    older_versions(&mut host, version);
    let host_config = host_config_from_api(host, version)?;
    let mut config = config_from_api(body.config)?;
    if version < ApiVersion::new(1, 44)
        && let Some(health) = &mut config.healthcheck
    {
        health.start_interval_ns = 0;
    }
    let mut given = body.networking_config.unwrap_or_default().endpoints_config.unwrap_or_default().0;
    for (name, _) in given.iter_mut().filter(|(name, _)| default_mode && name == "default") {
        "bridge".clone_into(name);
    }
    let endpoint_order: Vec<String> = given.iter().map(|(name, _)| name.clone()).collect();
    if version < ApiVersion::new(1, 44) && given.len() > 1 {
        let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
        return Err(ApiError::invalid(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    let mut endpoints = BTreeMap::new();
    for (network, settings) in given {
        let of = |error: &str| ApiError::invalid(format!("invalid config for network {network}: {error}"));
        let settings = settings.ok_or_else(|| of("EndpointsConfig is nil"))?;
        let settings = endpoint_from_api(settings, version).map_err(|error| of(&error.message))?;
        endpoints.insert(network, settings);
    }
    let mut warnings = place_mac(&mut config, &host_config.network_mode, &mut endpoints, version)?;
    let mut host_config = host_config;
    warnings.extend(super::sysctl::place(&mut host_config, &mut endpoints, version)?);
    let request = CreateRequest {
        name: name.map(str::to_owned),
        platform: platform.map(str::to_owned).filter(|_| version >= ApiVersion::new(1, 41)),
        config,
        host_config,
        endpoints,
        endpoint_order,
    };
    Ok((request, warnings))
}

/// Takes away what the client's version of the API does not have, so that it gets what it always got.
fn older_versions(host: &mut api::HostConfig, version: ApiVersion) {
    if version < ApiVersion::new(1, 42) {
        host.console_size = [0, 0];
        for mount in host.mounts.iter_mut().flatten() {
            if let Some(options) = &mut mount.bind_options {
                options.create_mountpoint = false;
            }
            mount.volume_options.take_if(|_| mount.kind != "volume");
            mount.tmpfs_options.take_if(|_| mount.kind != "tmpfs");
        }
    }
    if version < ApiVersion::new(1, 43) {
        host.annotations.clear();
    }
}

/// The MAC address of old (`Config.MacAddress`) belongs to the endpoint in the network of `NetworkMode`.
fn place_mac(
    config: &mut ContainerConfig,
    mode: &NetworkMode,
    endpoints: &mut portolan_engine::model::EndpointsConfig,
    version: ApiVersion,
) -> Result<Vec<String>, ApiError> {
    let old_style = version < ApiVersion::new(1, 44);
    if old_style {
        // Those versions ignored an endpoint's own.
        endpoints.values_mut().for_each(|endpoint| endpoint.mac = None);
    }
    let Some(mac) = config.mac_address.take() else { return Ok(Vec::new()) };
    if !matches!(mode, NetworkMode::Bridge | NetworkMode::Network(_)) {
        return Err(ApiError::invalid("conflicting options: mac-address and the network mode"));
    }
    let endpoint = endpoint_of_mode(mode, endpoints, version).map_err(|error| {
        error.context("unable to migrate container-wide MAC address to a specific network")
    })?;
    match endpoint.mac.replace(mac) {
        Some(other) if other != mac => {
            return Err(ApiError::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
            ));
        }
        _ => {}
    }
    let warning = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.";
    Ok(if old_style { Vec::new() } else { vec![warning.to_owned()] })
}

/// `Config` as a client sends it.
pub(crate) fn config_from_api(config: api::ContainerConfig) -> Result<ContainerConfig, ApiError> {
    let port =
        |text: String| text.parse::<ContainerPort>().map_err(|error| ApiError::invalid(error.to_string()));
    let mac_address = match config.mac_address.as_str() {
        "" => None,
        text => {
            Some(text.parse().map_err(|_| ApiError::invalid(format!("{text} is not a valid mac address")))?)
        }
    };
    Ok(ContainerConfig {
        hostname: config.hostname,
        domainname: config.domainname,
        user: config.user,
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        exposed_ports: config
            .exposed_ports
            .unwrap_or_default()
            .into_keys()
            .map(port)
            .collect::<Result<_, _>>()?,
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        env: config.env.unwrap_or_default(),
        cmd: config.cmd.map(|StrSlice(items)| items),
        entrypoint: config.entrypoint.map(|StrSlice(items)| items),
        image: config.image,
        volumes: config.volumes.unwrap_or_default().into_keys().collect(),
        working_dir: config.working_dir,
        labels: config.labels.unwrap_or_default(),
        stop_signal: Some(config.stop_signal).filter(|signal| !signal.is_empty()),
        stop_timeout: config.stop_timeout,
        healthcheck: config.healthcheck.map(health_from_api).transpose()?,
        network_disabled: config.network_disabled,
        shell: config.shell,
        on_build: config.on_build,
        mac_address,
    })
}

fn health_from_api(health: api::HealthConfig) -> Result<HealthConfig, ApiError> {
    Ok(HealthConfig {
        test: health.test,
        interval_ns: health.interval,
        timeout_ns: health.timeout,
        start_period_ns: health.start_period,
        start_interval_ns: health.start_interval,
        retries: u32::try_from(health.retries)
            .map_err(|_| ApiError::invalid("Retries in Healthcheck cannot be negative"))?,
    })
}

/// `Config` as inspect shows it.
pub(crate) fn config_to_api(config: ContainerConfig, version: ApiVersion) -> api::ContainerConfig {
    let keys = |keys: Vec<String>| keys.into_iter().map(|key| (key, Empty)).collect::<BTreeMap<_, _>>();
    let ports: Vec<String> = config.exposed_ports.keys().map(ToString::to_string).collect();
    let volumes: Vec<String> = config.volumes.into_iter().collect();
    api::ContainerConfig {
        hostname: config.hostname,
        domainname: config.domainname,
        user: config.user,
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        exposed_ports: Some(keys(ports)),
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        env: Some(config.env),
        cmd: config.cmd.map(StrSlice),
        healthcheck: config.healthcheck.map(|health| health_to_api(health, version)),
        args_escaped: false,
        image: config.image,
        volumes: Some(keys(volumes)).filter(|volumes| !volumes.is_empty()),
        working_dir: config.working_dir,
        entrypoint: config.entrypoint.and_then(none_if_empty).map(StrSlice),
        network_disabled: config.network_disabled,
        mac_address: super::text(config.mac_address),
        on_build: config.on_build,
        labels: Some(config.labels),
        stop_signal: config.stop_signal.unwrap_or_default(),
        stop_timeout: config.stop_timeout,
        shell: config.shell,
    }
}

fn health_to_api(health: HealthConfig, version: ApiVersion) -> api::HealthConfig {
    api::HealthConfig {
        test: health.test,
        interval: health.interval_ns,
        timeout: health.timeout_ns,
        start_period: health.start_period_ns,
        start_interval: if version < ApiVersion::new(1, 44) { 0 } else { health.start_interval_ns },
        retries: i64::from(health.retries),
    }
}

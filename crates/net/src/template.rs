//! Networks that are only a configuration for others (`--config-only`), and those others
//! (`--config-from`). The rules and texts are Docker's.

use portolan_netcore::model::{Driver, IpamConfig, Network, NetworkId};

use crate::{Error, IpamPoolSpec, NetworkSpec, create};

/// A network that exists for its configuration alone. Its driver is shown as `null`.
pub(crate) fn network(spec: NetworkSpec, id: NetworkId, created_ns: i64) -> Result<Network, Error> {
    create::check_name(&spec.name)?;
    if spec.internal || spec.attachable || !matches!(spec.scope.as_str(), "" | "local") {
        return Err(Error::forbidden(
            "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
        ));
    }
    if !spec.config_from.is_empty() {
        return Err(Error::forbidden(
            "a configuration network cannot depend on another configuration network",
        ));
    }
    let ipv6 = spec.ipv6.unwrap_or(false);
    let ipam = create::understood(&spec.ipam, ipv6)?;
    Ok(Network {
        id,
        name: spec.name,
        created_ns,
        driver: Driver::Null,
        ipv4: spec.ipv4.unwrap_or(true),
        ipv6,
        internal: false,
        attachable: false,
        ipam_driver: if spec.ipam_driver.is_empty() { "default".to_owned() } else { spec.ipam_driver },
        ipam_options: spec.ipam_options,
        ipam,
        options: spec.options,
        labels: spec.labels,
        predefined: false,
        config_only: true,
        config_from: None,
        routing: Default::default(),
    })
}

/// What a request asks for with the configuration of `template`.
pub(crate) fn apply(template: &Network, spec: NetworkSpec) -> Result<NetworkSpec, Error> {
    let own_ipam = !spec.ipam.is_empty()
        || spec.ipam_options.as_ref().is_some_and(|options| !options.is_empty())
        || !matches!(spec.ipam_driver.as_str(), "" | "default");
    if own_ipam || spec.ipv6 == Some(true) || !spec.labels.is_empty() {
        return Err(Error::forbidden(
            "user specified configurations are not supported if the network depends on a configuration network",
        ));
    }
    if !spec.options.is_empty() {
        return Err(Error::forbidden(
            "network driver options are not supported if the network depends on a configuration network",
        ));
    }
    Ok(NetworkSpec {
        ipv4: Some(template.ipv4),
        ipv6: Some(template.ipv6),
        ipam_driver: template.ipam_driver.clone(),
        ipam_options: template.ipam_options.clone(),
        ipam: template.ipam.iter().map(pool).collect(),
        options: template.options.clone(),
        labels: template.labels.clone(),
        ..spec
    })
}

fn pool(config: &IpamConfig) -> IpamPoolSpec {
    let text = |value: Option<String>| value.unwrap_or_default();
    IpamPoolSpec {
        subnet: config.subnet.to_string(),
        ip_range: text(config.ip_range.map(|range| range.to_string())),
        gateway: text(config.gateway.map(|gateway| gateway.to_string())),
        auxiliary: config.auxiliary.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect(),
    }
}

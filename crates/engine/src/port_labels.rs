//! Labels that say who may use a published port, for clients that cannot say it otherwise:
//! `portolan.publish.from.443/tcp=10.0.0.0/8,192.0.2.1`. They are about the container's ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{EngineError, Result};
use crate::model::{ContainerConfig, ContainerPort, HostConfig, HostPort, NetworkMode};

const LABEL: &str = "portolan.publish.from.";

/// Who may use which ports.
pub(crate) type Sources = BTreeMap<ContainerPort, Vec<IpNet>>;

/// What the labels say, however they spell the ports. Of those that name one port the plainest counts, `80/tcp`.
///
/// # Errors
/// One of them names no port or no networks.
pub(crate) fn sources(labels: &BTreeMap<String, String>) -> Result<Sources> {
    let mut sources = Sources::new();
    for (key, text) in about_ports(labels) {
        let port = key[LABEL.len()..].parse().ok().filter(|port: &ContainerPort| port.port != 0);
        let port = port.ok_or_else(|| EngineError::invalid(format!("label {key} names no port")))?;
        let networks = text.split(',').map(|word| network(key, word.trim())).collect::<Result<_>>()?;
        // The plainest is the last one in their order.
        sources.insert(port, networks);
    }
    Ok(sources)
}

fn about_ports(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    labels.range(LABEL.to_owned()..).take_while(|(key, _)| key.starts_with(LABEL))
}

fn network(key: &str, word: &str) -> Result<IpNet> {
    let address = || word.parse::<IpAddr>().ok().map(IpNet::from);
    let net = word.parse::<IpNet>().ok().or_else(address).map(|net| net.trunc());
    net.ok_or_else(|| EngineError::invalid(format!("label {key}: {word:?} is not a network")))
}

/// The labels of a request limit what they seem to: each names a port that the container publishes, `config`
/// with what its image adds. Those of an image may be about ports that are not published.
///
/// # Errors
/// One of them cannot be understood, or would limit nothing while ports are open.
pub(crate) fn check(
    given: &BTreeMap<String, String>,
    config: &ContainerConfig,
    host: &HostConfig,
) -> Result<()> {
    let sources_of_all = sources(&config.labels)?;
    if sources_of_all.is_empty() {
        return Ok(());
    }
    let wanted = sources(given)?;
    if wanted.len() < about_ports(given).count() {
        return Err(EngineError::invalid(format!("two labels {LABEL}... name the same port")));
    }
    let all = || host.publish_all_ports.then(|| config.exposed_ports.keys()).into_iter().flatten();
    let published = |port: &ContainerPort| {
        host.port_bindings.get(port).is_some_and(|hosts| !hosts.is_empty())
            || all().any(|exposed| exposed == port)
    };
    let on_host = host.network_mode == NetworkMode::Host;
    let publishes = on_host || !host.port_bindings.is_empty() || all().next().is_some();
    let Some(port) = wanted.keys().find(|port| on_host || !published(port)).filter(|_| publishes) else {
        return Ok(());
    };
    let leads = |host: &HostPort| host.ports.is_some_and(|range| range.contains(port.port));
    let why = match host.port_bindings.iter().find(|(_, hosts)| hosts.iter().any(leads)) {
        _ if on_host => "in network mode host nothing is published, and every port is the host's".to_owned(),
        Some((inside, _)) => {
            format!("{} is a port of the host, which leads to the container's {inside}", port.port)
        }
        None => "the container does not publish that port".to_owned(),
    };
    Err(EngineError::invalid(format!("label {LABEL}{port} would limit nothing: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(port, text)| (format!("{LABEL}{port}"), (*text).to_owned())).collect()
    }

    #[test]
    fn a_port_is_the_same_however_it_is_spelt() {
        let net: IpNet = "10.0.0.0/8".parse().unwrap();
        for spelling in ["80/tcp", "80", "80/TCP"] {
            let sources = sources(&labels(&[(spelling, "10.1.0.0/8, 192.0.2.1")])).unwrap();
            assert_eq!(sources[&"80/tcp".parse().unwrap()], [net, "192.0.2.1/32".parse().unwrap()]);
        }
        for wrong in [("x", "10.0.0.0/8"), ("0/tcp", "10.0.0.0/8"), ("80", "")] {
            assert!(sources(&labels(&[wrong])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_label_that_limits_nothing_is_refused() {
        let given = labels(&[("8080", "10.0.0.0/8")]);
        let (mut config, mut host) = (ContainerConfig::default(), HostConfig::default());
        config.labels.clone_from(&given);
        let refused = |config: &ContainerConfig, host: &HostConfig| {
            check(&given, config, host).map_err(|error| error.message().to_owned())
        };
        assert_eq!(
            refused(&config, &host),
            Ok(()),
            "nothing is open; it may be about what is published later"
        );
        let to =
            HostPort { ports: Some(portolan_netcore::model::PortRange::one(8080)), ..HostPort::default() };
        host.port_bindings.insert("80/tcp".parse().unwrap(), vec![to]);
        let text = refused(&config, &host).unwrap_err();
        assert!(text.contains("8080 is a port of the host, which leads to the container's 80/tcp"), "{text}");
        host.publish_all_ports = true;
        config.exposed_ports.insert("8080/tcp".parse().unwrap(), ());
        assert_eq!(refused(&config, &host), Ok(()));
        let twice = labels(&[("8080", "10.0.0.0/8"), ("8080/tcp", "10.0.0.0/8")]);
        assert!(check(&twice, &config, &host).is_err());
        host.network_mode = NetworkMode::Host;
        assert!(refused(&config, &host).unwrap_err().contains("mode host"));
    }
}

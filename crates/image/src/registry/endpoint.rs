use std::net::{IpAddr, ToSocketAddrs};

use ipnet::IpNet;

use super::RegistryConfig;
use crate::error::{Error, Result};

/// Where Docker Hub's images are; its name in references is `docker.io`.
const HUB: &str = "docker.io";
const HUB_INDEX: &str = "index.docker.io";
const HUB_REGISTRY: &str = "registry-1.docker.io";

/// One way to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `https://host[:port]`, without a slash at its end.
    pub(super) base: String,
    /// `host[:port]`.
    pub(super) host: String,
    /// Another's copy: it gets no credentials, and the registry itself comes after it.
    pub(super) mirror: bool,
    /// Its certificate must be good.
    pub(super) verify: bool,
}

impl Endpoint {
    fn new(scheme: &str, host: &str, mirror: bool, verify: bool) -> Self {
        Self { base: format!("{scheme}://{host}"), host: host.to_owned(), mirror, verify }
    }
}

/// The ways to a registry, best first.
pub(super) async fn endpoints(config: &RegistryConfig, domain: &str, mirrors: bool) -> Result<Vec<Endpoint>> {
    if domain != HUB && domain != HUB_INDEX && domain != HUB_REGISTRY {
        let insecure = is_insecure(config, domain).await;
        let mut endpoints = vec![Endpoint::new("https", domain, false, !insecure)];
        if insecure {
            endpoints.push(Endpoint::new("http", domain, false, false));
        }
        return Ok(endpoints);
    }
    let mut endpoints = Vec::new();
    for mirror in config.mirrors.iter().filter(|_| mirrors) {
        let (scheme, rest) = mirror.split_once("://").unwrap_or(("https", mirror));
        let rest = rest.trim_end_matches('/');
        if !matches!(scheme, "http" | "https") || rest.is_empty() {
            return Err(Error::invalid(format!("invalid mirror: {mirror:?} is no http or https address")));
        }
        let host = rest.split('/').next().unwrap_or_default();
        let verify = !is_insecure(config, host).await;
        let base = format!("{scheme}://{rest}");
        endpoints.push(Endpoint { base, host: host.to_owned(), mirror: true, verify });
    }
    endpoints.push(Endpoint::new("https", HUB_REGISTRY, false, true));
    Ok(endpoints)
}

/// Whether a registry may go without a good certificate, or without TLS. Names are looked up only if there
/// are CIDRs to compare with.
async fn is_insecure(config: &RegistryConfig, domain: &str) -> bool {
    let host = host_of(domain);
    if host == "localhost" || config.insecure.iter().any(|entry| entry == domain || entry == host) {
        return true;
    }
    let networks: Vec<IpNet> = config.insecure.iter().filter_map(|entry| entry.parse().ok()).collect();
    let insecure = |address: IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || networks.iter().any(|network| network.contains(&address))
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return insecure(address);
    }
    if networks.is_empty() {
        return false;
    }
    let name = host.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        (name.as_str(), 443).to_socket_addrs().map(|found| found.map(|one| one.ip()).collect::<Vec<_>>())
    });
    match found.await {
        Ok(Ok(addresses)) => addresses.into_iter().any(insecure),
        // Whoever cannot be found will not be reached either, and the error then says why.
        _ => false,
    }
}

/// A domain without its port, and without the brackets of an IPv6 address.
fn host_of(domain: &str) -> &str {
    if let Some(rest) = domain.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    domain.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bases(config: &RegistryConfig, domain: &str) -> Vec<String> {
        let endpoints = endpoints(config, domain, true).await.unwrap();
        endpoints.into_iter().map(|one| format!("{} {} {}", one.base, one.mirror, one.verify)).collect()
    }

    #[tokio::test]
    async fn plain_http_is_only_for_those_that_may() {
        let config = RegistryConfig {
            insecure: vec!["lab.example:5000".to_owned(), "10.1.0.0/16".to_owned()],
            ..RegistryConfig::default()
        };
        for domain in ["localhost:5000", "127.0.0.1", "[::1]:5000", "lab.example:5000", "10.1.2.3:80"] {
            let wanted = [format!("https://{domain} false false"), format!("http://{domain} false false")];
            assert_eq!(bases(&config, domain).await, wanted);
        }
        for domain in ["10.2.2.3:80", "192.0.2.1"] {
            assert_eq!(bases(&config, domain).await, [format!("https://{domain} false true")]);
        }
    }

    #[tokio::test]
    async fn mirrors_are_for_docker_hub_and_come_first() {
        let config = RegistryConfig {
            mirrors: vec!["http://127.0.0.1:5001/".to_owned(), "mirror.example/sub".to_owned()],
            ..RegistryConfig::default()
        };
        let wanted = [
            "http://127.0.0.1:5001 true false",
            "https://mirror.example/sub true true",
            "https://registry-1.docker.io false true",
        ];
        assert_eq!(bases(&config, "docker.io").await, wanted);
        assert_eq!(endpoints(&config, "docker.io", false).await.unwrap().len(), 1);
        assert_eq!(bases(&config, "other.example").await, ["https://other.example false true"]);
    }
}

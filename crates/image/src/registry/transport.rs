use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, NoProxy, Proxy};

use super::RegistryConfig;
use super::failure::cause;
use super::tls;
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence of a registry.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("portolan/", env!("CARGO_PKG_VERSION"));

/// HTTP clients, made when they are first needed: reading the system's certificates takes milliseconds.
#[derive(Debug)]
pub(super) struct Transport {
    config: RegistryConfig,
    /// By host, and whether certificates are verified.
    clients: Mutex<HashMap<(String, bool), Client>>,
}

impl Transport {
    pub(super) fn new(config: RegistryConfig) -> Self {
        Self { config, clients: Mutex::default() }
    }

    /// The client for a host.
    pub(super) async fn client(&self, host: &str, verify: bool) -> Result<Client> {
        let key = (host.to_owned(), verify);
        if let Some(client) = self.clients().get(&key) {
            return Ok(client.clone());
        }
        let (config, wanted) = (self.config.clone(), host.to_owned());
        let built = tokio::task::spawn_blocking(move || build(&config, &wanted, verify));
        let client = built.await.map_err(|error| Error::Registry(format!("prepare TLS: {error}")))??;
        self.clients().insert(key, client.clone());
        Ok(client)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<(String, bool), Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(config: &RegistryConfig, host: &str, verify: bool) -> Result<Client> {
    let wrong = |error: reqwest::Error| Error::Registry(format!("prepare TLS for {host}: {}", cause(&error)));
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .http1_only()
        .no_proxy();
    let tls = tls::config(&config.certificates, host, verify)?;
    builder = builder.tls_backend_preconfigured(tls);
    for proxy in proxies(config)? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(wrong)
}

/// The proxies of the configuration, else of the environment. Loopback never goes through one.
fn proxies(config: &RegistryConfig) -> Result<Vec<Proxy>> {
    let setting = |configured: &str, variable: &str| {
        let from = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(configured.to_owned())
            .filter(|value| !value.is_empty())
            .or_else(|| from(variable))
            .or_else(|| from(&variable.to_lowercase()))
    };
    let except = setting(&config.no_proxy, "NO_PROXY").unwrap_or_default();
    let except = NoProxy::from_string(&format!("localhost,127.0.0.0/8,::1,{except}"));
    let mut proxies = Vec::new();
    for (address, make) in [
        (setting(&config.http_proxy, "HTTP_PROXY"), Proxy::http as fn(String) -> reqwest::Result<Proxy>),
        (setting(&config.https_proxy, "HTTPS_PROXY"), Proxy::https),
    ] {
        let Some(mut address) = address else { continue };
        if !address.contains("://") {
            address = format!("http://{address}");
        }
        let proxy =
            make(address).map_err(|error| Error::invalid(format!("invalid proxy: {}", cause(&error))))?;
        proxies.push(proxy.no_proxy(except.clone()));
    }
    Ok(proxies)
}

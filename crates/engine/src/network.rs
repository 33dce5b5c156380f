//! Networks: what containers ask of them, and the commands, thin over `portolan_net`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_net::{
    AttachSpec, DnsUpdate, EndpointInfo, NetworkAction, NetworkInfo, NetworkSpec, PortRequest, SandboxInfo,
    SandboxSpec,
};
use portolan_netcore::model::{Network, SandboxId, SandboxMode};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::container::record::{Container, Definition, Joined, Record};
use crate::engine::{Engine, Inner, to_the_end};
use crate::error::{EngineError, ErrorKind, Result};
use crate::model::{
    Bindings, ContainerPort, EndpointSettings, EventType, Filters, HostPort, NetworkMode, Status,
};
use crate::time::parse_until;

/// The ports to publish: what `-p` says, and with `-P` every exposed port that it does not name.
pub(crate) fn port_requests(definition: &Definition) -> Vec<PortRequest> {
    let bindings = &definition.host_config.port_bindings;
    let exposed = definition.config.exposed_ports.keys().filter(|port| !bindings.contains(*port));
    let publish_all = definition.host_config.publish_all_ports;
    requests_for(definition, bindings, publish_all, bindings.keys().chain(exposed))
}

/// What these of a container's ports are to be published as, when it has these bindings and publishes all others
/// that it exposes, or not.
pub(crate) fn requests_for<'a>(
    definition: &Definition,
    bindings: &Bindings,
    publish_all: bool,
    ports: impl IntoIterator<Item = &'a ContainerPort>,
) -> Vec<PortRequest> {
    let (config, host) = (&definition.config, &definition.host_config);
    let publishes = !matches!(host.network_mode, NetworkMode::Host | NetworkMode::Container(_));
    if !publishes || config.network_disabled {
        return Vec::new();
    }
    // One look for all of them, of which there may be thousands. They were checked when the container was made.
    let labelled = crate::port_labels::sources(&config.labels).unwrap_or_default();
    let request = |port: &ContainerPort, to: &HostPort| PortRequest {
        proto: port.proto,
        container_port: port.port,
        host_ip: to.ip,
        host_ports: to.ports,
        from: match labelled.get(port).filter(|_| to.from.is_empty()) {
            Some(labelled) => labelled.clone(),
            None => to.from.clone(),
        },
    };
    let mut requests = Vec::new();
    for port in ports {
        match bindings.get(port).filter(|hosts| !hosts.is_empty()) {
            Some(hosts) => requests.extend(hosts.iter().map(|to| request(port, to))),
            None if publish_all && config.exposed_ports.contains(port) => {
                requests.push(request(port, &HostPort::default()));
            }
            None => {}
        }
    }
    requests
}

/// The names that the embedded resolver answers with this container's address on a user-defined network:
/// name, aliases, short id, host name; each once.
pub(crate) fn dns_names(definition: &Definition, settings: &EndpointSettings) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let own = [definition.name.clone()].into_iter();
    let rest = [definition.id.short().to_owned(), definition.config.hostname.clone()];
    own.chain(settings.aliases.iter().cloned())
        .chain(rest)
        .filter(|name| !name.is_empty() && seen.insert(name.clone()))
        .collect()
}

/// One of the networks that are always there.
pub(crate) fn is_predefined(network: &str) -> bool {
    matches!(network, "bridge" | "host" | "none")
}

pub(crate) fn attach_spec(definition: &Definition, network: &str, joined: &Joined) -> AttachSpec {
    let settings = &joined.settings;
    let predefined = is_predefined(network);
    // On the default bridge they count only if the daemon is told to answer them.
    let nameless = matches!(network, "host" | "none");
    let links = settings.links.iter().map(|link| {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        (alias.to_owned(), name.trim_start_matches('/').to_owned())
    });
    AttachSpec {
        network: network.to_owned(),
        container_name: definition.name.clone(),
        ipv4: settings.ipv4,
        ipv6: settings.ipv6,
        link_local: settings.link_local_ips.clone(),
        mac: settings.mac,
        dns_names: if nameless { Vec::new() } else { dns_names(definition, settings) },
        links: if predefined { BTreeMap::new() } else { links.collect() },
        driver_opts: settings.driver_opts.clone(),
        gw_priority: settings.gw_priority,
        hostname: definition.config.hostname.clone(),
    }
}

impl Engine {
    /// What the networks are asked for when the container starts.
    ///
    /// # Errors
    /// A link names a container that does not exist.
    pub(crate) async fn sandbox_spec(&self, definition: &Definition) -> Result<SandboxSpec> {
        let host = &definition.host_config;
        let primary = host.network_mode.network_name().unwrap_or("none");
        let mut attach: Vec<AttachSpec> = Vec::new();
        if definition.config.network_disabled {
            attach.push(attach_spec(definition, "none", &Joined::default()));
        } else {
            let by_name = definition.endpoints.contains_key(primary);
            let is_primary = |(name, joined): &(&String, &Joined)| match by_name {
                true => *name == primary,
                false => joined.network.as_ref().is_some_and(|id| id.as_str().starts_with(primary)),
            };
            let mut endpoints: Vec<_> = definition.endpoints.iter().collect();
            if let NetworkMode::Network(mode) = &host.network_mode
                && !endpoints.iter().any(is_primary)
            {
                // It joins others than `NetworkMode` says; one that does not exist is a mistake all the same.
                let what = format!("could not find a network matching network mode {mode}");
                let found = self.inner.networks.find(mode).await;
                found.map_err(|error| EngineError::from(error).context(what))?;
            }
            // The network of `--network` is eth0, the others follow as they were given.
            endpoints.sort_by_key(|found| (!is_primary(found), found.1.position, found.0.clone()));
            attach.extend(endpoints.into_iter().map(|(name, joined)| attach_spec(definition, name, joined)));
        }
        // One that is not there may come, and is found then: the name is looked up when somebody asks.
        for (_, name) in attach.iter_mut().flat_map(|spec| &mut spec.links) {
            if let Ok(other) = self.inner.containers.find(name) {
                *name = other.name();
            }
        }
        let ndots = host.dns_options.iter().find_map(|option| option.strip_prefix("ndots:")?.parse().ok());
        Ok(SandboxSpec {
            container: definition.id.clone(),
            mode: if host.network_mode == NetworkMode::Host {
                SandboxMode::Host
            } else {
                SandboxMode::Private
            },
            sysctls: host
                .sysctls
                .iter()
                .filter(|(key, _)| key.starts_with("net."))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            attach,
            ports: port_requests(definition),
            dns: host.dns.clone(),
            ndots,
            exposed: definition.config.exposed_ports.keys().map(|port| (port.proto, port.port)).collect(),
        })
    }

    /// `POST /networks/create`.
    ///
    /// # Errors
    /// As [`portolan_net::Networks::create`].
    pub async fn network_create(&self, spec: NetworkSpec) -> Result<Network> {
        Ok(self.inner.networks.create(spec).await?)
    }

    /// Changes the resolvers that a network's containers ask for names outside, at once.
    ///
    /// # Errors
    /// As [`portolan_net::Networks::update_dns`].
    pub async fn network_update_dns(&self, reference: &str, update: DnsUpdate) -> Result<()> {
        Ok(self.inner.networks.update_dns(reference, update).await?)
    }

    /// `DELETE /networks/{id}`.
    ///
    /// # Errors
    /// `Forbidden` for a predefined network and for one with endpoints; `NotFound`.
    pub async fn network_remove(&self, reference: &str) -> Result<()> {
        self.inner.networks.remove(reference).await?;
        Ok(())
    }

    /// `GET /networks/{id}`.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for a prefix that fits several.
    pub async fn network_inspect(&self, reference: &str) -> Result<NetworkInfo> {
        Ok(self.inner.networks.find(reference).await?)
    }

    /// `GET /networks`. Filters: `driver`, `type`, `name`, `id`, `label`, `scope`, `dangling`.
    ///
    /// # Errors
    /// An unknown filter, or an impossible value of one.
    pub async fn network_list(&self, filters: Filters) -> Result<Vec<NetworkInfo>> {
        filters.check_keys(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = dangling(&filters)?;
        if let Some(bad) = filters
            .values("type")
            .and_then(|v| v.iter().find(|v| !matches!(v.as_str(), "builtin" | "custom")))
        {
            return Err(EngineError::invalid(format!("invalid filter: 'type'='{bad}'")));
        }
        let (names, ids) = (filters.expressions("name"), filters.expressions("id"));
        let mut networks = self.inner.networks.list().await?;
        networks.retain(|info| {
            let network = &info.network;
            filters.exact("driver", network.driver.name())
                && filters.exact("scope", "local")
                && filters.exact("type", if network.predefined { "builtin" } else { "custom" })
                && names.find(&[&network.name])
                && ids.find(&[network.id.as_str()])
                && filters.labels_match(&network.labels)
                && dangling.is_none_or(|wanted| (!network.predefined && info.endpoints.is_empty()) == wanted)
        });
        Ok(networks)
    }

    /// `POST /networks/prune`. Names. Filters: `label`, `label!`, `until`. As in Docker, a network that only
    /// stopped containers refer to is unused; they do not start without it.
    ///
    /// # Errors
    /// An unknown filter, or a time that cannot be understood.
    pub async fn network_prune(&self, filters: Filters) -> Result<Vec<String>> {
        filters.check_keys(&["label", "label!", "until"])?;
        let until = parse_until(&filters)?;
        let unwanted = move |network: &Network| {
            filters.labels_match(&network.labels)
                && until.is_none_or(|until| i128::from(network.created_ns) <= until.as_nanosecond())
        };
        let removed = self.inner.networks.prune(unwanted).await?;
        self.inner.events.publish(
            EventType::Network,
            "prune",
            "",
            BTreeMap::from([("reclaimed".into(), "0".into())]),
        );
        Ok(removed.into_iter().map(|network| network.name).collect())
    }

    /// `POST /networks/{id}/connect`.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` if it is there already, or if either side cannot be connected.
    pub async fn network_connect(
        &self,
        network: &str,
        container: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let container = self.inner.containers.find(container)?;
        let (engine, network) = (self.clone(), network.to_owned());
        to_the_end(async move { engine.connect(&container, &network, settings).await }).await
    }

    async fn connect(
        &self,
        container: &Arc<Container>,
        network: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let _turn = container.turn().await?;
        let found = self.inner.networks.find(network).await?.network;
        let mut definition = container.with(|record| record.definition.clone());
        check_connectable(&definition, &found)?;
        if definition.endpoints.contains_key(&found.name) {
            let running = container.with(|r| r.sandbox.is_some());
            if running {
                return Err(EngineError::new(
                    ErrorKind::Forbidden,
                    format!(
                        "endpoint with name {} already exists in network {}",
                        definition.name, found.name
                    ),
                ));
            }
        }
        let last = definition.endpoints.values().map(|joined| joined.position).max();
        let position = last.map_or(0, |last| last.saturating_add(1));
        let joined = Joined { network: Some(found.id.clone()), settings, position };
        let spec = attach_spec(&definition, &found.name, &joined);
        definition.endpoints.insert(found.name.clone(), joined);
        let sandbox = container.with(|record| record.sandbox.clone());
        match sandbox {
            Some(before) => {
                let after = self.inner.networks.connect(&before.id, spec).await?;
                container.with(|record| record.sandbox = Some(after.clone()));
                self.refresh_after_change(&definition, &before, &after).await;
            }
            None => {
                self.inner.networks.reserve(&container.id, spec).await?;
            }
        }
        self.replace_endpoints(container, definition).await
    }

    /// The network is changed: what a container has written into its files is no reason to say that it is not.
    async fn refresh_after_change(&self, definition: &Definition, before: &SandboxInfo, after: &SandboxInfo) {
        if let Err(error) = self.refresh_files(definition, before, after).await {
            tracing::warn!(container = %definition.id, %error, "bring the files of a container up to date");
        }
    }

    /// `POST /networks/{id}/disconnect`.
    ///
    /// # Errors
    /// `NotFound`; as in Docker `Internal` if it is not on that network.
    pub async fn network_disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let found = self.inner.containers.find(container);
        let (engine, network) = (self.clone(), network.to_owned());
        match found {
            Ok(container) => to_the_end(async move { engine.disconnect(&container, &network).await }).await,
            Err(error) if force => {
                // An endpoint whose container is gone.
                let info = self.inner.networks.find(&network).await?;
                let stale = info.endpoints.into_iter().find(|endpoint| endpoint.container_name == container);
                match stale {
                    Some(endpoint) => Ok(self.inner.networks.drop_endpoint(&endpoint.id).await?),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn disconnect(&self, container: &Arc<Container>, network: &str) -> Result<()> {
        let _turn = container.turn().await?;
        let found = self.inner.networks.find(network).await?.network;
        let mut definition = container.with(|record| record.definition.clone());
        if definition.host_config.network_mode == NetworkMode::Host && found.name == "host" {
            return Err(EngineError::new(
                ErrorKind::Forbidden,
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        if definition.endpoints.remove(&found.name).is_none() {
            return Err(EngineError::internal(format!(
                "container {} is not connected to network {}",
                container.id, found.name
            )));
        }
        let sandbox = container.with(|record| record.sandbox.clone());
        match sandbox {
            Some(before) => {
                let after = self.inner.networks.disconnect(&before.id, found.id.as_str()).await?;
                container.with(|record| record.sandbox = Some(after.clone()));
                self.refresh_after_change(&definition, &before, &after).await;
            }
            None => self.inner.networks.unreserve(&container.id, &found.id).await?,
        }
        self.replace_endpoints(container, definition).await
    }

    async fn replace_endpoints(&self, container: &Arc<Container>, definition: Definition) -> Result<()> {
        let write = container.with(|record| {
            record.definition.endpoints = definition.endpoints;
            record.write()
        });
        self.inner.database.commit(vec![write]).await
    }

    /// Makes events of what the networks tell about the host.
    pub(crate) fn forward_host_events(&self) {
        self.forward(
            self.inner.networks.host_events(),
            "the host",
            |inner, event: portolan_net::HostEvent| {
                inner.events.publish(EventType::Daemon, event.action, inner.id.clone(), event.attributes);
            },
        );
    }

    /// How often the host's networking had to be put right.
    pub fn network_healing(&self) -> portolan_net::Healing {
        self.inner.networks.healing()
    }

    /// Makes events of what the networks tell.
    pub(crate) fn forward_network_events(&self) {
        self.forward(self.inner.networks.events(), "networks", |inner, event: portolan_net::NetworkEvent| {
            let mut attributes = BTreeMap::from([
                ("name".to_owned(), event.name.clone()),
                ("type".to_owned(), event.driver.to_owned()),
            ]);
            if let Some(container) = &event.container {
                attributes.insert("container".to_owned(), container.to_string());
            }
            if let Some(route) = &event.route {
                attributes.insert("route".to_owned(), route.to_string());
            }
            let action: NetworkAction = event.action;
            let network = event.network.to_string();
            inner.events.publish(EventType::Network, action.as_str(), network, attributes);
        });
    }

    /// Brings a container up to date when a DHCP server changes what it lends to it.
    pub(crate) fn follow_leases(&self) {
        let mut changes = self.inner.networks.lease_changes();
        // Weak: the follower must not keep the engine.
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                let changed = match changes.recv().await {
                    Ok(sandbox) => Some(sandbox),
                    // Any of them may have been missed.
                    Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => return,
                };
                let Some(inner) = inner.upgrade() else { return };
                (Engine { inner }).refresh_lent(changed.as_ref()).await;
            }
        });
    }

    /// Takes over what is lent to the containers in a sandbox, or in any if none is named.
    async fn refresh_lent(&self, sandbox: Option<&SandboxId>) {
        for container in self.inner.containers.all() {
            let concerned = |record: &mut Record| {
                record.sandbox.as_ref().is_some_and(|info| sandbox.is_none_or(|id| info.id == *id))
            };
            if !container.with(concerned) {
                continue;
            }
            if let Err(error) = self.refresh_lent_to(&container).await {
                tracing::warn!(container = %container.id, %error, "bring the addresses of a container up to date");
            }
        }
    }

    async fn refresh_lent_to(&self, container: &Arc<Container>) -> Result<()> {
        let _turn = container.gate.lock().await;
        let (definition, sandbox) = container.with(|r| (r.definition.clone(), r.sandbox.clone()));
        // It may have stopped meanwhile.
        let Some(before) = sandbox else { return Ok(()) };
        let Some(after) = self.inner.networks.sandbox(&before.id).await? else { return Ok(()) };
        container.with(|record| record.sandbox = Some(after.clone()));
        if matches!(definition.host_config.network_mode, NetworkMode::Container(_)) {
            // The files are the other's.
            return Ok(());
        }
        self.refresh_files(&definition, &before, &after).await
    }

    /// Hands on what is told about `what` until its end or the engine's.
    fn forward<T: Clone + Send + 'static>(
        &self,
        mut told: broadcast::Receiver<T>,
        what: &'static str,
        publish: impl Fn(&Inner, T) + Send + 'static,
    ) {
        // Weak: the forwarder must not keep the engine.
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                let event = match told.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "events of {what} were missed");
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                };
                let Some(inner) = inner.upgrade() else { return };
                publish(&inner, event);
            }
        });
    }
}

/// The filter `dangling`, with Docker's errors.
fn dangling(filters: &Filters) -> Result<Option<bool>> {
    let Some(values) = filters.values("dangling") else { return Ok(None) };
    match values.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["0" | "false"] => Ok(Some(false)),
        ["1" | "true"] => Ok(Some(true)),
        [_] => Err(EngineError::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )),
        _ => Err(EngineError::invalid("got more than one value for filter key \"dangling\"")),
    }
}

fn check_connectable(definition: &Definition, network: &Network) -> Result<()> {
    let forbidden = |text: &str| Err(EngineError::new(ErrorKind::Forbidden, text));
    match &definition.host_config.network_mode {
        NetworkMode::Container(_) => forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        NetworkMode::Host => forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        NetworkMode::None if network.name != "none" && definition.endpoints.contains_key("none") => {
            forbidden(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            )
        }
        _ if network.name == "host" => forbidden(
            "cannot connect container to host network - container must be created in host network mode",
        ),
        _ if network.name == "none" && !definition.endpoints.is_empty() => forbidden(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        _ => Ok(()),
    }
}

/// What `inspect` shows as ports while it runs: every exposed port, with its bindings. None where nothing
/// could be published, as in Docker: no network is the gateway, or it is not one of bridges.
pub(crate) fn shown_ports(
    definition: &Definition,
    sandbox: Option<&SandboxInfo>,
    status: Status,
) -> BTreeMap<ContainerPort, Vec<portolan_netcore::model::PortBinding>> {
    let mut ports = BTreeMap::new();
    if !status.is_running() {
        return ports;
    }
    let Some(sandbox) = sandbox else { return ports };
    // Others have no end of a link on the host.
    let leads_in =
        |info: &EndpointInfo| info.endpoint.is_gateway && info.endpoint.host_ifname.as_str() != "lo";
    if !sandbox.endpoints.iter().any(leads_in) {
        return ports;
    }
    for port in definition.config.exposed_ports.keys().chain(definition.host_config.port_bindings.keys()) {
        ports.entry(*port).or_insert_with(Vec::new);
    }
    for binding in sandbox.ports.keys() {
        let port = ContainerPort { port: binding.container_port, proto: binding.proto };
        ports.entry(port).or_insert_with(Vec::new).push(binding.clone());
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::registry::tests::container;

    #[test]
    fn ports_to_publish() {
        let container = container("ab", "web");
        let mut definition = container.with(|r| r.definition.clone());
        for port in ["80/tcp", "53/udp"] {
            definition.config.exposed_ports.insert(port.parse().unwrap(), ());
        }
        definition.host_config.port_bindings.insert("80/tcp".parse().unwrap(), vec![HostPort::default(); 2]);
        assert_eq!(port_requests(&definition).len(), 2);
        definition.host_config.publish_all_ports = true;
        let ports: Vec<u16> = port_requests(&definition).iter().map(|r| r.container_port).collect();
        assert_eq!(ports, [80, 80, 53]);
        definition.host_config.network_mode = NetworkMode::Host;
        assert!(port_requests(&definition).is_empty());
    }

    #[test]
    fn names_come_once_and_in_order() {
        let container = container("abcdef012345", "web");
        let mut definition = container.with(|r| r.definition.clone());
        definition.config.hostname = "abcdef012345".to_owned();
        let settings =
            EndpointSettings { aliases: vec!["www".into(), "web".into()], ..EndpointSettings::default() };
        assert_eq!(dns_names(&definition, &settings), ["web", "www", "abcdef012345"]);
    }
}

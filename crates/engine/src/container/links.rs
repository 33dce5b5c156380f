//! Variables that tell a container about those it links to on the default bridge. Deprecated for as long as
//! there have been networks of one's own, and still relied upon; named as Docker names them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use portolan_netcore::model::Proto;

use super::record::{Container, Definition};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::files::{links_of, split_link};
use crate::model::{ContainerPort, HostConfig, NetworkMode};

/// What a link's variables are made of.
struct Link<'a> {
    /// `/linker/alias`.
    name: String,
    /// What the variables' names begin with.
    prefix: String,
    address: Ipv4Addr,
    /// The other's own variables.
    env: &'a [String],
    ports: Vec<ContainerPort>,
}

impl Link<'_> {
    fn variables(mut self) -> Vec<String> {
        let prefix = &self.prefix;
        // TCP first, so that ALIAS_PORT is the one most would look for.
        self.ports.sort_by_key(|port| (port.proto != Proto::Tcp, port.proto.to_string(), port.port));
        let mut out = Vec::new();
        if let Some(first) = self.ports.first() {
            out.push(format!("{prefix}_PORT={}", self.url(*first)));
        }
        for port in &self.ports {
            let key = self.key(*port);
            out.push(format!("{key}={}", self.url(*port)));
            out.push(format!("{key}_ADDR={}", self.address));
            out.push(format!("{key}_PORT={}", port.port));
            out.push(format!("{key}_PROTO={}", port.proto));
        }
        for range in self.ports.chunk_by(follows).filter(|range| range.len() > 1) {
            let (start, end) = (range[0], range[range.len() - 1]);
            let key = self.key(start);
            out.push(format!("{key}_START={}", self.url(start)));
            out.push(format!("{key}_PORT_START={}", start.port));
            out.push(format!("{key}_END={}", self.url(end)));
            out.push(format!("{key}_PORT_END={}", end.port));
        }
        out.push(format!("{prefix}_NAME={}", self.name));
        let own = self.env.iter().filter_map(|variable| variable.split_once('='));
        let own = own.filter(|(key, _)| !matches!(*key, "HOME" | "PATH"));
        out.extend(own.map(|(key, value)| format!("{prefix}_ENV_{key}={value}")));
        out
    }

    fn key(&self, port: ContainerPort) -> String {
        format!("{}_PORT_{}_{}", self.prefix, port.port, port.proto.to_string().to_uppercase())
    }

    fn url(&self, port: ContainerPort) -> String {
        format!("{}://{}:{}", port.proto, self.address, port.port)
    }
}

fn follows(a: &ContainerPort, b: &ContainerPort) -> bool {
    a.proto == b.proto && a.port.checked_add(1) == Some(b.port)
}

impl Engine {
    /// The container that a link means: if the one it names is in another's network namespace, that other.
    ///
    /// # Errors
    /// `Invalid`: there is none.
    pub(crate) fn linked(&self, name: &str) -> Result<Arc<Container>> {
        let named = self.inner.containers.find(name).map_err(|error| {
            EngineError::invalid(format!("could not get container for {name}: {}", error.message()))
        })?;
        Ok(self.provider_of(&named).unwrap_or(named))
    }

    /// Whether the links of a container to be made can be: the others exist, and have an address of their own.
    ///
    /// # Errors
    /// `Invalid`, saying why not.
    pub(super) fn check_links(&self, host: &HostConfig) -> Result<()> {
        if matches!(host.network_mode, NetworkMode::Network(_)) {
            return Ok(());
        }
        for link in &host.links {
            let other = self.linked(split_link(link).0)?;
            if other.with(|record| record.definition.host_config.network_mode == NetworkMode::Host) {
                return Err(EngineError::invalid(
                    "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
                ));
            }
        }
        Ok(())
    }

    /// The variables of all links of a container on the default bridge; a target that does not run has none.
    pub(crate) fn link_variables(&self, definition: &Definition) -> Vec<String> {
        let mut out = Vec::new();
        for (name, alias) in links_of(definition) {
            let Ok(other) = self.linked(name) else { continue };
            other.with(|record| {
                let mut endpoints = record.sandbox.iter().flat_map(|info| &info.endpoints);
                let found = endpoints.find(|endpoint| endpoint.network_name == "bridge");
                let Some(address) = found.and_then(|endpoint| endpoint.endpoint.ipv4) else { return };
                let link = Link {
                    name: format!("/{}/{alias}", definition.name),
                    prefix: alias.to_uppercase().replace('-', "_"),
                    address: address.addr(),
                    env: &record.definition.config.env,
                    ports: record.definition.config.exposed_ports.keys().copied().collect(),
                };
                out.extend(link.variables());
            });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_a_link() {
        let link = Link {
            name: "/web/my-db".to_owned(),
            prefix: "MY_DB".to_owned(),
            address: Ipv4Addr::new(172, 17, 0, 5),
            env: &["PATH=/bin".to_owned(), "MODE=fast".to_owned()],
            ports: ["53/udp", "81/tcp", "80/tcp"].iter().map(|port| port.parse().unwrap()).collect(),
        };
        let wanted = "MY_DB_PORT=tcp://172.17.0.5:80
MY_DB_PORT_80_TCP=tcp://172.17.0.5:80
MY_DB_PORT_80_TCP_ADDR=172.17.0.5
MY_DB_PORT_80_TCP_PORT=80
MY_DB_PORT_80_TCP_PROTO=tcp
MY_DB_PORT_81_TCP=tcp://172.17.0.5:81
MY_DB_PORT_81_TCP_ADDR=172.17.0.5
MY_DB_PORT_81_TCP_PORT=81
MY_DB_PORT_81_TCP_PROTO=tcp
MY_DB_PORT_53_UDP=udp://172.17.0.5:53
MY_DB_PORT_53_UDP_ADDR=172.17.0.5
MY_DB_PORT_53_UDP_PORT=53
MY_DB_PORT_53_UDP_PROTO=udp
MY_DB_PORT_80_TCP_START=tcp://172.17.0.5:80
MY_DB_PORT_80_TCP_PORT_START=80
MY_DB_PORT_80_TCP_END=tcp://172.17.0.5:81
MY_DB_PORT_80_TCP_PORT_END=81
MY_DB_NAME=/web/my-db
MY_DB_ENV_MODE=fast";
        assert_eq!(link.variables().join("\n"), wanted);
    }
}

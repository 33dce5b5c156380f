//! What `inspect` and `ps` show of a container.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use portolan_netcore::model::ContainerId;

use super::record::{Container, Record};
use super::security;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::files::links_of;
use crate::model::{ContainerSnapshot, EndpointSnapshot, NetworkSnapshot};
use crate::network::{dns_names, is_predefined, shown_ports};

impl Engine {
    /// `GET /containers/{id}/json`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container_inspect(&self, name: &str, size: bool) -> Result<ContainerSnapshot> {
        let container = self.inner.containers.find(name)?;
        let mut snapshot = self.snapshot(&container);
        snapshot.graph_driver = self.graph_driver(&container);
        let definition = container.with(|record| record.definition.clone());
        let [resolv_conf, hostname, hosts] = self.file_paths(&definition);
        snapshot.resolv_conf_path = resolv_conf;
        snapshot.hostname_path = hostname;
        snapshot.hosts_path = hosts;
        if size {
            self.add_size(&mut snapshot).await?;
        }
        Ok(snapshot)
    }

    /// Everything that is in memory: no file is looked at.
    pub(crate) fn snapshot(&self, container: &Arc<Container>) -> ContainerSnapshot {
        let mut snapshot = container.with(|record| of_record(record));
        if !snapshot.host_config.links.is_empty() {
            snapshot.host_config.links = self.shown_links(container);
        }
        let host = &snapshot.host_config;
        let asked = security::security_options(&host.security_opt, false).unwrap_or_default().apparmor;
        snapshot.apparmor_profile = self.inner.apparmor.shown(&asked, host.privileged);
        if snapshot.host_config.log_config.driver == "json-file" {
            snapshot.log_path = Some(self.log_path(&container.id));
        }
        snapshot
    }

    /// Links on the default bridge as Docker shows them: `/other:/own/alias`. Those of other networks are shown
    /// with their endpoints.
    fn shown_links(&self, container: &Container) -> Vec<String> {
        let definition = container.with(|record| record.definition.clone());
        let shown = links_of(&definition).filter_map(|(name, alias)| {
            let other = self.linked(name).ok()?;
            Some(format!("/{}:/{}/{alias}", other.name(), definition.name))
        });
        shown.collect()
    }

    /// What containers are called by those that link to them: `own/alias`, by id.
    pub(crate) fn link_names(&self) -> BTreeMap<ContainerId, Vec<String>> {
        let mut names: BTreeMap<ContainerId, Vec<String>> = BTreeMap::new();
        for container in self.inner.containers.all() {
            let linker = container.with(|record| {
                let links = !record.definition.host_config.links.is_empty();
                links.then(|| record.definition.clone())
            });
            let Some(linker) = linker else { continue };
            for (name, alias) in links_of(&linker) {
                if let Ok(other) = self.linked(name) {
                    names.entry(other.id.clone()).or_default().push(format!("{}/{alias}", linker.name));
                }
            }
        }
        names
    }

    pub(crate) async fn add_size(&self, snapshot: &mut ContainerSnapshot) -> Result<()> {
        let (images, id) = (self.inner.images.clone(), snapshot.id.to_string());
        let size = blocking(move || Ok(images.rootfs_size(&id)?)).await?;
        snapshot.size_rw = Some(size.writable);
        snapshot.size_root_fs = Some(size.total);
        Ok(())
    }

    fn graph_driver(&self, container: &Container) -> BTreeMap<String, String> {
        let Ok(rootfs) = self.inner.images.rootfs(container.id.as_str()) else { return BTreeMap::new() };
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        BTreeMap::from([
            ("LowerDir".to_owned(), rootfs.lower.iter().map(text).collect::<Vec<_>>().join(":")),
            ("MergedDir".to_owned(), text(&rootfs.target)),
            ("UpperDir".to_owned(), text(&rootfs.upper)),
            ("WorkDir".to_owned(), text(&rootfs.work)),
        ])
    }
}

fn of_record(record: &Record) -> ContainerSnapshot {
    let definition = &record.definition;
    let (path, args) = definition
        .args
        .split_first()
        .map_or((String::new(), Vec::new()), |(path, args)| (path.clone(), args.to_vec()));
    ContainerSnapshot {
        id: definition.id.clone(),
        name: definition.name.clone(),
        created: definition.created,
        path,
        args,
        state: record.state.shown.clone(),
        image_id: definition.image_id.clone(),
        config: definition.config.clone(),
        host_config: definition.host_config.clone(),
        network: network(record),
        link_names: Vec::new(),
        mounts: definition.mounts.clone(),
        restart_count: record.state.restart_count,
        log_path: None,
        resolv_conf_path: None,
        hostname_path: None,
        hosts_path: None,
        exec_ids: record.execs.iter().cloned().collect(),
        apparmor_profile: String::new(),
        graph_driver: BTreeMap::new(),
        size_rw: None,
        size_root_fs: None,
    }
}

fn network(record: &Record) -> NetworkSnapshot {
    let definition = &record.definition;
    let sandbox = record.sandbox.as_ref();
    let endpoints = definition.endpoints.iter().map(|(name, joined)| {
        let info = sandbox.and_then(|s| s.endpoints.iter().find(|e| e.network_name == *name));
        let predefined = is_predefined(name);
        EndpointSnapshot {
            predefined,
            network_name: name.clone(),
            network_id: info.map(|info| info.endpoint.network.clone()).or_else(|| joined.network.clone()),
            settings: joined.settings.clone(),
            endpoint: info.map(|info| info.endpoint.clone()),
            dns_names: if predefined { Vec::new() } else { dns_names(definition, &joined.settings) },
        }
    });
    let bridge = sandbox.and_then(|s| s.endpoints.iter().find(|e| e.network_name == "bridge"));
    NetworkSnapshot {
        sandbox_id: sandbox.map(|s| s.id.clone()),
        sandbox_key: sandbox.and_then(|s| s.netns.clone()),
        endpoints: endpoints.collect(),
        ports: shown_ports(definition, sandbox, record.state.shown.status),
        default_gateway: bridge.and_then(|info| info.endpoint.gateway_ipv4).map(IpAddr::from),
    }
}

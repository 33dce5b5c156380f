//! The files that the engine writes for a container: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//!
//! They live in the container's directory, are bind-mounted, and so are always changed in place. They are
//! made anew at each start: losing them in a crash loses nothing, so nothing is synced.

mod follow;
pub(crate) mod hosts;
pub(crate) mod resolv;

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hosts::HostLine;
use portolan_net::{EndpointInfo, SandboxInfo};
use portolan_netcore::model::ContainerId;
use resolv::{Overrides, ResolvConf};

use crate::container::record::Definition;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::model::{NetworkMode, Status};

const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";
const RESOLV_CONF: &str = "resolv.conf";
/// Where systemd-resolved keeps the real servers when `/etc/resolv.conf` names only itself.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// A file that names the host's resolvers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct HostFile {
    path: PathBuf,
    text: String,
}

/// What is to be mounted: file inside, file on the host.
pub(crate) type Mounted = Vec<(&'static str, PathBuf)>;

/// What a container's files shall hold.
#[derive(Debug)]
pub(crate) enum Content {
    /// `container:X`: X's own files, in this directory.
    Shared(PathBuf),
    /// Its own.
    Own { hosts: String, hostname: String, resolv_conf: String },
}

impl Content {
    /// Writes the files into the container's directory. What is to be mounted. Blocks.
    pub(crate) fn write(self, directory: &Path) -> Result<Mounted> {
        let directory = match self {
            Self::Shared(directory) => directory,
            Self::Own { hosts, hostname, resolv_conf } => {
                for (name, text) in [(HOSTS, hosts), (HOSTNAME, hostname), (RESOLV_CONF, resolv_conf)] {
                    write_in_place(&directory.join(name), &text)?;
                }
                directory.to_owned()
            }
        };
        Ok(vec![
            ("/etc/resolv.conf", directory.join(RESOLV_CONF)),
            ("/etc/hostname", directory.join(HOSTNAME)),
            ("/etc/hosts", directory.join(HOSTS)),
        ])
    }
}

/// Keeps the inode: the file is bind-mounted in the container.
fn write_in_place(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .map_err(|error| EngineError::internal(format!("write {}: {error}", path.display())))
}

/// Most of a file that a container can write to which the daemon reads, bytes: as much as anybody needs.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a file that a container can write to: it may hold anything, and any amount of it.
fn read_shared(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?;
    if length as u64 == MOST_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "too long to be looked into"));
    }
    Ok(text)
}

impl Engine {
    /// What the files of a container that is about to start shall hold.
    ///
    /// # Errors
    /// `host-gateway` or a link cannot be resolved.
    pub(crate) async fn file_contents(
        &self,
        definition: &Definition,
        sandbox: Option<&SandboxInfo>,
    ) -> Result<Content> {
        let (config, host) = (&definition.config, &definition.host_config);
        if let NetworkMode::Container(of) = &host.network_mode {
            let owner = self.provider(of).ok_or_else(|| {
                EngineError::not_found(format!(
                    "the container whose network namespace container {of} is in is gone"
                ))
            })?;
            return Ok(Content::Shared(self.directory(owner.id.as_str())));
        }
        let gateways = self.host_gateways(&host.extra_hosts).await;
        let mut lines = hosts::extra_hosts(&host.extra_hosts, &gateways)?;
        lines.extend(self.link_lines(definition)?);
        let names = hosts::own_names(&config.hostname, &config.domainname);
        lines.extend(sandbox.iter().flat_map(|info| own_lines(&info.endpoints, &names)));
        let on_host = host.network_mode == NetworkMode::Host;
        let base = if on_host { std::fs::read_to_string("/etc/hosts").ok() } else { None };
        Ok(Content::Own {
            hosts: hosts::render(base.as_deref(), &lines),
            hostname: format!("{}\n", config.hostname),
            resolv_conf: self.resolv_conf(definition, sandbox),
        })
    }

    /// The text of resolv.conf, for the networks that the sandbox has now.
    fn resolv_conf(&self, definition: &Definition, sandbox: Option<&SandboxInfo>) -> String {
        self.resolv_conf_of(&self.host_resolv_conf(), definition, sandbox)
    }

    /// The same, for a host that has these resolvers.
    fn resolv_conf_of(
        &self,
        HostFile { path, text }: &HostFile,
        definition: &Definition,
        sandbox: Option<&SandboxInfo>,
    ) -> String {
        let (host, config) = (&definition.host_config, &self.inner.config);
        let (lent, lent_servers) = (lent_domains(sandbox), lent_servers(sandbox));
        let overrides = Overrides {
            nameservers: own_or(&host.dns, own_or(&lent_servers, &config.dns)),
            search: own_or(&host.dns_search, own_or(&lent, &config.dns_search)),
            options: own_or(&host.dns_options, &config.dns_options),
        };
        if host.network_mode == NetworkMode::Host && overrides == Overrides::default() {
            return text.clone();
        }
        let mut conf = ResolvConf::parse(text, &path.to_string_lossy());
        conf.override_with(&overrides);
        match sandbox {
            Some(info) if info.embedded_dns => conf.for_embedded(),
            _ if host.network_mode == NetworkMode::Host => {}
            info => {
                let ipv6 = info.is_some_and(|i| i.endpoints.iter().any(|e| e.endpoint.ipv6.is_some()));
                conf.for_plain(ipv6);
            }
        }
        conf.render()
    }

    /// The host's resolvers as they are now.
    fn host_resolv_conf(&self) -> HostFile {
        let path = self.inner.config.host_resolv_conf.clone();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if ResolvConf::parse(&text, "").nameservers == [IpAddr::from([127, 0, 0, 53])]
            && let Ok(text) = std::fs::read_to_string(RESOLVED_CONF)
        {
            return HostFile { path: RESOLVED_CONF.into(), text };
        }
        HostFile { path, text }
    }

    /// What `host-gateway` stands for.
    async fn host_gateways(&self, extra_hosts: &[String]) -> Vec<IpAddr> {
        if !extra_hosts.iter().any(|entry| entry.ends_with("host-gateway")) {
            return Vec::new();
        }
        if !self.inner.config.host_gateway_ips.is_empty() {
            return self.inner.config.host_gateway_ips.clone();
        }
        match self.inner.networks.find("bridge").await {
            Ok(info) => info.network.ipam.iter().filter_map(|ipam| ipam.gateway).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Links on the default bridge: the other's address by alias, short id and name.
    fn link_lines(&self, definition: &Definition) -> Result<Vec<HostLine>> {
        let mut lines = Vec::new();
        for link in links_of(definition) {
            lines.extend(self.link_line(definition, link)?);
        }
        Ok(lines)
    }

    fn link_line(&self, definition: &Definition, (name, alias): (&str, &str)) -> Result<Option<HostLine>> {
        let other = self.linked(name)?;
        other.with(|record| {
            let other_name = record.definition.name.clone();
            if record.state.shown.status != Status::Running {
                return Err(EngineError::internal(format!(
                    "Cannot link to a non running container: /{other_name} AS /{}/{alias}",
                    definition.name
                )));
            }
            let mut endpoints = record.sandbox.iter().flat_map(|info| &info.endpoints);
            let Some(on_bridge) = endpoints.find(|e| e.network_name == "bridge") else {
                return Err(EngineError::internal(format!(
                    "container {} not attached to default bridge network",
                    other.id
                )));
            };
            let address = on_bridge.endpoint.ipv4;
            let mut names = format!("{alias} {}", record.definition.config.hostname);
            if alias != other_name {
                names.push_str(&format!(" {other_name}"));
            }
            Ok(address.map(|net| HostLine { address: net.addr().into(), names }))
        })
    }

    /// A container got an address on the default bridge: those that run and link to it learn it.
    pub(crate) async fn refresh_links_to(&self, target: &ContainerId) {
        for container in self.inner.containers.all() {
            let definition = container.with(|record| {
                let runs = record.state.shown.status.is_running();
                (runs && links_of(&record.definition).next().is_some()).then(|| record.definition.clone())
            });
            let Some(definition) = definition else { continue };
            if !links_of(&definition).any(|(name, _)| self.is_container(name, target)) {
                continue;
            }
            if let Err(error) = self.rewrite_links(&definition).await {
                tracing::warn!(container = %container.id, %error, "bring the links of a container up to date");
            }
        }
    }

    fn is_container(&self, name: &str, id: &ContainerId) -> bool {
        self.linked(name).is_ok_and(|found| found.id == *id)
    }

    async fn rewrite_links(&self, definition: &Definition) -> Result<()> {
        let mut now = Vec::new();
        for link in links_of(definition) {
            // Another of its targets may be at rest: its line stays as it is.
            now.extend(self.link_line(definition, link).ok().flatten());
        }
        let path = self.directory(definition.id.as_str()).join(HOSTS);
        blocking(move || {
            let text = read_shared(&path)
                .map_err(|error| EngineError::internal(format!("read {}: {error}", path.display())))?;
            let edited = readdress(&text, &now);
            if edited == text { Ok(()) } else { write_in_place(&path, &edited) }
        })
        .await
    }

    /// Brings the files of a running container up to date after its networks changed: lines of addresses come
    /// and go in `/etc/hosts`, whatever else was written there; resolv.conf is left alone once edited.
    pub(crate) async fn refresh_files(
        &self,
        definition: &Definition,
        before: &SandboxInfo,
        after: &SandboxInfo,
    ) -> Result<()> {
        let names = hosts::own_names(&definition.config.hostname, &definition.config.domainname);
        let (old, new) = (own_lines(&before.endpoints, &names), own_lines(&after.endpoints, &names));
        let render = |line: &HostLine| format!("{}\t{}", line.address, line.names);
        let gone: Vec<String> = old.iter().filter(|line| !new.contains(line)).map(render).collect();
        let come: Vec<String> = new.iter().filter(|line| !old.contains(line)).map(render).collect();
        let (expected, wanted) =
            (self.resolv_conf(definition, Some(before)), self.resolv_conf(definition, Some(after)));
        let directory = self.directory(definition.id.as_str());
        blocking(move || {
            let path = directory.join(HOSTS);
            let text = read_shared(&path)
                .map_err(|error| EngineError::internal(format!("read {}: {error}", path.display())))?;
            let edited = edit_lines(&text, &gone, &come);
            if edited != text {
                write_in_place(&path, &edited)?;
            }
            let path = directory.join(RESOLV_CONF);
            if expected != wanted && read_shared(&path).is_ok_and(|text| text == expected) {
                write_in_place(&path, &wanted)?;
            }
            Ok(())
        })
        .await
    }

    /// Paths for inspect: resolv.conf, hostname, hosts; none before the first start.
    pub(crate) fn file_paths(&self, definition: &Definition) -> [Option<PathBuf>; 3] {
        let directory = match &definition.host_config.network_mode {
            NetworkMode::Container(of) => {
                let owner = self.provider(of);
                self.directory(owner.as_ref().map_or(of.as_str(), |owner| owner.id.as_str()))
            }
            _ => self.directory(definition.id.as_str()),
        };
        [RESOLV_CONF, HOSTNAME, HOSTS].map(|name| Some(directory.join(name)).filter(|path| path.exists()))
    }
}

/// The domains that DHCP servers lend, in the order of the interfaces.
fn lent_domains(sandbox: Option<&SandboxInfo>) -> Vec<String> {
    let endpoints = sandbox.into_iter().flat_map(|info| &info.endpoints);
    let leases = endpoints.filter_map(|info| info.endpoint.dhcp.as_ref()?.lease.as_ref());
    let mut domains: Vec<String> = Vec::new();
    for domain in leases.flat_map(|lease| &lease.domains) {
        if !domains.contains(domain) {
            domains.push(domain.clone());
        }
    }
    domains
}

/// The resolvers that DHCP servers lend, likewise.
fn lent_servers(sandbox: Option<&SandboxInfo>) -> Vec<IpAddr> {
    let endpoints = sandbox.into_iter().flat_map(|info| &info.endpoints);
    let leases = endpoints.filter_map(|info| info.endpoint.dhcp.as_ref()?.lease.as_ref());
    leases.flat_map(|lease| lease.dns.iter().copied().map(IpAddr::V4)).collect()
}

fn own_or<'a, T>(own: &'a [T], daemons: &'a [T]) -> &'a [T] {
    if own.is_empty() { daemons } else { own }
}

fn own_lines(endpoints: &[EndpointInfo], names: &str) -> Vec<HostLine> {
    let addresses = endpoints.iter().flat_map(|info| {
        let ipv4 = info.endpoint.ipv4.map(|net| IpAddr::from(net.addr()));
        let ipv6 = info.endpoint.ipv6.map(|net| IpAddr::from(net.addr()));
        ipv4.into_iter().chain(ipv6)
    });
    addresses.map(|address| HostLine { address, names: names.to_owned() }).collect()
}

/// The links of a container on the default bridge: the other's name, and what it is called here. On networks of
/// one's own, links are the endpoint's.
pub(crate) fn links_of(definition: &Definition) -> impl Iterator<Item = (&str, &str)> {
    let host = &definition.host_config;
    let counts = host.network_mode == NetworkMode::Bridge && definition.endpoints.contains_key("bridge");
    host.links.iter().filter(move |_| counts).map(|link| split_link(link))
}

/// The other's name and what it is called here: `name:alias`, or either alone.
pub(crate) fn split_link(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

/// Gives the lines that have exactly these names these addresses.
fn readdress(text: &str, lines: &[HostLine]) -> String {
    let mut edited = String::with_capacity(text.len());
    for line in text.lines() {
        let names = line.split_once('\t').map(|(_, names)| names);
        match lines.iter().find(|new| Some(new.names.as_str()) == names) {
            Some(new) => edited.push_str(&format!("{}\t{}", new.address, new.names)),
            None => edited.push_str(line),
        }
        edited.push('\n');
    }
    edited
}

/// Takes whole lines out and puts others at the end.
fn edit_lines(text: &str, gone: &[String], come: &[String]) -> String {
    let kept = text.lines().filter(|line| !gone.iter().any(|g| g == line));
    let mut edited = String::with_capacity(text.len());
    for line in kept.chain(come.iter().map(String::as_str)) {
        edited.push_str(line);
        edited.push('\n');
    }
    edited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_go() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n10.0.0.2\tweb mine\n";
        let edited = edit_lines(text, &["10.0.0.2\tweb".to_owned()], &["10.1.0.2\tweb".to_owned()]);
        assert_eq!(edited, "127.0.0.1\tlocalhost\n10.0.0.2\tweb mine\n10.1.0.2\tweb\n");
    }

    #[test]
    fn a_link_gets_its_new_address_and_nothing_else_changes() {
        let text = "127.0.0.1\tlocalhost\n172.17.0.2\tdb web1 web\n172.17.0.2\tdb\n";
        let line = HostLine { address: "172.17.0.9".parse().unwrap(), names: "db web1 web".to_owned() };
        let edited = "127.0.0.1\tlocalhost\n172.17.0.9\tdb web1 web\n172.17.0.2\tdb\n";
        assert_eq!(readdress(text, &[line]), edited);
    }

    #[test]
    fn files_are_changed_in_place() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let write = |hosts: &str| {
            let content = Content::Own {
                hosts: hosts.to_owned(),
                hostname: "h\n".to_owned(),
                resolv_conf: String::new(),
            };
            content.write(directory.path()).unwrap()
        };
        let inode = || std::fs::metadata(directory.path().join(HOSTS)).unwrap().ino();
        write("long old text\n");
        let before = inode();
        write("new\n");
        assert_eq!(inode(), before, "a bind mount shows the inode that it was made of");
        assert_eq!(std::fs::read_to_string(directory.path().join(HOSTS)).unwrap(), "new\n");
    }
}

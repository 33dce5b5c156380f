//! A simulated host with networks on it.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot begin has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use portolan_net::{
    AttachSpec, Error, IpamPoolSpec, Leases, MemoryStore, Names, NetConfig, NetworkSpec, Networks,
    PortRequest, SandboxInfo, SandboxSpec,
};
use portolan_netcore::dns::{Answer, Question, QuestionType, RecordData, ZoneChange, Zones, answer};
use portolan_netcore::model::{
    ContainerId, DhcpLease, EndpointId, IfName, LeaseNews, LeaseRequest, PortRange, Proto, SandboxId,
    SandboxMode,
};
use portolan_netsim::SimHost;

/// A resolver that remembers what it was told.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) zones: Mutex<Zones>,
    pub(crate) serving: Mutex<BTreeSet<SandboxId>>,
    pub(crate) broken: Mutex<bool>,
}

impl Names for Recorder {
    fn change(&self, changes: Vec<ZoneChange>) -> io::Result<()> {
        let mut zones = self.zones.lock().unwrap();
        changes.into_iter().for_each(|change| zones.apply(change));
        Ok(())
    }

    fn serve(&self, sandbox: &SandboxId, _netns: &Path) -> io::Result<(u16, u16)> {
        if *self.broken.lock().unwrap() {
            return Err(io::Error::other("the resolver is away"));
        }
        self.serving.lock().unwrap().insert(sandbox.clone());
        Ok((40_001, 40_002))
    }

    fn stop(&self, sandbox: &SandboxId) {
        self.serving.lock().unwrap().remove(sandbox);
    }
}

impl Recorder {
    /// What a sandbox is told about a name's IPv4 addresses.
    pub(crate) fn ask(&self, sandbox: &SandboxId, name: &str) -> Answer {
        answer(&self.zones.lock().unwrap(), sandbox, &Question { name, kind: QuestionType::A })
    }

    /// The same, where it has one.
    pub(crate) fn address(&self, sandbox: &SandboxId, name: &str) -> Option<String> {
        match self.ask(sandbox, name) {
            Answer::Known(records) => records.first().map(|record| match record {
                RecordData::A(address) => address.to_string(),
                other => format!("{other:?}"),
            }),
            _ => None,
        }
    }
}

type Listener = Box<dyn Fn(LeaseNews) + Send + Sync>;

/// A DHCP server that lends 10.9.0.9, or what a test says.
#[derive(Default)]
pub(crate) struct Lender {
    pub(crate) lease: Mutex<Option<DhcpLease>>,
    pub(crate) log: Mutex<Vec<String>>,
    listener: Mutex<Option<Listener>>,
}

impl std::fmt::Debug for Lender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lender").finish_non_exhaustive()
    }
}

impl Lender {
    pub(crate) fn tell(&self, endpoint: &EndpointId, lease: Option<DhcpLease>) {
        let listener = self.listener.lock().unwrap();
        listener.as_ref().unwrap()(LeaseNews { endpoint: endpoint.clone(), lease });
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }
}

impl Leases for Lender {
    fn listen(&self, listener: Box<dyn Fn(LeaseNews) + Send + Sync>) {
        *self.listener.lock().unwrap() = Some(listener);
    }

    fn acquire(&self, request: LeaseRequest) -> Result<DhcpLease, String> {
        self.note(format!("acquire {} {:?}", request.hostname, request.previous));
        self.lease.lock().unwrap().clone().ok_or_else(|| "no DHCP server answered".to_owned())
    }

    fn resume(&self, _request: LeaseRequest, lease: Option<DhcpLease>) {
        self.note(format!("resume {:?}", lease.map(|lease| lease.address)));
    }

    fn release(&self, _endpoint: &EndpointId) {
        self.note("release".to_owned());
    }
}

pub(crate) struct Lab {
    pub(crate) host: Arc<SimHost>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) names: Arc<Recorder>,
    pub(crate) lender: Arc<Lender>,
    pub(crate) networks: Networks,
}

pub(crate) fn config() -> NetConfig {
    NetConfig {
        exec_root: "/run/lab".into(),
        default_bridge: Some(IfName::new("docker0").unwrap()),
        bip: None,
        bip6: None,
        fixed_cidr: None,
        fixed_cidr_v6: None,
        ipv6: false,
        default_gateway: None,
        default_gateway_v6: None,
        icc: true,
        masquerade: true,
        mtu: None,
        host_binding: None,
        loopback_binding: false,
        address_pools: Vec::new(),
        network_options: Default::default(),
        ip_forward: true,
        firewall: true,
        userland_proxy: true,
        direct_routing: false,
        dns: Vec::new(),
        default_bridge_names: false,
    }
}

impl Lab {
    pub(crate) async fn open() -> Self {
        Self::open_on(Arc::default(), Arc::default()).await.unwrap()
    }

    pub(crate) async fn open_on(host: Arc<SimHost>, store: Arc<MemoryStore>) -> Result<Self, Error> {
        Self::open_with(config(), host, store).await
    }

    pub(crate) async fn open_with(
        config: NetConfig,
        host: Arc<SimHost>,
        store: Arc<MemoryStore>,
    ) -> Result<Self, Error> {
        let names = Arc::new(Recorder::default());
        let lender = Arc::new(Lender::default());
        let networks =
            Networks::open(config, host.clone(), store.clone(), names.clone(), lender.clone()).await?;
        Ok(Self { host, store, names, lender, networks })
    }

    /// The daemon is killed and comes back.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(config()).await.unwrap()
    }

    pub(crate) async fn restart_with(self, config: NetConfig) -> Result<Self, Error> {
        let Self { host, store, names, lender, networks } = self;
        drop((names, lender, networks));
        host.crash();
        Self::open_with(config, host, store).await
    }

    pub(crate) async fn run(
        &self,
        number: u8,
        network: &str,
        ports: Vec<PortRequest>,
    ) -> Result<SandboxInfo, Error> {
        self.networks.create_sandbox(spec(number, network, ports)).await
    }

    pub(crate) async fn user_network(&self, name: &str) {
        self.networks.create(NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() }).await.unwrap();
    }

    /// The steps tried since `from`, without the sandboxes' and endpoints' random names.
    pub(crate) fn log_from(&self, from: usize, info: &SandboxInfo) -> String {
        // Connections of freed addresses are looked for beside all else, at a time of their own.
        let beside = |line: &&String| !line.starts_with("[host] conntrack -D -s");
        let log = self.host.log();
        let lines: Vec<&str> = log[from..].iter().filter(beside).map(String::as_str).collect();
        let mut text = lines.join("\n");
        text = text.replace(info.id.short(), "SANDBOX");
        for (number, endpoint) in info.endpoints.iter().enumerate() {
            text = text.replace(endpoint.endpoint.host_ifname.as_str(), &format!("VETH{number}"));
        }
        text
    }
}

pub(crate) fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

pub(crate) fn attach(number: u8, network: &str) -> AttachSpec {
    AttachSpec {
        network: network.to_owned(),
        container_name: format!("c{number}"),
        dns_names: vec![format!("c{number}"), container(number).short().to_owned()],
        hostname: format!("host{number}"),
        ..AttachSpec::default()
    }
}

pub(crate) fn spec(number: u8, network: &str, ports: Vec<PortRequest>) -> SandboxSpec {
    SandboxSpec {
        container: container(number),
        mode: if network == "host" { SandboxMode::Host } else { SandboxMode::Private },
        sysctls: BTreeMap::new(),
        attach: vec![attach(number, network)],
        ports,
        dns: Vec::new(),
        ndots: None,
        exposed: Vec::new(),
    }
}

pub(crate) fn port(host: Option<(u16, u16)>, container_port: u16) -> PortRequest {
    PortRequest {
        proto: Proto::Tcp,
        container_port,
        host_ip: None,
        host_ports: host.map(|(first, last)| PortRange { first, last }),
        from: Vec::new(),
    }
}

pub(crate) fn pool(subnet: &str) -> IpamPoolSpec {
    IpamPoolSpec { subnet: subnet.to_owned(), ..IpamPoolSpec::default() }
}

pub(crate) fn address(info: &SandboxInfo) -> String {
    info.endpoints[0].endpoint.ipv4.unwrap().to_string()
}

//! One task a lease: it waits for the machine's times, opens a socket for the length of an exchange,
//! and tells what became of the address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portolan_netcore::model::{DhcpLease, EndpointId, LeaseNews, LeaseRequest, MacAddr};
use rand::Rng;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::arp;
use crate::machine::{Ask, Machine, Output};
use crate::message::{self, Identity};
use crate::socket::{Socket, Talk};
use crate::wire;

/// How long a first address may take: a server that pings before it offers takes three seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long giving an address back may take before it is left to its end.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// No address.
#[derive(Debug, thiserror::Error)]
#[error("no DHCP server gave an address to {ifname} within {} s{}", PATIENCE.as_secs(), Because(.cause))]
pub struct LeaseError {
    ifname: String,
    /// What went wrong on this side, if anything did.
    cause: Option<String>,
}

struct Because<'a>(&'a Option<String>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

type Listener = Box<dyn Fn(LeaseNews) + Send + Sync>;

/// All leases of an engine. Calls block, but for [`Dhcp::resume`], and come from threads that may.
pub struct Dhcp {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    /// Dropping the sender lets go of a lease without giving it back.
    tasks: Mutex<BTreeMap<EndpointId, UnboundedSender<Command>>>,
    listener: OnceLock<Listener>,
    clock: Clock,
}

impl fmt::Debug for Dhcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dhcp").finish_non_exhaustive()
    }
}

/// Gives the address back; the sender is told when that is done.
struct Command(mpsc::Sender<()>);

/// Time since the Unix epoch that goes on evenly, whatever is done to the host's clock meanwhile.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    at: Duration,
}

impl Clock {
    fn start() -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), at }
    }

    fn now(&self) -> Duration {
        self.at + self.started.elapsed()
    }
}

/// How the first address came, or did not.
type First = mpsc::Sender<Result<DhcpLease, Option<String>>>;

impl Dhcp {
    /// Leases whose tasks run on this runtime.
    pub fn new(runtime: Handle) -> Self {
        let shared =
            Shared { runtime, tasks: Mutex::default(), listener: OnceLock::new(), clock: Clock::start() };
        Self { shared: Arc::new(shared) }
    }

    /// Whom to tell of leases that change or are lost; only the first listener counts.
    pub fn listen(&self, listener: impl Fn(LeaseNews) + Send + Sync + 'static) {
        let _ = self.shared.listener.set(Box::new(listener));
    }

    /// Gets an address for a link, and keeps it until [`Dhcp::release`] or [`Dhcp::forget`].
    ///
    /// # Errors
    /// No server answered in time. Nothing is kept then.
    pub fn acquire(&self, request: LeaseRequest) -> Result<DhcpLease, LeaseError> {
        let machine = Machine::start(request.previous, chance(), self.shared.clock.now());
        let (endpoint, ifname) = (request.endpoint.clone(), request.ifname.to_string());
        let (first, answered) = mpsc::channel();
        let trouble = self.run(request, machine, Some(first));
        let cause = match answered.recv_timeout(PATIENCE) {
            Ok(Ok(lease)) => return Ok(lease),
            Ok(Err(cause)) => cause,
            Err(_) => lock(&trouble).take(),
        };
        self.forget(&endpoint);
        Err(LeaseError { ifname, cause })
    }

    /// Keeps a lease that an earlier process acquired; without one, asks for it in the background. What
    /// comes of it is told to the listener.
    pub fn resume(&self, request: LeaseRequest, lease: Option<DhcpLease>) {
        let now = self.shared.clock.now();
        let machine = match lease {
            Some(lease) => Machine::resume(lease, chance(), now),
            None => Machine::start(request.previous, chance(), now),
        };
        // Nobody waits to hear of it.
        let _ = self.run(request, machine, None);
    }

    /// Gives an address back: its server has been told when this returns, as far as that is possible.
    /// An endpoint without one is fine.
    pub fn release(&self, endpoint: &EndpointId) {
        let Some(task) = self.tasks().remove(endpoint) else { return };
        let (done, waiting) = mpsc::channel();
        if task.send(Command(done)).is_ok() {
            let _ = waiting.recv_timeout(RELEASE_PATIENCE);
        }
    }

    /// Lets go of a lease without telling its server.
    pub fn forget(&self, endpoint: &EndpointId) {
        self.tasks().remove(endpoint);
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, BTreeMap<EndpointId, UnboundedSender<Command>>> {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, request: LeaseRequest, machine: Machine, first: Option<First>) -> Trouble {
        let (sender, commands) = unbounded_channel();
        self.tasks().insert(request.endpoint.clone(), sender);
        let identity = Identity { client_id: request.client_id.clone(), hostname: request.hostname.clone() };
        let shared = Arc::clone(&self.shared);
        let trouble = Trouble::default();
        let task = Task {
            shared,
            request,
            identity,
            machine,
            socket: None,
            probe: None,
            first,
            told: None,
            trouble: Arc::clone(&trouble),
        };
        self.shared.runtime.spawn(task.run(commands));
        trouble
    }
}

/// Why there is no lease yet, as far as it is known.
type Trouble = Arc<Mutex<Option<String>>>;

fn lock(trouble: &Trouble) -> std::sync::MutexGuard<'_, Option<String>> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number nobody can guess.
fn chance() -> u32 {
    rand::rng().random()
}

struct Task {
    shared: Arc<Shared>,
    request: LeaseRequest,
    identity: Identity,
    machine: Machine,
    socket: Option<Socket>,
    /// Open while ARP asks for an address.
    probe: Option<Socket>,
    first: Option<First>,
    /// The lease as the listener knows it.
    told: Option<DhcpLease>,
    trouble: Trouble,
}

impl Task {
    async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        loop {
            self.obey().await;
            let deadline = self.machine.deadline();
            tokio::select! {
                command = commands.recv() => {
                    if let Some(Command(done)) = command {
                        self.release().await;
                        let _ = done.send(());
                    }
                    self.close();
                    close(&mut self.probe);
                    return;
                }
                reply = heard(&self.socket) => match reply {
                    Ok((packet, from)) => self.hear(&packet, from),
                    Err(error) => {
                        *lock(&self.trouble) = Some(error.to_string());
                        self.close();
                        // Whatever is wrong is not over at once; the machine asks again in its time.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                packet = heard(&self.probe) => match packet {
                    Ok((packet, _)) => self.hear_arp(&packet),
                    Err(error) => {
                        tracing::debug!(link = %self.request.ifname, %error, "cannot hear ARP");
                        close(&mut self.probe);
                    }
                },
                () = self.due(deadline) => {
                    let now = self.shared.clock.now();
                    self.machine.handle_timeout(now);
                }
            }
        }
    }

    /// Does what the machine says.
    async fn obey(&mut self) {
        while let Some(output) = self.machine.next_output() {
            match output {
                Output::Send(ask) => self.send(&ask).await,
                Output::Probe(address) => {
                    if let Err(error) = self.try_probe(address).await {
                        // Without ARP the server's word has to do.
                        tracing::debug!(link = %self.request.ifname, %error, "cannot ask who has an address");
                    }
                }
                Output::Bound(lease) => self.bound(lease),
                Output::Lost => {
                    self.told = None;
                    tracing::warn!(link = %self.request.ifname, endpoint = %self.request.endpoint, "a DHCP lease is lost");
                    self.tell(None);
                }
            }
        }
        if !self.machine.is_waiting() {
            self.close();
        }
        if self.machine.probed().is_none() {
            close(&mut self.probe);
        }
    }

    fn bound(&mut self, lease: DhcpLease) {
        match self.first.take() {
            Some(first) => drop(first.send(Ok(lease.clone()))),
            None => self.tell(Some(lease.clone())),
        }
        self.told = Some(lease);
    }

    fn tell(&self, lease: Option<DhcpLease>) {
        if let Some(listener) = self.shared.listener.get() {
            listener(LeaseNews { endpoint: self.request.endpoint.clone(), lease });
        }
    }

    fn hear(&mut self, packet: &[u8], from: MacAddr) {
        let Some(mac) = self.socket.as_ref().map(Socket::mac) else { return };
        let reply = wire::message(packet).and_then(|bytes| message::decode(bytes, mac, from));
        if let Some(reply) = reply {
            let now = self.shared.clock.now();
            self.machine.handle_reply(&reply, now);
        }
    }

    fn hear_arp(&mut self, packet: &[u8]) {
        let (Some(socket), Some(address)) = (&self.probe, self.machine.probed()) else { return };
        if let Some(holder) = arp::holder(packet, socket.mac(), address) {
            tracing::warn!(link = %self.request.ifname, %address, %holder, "a DHCP server lends an address that is in use: declined");
            *lock(&self.trouble) = Some(format!("{address}, which it lends, is in use by {holder}"));
            let now = self.shared.clock.now();
            self.machine.handle_conflict(now);
        }
    }

    async fn try_probe(&mut self, address: Ipv4Addr) -> std::io::Result<()> {
        if self.probe.is_none() {
            self.probe = Some(self.open(Talk::Arp).await?);
        }
        let Some(socket) = &self.probe else { return Ok(()) };
        socket.send(&arp::probe(socket.mac(), address), None)
    }

    async fn open(&self, talk: Talk) -> std::io::Result<Socket> {
        let (netns, ifname) = (self.request.netns.clone(), self.request.ifname.clone());
        tokio::task::spawn_blocking(move || Socket::open(&netns, &ifname, talk))
            .await
            .map_err(std::io::Error::other)?
    }

    /// A message that cannot be sent is a message lost: it is sent again in its time.
    async fn send(&mut self, ask: &Ask) {
        if let Err(error) = self.try_send(ask).await {
            tracing::debug!(link = %self.request.ifname, %error, "cannot send to DHCP servers");
            *lock(&self.trouble) = Some(error.clone());
            self.close();
            if !self.request.netns.exists()
                && let Some(first) = self.first.take()
            {
                let _ = first.send(Err(Some(error)));
            }
        }
    }

    async fn try_send(&mut self, ask: &Ask) -> Result<(), String> {
        if self.socket.is_none() {
            let held = Some(ask.ciaddr).filter(|address| !address.is_unspecified());
            self.socket = Some(self.open(Talk::Dhcp(held)).await.map_err(|error| error.to_string())?);
        }
        let Some(socket) = &self.socket else { return Ok(()) };
        let to = ask.to.map_or(Ipv4Addr::BROADCAST, |(server, _)| server);
        let packet = wire::packet(ask.ciaddr, to, &message::encode(ask, &self.identity, socket.mac()))
            .ok_or("the message is too long for a packet")?;
        socket.send(&packet, ask.to.map(|(_, mac)| mac)).map_err(|error| error.to_string())
    }

    async fn release(&mut self) {
        if let Some(ask) = self.machine.release() {
            self.send(&ask).await;
        }
    }

    fn close(&mut self) {
        close(&mut self.socket);
    }

    async fn due(&self, deadline: Option<Duration>) {
        match deadline {
            Some(deadline) => {
                let wait = deadline.saturating_sub(self.shared.clock.now());
                tokio::time::sleep(wait).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Closing a packet socket waits for the kernel, some ten milliseconds: elsewhere.
fn close(socket: &mut Option<Socket>) {
    if let Some(socket) = socket.take() {
        tokio::task::spawn_blocking(move || drop(socket));
    }
}

async fn heard(socket: &Option<Socket>) -> std::io::Result<(Vec<u8>, MacAddr)> {
    match socket {
        Some(socket) => socket.receive().await,
        None => std::future::pending().await,
    }
}

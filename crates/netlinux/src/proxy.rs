//! Published ports that no packet filter can lead to their endpoint: those whose host address is of a
//! family that the endpoint does not have, and the IPv6 loopback address, whose packets the kernel lets on
//! no link. Connections and datagrams ([`proxy_udp`]) are carried over in this process, all by one
//! thread; Docker has a program of its own for each port (`docker-proxy`).
//!
//! Who may connect is decided by the firewall's chain `input`, before a socket here hears of it; and the endpoint
//! is asked before the host accepts ([`crate::ask`]), where the kernel can be told so. The endpoint sees the
//! bridge's address as its client's, as behind Docker's proxy.
//!
//! A connection outlives the port that it came by, as one does that the kernel translates: it ends with its
//! endpoint, or when it is cut.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_netcore::model::{PortBinding, Proto};
use portolan_netcore::plan::Proxied;
use rustix::net::{SocketFlags, accept_with};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::io::{Interest, copy_bidirectional};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, Id, JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::ask::{Asking, Connected};
use crate::packets::PacketQueue;
use crate::proxy_udp;

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long to wait for descriptors or memory to become free when there are none for a new connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How often to look for clients who have not come.
const LOOK: Duration = Duration::from_secs(1);

/// The proxied ports of one host.
#[derive(Debug)]
pub(crate) struct Proxies(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Where the firewall sends what opens a connection, if it does. It is listened to from the first port on;
    /// until then packets wait there.
    queue: Option<Arc<PacketQueue>>,
    /// Commands to the thread, which starts with the first port.
    thread: Option<UnboundedSender<Command>>,
    ports: BTreeMap<PortBinding, Proxied>,
}

#[derive(Debug)]
enum Command {
    /// Answered once it is in force, in place of an earlier one of the port.
    Start(PortBinding, Listening, Proxied, std::sync::mpsc::Sender<()>),
    /// Answered once the thread's descriptor of the port is closed.
    Stop(PortBinding, std::sync::mpsc::Sender<()>),
    /// Ends connections that came by these ports.
    Cut(Vec<PortBinding>),
    /// Ends connections to these addresses.
    Forget(Vec<IpAddr>),
}

/// A held port's socket, ready to hear from clients.
#[derive(Debug)]
enum Listening {
    /// The holder's own descriptor: there may be thousands.
    Tcp(Arc<OwnedFd>),
    Udp(std::net::UdpSocket),
}

impl Proxies {
    pub(crate) fn new(queue: Option<PacketQueue>) -> Self {
        Self(Mutex::new(State { queue: queue.map(Arc::new), thread: None, ports: BTreeMap::new() }))
    }

    /// Carries connections to the bound socket over. It listens when this returns.
    pub(crate) fn start(
        &self,
        port: &PortBinding,
        socket: Arc<OwnedFd>,
        proxied: &Proxied,
    ) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = match &state.thread {
            Some(thread) => thread.clone(),
            None => {
                let started = start_thread(state.queue.clone())?;
                state.thread.insert(started).clone()
            }
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        let listening = if port.proto == Proto::Udp {
            proxy_udp::prepare(&socket, port.host_ip.is_ipv4())?;
            Listening::Udp(std::net::UdpSocket::from(socket.try_clone()?))
        } else {
            rustix::net::listen(&socket, BACKLOG)?;
            Listening::Tcp(socket)
        };
        let (done, wait) = std::sync::mpsc::channel();
        let start = Command::Start(port.clone(), listening, proxied.clone(), done);
        thread.send(start).map_err(|_| thread_is_gone())?;
        // A new port's clients wait in the socket until they are heard. In place of an earlier proxy, whose
        // clients may have been others, it has to be in force first.
        if state.ports.contains_key(port) {
            wait.recv().map_err(|_| thread_is_gone())?;
        }
        state.ports.insert(port.clone(), proxied.clone());
        Ok(())
    }

    /// Ends a port's proxy; nothing if it has none. The port can be taken by others when this returns, if
    /// nobody else has it. Connections go on.
    pub(crate) fn stop(&self, port: &PortBinding) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ports.remove(port).is_some()
            && let Some(thread) = &state.thread
        {
            let (done, wait) = std::sync::mpsc::channel();
            // A thread that is gone proxies nothing: then both fail at once.
            let _ = thread.send(Command::Stop(port.clone(), done));
            let _ = wait.recv();
        }
    }

    /// Ends connections that came by these ports.
    pub(crate) fn cut(&self, ports: &[PortBinding]) {
        self.tell(Command::Cut(ports.to_vec()));
    }

    /// Ends connections to addresses that are nobody's any more, or another's.
    pub(crate) fn forget(&self, addresses: &[IpAddr]) {
        self.tell(Command::Forget(addresses.to_vec()));
    }

    fn tell(&self, command: Command) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = &state.thread {
            // A thread that is gone has no connections.
            let _ = thread.send(command);
        }
    }

    /// Every proxied port and where it leads.
    pub(crate) fn list(&self) -> BTreeMap<PortBinding, Proxied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ports.clone()
    }
}

fn thread_is_gone() -> io::Error {
    io::Error::other("the proxy thread has ended")
}

/// Starts the thread; it ends when the sender is dropped, and all connections with it.
fn start_thread(queue: Option<Arc<PacketQueue>>) -> io::Result<UnboundedSender<Command>> {
    let (sender, receiver) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let ready = {
        let _inside = runtime.enter();
        // SAFETY: the `Arc` keeps the socket open, and its descriptor the same, for as long as the `AsyncFd` lives.
        let register = |queue| unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) };
        queue.map(register).transpose()?
    };
    let run = move || runtime.block_on(serve(receiver, ready));
    std::thread::Builder::new().name("proxy".to_owned()).spawn(run)?;
    Ok(sender)
}

/// What the thread has: a task a port that accepts, and one a connection.
struct Serving {
    ports: BTreeMap<PortBinding, Port>,
    connections: JoinSet<()>,
    /// What each connection is, until it has ended.
    carried: HashMap<Id, Carried>,
    /// To where the ports' tasks hand over whom they have accepted.
    accepted: UnboundedSender<Accepted>,
    /// Endpoints that are asked before their clients are accepted.
    asking: Option<Asking>,
}

/// A port that is carried over.
struct Port {
    proxied: Proxied,
    task: JoinHandle<()>,
}

/// A connection that is to be carried over.
struct Accepted {
    port: PortBinding,
    client: TcpStream,
    address: SocketAddr,
    target: SocketAddr,
}

/// A connection that is being carried over.
struct Carried {
    port: PortBinding,
    target: IpAddr,
    task: AbortHandle,
}

async fn serve(mut commands: UnboundedReceiver<Command>, queue: Option<AsyncFd<Arc<PacketQueue>>>) {
    let (accepted, mut arrivals) = unbounded_channel();
    let mut serving = Serving {
        ports: BTreeMap::new(),
        connections: JoinSet::new(),
        carried: HashMap::new(),
        accepted,
        asking: queue.as_ref().map(|queue| Asking::new(Arc::clone(queue.get_ref()))),
    };
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => serving.obey(command).await,
                None => return,
            },
            Some(arrived) = arrivals.recv() => serving.carry(arrived),
            Some(ended) = serving.connections.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                serving.carried.remove(&id);
            }
            mut ready = packets(queue.as_ref()) => serving.hear(&mut ready),
            connected = answered(&mut serving.asking) => if let Some(asking) = &mut serving.asking {
                asking.settle(connected);
            },
            _ = look.tick(), if serving.asking.as_ref().is_some_and(Asking::is_busy) => {
                serving.asking.iter_mut().for_each(Asking::expire);
            }
        }
    }
}

/// When packets wait in the queue; never if there is none.
async fn packets(queue: Option<&AsyncFd<Arc<PacketQueue>>>) -> AsyncFdReadyGuard<'_, Arc<PacketQueue>> {
    let ready = match queue {
        Some(queue) => queue.readable().await.ok(),
        None => None,
    };
    match ready {
        Some(ready) => ready,
        None => std::future::pending().await,
    }
}

/// When an endpoint that was asked has answered; never if none is asked.
async fn answered(asking: &mut Option<Asking>) -> Connected {
    match asking {
        Some(asking) => asking.next().await,
        None => std::future::pending().await,
    }
}

impl Serving {
    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start(port, listening, proxied, done) => {
                self.end(&port).await;
                match self.listen(&port, listening, proxied.clone()) {
                    Ok(task) => drop(self.ports.insert(port, Port { proxied, task })),
                    Err(error) => tracing::error!(%error, ?port, "cannot proxy a published port"),
                }
                if let (Some(asking), ports) = (&mut self.asking, &self.ports) {
                    asking.ask_early(|port| ports.get(port).map(|port| &port.proxied));
                }
                // Nobody may be waiting any more.
                let _ = done.send(());
            }
            Command::Stop(port, done) => {
                self.end(&port).await;
                // Nobody may be waiting any more.
                let _ = done.send(());
            }
            Command::Cut(ports) => {
                let asking = self.asking.iter_mut();
                asking.for_each(|asking| ports.iter().for_each(|port| asking.end_port(port)));
                self.end_if(|carried| ports.contains(&carried.port));
            }
            Command::Forget(addresses) => {
                self.asking.iter_mut().for_each(|asking| asking.forget(&addresses));
                self.end_if(|carried| addresses.contains(&carried.target));
            }
        }
    }

    /// Ends the proxy of one port, and what was taken for clients who have not come yet.
    async fn end(&mut self, port: &PortBinding) {
        if let Some(Port { task, .. }) = self.ports.remove(port) {
            task.abort();
            // It ends with an error, being aborted; all that it owned is dropped by then.
            let _ = task.await;
        }
        self.asking.iter_mut().for_each(|asking| asking.end_port(port));
    }

    /// Takes the packets that wait in the queue.
    fn hear(&mut self, ready: &mut AsyncFdReadyGuard<'_, Arc<PacketQueue>>) {
        let (Some(asking), ports) = (&mut self.asking, &self.ports) else { return };
        let proxied = |port: &PortBinding| ports.get(port).map(|port| &port.proxied);
        if let Ok(Err(error)) = ready.try_io(|_| asking.receive(proxied)) {
            tracing::debug!(%error, "cannot read from the queue of packets");
        }
    }

    fn listen(
        &self,
        port: &PortBinding,
        listening: Listening,
        proxied: Proxied,
    ) -> io::Result<JoinHandle<()>> {
        Ok(match listening {
            Listening::Tcp(socket) => {
                // SAFETY: the `Arc` keeps the descriptor open, and the same, for as long as the
                // `AsyncFd` lives.
                let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
                tokio::spawn(accept(socket, port.clone(), proxied, self.accepted.clone()))
            }
            Listening::Udp(socket) => tokio::spawn(proxy_udp::relay(UdpSocket::from_std(socket)?, proxied)),
        })
    }

    fn carry(&mut self, Accepted { port, client, address, target }: Accepted) {
        let server = self.asking.as_mut().and_then(|asking| asking.take(&port, &address));
        let task = self.connections.spawn(carry(client, server, target));
        self.carried.insert(task.id(), Carried { port, target: target.ip(), task });
    }

    fn end_if(&self, doomed: impl Fn(&Carried) -> bool) {
        self.carried.values().filter(|carried| doomed(carried)).for_each(|carried| carried.task.abort());
    }
}

/// Accepts until aborted.
async fn accept(
    listener: AsyncFd<Arc<OwnedFd>>,
    port: PortBinding,
    proxied: Proxied,
    accepted: UnboundedSender<Accepted>,
) {
    let target = proxied.target;
    loop {
        match next_client(&listener).await {
            Ok((client, address)) if proxied.admits(address.ip()) => {
                // The thread ends if nobody is there to hear.
                let _ = accepted.send(Accepted { port: port.clone(), client, address, target });
            }
            // The firewall has not let them come so far, unless there is none.
            Ok((stranger, _)) => reset(&stranger),
            // Of the connection, or of the whole process: others may do better.
            Err(error) => {
                tracing::debug!(%error, %target, "cannot accept a connection to a published port");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// The next connection and whose it is. The descriptor is the holder's: it is no `TcpListener`'s.
async fn next_client(listener: &AsyncFd<Arc<OwnedFd>>) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        let mut ready = listener.readable().await?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(client) = ready.try_io(|listener| Ok(accept_with(listener.get_ref(), flags)?)) {
            let client = TcpStream::from_std(client?.into())?;
            let address = client.peer_addr()?;
            // Without the link of a link-local address, which no packet tells.
            return Ok((client, SocketAddr::new(address.ip(), address.port())));
        }
    }
}

/// Makes closing a connection reset it, as the host does where nobody listens.
fn reset(connection: &TcpStream) {
    // Without it the connection is closed instead, which is no harm.
    let _ = rustix::net::sockopt::set_socket_linger(connection, Some(Duration::ZERO));
}

/// Carries one connection, each direction until its own end (half-close is passed on). An endpoint that
/// refuses or resets it does so to the client. `server` is what the endpoint has taken when it was asked.
async fn carry(mut client: TcpStream, server: Option<TcpStream>, target: SocketAddr) {
    let connected = match server {
        Some(server) => Ok(server),
        None => TcpStream::connect(target).await,
    };
    let mut server = match connected {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(%error, %target, "a published port's endpoint does not answer");
            return reset(&client);
        }
    };
    // Without them small writes wait for answers, which is no harm.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    if copy_bidirectional(&mut client, &mut server).await.is_err() {
        reset(&client);
        reset(&server);
    }
}

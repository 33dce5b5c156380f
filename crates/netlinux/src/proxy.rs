//! Published ports that no packet filter can lead to their endpoint: those whose host address is of a
//! family that the endpoint does not have, and the IPv6 loopback address, whose packets the kernel lets on
//! no link. Connections and datagrams ([`proxy_udp`]) are carried over in this process, all by one
//! thread; Docker has a program of its own for each port (`docker-proxy`).
//!
//! Who may connect is decided by the firewall's chain `input`, before a socket here hears of it. The
//! endpoint sees the bridge's address as its client's, as behind Docker's proxy.
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
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, copy_bidirectional};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, Id, JoinHandle, JoinSet};

use crate::proxy_udp;

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long to wait for descriptors or memory to become free when there are none for a new connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The proxied ports of one host.
#[derive(Debug, Default)]
pub(crate) struct Proxies(Mutex<State>);

#[derive(Debug, Default)]
struct State {
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
            None => state.thread.insert(start_thread()?).clone(),
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
fn start_thread() -> io::Result<UnboundedSender<Command>> {
    let (sender, receiver) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    std::thread::Builder::new().name("proxy".to_owned()).spawn(move || runtime.block_on(serve(receiver)))?;
    Ok(sender)
}

/// What the thread has: a task a port that accepts, and one a connection.
struct Serving {
    ports: BTreeMap<PortBinding, JoinHandle<()>>,
    connections: JoinSet<()>,
    /// What each connection is, until it has ended.
    carried: HashMap<Id, Carried>,
    /// To where the ports' tasks hand over whom they have accepted.
    accepted: UnboundedSender<Accepted>,
}

/// A connection that is to be carried over.
struct Accepted {
    port: PortBinding,
    client: TcpStream,
    target: SocketAddr,
}

/// A connection that is being carried over.
struct Carried {
    port: PortBinding,
    target: IpAddr,
    task: AbortHandle,
}

async fn serve(mut commands: UnboundedReceiver<Command>) {
    let (accepted, mut arrivals) = unbounded_channel();
    let mut serving =
        Serving { ports: BTreeMap::new(), connections: JoinSet::new(), carried: HashMap::new(), accepted };
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
        }
    }
}

impl Serving {
    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start(port, listening, proxied, done) => {
                end(self.ports.remove(&port)).await;
                match self.listen(&port, listening, proxied) {
                    Ok(task) => drop(self.ports.insert(port, task)),
                    Err(error) => tracing::error!(%error, ?port, "cannot proxy a published port"),
                }
                // Nobody may be waiting any more.
                let _ = done.send(());
            }
            Command::Stop(port, done) => {
                end(self.ports.remove(&port)).await;
                // Nobody may be waiting any more.
                let _ = done.send(());
            }
            Command::Cut(ports) => self.end_if(|carried| ports.contains(&carried.port)),
            Command::Forget(addresses) => self.end_if(|carried| addresses.contains(&carried.target)),
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

    fn carry(&mut self, Accepted { port, client, target }: Accepted) {
        let task = self.connections.spawn(carry(client, target));
        self.carried.insert(task.id(), Carried { port, target: target.ip(), task });
    }

    fn end_if(&self, doomed: impl Fn(&Carried) -> bool) {
        self.carried.values().filter(|carried| doomed(carried)).for_each(|carried| carried.task.abort());
    }
}

/// Ends the proxy of one port.
async fn end(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        task.abort();
        // It ends with an error, being aborted; all that it owned is dropped by then.
        let _ = task.await;
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
            Ok((client, address)) if proxied.admits(address) => {
                // The thread ends if nobody is there to hear.
                let _ = accepted.send(Accepted { port: port.clone(), client, target });
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
async fn next_client(listener: &AsyncFd<Arc<OwnedFd>>) -> io::Result<(TcpStream, IpAddr)> {
    loop {
        let mut ready = listener.readable().await?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(client) = ready.try_io(|listener| Ok(accept_with(listener.get_ref(), flags)?)) {
            let client = TcpStream::from_std(client?.into())?;
            let address = client.peer_addr()?.ip();
            return Ok((client, address));
        }
    }
}

/// Makes closing a connection reset it, as the host does where nobody listens.
fn reset(connection: &TcpStream) {
    // Without it the connection is closed instead, which is no harm.
    let _ = rustix::net::sockopt::set_socket_linger(connection, Some(Duration::ZERO));
}

/// Carries one connection, each direction until its own end (half-close is passed on). An endpoint that
/// refuses or resets it does so to the client.
async fn carry(mut client: TcpStream, target: SocketAddr) {
    let mut server = match TcpStream::connect(target).await {
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

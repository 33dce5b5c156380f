//! Published ports that no packet filter can lead to their endpoint: those whose host address is of a
//! family that the endpoint does not have, and the IPv6 loopback address, whose packets the kernel lets on
//! no link. Connections and datagrams ([`proxy_udp`]) are carried over in this process, all by one
//! thread; Docker has a program of its own for each port (`docker-proxy`).
//!
//! The endpoint sees the bridge's address as its client's, as behind Docker's proxy.

use std::collections::BTreeMap;
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
use tokio::task::{JoinHandle, JoinSet};

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

    /// Ends a port's proxy and its connections; nothing if it has none. The port can be taken by others
    /// when this returns, if nobody else has it.
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

async fn serve(mut commands: UnboundedReceiver<Command>) {
    let mut ports: BTreeMap<PortBinding, JoinHandle<()>> = BTreeMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Start(port, listening, proxied, done) => {
                end(ports.remove(&port)).await;
                let task = match listening {
                    Listening::Tcp(socket) => {
                        // SAFETY: the `Arc` keeps the descriptor open, and the same, for as long as the
                        // `AsyncFd` lives.
                        unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
                            .map_err(io::Error::from)
                            .map(|it| tokio::spawn(accept(it, proxied)))
                    }
                    Listening::Udp(socket) => {
                        UdpSocket::from_std(socket).map(|it| tokio::spawn(proxy_udp::relay(it, proxied)))
                    }
                };
                match task {
                    Ok(task) => drop(ports.insert(port, task)),
                    Err(error) => tracing::error!(%error, ?port, "cannot proxy a published port"),
                }
                // Nobody may be waiting any more.
                let _ = done.send(());
            }
            Command::Stop(port, done) => {
                end(ports.remove(&port)).await;
                // Nobody may be waiting any more.
                let _ = done.send(());
            }
        }
    }
}

/// Ends the proxy of one port, and its connections.
async fn end(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        task.abort();
        // It ends with an error, being aborted; all that it owned is dropped by then.
        let _ = task.await;
    }
}

/// Accepts until aborted; the connections are aborted with it.
async fn accept(listener: AsyncFd<Arc<OwnedFd>>, proxied: Proxied) {
    let target = proxied.target;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = next_client(&listener) => match accepted {
                Ok((client, address)) if proxied.admits(address) => {
                    connections.spawn(carry(client, target));
                }
                Ok((stranger, _)) => refuse(&stranger),
                // Of the connection, or of the whole process: others may do better.
                Err(error) => {
                    tracing::debug!(%error, %target, "cannot accept a connection to a published port");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            Some(_) = connections.join_next() => {}
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

/// Resets a connection, as the host does where nobody listens.
fn refuse(stranger: &TcpStream) {
    // Without it the connection is closed instead, which is no harm.
    let _ = rustix::net::sockopt::set_socket_linger(stranger, Some(Duration::ZERO));
}

/// Carries one connection, each direction until its own end (half-close is passed on).
async fn carry(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

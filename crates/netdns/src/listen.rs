//! The sockets in a sandbox, and what happens to a packet that arrives at one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use portolan_netcore::dns::{Answer, RecordData, answer};
use portolan_netcore::model::SandboxId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cache::Key;
use crate::forward;
use crate::netns;
use crate::server::Shared;
use crate::wire::{Asked, Transport};

/// The address every container asks.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Questions of one sandbox that may be under way upstream; more are refused, so that one container
/// cannot take the resolver from the others.
const MAX_FORWARDS: usize = 256;
/// TCP connections of one sandbox; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A TCP client that says nothing, or does not read, is hung up on (RFC 7766 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
const MAX_UDP_BYTES: usize = 4096;

/// A sandbox that is being served; dropping it closes its sockets.
#[derive(Debug)]
pub(crate) struct Listener {
    /// (UDP port, TCP port).
    pub(crate) ports: (u16, u16),
    _tasks: JoinSet<()>,
}

impl Listener {
    /// Opens the sockets inside `netns` and serves them. Ports that are named must be free.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        sandbox: SandboxId,
        netns: OwnedFd,
        ports: (Option<u16>, Option<u16>),
    ) -> io::Result<Self> {
        let (udp, tcp) = netns::inside(netns.as_fd(), move || {
            let udp = std::net::UdpSocket::bind((ADDRESS, ports.0.unwrap_or(0)))?;
            let tcp = std::net::TcpListener::bind((ADDRESS, ports.1.unwrap_or(0)))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        })?;
        let ports = (udp.local_addr()?.port(), tcp.local_addr()?.port());
        let _runtime = shared.runtime.enter();
        let client = Arc::new(Sandbox {
            shared: shared.clone(),
            id: sandbox,
            netns: Arc::new(netns),
            forwards: Semaphore::new(MAX_FORWARDS),
            turn: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(client.clone(), UdpSocket::from_std(udp)?));
        tasks.spawn(serve_tcp(client, TcpListener::from_std(tcp)?));
        Ok(Self { ports, _tasks: tasks })
    }
}

/// One sandbox, to the tasks that serve it.
#[derive(Debug)]
struct Sandbox {
    shared: Arc<Shared>,
    id: SandboxId,
    netns: Arc<OwnedFd>,
    forwards: Semaphore,
    turn: AtomicUsize,
}

async fn serve_udp(client: Arc<Sandbox>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = [0; MAX_UDP_BYTES];
    let mut forwards = JoinSet::new();
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error for an earlier answer; the socket is as good as before.
            Err(_) => continue,
        };
        while forwards.try_join_next().is_some() {}
        match client.local(&buffer[..length], Transport::Udp) {
            Local::Answer(bytes) => reply(&socket, &bytes, from).await,
            Local::Nothing => {}
            Local::Ask(asked) => {
                let (client, socket) = (client.clone(), socket.clone());
                forwards.spawn(async move {
                    let bytes = client.outside(&asked, Transport::Udp).await;
                    reply(&socket, &bytes, from).await;
                });
            }
        }
    }
}

async fn reply(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%error, %to, "an answer could not be sent");
    }
}

async fn serve_tcp(client: Arc<Sandbox>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(client.clone(), stream));
            }
            // Out of descriptors, most likely: give those in use time to close.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(client: Arc<Sandbox>, mut stream: TcpStream) {
    while let Ok(Ok(packet)) = timeout(IDLE, read_packet(&mut stream)).await {
        let bytes = match client.local(&packet, Transport::Tcp) {
            Local::Answer(bytes) => bytes,
            Local::Nothing => return,
            Local::Ask(asked) => client.outside(&asked, Transport::Tcp).await,
        };
        let Ok(length) = u16::try_from(bytes.len()) else { return };
        let framed = [length.to_be_bytes().as_slice(), &bytes].concat();
        if !matches!(timeout(IDLE, stream.write_all(&framed)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read_packet(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

/// What can be said without asking anybody.
enum Local {
    Answer(Vec<u8>),
    Nothing,
    Ask(Box<Asked>),
}

impl Sandbox {
    fn local(&self, packet: &[u8], transport: Transport) -> Local {
        let asked = match Asked::parse(packet) {
            Ok(asked) => asked,
            Err(Some(bytes)) => return Local::Answer(bytes),
            Err(None) => return Local::Nothing,
        };
        match answer(&self.shared.zones(), &self.id, &asked.question()) {
            Answer::Known(records) => Local::Answer(asked.known(self.rotated(records), transport)),
            Answer::Forward => Local::Ask(Box::new(asked)),
            Answer::Unanswerable => Local::Answer(asked.code(ResponseCode::ServFail, transport)),
            Answer::Refused => Local::Answer(asked.code(ResponseCode::Refused, transport)),
        }
    }

    /// A name with several addresses starts with another one each time.
    fn rotated(&self, mut records: Vec<RecordData>) -> Vec<RecordData> {
        if records.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % records.len();
            records.rotate_left(turn);
        }
        records
    }

    async fn outside(&self, asked: &Asked, transport: Transport) -> Vec<u8> {
        let Some(upstreams) = self.shared.zones().sandboxes.get(&self.id).map(|view| view.upstreams.clone())
        else {
            return asked.code(ResponseCode::Refused, transport);
        };
        let key = Key::new(asked.key(), &upstreams);
        if let Some((answer, age)) = self.shared.cached(&key, Instant::now()) {
            return asked.relayed(&answer, age, transport);
        }
        let Ok(_permit) = self.forwards.try_acquire() else {
            return asked.code(ResponseCode::Refused, transport);
        };
        let Some(packet) = asked.forwarded(self.shared.random_id()) else {
            return asked.code(ResponseCode::ServFail, transport);
        };
        match forward::ask(packet, &upstreams, &self.netns).await {
            Some(message) => {
                let message = Arc::new(message);
                self.shared.keep(key, message.clone(), Instant::now());
                asked.relayed(&message, 0, transport)
            }
            None => asked.code(ResponseCode::ServFail, transport),
        }
    }
}

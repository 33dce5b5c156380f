//! The sockets in a sandbox, and what happens to a packet that arrives at one.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use portolan_netcore::dns::{Answer, Question, RecordData, Upstreams, answer, answer_host};
use portolan_netcore::model::SandboxId;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::flight::Part;
use crate::forward;
use crate::netns;
use crate::server::Shared;
use crate::wire::{Asked, Transport};

/// The address every container asks.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Questions of one sandbox that may be under way upstream; more are refused, so that one container
/// cannot take the resolver from the others.
const MAX_FORWARDS: usize = 256;
/// TCP connections of one sandbox; for one more, the oldest is hung up on, so that nobody who holds
/// connections open keeps others out (CVE-2024-8418).
const MAX_CONNECTIONS: usize = 64;
/// A TCP client that says nothing, or does not read, is hung up on (RFC 7766 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
const MAX_UDP_BYTES: usize = 4096;
/// What may wait to be read, in bytes as the kernel counts them (most of a kilobyte for a question): the
/// kernel's default holds fewer than 300 questions, and a container that asks more at once loses them.
const WAITING: usize = 1 << 20;

/// A sandbox that is being served; dropping it closes its sockets.
#[derive(Debug)]
pub(crate) struct Listener {
    /// (UDP port, TCP port).
    pub(crate) ports: (u16, u16),
    _tasks: JoinSet<()>,
}

impl Listener {
    /// Opens the sockets inside `netns` and serves them. Ports that are named must be free.
    pub(crate) fn in_sandbox(
        shared: &Arc<Shared>,
        sandbox: SandboxId,
        netns: OwnedFd,
        ports: (Option<u16>, Option<u16>),
    ) -> io::Result<Self> {
        let (udp, tcp) = (ports.0.unwrap_or(0), ports.1.unwrap_or(0));
        let sockets =
            netns::inside(netns.as_fd(), move || bind((ADDRESS, udp).into(), (ADDRESS, tcp).into()))?;
        Self::start(shared, Who::Sandbox(sandbox, Arc::new(netns)), sockets)
    }

    /// Serves the host itself at this address.
    pub(crate) fn on_host(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<Self> {
        Self::start(shared, Who::Host, bind(address, address)?)
    }

    fn start(shared: &Arc<Shared>, who: Who, (udp, tcp): Sockets) -> io::Result<Self> {
        let ports = (udp.local_addr()?.port(), tcp.local_addr()?.port());
        let _runtime = shared.runtime.enter();
        let client = Arc::new(Asker {
            shared: shared.clone(),
            who,
            forwards: Semaphore::new(MAX_FORWARDS),
            turns: Turns::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(client.clone(), UdpSocket::from_std(udp)?));
        tasks.spawn(serve_tcp(client, TcpListener::from_std(tcp)?));
        Ok(Self { ports, _tasks: tasks })
    }
}

/// Within whose namespace others are asked; the host's if none.
type Inside = Option<(SandboxId, Arc<OwnedFd>)>;

type Sockets = (std::net::UdpSocket, std::net::TcpListener);

fn bind(udp: SocketAddr, tcp: SocketAddr) -> io::Result<Sockets> {
    let udp = std::net::UdpSocket::bind(udp)?;
    let tcp = std::net::TcpListener::bind(tcp)?;
    // Beyond net.core.rmem_max, if we may; up to it otherwise (socket(7)).
    set_socket_recv_buffer_size_force(&udp, WAITING)
        .or_else(|_| set_socket_recv_buffer_size(&udp, WAITING))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

/// Who asks.
#[derive(Debug)]
enum Who {
    Sandbox(SandboxId, Arc<OwnedFd>),
    Host,
}

/// Who asks, to the tasks that serve them.
#[derive(Debug)]
struct Asker {
    shared: Arc<Shared>,
    who: Who,
    forwards: Semaphore,
    turns: Turns,
}

/// Whose turn it is to be the first answer.
#[derive(Debug, Default)]
struct Turns([AtomicUsize; 32]);

impl Turns {
    /// A name with several addresses starts with another one each time. Names and kinds count by
    /// themselves: with one count for all, who asks for A and AAAA in turn would always hear the same of two.
    fn rotate(&self, question: &Question<'_>, records: &mut [RecordData]) {
        if records.len() > 1 {
            let mut hasher = DefaultHasher::new();
            question.name.to_ascii_lowercase().hash(&mut hasher);
            question.kind.hash(&mut hasher);
            let at = hasher.finish() as usize % self.0.len();
            records.rotate_left(self.0[at].fetch_add(1, Ordering::Relaxed) % records.len());
        }
    }
}

async fn serve_udp(client: Arc<Asker>, socket: UdpSocket) {
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

async fn serve_tcp(client: Arc<Asker>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => by_age.push_back(connections.spawn(serve_connection(client.clone(), stream))),
            // Out of descriptors, most likely: give those in use time to close.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
        by_age.retain(|connection| !connection.is_finished());
        while by_age.len() > MAX_CONNECTIONS {
            by_age.pop_front().iter().for_each(AbortHandle::abort);
        }
    }
}

async fn serve_connection(client: Arc<Asker>, mut stream: TcpStream) {
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

impl Asker {
    fn local(&self, packet: &[u8], transport: Transport) -> Local {
        let asked = match Asked::parse(packet) {
            Ok(asked) => asked,
            Err(Some(bytes)) => return Local::Answer(bytes),
            Err(None) => return Local::Nothing,
        };
        let question = asked.question();
        let decided = self.shared.with_zones(|zones| match &self.who {
            Who::Sandbox(id, _) => answer(zones, id, &question),
            Who::Host => answer_host(zones, &question),
        });
        match decided {
            Answer::Known(mut records) => {
                self.turns.rotate(&question, &mut records);
                Local::Answer(asked.known(records, transport))
            }
            Answer::Missing => Local::Answer(asked.code(ResponseCode::NXDomain, transport)),
            Answer::Forward => Local::Ask(Box::new(asked)),
            Answer::Unanswerable => Local::Answer(asked.code(ResponseCode::ServFail, transport)),
            Answer::Refused => Local::Answer(asked.code(ResponseCode::Refused, transport)),
        }
    }

    async fn outside(&self, asked: &Asked, transport: Transport) -> Vec<u8> {
        let (Ok(_permit), Some((servers, inside))) = (self.forwards.try_acquire(), self.servers()) else {
            return asked.code(ResponseCode::Refused, transport);
        };
        let key = asked.key(servers, inside.as_ref().map(|(sandbox, _)| sandbox.clone()));
        loop {
            if let Some((answer, age)) = self.shared.cached(&key, Instant::now()) {
                return asked.relayed(&answer, age, transport);
            }
            let outcome = match self.shared.flights.join(&key) {
                Part::Follow(mut others) => match others.recv().await {
                    Ok(outcome) => outcome,
                    Err(_) => continue,
                },
                Part::Lead(lead) => {
                    let Some(packet) = asked.forwarded(self.shared.random_id()) else { break };
                    let netns = inside.as_ref().map(|(_, netns)| netns);
                    let outcome =
                        forward::ask(packet, &key.servers, netns, &self.shared.late).await.map(Arc::new);
                    if let Some(message) = &outcome {
                        self.shared.keep(key, message.clone(), Instant::now());
                    }
                    lead.land(&outcome);
                    outcome
                }
            };
            let Some(message) = outcome else { break };
            return asked.relayed(&message, 0, transport);
        }
        asked.code(ResponseCode::ServFail, transport)
    }

    /// Whom to ask, and from within whose namespace: none is the host's.
    fn servers(&self) -> Option<(Vec<SocketAddr>, Inside)> {
        let Who::Sandbox(id, netns) = &self.who else { return None };
        let upstreams = self.shared.with_zones(|zones| Some(zones.view(id)?.upstreams.clone()))?;
        match upstreams {
            Upstreams::Nobody => None,
            Upstreams::Host => Some((self.shared.host_servers(), None)),
            Upstreams::Own(servers) => Some((servers, Some((id.clone(), netns.clone())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_netcore::dns::QuestionType;

    use super::*;

    #[test]
    fn every_address_comes_first_in_its_turn_though_both_families_are_asked_for() {
        let turns = Turns::default();
        let mut firsts = Vec::new();
        for _ in 0..2 {
            let mut records = [2, 3].map(|last| RecordData::A([172, 18, 0, last].into()));
            turns.rotate(&Question { name: "two", kind: QuestionType::A }, &mut records);
            firsts.push(records[0].clone());
            let mut records = [2, 3].map(|last| RecordData::Aaaa([0xfd00, 0, 0, 0, 0, 0, 0, last].into()));
            turns.rotate(&Question { name: "two", kind: QuestionType::Aaaa }, &mut records);
        }
        assert_ne!(firsts[0], firsts[1]);
    }
}

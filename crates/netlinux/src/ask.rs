//! Asking the endpoint before the host accepts: the first packet of a connection that is to be carried over waits
//! in a queue of the kernel's until the endpoint has taken a connection, or refused it. Without that, the client
//! would be accepted by the host and reset a moment later where nobody listens in the container.
//!
//! What the endpoint has taken is kept for the client, who is about to come. Whatever cannot be asked (there is
//! too much of it, or its headers are beyond us) passes, and the endpoint is asked once the host has accepted.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_netcore::firewall::REFUSED_MARK;
use portolan_netcore::model::{PortBinding, Proto};
use portolan_netcore::plan::Proxied;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::packets::{Answer, Packet, PacketQueue};

/// Connections that may be asked for, or kept for their clients, at a time; beyond it a flood costs what it costs
/// any listener, and the kernel's SYN cookies are there for it.
const MOST: usize = 1024;
/// The same for one port.
pub(crate) const MOST_OF_A_PORT: usize = 256;
/// How long the endpoint has to answer. The client asks again meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection is kept for a client who does not come: who is where it says it is has the host's answer
/// within this, also if the first is lost.
const KEPT: Duration = Duration::from_secs(4);
/// How long a packet waits for its port to be carried over: the rules come before, at a start by far.
const START: Duration = Duration::from_secs(2);

/// Whom connections are being asked for, and those that wait for their clients.
pub(crate) struct Asking {
    queue: Arc<PacketQueue>,
    /// By port and client.
    asked: BTreeMap<PortBinding, BTreeMap<SocketAddr, Asked>>,
    /// Packets for ports that are not known yet, and until when they wait.
    early: Vec<(Instant, Packet)>,
    connecting: JoinSet<Connected>,
}

/// A connection to an endpoint on a client's behalf.
enum Asked {
    /// The client's packet waits.
    Pending { packet: Packet, target: IpAddr, task: AbortHandle },
    /// The packet has passed.
    Taken { stream: TcpStream, target: IpAddr, until: Instant },
}

/// How asking an endpoint ended.
pub(crate) struct Connected {
    port: PortBinding,
    client: SocketAddr,
    packet: Packet,
    result: io::Result<TcpStream>,
}

impl Asking {
    pub(crate) fn new(queue: Arc<PacketQueue>) -> Self {
        Self { queue, asked: BTreeMap::new(), early: Vec::new(), connecting: JoinSet::new() }
    }

    /// Takes the packets that wait, `ports` being those that are carried over.
    pub(crate) fn receive<'a>(
        &mut self,
        ports: impl Fn(&PortBinding) -> Option<&'a Proxied>,
    ) -> io::Result<()> {
        let mut packets = Vec::new();
        let until = Instant::now() + START;
        self.queue.receive(|packet| packets.push((until, packet)))?;
        self.ask_all(packets, ports);
        Ok(())
    }

    /// There are more ports than there were.
    pub(crate) fn ask_early<'a>(&mut self, ports: impl Fn(&PortBinding) -> Option<&'a Proxied>) {
        let early = std::mem::take(&mut self.early);
        self.ask_all(early, ports);
    }

    fn ask_all<'a>(
        &mut self,
        packets: Vec<(Instant, Packet)>,
        ports: impl Fn(&PortBinding) -> Option<&'a Proxied>,
    ) {
        for (until, packet) in packets {
            if let Some(answer) = self.ask(until, packet, &ports) {
                self.queue.answer(packet.id, answer);
            }
        }
    }

    /// What becomes of a packet, if that is known at once.
    fn ask<'a>(
        &mut self,
        until: Instant,
        packet: Packet,
        ports: impl Fn(&PortBinding) -> Option<&'a Proxied>,
    ) -> Option<Answer> {
        let Some((client, local)) = packet.ends else { return Some(Answer::Pass) };
        let binding =
            |host_ip| PortBinding { proto: Proto::Tcp, container_port: 0, host_ip, host_port: local.port() };
        let everywhere: IpAddr = if local.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let mut candidates = [local.ip(), everywhere].map(binding).into_iter();
        let known = candidates.find_map(|port| ports(&port).map(|proxied| (port, proxied)));
        let Some((port, proxied)) = known else {
            if self.early.len() >= MOST {
                return Some(Answer::Pass);
            }
            self.early.push((until, packet));
            return None;
        };
        if !proxied.admits(client.ip()) {
            return Some(refusal(packet));
        }
        let total: usize = self.asked.values().map(BTreeMap::len).sum();
        let of_port = self.asked.get(&port);
        match of_port.and_then(|clients| clients.get(&client)) {
            // It asks again.
            Some(Asked::Pending { .. }) => return Some(Answer::Drop),
            Some(Asked::Taken { .. }) => return Some(Answer::Pass),
            None if total >= MOST || of_port.is_some_and(|clients| clients.len() >= MOST_OF_A_PORT) => {
                return Some(Answer::Pass);
            }
            None => {}
        }
        let target = proxied.target;
        let task = self.connecting.spawn(connect(port.clone(), client, packet, target));
        let pending = Asked::Pending { packet, target: target.ip(), task };
        self.asked.entry(port).or_default().insert(client, pending);
        None
    }

    /// The next end of asking an endpoint; for ever if none is asked.
    pub(crate) async fn next(&mut self) -> Connected {
        loop {
            match self.connecting.join_next().await {
                Some(Ok(connected)) => return connected,
                // Aborted, and answered by whoever did that.
                Some(Err(_)) => {}
                None => std::future::pending::<()>().await,
            }
        }
    }

    /// Tells the kernel how asking ended.
    pub(crate) fn settle(&mut self, Connected { port, client, packet, result }: Connected) {
        let Some(of_port) = self.asked.get_mut(&port) else { return };
        let Some(Asked::Pending { packet: waiting, target, .. }) = of_port.get(&client) else { return };
        // Ended meanwhile, and asked for once more.
        if *waiting != packet {
            return;
        }
        let target = *target;
        let answer = match result {
            Ok(stream) => {
                let until = Instant::now() + KEPT;
                of_port.insert(client, Asked::Taken { stream, target, until });
                Answer::Pass
            }
            Err(error) => {
                self.remove(&port, &client);
                tracing::debug!(%error, %target, "a published port's endpoint does not take a connection");
                judge(&error, packet)
            }
        };
        self.queue.answer(packet.id, answer);
    }

    /// The connection that was taken for a client who has come.
    pub(crate) fn take(&mut self, port: &PortBinding, client: &SocketAddr) -> Option<TcpStream> {
        if !matches!(self.asked.get(port)?.get(client)?, Asked::Taken { .. }) {
            return None;
        }
        match self.remove(port, client)? {
            Asked::Taken { stream, .. } => Some(stream),
            Asked::Pending { .. } => None,
        }
    }

    fn remove(&mut self, port: &PortBinding, client: &SocketAddr) -> Option<Asked> {
        let of_port = self.asked.get_mut(port)?;
        let removed = of_port.remove(client);
        if of_port.is_empty() {
            self.asked.remove(port);
        }
        removed
    }

    /// Nothing is kept for the clients of a port any more.
    pub(crate) fn end_port(&mut self, port: &PortBinding) {
        self.end_if(|of, _| of == port);
    }

    /// Nothing is kept towards these addresses any more.
    pub(crate) fn forget(&mut self, addresses: &[IpAddr]) {
        self.end_if(|_, target| addresses.contains(&target));
    }

    fn end_if(&mut self, doomed: impl Fn(&PortBinding, IpAddr) -> bool) {
        let queue = Arc::clone(&self.queue);
        self.retain(|port, asked| match asked {
            Asked::Pending { packet, target, task } if doomed(port, *target) => {
                task.abort();
                queue.answer(packet.id, Answer::Drop);
                false
            }
            Asked::Taken { target, .. } => !doomed(port, *target),
            Asked::Pending { .. } => true,
        });
    }

    /// Somebody is being asked, or waits for a client or a port.
    pub(crate) fn is_busy(&self) -> bool {
        !self.asked.is_empty() || !self.early.is_empty()
    }

    /// Lets go of what is kept for clients who have not come, and of packets whose port has not.
    pub(crate) fn expire(&mut self) {
        let now = Instant::now();
        let late = self.early.extract_if(.., |(until, _)| *until <= now);
        // The host itself refuses, unless the socket listens by now.
        late.for_each(|(_, packet)| self.queue.answer(packet.id, Answer::Pass));
        self.retain(|_, asked| !matches!(asked, Asked::Taken { until, .. } if *until <= now));
    }

    fn retain(&mut self, stays: impl Fn(&PortBinding, &Asked) -> bool) {
        self.asked.retain(|port, of_port| {
            of_port.retain(|_, asked| stays(port, asked));
            !of_port.is_empty()
        });
    }
}

async fn connect(port: PortBinding, client: SocketAddr, packet: Packet, target: SocketAddr) -> Connected {
    let result = match tokio::time::timeout(PATIENCE, TcpStream::connect(target)).await {
        Ok(result) => result,
        Err(elapsed) => Err(elapsed.into()),
    };
    Connected { port, client, packet, result }
}

/// What a client hears whose endpoint has not taken a connection.
fn judge(error: &io::Error, packet: Packet) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => refusal(packet),
        // It may ask again.
        io::ErrorKind::TimedOut => Answer::Drop,
        // Not the endpoint's doing: it is asked once more when the host has accepted.
        _ => Answer::Pass,
    }
}

fn refusal(packet: Packet) -> Answer {
    Answer::Again(packet.mark | REFUSED_MARK)
}

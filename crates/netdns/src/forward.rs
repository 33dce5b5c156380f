//! Questions for names that are not ours: asked of the sandbox's upstreams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::netns;
use crate::wire;

/// An upstream that has not answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(4);
/// The next upstream is asked as well after this long without an answer.
const HEDGE: Duration = Duration::from_millis(250);
/// Longest answer over UDP we read, bytes.
const MAX_UDP_BYTES: usize = 4096;

/// Asks the upstreams one after the other, each `HEDGE` after the one before (or at once when that
/// one failed), and takes the first answer that settles the question.
/// They are asked from within `netns`, or from this process's own namespace.
pub(crate) async fn ask(
    packet: Vec<u8>,
    servers: &[SocketAddr],
    netns: Option<&Arc<OwnedFd>>,
) -> Option<Message> {
    let packet = Arc::new(packet);
    let mut waiting = servers.iter();
    let mut asked: JoinSet<io::Result<Message>> = JoinSet::new();
    let mut unsettled = None;
    loop {
        let next = waiting.next();
        if let Some(server) = next {
            asked.spawn(ask_one(packet.clone(), *server, netns.cloned()));
        }
        if asked.is_empty() {
            return unsettled;
        }
        let hedge = sleep(if next.is_some() { HEDGE } else { PATIENCE });
        tokio::select! {
            Some(answer) = asked.join_next() => match answer {
                Ok(Ok(message)) if settles(&message) => return Some(message),
                Ok(Ok(message)) => unsettled = Some(message),
                Ok(Err(error)) => tracing::debug!(%error, "an upstream did not answer"),
                Err(_) => {}
            },
            () = hedge => {}
        }
    }
}

/// SERVFAIL and REFUSED say something about the upstream, not about the name.
fn settles(message: &Message) -> bool {
    !matches!(
        message.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}

async fn ask_one(
    packet: Arc<Vec<u8>>,
    server: SocketAddr,
    netns: Option<Arc<OwnedFd>>,
) -> io::Result<Message> {
    let netns = netns.as_deref();
    let exchange = async {
        let answer = ask_udp(&packet, server, netns).await?;
        if answer.metadata.truncation { ask_tcp(&packet, server, netns).await } else { Ok(answer) }
    };
    timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn opened<T: Send>(netns: Option<&OwnedFd>, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match netns {
        Some(netns) => netns::inside(netns.as_fd(), open),
        None => open(),
    }
}

/// A socket of its own for each question: its random port is half of what a forger has to guess.
async fn ask_udp(packet: &[u8], server: SocketAddr, netns: Option<&OwnedFd>) -> io::Result<Message> {
    let any: SocketAddr = match server.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let open = move || {
        let socket = std::net::UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = opened(netns, open)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; MAX_UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if wire::matches(packet, &answer) => return Ok(answer),
            _ => tracing::debug!(%server, "an answer that was not asked for"),
        }
    }
}

async fn ask_tcp(packet: &[u8], server: SocketAddr, netns: Option<&OwnedFd>) -> io::Result<Message> {
    let open = || match server {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    };
    let socket = opened(netns, open)?;
    let mut stream: TcpStream = socket.connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), packet].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    match Message::from_vec(&buffer) {
        Ok(answer) if wire::matches(packet, &answer) => Ok(answer),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer to the question")),
    }
}

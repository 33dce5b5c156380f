//! Questions for names that are not ours: asked of the sandbox's upstreams.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::netns;
use crate::wire::{Outgoing, settles};

/// An upstream that has not answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(4);
/// An upstream's head start: the next one is asked as well after this long without an answer.
const HEAD_START: Duration = Duration::from_millis(250);
/// For this long an upstream that did not use its head start gets none.
const LATE_FOR: Duration = Duration::from_secs(60);
/// Most upstreams that are remembered as late; beyond it all are forgotten.
const MOST_LATE: usize = 1000;
/// An upstream that is silent for this long is asked once more, for packets get lost; after that without EDNS,
/// which some drop unanswered (RFC 6891 6.2.2).
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest answer over UDP we read, bytes.
const MAX_UDP_BYTES: usize = 4096;

/// Upstreams that were late lately: those after them are asked at once, beside them.
#[derive(Debug)]
pub(crate) struct Late {
    head_start: Duration,
    until: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Default for Late {
    fn default() -> Self {
        Self { head_start: HEAD_START, until: Mutex::default() }
    }
}

impl Late {
    fn head_start(&self, server: SocketAddr, now: Instant) -> Duration {
        let late = self.lock().get(&server).is_some_and(|until| now < *until);
        if late { Duration::ZERO } else { self.head_start }
    }

    fn note(&self, server: SocketAddr, now: Instant) {
        let mut until = self.lock();
        if until.len() >= MOST_LATE {
            until.clear();
        }
        until.insert(server, now + LATE_FOR);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Races the upstreams and takes the first answer that settles the question. Each has a head start on the
/// next, for resolv.conf names the preferred one first and others may know less; it ends when that one fails,
/// and one that was late lately has none.
/// They are asked from within `netns`, or from this process's own namespace.
pub(crate) async fn ask(
    question: Outgoing,
    servers: &[SocketAddr],
    netns: Option<&Arc<OwnedFd>>,
    late: &Late,
) -> Option<Message> {
    let question = Arc::new(question);
    let mut waiting = servers.iter();
    let mut asked: JoinSet<io::Result<Message>> = JoinSet::new();
    let mut unsettled = None;
    loop {
        let next = waiting.next().copied();
        if let Some(server) = next {
            asked.spawn(ask_one(question.clone(), server, netns.cloned()));
        }
        if asked.is_empty() {
            return unsettled;
        }
        let patience = next.map_or(PATIENCE, |server| late.head_start(server, Instant::now()));
        tokio::select! {
            Some(answer) = asked.join_next() => match answer {
                Ok(Ok(message)) if settles(&message) => return Some(message),
                Ok(Ok(message)) => unsettled = Some(message),
                Ok(Err(error)) => tracing::debug!(%error, "an upstream did not answer"),
                Err(_) => {}
            },
            () = sleep(patience) => {
                if let Some(server) = next {
                    late.note(server, Instant::now());
                }
            }
        }
    }
}

async fn ask_one(
    question: Arc<Outgoing>,
    server: SocketAddr,
    netns: Option<Arc<OwnedFd>>,
) -> io::Result<Message> {
    let netns = netns.as_deref();
    let exchange = async {
        let answer = ask_udp(&question, server, netns).await?;
        if answer.metadata.truncation { ask_tcp(&question, server, netns).await } else { Ok(answer) }
    };
    timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn opened<T: Send>(netns: Option<&OwnedFd>, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match netns {
        Some(netns) => netns::inside(netns.as_fd(), open),
        None => open(),
    }
}

/// A socket of its own for each question: its random port is half of what a forger has to guess. An upstream
/// that does not understand EDNS is asked without.
async fn ask_udp(question: &Outgoing, server: SocketAddr, netns: Option<&OwnedFd>) -> io::Result<Message> {
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
    socket.send(&question.extended).await?;
    let mut is_plain = false;
    let mut again = [&question.extended, &question.plain].into_iter();
    loop {
        let heard = heard(&socket, question, server);
        let answer = match again.next() {
            Some(packet) => match timeout(AGAIN_AFTER, heard).await {
                Ok(answer) => answer?,
                Err(_) => {
                    is_plain = again.len() == 0;
                    socket.send(packet).await?;
                    continue;
                }
            },
            None => heard.await?,
        };
        if is_plain || !is_ignorant(&answer) {
            return Ok(answer);
        }
        is_plain = true;
        socket.send(&question.plain).await?;
    }
}

/// The next answer to the question.
async fn heard(socket: &UdpSocket, question: &Outgoing, server: SocketAddr) -> io::Result<Message> {
    let mut buffer = vec![0; MAX_UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if question.is_answered_by(&answer) => return Ok(answer),
            _ => tracing::debug!(%server, "an answer that was not asked for"),
        }
    }
}

/// What a server says that knows no EDNS (RFC 6891 7).
fn is_ignorant(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp)
}

async fn ask_tcp(question: &Outgoing, server: SocketAddr, netns: Option<&OwnedFd>) -> io::Result<Message> {
    let open = || match server {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    };
    let socket = opened(netns, open)?;
    let mut stream: TcpStream = socket.connect(server).await?;
    let packet = &question.extended;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), packet.as_slice()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    match Message::from_vec(&buffer) {
        Ok(answer) if question.is_answered_by(&answer) => Ok(answer),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer to the question")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;
    use crate::wire::Asked;

    fn question() -> Outgoing {
        let mut message = Message::new(8, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A));
        Asked::parse(&message.to_vec().unwrap()).unwrap().forwarded(7).unwrap()
    }

    /// An upstream; it answers with `last`, or with nothing at all. What it hears is told.
    fn upstream(last: Option<u8>) -> (SocketAddr, mpsc::Receiver<()>) {
        upstream_that(move |asked, _| last.map(|last| told(asked, last)))
    }

    /// An upstream that answers by this: what was asked, and how often anything was asked before.
    fn upstream_that(
        say: impl Fn(&Message, usize) -> Option<Message> + Send + 'static,
    ) -> (SocketAddr, mpsc::Receiver<()>) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (tell, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            for before in 0.. {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
                let _ = tell.send(());
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                if let Some(answer) = say(&asked, before) {
                    let _ = socket.send_to(&answer.to_vec().unwrap(), from);
                }
            }
        });
        (address, heard)
    }

    fn told(asked: &Message, last: u8) -> Message {
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.add_query(asked.queries[0].clone());
        let data = RData::A(A([192, 0, 2, last].into()));
        answer.add_answer(Record::from_rdata(asked.queries[0].name.clone(), 60, data));
        answer
    }

    fn address(answer: Option<Message>) -> String {
        answer.unwrap().answers[0].data.to_string()
    }

    #[tokio::test]
    async fn a_silent_upstream_does_not_hold_the_next_one_up() {
        let ((silent, heard), (second, _)) = (upstream(None), upstream(Some(2)));
        let late = Late { head_start: Duration::from_millis(20), ..Late::default() };
        let begun = Instant::now();
        assert_eq!(address(ask(question(), &[silent, second], None, &late).await), "192.0.2.2");
        assert!(begun.elapsed() < PATIENCE, "nobody waited for the first one to be given up");
        heard.recv().unwrap();

        // It was late: with a head start of an hour the second would never be asked.
        let late = Late { head_start: Duration::from_secs(3600), ..late };
        assert_eq!(address(ask(question(), &[silent, second], None, &late).await), "192.0.2.2");
        heard.recv().unwrap();
        let (now, past) = (Instant::now(), Instant::now() + LATE_FOR);
        assert_eq!(late.head_start(silent, now), Duration::ZERO);
        assert_eq!(late.head_start(silent, past), late.head_start, "it gets another chance");
    }

    #[tokio::test]
    async fn the_first_upstream_is_preferred_and_one_that_fails_is_left_at_once() {
        let ((first, _), (second, asked)) = (upstream(Some(1)), upstream(Some(2)));
        let late = Late { head_start: Duration::from_secs(3600), ..Late::default() };
        assert_eq!(address(ask(question(), &[first, second], None, &late).await), "192.0.2.1");
        assert!(asked.try_recv().is_err(), "nobody asked the second");
        // Nobody is at this port: the kernel says so.
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(address(ask(question(), &[closed, second], None, &late).await), "192.0.2.2");
    }

    /// RFC 6891 7 has them say FORMERR, which may be a bare header; some say nothing at all.
    #[tokio::test]
    async fn an_upstream_that_knows_no_edns_is_asked_without() {
        let (refusing, _) = upstream_that(|asked, _| {
            let formerr = || Message::error_msg(asked.metadata.id, OpCode::Query, ResponseCode::FormErr);
            Some(if asked.edns.is_some() { formerr() } else { told(asked, 1) })
        });
        let late = Late::default();
        assert_eq!(address(ask(question(), &[refusing], None, &late).await), "192.0.2.1");
        let (dropping, heard) = upstream_that(|asked, _| asked.edns.is_none().then(|| told(asked, 2)));
        assert_eq!(address(ask(question(), &[dropping], None, &late).await), "192.0.2.2");
        assert_eq!(heard.try_iter().count(), 3);
    }

    #[tokio::test]
    async fn a_lost_question_is_asked_again() {
        let (lossy, heard) = upstream_that(|asked, before| (before > 0).then(|| told(asked, 1)));
        let late = Late::default();
        assert_eq!(address(ask(question(), &[lossy], None, &late).await), "192.0.2.1");
        assert_eq!(heard.try_iter().count(), 2);
    }
}

//! The resolver as a process: it serves a namespace, forwards, outlives its client and is brought back.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what they skip"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use portolan_netcore::dns::{Upstreams, ZoneChange, ZoneRecord, ZoneView};
use portolan_netcore::model::{EndpointId, NetworkId, SandboxId};
use portolan_netdns::{Client, Holdings, Settings};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Enters a network namespace of this thread's own with `lo` up; `None` (and why) without root.
fn own_namespace() -> Option<()> {
    // SAFETY: CLONE_NEWNET concerns this thread only and touches no memory.
    if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
        println!("SKIPPED: needs root to make a network namespace: {error}");
        return None;
    }
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    up.is_ok_and(|status| status.success()).then_some(())
}

fn command(socket: &Path) -> Vec<OsString> {
    let mut program = std::env::current_exe().expect("a test has a path");
    program.pop();
    program.pop();
    vec![program.join("examples/resolver").into(), socket.into()]
}

fn sandbox() -> SandboxId {
    SandboxId::from_bytes([7; 32])
}

fn zones(upstreams: Upstreams) -> Vec<ZoneChange> {
    let network = NetworkId::from_bytes([1; 32]);
    let record = ZoneRecord {
        names: vec!["web".into()],
        addresses: vec![[172, 18, 0, 2].into()],
        ports: vec![],
        unready: false,
    };
    let view = ZoneView { networks: vec![network.clone()], upstreams, ..ZoneView::default() };
    vec![
        ZoneChange::Network { id: network.clone(), name: "front".into() },
        ZoneChange::Record { network, endpoint: EndpointId::from_bytes([2; 32]), record },
        ZoneChange::View { sandbox: sandbox(), view },
    ]
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn ask(port: u16, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(&query(name), (Ipv4Addr::new(127, 0, 0, 11), port)).unwrap();
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn ask_tcp(port: u16, name: &str) -> Message {
    let mut stream = TcpStream::connect((Ipv4Addr::new(127, 0, 0, 11), port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let packet = query(name);
    stream.write_all(&[&(packet.len() as u16).to_be_bytes(), packet.as_slice()].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

fn first_address(message: &Message) -> Option<String> {
    message.answers.first().map(|record| record.data.to_string())
}

fn settings(home: &Path) -> Settings {
    Settings { resolv_conf: home.join("resolv.conf"), host_names: None }
}

struct Setup {
    client: Client,
    netns: PathBuf,
    home: tempfile::TempDir,
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.client.stop(&sandbox());
        self.client.close();
    }
}

fn setup() -> Option<Setup> {
    own_namespace()?;
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("resolver.sock");
    // The thread's own namespace, under a name that other threads can open as well.
    let netns =
        PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), rustix::thread::gettid()));
    Some(Setup { client: Client::new(socket.clone(), command(&socket), settings(home.path())), netns, home })
}

/// An upstream that knows example.org, in this thread's namespace or the one it was spawned from.
fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(asked.metadata.id, OpCode::Query);
            answer.add_query(asked.queries[0].clone());
            if asked.queries[0].name.to_ascii() == "example.org." {
                let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
                answer.add_answer(Record::from_rdata(asked.queries[0].name.clone(), 60, data));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    });
    address
}

#[test]
fn names_are_served_forwarded_and_updated() {
    let Some(setup) = setup() else { return };
    let dead: SocketAddr = "127.0.0.1:1".parse().unwrap();
    setup.client.change(zones(Upstreams::Own(vec![dead, upstream()]))).unwrap();
    let (udp, tcp) = setup.client.serve(&sandbox(), &setup.netns).unwrap();
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"));
    assert_eq!(
        first_address(&ask(udp, "example.org.")).as_deref(),
        Some("192.0.2.1"),
        "past a dead upstream"
    );
    assert_eq!(ask(udp, "nowhere.example.").metadata.response_code, ResponseCode::NXDomain);

    assert_eq!(first_address(&ask_tcp(tcp, "web.front.")).as_deref(), Some("172.18.0.2"));

    setup.client.change(zones(Upstreams::Nobody)).unwrap();
    assert_eq!(ask(udp, "other.example.").metadata.response_code, ResponseCode::ServFail, "nothing leaves");
    setup.client.change(vec![ZoneChange::NoView { sandbox: sandbox() }]).unwrap();
    assert_eq!(ask(udp, "web.").metadata.response_code, ResponseCode::Refused);
}

#[test]
fn a_killed_resolver_is_back_on_the_same_ports() {
    let Some(setup) = setup() else { return };
    setup.client.change(zones(Upstreams::Nobody)).unwrap();
    let (udp, _) = setup.client.serve(&sandbox(), &setup.netns).unwrap();
    let holdings = Held::of(UnixStream::pair().unwrap().0, 3);
    setup.client.start_keeping(holdings.clone());
    holdings.names().into_iter().for_each(|name| setup.client.keep(name));
    eventually("they are kept", || setup.client.kept().count() == 3);
    let pid = setup.client.pid().unwrap();
    let raw = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while setup.client.pid().is_none_or(|now| now == pid) {
        assert!(Instant::now() < deadline, "no new resolver");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"));
    eventually("it keeps what the other kept", || setup.client.kept().count() == 3);
    setup.client.forget(holdings.names()).unwrap();
    holdings.drop_all();
}

/// Has a process stand still; it has when this returns.
fn stop_process(pid: u32) {
    let raw = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::STOP).unwrap();
    let stands_still = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("status")).is_ok_and(|text| text.contains("State:\tT"))
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(stands_still) {
        assert!(Instant::now() < deadline, "it does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stopped, it is as good as hung: it takes connections and questions, and answers none.
#[test]
fn a_resolver_that_hangs_is_replaced() {
    let Some(setup) = setup() else { return };
    setup.client.change(zones(Upstreams::Nobody)).unwrap();
    let (udp, _) = setup.client.serve(&sandbox(), &setup.netns).unwrap();
    let hung = setup.client.pid().unwrap();
    stop_process(hung);
    setup.client.change(Vec::new()).unwrap();
    assert_ne!(setup.client.pid(), Some(hung));
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"), "on the same port");

    // The same when nobody calls: somebody looks now and then.
    let hung = setup.client.pid().unwrap();
    stop_process(hung);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::path::Path::new(&format!("/proc/{hung}/task")).exists() {
        assert!(Instant::now() < deadline, "nobody noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_ne!(setup.client.pid(), Some(hung));
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"));

    // The next daemon finds one that hangs.
    let hung = setup.client.pid().unwrap();
    setup.client.close();
    stop_process(hung);
    let socket = setup.home.path().join("resolver.sock");
    let next = Client::new(socket.clone(), command(&socket), settings(setup.home.path()));
    next.change(zones(Upstreams::Nobody)).unwrap();
    next.serve(&sandbox(), &setup.netns).unwrap();
    assert_ne!(next.pid(), Some(hung));
    next.stop(&sandbox()).unwrap();
    next.close();
}

/// What a daemon holds: one descriptor, by many names.
#[derive(Debug)]
struct Held(Mutex<BTreeMap<String, Arc<OwnedFd>>>);

impl Held {
    fn of(descriptor: impl Into<OwnedFd>, times: usize) -> Arc<Self> {
        let descriptor = Arc::new(descriptor.into());
        Arc::new(Self(Mutex::new((0..times).map(|name| (name.to_string(), descriptor.clone())).collect())))
    }

    fn drop_one(&self, name: &str) -> Vec<String> {
        self.0.lock().unwrap().remove(name);
        vec![name.to_owned()]
    }

    fn drop_all(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl Holdings for Held {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn descriptor(&self, name: &str) -> Option<Arc<OwnedFd>> {
        self.0.lock().unwrap().get(name).cloned()
    }
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_resolver_outlives_its_daemon_and_serves_the_next() {
    let Some(setup) = setup() else { return };
    setup.client.change(zones(Upstreams::Nobody)).unwrap();
    let (udp, tcp) = setup.client.serve(&sandbox(), &setup.netns).unwrap();
    let pid = setup.client.pid().unwrap();
    // One that a daemon forgets before it is killed, and the next knows nothing of.
    let socket = setup.home.path().join("resolver.sock");
    let killed = Client::new(socket.clone(), command(&socket), settings(setup.home.path()));
    killed.change(zones(Upstreams::Nobody)).unwrap();
    let (_, forgotten) = killed.serve(&SandboxId::from_bytes([8; 32]), &setup.netns).unwrap();
    killed.close();
    // One end of a pair is open as long as anybody has it. More than one message takes.
    let (end, kept) = UnixStream::pair().unwrap();
    let holdings = Held::of(kept, 600);
    setup.client.start_keeping(holdings.clone());
    holdings.names().into_iter().for_each(|name| setup.client.keep(name));
    eventually("they are kept", || setup.client.kept().count() == 600);
    setup.client.forget(holdings.drop_one("7")).unwrap();
    assert_eq!(setup.client.kept().count(), 599);
    setup.client.close();
    // Closed with what killed it, as far as the resolver can tell.
    holdings.drop_all();
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"), "no daemon, but names");
    let next = Client::new(socket.clone(), command(&socket), settings(setup.home.path()));
    let is_open = || std::net::TcpStream::connect(("127.0.0.11", forgotten)).is_ok();
    assert!(is_open());
    next.keep_only(&[sandbox()].into()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_open() {
        assert!(Instant::now() < deadline, "its namespace is let go");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (names, kept): (Vec<_>, Vec<_>) = next.kept().unzip();
    assert!(names.len() == 599 && names.contains(&"8".to_owned()) && !names.contains(&"7".to_owned()));
    UnixStream::from(kept.into_iter().next().unwrap()).write_all(b"x").unwrap();
    assert_eq!((&end).read(&mut [0; 2]).unwrap(), 1, "the other end of that pair");
    assert_eq!(next.kept().count(), 599, "and still is kept");
    next.forget(names).unwrap();
    assert_eq!(next.kept().count(), 0);
    assert_eq!((&end).read(&mut [0; 2]).unwrap(), 0, "nobody has it any more");
    next.change(zones(Upstreams::Nobody)).unwrap();
    next.adopt(&sandbox(), &setup.netns, (udp, tcp)).unwrap();
    assert_eq!(next.pid(), Some(pid), "the same process");
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"));
    next.stop(&sandbox()).unwrap();
    next.close();
    let deadline = Instant::now() + Duration::from_secs(5);
    while socket.exists() {
        assert!(Instant::now() < deadline, "an idle resolver ends");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_resolver_whose_socket_is_removed_ends_with_its_daemon() {
    let Some(setup) = setup() else { return };
    setup.client.change(zones(Upstreams::Nobody)).unwrap();
    let (udp, _) = setup.client.serve(&sandbox(), &setup.netns).unwrap();
    let pid = setup.client.pid().unwrap();
    // What it keeps is in the way of whoever starts anew: a table that has an owner, ports that are bound.
    let (end, kept) = UnixStream::pair().unwrap();
    let holdings = Held::of(kept, 1);
    setup.client.start_keeping(holdings.clone());
    holdings.names().into_iter().for_each(|name| setup.client.keep(name));
    eventually("it is kept", || setup.client.kept().count() == 1);
    std::fs::remove_file(setup.home.path().join("resolver.sock")).unwrap();
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"), "while there is a daemon");
    assert_eq!(setup.client.pid(), Some(pid));
    holdings.drop_all();
    setup.client.close();
    end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!((&end).read(&mut [0; 2]).unwrap(), 0, "nobody has it any more");
}

#[test]
fn the_thread_s_namespace_is_private() {
    let Some(setup) = setup() else { return };
    // Guards the other tests: were they in the machine's own namespace, they would prove nothing.
    let machine = std::fs::read_link(format!("/proc/{}/ns/net", std::process::id())).unwrap();
    assert_ne!(std::fs::read_link(&setup.netns).unwrap(), machine);
}

/// CVE-2024-8418, CVE-2026-35406.
#[test]
fn slow_and_senseless_clients_keep_nobody_waiting() {
    let Some(setup) = setup() else { return };
    setup.client.change(zones(Upstreams::Nobody)).unwrap();
    let (udp, tcp) = setup.client.serve(&sandbox(), &setup.netns).unwrap();
    let open = |bytes: &[u8]| {
        let mut stream = TcpStream::connect((Ipv4Addr::new(127, 0, 0, 11), tcp)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // Silent; a length with nothing after it; half a question; no question; lengths that lie.
    let half = &[&[0, 40], &query("web.")[..10]].concat();
    let kinds: [&[u8]; 6] = [b"", &[0xff, 0xff], half, &[0, 0], &[0, 3, 1, 2, 3], &[0xff; 600]];
    let held: Vec<TcpStream> = (0..300).map(|n| open(kinds[n % kinds.len()])).collect();
    let rubbish = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..600 {
        let bytes: Vec<u8> = (0..length).map(|n| (n * 31 + length) as u8).collect();
        rubbish.send_to(&bytes, (Ipv4Addr::new(127, 0, 0, 11), udp)).unwrap();
    }
    let since = Instant::now();
    assert_eq!(first_address(&ask_tcp(tcp, "web.")).as_deref(), Some("172.18.0.2"));
    assert_eq!(first_address(&ask(udp, "web.")).as_deref(), Some("172.18.0.2"));
    assert!(since.elapsed() < Duration::from_secs(1), "after {:?}", since.elapsed());
    drop(held);
}

/// A slow upstream that counts what it is asked.
fn slow_upstream(delay: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, count) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = count.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(delay);
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(asked.metadata.id, OpCode::Query);
            answer.add_query(asked.queries[0].clone());
            let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 7)));
            answer.add_answer(Record::from_rdata(asked.queries[0].name.clone(), 60, data));
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    });
    (address, count)
}

#[test]
fn the_same_question_of_many_goes_out_once() {
    let Some(setup) = setup() else { return };
    let (upstream, count) = slow_upstream(Duration::from_millis(200));
    setup.client.change(zones(Upstreams::Own(vec![upstream]))).unwrap();
    let (udp, _) = setup.client.serve(&sandbox(), &setup.netns).unwrap();
    let sockets: Vec<UdpSocket> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for (n, socket) in sockets.iter().enumerate() {
        let name = if n % 2 == 0 { "busy.example." } else { "BUSY.example." };
        socket.send_to(&query(name), (Ipv4Addr::new(127, 0, 0, 11), udp)).unwrap();
    }
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(first_address(&answer).as_deref(), Some("192.0.2.7"));
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    ask(udp, "busy.example.");
    assert_eq!(count.load(Ordering::Relaxed), 1, "and is remembered");
}

#[test]
fn the_host_is_answered_where_it_asks_to_be() {
    let Some(setup) = setup() else { return };
    let free = UdpSocket::bind("127.0.0.54:0").unwrap().local_addr().unwrap();
    let socket = setup.home.path().join("host.sock");
    let with = |address| Settings { host_names: Some(address), ..settings(setup.home.path()) };
    let client = Client::new(socket.clone(), command(&socket), with(free));
    client.open().unwrap();
    let ask = |name: &str| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(&query(name), free).unwrap();
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    };
    client.change(zones(Upstreams::Nobody)).unwrap();
    assert_eq!(first_address(&ask("web.front.portolan.internal.")).as_deref(), Some("172.18.0.2"));
    assert_eq!(ask("no.front.portolan.internal.").metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(ask("example.org.").metadata.response_code, ResponseCode::Refused);
    let other = setup.home.path().join("other.sock");
    let taken = Client::new(other.clone(), command(&other), with(free));
    let error = taken.open().unwrap_err().to_string();
    assert!(error.contains(&free.to_string()) && error.contains("in use"), "{error}");
    client.close();
}

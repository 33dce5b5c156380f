//! Holding published host ports, so that no other program takes a port whose packets we redirect, and
//! nobody publishes a port that a program of the host serves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_netcore::model::{PortBinding, Proto};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, socket_with, sockopt};
use rustix::process::{Resource, getrlimit};

use crate::keeper::is_of_this_namespace;
use crate::shelf::{self, Shelf};

/// Longest that a refusal may take to find out who has the port.
const HOLDER_BUDGET: Duration = Duration::from_millis(500);

/// A port that cannot be held. The texts are Docker's, and who has the port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody has it.
    #[error("failed to bind host port {binding}: address already in use{}", holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    InUse {
        /// `address:port/protocol`.
        binding: String,
        /// Who, if that could be found out quickly.
        holder: Option<Holder>,
    },
    /// The kernel refused, for instance because the host does not have the address.
    #[error("failed to bind host port {binding}: {}", crate::error::words(source))]
    Refused {
        /// `address:port/protocol`.
        binding: String,
        /// Why.
        source: io::Error,
    },
}

impl PortError {
    /// The errno.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::InUse { .. } => Some(libc::EADDRINUSE),
            Self::Refused { source, .. } => source.raw_os_error(),
        }
    }
}

/// What an earlier process left is not the socket that its name says.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It cannot be read.
    #[error("it is no name of a port")]
    Name,
    /// Some other socket, or none.
    #[error("it is not bound there")]
    Socket,
    /// Of another network namespace.
    #[error("it is of another network namespace")]
    Namespace,
    /// It is held already.
    #[error("the port is held")]
    Held,
}

/// A process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name (`/proc/<pid>/comm`).
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

type Key = (Proto, IpAddr, u16);

/// The sockets that hold ports. They are bound and never listen: packets are redirected before any
/// socket would see them.
///
/// A descriptor each would be too many for ten thousand ports under a usual limit on open files: beyond
/// half of it, the sockets that have waited longest are put on shelves.
#[derive(Debug)]
pub struct HeldPorts(Mutex<State>);

#[derive(Debug)]
struct State {
    held: BTreeMap<Key, Held>,
    /// Most sockets to have a descriptor of.
    most: usize,
    /// How many have one.
    open: usize,
    /// Those that may be put away, oldest first; some are gone since, or in use.
    at_hand: VecDeque<Key>,
    shelves: BTreeMap<u64, (Shelf, Vec<Key>)>,
    next_shelf: u64,
}

#[derive(Debug)]
struct Held {
    binding: PortBinding,
    place: Place,
}

/// Where a held port's socket is.
#[derive(Debug)]
enum Place {
    Open(Arc<OwnedFd>),
    Shelf(u64),
    /// The kernel has no SCTP: then no program can have such a port either.
    Nowhere,
}

impl Default for HeldPorts {
    /// Nothing is held; half of the limit on open files is for descriptors of ports.
    fn default() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::with_most(usize::try_from(limit / 2).unwrap_or(usize::MAX))
    }
}

impl HeldPorts {
    /// Keeps no more than `most` descriptors, as far as sockets can be put away.
    pub(crate) fn with_most(most: usize) -> Self {
        Self(Mutex::new(State {
            held: BTreeMap::new(),
            most,
            open: 0,
            at_hand: VecDeque::new(),
            shelves: BTreeMap::new(),
            next_shelf: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds the port in the calling thread's namespace.
    pub fn hold(&self, binding: &PortBinding) -> Result<(), PortError> {
        let key = key(binding);
        let in_use = |holder| PortError::InUse { binding: text(binding), holder };
        let mut state = self.lock();
        if state.held.contains_key(&key) {
            return Err(in_use(None));
        }
        match open(binding) {
            Ok(socket) => {
                state.add(key, binding, socket);
                Ok(())
            }
            Err(Errno::ADDRINUSE) => {
                let own = state.sockets_at(binding);
                drop(state);
                Err(in_use(holder(binding, &own)))
            }
            Err(errno) => Err(PortError::Refused { binding: text(binding), source: errno.into() }),
        }
    }

    /// Takes over a socket that an earlier process held a port with, by the port's [`name`].
    pub(crate) fn adopt(&self, name: &str, socket: OwnedFd) -> Result<(), AdoptError> {
        let binding = named(name).ok_or(AdoptError::Name)?;
        let address = SocketAddr::new(binding.host_ip, binding.host_port);
        let bound = getsockname(&socket).ok().and_then(|bound| SocketAddr::try_from(bound).ok());
        if bound.is_none_or(|bound| (bound.ip(), bound.port()) != (address.ip(), address.port())) {
            return Err(AdoptError::Socket);
        }
        if !is_of_this_namespace(&socket) {
            return Err(AdoptError::Namespace);
        }
        if binding.proto == Proto::Udp {
            // It may have been listened on.
            discard_all(&socket).map_err(|_| AdoptError::Socket)?;
        }
        let mut state = self.lock();
        let key = key(&binding);
        if state.held.contains_key(&key) {
            return Err(AdoptError::Held);
        }
        state.add(key, &binding, Some(socket));
        Ok(())
    }

    /// The socket of the port with this [`name`], if it is held by one.
    pub(crate) fn descriptor(&self, name: &str) -> Option<Arc<OwnedFd>> {
        let key = key(&named(name)?);
        let mut state = self.lock();
        if let Err(error) = state.fetch(&key) {
            tracing::error!(%error, "cannot get the socket of {name}");
        }
        let socket = match &state.held.get(&key)?.place {
            Place::Open(socket) => Some(Arc::clone(socket)),
            _ => None,
        };
        state.tidy();
        socket
    }

    /// The names of all ports held.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let names: Vec<String> = self.lock().held.values().map(|held| name(&held.binding)).collect();
        names.into_iter()
    }

    /// Lets go of the port. One that is not held is none of our business.
    pub fn release(&self, binding: &PortBinding) {
        let mut state = self.lock();
        let key = key(binding);
        if let Err(error) = state.fetch(&key) {
            tracing::error!(%error, "cannot let go of {}", text(binding));
        }
        if let Some(Held { place: Place::Open(_), .. }) = state.held.remove(&key) {
            state.open -= 1;
        }
        state.tidy();
    }

    /// The socket that holds a TCP or UDP port, for a proxy to listen on. From now on it hears.
    pub(crate) fn socket(&self, binding: &PortBinding) -> io::Result<Arc<OwnedFd>> {
        let mut state = self.lock();
        let key = key(binding);
        state.fetch(&key)?;
        let socket = match state.held.get(&key).map(|held| &held.place) {
            Some(Place::Open(_)) if binding.proto == Proto::Sctp => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("only tcp and udp can be proxied, not {}", text(binding)),
            )),
            Some(Place::Open(socket)) => {
                if binding.proto == Proto::Udp {
                    discard_none(socket)?;
                }
                Ok(Arc::clone(socket))
            }
            _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is not held", text(binding)))),
        };
        state.tidy();
        socket
    }

    /// Ends listening on a held port; the port stays bound.
    pub(crate) fn stop_listening(&self, binding: &PortBinding) -> io::Result<()> {
        let socket = self.socket(binding)?;
        if binding.proto == Proto::Udp {
            return Ok(discard_all(&socket)?);
        }
        match rustix::net::shutdown(&socket, rustix::net::Shutdown::Read) {
            // It did not listen.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// How many sockets have a descriptor.
    #[cfg(test)]
    pub(crate) fn at_hand(&self) -> usize {
        self.lock().open
    }

    /// Every port held.
    pub fn list(&self) -> BTreeSet<PortBinding> {
        self.lock().held.values().map(|held| held.binding.clone()).collect()
    }
}

impl State {
    /// `socket:[inode]` of what holds this port on other addresses: that may be listened on, here and in a keeper.
    fn sockets_at(&self, binding: &PortBinding) -> BTreeSet<String> {
        let same = |(key, _): &(&Key, &Held)| (key.0, key.2) == (binding.proto, binding.host_port);
        let sockets = self.held.iter().filter(same).filter_map(|(_, held)| match &held.place {
            Place::Open(socket) => rustix::fs::fstat(socket).ok(),
            _ => None,
        });
        sockets.map(|stat| format!("socket:[{}]", stat.st_ino)).collect()
    }

    fn add(&mut self, key: Key, binding: &PortBinding, socket: Option<OwnedFd>) {
        let place = match socket {
            Some(socket) => {
                self.open += 1;
                self.at_hand.push_back(key);
                Place::Open(Arc::new(socket))
            }
            None => Place::Nowhere,
        };
        self.held.insert(key, Held { binding: binding.clone(), place });
        self.tidy();
    }

    /// Gets a port's socket back; the others of its shelf come with it.
    fn fetch(&mut self, key: &Key) -> io::Result<()> {
        let Some(Held { place: Place::Shelf(shelf), .. }) = self.held.get(key) else { return Ok(()) };
        let Some((shelf, keys)) = self.shelves.remove(shelf) else { return Ok(()) };
        let sockets = shelf.take()?;
        if sockets.len() < keys.len() {
            // Out of descriptors in spite of `most`: somebody else has them.
            tracing::error!(lost = keys.len() - sockets.len(), "published ports are not held any more");
        }
        for (key, socket) in keys.into_iter().zip(sockets) {
            if let Some(held) = self.held.get_mut(&key) {
                held.place = Place::Open(Arc::new(socket));
                self.open += 1;
                self.at_hand.push_back(key);
            }
        }
        Ok(())
    }

    /// Puts sockets away while there are too many descriptors.
    fn tidy(&mut self) {
        while self.open > self.most {
            let mut chosen: Vec<(Key, Arc<OwnedFd>)> = Vec::with_capacity(shelf::ROOM);
            while chosen.len() < shelf::ROOM
                && let Some(key) = self.at_hand.pop_front()
            {
                // What a proxy listens on stays.
                if let Some(Held { place: Place::Open(socket), .. }) = self.held.get(&key)
                    && Arc::strong_count(socket) == 1
                    && !chosen.iter().any(|(other, _)| *other == key)
                {
                    chosen.push((key, Arc::clone(socket)));
                }
            }
            if chosen.len() < shelf::WORTH {
                // Others come soon: what proxies listen on may be all the rest, and would be put away one by one.
                self.at_hand.extend(chosen.into_iter().map(|(key, _)| key));
                return;
            }
            let descriptors: Vec<BorrowedFd<'_>> = chosen.iter().map(|(_, socket)| socket.as_fd()).collect();
            match Shelf::put(&descriptors) {
                Ok(shelf) => self.shelve(shelf, chosen.into_iter().map(|(key, _)| key).collect()),
                Err(error) => {
                    // They stay where they are: the limit has as much room again.
                    tracing::debug!(%error, "cannot put sockets of published ports away");
                    self.at_hand.extend(chosen.into_iter().map(|(key, _)| key));
                    return;
                }
            }
        }
    }

    fn shelve(&mut self, shelf: Shelf, keys: Vec<Key>) {
        for key in &keys {
            if let Some(held) = self.held.get_mut(key) {
                held.place = Place::Shelf(self.next_shelf);
                self.open -= 1;
            }
        }
        self.shelves.insert(self.next_shelf, (shelf, keys));
        self.next_shelf += 1;
    }
}

fn key(binding: &PortBinding) -> Key {
    (binding.proto, binding.host_ip, binding.host_port)
}

/// What a port is called where it is kept: `address:port/protocol`.
pub(crate) fn name(binding: &PortBinding) -> String {
    text(binding)
}

fn named(name: &str) -> Option<PortBinding> {
    let (address, proto) = name.rsplit_once('/')?;
    let address: SocketAddr = address.parse().ok()?;
    let proto = proto.parse().ok()?;
    Some(PortBinding { proto, container_port: 0, host_ip: address.ip(), host_port: address.port() })
}

fn text(binding: &PortBinding) -> String {
    format!("{}/{}", SocketAddr::new(binding.host_ip, binding.host_port), binding.proto)
}

fn open(binding: &PortBinding) -> Result<Option<OwnedFd>, Errno> {
    let family = if binding.host_ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match binding.proto {
        Proto::Tcp => (SocketType::STREAM, ipproto::TCP),
        Proto::Udp => (SocketType::DGRAM, ipproto::UDP),
        Proto::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)) {
        Ok(socket) => socket,
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if binding.proto == Proto::Sctp => {
            return Ok(None);
        }
        Err(errno) => return Err(errno),
    };
    if binding.host_ip.is_ipv6() {
        // [::] must leave 0.0.0.0 to its own binding.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if binding.proto == Proto::Udp {
        discard_all(&socket)?;
    }
    let address = SocketAddr::new(binding.host_ip, binding.host_port);
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) if binding.proto == Proto::Tcp => {
            // Connections of an earlier server in TIME_WAIT are no reason to refuse. Once bound, the
            // option goes off again: with it on, a program that sets it could listen beside us.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            sockopt::set_socket_reuseaddr(&socket, false)?;
        }
        result => result?,
    }
    Ok(Some(socket))
}

/// Datagrams that reach the socket in spite of the redirection must not fill its queue.
fn discard_all(socket: &OwnedFd) -> Result<(), Errno> {
    const BPF_RET_K: u16 = 0x06;
    let mut program = [libc::sock_filter { code: BPF_RET_K, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the descriptor is open; the option's value is a whole `sock_fprog` whose program of one
    // instruction outlives the call, which copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

/// Ends [`discard_all`]; it is no failure if it was not in force.
fn discard_none(socket: &OwnedFd) -> io::Result<()> {
    let nothing: libc::c_int = 0;
    // SAFETY: the descriptor is open; the value, which the kernel does not look at, outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const nothing).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        error => Err(error),
    }
}

/// The process that has the port, from `/proc`. A socket that is bound without listening is not listed
/// there, and descriptors of other users' processes may be hidden: then nobody is named.
fn holder(binding: &PortBinding, own: &BTreeSet<String>) -> Option<Holder> {
    let deadline = Instant::now() + HOLDER_BUDGET;
    let inodes: Vec<String> = inodes(binding).into_iter().filter(|inode| !own.contains(inode)).collect();
    if inodes.is_empty() {
        return None;
    }
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if Instant::now() > deadline {
            return None;
        }
        let sockets = sockets_of(&entry.path().join("fd"));
        if inodes.iter().any(|inode| sockets.contains(inode)) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(Holder { pid, name: name.trim_end().to_owned() });
        }
    }
    None
}

/// `socket:[inode]` of the sockets among some process's descriptors, as far as they may be looked at.
fn sockets_of(descriptors: &Path) -> BTreeSet<String> {
    let Ok(descriptors) = std::fs::read_dir(descriptors) else { return BTreeSet::new() };
    let targets = descriptors.flatten().filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
    let names = targets.filter_map(|target| target.into_os_string().into_string().ok());
    names.filter(|name| name.starts_with("socket:")).collect()
}

/// `socket:[inode]` of the sockets that have the port, from `/proc/net/{tcp,tcp6,udp,udp6}`.
fn inodes(binding: &PortBinding) -> Vec<String> {
    const TCP_LISTEN: &str = "0A";
    let tables: &[&str] = match binding.proto {
        Proto::Tcp => &["tcp", "tcp6"],
        Proto::Udp => &["udp", "udp6"],
        Proto::Sctp => &[],
    };
    let suffix = format!(":{:04X}", binding.host_port);
    let mut found = Vec::new();
    for table in tables {
        let Ok(text) = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")) else { continue };
        for line in text.lines().skip(1) {
            // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { continue };
            if local.ends_with(&suffix) && (binding.proto == Proto::Udp || *state == TCP_LISTEN) {
                found.push(format!("socket:[{inode}]"));
            }
        }
    }
    found
}

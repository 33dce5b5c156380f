//! Sockets that clients come in by, and the file that says who we are.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, sockopt};
use tokio::net::{TcpListener, UnixListener};

use super::stream::Stream;
use super::{ServeError, host_text};
use crate::config::Host;

/// A socket that clients come in by.
#[derive(Debug)]
pub(super) struct Listener {
    name: String,
    kind: Kind,
    /// Goes with the listener.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// As `--host` has it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.kind {
            Kind::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// A socket's file, removed with its listener unless another daemon has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Listens.
pub(super) fn listen(host: &Host, group: Option<&str>) -> Result<Vec<Listener>, ServeError> {
    let name = host_text(host);
    let fail = |reason: io::Error| ServeError::Listen { host: name.clone(), reason };
    match host {
        Host::Unix(path) => {
            if StdUnixStream::connect(path).is_ok() {
                return Err(ServeError::Taken(name));
            }
            let (listener, file) = unix(path, group).map_err(fail)?;
            Ok(vec![Listener { name, kind: Kind::Unix(listener), _file: Some(file) }])
        }
        Host::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address).map_err(fail)?;
            listener.set_nonblocking(true).map_err(fail)?;
            let listener = TcpListener::from_std(listener).map_err(fail)?;
            Ok(vec![Listener { name, kind: Kind::Tcp(listener), _file: None }])
        }
        Host::Systemd => systemd().map_err(fail),
    }
}

fn unix(path: &Path, group: Option<&str>) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::symlink_metadata(path) {
        // Nobody answered: it is left from a daemon that was killed.
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = StdUnixListener::bind(path)?;
    let group = match group {
        Some(name) => Some(
            group_id(name)?
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("group {name} not found")))?,
        ),
        None => match group_id("docker")? {
            Some(id) => Some(id),
            None => group_id("portolan")?,
        },
    };
    std::os::unix::fs::chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    let inode = fs::metadata(path)?.ino();
    Ok((UnixListener::from_std(listener)?, SocketFile { path: path.to_owned(), inode }))
}

/// Looks a group up in /etc/group (group(5)); a number is taken as it is.
fn group_id(name: &str) -> io::Result<Option<u32>> {
    if let Ok(id) = name.parse() {
        return Ok(Some(id));
    }
    let text = match fs::read_to_string("/etc/group") {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(find_group(&text, name))
}

fn find_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

/// The sockets that systemd opened for us (sd_listen_fds(3)): `LISTEN_FDS` of them, from descriptor 3 on, if
/// `LISTEN_PID` is us.
fn systemd() -> io::Result<Vec<Listener>> {
    const FIRST: i32 = 3;
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let count = match variable("LISTEN_PID") {
        Some(pid) if pid.cast_unsigned() == std::process::id() => variable("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    };
    if count <= 0 {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no sockets found via socket activation: make sure the service was started by systemd",
        ));
    }
    (FIRST..FIRST + count).map(passed_listener).collect()
}

fn passed_listener(fd: i32) -> io::Result<Listener> {
    // SAFETY: systemd passed this descriptor to this process (LISTEN_PID), and nobody else here takes it: hosts are
    // listened on once.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    let name = format!("fd://{fd}");
    let kind = match sockopt::socket_domain(socket.as_fd())? {
        AddressFamily::UNIX => Kind::Unix(UnixListener::from_std(StdUnixListener::from(socket))?),
        _ => Kind::Tcp(TcpListener::from_std(std::net::TcpListener::from(socket))?),
    };
    Ok(Listener { name, kind, _file: None })
}

/// Tells systemd how far we are (sd_notify(3)), if it asked.
pub(super) fn notify_systemd(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || {
        let sender = UnixDatagram::unbound()?;
        let path = PathBuf::from(&socket);
        match path.to_str().and_then(|text| text.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                sender.send_to_addr(message.as_bytes(), &address)
            }
            None => sender.send_to(message.as_bytes(), &path),
        }
    };
    if let Err(error) = send() {
        tracing::warn!("cannot notify systemd: {error}");
    }
}

/// The file with our process id, removed at the end.
#[derive(Debug)]
pub(super) struct Pidfile(PathBuf);

impl Pidfile {
    /// Writes it, unless it names a process that runs.
    pub(super) fn write(path: &Path) -> Result<Self, ServeError> {
        let fail = |reason: String| ServeError::Pidfile { path: path.to_owned(), reason };
        let own = std::process::id();
        if let Some(pid) = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok())
            && pid != own
            && is_daemon(pid)
        {
            return Err(fail(format!("process with PID {pid} is still running")));
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| fail(error.to_string()))?;
        }
        let written = fs::File::create(path).and_then(|mut file| write!(file, "{own}"));
        written.map_err(|error| fail(error.to_string()))?;
        Ok(Pidfile(path.to_owned()))
    }
}

/// Whether a process runs this very program: process ids are used again after a reboot.
fn is_daemon(pid: u32) -> bool {
    let program =
        |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).map(|found| (found.dev(), found.ino()));
    matches!((program(&pid.to_string()), program("self")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let text = "root:x:0:\ndockerroot:x:998:\ndocker:x:999:alice\n";
        assert_eq!(find_group(text, "docker"), Some(999));
        assert_eq!(find_group(text, "portolan"), None);
    }

    #[tokio::test]
    async fn the_socket_is_its_group_s() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let own = fs::metadata(dir.path()).unwrap();
        // A group of nobody's, or what anybody may give to.
        let group = if own.uid() == 0 { 54321 } else { own.gid() };
        let path = dir.path().join("g.sock");
        let _listeners = listen(&Host::Unix(path.clone()), Some(&group.to_string())).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.gid(), found.uid(), found.permissions().mode() & 0o777), (group, own.uid(), 0o660));
        let nobody = listen(&Host::Unix(dir.path().join("n.sock")), Some("no-such-group"));
        assert!(matches!(nobody, Err(ServeError::Listen { .. })), "{:?}", nobody.err());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        let host = Host::Unix(path.clone());
        let listeners = listen(&host, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(listen(&host, None), Err(ServeError::Taken(_))));
        drop(listeners);
        assert!(!path.exists());
    }

    #[test]
    fn a_pidfile_of_a_dead_daemon_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/a.pid");
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(&path, "999999999").unwrap();
        let pidfile = Pidfile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(pidfile);
        assert!(!path.exists());
    }
}

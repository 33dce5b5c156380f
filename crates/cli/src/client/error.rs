//! Why a request failed, in the words that users of Docker know, with the way out.

use std::io;

use http::StatusCode;
use thiserror::Error;

use super::Host;

/// Why a request failed.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// There is no connection to the daemon.
    #[error("{}", connect_text(host, source))]
    Connect {
        /// Where the daemon should be.
        host: Host,
        /// What the kernel said.
        source: io::Error,
    },
    /// The daemon answered with an error.
    #[error("Error response from daemon: {message}")]
    Api {
        /// The HTTP status.
        status: StatusCode,
        /// The daemon's text.
        message: String,
    },
    /// The daemon knows nothing of what only ours has.
    #[error("the daemon at {host} has no {target}: it is not Portolan, or an older one")]
    NotOurs {
        /// Where the daemon is.
        host: Host,
        /// The path asked for.
        target: String,
    },
    /// The answer cannot be understood.
    #[error("cannot read the daemon's answer to {target}: {why}")]
    Answer {
        /// The path and query asked for.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}")]
    Broken(String),
}

impl ClientError {
    /// Whether the daemon said "not found".
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Api { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// The daemon's own text, or this error's text.
    pub(crate) fn message(&self) -> String {
        match self {
            ClientError::Api { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

fn connect_text(host: &Host, source: &io::Error) -> String {
    match (host, source.kind()) {
        (Host::Unix(path), io::ErrorKind::PermissionDenied) => format!(
            "permission denied while trying to connect to the daemon socket at {host}: \
             run as root, or add yourself to the group that owns {} (sudo usermod -aG {} $USER, then log in again)",
            path.display(),
            group_of(path).unwrap_or_else(|| "docker".to_owned()),
        ),
        (Host::Unix(_), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => format!(
            "Cannot connect to the daemon at {host}. Is the daemon running?\n\
             Start it with: {}",
            start_command(host)
        ),
        _ => format!("Cannot connect to the daemon at {host}: {source}. Is the daemon running?"),
    }
}

fn start_command(host: &Host) -> String {
    match host {
        Host::Unix(path) if path != std::path::Path::new(super::host::DEFAULT_SOCKET) => {
            format!("sudo portolan daemon --host {host}")
        }
        _ => "sudo portolan daemon".to_owned(),
    }
}

/// The name of the group that owns a file, from /etc/group.
fn group_of(path: &std::path::Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let gid = std::fs::metadata(path).ok()?.gid().to_string();
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}

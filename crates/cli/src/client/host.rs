//! Where a daemon listens, and connecting to it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// The socket that the daemon listens on unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/portolan/portolan.sock";

/// A daemon's address.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address, `host:port`.
    Tcp(String),
}

/// A byte stream both ways.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

impl Host {
    /// Reads an address as `--host` takes it: `unix:///path`, `tcp://host:port`, `/path`.
    ///
    /// # Errors
    /// A text that names the address when it is of another kind.
    pub(crate) fn parse(text: &str) -> Result<Host, String> {
        let text = text.trim();
        match text.split_once("://") {
            Some(("unix", "")) => Ok(Host::Unix(PathBuf::from(DEFAULT_SOCKET))),
            Some(("unix", path)) => Ok(Host::Unix(PathBuf::from(path))),
            Some(("tcp" | "http", address)) => {
                let address = address.trim_end_matches('/');
                let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let (host, port) = match (address, has_port) {
                    ("", _) => ("127.0.0.1:2375".to_owned(), ""),
                    (address, true) => (address.to_owned(), ""),
                    (address, false) => (address.to_owned(), ":2375"),
                };
                Ok(Host::Tcp(format!("{host}{port}")))
            }
            Some((scheme, _)) => Err(format!(
                "unable to parse docker host `{text}`: the protocol {scheme} is not supported (use unix:// or tcp://)"
            )),
            None if text.starts_with('/') => Ok(Host::Unix(PathBuf::from(text))),
            None => Err(format!("unable to parse docker host `{text}`")),
        }
    }

    /// The `Host` header's value.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Host::Unix(_) => "localhost",
            Host::Tcp(address) => address,
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) async fn connect(&self) -> io::Result<Pin<Box<dyn Connection>>> {
        Ok(match self {
            Host::Unix(path) => Box::pin(UnixStream::connect(path).await?),
            Host::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Box::pin(stream)
            }
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Unix(path) => write!(f, "unix://{}", path.display()),
            Host::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Host::parse("unix:///a/b.sock").unwrap(), Host::Unix("/a/b.sock".into()));
        assert_eq!(Host::parse("tcp://10.0.0.1").unwrap(), Host::Tcp("10.0.0.1:2375".into()));
        assert_eq!(Host::parse("tcp://[::1]:80").unwrap(), Host::Tcp("[::1]:80".into()));
        assert!(Host::parse("ssh://x").unwrap_err().contains("ssh"));
    }
}

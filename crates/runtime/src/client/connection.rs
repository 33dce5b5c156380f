//! A connection to a shim: messages out, messages in.

use std::os::fd::AsRawFd;
use std::path::Path;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::wire::{self, Request, Response};
use crate::{Error, Result};

/// Connects to a socket by way of its directory's descriptor: `sun_path` ends at 108 bytes, an
/// exec root may be longer.
pub(super) async fn connect(directory: &Path) -> std::io::Result<UnixStream> {
    let handle = std::fs::File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/s", handle.as_raw_fd())).await
}

pub(super) async fn send(stream: &mut UnixStream, request: &Request) -> std::io::Result<()> {
    stream.write_all(&wire::encode(request)).await
}

pub(super) async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
    let lost = |source| Error::Io { what: "read the shim's answer".into(), source };
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(lost)?;
    let mut body = vec![0; wire::announced(head)?];
    stream.read_exact(&mut body).await.map_err(lost)?;
    wire::decode(&body)
}

/// One request, one answer; refusals are errors.
pub(super) async fn call(stream: &mut UnixStream, id: &str, request: &Request) -> Result<Response> {
    send(stream, request).await.map_err(Error::io(format!("ask the shim of {id}")))?;
    receive::<Response>(stream).await?.into_result(id)
}

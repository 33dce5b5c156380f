//! A connection to a shim: messages out, messages in.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::wire::{self, Request, Response};
use crate::{Error, Result, state};

/// How long it is tried to connect to a shim that lives.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to a shim. That it is gone is said only of one that is: nobody listens and its process has ended.
/// What else is in the way passes (no descriptors left, too many clients at once) or is told.
pub(super) async fn connect(directory: &Path, id: &str) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let error = match connect_now(directory, id).await? {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(Error::Io { what: format!("connect to the shim of container {id}"), source: error });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// The same without patience: the inner error says why not now.
pub(super) async fn connect_now(directory: &Path, id: &str) -> Result<io::Result<UnixStream>> {
    let connected = try_connect(directory).await;
    let kind = connected.as_ref().err().map(io::Error::kind);
    let nobody = matches!(kind, Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused));
    if nobody && is_dead(directory).await {
        return Err(Error::ShimGone { id: id.to_owned() });
    }
    Ok(connected)
}

/// By way of the directory's descriptor: `sun_path` ends at 108 bytes, an exec root may be longer.
async fn try_connect(directory: &Path) -> io::Result<UnixStream> {
    let handle = std::fs::File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/s", handle.as_raw_fd())).await
}

/// Whether something that nobody tells of comes true within a time.
pub(super) async fn soon(patience: Duration, is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

async fn is_dead(directory: &Path) -> bool {
    let directory = directory.to_owned();
    // Files that cannot be read say nothing.
    let looked = tokio::task::spawn_blocking(move || state::is_dead(&directory)).await;
    looked.is_ok_and(|dead| dead.unwrap_or(false))
}

pub(super) async fn send(stream: &mut UnixStream, request: &Request) -> io::Result<()> {
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

/// One request, one answer within a time; refusals are errors.
pub(super) async fn ask(
    stream: &mut UnixStream,
    id: &str,
    request: &Request,
    patience: Duration,
) -> Result<Response> {
    match tokio::time::timeout(patience, call(stream, id, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Silent { id: id.to_owned() }),
    }
}

/// One request, one answer, however long it takes; refusals are errors.
pub(super) async fn call(stream: &mut UnixStream, id: &str, request: &Request) -> Result<Response> {
    send(stream, request).await.map_err(Error::io(format!("ask the shim of {id}")))?;
    receive::<Response>(stream).await?.into_result(id)
}

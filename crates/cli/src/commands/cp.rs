//! `cp`: files between a container and here.

mod extract;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use bytes::Bytes;
use http::Method;
use portolan_api::PathStat;
use tokio::sync::mpsc;

use super::create::container_path;
use super::transfer::{read_chunks, received};
use crate::client::{Upload, empty, target, upload};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::session::{Session, line_err};
use crate::units;
use extract::extract;

/// `cp`.
pub(super) const CP: Command = Command {
    flags: &[&[
        Flag::switch("archive", "Keep owners and groups").short('a'),
        Flag::switch("follow-link", "Copy what a symlink at the source points to").short('L'),
        Flag::switch("quiet", "Do not say what was copied").short('q'),
    ]],
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-
	{program} cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    also: &["container cp", "cp"],
    examples: &[("", "cp web:/etc/nginx/nginx.conf ."), ("", "cp index.html web:/usr/share/nginx/html/")],
    ..Command::new(
        "cp",
        "[OPTIONS] SRC DEST",
        "Copy files/folders between a container and the local filesystem",
        Arity::Exactly(2),
        |session, matches| Box::pin(cp(session, matches)),
    )
};

/// Bit of a directory in Go's file modes.
const MODE_DIR: u32 = 1 << 31;
/// Bit of a symlink in Go's file modes.
const MODE_SYMLINK: u32 = 1 << 27;

async fn cp(session: Session, matches: Matches) -> Outcome {
    let (source, destination) = (&matches.args[0], &matches.args[1]);
    match (split(source), split(destination)) {
        (Some(_), Some(_)) => Err(Failure::new("copying between containers is not supported")),
        (None, None) => Err(Failure::new("must specify at least one container source")),
        (Some((container, path)), None) => {
            from_container(&session, &matches, container, path, destination).await
        }
        (None, Some((container, path))) => to_container(&session, &matches, source, container, path).await,
    }
}

/// `container:path`; a local path may start with `/` or `.` to be none.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') || text.starts_with('.') {
        return None;
    }
    text.split_once(':').filter(|(container, _)| !container.is_empty())
}

fn path_stat(headers: &http::HeaderMap) -> Option<PathStat> {
    let text = headers.get("x-docker-container-path-stat")?.as_bytes();
    let json = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    serde_json::from_slice(&json).ok()
}

async fn stat(session: &Session, container: &str, path: &str) -> Result<Option<PathStat>, Failure> {
    let path = target(&container_path(container, "/archive"), &[("path", path)]);
    match session.client.head(&path).await {
        Ok(headers) => Ok(path_stat(&headers)),
        Err(why) if why.is_not_found() => Ok(None),
        Err(why) => Err(why.into()),
    }
}

/// Where a symlink at `path` points to.
fn link_target(path: &str, stat: &PathStat) -> String {
    if stat.link_target.starts_with('/') {
        return stat.link_target.clone();
    }
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    parent.join(&stat.link_target).display().to_string()
}

async fn from_container(
    session: &Session,
    matches: &Matches,
    container: &str,
    path: &str,
    destination: &str,
) -> Outcome {
    let mut path = path.to_owned();
    if matches.on("follow-link")
        && let Some(found) = stat(session, container, &path).await?
        && found.mode & MODE_SYMLINK != 0
    {
        path = link_target(&path, &found);
    }
    let request = target(&container_path(container, "/archive"), &[("path", &path)]);
    let (headers, mut body) = session.client.stream(Method::GET, &request, empty()).await?;
    if destination == "-" {
        while let Some(chunk) = body.chunk().await? {
            io::stdout().lock().write_all(&chunk)?;
        }
        io::stdout().flush()?;
        return Ok(0);
    }
    let found = path_stat(&headers)
        .ok_or_else(|| Failure::new(format!("the daemon does not say what {container}:{path} is")))?;
    let is_dir = found.mode & MODE_DIR != 0;
    let root = local_root(destination, &path, &found.name, is_dir)?;
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let extracting = tokio::task::spawn_blocking(move || extract(receiver, &root));
    let mut copied = 0;
    while let Some(chunk) = body.chunk().await? {
        copied += chunk.len();
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    extracting
        .await
        .map_err(|why| Failure::new(why.to_string()))?
        .map_err(|why| Failure::new(format!("cannot write {destination}: {why}")))?;
    say(matches, copied, destination);
    Ok(0)
}

/// The local path that the archive's first entry becomes.
fn local_root(destination: &str, source: &str, name: &str, is_dir: bool) -> Result<PathBuf, Failure> {
    let path = Path::new(destination);
    let contents_only = source.ends_with("/.") || source == ".";
    if path.is_dir() {
        let named = !contents_only && name != "/" && name != ".";
        return Ok(if named { path.join(name) } else { path.to_owned() });
    }
    if path.exists() && is_dir {
        return Err(Failure::new(format!("cannot copy directory to file {destination}")));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !parent.is_dir() {
        return Err(Failure::new(format!(
            "invalid output path: directory {:?} does not exist",
            parent.display().to_string()
        )));
    }
    if destination.ends_with('/') && !is_dir {
        return Err(Failure::new("no such directory"));
    }
    Ok(path.to_owned())
}

async fn to_container(
    session: &Session,
    matches: &Matches,
    source: &str,
    container: &str,
    destination: &str,
) -> Outcome {
    let mut destination = destination.to_owned();
    let mut found = stat(session, container, &destination).await?;
    if let Some(link) = found.as_ref().filter(|found| found.mode & MODE_SYMLINK != 0) {
        destination = link_target(&destination, link);
        found = stat(session, container, &destination).await?;
    }
    let into_dir = found.is_some_and(|found| found.mode & MODE_DIR != 0);
    let (directory, chunks): (String, Upload) = if source == "-" {
        if !into_dir {
            return Err(Failure::new(format!(
                "destination \"{container}:{destination}\" must be a directory"
            )));
        }
        (destination.clone(), read_chunks(io::stdin()))
    } else {
        let (directory, name) = remote_place(source, &destination, into_dir)?;
        let chunks = archive(PathBuf::from(source), name, matches.on("follow-link"));
        (directory, chunks)
    };
    let counter = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = {
        use futures_util::TryStreamExt;
        let counter = counter.clone();
        chunks.inspect_ok(move |chunk| {
            counter.fetch_add(chunk.len(), std::sync::atomic::Ordering::Relaxed);
        })
    };
    let owners = if matches.on("archive") { "true" } else { "" };
    let path = target(
        &container_path(container, "/archive"),
        &[("path", &directory), ("noOverwriteDirNonDir", "true"), ("copyUIDGID", owners)],
    );
    session.client.json(Method::PUT, &path, upload(Box::pin(counted))).await?;
    let copied = counter.load(std::sync::atomic::Ordering::Relaxed);
    say(matches, copied, &format!("{container}:{destination}"));
    Ok(0)
}

/// The directory in the container to unpack into, and the name of the archive's first entry.
fn remote_place(source: &str, destination: &str, into_dir: bool) -> Result<(String, PathBuf), Failure> {
    let metadata = std::fs::symlink_metadata(source).map_err(|why| match why.kind() {
        io::ErrorKind::NotFound => Failure::new(format!("lstat {source}: no such file or directory")),
        _ => Failure::new(format!("lstat {source}: {why}")),
    })?;
    if into_dir {
        let name = match Path::new(source).file_name() {
            _ if source.ends_with("/.") || source == "." => PathBuf::from("."),
            Some(name) => PathBuf::from(name),
            None => PathBuf::from("."),
        };
        return Ok((destination.to_owned(), name));
    }
    if destination.ends_with('/') && !metadata.is_dir() {
        return Err(Failure::new("no such directory"));
    }
    let path = Path::new(destination.trim_end_matches('/'));
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.display().to_string(),
        _ => "/".to_owned(),
    };
    let name = path.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
    Ok((parent, name))
}

/// The chunks of an archive of `source`, whose first entry is called `name`.
fn archive(source: PathBuf, name: PathBuf, follow: bool) -> Upload {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let writer = io::BufWriter::with_capacity(64 * 1024, Sender(sender.clone()));
        if let Err(why) = write_archive(writer, &source, &name, follow) {
            let _ = sender.blocking_send(Err(why));
        }
    });
    received(receiver)
}

fn write_archive(writer: impl Write, source: &Path, name: &Path, follow: bool) -> io::Result<()> {
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    let top = if follow { std::fs::canonicalize(source)? } else { source.to_owned() };
    if std::fs::symlink_metadata(&top)?.is_dir() {
        builder.append_dir_all(name, &top)?;
    } else {
        builder.append_path_with_name(&top, name)?;
    }
    builder.into_inner()?.flush()
}

/// Sends what is written in chunks.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn say(matches: &Matches, copied: usize, destination: &str) {
    if !matches.on_or("quiet", !crate::terminal::stdout_is_terminal()) {
        line_err(&format!("Successfully copied {} to {destination}", units::human_size(copied as f64)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        assert_eq!(split("web:/a"), Some(("web", "/a")));
        assert_eq!(split("/a:b"), None);
        assert_eq!(split("./a:b"), None);
        assert_eq!(split("-"), None);
    }
}

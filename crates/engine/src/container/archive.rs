//! diff, cp, export and commit: a container's files from outside.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;
use portolan_image::archive::{ExtractOptions, export, extract, stat, write_path};
use portolan_image::{CommitOptions, Empty, Healthcheck, ImageId, RunConfig};
use tokio::sync::mpsc;

use super::merge;
use super::record::Container;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::model::{Change, ChangeKind, CommitRequest, ContainerConfig, PathStat, Status};
use crate::streams::Archive;

/// Pieces of an archive that may wait for a slow client.
const QUEUE: usize = 8;
const PIECE: usize = 64 << 10;

impl Engine {
    /// `GET /containers/{id}/changes`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container_changes(&self, name: &str) -> Result<Vec<Change>> {
        let container = self.inner.containers.find(name)?;
        let (images, id) = (self.inner.images.clone(), container.id.to_string());
        let changes = blocking(move || Ok(images.changes(&id)?)).await?;
        let change = |change: portolan_image::Change| Change {
            path: change.path.to_string_lossy().into_owned(),
            kind: match change.kind {
                portolan_image::ChangeKind::Modified => ChangeKind::Modified,
                portolan_image::ChangeKind::Added => ChangeKind::Added,
                portolan_image::ChangeKind::Deleted => ChangeKind::Deleted,
            },
        };
        Ok(changes.into_iter().map(change).collect())
    }

    /// `HEAD /containers/{id}/archive`.
    ///
    /// # Errors
    /// `NotFound` for the container or the path.
    pub async fn container_stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let container = self.inner.containers.find(name)?;
        let root = self.open_root(&container).await?;
        let (path, id) = (path.to_owned(), container.id.to_string());
        blocking(move || stat_path(&root, &path, &id)).await
    }

    /// `GET /containers/{id}/archive`: a tar stream of the path.
    ///
    /// # Errors
    /// `NotFound` for the container or the path.
    pub async fn container_get_archive(&self, name: &str, path: &str) -> Result<(PathStat, Archive)> {
        let container = self.inner.containers.find(name)?;
        let root = self.open_root(&container).await?;
        let (owned, id) = (path.to_owned(), container.id.to_string());
        let (stat, root) = blocking(move || Ok((stat_path(&root, &owned, &id)?, root))).await?;
        let path = path.to_owned();
        let archive = stream(move |out| write_path(root.as_fd(), Path::new(&path), out));
        self.container_event(&container, "archive-path", BTreeMap::new());
        Ok((stat, archive))
    }

    /// `PUT /containers/{id}/archive`: unpacks a tar stream into the directory `path`.
    ///
    /// # Errors
    /// `NotFound` for the container or the path; `Forbidden` if its root is read-only; `Invalid` if the
    /// archive is malformed.
    pub async fn container_put_archive(
        &self,
        name: &str,
        path: &str,
        no_overwrite_dir_non_dir: bool,
        archive: Box<dyn Read + Send>,
    ) -> Result<()> {
        let container = self.inner.containers.find(name)?;
        self.check_writable(&container, path)?;
        let root = self.open_root(&container).await?;
        let path = path.to_owned();
        blocking(move || {
            let options = ExtractOptions { keep_kinds: no_overwrite_dir_non_dir, owner: None };
            Ok(extract(root.as_fd(), Path::new(&path), archive, options)?)
        })
        .await?;
        self.container_event(&container, "extract-to-dir", BTreeMap::new());
        Ok(())
    }

    /// A read-only root may be written to only where a writable volume is mounted.
    fn check_writable(&self, container: &Container, path: &str) -> Result<()> {
        let refused = container.with(|record| {
            let definition = &record.definition;
            let path = super::mounts::clean(path);
            let mount = definition
                .mounts
                .iter()
                .filter(|mount| Path::new(&path).starts_with(&mount.destination))
                .max_by_key(|mount| mount.destination.len());
            match mount {
                Some(mount) => (!mount.rw).then_some("mounted volume is marked read-only"),
                None => {
                    definition.host_config.readonly_rootfs.then_some("container rootfs is marked read-only")
                }
            }
        });
        match refused {
            Some(text) => Err(EngineError::new(crate::ErrorKind::Forbidden, text)),
            None => Ok(()),
        }
    }

    /// `GET /containers/{id}/export`: a tar stream of the whole root.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for one that is being removed.
    pub async fn container_export(&self, name: &str) -> Result<Archive> {
        let container = self.inner.containers.find(name)?;
        if matches!(container.status(), Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!(
                "You cannot export container {} which is being removed",
                container.id
            )));
        }
        // Its own layer on its image, without what is mounted in it while it runs.
        let (images, id) = (self.inner.images.clone(), container.id.to_string());
        let root = blocking(move || Ok(images.open_layers(&id)?)).await?;
        let archive = stream(move |out| export(root.as_fd(), out));
        self.container_event(&container, "export", BTreeMap::new());
        Ok(archive)
    }

    /// `POST /commit`. The new image's id.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if a change is wrong.
    pub async fn container_commit(&self, name: &str, request: CommitRequest) -> Result<String> {
        let container = self.inner.containers.find(name)?;
        if matches!(container.status(), Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!(
                "You cannot commit container {} which is being removed",
                container.id
            )));
        }
        let mut paused = request.pause && container.status() == Status::Running;
        if paused && let Err(error) = self.container_pause(name).await {
            // It has ended just now, most likely: nothing is left that could write.
            tracing::debug!(container = %container.id, %error, "pause a container for its commit");
            paused = false;
        }
        let committed = self.commit(&container, request).await;
        if paused && let Err(error) = self.container_unpause(name).await {
            tracing::warn!(container = %container.id, %error, "unpause a container after its commit");
        }
        let (id, name) = committed?;
        let attributes = BTreeMap::from([
            ("comment".to_owned(), String::new()),
            ("imageID".to_owned(), id.clone()),
            ("imageRef".to_owned(), name.clone()),
        ]);
        self.container_event(&container, "commit", attributes);
        if !name.is_empty() {
            self.image_event("tag", &id, &name);
        }
        Ok(id)
    }

    async fn commit(&self, container: &Container, request: CommitRequest) -> Result<(String, String)> {
        let definition = container.with(|record| record.definition.clone());
        let parent: ImageId = definition
            .image_id
            .parse()
            .map_err(|_| EngineError::internal(format!("{:?} is not an image id", definition.image_id)))?;
        let own = run_config(&definition.config);
        let mut config = own.clone();
        if let Some(mut asked) = request.config {
            merge::merge(&mut asked, &own)?;
            config = run_config(&asked);
        }
        let name = request.reference.as_ref().map(portolan_image::Reference::familiar).unwrap_or_default();
        let options = CommitOptions {
            reference: request.reference,
            config,
            changes: request.changes,
            author: request.author,
            comment: request.comment,
            created_by: definition.args.join(" "),
        };
        let (images, id) = (self.inner.images.clone(), container.id.to_string());
        let image = blocking(move || Ok(images.commit(&id, &parent, &options)?)).await?;
        Ok((image.to_string(), name))
    }
}

fn stat_path(root: &impl AsFd, path: &str, id: &str) -> Result<PathStat> {
    let found = stat(root.as_fd(), Path::new(path)).map_err(|error| match error.kind() {
        portolan_image::ErrorKind::NotFound => {
            EngineError::not_found(format!("Could not find the file {path} in container {id}"))
        }
        _ => error.into(),
    })?;
    let (seconds, nanoseconds) = found.mtime;
    let mtime = Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or_default());
    Ok(PathStat {
        name: found.name,
        size: found.size,
        mode: found.mode,
        mtime: mtime.unwrap_or_default(),
        link_target: found.link_target.to_string_lossy().into_owned(),
    })
}

/// Runs a writer on a blocking thread; what it writes comes out in pieces, and its failure as the last of them.
fn stream(work: impl FnOnce(Pieces) -> portolan_image::Result<()> + Send + 'static) -> Archive {
    let (sender, pieces) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let client = sender.clone();
        if let Err(error) = work(Pieces { sender }) {
            // Without a client, nobody wants the rest.
            let _ = client.blocking_send(Err(std::io::Error::other(error)));
        }
    });
    Archive { pieces }
}

/// Hands what is written to a client.
struct Pieces {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        self.sender
            .blocking_send(Ok(Bytes::copy_from_slice(piece)))
            .map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A container's settings as an image's.
fn run_config(config: &ContainerConfig) -> RunConfig {
    RunConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.keys().map(|port| (port.to_string(), Empty {})).collect(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        healthcheck: config.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.clone(),
            interval: check.interval_ns,
            timeout: check.timeout_ns,
            start_period: check.start_period_ns,
            start_interval: check.start_interval_ns,
            retries: i64::from(check.retries),
        }),
        volumes: config.volumes.iter().map(|path| (path.clone(), Empty {})).collect(),
        working_dir: config.working_dir.clone(),
        on_build: config.on_build.clone().unwrap_or_default(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        stop_timeout: config.stop_timeout,
        shell: config.shell.clone().unwrap_or_default(),
        ..RunConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_that_breaks_off_does_not_look_whole() {
        let mut archive = stream(|mut out| {
            out.write_all(b"half").expect("a client");
            Err(portolan_image::Error::Corrupt("the disk is gone".to_owned()))
        });
        assert_eq!(archive.next().await.unwrap().unwrap(), "half");
        assert!(archive.next().await.unwrap().unwrap_err().to_string().contains("the disk is gone"));
        assert!(archive.next().await.is_none());
    }
}

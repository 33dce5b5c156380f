//! `POST /containers/{id}/start`, and what must be undone when it fails.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use jiff::Timestamp;
use portolan_net::SandboxInfo;
use portolan_netcore::model::ContainerId;
use portolan_runtime::{RootfsSpec, Shim};

use super::record::{Container, Definition};
use crate::engine::{Engine, blocking, to_the_end};
use crate::error::{EngineError, ErrorKind, Result};
use crate::model::{EventType, Health, NetworkMode, RemoveOptions};

/// What `docker run` exits with when nothing says otherwise.
const EXIT_UNKNOWN: i32 = 128;

/// A failed start: the client's error, and the exit code that the container keeps.
struct StartFailure {
    error: EngineError,
    exit_code: i32,
}

impl From<EngineError> for StartFailure {
    fn from(error: EngineError) -> Self {
        Self { error, exit_code: EXIT_UNKNOWN }
    }
}

impl From<portolan_runtime::Error> for StartFailure {
    fn from(error: portolan_runtime::Error) -> Self {
        let exit_code = error.exit_code().unwrap_or(EXIT_UNKNOWN);
        Self { error: error.into(), exit_code }
    }
}

/// What a start has made so far.
#[derive(Default)]
struct Made {
    sandbox: Option<SandboxInfo>,
    shim: Option<Shim>,
}

impl Engine {
    /// `POST /containers/{id}/start`.
    ///
    /// # Errors
    /// `NotModified` if it runs; Docker's text if it cannot be started. Leaves nothing then: no namespace, no
    /// address, no port, no shim.
    pub async fn container_start(&self, name: &str) -> Result<()> {
        let container = self.inner.containers.find(name)?;
        container.with(|record| record.state.check_start())?;
        let engine = self.clone();
        to_the_end(async move {
            let _turn = container.gate.lock().await;
            container.with(|record| {
                record.state.check_start()?;
                if record.removing {
                    return Err(EngineError::conflict(
                        "container is marked for removal and cannot be started",
                    ));
                }
                if let Some(restart) = record.restart.take() {
                    restart.cancel();
                }
                record.state.wanted();
                Ok(())
            })?;
            engine.start(&container).await
        })
        .await
    }

    /// Starts a container whose gate the caller holds.
    pub(crate) async fn start(&self, container: &Arc<Container>) -> Result<()> {
        let teardown = container.with(|record| record.teardown.take());
        if let Some(teardown) = teardown {
            // It logs its own failures.
            let _ = teardown.await;
        }
        // The intent goes to disk with the networks' own commit, before anything is made.
        let intent = container.with(|record| {
            record.state.starting(None);
            record.state_write()
        });
        self.inner.database.write_lazily(intent);
        let definition = container.with(|record| record.definition.clone());
        let mut made = Made::default();
        match self.set_up_and_run(container, &definition, &mut made).await {
            Ok(()) => Ok(()),
            Err(failure) => {
                self.undo(container, made).await;
                self.fail(container, &failure);
                if let Some(provider) = self.provider_of(container) {
                    self.release_unshared(&provider).await;
                }
                if definition.host_config.auto_remove {
                    let options = RemoveOptions { force: true, volumes: true, link: false };
                    if let Err(error) = self.remove_held(container, options).await {
                        tracing::warn!(container = %container.id, %error, "remove a container that did not start");
                    }
                }
                Err(failure.error)
            }
        }
    }

    async fn set_up_and_run(
        &self,
        container: &Arc<Container>,
        definition: &Definition,
        made: &mut Made,
    ) -> Result<(), StartFailure> {
        let rootfs = self.rootfs_of(&definition.id);
        let volumes = self.mount_volumes(&definition.mounts, &definition.id);
        let (rootfs, network, mounted) =
            tokio::join!(rootfs, self.network_for(container, definition), volumes);
        let (sandbox, netns) = network?;
        made.sandbox = sandbox.clone();
        let rootfs = rootfs?;
        mounted?;
        container.with(|record| {
            record.state.sandbox = sandbox.as_ref().map(|info| info.id.clone());
            record.sandbox.clone_from(&sandbox);
        });
        let files = self.write_files(definition, sandbox.as_ref()).await?;
        let spec = self.container_spec(definition, rootfs, netns, &files).await?;
        // The state that says which sandbox it owns is on its way before the shim exists.
        container.save_state(&self.inner.database);
        let shim = self.inner.launcher.create(&spec).await?;
        made.shim = Some(shim.clone());
        self.attach_pending(container, &shim).await;
        let at = shim.start().await?;
        self.note_running(container, definition, shim, at);
        if definition.endpoints.contains_key("bridge") {
            self.refresh_links_to(&definition.id).await;
        }
        Ok(())
    }

    fn note_running(&self, container: &Arc<Container>, definition: &Definition, shim: Shim, at: Timestamp) {
        let health = super::health::wanted(&definition.config).map(|_| Health::default());
        container.with(|record| {
            record.state.started(shim.pid(), at, health);
            record.shim = Some(shim.clone());
            record.joining = false;
        });
        container.announce(|now| now.running = true);
        container.save_state(&self.inner.database);
        self.container_event(container, "start", BTreeMap::new());
        for mount in definition.mounts.iter().filter(|mount| mount.name.is_some()) {
            let name = mount.name.clone().unwrap_or_default();
            let attributes = BTreeMap::from([
                ("container".to_owned(), container.id.to_string()),
                ("destination".to_owned(), mount.destination.clone()),
                ("read/write".to_owned(), mount.rw.to_string()),
                ("propagation".to_owned(), mount.propagation.clone()),
            ]);
            self.volume_event("mount", &name, attributes);
        }
        self.watch(container.clone(), shim);
        self.start_health_checks(container);
    }

    async fn rootfs_of(&self, id: &ContainerId) -> Result<RootfsSpec> {
        let (images, id) = (self.inner.images.clone(), id.to_string());
        // In memory: no thread is needed for it.
        let rootfs = images.rootfs(&id)?;
        Ok(RootfsSpec { lower: rootfs.lower, upper: rootfs.upper, work: rootfs.work, target: rootfs.target })
    }

    /// The network namespace of the container: a sandbox of its own, or another container's.
    async fn network_for(
        &self,
        container: &Arc<Container>,
        definition: &Definition,
    ) -> Result<(Option<SandboxInfo>, Option<Arc<OwnedFd>>)> {
        if let Some(kept) = container.with(|record| record.sandbox.clone()) {
            // Others have run in it since its last run.
            let netns = kept.netns.clone().map(open_netns).transpose()?;
            return Ok((Some(kept), netns));
        }
        if let NetworkMode::Container(of) = &definition.host_config.network_mode {
            return Ok((None, self.join_netns(container, of).await?));
        }
        let spec = self.sandbox_spec(definition).await;
        let spec = spec.map_err(|error| error.context("failed to set up container networking"))?;
        let sandbox = self.inner.networks.create_sandbox(spec).await.map_err(|error| {
            let error = EngineError::from(error);
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Forbidden => {
                    error.context("failed to set up container networking")
                }
                _ => EngineError::internal(format!("failed to set up container networking: {error}")),
            }
        })?;
        for warning in self.publish_warnings(definition).await {
            tracing::warn!(container = %container.id, "{warning}");
        }
        match sandbox.netns.clone().map(open_netns).transpose() {
            Ok(netns) => Ok((Some(sandbox), netns)),
            Err(error) => {
                self.release_sandbox(&sandbox).await;
                Err(error)
            }
        }
    }

    pub(crate) async fn release_sandbox(&self, sandbox: &SandboxInfo) {
        if let Err(error) = self.inner.networks.remove_sandbox(&sandbox.id).await {
            tracing::error!(sandbox = %sandbox.id, %error, "remove a sandbox");
        }
    }

    /// Takes back what a failed start has made, to the last trace in the kernel: it is not the hot path. The
    /// sandbox and the shim at once: neither needs the other.
    async fn undo(&self, container: &Arc<Container>, made: Made) {
        let delete = async {
            if let Some(shim) = &made.shim
                && let Err(error) = shim.delete().await
            {
                tracing::error!(container = %container.id, %error, "delete what is left of a failed start");
            }
        };
        let release = async {
            // Others run in it: it stays for them.
            if self.is_shared(&container.id) {
                return None;
            }
            let sandbox = self.take_unshared(container).or(made.sandbox)?;
            self.release_sandbox(&sandbox).await;
            Some(sandbox.id)
        };
        let ((), released) = tokio::join!(delete, release);
        let mounts = container.with(|record| record.definition.mounts.clone());
        self.unmount_volumes(&mounts, &container.id).await;
        if let Some(sandbox) = released {
            self.await_settled(&sandbox).await;
        }
    }

    fn fail(&self, container: &Arc<Container>, failure: &StartFailure) {
        container.with(|record| {
            record.state.start_failed(failure.exit_code, failure.error.message());
            // There still is one if others run in it.
            record.state.sandbox = record.sandbox.as_ref().map(|info| info.id.clone());
            record.shim = None;
            record.joining = false;
            // Whoever attached sees the end of the stream, and the error in the answer to the start.
            record.pending.clear();
        });
        container.announce(|now| {
            now.running = false;
            now.exits += 1;
            now.exit_code = failure.exit_code;
        });
        container.save_state(&self.inner.database);
        let attributes = BTreeMap::from([("exitCode".to_owned(), failure.exit_code.to_string())]);
        self.container_event(container, "die", attributes);
    }

    async fn attach_pending(&self, container: &Arc<Container>, shim: &Shim) {
        for pending in container.with(|record| std::mem::take(&mut record.pending)) {
            // Whoever has left again would be the end of the container's standard input.
            if pending.ready.is_closed() {
                continue;
            }
            match shim.attach(pending.options).await {
                // The client may have left already.
                Ok(stream) => drop(pending.ready.send(stream)),
                Err(error) => tracing::warn!(container = %container.id, %error, "attach a waiting client"),
            }
        }
    }

    /// An event of a container, with what Docker tells about it.
    pub(crate) fn container_event(
        &self,
        container: &Container,
        action: &str,
        mut attributes: BTreeMap<String, String>,
    ) {
        container.with(|record| {
            for (key, value) in &record.definition.config.labels {
                attributes.entry(key.clone()).or_insert_with(|| value.clone());
            }
            attributes.insert("image".to_owned(), record.definition.config.image.clone());
            attributes.insert("name".to_owned(), record.definition.name.clone());
        });
        self.inner.events.publish(EventType::Container, action, container.id.to_string(), attributes);
    }

    /// Writes the container's files, on a thread that may block.
    async fn write_files(
        &self,
        definition: &Definition,
        sandbox: Option<&SandboxInfo>,
    ) -> Result<Vec<(&'static str, std::path::PathBuf)>> {
        let content = self.file_contents(definition, sandbox).await?;
        let directory = self.directory(definition.id.as_str());
        blocking(move || content.write(&directory)).await
    }
}

fn open_netns(path: std::path::PathBuf) -> Result<Arc<OwnedFd>> {
    let file = std::fs::File::open(&path).map_err(|error| {
        EngineError::internal(format!("open the network namespace {}: {error}", path.display()))
    })?;
    Ok(Arc::new(file.into()))
}

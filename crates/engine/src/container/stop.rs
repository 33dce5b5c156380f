//! stop, kill, restart, pause, unpause, wait, resize.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Container, not_running};
use super::signal::{self, SIGKILL, SIGTERM};
use crate::engine::{Engine, to_the_end};
use crate::error::{EngineError, Result};
use crate::model::{ContainerConfig, Status, StopOptions, WaitCondition};
use crate::streams::Waiter;

/// What a container gets between its stop signal and SIGKILL.
const DEFAULT_STOP_TIMEOUT_S: i64 = 10;
/// What the kernel gets to end a killed process.
const KILL_PATIENCE: Duration = Duration::from_secs(12);

impl Engine {
    /// `POST /containers/{id}/stop`.
    ///
    /// # Errors
    /// `NotModified` if it does not run; `Invalid` for an unknown signal.
    pub async fn container_stop(&self, name: &str, options: StopOptions) -> Result<()> {
        let container = self.inner.containers.find(name)?;
        if !container.status().is_running() {
            return Err(EngineError::not_modified("container is already stopped"));
        }
        let engine = self.clone();
        to_the_end(async move {
            let _turn = container.gate.lock().await;
            engine.stop_held(&container, &options).await
        })
        .await
        .map_err(|error| error.context(format_args!("cannot stop container: {name}")))
    }

    /// Stops a container whose gate the caller holds; one that does not run is fine.
    async fn stop_held(&self, container: &Arc<Container>, options: &StopOptions) -> Result<()> {
        let signal = self.stop_signal(container, options.signal.as_deref())?;
        let timeout_s = options
            .timeout_s
            .or_else(|| container.with(|record| record.definition.config.stop_timeout))
            .unwrap_or(DEFAULT_STOP_TIMEOUT_S);
        self.note_manual_stop(container);
        let restarting = self.cancel_restart(container);
        if !restarting {
            if let Ok(shim) = container.running_shim() {
                self.signal(container, &shim, signal).await;
                self.await_stop(container, &shim, timeout_s).await?;
            } else {
                return Ok(());
            }
        }
        self.container_event(container, "stop", BTreeMap::new());
        Ok(())
    }

    async fn await_stop(
        &self,
        container: &Arc<Container>,
        shim: &portolan_runtime::Shim,
        timeout_s: i64,
    ) -> Result<()> {
        match u64::try_from(timeout_s) {
            // Negative: for ever.
            Err(_) => container.stopped().await,
            Ok(seconds) => {
                let patience = Duration::from_secs(seconds);
                if tokio::time::timeout(patience, container.stopped()).await.is_err() {
                    self.signal(container, shim, SIGKILL).await;
                    self.await_kill(container).await?;
                }
            }
        }
        Ok(())
    }

    async fn await_kill(&self, container: &Arc<Container>) -> Result<()> {
        tokio::time::timeout(KILL_PATIENCE, container.stopped())
            .await
            .map_err(|_| EngineError::internal("tried to kill container, but did not receive an exit event"))
    }

    /// Sends a signal; a process that has just ended is fine. A paused container is thawed, else the signal
    /// would wait.
    async fn signal(&self, container: &Arc<Container>, shim: &portolan_runtime::Shim, signal: i32) {
        if let Err(error) = shim.kill(signal).await {
            tracing::debug!(container = %container.id, signal, %error, "signal a container");
        }
        if container.status() == Status::Paused
            && let Err(error) = self.thaw(container, shim).await
        {
            tracing::warn!(container = %container.id, %error, "thaw a container that was signalled");
        }
        let attributes = BTreeMap::from([("signal".to_owned(), signal.to_string())]);
        self.container_event(container, "kill", attributes);
    }

    fn stop_signal(&self, container: &Container, asked: Option<&str>) -> Result<i32> {
        match asked.filter(|text| !text.is_empty()) {
            Some(text) => signal::parse(text),
            None => Ok(container.with(|record| own_stop_signal(&record.definition.config))),
        }
    }

    fn note_manual_stop(&self, container: &Arc<Container>) {
        if self.is_stopping() {
            return;
        }
        container.with(|record| record.state.manually_stopped = true);
        container.save_state(&self.inner.database);
    }

    /// `POST /containers/{id}/kill`: SIGKILL if no signal is named, and then it has ended when this returns.
    ///
    /// # Errors
    /// `Conflict` if it does not run; `Invalid` for an unknown signal.
    pub async fn container_kill(&self, name: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal.filter(|text| !text.is_empty()).map_or(Ok(SIGKILL), signal::parse)?;
        let container = self.inner.containers.find(name)?;
        if !container.status().is_running() {
            return Err(not_running(&container.id));
        }
        // Without the gate: a kill must get through while a stop waits.
        let engine = self.clone();
        to_the_end(async move { engine.kill(&container, signal).await }).await
    }

    async fn kill(&self, container: &Arc<Container>, signal: i32) -> Result<()> {
        let stops = signal == SIGKILL || signal == self.stop_signal(container, None)?;
        if stops {
            self.note_manual_stop(container);
            if self.cancel_restart(container) {
                return Ok(());
            }
        }
        let Ok(shim) = container.running_shim() else { return Ok(()) };
        self.signal(container, &shim, signal).await;
        if signal == SIGKILL { self.await_kill(container).await } else { Ok(()) }
    }

    /// Kills a container whose gate the caller holds, for its removal.
    pub(crate) async fn kill_held(&self, container: &Arc<Container>) -> Result<()> {
        self.note_manual_stop(container);
        if self.cancel_restart(container) {
            return Ok(());
        }
        match container.running_shim() {
            Ok(shim) => {
                self.signal(container, &shim, SIGKILL).await;
                self.await_kill(container).await
            }
            // It may be on its way out already.
            Err(_) if container.status().is_running() => self.await_kill(container).await,
            Err(_) => Ok(()),
        }
    }

    /// `POST /containers/{id}/restart`; starts one that does not run.
    ///
    /// # Errors
    /// As for stop and start.
    pub async fn container_restart(&self, name: &str, options: StopOptions) -> Result<()> {
        let container = self.inner.containers.find(name)?;
        self.stop_signal(&container, options.signal.as_deref())?;
        let engine = self.clone();
        to_the_end(async move {
            let _turn = container.gate.lock().await;
            container.with(|record| record.restarted_by_user = true);
            let stopped = engine.stop_held(&container, &options).await;
            container.with(|record| {
                record.restarted_by_user = false;
                record.state.manually_stopped = false;
            });
            stopped?;
            container.with(|record| record.state.check_start())?;
            engine.start(&container).await?;
            engine.container_event(&container, "restart", BTreeMap::new());
            Ok(())
        })
        .await
        .map_err(|error| error.context(format_args!("Cannot restart container {name}")))
    }

    /// `POST /containers/{id}/pause`.
    ///
    /// # Errors
    /// `Conflict` if it does not run or is paused.
    pub async fn container_pause(&self, name: &str) -> Result<()> {
        let container = self.inner.containers.find(name)?;
        let _turn = container.turn().await?;
        match container.status() {
            Status::Paused => {
                return Err(EngineError::conflict(format!("Container {} is already paused", container.id)));
            }
            Status::Restarting => {
                return Err(EngineError::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {}
        }
        let shim = container.running_shim()?;
        shim.pause().await.map_err(|error| {
            EngineError::internal(format!("Cannot pause container {}: {error}", container.id))
        })?;
        container.with(|record| {
            if record.state.shown.status == Status::Running {
                record.state.shown.status = Status::Paused;
            }
        });
        self.keep_state(&container).await?;
        self.container_event(&container, "pause", BTreeMap::new());
        Ok(())
    }

    /// `POST /containers/{id}/unpause`.
    ///
    /// # Errors
    /// `Conflict` if it is not paused.
    pub async fn container_unpause(&self, name: &str) -> Result<()> {
        let container = self.inner.containers.find(name)?;
        let _turn = container.turn().await?;
        if container.status() != Status::Paused {
            return Err(EngineError::conflict(format!("Container {} is not paused", container.id)));
        }
        let shim = container.running_shim()?;
        self.thaw(&container, &shim).await
    }

    async fn thaw(&self, container: &Arc<Container>, shim: &portolan_runtime::Shim) -> Result<()> {
        shim.resume().await.map_err(|error| {
            EngineError::internal(format!("Cannot unpause container {}: {error}", container.id))
        })?;
        container.with(|record| {
            if record.state.shown.status == Status::Paused {
                record.state.shown.status = Status::Running;
            }
        });
        self.keep_state(container).await?;
        self.container_event(container, "unpause", BTreeMap::new());
        Ok(())
    }

    /// Stores the state before anything is promised: the processes would not tell the next daemon.
    async fn keep_state(&self, container: &Container) -> Result<()> {
        let write = container.with(|record| record.state_write());
        self.inner.database.commit(vec![write]).await
    }

    /// `POST /containers/{id}/wait`: returns at once; the waiter counts from here on.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container_wait(&self, name: &str, condition: WaitCondition) -> Result<Waiter> {
        let container = self.inner.containers.find(name)?;
        let lifecycle = container.lifecycle();
        let exits_before = lifecycle.borrow().exits;
        Ok(Waiter { lifecycle, condition, exits_before })
    }

    /// `POST /containers/{id}/resize`.
    ///
    /// # Errors
    /// `Conflict` if it does not run; `Invalid` if it has no terminal.
    pub async fn container_resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.inner.containers.find(name)?;
        container.running_shim()?.resize(rows, columns).await?;
        let attributes = BTreeMap::from([
            ("height".to_owned(), rows.to_string()),
            ("width".to_owned(), columns.to_string()),
        ]);
        self.container_event(&container, "resize", attributes);
        Ok(())
    }

    /// Stops every container, each with its own time; for a daemon without live restore.
    pub(crate) async fn stop_all(&self) {
        let running = self.inner.containers.all().into_iter().filter(|c| c.status().is_running());
        let stops = running.map(|container| {
            let engine = self.clone();
            tokio::spawn(async move {
                let _turn = container.gate.lock().await;
                if let Err(error) = engine.stop_held(&container, &StopOptions::default()).await {
                    tracing::error!(container = %container.id, %error, "stop a container at the daemon's end");
                }
                // Its shim and its volumes' mounts would be left to the next daemon.
                let teardown = container.with(|record| record.teardown.take());
                if let Some(teardown) = teardown {
                    // It logs its own failures.
                    let _ = teardown.await;
                }
            })
        });
        let all = futures_util::future::join_all(stops.collect::<Vec<_>>());
        if tokio::time::timeout(self.live().shutdown_timeout, all).await.is_err() {
            tracing::warn!("some containers did not stop in time");
        }
    }
}

/// Nobody has checked what an image says: as in Docker, what is no signal there is none.
fn own_stop_signal(config: &ContainerConfig) -> i32 {
    signal::parse(config.stop_signal.as_deref().unwrap_or_default()).unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_nonsense_is_no_signal() {
        let of = |text: Option<&str>| {
            own_stop_signal(&ContainerConfig { stop_signal: text.map(str::to_owned), ..Default::default() })
        };
        let all = [None, Some(""), Some("nonsense"), Some("SIGQUIT"), Some("99"), Some("12")];
        assert_eq!(all.map(of), [15, 15, 15, 3, 15, 12]);
    }
}

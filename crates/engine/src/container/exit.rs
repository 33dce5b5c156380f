//! What happens when the first process of a container ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portolan_runtime::{ExitStatus, Shim};
use tokio_util::sync::CancellationToken;

use super::record::Container;
use super::state::lost;
use crate::engine::Engine;
use crate::model::{HealthStatus, Status};

impl Engine {
    /// Waits, in a task of its own, for the first process to end.
    pub(crate) fn watch(&self, container: Arc<Container>, shim: Shim) {
        let engine = self.clone();
        tokio::spawn(async move {
            let exit = shim.wait().await.unwrap_or_else(|error| {
                tracing::error!(container = %container.id, %error, "learn how the container ended");
                lost()
            });
            engine.exited(&container, exit, Some(shim)).await;
        });
    }

    /// Gives back the network, then makes the end known, then cleans up behind.
    pub(crate) async fn exited(&self, container: &Arc<Container>, exit: ExitStatus, shim: Option<Shim>) {
        let notes_exits = self.inner.notes_exits.read().await;
        if !*notes_exits {
            return;
        }
        if let Some(health) = container.with(|record| record.health.take()) {
            health.cancel();
        }
        // One that others run in waits for the next run.
        if let Some(sandbox) = &self.take_unshared(container) {
            // Before anyone learns of the end: the network can be removed from then on.
            self.release_sandbox(sandbox).await;
        }
        let Outcome { restart, auto_remove, ran_for } = note_exit(container, &exit, self.is_stopping());
        if exit.oom_killed {
            self.container_event(container, "oom", BTreeMap::new());
        }
        let attributes = BTreeMap::from([
            ("exitCode".to_owned(), exit.code.to_string()),
            ("execDuration".to_owned(), ran_for.to_string()),
        ]);
        self.container_event(container, "die", attributes);
        self.inner.execs.container_ended(&container.id);
        self.tear_down(container, shim);
        if let Some(provider) = self.provider_of(container) {
            self.release_unshared(&provider).await;
        }
        if auto_remove {
            self.release_for_good(container).await;
            let restarting = self.forget(container, true);
            container.announce(|now| ended(now, exit.code, true));
            self.clean_up(container, restarting).await;
            return;
        }
        container.save_state(&self.inner.database);
        // One that will be restarted counts as running for those who wait, as in Docker.
        let goes_on = restart.is_some();
        container.announce(|now| {
            ended(now, exit.code, false);
            now.running = goes_on;
        });
        if let Some((delay, cancelled)) = restart {
            self.restart_later(container.clone(), delay, cancelled);
        }
        if container.with(|record| record.sandbox.is_some()) {
            // The last of the others may have ended meanwhile. Not here: whoever stops it holds its gate.
            let (engine, container) = (self.clone(), container.clone());
            tokio::spawn(async move { engine.release_unshared(&container).await });
        }
    }

    /// Has what is left of the run cleared away, in a task of its own.
    fn tear_down(&self, container: &Arc<Container>, shim: Option<Shim>) {
        let (engine, id) = (self.clone(), container.id.clone());
        let mounts = container.with(|record| record.definition.mounts.clone());
        let teardown = tokio::spawn(async move {
            if let Some(shim) = shim
                && let Err(error) = shim.delete().await
            {
                tracing::error!(container = %id, %error, "delete what is left of a container's run");
            }
            engine.unmount_volumes(&mounts, &id).await;
        });
        container.with(|record| record.teardown = Some(teardown));
    }

    fn restart_later(&self, container: Arc<Container>, delay: Duration, cancelled: CancellationToken) {
        let engine = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = cancelled.cancelled() => return,
            }
            let _turn = container.gate.lock().await;
            let wanted = container.with(|record| {
                record.restart = None;
                !cancelled.is_cancelled()
                    && !record.removing
                    && record.state.shown.status == Status::Restarting
            });
            if !wanted || engine.is_stopping() {
                return;
            }
            if let Err(error) = engine.start(&container).await {
                tracing::warn!(container = %container.id, %error, "restart a container by its policy");
            }
        });
    }

    /// Ends the wait for an automatic restart; true if there was one.
    pub(crate) fn cancel_restart(&self, container: &Arc<Container>) -> bool {
        let cancelled = container.with(|record| {
            let token = record.restart.take();
            let waited = record.state.shown.status == Status::Restarting;
            if waited {
                record.state.shown.status = Status::Exited;
            }
            if let Some(token) = token {
                token.cancel();
            }
            waited
        });
        if cancelled {
            container.announce(|now| now.running = false);
            container.save_state(&self.inner.database);
        }
        cancelled
    }
}

/// What the end of a run leads to.
struct Outcome {
    /// It is started again, after so long, unless that is cancelled.
    restart: Option<(Duration, CancellationToken)>,
    auto_remove: bool,
    /// In seconds.
    ran_for: i64,
}

/// Into the container's record, for all to see.
fn note_exit(container: &Container, exit: &ExitStatus, stopping: bool) -> Outcome {
    container.with(|record| {
        record.state.exited(exit);
        if let Some(health) = &mut record.state.shown.health {
            // Nobody asks it any more.
            health.status = HealthStatus::Unhealthy;
        }
        record.state.owns_resources = false;
        record.state.sandbox = record.sandbox.as_ref().map(|info| info.id.clone());
        record.shim = None;
        record.execs.clear();
        let ran_for =
            record.state.shown.started_at.map_or(0, |at| exit.finished_at.duration_since(at).as_secs());
        let policy = record.definition.host_config.restart_policy;
        let restart = !stopping && !record.removing && record.state.wants_restart(policy);
        let restart = restart.then(|| {
            let token = CancellationToken::new();
            record.restart = Some(token.clone());
            (record.state.restarting(), token)
        });
        let auto_remove = record.definition.host_config.auto_remove
            && !record.removing
            && !record.restarted_by_user
            && restart.is_none();
        record.removing |= auto_remove;
        Outcome { restart, auto_remove, ran_for }
    })
}

fn ended(now: &mut crate::streams::Lifecycle, exit_code: i32, removed: bool) {
    now.running = false;
    now.exits += 1;
    now.exit_code = exit_code;
    now.removed = removed;
}

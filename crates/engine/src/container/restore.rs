//! The engine's start: containers are loaded, those that still run are found again, what the others left is
//! cleaned up, and restart policies are followed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use portolan_netcore::model::ContainerId;
use portolan_runtime::{ExitStatus, Shim, ShimState};

use super::record::{Container, Definition};
use super::state::{RunState, lost};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::files::links_of;
use crate::model::{Health, NetworkMode, Status};

/// `container:X` and links where X is such a one itself: nobody nests this deep.
const LONGEST_CHAIN: usize = 32;
/// As many containers are found again at once.
const AT_ONCE: usize = 64;
/// What a shim gets to say how its container stands, before the daemon listens without knowing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often files that cannot be read are looked at again, and after how long.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Loads the containers that the database holds.
    ///
    /// # Errors
    /// A record cannot be read.
    pub(crate) async fn restore(&self, records: Vec<(String, String)>) -> Result<()> {
        let broken = |error: serde_json::Error| {
            EngineError::internal(format!("read a container from the database: {error}"))
        };
        for (definition, state) in records {
            let definition: Definition = serde_json::from_str(&definition).map_err(broken)?;
            let state: RunState = serde_json::from_str(&state).map_err(broken)?;
            let name = definition.name.clone();
            let container = Container::new(definition, state);
            self.inner.containers.take_name(&name, &container.id)?;
            self.inner.containers.insert(container);
        }
        // Each asks a process of its own: side by side, or one that does not answer would keep all others.
        let found = stream::iter(self.inner.containers.all())
            .map(|container| async move { (self.find_again(&container).await, container) })
            .buffered(AT_ONCE)
            .collect::<Vec<_>>();
        let mut to_start: Vec<Arc<Container>> =
            found.await.into_iter().filter(|(start, _)| *start).map(|(_, container)| container).collect();
        self.remove_strays().await;
        for container in self.inner.containers.all() {
            self.release_unshared(&container).await;
        }
        self.sort_by_need(&mut to_start);
        let engine = self.clone();
        tokio::spawn(async move {
            for container in to_start {
                let _turn = container.gate.lock().await;
                let wanted = container.with(|record| {
                    let wanted = !record.removing && record.state.check_start().is_ok();
                    if wanted {
                        record.state.wanted();
                    }
                    wanted
                });
                if wanted && let Err(error) = engine.start(&container).await {
                    tracing::error!(container = %container.id, %error, "start a container with the daemon");
                }
            }
        });
        Ok(())
    }

    /// Those that others need come before them: whose namespace they join, what they link to.
    fn sort_by_need(&self, containers: &mut [Arc<Container>]) {
        let needs: Vec<_> = containers.iter().map(|one| (one.id.clone(), self.needs(one))).collect();
        let ranks = ranks(&needs);
        containers.sort_by_key(|container| ranks.get(&container.id).copied());
    }

    /// The containers that have to run for this one to start.
    fn needs(&self, container: &Container) -> Vec<ContainerId> {
        let definition = container.with(|record| record.definition.clone());
        let joined = match &definition.host_config.network_mode {
            NetworkMode::Container(of) => self.inner.containers.find(of).ok(),
            _ => None,
        };
        let linked = links_of(&definition).filter_map(|(name, _)| self.linked(name).ok());
        joined.into_iter().chain(linked).map(|needed| needed.id.clone()).collect()
    }

    /// Brings a loaded container up to date with the world; true if its restart policy starts it.
    async fn find_again(&self, container: &Arc<Container>) -> bool {
        let (state, policy, auto_remove) = container.with(|record| {
            let host = &record.definition.host_config;
            (record.state.clone(), host.restart_policy, host.auto_remove)
        });
        let (shim, stood) = self.find_shim(container).await;
        let ran = state.owns_resources || state.shown.status.is_running();
        match (shim, stood) {
            (Some(shim), Some(ShimState::Running(since))) => {
                self.adopt(container, shim, since).await;
                false
            }
            (shim, stood) => {
                let exit = match stood {
                    Some(ShimState::Exited(exit)) => exit,
                    _ => lost(),
                };
                let had_run = matches!(stood, Some(ShimState::Exited(_)));
                self.lay_to_rest(container, shim, exit, had_run, ran).await;
                let removed = ran && auto_remove;
                if removed {
                    container.with(|record| record.removing = true);
                    self.release_for_good(container).await;
                    let volumes = self.forget(container, true);
                    self.clean_up(container, volumes).await;
                }
                !removed && container.with(|record| record.state.wants_start_with_daemon(policy, ran))
            }
        }
    }

    /// The shim of a container and where it says that the container stands. One that lives and does not say counts as
    /// running: whatever kills it needs no answer of its, and its end will be heard of.
    async fn find_shim(&self, container: &Arc<Container>) -> (Option<Shim>, Option<ShimState>) {
        let id = &container.id;
        let mut found = self.inner.launcher.reconnect(id.as_str()).await;
        for _ in 0..TRIES {
            match &found {
                // Its files are there and cannot be read now.
                Err(error) => tracing::error!(container = %id, %error, "find the shim of a container"),
                Ok(_) => break,
            }
            tokio::time::sleep(PAUSE).await;
            found = self.inner.launcher.reconnect(id.as_str()).await;
        }
        let Some(shim) = found.ok().flatten() else { return (None, None) };
        let problem = match tokio::time::timeout(PATIENCE, shim.state()).await {
            Ok(Ok(state)) => return (Some(shim), Some(state)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::error!(
            container = %id,
            problem,
            "ask the shim of a container (it goes on; try: portolan rm -f, if it stays so)"
        );
        // Without a pid it was being set up for a daemon that has ended: nobody knows of it.
        let state = if shim.pid() == 0 { None } else { Some(ShimState::Running(None)) };
        (Some(shim), state)
    }

    /// Takes over a container that runs, `since` then.
    async fn adopt(&self, container: &Arc<Container>, shim: Shim, since: Option<Timestamp>) {
        let sandbox_id = container.with(|record| record.state.sandbox.clone());
        let sandbox = match self.sandbox_of(container, sandbox_id.as_ref()).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                tracing::error!(container = %container.id, %error, "find the network of a container");
                None
            }
        };
        container.with(|record| {
            // The daemon may have died between the start and its record.
            let state = &mut record.state;
            state.owns_resources = true;
            state.sandbox = sandbox.as_ref().map(|info| info.id.clone());
            state.shown.pid = shim.pid();
            if state.shown.status != Status::Paused {
                state.shown.status = Status::Running;
            }
            if let Some(at) = since.filter(|at| state.shown.started_at != Some(*at)) {
                let health = super::health::wanted(&record.definition.config).map(|_| Health::default());
                state.started(shim.pid(), at, health);
            }
            state.shown.started_at.get_or_insert_with(Timestamp::now);
            record.sandbox = sandbox;
            record.shim = Some(shim.clone());
        });
        let mounts = container.with(|record| record.definition.mounts.clone());
        self.inner.volumes.adopt(&mounts, container.id.as_str());
        container.announce(|now| now.running = true);
        container.save_state(&self.inner.database);
        self.watch(container.clone(), shim);
        self.start_health_checks(container);
    }

    async fn sandbox_of(
        &self,
        container: &Container,
        id: Option<&portolan_netcore::model::SandboxId>,
    ) -> Result<Option<portolan_net::SandboxInfo>> {
        if let Some(id) = id
            && let Some(info) = self.inner.networks.sandbox(id).await?
        {
            return Ok(Some(info));
        }
        let all = self.inner.networks.sandboxes().await?;
        Ok(all.into_iter().find(|info| info.container == container.id))
    }

    /// Gives back what a container that does not run any more still has.
    async fn lay_to_rest(
        &self,
        container: &Arc<Container>,
        shim: Option<Shim>,
        exit: ExitStatus,
        had_run: bool,
        owned: bool,
    ) {
        if shim.is_some() || owned {
            let (id, launcher) = (container.id.clone(), self.inner.launcher.clone());
            let parent = container.with(|record| self.cgroup_parent(&record.definition.host_config));
            let removal = tokio::spawn(async move {
                let removed = match shim {
                    Some(shim) => shim.delete().await,
                    None => launcher.end_lost(id.as_str(), &parent).await,
                };
                if let Err(error) = removed {
                    tracing::error!(container = %id, %error, "delete what is left of a container's run");
                }
            });
            // One that takes longer goes on behind.
            let _ = tokio::time::timeout(PATIENCE, removal).await;
        }
        // Who else runs in it is known only when all containers are found again.
        let sandbox = self.sandbox_of(container, None).await.ok().flatten();
        container.with(|record| {
            record.state.sandbox = sandbox.as_ref().map(|info| info.id.clone());
            record.sandbox = sandbox;
        });
        if !owned && !had_run {
            return;
        }
        container.with(|record| {
            // The shim knows better than the record whether it ran; one without a shim, whose start was cut
            // short by a crash, never did.
            if had_run || record.state.shown.status.is_running() {
                record.state.shown.started_at.get_or_insert(exit.finished_at);
                record.state.exited(&exit);
            } else {
                let code = record.state.shown.exit_code;
                record
                    .state
                    .start_failed(if code == 0 { 128 } else { code }, "the daemon ended during the start");
            }
            record.state.owns_resources = false;
            record.state.sandbox = record.sandbox.as_ref().map(|info| info.id.clone());
        });
        container.announce(|now| now.exit_code = exit.code);
        container.save_state(&self.inner.database);
    }

    async fn remove_stray_shim(&self, id: String) {
        tracing::info!(container = %id, "removing what a crash left: a shim");
        let launcher = self.inner.launcher.clone();
        let removal = tokio::spawn(async move {
            let removed = match launcher.reconnect(&id).await {
                Ok(Some(shim)) => shim.delete().await,
                other => other.map(drop),
            };
            if let Err(error) = removed {
                tracing::error!(container = %id, %error, "remove a stray shim");
            }
        });
        // One that takes longer goes on behind.
        let _ = tokio::time::timeout(PATIENCE, removal).await;
    }

    /// Shims, sandboxes, root file systems and directories of containers that nobody knows: a crash came
    /// between making them and storing the container, or between forgetting it and cleaning up.
    async fn remove_strays(&self) {
        let known: BTreeSet<String> = self.inner.containers.all().iter().map(|c| c.id.to_string()).collect();
        let shims = self.inner.launcher.ids().unwrap_or_default();
        let strays = shims.into_iter().filter(|id| !known.contains(id));
        stream::iter(strays).for_each_concurrent(AT_ONCE, |id| self.remove_stray_shim(id)).await;
        for sandbox in self.inner.networks.sandboxes().await.unwrap_or_default() {
            if !known.contains(sandbox.container.as_str()) {
                self.release_sandbox(&sandbox).await;
                if let Err(error) = self.inner.networks.forget(&sandbox.container).await {
                    tracing::error!(container = %sandbox.container, %error, "give back what a stray held");
                }
            }
        }
        let containers = self.inner.config.data_root.join("containers");
        let directories = std::fs::read_dir(containers).into_iter().flatten().flatten();
        let names = directories.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let strays: BTreeSet<String> = names.chain(self.inner.images.rootfs_ids()).collect();
        for id in strays.into_iter().filter(|id| !known.contains(id)) {
            tracing::info!(container = %id, "removing what a crash left: files");
            match id.parse() {
                Ok(id) => self.discard_files(&id).await,
                Err(_) => tracing::warn!(name = %id, "a foreign directory among the containers: left alone"),
            }
        }
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            engine.inner.volumes.release_unused();
            engine.inner.volumes.delete_data();
        });
    }
}

/// How far each is from those that need nothing. A circle has no order: it ends with the rounds.
fn ranks<K: Ord + Clone>(needs: &[(K, Vec<K>)]) -> BTreeMap<K, usize> {
    let mut ranks: BTreeMap<K, usize> = needs.iter().map(|(one, _)| (one.clone(), 0)).collect();
    for _ in 0..LONGEST_CHAIN {
        let mut settled = true;
        for (one, needed) in needs {
            let rank = needed.iter().filter_map(|other| ranks.get(other)).max().map_or(0, |rank| rank + 1);
            settled &= ranks.insert(one.clone(), rank) == Some(rank);
        }
        if settled {
            break;
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_needed_comes_first() {
        let chain =
            [("app", vec!["api", "gone"]), ("side", vec!["app"]), ("api", vec!["db"]), ("db", vec![])];
        assert_eq!(ranks(&chain), BTreeMap::from([("db", 0), ("api", 1), ("app", 2), ("side", 3)]));
        assert_eq!(ranks(&[("a", vec!["b"]), ("b", vec!["a"])]).len(), 2, "a circle comes to an end");
    }
}

//! rm, rename, prune; and what is cleaned up behind the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_netcore::model::SandboxId;

use super::names;
use super::record::Container;
use crate::engine::{Engine, blocking, to_the_end};
use crate::error::{EngineError, Result};
use crate::model::{EventType, Filters, Pruned, RemoveOptions, Status};
use crate::store::Write;
use crate::time::parse_until;

impl Engine {
    /// `DELETE /containers/{id}`. When this returns, nothing of it is left in the host's network.
    ///
    /// # Errors
    /// `Conflict` if it runs and `force` is not set, or if somebody removes it already.
    pub async fn container_remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(name).await;
        }
        let container = self.inner.containers.find(name)?;
        let engine = self.clone();
        let label = name.to_owned();
        to_the_end(async move { engine.remove(&container, &label, options).await }).await
    }

    async fn remove(&self, container: &Arc<Container>, name: &str, options: RemoveOptions) -> Result<()> {
        let claim = container.with(|record| {
            if record.removing {
                return Err(EngineError::conflict(format!(
                    "removal of container {name} is already in progress"
                )));
            }
            let refusal = match record.state.shown.status {
                _ if options.force => None,
                Status::Paused => Some("container is paused and must be unpaused first".to_owned()),
                status if status.is_running() => Some(format!(
                    "container is {}: stop the container before removing or force remove",
                    status.as_str()
                )),
                _ => None,
            };
            match refusal {
                Some(text) => Err(EngineError::conflict(format!("cannot remove container {name:?}: {text}"))),
                None => {
                    record.removing = true;
                    Ok(())
                }
            }
        });
        claim?;
        let removed = {
            // A start or stop under way comes to its end first; a stop is cut short by force.
            if options.force && container.gate.try_lock().is_err() {
                let _ = self.kill_held(container).await;
            }
            let _turn = container.gate.lock().await;
            self.remove_held(container, options).await
        };
        if removed.is_err() {
            container.with(|record| record.removing = false);
        }
        removed.map_err(|error| error.context(format_args!("cannot remove container {name:?}")))
    }

    /// Removes a container whose gate the caller holds.
    pub(crate) async fn remove_held(&self, container: &Arc<Container>, options: RemoveOptions) -> Result<()> {
        container.with(|record| record.removing = true);
        if options.force {
            self.kill_held(container).await.map_err(|error| error.context("could not kill container"))?;
        }
        self.release_for_good(container).await;
        let volumes = self.forget(container, options.volumes);
        // The promise that it is gone is durable before it is made.
        self.inner.database.commit(Vec::new()).await?;
        container.announce(|now| {
            now.running = false;
            now.removed = true;
        });
        if let Some(sandbox) = container.with(|record| record.last_sandbox.take()) {
            self.await_settled(&sandbox).await;
        }
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move { engine.clean_up(&container, volumes).await });
        Ok(())
    }

    /// Returns once no trace of a removed sandbox is left on the host.
    pub(crate) async fn await_settled(&self, sandbox: &SandboxId) {
        if let Err(error) = self.inner.networks.settled(sandbox).await {
            tracing::warn!(%sandbox, %error, "wait for the end of a sandbox");
        }
    }

    /// Takes the container, and its anonymous volumes if wanted, out of sight, in memory and (lazily) in the
    /// database. The volumes to be deleted.
    pub(crate) fn forget(&self, container: &Arc<Container>, anonymous_volumes: bool) -> Vec<String> {
        container.with(|record| {
            record.state.shown.status = Status::Removing;
            record.pending.clear();
        });
        self.inner.containers.remove(container);
        self.inner.execs.forget_container(&container.id);
        self.inner.database.write_lazily(Write::ForgetContainer { id: container.id.to_string() });
        self.container_event(container, "destroy", BTreeMap::new());
        if !anonymous_volumes {
            return Vec::new();
        }
        let mounts = container.with(|record| record.definition.mounts.clone());
        let names = mounts.into_iter().filter(|mount| mount.anonymous).filter_map(|mount| mount.name);
        // `--volumes-from` may share them.
        let unused: Vec<String> = names.filter(|name| self.forget_volume(name) == Ok(true)).collect();
        for name in &unused {
            self.volume_event("destroy", name, BTreeMap::new());
        }
        unused
    }

    /// Gives back, behind the answer, what nobody can see any more.
    pub(crate) async fn clean_up(&self, container: &Arc<Container>, volumes: Vec<String>) {
        let teardown = container.with(|record| record.teardown.take());
        if let Some(teardown) = teardown {
            let _ = teardown.await;
        }
        if let Err(error) = self.inner.networks.forget(&container.id).await {
            tracing::error!(container = %container.id, %error, "give back what a container held on networks");
        }
        self.discard_files(&container.id).await;
        if !volumes.is_empty() {
            let engine = self.clone();
            let deleted = blocking(move || {
                engine.inner.volumes.delete_data();
                Ok(())
            });
            if let Err(error) = deleted.await {
                tracing::warn!(%error, "delete the data of volumes");
            }
        }
    }

    /// `rm --link parent/alias`: only the link goes.
    async fn remove_link(&self, name: &str) -> Result<()> {
        let path = name.trim_start_matches('/');
        let Some((parent, alias)) = path.rsplit_once('/') else {
            return Err(EngineError::internal(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let container = self.inner.containers.find(parent).map_err(|_| {
            EngineError::internal(format!("Cannot get parent /{parent} for link name /{path}"))
        })?;
        let _turn = container.turn().await?;
        let write = container.with(|record| {
            record.definition.host_config.links.retain(|link| {
                let own = link.rsplit(':').next().unwrap_or(link);
                own.rsplit('/').next().unwrap_or(own) != alias
            });
            record.write()
        });
        self.inner.database.commit(vec![write]).await
    }

    /// `POST /containers/{id}/rename`.
    ///
    /// # Errors
    /// `Invalid` for a bad or the same name; `Conflict` if another has it.
    pub async fn container_rename(&self, name: &str, new_name: &str) -> Result<()> {
        let (name, new_name) = (name.trim(), new_name.trim());
        if name.trim_start_matches('/').is_empty() || new_name.trim_start_matches('/').is_empty() {
            return Err(EngineError::invalid("Neither old nor new names may be empty"));
        }
        let container = self.inner.containers.find(name)?;
        let _turn = container.turn().await?;
        let old = container.name();
        let new = new_name.strip_prefix('/').unwrap_or(new_name);
        if old == new {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        let wrap = |error: EngineError| error.context("Error when allocating new name");
        let new = names::check(new).map_err(wrap)?.to_owned();
        self.inner.containers.take_name(&new, &container.id).map_err(wrap)?;
        let write = container.with(|record| {
            record.definition.name.clone_from(&new);
            record.write()
        });
        let stored = async {
            self.inner.database.commit(vec![write]).await?;
            Ok(self.inner.networks.rename(&container.id, &new).await?)
        };
        if let Err(error) = stored.await {
            let write = container.with(|record| {
                record.definition.name.clone_from(&old);
                record.write()
            });
            self.inner.database.write_lazily(write);
            self.inner.containers.release_name(&new, &container.id);
            return Err(error);
        }
        self.inner.containers.release_name(&old, &container.id);
        let attributes = BTreeMap::from([("oldName".to_owned(), format!("/{old}"))]);
        self.container_event(&container, "rename", attributes);
        Ok(())
    }

    /// `POST /containers/prune`: removes every container that does not run. Filters: `label`, `label!`,
    /// `until`.
    ///
    /// # Errors
    /// An unknown filter, or a time that cannot be understood.
    pub async fn container_prune(&self, filters: Filters) -> Result<Pruned> {
        filters.check_keys(&["label", "label!", "until"])?;
        let until = parse_until(&filters)?;
        let mut pruned = Pruned::default();
        for container in self.inner.containers.all() {
            let wanted = container.with(|record| {
                matches!(record.state.shown.status, Status::Created | Status::Exited | Status::Dead)
                    && filters.labels_match(&record.definition.config.labels)
                    && until.is_none_or(|until| record.definition.created < until)
            });
            if !wanted {
                continue;
            }
            let (images, id) = (self.inner.images.clone(), container.id.to_string());
            let size = blocking(move || Ok(images.rootfs_size(&id).map_or(0, |size| size.writable))).await?;
            match self.container_remove(container.id.as_str(), RemoveOptions::default()).await {
                Ok(()) => {
                    pruned.space_reclaimed += size;
                    pruned.deleted.push(container.id.to_string());
                }
                // It was started or removed meanwhile.
                Err(error) => tracing::info!(container = %container.id, %error, "not pruned"),
            }
        }
        let attributes = BTreeMap::from([("reclaimed".to_owned(), pruned.space_reclaimed.to_string())]);
        self.inner.events.publish(EventType::Container, "prune", "", attributes);
        Ok(pruned)
    }
}

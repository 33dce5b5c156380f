//! Follows the host's resolv.conf: the copies of running containers change with it, unless somebody edited
//! them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_filewatch::FileWatch;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{HostFile, RESOLV_CONF, RESOLVED_CONF, read_shared, write_in_place};
use crate::container::record::Container;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::model::NetworkMode;

/// What the copies were made of when the daemon last looked, in the data root: the host may change while no
/// daemon runs.
const LAST_SEEN: &str = "host-resolv.conf";

impl HostFile {
    /// The path's line and the text; nothing that can be made sense of is nothing.
    fn load(path: &Path) -> Option<Self> {
        let stored = std::fs::read_to_string(path).ok()?;
        let (path, text) = stored.split_once('\n')?;
        Some(Self { path: PathBuf::from(path), text: text.to_owned() })
    }

    fn store(&self, path: &Path) -> Result<()> {
        write_in_place(path, &format!("{}\n{}", self.path.display(), self.text))
    }
}

fn watch(path: &Path, wake: UnboundedSender<()>) -> Option<FileWatch> {
    let seen = std::fs::read_to_string(path).unwrap_or_default();
    let changed = move |_: &str| {
        // A closed channel: the engine has ended.
        let _ = wake.send(());
    };
    let watch = FileWatch::start(path.to_owned(), seen, changed);
    watch
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "changes of the host's resolvers go unnoticed"))
        .ok()
}

impl Engine {
    /// Brings the copies up to date, now and whenever the host's file changes.
    pub(crate) fn follow_host_resolvers(&self) {
        let (wake, mut woken) = unbounded_channel();
        let paths = [self.inner.config.host_resolv_conf.as_path(), Path::new(RESOLVED_CONF)];
        let watches: Vec<FileWatch> = paths.iter().filter_map(|path| watch(path, wake.clone())).collect();
        // The first look.
        let _ = wake.send(());
        drop(wake);
        // Weak: the follower must not keep the engine.
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            let _watches = watches;
            while woken.recv().await.is_some() {
                let Some(inner) = inner.upgrade() else { return };
                if let Err(error) = (Engine { inner }).renew_resolv_confs().await {
                    tracing::warn!(%error, "bring the containers' resolv.conf up to date");
                }
            }
        });
    }

    async fn renew_resolv_confs(&self) -> Result<()> {
        let last_seen = self.inner.config.data_root.join(LAST_SEEN);
        let (now, stored) = (self.host_resolv_conf(), HostFile::load(&last_seen));
        if stored.as_ref() == Some(&now) {
            return Ok(());
        }
        if let Some(before) = stored {
            for container in self.inner.containers.all() {
                self.renew_resolv_conf(&container, before.clone(), now.clone()).await?;
            }
        }
        blocking(move || now.store(&last_seen)).await
    }

    async fn renew_resolv_conf(
        &self,
        container: &Arc<Container>,
        before: HostFile,
        now: HostFile,
    ) -> Result<()> {
        let (definition, sandbox) =
            container.with(|record| (record.definition.clone(), record.sandbox.clone()));
        if sandbox.is_none() || matches!(definition.host_config.network_mode, NetworkMode::Container(_)) {
            // Made anew at the next start, or somebody else's.
            return Ok(());
        }
        let expected = self.resolv_conf_of(&before, &definition, sandbox.as_ref());
        let wanted = self.resolv_conf_of(&now, &definition, sandbox.as_ref());
        let path = self.directory(definition.id.as_str()).join(RESOLV_CONF);
        blocking(move || {
            if expected != wanted && read_shared(&path).is_ok_and(|text| text == expected) {
                write_in_place(&path, &wanted)?;
            }
            Ok(())
        })
        .await
    }
}

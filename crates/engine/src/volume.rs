//! Volumes of the driver `local`: directories under `<data-root>/volumes/<name>/_data`.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use portolan_netcore::model::ContainerId;

use crate::container::record::to_json;
use crate::engine::{Engine, blocking, random_hex};
use crate::error::{EngineError, ErrorKind, Result};
use crate::model::{EventType, Filters, MountPoint, Pruned, Volume, VolumeSpec};
use crate::store::{Database, Write};
use crate::volume_mount::{Mounts, check_options, needs_mount, unmount_all};

/// A file in the directory of a volume that is not on record yet.
const UNBORN: &str = "unborn";

/// Every volume, by name.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    known: Mutex<BTreeMap<String, Volume>>,
    /// How many containers are being made that will have the volume. Only whoever has `known` locked looks for
    /// users of a volume, so that none slips through between.
    held: Arc<Mutex<BTreeMap<String, usize>>>,
    mounts: Mounts,
}

/// Keeps volumes from being removed until their container is known.
#[derive(Debug)]
pub(crate) struct Hold {
    names: Vec<String>,
    held: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            if let Some(count) = held.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    held.remove(name);
                }
            }
        }
    }
}

impl Volumes {
    /// The volumes that the database holds.
    pub(crate) fn load(root: PathBuf, records: &[String]) -> Result<Self> {
        let known: BTreeMap<String, Volume> = records
            .iter()
            .map(|json| serde_json::from_str::<Volume>(json).map(|volume| (volume.name.clone(), volume)))
            .collect::<Result<_, _>>()
            .map_err(|error| EngineError::internal(format!("read a volume from the database: {error}")))?;
        let volumes =
            Self { root, known: Mutex::new(known), held: Arc::default(), mounts: Mounts::default() };
        volumes.sweep();
        Ok(volumes)
    }

    /// Directories whose volumes a crash came before: they go. Others that nobody knows are not ours to judge.
    fn sweep(&self) {
        let known = self.known();
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if !entry.path().join(UNBORN).exists() {
                continue;
            }
            if entry.file_name().to_str().is_some_and(|name| known.contains_key(name)) {
                let _ = std::fs::remove_file(entry.path().join(UNBORN));
            } else if let Err(error) =
                std::fs::rename(entry.path(), self.root.join(format!(".{}", random_hex::<32>())))
            {
                tracing::warn!(path = %entry.path().display(), %error, "set aside what a crash left of a volume");
            }
        }
    }

    /// The volumes are on record: a crash takes them away no more.
    pub(crate) fn born(&self, names: &[String]) {
        for name in names {
            match std::fs::remove_file(self.root.join(name).join(UNBORN)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(volume = name, %error, "mark a volume as made");
                }
                _ => {}
            }
        }
    }

    /// Of a container's mounts, the volumes that have to be mounted for it.
    fn to_mount(&self, mounts: &[MountPoint]) -> Vec<Volume> {
        let names = mounts.iter().filter_map(|mount| mount.name.as_ref());
        let known = self.known();
        names.filter_map(|name| known.get(name)).filter(|volume| needs_mount(volume)).cloned().collect()
    }

    /// Mounts what those need that a container has, or nothing. Blocks.
    ///
    /// # Errors
    /// A volume cannot be mounted.
    pub(crate) fn claim(&self, mounts: &[MountPoint], user: &str) -> Result<()> {
        let needed = self.to_mount(mounts);
        for (count, volume) in needed.iter().enumerate() {
            if let Err(error) = self.mounts.claim(volume, user) {
                needed[..count].iter().for_each(|volume| self.mounts.release(volume, user));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The reverse. Blocks.
    pub(crate) fn release(&self, mounts: &[MountPoint], user: &str) {
        self.to_mount(mounts).iter().for_each(|volume| self.mounts.release(volume, user));
    }

    /// Counts a container that ran before this daemon did.
    pub(crate) fn adopt(&self, mounts: &[MountPoint], user: &str) {
        self.to_mount(mounts).iter().for_each(|volume| self.mounts.adopt(volume, user));
    }

    /// Unmounts what no container uses that was found again. Blocks.
    pub(crate) fn release_unused(&self) {
        self.mounts.release_unused(&self.all());
    }

    /// Runs something while volumes are mounted that it needs. Blocks.
    ///
    /// # Errors
    /// A volume cannot be mounted, or its own.
    pub(crate) fn while_mounted<T>(
        &self,
        mounts: &[MountPoint],
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.to_mount(mounts).is_empty() {
            return run();
        }
        let user = random_hex::<32>();
        self.claim(mounts, &user)?;
        let done = run();
        self.release(mounts, &user);
        done
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hold of no volume yet.
    pub(crate) fn hold(&self) -> Hold {
        Hold { names: Vec::new(), held: self.held.clone() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Volume> {
        self.known().get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Volume> {
        self.known().values().cloned().collect()
    }

    /// The volume of this name, made if there is none, and whether it was made. The record goes to disk with
    /// the next durable write.
    ///
    /// # Errors
    /// `Invalid` for a bad name or option, `NotFound` for a driver that is not there.
    pub(crate) fn ensure(
        &self,
        spec: VolumeSpec,
        hold: &mut Hold,
        database: &Database,
    ) -> Result<(Volume, bool)> {
        let VolumeSpec { name, driver, options, labels } = spec;
        if !matches!(driver.as_str(), "" | "local") {
            return Err(EngineError::not_found(format!(
                "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        check_options(&options).map_err(|error| error.context(format_args!("create {name}")))?;
        let anonymous = name.is_empty();
        let name = if anonymous { random_hex::<32>() } else { name };
        check_name(&name)?;
        let mut known = self.known();
        if let Some(volume) = known.get(&name) {
            hold.add(&name);
            return Ok((volume.clone(), false));
        }
        let directory = self.root.join(&name);
        let mountpoint = directory.join("_data");
        let made = make(&directory, 0o701)
            // One that was there before is not taken away by a crash.
            .and_then(|new| if new { std::fs::write(directory.join(UNBORN), "") } else { Ok(()) })
            .and_then(|()| make(&mountpoint, 0o755).map(drop));
        made.map_err(|error| {
            EngineError::internal(format!("create volume {name}: make {}: {error}", mountpoint.display()))
        })?;
        let volume = Volume {
            name: name.clone(),
            created_at: Timestamp::now(),
            labels,
            options,
            mountpoint,
            anonymous,
        };
        database.write_lazily(Write::Volume { name: name.clone(), record: to_json(&volume) });
        hold.add(&name);
        known.insert(name, volume.clone());
        Ok((volume, true))
    }

    /// Forgets a volume unless somebody uses it. Its directory is still to be deleted, with
    /// [`Volumes::delete_data`].
    ///
    /// # Errors
    /// Its users, who may be containers that are being made.
    pub(crate) fn forget(
        &self,
        name: &str,
        users: impl FnOnce() -> Vec<String>,
        database: &Database,
    ) -> Result<Option<Volume>, Vec<String>> {
        let mut known = self.known();
        let users = users();
        if !users.is_empty() || self.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name) {
            return Err(users);
        }
        // Below a mount would be somebody else's data.
        if let Some(volume) = known.get(name)
            && let Err(error) = self.mounts.forget(volume)
        {
            return Err(vec![format!("unmount {}: {error}", volume.mountpoint.display())]);
        }
        let Some(volume) = known.remove(name) else { return Ok(None) };
        database.write_lazily(Write::ForgetVolume { name: name.to_owned() });
        // Out of the way at once, so that a new volume of the name starts empty.
        let directory = self.root.join(name);
        let dying = self.root.join(format!(".{}", random_hex::<32>()));
        if let Err(error) = std::fs::rename(&directory, &dying) {
            tracing::warn!(volume = name, %error, "set a volume's directory aside");
        }
        Ok(Some(volume))
    }

    /// Deletes the directories of volumes that were forgotten. Blocks.
    pub(crate) fn delete_data(&self) {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) => return tracing::warn!(%error, "look for volumes to delete"),
        };
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            // Nothing below a mount is ours to delete.
            if let Err(error) = unmount_all(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "unmount what is in a volume's directory");
                continue;
            }
            if let Err(error) = std::fs::remove_dir_all(entry.path())
                // Two may delete at once.
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %entry.path().display(), %error, "delete a volume's directory");
            }
        }
    }
}

impl Hold {
    pub(crate) fn add(&mut self, name: &str) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default() += 1;
        self.names.push(name.to_owned());
    }

    /// Lets go of volumes that are to be removed, such as those of a container that could not be made.
    pub(crate) fn release(&mut self) {
        *self = Hold { names: Vec::new(), held: self.held.clone() };
    }
}

/// Whether the directory is new.
fn make(path: &Path, mode: u32) -> std::io::Result<bool> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true),
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(EngineError::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest: Vec<u8> = bytes.collect();
    let valid = first
        && !rest.is_empty()
        && name.len() <= 255
        && rest.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if valid {
        return Ok(());
    }
    Err(EngineError::invalid(format!(
        "create {name}: {name:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

impl Engine {
    /// `POST /volumes/create`. The one that exists, if there is one.
    ///
    /// # Errors
    /// `Invalid` for a bad name or option.
    pub async fn volume_create(&self, spec: VolumeSpec) -> Result<Volume> {
        let mut hold = self.inner.volumes.hold();
        let (volume, made) = self.inner.volumes.ensure(spec, &mut hold, &self.inner.database)?;
        if made {
            // The record was written lazily: this commit comes after it.
            self.inner.database.commit(Vec::new()).await?;
            self.inner.volumes.born(std::slice::from_ref(&volume.name));
            self.volume_event("create", &volume.name, BTreeMap::new());
        }
        Ok(volume)
    }

    /// `GET /volumes/{name}`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume> {
        self.inner.volumes.get(name).ok_or_else(|| no_such_volume(name))
    }

    /// `GET /volumes`. Filters: `dangling`, `driver`, `label`, `name`.
    ///
    /// # Errors
    /// An unknown filter.
    pub async fn volume_list(&self, filters: Filters) -> Result<Vec<Volume>> {
        filters.check_keys(&["dangling", "driver", "label", "label!", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let names = filters.expressions("name");
        let mut volumes = self.inner.volumes.all();
        volumes.retain(|volume| {
            filters.exact("driver", "local")
                && filters.labels_match(&volume.labels)
                && names.find(&[&volume.name])
                && dangling.is_none_or(|wanted| self.volume_users(&volume.name).is_empty() == wanted)
        });
        Ok(volumes)
    }

    /// `DELETE /volumes/{name}`.
    ///
    /// # Errors
    /// `NotFound` unless forced; `Conflict` if a container uses it.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        if self.inner.volumes.get(name).is_none() {
            return if force { Ok(()) } else { Err(no_such_volume(name)) };
        }
        self.remove_volume(name).map_err(|users| {
            EngineError::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", ")))
        })?;
        self.inner.database.commit(Vec::new()).await
    }

    /// `POST /volumes/prune`: anonymous volumes that no container uses; with `all`, named ones too.
    ///
    /// # Errors
    /// An unknown filter.
    pub async fn volume_prune(&self, filters: Filters) -> Result<Pruned> {
        filters.check_keys(&["label", "label!", "all"])?;
        let all = filters.boolean("all")?.unwrap_or(false);
        let mut pruned = Pruned::default();
        for volume in self.inner.volumes.all() {
            let unused = self.volume_users(&volume.name).is_empty();
            if unused && (all || volume.anonymous) && filters.labels_match(&volume.labels) {
                let mountpoint = volume.mountpoint.clone();
                let size = blocking(move || Ok(size_of(&mountpoint))).await?;
                if self.remove_volume(&volume.name).is_ok() {
                    pruned.space_reclaimed += size;
                    pruned.deleted.push(volume.name);
                }
            }
        }
        self.inner.database.commit(Vec::new()).await?;
        self.inner.events.publish(
            EventType::Volume,
            "prune",
            "",
            BTreeMap::from([("reclaimed".to_owned(), pruned.space_reclaimed.to_string())]),
        );
        Ok(pruned)
    }

    /// Forgets a volume that nobody uses, and deletes its data behind.
    fn remove_volume(&self, name: &str) -> Result<(), Vec<String>> {
        if self.forget_volume(name)? {
            self.volume_event("destroy", name, BTreeMap::new());
            let engine = self.clone();
            tokio::task::spawn_blocking(move || engine.inner.volumes.delete_data());
        }
        Ok(())
    }

    /// Forgets a volume that nobody uses; whether there was one. Its data is still to be deleted.
    ///
    /// # Errors
    /// Its users.
    pub(crate) fn forget_volume(&self, name: &str) -> Result<bool, Vec<String>> {
        let users = || self.volume_users(name);
        Ok(self.inner.volumes.forget(name, users, &self.inner.database)?.is_some())
    }

    /// Mounts what a container's volumes need.
    ///
    /// # Errors
    /// A volume cannot be mounted; then none is.
    pub(crate) async fn mount_volumes(&self, mounts: &[MountPoint], user: &ContainerId) -> Result<()> {
        if self.inner.volumes.to_mount(mounts).is_empty() {
            return Ok(());
        }
        let (engine, mounts, user) = (self.clone(), mounts.to_vec(), user.to_string());
        blocking(move || engine.inner.volumes.claim(&mounts, &user)).await
    }

    /// Unmounts what no other container uses.
    pub(crate) async fn unmount_volumes(&self, mounts: &[MountPoint], user: &ContainerId) {
        if self.inner.volumes.to_mount(mounts).is_empty() {
            return;
        }
        let (engine, mounts, user) = (self.clone(), mounts.to_vec(), user.to_string());
        let released = blocking(move || {
            engine.inner.volumes.release(&mounts, &user);
            Ok(())
        });
        if let Err(error) = released.await {
            tracing::warn!(%error, "unmount volumes");
        }
    }

    pub(crate) fn volume_event(&self, action: &str, name: &str, mut attributes: BTreeMap<String, String>) {
        attributes.insert("driver".to_owned(), "local".to_owned());
        self.inner.events.publish(EventType::Volume, action, name, attributes);
    }

    /// Ids of the containers that have the volume, running or not.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |container: &Arc<crate::container::record::Container>| {
            container.with(|r| r.definition.mounts.iter().any(|mount| mount.name.as_deref() == Some(name)))
        };
        self.inner.containers.all().into_iter().filter(uses).map(|c| c.id.to_string()).collect()
    }
}

fn no_such_volume(name: &str) -> EngineError {
    EngineError::new(ErrorKind::NotFound, format!("get {name}: no such volume"))
}

/// Bytes of the files below a directory. Blocks.
pub(crate) fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_volume_comes_back_empty_and_unknown_options_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (database, ..) = Database::open(&directory.path().join("db")).unwrap();
        let root = directory.path().join("volumes");
        std::fs::create_dir(&root).unwrap();
        let volumes = Volumes::load(root.clone(), &[]).unwrap();
        let spec = || VolumeSpec { name: "data".to_owned(), ..VolumeSpec::default() };
        let (volume, made) = volumes.ensure(spec(), &mut volumes.hold(), &database).unwrap();
        assert!(made && !volume.anonymous);
        std::fs::write(volume.mountpoint.join("x"), "x").unwrap();
        assert!(!volumes.ensure(spec(), &mut volumes.hold(), &database).unwrap().1);
        assert_eq!(volumes.forget("data", || vec!["c".to_owned()], &database).unwrap_err(), ["c"]);
        let mut hold = volumes.hold();
        volumes.ensure(spec(), &mut hold, &database).unwrap();
        assert!(
            volumes.forget("data", Vec::new, &database).is_err(),
            "a container that has it is being made"
        );
        drop(hold);
        volumes.forget("data", Vec::new, &database).unwrap().unwrap();
        let (volume, made) = volumes.ensure(spec(), &mut volumes.hold(), &database).unwrap();
        assert!(made && !volume.mountpoint.join("x").exists());
        volumes.delete_data();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1);
        // A crash before the record: it never was. One that is on record stays, and so does what nobody knows.
        std::fs::create_dir(root.join("foreign")).unwrap();
        let again = Volumes::load(root.clone(), &[]).unwrap();
        again.delete_data();
        assert!(!volume.mountpoint.exists() && root.join("foreign").exists());
        let (volume, _) = again.ensure(spec(), &mut again.hold(), &database).unwrap();
        again.born(&["data".to_owned()]);
        Volumes::load(root.clone(), &[]).unwrap().delete_data();
        assert!(volume.mountpoint.exists());
        let volumes = Volumes::load(root.clone(), &[to_json(&volume)]).unwrap();
        let (anonymous, _) = volumes.ensure(VolumeSpec::default(), &mut volumes.hold(), &database).unwrap();
        assert!(anonymous.anonymous && anonymous.name.len() == 64);
        let bad = VolumeSpec { name: "../x".to_owned(), ..VolumeSpec::default() };
        assert!(volumes.ensure(bad, &mut volumes.hold(), &database).is_err());
        let options = BTreeMap::from([("colour".to_owned(), "red".to_owned())]);
        assert!(
            volumes
                .ensure(VolumeSpec { options, ..VolumeSpec::default() }, &mut volumes.hold(), &database)
                .is_err()
        );
        database.close();
    }
}

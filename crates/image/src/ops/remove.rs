use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{ChainId, ImageId};
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::{ImageStore, Index};
use crate::types::{ImageUser, PruneFilter, Pruned, RemoveOptions, Removed};

use super::filter::label_holds;

impl ImageStore {
    /// Takes a name away and removes the image if it was the last one; or removes the image of an id with
    /// all its names, if they are of one repository. `users` tells which containers use an image.
    ///
    /// # Errors
    /// `Conflict` in Docker's words if containers use it, other images stand on it, or it has more names;
    /// `force` overcomes all but running containers and other images.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        users: &dyn Fn(&ImageId) -> Vec<ImageUser>,
    ) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        self.change(|index, pinned| {
            let mut removal = Removal { index, users, pinned, removed: Vec::new() };
            removal.remove(name, options)?;
            removed = removal.removed;
            Ok(!removed.is_empty())
        })?;
        Ok(removed)
    }

    /// Removes images without a name that nobody uses; with `all`, those with a name too.
    ///
    /// # Errors
    /// If the index cannot be written. What is in use is left alone.
    pub fn prune(&self, filter: &PruneFilter, users: &dyn Fn(&ImageId) -> Vec<ImageUser>) -> Result<Pruned> {
        let index = self.index();
        let mut pruned = Pruned::default();
        for image in index.images.values() {
            let names = index.names_of(&image.id);
            let labels = &image.config.config.labels;
            let tagged = names.iter().any(|name| name.tag().is_some());
            let skipped = (tagged && !filter.all)
                || (index.has_children(&image.id) && (names.is_empty() || !filter.all))
                || filter
                    .until
                    .is_some_and(|until| image.config.created.is_none_or(|created| created > until))
                || !filter.labels.iter().all(|label| label_holds(labels, label))
                || filter.not_labels.iter().any(|label| label_holds(labels, label));
            if skipped {
                continue;
            }
            let mut targets: Vec<String> = names.iter().map(Reference::to_string).collect();
            if targets.is_empty() {
                targets.push(image.id.hex());
            }
            for target in targets {
                match self.remove(&target, RemoveOptions::default(), users) {
                    Ok(removed) => pruned.removed.extend(removed),
                    // In use, or gone already with another.
                    Err(Error::Conflict(_) | Error::NoSuchImage(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let sizes: BTreeMap<String, u64> =
            index.layers.iter().map(|(id, layer)| (id.to_string(), layer.size)).collect();
        // A bottom layer has the same digest as its chain, never as an image.
        pruned.space_reclaimed = pruned
            .removed
            .iter()
            .filter_map(|removed| match removed {
                Removed::Deleted(id) => sizes.get(id),
                Removed::Untagged(_) => None,
            })
            .sum();
        Ok(pruned)
    }
}

struct Removal<'a> {
    index: &'a mut Index,
    users: &'a dyn Fn(&ImageId) -> Vec<ImageUser>,
    pinned: &'a BTreeSet<ChainId>,
    removed: Vec<Removed>,
}

/// Why an image stays.
struct Conflict {
    /// Not even by force.
    hard: bool,
    /// A container uses it.
    used: bool,
    why: String,
}

impl Removal<'_> {
    fn remove(&mut self, name: &str, options: RemoveOptions) -> Result<()> {
        let image = self.index.resolve(name)?;
        let id = image.id;
        let names = self.index.names_of(&id);
        let by_id = id.hex().starts_with(name.strip_prefix("sha256:").unwrap_or(name));
        if by_id {
            if is_single_reference(&names) {
                if let Some(conflict) = self.conflict(&id, options.force, false) {
                    return Err(conflict.into_error(&id));
                }
                for name in &names {
                    self.untag(name);
                }
            }
            return self.delete(&id, options.force, !options.keep_parents, false);
        }
        if !options.force
            && is_single_reference(&names)
            && let Some(user) = (self.users)(&id).first()
        {
            return Err(Error::Conflict(format!(
                "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                 referenced image {}",
                short(&user.container_id),
                id.short()
            )));
        }
        let reference = Reference::parse(name)?.or_latest();
        let stored = match reference.digest() {
            Some(digest) if !self.index.names.contains_key(&reference) => reference.with_digest(digest),
            _ => reference,
        };
        self.untag(&stored);
        if stored.digest().is_none() {
            self.untag_digests_alone(&id, &stored);
        }
        if !self.index.names_of(&id).is_empty() {
            return Ok(());
        }
        self.delete(&id, options.force, !options.keep_parents, true)
    }

    fn untag(&mut self, name: &Reference) {
        self.index.names.remove(name);
        self.removed.push(Removed::Untagged(name.familiar()));
    }

    /// Digests of a repository go with its last tag.
    fn untag_digests_alone(&mut self, id: &ImageId, gone: &Reference) {
        let (digests, tags): (Vec<_>, Vec<_>) = self
            .index
            .names_of(id)
            .into_iter()
            .filter(|name| name.same_repository(gone))
            .partition(|name| name.digest().is_some());
        if tags.is_empty() {
            digests.iter().for_each(|name| self.untag(name));
        }
    }

    /// Deletes an image, and its parents if they have no name; quietly: a conflict is no error.
    fn delete(&mut self, id: &ImageId, force: bool, parents: bool, quiet: bool) -> Result<()> {
        let mut next = Some((*id, force, quiet));
        while let Some((id, force, quiet)) = next {
            if let Some(conflict) = self.conflict(&id, force, true) {
                let dangling = self.index.names_of(&id).is_empty() && !self.index.has_children(&id);
                if quiet && (!dangling || conflict.used) {
                    return Ok(());
                }
                return Err(conflict.into_error(&id));
            }
            for name in self.index.names_of(&id) {
                self.untag(&name);
            }
            let parent = self.index.images.remove(&id).and_then(|image| image.parent);
            self.removed.push(Removed::Deleted(id.to_string()));
            for (chain, _) in self.index.drop_unused_layers(self.pinned) {
                self.removed.push(Removed::Deleted(chain.to_string()));
            }
            next = parent
                .filter(|parent| parents && self.index.images.contains_key(parent))
                .map(|id| (id, false, true));
        }
        Ok(())
    }

    fn conflict(&self, id: &ImageId, force: bool, names_count: bool) -> Option<Conflict> {
        if self.index.has_children(id) {
            let why = "image has dependent child images".to_owned();
            return Some(Conflict { hard: true, used: false, why });
        }
        let users = (self.users)(id);
        if let Some(user) = users.iter().find(|user| user.running) {
            let why = format!("image is being used by running container {}", short(&user.container_id));
            return Some(Conflict { hard: true, used: true, why });
        }
        if force {
            return None;
        }
        if names_count && !self.index.names_of(id).is_empty() {
            let why = "image is referenced in multiple repositories".to_owned();
            return Some(Conflict { hard: false, used: false, why });
        }
        let user = users.first()?;
        let why = format!("image is being used by stopped container {}", short(&user.container_id));
        Some(Conflict { hard: false, used: true, why })
    }
}

impl Conflict {
    fn into_error(self, id: &ImageId) -> Error {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        Error::Conflict(format!("conflict: unable to delete {} ({force}) - {}", id.short(), self.why))
    }
}

/// All names are of one repository, and at most one is a tag.
fn is_single_reference(names: &[Reference]) -> bool {
    let Some(first) = names.first() else { return false };
    names.iter().all(|name| name.same_repository(first))
        && names.iter().filter(|name| name.digest().is_none()).count() <= 1
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

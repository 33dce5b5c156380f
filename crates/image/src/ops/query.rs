use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::filter::{label_holds, path_matches};
use crate::digest::{ChainId, ImageId};
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::{ImageStore, Index, give_name};
use crate::types::{HistoryItem, Image, ImageInspect, ImageSummary, ListFilter};

impl ImageStore {
    /// Everything about an image. Fast.
    ///
    /// # Errors
    /// As [`ImageStore::resolve`].
    pub fn inspect(&self, name: &str) -> Result<ImageInspect> {
        let index = self.index();
        let image = index.resolve(name)?;
        let (repo_tags, repo_digests) = split_names(&index.names_of(&image.id));
        let layers = image.chain.iter().rev().filter_map(|id| index.layers.get(id));
        Ok(ImageInspect {
            repo_tags,
            repo_digests,
            size: index.size_of(&image.chain),
            layer_dirs: layers.map(|layer| self.layer_directory(layer)).collect(),
            image,
        })
    }

    /// The images that a filter lets through, newest first.
    ///
    /// # Errors
    /// If `before` or `since` names no image, or a pattern is malformed.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<ImageSummary>> {
        let index = self.index();
        let created = |name: &String| index.resolve(name).map(|image| image.config.created);
        let before: Vec<_> = filter.before.iter().map(created).collect::<Result<_>>()?;
        let since: Vec<_> = filter.since.iter().map(created).collect::<Result<_>>()?;
        // All of several: the oldest, the newest.
        let before = before.into_iter().flatten().chain(filter.until).min();
        let since = since.into_iter().flatten().max();
        let mut users: BTreeMap<ChainId, usize> = BTreeMap::new();
        for id in index.images.values().flat_map(|image| &image.chain) {
            *users.entry(*id).or_default() += 1;
        }
        let mut names: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
        for (name, id) in &index.names {
            names.entry(*id).or_default().push(name.clone());
        }
        let mut found = Vec::new();
        for image in index.images.values().filter(|image| in_time(image, before, since)) {
            let names = names.remove(&image.id).unwrap_or_default();
            if let Some(names) = listed_names(&index, image, names, filter)? {
                let (repo_tags, repo_digests) = split_names(&names);
                let shared = image.chain.iter().filter(|id| users.get(id).is_some_and(|n| *n > 1)).copied();
                found.push(ImageSummary {
                    repo_tags,
                    repo_digests,
                    size: index.size_of(&image.chain),
                    shared_size: index.size_of(&shared.collect::<Vec<_>>()),
                    image: image.clone(),
                });
            }
        }
        found.sort_by_key(|summary| std::cmp::Reverse(summary.image.config.created));
        Ok(found)
    }

    /// How an image came to be, newest first.
    ///
    /// # Errors
    /// As [`ImageStore::resolve`]; `Invalid` if its history tells of more layers than it has.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        let index = self.index();
        let image = index.resolve(name)?;
        let mut layers = image.chain.iter();
        let mut items = Vec::new();
        for entry in &image.config.history {
            let size = if entry.empty_layer {
                0
            } else {
                let too_many = || Error::invalid("too many non-empty layers in History section");
                index.size_of(&[*layers.next().ok_or_else(too_many)?])
            };
            items.push(HistoryItem {
                id: None,
                created: entry.created,
                created_by: entry.created_by.clone(),
                tags: Vec::new(),
                size,
                comment: entry.comment.clone(),
            });
        }
        items.reverse();
        let mut step = Some(image.clone());
        for item in &mut items {
            let Some(image) = step else { break };
            item.id = Some(image.id);
            item.tags = split_names(&index.names_of(&image.id)).0;
            step = image.parent.and_then(|parent| index.images.get(&parent).cloned());
        }
        Ok(items)
    }

    /// Gives an image another name, taking it from another image if need be. Returns the image.
    ///
    /// # Errors
    /// As [`ImageStore::resolve`]; `Invalid` if the name has a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<ImageId> {
        if target.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        let target = target.clone().or_latest();
        let mut id = None;
        self.change(|index, _| {
            let image = index.resolve(source)?;
            id = Some(image.id);
            give_name(index, &target, image.id);
            Ok(true)
        })?;
        id.ok_or_else(|| Error::NoSuchImage(source.to_owned()))
    }
}

fn in_time(image: &Image, before: Option<Timestamp>, since: Option<Timestamp>) -> bool {
    let created = image.config.created;
    before.is_none_or(|before| created.is_some_and(|created| created < before))
        && since.is_none_or(|since| created.is_some_and(|created| created > since))
}

/// The names that an image is listed with; none if the filter leaves it out.
fn listed_names(
    index: &Index,
    image: &Arc<Image>,
    names: Vec<Reference>,
    filter: &ListFilter,
) -> Result<Option<Vec<Reference>>> {
    let labels = &image.config.config.labels;
    if !filter.labels.iter().all(|label| label_holds(labels, label))
        || filter.not_labels.iter().any(|label| label_holds(labels, label))
    {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for name in names {
        if filter.references.is_empty() || reference_matches(&filter.references, &name)? {
            kept.push(name);
        }
    }
    let parent = index.has_children(&image.id);
    let shown = if kept.is_empty() {
        let intermediate = parent && (!filter.all || filter.dangling == Some(true));
        !intermediate && filter.dangling != Some(false) && filter.references.is_empty()
    } else {
        filter.dangling != Some(true) || (kept.iter().all(|name| name.tag().is_none()) && !parent)
    };
    Ok(shown.then_some(kept))
}

fn reference_matches(patterns: &[String], name: &Reference) -> Result<bool> {
    let targets = [name.familiar(), name.familiar_name(), name.to_string(), name.name()];
    for pattern in patterns {
        for target in &targets {
            if path_matches(pattern, target)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Familiar names with a tag, and those with a digest.
pub(super) fn split_names(names: &[Reference]) -> (Vec<String>, Vec<String>) {
    let (digests, tags): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.digest().is_some());
    let familiar = |names: Vec<&Reference>| names.into_iter().map(Reference::familiar).collect();
    (familiar(tags), familiar(digests))
}

//! All containers, by id, name and prefix of an id.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use portolan_netcore::model::ContainerId;

use super::record::Container;
use crate::error::{EngineError, Result};

/// All containers of the engine.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names are taken before their container is there, so that two creations cannot have the same.
    names: HashMap<String, ContainerId>,
}

impl Registry {
    /// A container by full id, name (with or without a slash) or unique prefix of an id.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if nothing is named, or the prefix fits several.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>> {
        let missing = || EngineError::not_found(format!("No such container: {reference}"));
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = state.by_id.get(reference) {
            return Ok(container.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(container) = state.names.get(name).and_then(|id| state.by_id.get(id.as_str())) {
            return Ok(container.clone());
        }
        if reference.is_empty() {
            return Err(EngineError::invalid("invalid name or ID supplied: \"\""));
        }
        let from = (Bound::Included(reference), Bound::Unbounded);
        let mut fits =
            state.by_id.range::<str, _>(from).take_while(|(id, _)| id.starts_with(reference)).map(|(_, c)| c);
        match (fits.next(), fits.next()) {
            (Some(only), None) => Ok(only.clone()),
            (Some(_), Some(_)) => {
                Err(EngineError::invalid(format!("Multiple IDs found with provided prefix: {reference}")))
            }
            (None, _) => Err(missing()),
        }
    }

    /// A container by its id.
    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).by_id.get(id.as_str()).cloned()
    }

    /// Every container, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).by_id.values().cloned().collect()
    }

    /// Takes a name.
    ///
    /// # Errors
    /// `Conflict` with Docker's text.
    pub(crate) fn take_name(&self, name: &str, id: &ContainerId) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match state.names.get(name) {
            Some(owner) if owner != id => Err(EngineError::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            ))),
            _ => {
                state.names.insert(name.to_owned(), id.clone());
                Ok(())
            }
        }
    }

    /// Gives a name back, if it is this container's.
    pub(crate) fn release_name(&self, name: &str, id: &ContainerId) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.names.get(name) == Some(id) {
            state.names.remove(name);
        }
    }

    /// Makes a container known. Its name is taken already.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.by_id.insert(container.id.to_string(), container);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, container: &Container) {
        let name = container.name();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.by_id.remove(container.id.as_str());
        if state.names.get(&name) == Some(&container.id) {
            state.names.remove(&name);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::container::record::Definition;
    use crate::container::state::RunState;
    use crate::model::{ContainerConfig, HostConfig};

    /// A container whose id begins with `prefix`.
    pub(crate) fn container(prefix: &str, name: &str) -> Arc<Container> {
        let id = format!("{prefix:0<64}").parse().unwrap();
        let definition = Definition {
            id,
            name: name.to_owned(),
            created: jiff::Timestamp::UNIX_EPOCH,
            image_id: String::new(),
            args: vec!["true".to_owned()],
            config: ContainerConfig::default(),
            host_config: HostConfig::default(),
            endpoints: BTreeMap::new(),
            mounts: Vec::new(),
        };
        Container::new(definition, RunState::default())
    }

    #[test]
    fn ids_names_and_prefixes() {
        let registry = Registry::default();
        for (prefix, name) in [("abc1", "web"), ("abc2", "abc1x"), ("def0", "abc")] {
            let container = container(prefix, name);
            registry.take_name(name, &container.id).unwrap();
            registry.insert(container);
        }
        let name = |reference: &str| registry.find(reference).map(|c| c.name());
        assert_eq!(name("web").unwrap(), "web");
        assert_eq!(name("/web").unwrap(), "web");
        assert_eq!(name("abc2").unwrap(), "abc1x");
        assert_eq!(name("abc").unwrap(), "abc", "a name comes before a prefix");
        assert_eq!(name("ab").unwrap_err().message(), "Multiple IDs found with provided prefix: ab");
        assert_eq!(name("ab").unwrap_err().kind(), crate::ErrorKind::Invalid);
        assert_eq!(name("CONTAINER").unwrap_err().message(), "No such container: CONTAINER");
        assert!(name("").is_err());
    }

    #[test]
    fn a_name_belongs_to_one() {
        let registry = Registry::default();
        let (one, two) = (container("1", "x"), container("2", "x"));
        registry.take_name("x", &one.id).unwrap();
        let error = registry.take_name("x", &two.id).unwrap_err();
        assert!(
            error
                .message()
                .starts_with("Conflict. The container name \"/x\" is already in use by container \"1000")
        );
        registry.insert(one.clone());
        registry.remove(&one);
        registry.take_name("x", &two.id).unwrap();
        registry.release_name("x", &one.id);
        assert!(registry.take_name("x", &one.id).is_err(), "only the owner gives it back");
    }
}

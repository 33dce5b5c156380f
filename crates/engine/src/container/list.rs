//! `docker ps` and its filters.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::record::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::model::{ContainerPort, ContainerSnapshot, Expressions, Filters, ListOptions, Status};

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATUSES: [Status; 7] = [
    Status::Created,
    Status::Running,
    Status::Paused,
    Status::Restarting,
    Status::Removing,
    Status::Exited,
    Status::Dead,
];

impl Engine {
    /// `GET /containers/json`, newest first.
    ///
    /// # Errors
    /// An unknown filter, or one whose value makes no sense.
    pub async fn container_list(&self, options: ListOptions) -> Result<Vec<ContainerSnapshot>> {
        let filter = Filter::new(self, &options)?;
        let mut containers = self.inner.containers.all();
        containers.sort_by_key(|container| {
            std::cmp::Reverse(
                container.with(|record| (record.definition.created, record.definition.id.clone())),
            )
        });
        let mut link_names = self.link_names();
        let mut listed = Vec::new();
        for container in containers {
            if options.limit.is_some_and(|limit| limit > 0 && listed.len() == limit) {
                break;
            }
            let mut snapshot = self.snapshot(&container);
            if !filter.matches(&snapshot) {
                continue;
            }
            if options.size {
                self.add_size(&mut snapshot).await?;
            }
            snapshot.link_names = link_names.remove(&snapshot.id).unwrap_or_default();
            listed.push(snapshot);
        }
        Ok(listed)
    }

    /// The ids of the images that `ancestor` means: those named, and all made from them.
    fn ancestors(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let images = &self.inner.images;
        let roots: Vec<_> = names.iter().filter_map(|name| images.resolve(name).ok()).collect();
        let used = self.inner.containers.all().into_iter().map(|c| c.with(|r| r.definition.image_id.clone()));
        used.filter(|id| {
            roots.iter().any(|root| {
                root.id.to_string() == *id
                    || images
                        .resolve(id)
                        .is_ok_and(|image| !root.chain.is_empty() && image.chain.starts_with(&root.chain))
            })
        })
        .collect()
    }
}

/// The filters of one request, with what had to be looked up.
struct Filter<'a> {
    filters: &'a Filters,
    /// Not only running ones.
    all: bool,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Option<BTreeSet<i32>>,
    ids: Expressions,
    names: Expressions,
    ancestors: Option<BTreeSet<String>>,
    publish: Option<Vec<ContainerPort>>,
    expose: Option<Vec<ContainerPort>>,
}

impl<'a> Filter<'a> {
    fn new(engine: &Engine, options: &'a ListOptions) -> Result<Self> {
        let filters = &options.filters;
        filters.check_keys(FILTERS)?;
        let invalid =
            |key: &str, value: &str| EngineError::invalid(format!("invalid filter '{key}={value}'"));
        for value in filters.values("status").into_iter().flatten() {
            if !STATUSES.iter().any(|status| status.as_str() == value) {
                return Err(invalid("status", value));
            }
        }
        for value in filters.values("health").into_iter().flatten() {
            if !matches!(value.as_str(), "starting" | "healthy" | "unhealthy" | "none") {
                return Err(invalid("health", value));
            }
        }
        let created = |key: &str| -> Result<Option<Timestamp>> {
            let Some(name) = filters.values(key).and_then(|values| values.first()) else { return Ok(None) };
            let container: Arc<Container> = engine.inner.containers.find(name)?;
            Ok(Some(container.with(|record| record.definition.created)))
        };
        let exited = filters.values("exited").map(|values| {
            values.iter().map(|v| v.parse::<i32>().map_err(|_| invalid("exited", v))).collect::<Result<_>>()
        });
        // Filters that only make sense for others than running ones show those too, as in Docker.
        let implied = ["status", "exited"].iter().any(|key| filters.values(key).is_some());
        Ok(Self {
            all: options.all || options.limit.is_some_and(|n| n > 0) || implied,
            before: created("before")?,
            since: created("since")?,
            exited: exited.transpose()?,
            ids: filters.expressions("id"),
            names: filters.expressions("name"),
            ancestors: filters.values("ancestor").map(|names| engine.ancestors(names)),
            publish: ports(filters, "publish")?,
            expose: ports(filters, "expose")?,
            filters,
        })
    }

    fn matches(&self, container: &ContainerSnapshot) -> bool {
        let status = container.state.status;
        let filters = self.filters;
        let health = container.state.health.as_ref().map_or("none", |health| health.status.as_str());
        (self.all || status.is_running())
            && filters.exact("status", status.as_str())
            && filters.exact("health", health)
            && self.ids.find(&[container.id.as_str()])
            // Docker's names begin with a slash, and people anchor with and without it.
            && self.names.find(&[&container.name, &format!("/{}", container.name)])
            && filters.labels_match(&container.config.labels)
            && filters.exact("is-task", "false")
            && filters.exact("isolation", "default")
            && self.before.is_none_or(|before| container.created < before)
            && self.since.is_none_or(|since| container.created > since)
            && self
                .exited
                .as_ref()
                .is_none_or(|codes| status == Status::Exited && codes.contains(&container.state.exit_code))
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&container.image_id))
            && self.volume_matches(container)
            && self.network_matches(container)
            && self.ports_match(container)
    }

    fn volume_matches(&self, container: &ContainerSnapshot) -> bool {
        self.filters.values("volume").is_none_or(|values| {
            container.mounts.iter().any(|mount| {
                mount.name.as_ref().is_some_and(|name| values.contains(name))
                    || values.contains(&mount.destination)
            })
        })
    }

    fn network_matches(&self, container: &ContainerSnapshot) -> bool {
        self.filters.values("network").is_none_or(|values| {
            container.network.endpoints.iter().any(|endpoint| {
                let id = endpoint.network_id.as_ref().map(|id| id.as_str());
                values.contains(&endpoint.network_name)
                    || id.is_some_and(|id| values.iter().any(|v| !v.is_empty() && id.starts_with(v.as_str())))
            })
        })
    }

    fn ports_match(&self, container: &ContainerSnapshot) -> bool {
        let published = || {
            let mut published = BTreeSet::new();
            for (port, bindings) in &container.network.ports {
                for binding in bindings {
                    published.insert(*port);
                    published.insert(ContainerPort { port: binding.host_port, proto: port.proto });
                }
            }
            published
        };
        let exposed = || container.config.exposed_ports.keys().copied().collect();
        let any = |wanted: &Option<Vec<ContainerPort>>, there: &dyn Fn() -> BTreeSet<ContainerPort>| {
            wanted.as_ref().is_none_or(|wanted| {
                let there = there();
                wanted.iter().any(|port| there.contains(port))
            })
        };
        any(&self.publish, &published) && any(&self.expose, &exposed)
    }
}

/// `80`, `80/tcp`, `8000-8010/udp`.
fn ports(filters: &Filters, key: &str) -> Result<Option<Vec<ContainerPort>>> {
    let Some(values) = filters.values(key) else { return Ok(None) };
    let mut ports = Vec::new();
    for value in values {
        let invalid = || EngineError::invalid(format!("invalid filter '{key}={value}'"));
        let (range, proto) = value.split_once('/').unwrap_or((value, "tcp"));
        let proto = proto.parse().map_err(|_| invalid())?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) =
            (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
        if first > last {
            return Err(invalid());
        }
        ports.extend((first..=last).map(|port| ContainerPort { port, proto }));
    }
    Ok(Some(ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        let mut filters = Filters::default();
        filters.add("publish", "80-82/udp");
        assert_eq!(ports(&filters, "publish").unwrap().unwrap().len(), 3);
        filters.add("publish", "90-80");
        assert!(ports(&filters, "publish").is_err());
    }
}

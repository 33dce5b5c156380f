//! `POST /containers/create`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use jiff::Timestamp;
use portolan_image::{Image, Platform};
use portolan_netcore::model::ContainerId;

use super::mounts::{self, WantedMount};
use super::record::{Container, Definition, Joined};
use super::state::RunState;
use super::{merge, names, security, validate};
use crate::engine::{Engine, blocking, random_bytes, to_the_end};
use crate::error::{EngineError, Result};
use crate::model::{
    CreateRequest, Created, EndpointSettings, HostConfig, MountPoint, MountType, NamespaceSetting,
    NetworkMode, VolumeSpec,
};
use crate::network::{attach_spec, is_predefined};
use crate::port_labels;
use crate::volume::Hold;

impl Engine {
    /// `POST /containers/create`.
    ///
    /// # Errors
    /// `Invalid` for a request that makes no sense, `NotFound` for the image, `Conflict` for the name. Leaves
    /// nothing behind.
    pub async fn container_create(&self, mut request: CreateRequest) -> Result<Created> {
        let mut warnings = validate::request(&mut request)?;
        let image = self.inner.images.resolve(&request.config.image)?;
        match request.platform.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => {
                self.image_check_platform(&image.id.to_string(), &request.config.image, &text.parse()?)?;
            }
            None => warnings.extend(platform_warning(&image)),
        }
        let labels = request.config.labels.clone();
        merge::merge(&mut request.config, &image.config.config)?;
        port_labels::check(&labels, &request.config, &request.host_config)?;
        self.check_log_config(&mut request.host_config)?;
        self.resolve_namespaces(&mut request.host_config);
        self.check_links(&request.host_config)?;
        let args = merge::command_line(&request.config)?;
        // What is wrong with these would else be found only at start.
        security::security_options(&request.host_config.security_opt, false)?;
        self.runtime_path(&request.host_config.runtime)?;
        self.fill_in(&mut request.host_config)?;

        let id = ContainerId::from_bytes(random_bytes());
        let endpoints = self.endpoints(&mut request).await?;
        let name = self.take_name(request.name.as_deref(), &id)?;
        if request.config.hostname.is_empty() {
            request.config.hostname = self.default_hostname(&id, &request.host_config);
        }
        let definition = Definition {
            id: id.clone(),
            name: name.clone(),
            created: Timestamp::now(),
            image_id: image.id.to_string(),
            args,
            config: request.config,
            host_config: request.host_config,
            endpoints,
            mounts: Vec::new(),
        };
        warnings.extend(self.publish_warnings(&definition).await);
        let engine = self.clone();
        let made = to_the_end(async move {
            let made = match engine.reserve_addresses(&definition).await {
                Ok(()) => engine.make(definition, &image).await,
                Err(error) => Err(error),
            };
            if made.is_err() {
                engine.inner.containers.release_name(&name, &id);
                if let Err(error) = engine.inner.networks.forget(&id).await {
                    tracing::error!(container = %id, %error, "give back the addresses of a failed create");
                }
                engine.discard_files(&id).await;
            }
            made
        })
        .await?;
        Ok(Created { id: made.id.to_string(), warnings })
    }

    /// Makes the files and volumes, stores the container, makes it known.
    async fn make(&self, mut definition: Definition, image: &Arc<Image>) -> Result<Arc<Container>> {
        let engine = self.clone();
        let image = image.clone();
        let (definition, made_volumes, mut hold) = blocking(move || {
            let id = definition.id.to_string();
            let directory = engine.directory(&id);
            std::fs::DirBuilder::new().mode(0o710).create(&directory).map_err(|error| {
                EngineError::internal(format!(
                    "make the container's directory {}: {error}",
                    directory.display()
                ))
            })?;
            engine.inner.images.prepare_rootfs(&id, &image.id)?;
            let mut hold = engine.inner.volumes.hold();
            let made_volumes = engine.make_mounts(&mut definition, &mut hold)?;
            let filled = engine.fill_volumes(&definition);
            if let Err(error) = filled {
                engine.drop_volumes(&made_volumes, &mut hold);
                return Err(error);
            }
            Ok((definition, made_volumes, hold))
        })
        .await?;
        let container = Container::new(definition, RunState::default());
        let write = container.with(|record| record.write());
        if let Err(error) = self.inner.database.commit(vec![write]).await {
            self.drop_volumes(&made_volumes, &mut hold);
            return Err(error);
        }
        self.inner.volumes.born(&made_volumes);
        for name in &made_volumes {
            self.volume_event("create", name, BTreeMap::new());
        }
        self.inner.containers.insert(container.clone());
        // From now on the container itself is their user.
        drop(hold);
        self.container_event(&container, "create", BTreeMap::new());
        Ok(container)
    }

    /// Takes volumes back that were made for a container that could not be; those that another one has by now stay.
    fn drop_volumes(&self, names: &[String], hold: &mut Hold) {
        hold.release();
        for name in names {
            let _ = self.forget_volume(name);
        }
        self.inner.volumes.delete_data();
    }

    /// Deletes what a container has on disk.
    pub(crate) async fn discard_files(&self, id: &ContainerId) {
        let (images, id, directory) =
            (self.inner.images.clone(), id.to_string(), self.directory(id.as_str()));
        let done = blocking(move || {
            if let Err(error) = images.remove_rootfs(&id) {
                tracing::warn!(container = %id, %error, "remove the container's root file system");
            }
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %directory.display(), %error, "remove the container's directory");
                }
                _ => {}
            }
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "remove a container's files");
        }
    }

    /// A name of the user's or a made-up one, taken.
    fn take_name(&self, wanted: Option<&str>, id: &ContainerId) -> Result<String> {
        if let Some(name) = wanted.filter(|name| !name.is_empty()) {
            let name = names::check(name)?;
            self.inner.containers.take_name(name, id)?;
            return Ok(name.to_owned());
        }
        let free = |name: &String| self.inner.containers.take_name(name, id).is_ok();
        (0..6).map(names::random).find(free).map_or_else(
            || {
                let name = id.short().to_owned();
                self.inner.containers.take_name(&name, id)?;
                Ok(name)
            },
            Ok,
        )
    }

    fn default_hostname(&self, id: &ContainerId, host: &HostConfig) -> String {
        match &host.network_mode {
            NetworkMode::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            NetworkMode::Container(of) => match self.inner.containers.find(of) {
                Ok(other) => other.with(|record| record.definition.config.hostname.clone()),
                Err(_) => id.short().to_owned(),
            },
            _ => id.short().to_owned(),
        }
    }

    /// `container:<name>` becomes `container:<id>`, which stays right when the other is renamed. One that is
    /// not there is an error at start.
    fn resolve_namespaces(&self, host: &mut HostConfig) {
        let id_of = |name: &str| self.inner.containers.find(name).map(|other| other.id.to_string());
        for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
            if let NamespaceSetting::Container(of) = mode
                && let Ok(id) = id_of(of)
            {
                *of = id;
            }
        }
        if let NetworkMode::Container(of) = &mut host.network_mode
            && let Ok(id) = id_of(of)
        {
            *of = id;
        }
    }

    fn check_log_config(&self, host: &mut HostConfig) -> Result<()> {
        let log = &mut host.log_config;
        if log.driver.is_empty() {
            self.default_log_driver().clone_into(&mut log.driver);
            if log.options.is_empty() {
                log.options.clone_from(&self.inner.config.default_log.options);
            }
        }
        super::logging::check(log)
    }

    /// The networks that the container joins: those of `EndpointsConfig`, and only if it names none that of
    /// `NetworkMode`.
    async fn endpoints(&self, request: &mut CreateRequest) -> Result<BTreeMap<String, Joined>> {
        let Some(primary) = request.host_config.network_mode.network_name().map(str::to_owned) else {
            return Ok(BTreeMap::new());
        };
        if request.config.network_disabled {
            return Ok(BTreeMap::new());
        }
        let order = std::mem::take(&mut request.endpoint_order);
        let place = |name: &str| order.iter().position(|given| given == name).unwrap_or(order.len());
        let mut given = std::mem::take(&mut request.endpoints);
        if given.is_empty() {
            let mac = request.config.mac_address;
            given.insert(primary, EndpointSettings { mac, ..EndpointSettings::default() });
        }
        let mut named: BTreeMap<String, Joined> = BTreeMap::new();
        for (given, settings) in given {
            let position = u32::try_from(place(&given)).unwrap_or(u32::MAX);
            let mut joined = Joined { network: None, settings, position };
            let found = self.inner.networks.find(&given).await;
            if is_predefined(&given) {
                joined.network = found.ok().map(|info| info.network.id);
                named.insert(given, joined);
                continue;
            }
            // By id or prefix: known by its name from here on. One that is missing is an error at start.
            let name = match found {
                Ok(info) => {
                    joined.network = Some(info.network.id);
                    info.network.name
                }
                Err(_) => given,
            };
            let earlier = named.remove(&name);
            if let Some(earlier) = earlier.filter(|e| e.settings != EndpointSettings::default()) {
                joined.settings = earlier.settings;
            }
            named.insert(name, joined);
        }
        Ok(named)
    }

    /// Keeps the addresses that the container asks for by number from now on, and checks what else it asks of
    /// networks. A network that is missing is an error at start.
    async fn reserve_addresses(&self, definition: &Definition) -> Result<()> {
        for (name, joined) in &definition.endpoints {
            let known = joined.network.is_some() || is_predefined(name);
            if !known || joined.settings == EndpointSettings::default() {
                continue;
            }
            match self.inner.networks.reserve(&definition.id, attach_spec(definition, name, joined)).await {
                Err(error) if error.kind() == portolan_net::ErrorKind::NotFound => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    /// Turns the mounts of the request into mounts with sources, making volumes. Names of those made.
    fn make_mounts(&self, definition: &mut Definition, hold: &mut Hold) -> Result<Vec<String>> {
        let (config, host) = (&definition.config, &definition.host_config);
        let mut points: BTreeMap<String, MountPoint> = BTreeMap::new();
        for text in &host.volumes_from {
            let (name, readonly) = mounts::parse_volumes_from(text)?;
            let other = self.inner.containers.find(name).map_err(|e| EngineError::invalid(e.message()))?;
            for mut mount in other.with(|record| record.definition.mounts.clone()) {
                mount.rw &= !readonly;
                mount.no_copy = true;
                mount.name.iter().for_each(|name| hold.add(name));
                points.insert(mount.destination.clone(), mount);
            }
        }
        let inherited: BTreeSet<String> = points.keys().cloned().collect();
        let mut made = Vec::new();
        for wanted in mounts::wanted(config, host, &inherited)? {
            match self.make_mount(wanted, &mut made, hold) {
                Ok(point) => drop(points.insert(point.destination.clone(), point)),
                Err(error) => {
                    self.drop_volumes(&made, hold);
                    return Err(error);
                }
            }
        }
        definition.mounts = points.into_values().collect();
        Ok(made)
    }

    fn make_mount(&self, wanted: WantedMount, made: &mut Vec<String>, hold: &mut Hold) -> Result<MountPoint> {
        let WantedMount { mut point, volume_labels, volume_options, create_source } = wanted;
        match point.kind {
            MountType::Tmpfs => {}
            MountType::Bind => {
                if create_source && !point.source.exists() {
                    std::fs::create_dir_all(&point.source).map_err(|error| {
                        EngineError::internal(format!(
                            "error while creating mount source path '{}': {error}",
                            point.source.display()
                        ))
                    })?;
                }
            }
            MountType::Volume => {
                let spec = VolumeSpec {
                    name: point.name.clone().unwrap_or_default(),
                    driver: String::new(),
                    options: volume_options,
                    labels: volume_labels,
                };
                let (volume, new) = self.inner.volumes.ensure(spec, hold, &self.inner.database)?;
                if new {
                    made.push(volume.name.clone());
                }
                point.source = volume.mountpoint;
                point.name = Some(volume.name);
            }
        }
        Ok(point)
    }
}

/// What an image is worth on this host that no platform was asked for.
fn platform_warning(image: &Image) -> Option<String> {
    let (os, architecture) = (image.config.os.as_str(), image.config.architecture.as_str());
    let host = Platform::default().architecture;
    (!architecture.is_empty() && architecture != host).then(|| {
        format!(
            "The requested image's platform ({os}/{architecture}) does not match the detected host platform \
             (linux/{host}) and no specific platform was requested"
        )
    })
}

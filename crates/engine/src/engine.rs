//! The handle: one method a command.

use std::io::{Read, Write};

use bytes::Bytes;
use portolan_net::{NetworkInfo, NetworkSpec};
use portolan_netcore::model::Network;

use crate::error::{EngineError, Result};
use crate::model::*;
use crate::streams::{Attachment, Events, Logs, Output, Waiter};

/// The engine. Clones are handles to the same engine. `name` is a container's name (a leading slash is
/// ignored), id, or a unique prefix of its id.
#[derive(Clone, Debug)]
pub struct Engine {}

fn later<T>() -> Result<T> {
    Err(EngineError::not_implemented("the engine is being built"))
}

impl Engine {
    /// `POST /containers/create`.
    pub async fn container_create(&self, _request: CreateRequest) -> Result<Created> {
        later()
    }

    /// `POST /containers/{id}/start`. `NotModified` if it runs.
    pub async fn container_start(&self, _name: &str) -> Result<()> {
        later()
    }

    /// `POST /containers/{id}/stop`. `NotModified` if it does not run.
    pub async fn container_stop(&self, _name: &str, _options: StopOptions) -> Result<()> {
        later()
    }

    /// `POST /containers/{id}/restart`.
    pub async fn container_restart(&self, _name: &str, _options: StopOptions) -> Result<()> {
        later()
    }

    /// `POST /containers/{id}/kill`: SIGKILL if no signal is named.
    pub async fn container_kill(&self, _name: &str, _signal: Option<&str>) -> Result<()> {
        later()
    }

    /// `POST /containers/{id}/pause`.
    pub async fn container_pause(&self, _name: &str) -> Result<()> {
        later()
    }

    /// `POST /containers/{id}/unpause`.
    pub async fn container_unpause(&self, _name: &str) -> Result<()> {
        later()
    }

    /// `POST /containers/{id}/wait`: returns at once; the waiter counts from here on.
    pub async fn container_wait(&self, _name: &str, _condition: WaitCondition) -> Result<Waiter> {
        later()
    }

    /// `DELETE /containers/{id}`.
    pub async fn container_remove(&self, _name: &str, _options: RemoveOptions) -> Result<()> {
        later()
    }

    /// `POST /containers/{id}/rename`.
    pub async fn container_rename(&self, _name: &str, _new_name: &str) -> Result<()> {
        later()
    }

    /// `GET /containers/json`, newest first.
    pub async fn container_list(&self, _options: ListOptions) -> Result<Vec<ContainerSnapshot>> {
        later()
    }

    /// `GET /containers/{id}/json`.
    pub async fn container_inspect(&self, _name: &str, _size: bool) -> Result<ContainerSnapshot> {
        later()
    }

    /// `GET /containers/{id}/logs`.
    pub async fn container_logs(&self, _name: &str, _options: LogOptions) -> Result<Logs> {
        later()
    }

    /// `POST /containers/{id}/attach`. A container that has not been started yet will be attached to as it
    /// starts, so that nothing of its output is missed.
    pub async fn container_attach(&self, _name: &str, _options: AttachOptions) -> Result<Attachment> {
        later()
    }

    /// `POST /containers/{id}/resize`.
    pub async fn container_resize(&self, _name: &str, _rows: u16, _columns: u16) -> Result<()> {
        later()
    }

    /// `GET /containers/{id}/top`; `-ef` if no arguments.
    pub async fn container_top(&self, _name: &str, _ps_args: &str) -> Result<TopTable> {
        later()
    }

    /// `POST /containers/{id}/update`. Warnings.
    pub async fn container_update(&self, _name: &str, _request: UpdateRequest) -> Result<Vec<String>> {
        later()
    }

    /// `GET /containers/{id}/stats`: one sample; the daemon calls again each second to stream.
    pub async fn container_stats(&self, _name: &str) -> Result<StatsSample> {
        later()
    }

    /// `GET /containers/{id}/changes`.
    pub async fn container_changes(&self, _name: &str) -> Result<Vec<Change>> {
        later()
    }

    /// `HEAD /containers/{id}/archive`.
    pub async fn container_stat_path(&self, _name: &str, _path: &str) -> Result<PathStat> {
        later()
    }

    /// `GET /containers/{id}/archive`: a tar stream of the path; its chunks are all `Stdout`.
    pub async fn container_get_archive(&self, _name: &str, _path: &str) -> Result<(PathStat, Output)> {
        later()
    }

    /// `PUT /containers/{id}/archive`: unpacks a tar stream into the directory `path`.
    pub async fn container_put_archive(
        &self,
        _name: &str,
        _path: &str,
        _no_overwrite_dir_non_dir: bool,
        _archive: Box<dyn Read + Send>,
    ) -> Result<()> {
        later()
    }

    /// `GET /containers/{id}/export`: a tar stream of the whole root; its chunks are all `Stdout`.
    pub async fn container_export(&self, _name: &str) -> Result<Output> {
        later()
    }

    /// `POST /commit`. The new image's id.
    pub async fn container_commit(&self, _name: &str, _request: CommitRequest) -> Result<String> {
        later()
    }

    /// `POST /containers/prune`. Filters: `label`, `label!`, `until`.
    pub async fn container_prune(&self, _filters: Filters) -> Result<Pruned> {
        later()
    }

    /// `POST /containers/{id}/exec`. The exec's id.
    pub async fn exec_create(&self, _container: &str, _config: ExecConfig) -> Result<String> {
        later()
    }

    /// `POST /exec/{id}/start`. None if detached.
    pub async fn exec_start(&self, _id: &str, _options: ExecStartOptions) -> Result<Option<Attachment>> {
        later()
    }

    /// `GET /exec/{id}/json`.
    pub async fn exec_inspect(&self, _id: &str) -> Result<ExecSnapshot> {
        later()
    }

    /// `POST /exec/{id}/resize`.
    pub async fn exec_resize(&self, _id: &str, _rows: u16, _columns: u16) -> Result<()> {
        later()
    }

    /// `POST /networks/create`.
    pub async fn network_create(&self, _spec: NetworkSpec) -> Result<Network> {
        later()
    }

    /// `DELETE /networks/{id}`.
    pub async fn network_remove(&self, _reference: &str) -> Result<()> {
        later()
    }

    /// `GET /networks/{id}`.
    pub async fn network_inspect(&self, _reference: &str) -> Result<NetworkInfo> {
        later()
    }

    /// `GET /networks`. Filters: `driver`, `type`, `name`, `id`, `label`, `scope`, `dangling`.
    pub async fn network_list(&self, _filters: Filters) -> Result<Vec<NetworkInfo>> {
        later()
    }

    /// `POST /networks/{id}/connect`.
    pub async fn network_connect(
        &self,
        _network: &str,
        _container: &str,
        _settings: EndpointSettings,
    ) -> Result<()> {
        later()
    }

    /// `POST /networks/{id}/disconnect`.
    pub async fn network_disconnect(&self, _network: &str, _container: &str, _force: bool) -> Result<()> {
        later()
    }

    /// `POST /networks/prune`. Names. Filters: `label`, `label!`, `until`.
    pub async fn network_prune(&self, _filters: Filters) -> Result<Vec<String>> {
        later()
    }

    /// `GET /images/json`.
    pub async fn image_list(
        &self,
        _filter: portolan_image::ListFilter,
    ) -> Result<Vec<portolan_image::ImageSummary>> {
        later()
    }

    /// `GET /images/{name}/json`.
    pub async fn image_inspect(&self, _name: &str) -> Result<portolan_image::ImageInspect> {
        later()
    }

    /// `GET /images/{name}/history`.
    pub async fn image_history(&self, _name: &str) -> Result<Vec<portolan_image::HistoryItem>> {
        later()
    }

    /// `POST /images/{name}/tag`.
    pub async fn image_tag(&self, _name: &str, _target: portolan_image::Reference) -> Result<()> {
        later()
    }

    /// `DELETE /images/{name}`.
    pub async fn image_remove(
        &self,
        _name: &str,
        _options: portolan_image::RemoveOptions,
    ) -> Result<Vec<portolan_image::Removed>> {
        later()
    }

    /// `POST /images/create?fromSrc=-`. The image's id with `sha256:`. `archive` is read on a blocking thread.
    pub async fn image_import(
        &self,
        _archive: Box<dyn Read + Send>,
        _options: portolan_image::ImportOptions,
    ) -> Result<String> {
        later()
    }

    /// `POST /images/load`.
    pub async fn image_load(&self, _archive: Box<dyn Read + Send>) -> Result<Vec<portolan_image::Loaded>> {
        later()
    }

    /// `GET /images/get`: writes an archive on a blocking thread. Names are checked before anything is written.
    pub async fn image_save(&self, _names: Vec<String>, _to: Box<dyn Write + Send>) -> Result<()> {
        later()
    }

    /// `POST /images/prune`.
    pub async fn image_prune(&self, _filter: portolan_image::PruneFilter) -> Result<portolan_image::Pruned> {
        later()
    }

    /// `POST /volumes/create`. The one that exists, if there is one with the same options.
    pub async fn volume_create(&self, _spec: VolumeSpec) -> Result<Volume> {
        later()
    }

    /// `GET /volumes/{name}`.
    pub async fn volume_inspect(&self, _name: &str) -> Result<Volume> {
        later()
    }

    /// `GET /volumes`. Filters: `dangling`, `driver`, `label`, `name`.
    pub async fn volume_list(&self, _filters: Filters) -> Result<Vec<Volume>> {
        later()
    }

    /// `DELETE /volumes/{name}`.
    pub async fn volume_remove(&self, _name: &str, _force: bool) -> Result<()> {
        later()
    }

    /// `POST /volumes/prune`. Filters: `label`, `label!`, `all`.
    pub async fn volume_prune(&self, _filters: Filters) -> Result<Pruned> {
        later()
    }

    /// `GET /events`.
    pub async fn events(&self, _options: EventsOptions) -> Result<Events> {
        later()
    }

    /// The engine's part of `GET /info`.
    pub async fn info(&self) -> Result<EngineInfo> {
        later()
    }

    /// `GET /system/df`.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        later()
    }

    /// The daemon ends: containers go on (live restore) or are stopped; the database is closed.
    pub async fn shutdown(&self) {
        let _: Bytes = Bytes::new();
    }
}

//! Images.

use std::collections::BTreeMap;

use portolan_api::{self as api, ApiVersion, Empty, StrSlice};
use portolan_image::{HistoryItem, ImageInspect, ImageSummary, Platform, Removed, RunConfig};

use super::rfc3339;
use crate::http::ApiError;

/// An item of `GET /images/json`. `users` is the number of containers, if they were counted.
pub(crate) fn image_summary(
    image: ImageSummary,
    shared: bool,
    users: Option<i64>,
    version: ApiVersion,
) -> api::ImageSummary {
    let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let (mut repo_tags, mut repo_digests) = (image.repo_tags, image.repo_digests);
    if version < ApiVersion::new(1, 43) && repo_tags.is_empty() && repo_digests.is_empty() {
        repo_tags.push("<none>:<none>".to_owned());
        repo_digests.push("<none>@<none>".to_owned());
    }
    let stored = &image.image;
    let labels = &stored.config.config.labels;
    api::ImageSummary {
        containers: users.unwrap_or(-1),
        created: stored.config.created.map(|created| created.as_second()).unwrap_or_default(),
        id: stored.id.to_string(),
        labels: Some(labels.clone()).filter(|labels| !labels.is_empty()),
        parent_id: super::text(stored.parent.as_ref()),
        repo_digests,
        repo_tags,
        shared_size: if shared { bytes(image.shared_size) } else { -1 },
        size: bytes(image.size),
        virtual_size: (version < ApiVersion::new(1, 44)).then(|| bytes(image.size)),
    }
}

/// `GET /images/{name}/json`, as a tree because older versions have fields that newer ones omit when empty.
pub(crate) fn image_inspect(image: ImageInspect, version: ApiVersion) -> Result<serde_json::Value, ApiError> {
    let stored = &image.image;
    let config = &stored.config;
    let size = i64::try_from(image.size).unwrap_or(i64::MAX);
    let mut created = config.created.map(|created| rfc3339(Some(created))).unwrap_or_default();
    if created.is_empty() && version < ApiVersion::new(1, 44) {
        created = rfc3339(None);
    }
    let inspect = api::ImageInspect {
        id: stored.id.to_string(),
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        parent: super::text(stored.parent.as_ref()),
        comment: config.comment.clone(),
        created,
        container: Some(config.container.clone())
            .filter(|id| version < ApiVersion::new(1, 45) && !id.is_empty()),
        container_config: (version < ApiVersion::new(1, 45)).then(api::ContainerConfig::default),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        config: Some(run_config(&config.config)),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size,
        virtual_size: (version < ApiVersion::new(1, 44)).then_some(size),
        graph_driver: api::GraphDriver {
            data: Some(graph_data(&image.layer_dirs)),
            name: "overlay2".to_owned(),
        },
        root_fs: api::RootFs {
            kind: config.rootfs.kind.clone(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: api::ImageMetadata { last_tag_time: rfc3339(stored.last_tagged) },
    };
    let mut tree = serde_json::to_value(inspect).map_err(|error| ApiError::internal(error.to_string()))?;
    if let serde_json::Value::Object(tree) = &mut tree
        && let Some(serde_json::Value::Object(given)) = tree.shift_remove("Config")
    {
        // Docker puts what it completes at the end.
        tree.insert("Config".to_owned(), complete_config(given, version));
    }
    Ok(tree)
}

/// The configuration with the fields that clients expect even when they are empty, in order of their names.
fn complete_config(
    given: serde_json::Map<String, serde_json::Value>,
    version: ApiVersion,
) -> serde_json::Value {
    use serde_json::{Value, json};
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    let mut expect = |value: Value, names: &[&str]| {
        fields.extend(names.iter().map(|name| ((*name).to_owned(), value.clone())));
    };
    expect(Value::Null, &["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"]);
    expect(json!(""), &["User", "WorkingDir"]);
    if version < ApiVersion::new(1, 50) {
        expect(json!(""), &["Domainname", "Hostname", "Image"]);
        let switches = ["AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"];
        expect(json!(false), &switches);
    }
    fields.extend(given);
    Value::Object(fields.into_iter().collect())
}

fn graph_data(dirs: &[std::path::PathBuf]) -> BTreeMap<String, String> {
    let mut data = BTreeMap::new();
    let mut dirs = dirs.iter().map(|dir| dir.to_string_lossy().into_owned());
    if let Some(upper) = dirs.next() {
        data.insert("UpperDir".to_owned(), upper);
    }
    let lower: Vec<String> = dirs.collect();
    if !lower.is_empty() {
        data.insert("LowerDir".to_owned(), lower.join(":"));
    }
    data
}

/// A platform as the Engine API has it in queries: JSON in the OCI's spelling.
pub(crate) fn platform(text: &str) -> Result<Platform, ApiError> {
    let given: api::OciPlatform = serde_json::from_str(text)
        .map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}")))?;
    if given.os.is_empty() || given.architecture.is_empty() {
        return Err(ApiError::invalid("both OS and Architecture must be provided"));
    }
    if !given.os_version.is_empty() {
        return Err(ApiError::invalid(format!("platform: os.version {} is not supported", given.os_version)));
    }
    Ok(Platform { os: given.os, architecture: given.architecture, variant: given.variant })
}

fn run_config(config: &RunConfig) -> api::ImageConfig {
    let keys = |set: &portolan_image::Set| set.keys().map(|key| (key.clone(), Empty)).collect();
    api::ImageConfig {
        user: config.user.clone(),
        exposed_ports: keys(&config.exposed_ports),
        env: config.env.clone(),
        entrypoint: StrSlice(config.entrypoint.clone().unwrap_or_default()),
        cmd: StrSlice(config.cmd.clone().unwrap_or_default()),
        volumes: keys(&config.volumes),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        args_escaped: config.args_escaped,
        healthcheck: config.healthcheck.as_ref().map(|health| api::HealthConfig {
            test: health.test.clone(),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }),
        on_build: config.on_build.clone(),
        shell: StrSlice(config.shell.clone()),
    }
}

/// An item of `GET /images/{name}/history`.
pub(crate) fn history_item(item: HistoryItem) -> api::HistoryItem {
    api::HistoryItem {
        comment: item.comment,
        created: item.created.map(|created| created.as_second()).unwrap_or_default(),
        created_by: item.created_by,
        id: item.id.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
        size: i64::try_from(item.size).unwrap_or(i64::MAX),
        tags: super::none_if_empty(item.tags),
    }
}

/// An item of what a removal did.
pub(crate) fn deleted(removed: Removed) -> api::ImageDeleteItem {
    match removed {
        Removed::Untagged(name) => api::ImageDeleteItem { untagged: name, ..Default::default() },
        Removed::Deleted(id) => api::ImageDeleteItem { deleted: id, ..Default::default() },
    }
}

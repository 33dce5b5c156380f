//! `/images/...`. Names of images have slashes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use portolan_api::{self as api, ApiVersion};
use portolan_engine::model::ListOptions;
use portolan_image::{ImportOptions, Loaded, Platform, Reference, RemoveOptions};
use tokio::sync::mpsc;

use crate::convert;
use crate::http::{Answer, ApiError, BodyReader, BodyWriter, Request, empty, json, ndjson, stream};
use crate::state::{State, complete};

pub(crate) async fn route(state: &Arc<State>, request: &mut Request, segments: &[&str]) -> Answer {
    match (request.method.as_str(), segments) {
        ("GET", ["json"]) => list(state, request).await,
        ("GET", ["search"]) => {
            Err(ApiError::not_implemented("searching registries is not supported by this engine"))
        }
        ("GET", ["get"]) => save(state, request, request.query.all("names")).await,
        ("GET", [name @ .., "get"]) => save(state, request, vec![name.join("/")]).await,
        ("GET", [name @ .., "history"]) => {
            let (name, platform) = (name.join("/"), stored_platform(request, "platform", (1, 48))?);
            check_platform(state, &[&name], platform.as_ref())?;
            let history = state.engine.image_history(&name).await?;
            let history: Vec<_> = history.into_iter().map(convert::history_item).collect();
            json(StatusCode::OK, &history)
        }
        ("GET", [name @ .., "json"]) => inspect(state, request, &name.join("/")).await,
        ("POST", ["create"]) => create(state, request).await,
        ("POST", ["load"]) => load(state, request).await,
        ("POST", ["prune"]) => prune(state, request).await,
        ("POST", [name @ .., "tag"]) => tag(state, request, name.join("/")).await,
        ("POST", [_, .., "push"]) => {
            Err(ApiError::not_implemented("pushing to registries is not supported: use save"))
        }
        ("DELETE", [_, ..]) => remove(state, request, segments.join("/")).await,
        _ => Err(ApiError::page_not_found()),
    }
}

async fn inspect(state: &State, request: &Request, name: &str) -> Answer {
    let platform = stored_platform(request, "platform", (1, 49))?;
    // The store keeps configurations and layers, not manifests: as with Docker's overlay2, there are none to show.
    if request.query.flag("manifests") && platform.is_some() {
        return Err(ApiError::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    check_platform(state, &[name], platform.as_ref())?;
    let image = state.engine.image_inspect(name).await?;
    json(StatusCode::OK, &convert::image_inspect(image, request.version)?)
}

async fn list(state: &State, request: &Request) -> Answer {
    let version = request.version;
    let query = &request.query;
    let mut filters = query.filters()?;
    if version < ApiVersion::new(1, 41)
        && let Some(pattern) = query.get("filter")
    {
        filters.add("reference", pattern);
    }
    let filter = convert::image_list_filter(&filters, query.flag("all"))?;
    let shared = version >= ApiVersion::new(1, 42) && query.flag("shared-size");
    // Digests are always shown; manifests are not kept, and then Docker's store too leaves them out.
    let _ = (query.flag("digests"), query.flag("manifests"));
    let mut images = state.engine.image_list(filter).await?;
    images.sort_by_key(|image| std::cmp::Reverse(image.image.config.created));
    // From this version on, containers are counted.
    let users = if version >= ApiVersion::new(1, 51) { Some(count_users(state).await?) } else { None };
    let summary = |image: portolan_image::ImageSummary| {
        let count = users.as_ref().map(|users| users.get(&image.image.id.to_string()).copied().unwrap_or(0));
        convert::image_summary(image, shared, count, version)
    };
    json(StatusCode::OK, &images.into_iter().map(summary).collect::<Vec<_>>())
}

/// Containers by image id.
pub(super) async fn count_users(state: &State) -> Result<HashMap<String, i64>, ApiError> {
    let mut users = HashMap::new();
    for container in state.engine.container_list(ListOptions { all: true, ..Default::default() }).await? {
        *users.entry(container.image_id).or_default() += 1;
    }
    Ok(users)
}

/// `repo` and `tag` of import, tag and commit; `latest` if there is no tag.
pub(super) fn repo_tag(repo: Option<&str>, tag: Option<&str>) -> Result<Option<Reference>, ApiError> {
    let Some(repo) = repo else { return Ok(None) };
    let invalid = |error: portolan_image::Error| ApiError::invalid(error.to_string());
    let reference = Reference::parse(repo).map_err(invalid)?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("cannot import digest reference"));
    }
    let reference = match tag {
        None => reference,
        Some(tag) => Reference::parse(&format!("{}:{tag}", reference.name())).map_err(invalid)?,
    };
    Ok(Some(reference.or_latest()))
}

async fn create(state: &Arc<State>, request: &mut Request) -> Answer {
    let query = &request.query;
    if let Some(image) = query.get("fromImage") {
        return super::registry::pull(state, request, image).await;
    }
    let source = query.get("fromSrc").unwrap_or_default();
    if source != "-" {
        return Err(ApiError::not_implemented(format!(
            "importing from {source:?} is not supported: send the archive (docker import -)"
        )));
    }
    let options = ImportOptions {
        reference: repo_tag(query.get("repo"), query.get("tag"))?,
        changes: query.all("changes"),
        message: query.get("message").unwrap_or("Imported from -").to_owned(),
        platform: query.get("platform").map(platform).transpose()?,
    };
    let archive = Box::new(BodyReader::new(request.body.take()));
    let engine = state.engine.clone();
    let id = complete(async move { engine.image_import(archive, options).await }).await?;
    progress(&[api::JsonMessage { status: id, ..Default::default() }])
}

/// `os[/arch[/variant]]`.
pub(super) fn platform(text: &str) -> Result<Platform, ApiError> {
    text.parse().map_err(|error: portolan_image::Error| ApiError::invalid(error.to_string()))
}

/// The platform of an image in the store that a client asks for, as JSON in the OCI's spelling; none in versions
/// before `since`. An image here is for one platform, so that several cannot be had.
fn stored_platform(request: &Request, key: &str, since: (u32, u32)) -> Result<Option<Platform>, ApiError> {
    if request.version < ApiVersion::new(since.0, since.1) {
        return Ok(None);
    }
    let given = request.query.all(key);
    match &given.iter().filter(|text| !text.is_empty()).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [text] => convert::platform(text).map(Some),
        _ => Err(ApiError::invalid(format!("multiple platforms ({key}) are not supported"))),
    }
}

fn check_platform(state: &State, names: &[&str], wanted: Option<&Platform>) -> Result<(), ApiError> {
    let Some(wanted) = wanted else { return Ok(()) };
    Ok(names.iter().try_for_each(|name| state.engine.image_check_platform(name, name, wanted))?)
}

/// Progress messages that are known already.
fn progress(messages: &[api::JsonMessage]) -> Answer {
    let lines: Result<Vec<Bytes>, _> = messages.iter().map(|message| ndjson(message, "\r\n")).collect();
    let lines = lines.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(stream("application/json", futures_util::stream::iter(lines.into_iter().map(Ok))))
}

/// Docker answers 200 and reports what goes wrong in the stream.
async fn load(state: &Arc<State>, request: &mut Request) -> Answer {
    let platform = stored_platform(request, "platform", (1, 48))?;
    // There is no progress that `quiet` could keep back.
    let _ = request.query.flag("quiet");
    let archive = Box::new(BodyReader::new(request.body.take()));
    let engine = state.engine.clone();
    let messages = match complete(async move { engine.image_load(archive, platform).await }).await {
        Ok(loaded) => loaded.into_iter().map(loaded_message).collect(),
        Err(error) => vec![api::JsonMessage {
            error_detail: Some(api::JsonError { code: 0, message: error.message.clone() }),
            error: error.message,
            ..Default::default()
        }],
    };
    progress(&messages)
}

fn loaded_message(loaded: Loaded) -> api::JsonMessage {
    let stream = match loaded {
        Loaded::Name(reference, _) => format!("Loaded image: {}\n", reference.familiar()),
        Loaded::Renamed(reference, old) => format!(
            "The image {} already exists, renaming the old one with ID {old} to empty string\n",
            reference.familiar()
        ),
        Loaded::Id(id) => format!("Loaded image ID: {id}\n"),
    };
    api::JsonMessage { stream, ..Default::default() }
}

/// Errors before the first byte have a status of their own; later ones break the stream off.
async fn save(state: &Arc<State>, request: &Request, names: Vec<String>) -> Answer {
    if names.is_empty() {
        return Err(ApiError::invalid("no image was named"));
    }
    let platform = stored_platform(request, "platform", (1, 48))?;
    check_platform(state, &names.iter().map(String::as_str).collect::<Vec<_>>(), platform.as_ref())?;
    let (writer, mut pieces) = BodyWriter::new();
    let engine = state.engine.clone();
    let saving = tokio::spawn(async move { engine.image_save(names, Box::new(writer)).await });
    let first = pieces.recv().await;
    if first.is_none() {
        let saved = saving.await.map_err(|error| ApiError::internal(error.to_string()))?;
        saved?;
        return Ok(empty(StatusCode::OK));
    }
    let rest = futures_util::stream::unfold(Some((pieces, saving)), next_piece);
    let all = futures_util::stream::iter(first).chain(rest);
    Ok(stream("application/x-tar", all))
}

type Saving = (mpsc::Receiver<std::io::Result<Bytes>>, tokio::task::JoinHandle<portolan_engine::Result<()>>);

/// A piece of the archive; after the last one, the error if there was one, so that the client does not take half
/// an archive for a whole one.
async fn next_piece(saving: Option<Saving>) -> Option<(std::io::Result<Bytes>, Option<Saving>)> {
    let (mut pieces, task) = saving?;
    if let Some(piece) = pieces.recv().await {
        return Some((piece, Some((pieces, task))));
    }
    let error = match task.await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!("saving images broke off: {error}");
    Some((Err(std::io::Error::other(error)), None))
}

async fn tag(state: &Arc<State>, request: &Request, name: String) -> Answer {
    let reference = repo_tag(request.query.get("repo"), request.query.get("tag"))?;
    let target =
        reference.ok_or_else(|| ApiError::invalid("repository name must have at least one component"))?;
    if target.familiar_name() == "sha256" {
        return Err(ApiError::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
    }
    let engine = state.engine.clone();
    complete(async move { engine.image_tag(&name, target).await }).await?;
    Ok(empty(StatusCode::CREATED))
}

async fn remove(state: &Arc<State>, request: &Request, name: String) -> Answer {
    let query = &request.query;
    let options = RemoveOptions { force: query.flag("force"), keep_parents: query.flag("noprune") };
    let platform = stored_platform(request, "platforms", (1, 50))?;
    check_platform(state, &[&name], platform.as_ref())?;
    let engine = state.engine.clone();
    let removed = complete(async move { engine.image_remove(&name, options).await }).await?;
    let removed: Vec<_> = removed.into_iter().map(convert::deleted).collect();
    json(StatusCode::OK, &removed)
}

async fn prune(state: &Arc<State>, request: &Request) -> Answer {
    let filter = convert::image_prune_filter(&request.query.filters()?)?;
    let engine = state.engine.clone();
    let pruned = complete(async move { engine.image_prune(filter).await }).await?;
    let deleted: Vec<_> = pruned.removed.into_iter().map(convert::deleted).collect();
    let report = api::ImagesPruneReport {
        images_deleted: Some(deleted).filter(|items| !items.is_empty()),
        space_reclaimed: pruned.space_reclaimed,
    };
    json(StatusCode::OK, &report)
}

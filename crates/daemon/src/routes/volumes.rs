//! `/volumes/...`

use std::sync::Arc;

use http::StatusCode;
use portolan_api as api;

use crate::convert;
use crate::http::{Answer, ApiError, Request, json, no_content};
use crate::state::{State, complete};

pub(crate) async fn route(state: &Arc<State>, request: &mut Request, segments: &[&str]) -> Answer {
    match (request.method.as_str(), segments) {
        ("GET", []) => list(state, request).await,
        ("POST", ["create"]) => create(state, request).await,
        ("POST", ["prune"]) => prune(state, request).await,
        ("GET", [name]) => json(StatusCode::OK, &convert::volume(state.engine.volume_inspect(name).await?)),
        ("PUT", [_]) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "volume update only valid for cluster volumes, but swarm is unavailable",
        )),
        ("DELETE", [name]) => {
            let (engine, name) = (state.engine.clone(), (*name).to_owned());
            let force = request.query.flag("force");
            complete(async move { engine.volume_remove(&name, force).await }).await?;
            Ok(no_content())
        }
        _ => Err(ApiError::page_not_found()),
    }
}

async fn list(state: &State, request: &Request) -> Answer {
    let filters = convert::filters(request.query.filters()?);
    let volumes = state.engine.volume_list(filters).await?;
    let volumes = Some(volumes.into_iter().map(convert::volume).collect());
    json(StatusCode::OK, &api::VolumeListResponse { volumes, warnings: None })
}

async fn create(state: &Arc<State>, request: &mut Request) -> Answer {
    let body: api::VolumeCreate = request.json().await?;
    let spec = convert::volume_spec(body)?;
    let engine = state.engine.clone();
    let volume = complete(async move { engine.volume_create(spec).await }).await?;
    json(StatusCode::CREATED, &convert::volume(volume))
}

/// Before v1.42, prune meant named volumes too.
async fn prune(state: &Arc<State>, request: &Request) -> Answer {
    let mut filters = request.query.filters()?;
    if request.version < api::ApiVersion::new(1, 42) {
        filters.add("all", "true");
    }
    let engine = state.engine.clone();
    let pruned = complete(async move { engine.volume_prune(convert::filters(filters)).await }).await?;
    let report = api::VolumesPruneReport {
        volumes_deleted: Some(pruned.deleted).filter(|names| !names.is_empty()),
        space_reclaimed: pruned.space_reclaimed,
    };
    json(StatusCode::OK, &report)
}

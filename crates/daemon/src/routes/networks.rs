//! `/networks/...`

use std::sync::Arc;

use http::StatusCode;
use portolan_api as api;
use portolan_net::DnsUpdate;
use portolan_netcore::model::parse_bool;

use crate::convert;
use crate::http::{Answer, ApiError, Request, empty, json, no_content};
use crate::state::{State, complete};

pub(crate) async fn route(state: &Arc<State>, request: &mut Request, segments: &[&str]) -> Answer {
    match (request.method.as_str(), segments) {
        ("GET", []) => list(state, request).await,
        ("POST", ["create"]) => create(state, request).await,
        ("POST", ["prune"]) => prune(state, request).await,
        ("GET", [id]) => inspect(state, request, id).await,
        ("DELETE", [id]) => {
            let (engine, id) = (state.engine.clone(), (*id).to_owned());
            complete(async move { engine.network_remove(&id).await }).await?;
            Ok(no_content())
        }
        ("POST", [id, "update"]) => update(state, request, id).await,
        ("POST", [id, "connect"]) => connect(state, request, id).await,
        ("POST", [id, "disconnect"]) => disconnect(state, request, id).await,
        _ => Err(ApiError::page_not_found()),
    }
}

async fn list(state: &State, request: &Request) -> Answer {
    let filters = convert::filters(request.query.filters()?);
    let networks = state.engine.network_list(filters).await?;
    let networks: Vec<_> =
        networks.into_iter().map(|info| convert::network(info, false, request.version)).collect();
    json(StatusCode::OK, &networks)
}

async fn create(state: &Arc<State>, request: &mut Request) -> Answer {
    let body: api::NetworkCreate = request.json().await?;
    let spec = convert::network_spec(body, request.version)?;
    let engine = state.engine.clone();
    let network = complete(async move { engine.network_create(spec).await }).await?;
    let created = api::NetworkCreateResponse { id: network.id.to_string(), warning: String::new() };
    json(StatusCode::CREATED, &created)
}

async fn inspect(state: &State, request: &Request, id: &str) -> Answer {
    let network = state.engine.network_inspect(id).await?;
    // Docker adds swarm services; we have none, and show older clients how many addresses are in use.
    let verbose = verbose(request.query.get("verbose"))?;
    if request.query.get("scope").is_some_and(|scope| scope != "local") {
        return Err(ApiError::not_found(format!("network {id} not found")));
    }
    let conflicts = state.engine.network_conflicts();
    let status = convert::network_status(&network, verbose, request.version, &conflicts);
    let shown = api::Network { status, ..convert::network(network, true, request.version) };
    json(StatusCode::OK, &shown)
}

/// The one flag that Docker refuses if it makes no sense of it.
fn verbose(given: Option<&str>) -> Result<bool, ApiError> {
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(false) };
    parse_bool(text).ok_or_else(|| {
        ApiError::invalid(format!(
            "invalid value for verbose: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))
    })
}

async fn connect(state: &Arc<State>, request: &mut Request, id: &str) -> Answer {
    let body: api::NetworkConnect = request.json().await?;
    let settings = convert::endpoint_from_api(body.endpoint_config.unwrap_or_default(), request.version)?;
    let (engine, id, container) = (state.engine.clone(), id.to_owned(), body.container);
    complete(async move { engine.network_connect(&id, &container, settings).await }).await?;
    Ok(empty(StatusCode::OK))
}

async fn disconnect(state: &Arc<State>, request: &mut Request, id: &str) -> Answer {
    let body: api::NetworkDisconnect = request.json().await?;
    let (engine, id) = (state.engine.clone(), id.to_owned());
    complete(async move { engine.network_disconnect(&id, &body.container, body.force).await }).await?;
    Ok(empty(StatusCode::OK))
}

/// Ours, after Podman's `POST /libpod/networks/{name}/update`.
async fn update(state: &Arc<State>, request: &mut Request, id: &str) -> Answer {
    let body: api::NetworkUpdate = request.json().await?;
    let update = DnsUpdate {
        add: convert::addresses("adddnsservers", Some(body.add_dns_servers))?,
        remove: convert::addresses("removednsservers", Some(body.remove_dns_servers))?,
    };
    let (engine, id) = (state.engine.clone(), id.to_owned());
    complete(async move { engine.network_update_dns(&id, update).await }).await?;
    Ok(no_content())
}

async fn prune(state: &Arc<State>, request: &Request) -> Answer {
    let filters = convert::filters(request.query.filters()?);
    let engine = state.engine.clone();
    let deleted = complete(async move { engine.network_prune(filters).await }).await?;
    let networks_deleted = Some(deleted).filter(|names| !names.is_empty());
    json(StatusCode::OK, &api::NetworksPruneReport { networks_deleted })
}

//! Everything that is not about one kind of thing: ping, version, info, events, disk usage; and the parts of
//! Docker's API that this engine does not have.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use portolan_api as api;
use portolan_api::ApiVersion;
use portolan_engine::model::EventsOptions;

use crate::convert;
use crate::http::{Answer, ApiError, Request, Response, empty, json, ndjson, stream, text};
use crate::state::State;

pub(crate) async fn route(state: &Arc<State>, request: &mut Request, first: &str, rest: &[&str]) -> Answer {
    match (request.method.as_str(), first, rest) {
        ("GET" | "HEAD", "_ping", []) => Ok(ping(state, request)),
        ("GET", "version", []) => json(StatusCode::OK, &super::info::version(state)),
        ("GET", "info", []) => super::info::info(state, request).await,
        ("GET", "events", []) => events(state, request).await,
        ("GET", "system", ["df"]) => disk_usage(state, request).await,
        ("POST", "auth", []) => super::registry::login(state, request).await,
        ("GET", "distribution", [name @ .., "json"]) if !name.is_empty() => {
            super::registry::look_up(state, request, &name.join("/")).await
        }
        _ => absent(request.method.as_str(), first, rest),
    }
}

fn ping(state: &State, request: &Request) -> Response {
    const BUILDER_VERSION: HeaderName = HeaderName::from_static("builder-version");
    const SWARM: HeaderName = HeaderName::from_static("swarm");
    const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
    let mut response = if request.method == Method::HEAD { empty(StatusCode::OK) } else { text("OK") };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // 1 is the classic builder: clients then send a build to us, and get our answer, rather than start BuildKit.
    headers.insert(BUILDER_VERSION, HeaderValue::from_static("1"));
    headers.insert(SWARM, HeaderValue::from_static("inactive"));
    let experimental = if state.config.experimental { "true" } else { "false" };
    headers.insert(EXPERIMENTAL, HeaderValue::from_static(experimental));
    response
}

async fn events(state: &Arc<State>, request: &Request) -> Answer {
    let query = &request.query;
    let now = Timestamp::now();
    let time = |key: &str| query.get(key).map(|text| convert::parse_time(text, now)).transpose();
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(from), Some(to)) = (since, until)
        && to < from
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            query.get("since").unwrap_or_default(),
            query.get("until").unwrap_or_default()
        )));
    }
    let options = EventsOptions { since, until, filters: convert::filters(query.filters()?) };
    let events = state.engine.events(options).await?;
    // Events of an image's creation came with v1.46.
    let skips_image_create = request.version < ApiVersion::new(1, 46);
    let lines = futures_util::stream::unfold(events, move |mut events| async move {
        loop {
            let event = convert::event(events.next().await?);
            if !(skips_image_create && event.kind == "image" && event.action == "create") {
                return Some((ndjson(&event, "\n"), events));
            }
        }
    });
    Ok(stream("application/json", lines))
}

async fn disk_usage(state: &Arc<State>, request: &Request) -> Answer {
    let types = request.query.all("type");
    let version = request.version;
    for kind in &types {
        if !["container", "image", "volume", "build-cache"].contains(&kind.as_str()) {
            return Err(ApiError::invalid(format!("unknown object type: {kind}")));
        }
    }
    let wanted = |kind: &str| {
        types.is_empty() || version < ApiVersion::new(1, 42) || types.iter().any(|one| one == kind)
    };
    let usage = state.engine.disk_usage().await?;
    let mut answer = api::DiskUsage::default();
    if wanted("image") {
        let users = super::images::count_users(state).await?;
        let images = state.engine.image_list(portolan_image::ListFilter::default()).await?;
        let summary = |image: portolan_image::ImageSummary| {
            let count = users.get(&image.image.id.to_string()).copied().unwrap_or(0);
            convert::image_summary(image, true, Some(count), version)
        };
        answer.layers_size = i64::try_from(usage.layers_bytes).unwrap_or(i64::MAX);
        answer.images = Some(images.into_iter().map(summary).collect());
    }
    if wanted("container") {
        let now = Timestamp::now();
        let summary = |container| convert::container_summary(container, now, version);
        answer.containers = Some(usage.containers.into_iter().map(summary).collect());
    }
    if wanted("volume") {
        answer.volumes = Some(usage.volumes.into_iter().map(convert::volume_usage).collect());
    }
    if wanted("build-cache") {
        answer.build_cache = Some(Vec::new());
    }
    json(StatusCode::OK, &answer)
}

/// Docker's words for a daemon outside a swarm.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// What this engine does not have, in words that say so.
fn absent(method: &str, first: &str, rest: &[&str]) -> Answer {
    let missing =
        |what: &str| Err(ApiError::not_implemented(format!("{what} is not supported by this engine")));
    match (method, first, rest) {
        ("GET", "plugins", []) => json::<[(); 0]>(StatusCode::OK, &[]),
        ("GET", "plugins", [name @ .., "json"]) => {
            Err(ApiError::not_found(format!("plugin {:?} not found", name.join("/"))))
        }
        (_, "plugins", _) => missing("managing plugins"),
        ("POST", "swarm", ["init" | "join"]) => missing("swarm"),
        ("POST", "swarm", ["leave"]) => {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm"))
        }
        (_, "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", _) => {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM))
        }
        ("POST", "build", []) => missing("building images"),
        ("POST", "build", ["prune"]) => {
            json(StatusCode::OK, &serde_json::json!({"CachesDeleted": null, "SpaceReclaimed": 0}))
        }
        ("POST", "build", ["cancel"]) => missing("building images"),
        ("POST", "session" | "grpc", _) => missing("BuildKit"),
        _ => Err(ApiError::page_not_found()),
    }
}

//! `/containers/...`

use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::Timestamp;
use portolan_api as api;
use portolan_engine::model::{ListOptions, RemoveOptions, StopOptions, WaitCondition};

use super::{archive, attach, logs, stats};
use crate::convert;
use crate::http::{Answer, ApiError, Request, json, ndjson, no_content, stream};
use crate::state::{State, complete};

pub(crate) async fn route(state: &Arc<State>, request: &mut Request, segments: &[&str]) -> Answer {
    match (request.method.as_str(), segments) {
        ("GET", ["json"]) => list(state, request).await,
        ("POST", ["create"]) => create(state, request).await,
        ("POST", ["prune"]) => prune(state, request).await,
        ("GET", [name, "json"]) => inspect(state, request, name).await,
        ("GET", [name, "top"]) => top(state, request, name).await,
        ("GET", [name, "logs"]) => logs::logs(state, request, name).await,
        ("GET", [name, "stats"]) => stats::stats(state, request, name).await,
        ("GET", [name, "changes"]) => changes(state, name).await,
        ("GET", [name, "export"]) => archive::export(state, name).await,
        ("GET" | "HEAD" | "PUT", [name, "archive"]) => archive::archive(state, request, name).await,
        ("GET", [_, "attach", "ws"]) => {
            Err(ApiError::not_implemented("attaching by WebSocket is not supported"))
        }
        ("GET" | "POST", [_, "checkpoints", ..]) => {
            Err(ApiError::not_implemented("checkpoints are not supported"))
        }
        ("POST", [name, "attach"]) => attach::answer(state, request, name).await,
        ("POST", [name, "exec"]) => super::exec::create(state, request, name).await,
        ("POST", [name, "wait"]) => wait(state, request, name).await,
        ("POST", [name, "resize"]) => resize(state, request, name).await,
        ("POST", [name, "update"]) => update(state, request, name).await,
        ("POST", [name, command]) => act(state, request, name, command).await,
        ("DELETE", [name]) => remove(state, request, name).await,
        // A link's name (`rm --link web/db`).
        ("DELETE", [parent, alias]) => remove(state, request, &format!("{parent}/{alias}")).await,
        _ => Err(ApiError::page_not_found()),
    }
}

async fn list(state: &State, request: &Request) -> Answer {
    let query = &request.query;
    let filters = query.filters()?;
    let limit = query.integer("limit")?.filter(|limit| *limit > 0);
    let options = ListOptions {
        all: query.flag("all"),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()),
        size: query.flag("size"),
        filters: convert::filters(filters),
    };
    let now = Timestamp::now();
    let containers = state.engine.container_list(options).await?;
    let summaries: Vec<_> = containers
        .into_iter()
        .map(|container| convert::container_summary(container, now, request.version))
        .collect();
    json(StatusCode::OK, &summaries)
}

async fn create(state: &Arc<State>, request: &mut Request) -> Answer {
    let body: api::CreateRequest = request.required_json().await?;
    let (name, platform) = (request.query.get("name"), request.query.get("platform"));
    let (wanted, warnings) = convert::create_request(body, name, platform, request.version)?;
    let engine = state.engine.clone();
    let mut created = complete(async move { engine.container_create(wanted).await }).await?;
    created.warnings.extend(warnings);
    json(StatusCode::CREATED, &api::CreateResponse { id: created.id, warnings: created.warnings })
}

async fn prune(state: &Arc<State>, request: &Request) -> Answer {
    let filters = convert::filters(request.query.filters()?);
    let engine = state.engine.clone();
    let pruned = complete(async move { engine.container_prune(filters).await }).await?;
    let deleted = Some(pruned.deleted).filter(|ids| !ids.is_empty());
    let report =
        api::ContainersPruneReport { containers_deleted: deleted, space_reclaimed: pruned.space_reclaimed };
    json(StatusCode::OK, &report)
}

async fn inspect(state: &State, request: &Request, name: &str) -> Answer {
    let container = state.engine.container_inspect(name, request.query.flag("size")).await?;
    json(StatusCode::OK, &convert::container_inspect(container, request.version))
}

async fn top(state: &State, request: &Request, name: &str) -> Answer {
    let table = state.engine.container_top(name, request.query.get("ps_args").unwrap_or_default()).await?;
    json(StatusCode::OK, &api::TopResponse { processes: table.processes, titles: table.titles })
}

async fn changes(state: &State, name: &str) -> Answer {
    use portolan_engine::model::ChangeKind;
    let change = |change: portolan_engine::model::Change| api::FilesystemChange {
        kind: match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        },
        path: change.path,
    };
    let changes: Vec<_> = state.engine.container_changes(name).await?.into_iter().map(change).collect();
    // Docker's nil slice.
    json(StatusCode::OK, &Some(changes).filter(|changes| !changes.is_empty()))
}

/// The head of the answer is sent at once: `docker run` starts the container only when it has it.
async fn wait(state: &State, request: &Request, name: &str) -> Answer {
    let condition = match request.query.get("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiter = state.engine.container_wait(name, condition).await?;
    let answer = async move {
        let answer = match waiter.outcome().await {
            Ok(outcome) => api::WaitResponse {
                status_code: i64::from(outcome.exit_code),
                error: outcome.error.map(|message| api::WaitError { message }),
            },
            Err(error) => api::WaitResponse {
                status_code: -1,
                error: Some(api::WaitError { message: error.message().to_owned() }),
            },
        };
        ndjson(&answer, "\n")
    };
    Ok(stream("application/json", futures_util::stream::once(answer)))
}

/// Rows and columns of a resize.
pub(super) fn size(request: &Request) -> Result<(u16, u16), ApiError> {
    let side = |key: &str, name: &str| {
        let text = request.query.get(key).unwrap_or_default();
        let number: u32 = text
            .parse()
            .map_err(|_| ApiError::invalid(format!("invalid resize {name} {text:?}: invalid syntax")))?;
        u16::try_from(number)
            .map_err(|_| ApiError::invalid(format!("invalid resize {name} {text:?}: value out of range")))
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

async fn resize(state: &State, request: &Request, name: &str) -> Answer {
    let (rows, columns) = size(request)?;
    state.engine.container_resize(name, rows, columns).await?;
    Ok(crate::http::empty(StatusCode::OK))
}

async fn update(state: &Arc<State>, request: &mut Request, name: &str) -> Answer {
    let body: api::UpdateConfig = request.json().await?;
    let wanted = convert::update_request(&body)?;
    let (engine, name) = (state.engine.clone(), name.to_owned());
    let warnings = complete(async move { engine.container_update(&name, wanted).await }).await?;
    let warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    json(StatusCode::OK, &api::UpdateResponse { warnings })
}

fn stop_options(request: &Request) -> Result<StopOptions, ApiError> {
    let signal = request.query.get("signal").filter(|_| request.version >= api::ApiVersion::new(1, 42));
    Ok(StopOptions { signal: signal.map(str::to_owned), timeout_s: request.query.integer("t")? })
}

/// The commands that answer with nothing.
async fn act(state: &Arc<State>, request: &mut Request, name: &str, command: &str) -> Answer {
    let (engine, name) = (state.engine.clone(), name.to_owned());
    match command {
        "start" => {
            for key in ["checkpoint", "checkpoint-dir"] {
                if request.query.get(key).is_some() {
                    return Err(ApiError::not_implemented("checkpoints are not supported"));
                }
            }
            complete(async move { engine.container_start(&name).await }).await?;
        }
        "stop" => {
            let options = stop_options(request)?;
            complete(async move { engine.container_stop(&name, options).await }).await?;
        }
        "restart" => {
            let options = stop_options(request)?;
            complete(async move { engine.container_restart(&name, options).await }).await?;
        }
        "kill" => {
            let signal = request.query.get("signal").map(str::to_owned);
            complete(async move {
                let killed = engine.container_kill(&name, signal.as_deref()).await;
                killed.map_err(|error| error.context(format_args!("cannot kill container: {name}")))
            })
            .await?;
        }
        "pause" => complete(async move { engine.container_pause(&name).await }).await?,
        "unpause" => complete(async move { engine.container_unpause(&name).await }).await?,
        "rename" => {
            let new = request.query.get("name").unwrap_or_default().to_owned();
            complete(async move { engine.container_rename(&name, &new).await }).await?;
        }
        _ => return Err(ApiError::page_not_found()),
    }
    Ok(no_content())
}

async fn remove(state: &Arc<State>, request: &Request, name: &str) -> Answer {
    let query = &request.query;
    let options =
        RemoveOptions { force: query.flag("force"), volumes: query.flag("v"), link: query.flag("link") };
    let (engine, name) = (state.engine.clone(), name.to_owned());
    complete(async move { engine.container_remove(&name, options).await }).await?;
    Ok(no_content())
}

/// `POST /commit`
pub(crate) async fn commit(state: &Arc<State>, request: &mut Request) -> Answer {
    debug_assert_eq!(request.method, Method::POST);
    let config: Option<api::ContainerConfig> = request.json().await?;
    let query = &request.query;
    let name = query.get("container").unwrap_or_default().to_owned();
    let wanted = portolan_engine::model::CommitRequest {
        reference: super::images::repo_tag(query.get("repo"), query.get("tag"))?,
        comment: query.get("comment").unwrap_or_default().to_owned(),
        author: query.get("author").unwrap_or_default().to_owned(),
        pause: query.flag_or("pause", true),
        changes: query.all("changes"),
        config: config.map(convert::config_from_api).transpose()?,
    };
    let engine = state.engine.clone();
    let id = complete(async move { engine.container_commit(&name, wanted).await }).await?;
    json(StatusCode::CREATED, &api::IdResponse { id })
}

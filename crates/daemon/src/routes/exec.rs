//! `/exec/...`

use std::sync::Arc;

use http::StatusCode;
use portolan_api as api;
use portolan_engine::model::Status;

use super::attach::{MULTIPLEXED, take_over};
use super::containers::size;
use crate::convert;
use crate::http::{Answer, ApiError, Request, empty, json};
use crate::server::{Takeover, What};
use crate::state::{State, complete};

pub(crate) async fn route(state: &Arc<State>, request: &mut Request, segments: &[&str]) -> Answer {
    match (request.method.as_str(), segments) {
        ("GET", [id, "json"]) => {
            json(StatusCode::OK, &convert::exec_inspect(state.engine.exec_inspect(id).await?))
        }
        ("POST", [id, "resize"]) => {
            let (rows, columns) = size(request)?;
            state.engine.exec_resize(id, rows, columns).await?;
            Ok(empty(StatusCode::OK))
        }
        ("POST", [id, "start"]) => {
            let options: api::ExecStart = request.json().await?;
            match start(state, request, id, options).await? {
                Some(takeover) => Ok(take_over(request, takeover).await),
                None => Ok(empty(StatusCode::OK)),
            }
        }
        _ => Err(ApiError::page_not_found()),
    }
}

/// `POST /containers/{id}/exec`
pub(super) async fn create(state: &Arc<State>, request: &mut Request, name: &str) -> Answer {
    let body: api::ExecConfig = request.json().await?;
    let config = convert::exec_config(body, request.version)?;
    let id = state.engine.exec_create(name, config).await?;
    json(StatusCode::CREATED, &api::IdResponse { id })
}

/// Starts an exec if it is detached: `None`. Else it is started when the client has its answer; Docker reports
/// what goes wrong then in the stream, and its CLI takes the exit code from inspect.
pub(crate) async fn start(
    state: &State,
    request: &Request,
    id: &str,
    body: api::ExecStart,
) -> Result<Option<Takeover>, ApiError> {
    let options = convert::exec_start(&body, request.version);
    let (engine, id) = (state.engine.clone(), id.to_owned());
    if options.detach {
        complete(async move { engine.exec_start(&id, options).await }).await?;
        return Ok(None);
    }
    check_container(state, &id).await?;
    let what = What::Exec { engine, id, options };
    Ok(Some(Takeover { multiplexed_type: request.version >= MULTIPLEXED, what }))
}

/// What Docker checks before it answers: the exec is known, and its container can run something.
async fn check_container(state: &State, id: &str) -> Result<(), ApiError> {
    let exec = state.engine.exec_inspect(id).await?;
    let container = exec.container_id.as_str();
    let conflict = |text: String| Err(ApiError::new(StatusCode::CONFLICT, text));
    match state.engine.container_inspect(container, false).await?.state.status {
        Status::Running => Ok(()),
        Status::Paused => {
            conflict(format!("container {container} is paused, unpause the container before exec"))
        }
        Status::Restarting => {
            conflict(format!("Container {container} is restarting, wait until the container is running"))
        }
        _ => conflict(format!("container {container} is not running")),
    }
}

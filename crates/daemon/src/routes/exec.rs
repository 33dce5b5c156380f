//! `/exec/...`

use std::sync::Arc;

use http::StatusCode;
use portolan_api as api;

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
                Some(takeover) => Ok(take_over(request, takeover)),
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

/// Starts an exec; `None` if it is detached. Once it is known to exist, Docker reports everything that goes wrong
/// in the stream: its CLI takes the exit code from inspect then.
pub(crate) async fn start(
    state: &State,
    request: &Request,
    id: &str,
    body: api::ExecStart,
) -> Result<Option<Takeover>, ApiError> {
    let options = convert::exec_start(&body, request.version);
    let (engine, exec) = (state.engine.clone(), id.to_owned());
    let started = complete(async move { engine.exec_start(&exec, options).await }).await;
    let what = match started {
        Ok(None) => return Ok(None),
        Ok(Some(attachment)) => What::Attached(attachment),
        Err(error) if body.detach || in_advance(&error) => return Err(error),
        Err(error) => What::Failed { tty: body.tty, text: error.message },
    };
    Ok(Some(Takeover { multiplexed_type: request.version >= MULTIPLEXED, what }))
}

/// No such exec, or its container does not run or is paused: known before anything is started.
fn in_advance(error: &ApiError) -> bool {
    matches!(error.status, StatusCode::NOT_FOUND | StatusCode::CONFLICT)
}

//! Files of containers: `/containers/{id}/archive` (cp) and `/containers/{id}/export`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, StatusCode};
use portolan_api as api;
use portolan_engine::Archive;
use portolan_engine::model::PathStat;

use crate::convert::{go_mode, rfc3339};
use crate::http::{Answer, ApiError, BodyReader, Request, Response, empty, stream};
use crate::state::{State, complete};

const TAR: &str = "application/x-tar";

pub(super) async fn archive(state: &Arc<State>, request: &mut Request, name: &str) -> Answer {
    let path = request.query.get("path").map(str::to_owned);
    let path = path.ok_or_else(|| ApiError::invalid("bad parameter: path cannot be empty"))?;
    if path.contains('\0') {
        return Err(ApiError::invalid(format!("bad parameter: path {path:?} contains a NUL byte")));
    }
    match request.method {
        Method::HEAD => {
            let stat = state.engine.container_stat_path(name, &path).await?;
            with_stat(empty(StatusCode::OK), stat)
        }
        Method::GET => {
            let (stat, archive) = state.engine.container_get_archive(name, &path).await?;
            with_stat(tar(archive), stat)
        }
        _ => put(state, request, name, path).await,
    }
}

async fn put(state: &Arc<State>, request: &mut Request, name: &str, path: String) -> Answer {
    // Docker gives the files to the container's user then; without one, it changes nothing either.
    if request.query.flag("copyUIDGID") {
        let user = state.engine.container_inspect(name, false).await?.config.user;
        if !user.is_empty() {
            return Err(ApiError::not_implemented(format!(
                "copyUIDGID is not supported for a container with a user ({user}): copy without it (docker cp without -a) and chown"
            )));
        }
    }
    let keep_directories = request.query.flag("noOverwriteDirNonDir");
    let archive = Box::new(BodyReader::new(request.body.take()));
    let (engine, name) = (state.engine.clone(), name.to_owned());
    complete(async move { engine.container_put_archive(&name, &path, keep_directories, archive).await })
        .await?;
    Ok(empty(StatusCode::OK))
}

pub(super) async fn export(state: &State, name: &str) -> Answer {
    Ok(tar(state.engine.container_export(name).await?))
}

/// An archive that breaks off breaks the answer off, so that the client does not take half of it for all.
fn tar(archive: Archive) -> Response {
    stream(
        TAR,
        futures_util::stream::unfold(archive, |mut archive| async move {
            let piece = archive.next().await?;
            if let Err(error) = &piece {
                tracing::warn!("an archive of a container's files broke off: {error}");
            }
            Some((piece, archive))
        }),
    )
}

fn with_stat(mut response: Response, stat: PathStat) -> Answer {
    let stat = api::PathStat {
        name: stat.name,
        size: i64::try_from(stat.size).unwrap_or(i64::MAX),
        mode: go_mode(stat.mode),
        mtime: rfc3339(Some(stat.mtime)),
        link_target: stat.link_target,
    };
    let json = serde_json::to_vec(&stat).map_err(|error| ApiError::internal(error.to_string()))?;
    let value = HeaderValue::try_from(STANDARD.encode(json))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    response.headers_mut().insert("X-Docker-Container-Path-Stat", value);
    Ok(response)
}

//! `POST /containers/{id}/attach`

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use portolan_api::{ApiVersion, media_type};
use portolan_engine::model::AttachOptions;

use crate::http::{Answer, ApiError, Request, Response, empty, stream};
use crate::server::{Sniffer, Stream, Takeover, What};
use crate::state::State;

/// From this version on, framed streams have a content type of their own.
pub(super) const MULTIPLEXED: ApiVersion = ApiVersion::new(1, 42);

/// Attaches.
pub(crate) async fn attach(state: &State, request: &Request, name: &str) -> Result<Takeover, ApiError> {
    let query = &request.query;
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: query.get("detachKeys").map(str::to_owned),
    };
    let attachment = state.engine.container_attach(name, options).await?;
    Ok(Takeover { multiplexed_type: request.version >= MULTIPLEXED, what: What::Attached(attachment) })
}

pub(super) async fn answer(state: &Arc<State>, request: &mut Request, name: &str) -> Answer {
    let takeover = attach(state, request, name).await?;
    Ok(take_over(request, takeover).await)
}

/// `101` if the client asked for it, else an ordinary answer with the output.
pub(super) async fn take_over(request: &mut Request, takeover: Takeover) -> Response {
    let Some(upgrade) = request.upgrade.take() else {
        return stream(media_type::RAW_STREAM, takeover.started().await.into_pieces());
    };
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(takeover.content_type()));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    tokio::spawn(async move {
        let result = match upgrade.await {
            Ok(upgraded) => run(upgraded, takeover).await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = result {
            tracing::debug!("attached client: {error}");
        }
    });
    response
}

async fn run(upgraded: hyper::upgrade::Upgraded, takeover: Takeover) -> std::io::Result<()> {
    let parts = upgraded
        .downcast::<TokioIo<Sniffer<Stream>>>()
        .map_err(|_| std::io::Error::other("the connection is not one of ours"))?;
    let (stream, seen, _) = parts.io.into_inner().into_parts();
    let early = [parts.read_buf, seen.freeze()].concat();
    takeover.run(stream, Bytes::from(early)).await
}

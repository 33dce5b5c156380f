//! What has to do with registries: pull, login, and looking a manifest up.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use portolan_api as api;
use portolan_engine::PullReport;
use portolan_image::Reference;
use portolan_image::registry::{Credentials, LayerStatus, Progress};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::images::platform;
use crate::http::{Answer, ApiError, Request, json, ndjson, stream};
use crate::state::State;

/// `POST /images/create?fromImage=`: an error before there is any progress has a status of its own; a later one
/// stands in the stream. When the client goes away, the pull ends.
pub(super) async fn pull(state: &Arc<State>, request: &Request, image: &str) -> Answer {
    let reference = wanted(image, request.query.get("tag"))?;
    let platform = request.query.get("platform").map(platform).transpose()?;
    let credentials = credentials(&request.headers);
    let (sender, mut progress) = mpsc::unbounded_channel();
    let engine = state.engine.clone();
    let pulling = tokio::spawn(async move {
        let told = sender.clone();
        // Nobody reads any more: then the pull is about to end.
        let report: PullReport = Arc::new(move |line| drop(told.send(line)));
        tokio::select! {
            pulled = engine.image_pull(&reference, platform.as_ref(), &credentials, report) => pulled,
            () = sender.closed() => Ok(()),
        }
    });
    let Some(first) = progress.recv().await else {
        pulling.await.map_err(|error| ApiError::internal(error.to_string()))??;
        return Ok(crate::http::empty(StatusCode::OK));
    };
    let first = futures_util::stream::iter([ndjson(&message(first), "\r\n")]);
    let rest = futures_util::stream::unfold(Some((progress, pulling)), next_line);
    Ok(stream("application/json", first.chain(rest)))
}

type Pulling = (mpsc::UnboundedReceiver<Progress>, JoinHandle<portolan_engine::Result<()>>);

async fn next_line(pulling: Option<Pulling>) -> Option<(std::io::Result<Bytes>, Option<Pulling>)> {
    let (mut progress, task) = pulling?;
    if let Some(line) = progress.recv().await {
        return Some((ndjson(&message(line), "\r\n"), Some((progress, task))));
    }
    let error = match task.await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!("a pull failed: {error}");
    let line = api::JsonMessage {
        error_detail: Some(api::JsonError { code: 0, message: error.clone() }),
        error,
        ..Default::default()
    };
    Some((ndjson(&line, "\r\n"), None))
}

fn message(progress: Progress) -> api::JsonMessage {
    let (id, status) = match progress {
        Progress::Message { id, text } => {
            return api::JsonMessage { id, status: text, ..Default::default() };
        }
        Progress::Layer { id, status } => (id, status),
    };
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let detail = match status {
        LayerStatus::Downloading { current, total } | LayerStatus::Extracting { current, total } => {
            api::JsonProgress { current: number(current), total: number(total), ..Default::default() }
        }
        _ => api::JsonProgress::default(),
    };
    api::JsonMessage { id, status: status.to_string(), progress_detail: Some(detail), ..Default::default() }
}

/// `fromImage` and `tag`, which may be a digest. Neither tag nor digest means all of the repository.
fn wanted(image: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let invalid = |error: portolan_image::Error| ApiError::invalid(error.to_string());
    let named = Reference::parse(image.strip_suffix(':').unwrap_or(image)).map_err(invalid)?;
    if named.familiar_name() == "scratch" {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "'scratch' is a reserved name"));
    }
    match (tag, named.digest()) {
        (Some(tag), _) if tag.contains(':') => Ok(named.with_digest(tag.parse().map_err(invalid)?)),
        (Some(tag), _) => named.with_tag(tag).map_err(invalid),
        // What stands beside a digest is for readers.
        (None, Some(digest)) => Ok(named.with_digest(digest)),
        (None, None) => Ok(named),
    }
}

/// `X-Registry-Auth`. A broken one counts as none, as in Docker: most pulls need none.
fn credentials(headers: &HeaderMap) -> Credentials {
    const ANY_PADDING: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoder = GeneralPurpose::new(&URL_SAFE, ANY_PADDING);
    let header = headers.get("x-registry-auth").map(|value| value.as_bytes()).unwrap_or_default();
    let auth: Option<api::AuthConfig> =
        decoder.decode(header).ok().and_then(|text| serde_json::from_slice(&text).ok());
    auth.map(from_auth).unwrap_or_default()
}

fn from_auth(auth: api::AuthConfig) -> Credentials {
    Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}

/// `POST /auth`.
pub(super) async fn login(state: &Arc<State>, request: &mut Request) -> Answer {
    let auth: api::AuthConfig = request.required_json().await?;
    let server = match auth.server_address.as_str() {
        "" => "index.docker.io".to_owned(),
        server => server.to_owned(),
    };
    let token = state.engine.registry_login(&server, &from_auth(auth)).await?;
    let answer =
        api::AuthResponse { identity_token: token.unwrap_or_default(), status: "Login Succeeded".to_owned() };
    json(StatusCode::OK, &answer)
}

/// `GET /distribution/{name}/json`.
pub(super) async fn look_up(state: &Arc<State>, request: &Request, name: &str) -> Answer {
    let reference = Reference::parse(name).map_err(|error| ApiError::invalid(error.to_string()))?;
    let credentials = credentials(&request.headers);
    let found = state.engine.image_look_up(&reference.or_latest(), &credentials).await?;
    // In the OCI's spelling.
    let platform = |platform: portolan_image::Platform| {
        let mut fields = serde_json::json!({"architecture": platform.architecture, "os": platform.os});
        if !platform.variant.is_empty() {
            fields["variant"] = platform.variant.into();
        }
        fields
    };
    let answer = api::DistributionInspect {
        descriptor: api::OciDescriptor {
            media_type: found.media_type,
            digest: found.digest.to_string(),
            size: i64::try_from(found.size).unwrap_or(i64::MAX),
        },
        platforms: found.platforms.into_iter().map(platform).collect(),
    };
    json(StatusCode::OK, &answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_image_is_read_as_docker_reads_it() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let wanted = |image: &str, tag| wanted(image, tag).map(|reference| reference.to_string());
        assert_eq!(wanted("busybox", Some("1")).unwrap(), "docker.io/library/busybox:1");
        assert_eq!(wanted("h:5000/a:", None).unwrap(), "h:5000/a");
        assert_eq!(wanted("h:5000/a:2", None).unwrap(), "h:5000/a:2");
        assert_eq!(wanted("a:2", Some(&digest)).unwrap(), format!("docker.io/library/a@{digest}"));
        assert_eq!(wanted("scratch", None).unwrap_err().status, StatusCode::FORBIDDEN);
        assert_eq!(wanted("a", Some("sha256:1")).unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn credentials_come_with_and_without_padding() {
        let header = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.parse().unwrap());
            credentials(&headers)
        };
        let wanted = Credentials { username: "u".into(), password: "p".into(), ..Default::default() };
        assert_eq!(header("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ=="), wanted);
        assert_eq!(header("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ"), wanted);
        assert_eq!(header("bnVsbA=="), Credentials::default());
        assert_eq!(header("%%%"), Credentials::default());
    }
}

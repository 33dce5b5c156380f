use futures_util::StreamExt;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, RANGE};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::Credentials;
use super::auth::{self, Challenge, Purpose};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::manifest::{DOCKER_IMAGE, DOCKER_LIST, Descriptor, Manifest, OCI_IMAGE, OCI_INDEX};
use super::transport::Transport;
use crate::digest::Digest;
use crate::error::Error;

/// Longest manifest or configuration that is read, bytes; Docker's limit for manifests.
const DOCUMENT_LIMIT: usize = 4 << 20;
const ERROR_LIMIT: usize = 64 << 10;
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Requests to one repository of one registry.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    endpoint: Endpoint,
    /// `library/busybox`.
    path: String,
    scope: Option<String>,
    credentials: Credentials,
    /// What the registry asked for when it was first spoken to.
    challenges: Vec<Challenge>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Session {
    /// Speaks to a registry for the first time.
    ///
    /// # Errors
    /// `Unreachable` if nobody answers.
    pub(super) async fn open(
        transport: &Transport,
        endpoint: &Endpoint,
        path: &str,
        actions: &str,
        credentials: Credentials,
    ) -> Result<Self, Failure> {
        let scope = Some(format!("repository:{path}:{actions}"));
        Self::ping(transport, endpoint, path, scope, credentials).await
    }

    async fn ping(
        transport: &Transport,
        endpoint: &Endpoint,
        path: &str,
        scope: Option<String>,
        credentials: Credentials,
    ) -> Result<Self, Failure> {
        let client = transport.client(&endpoint.host, endpoint.verify).await?;
        let url = format!("{}/v2/", endpoint.base);
        let answer = client.get(&url).send().await;
        let answer = answer.map_err(|error| Failure::of_request("Get", &url, &error))?;
        let asks = answer.status() == StatusCode::UNAUTHORIZED;
        let challenges = if asks { Challenge::of(answer.headers()) } else { Vec::new() };
        Ok(Self {
            client,
            endpoint: endpoint.clone(),
            path: path.to_owned(),
            scope,
            credentials,
            challenges,
            authorization: Mutex::default(),
        })
    }

    /// Checks credentials; a refresh token if the registry gave one.
    pub(super) async fn login(
        transport: &Transport,
        endpoint: &Endpoint,
        credentials: Credentials,
    ) -> Result<Option<String>, Failure> {
        let session = Self::ping(transport, endpoint, "", None, credentials).await?;
        let url = format!("{}/v2/", endpoint.base);
        let authorization = session.authorize(&session.challenges, &url).await?;
        let mut request = session.client.get(&url);
        let mut refresh_token = None;
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.header);
            refresh_token = authorization.refresh_token;
        }
        let answer = request.send().await.map_err(|error| Failure::of_request("Get", &url, &error))?;
        match answer.status() {
            status if status.is_success() => Ok(refresh_token),
            status => {
                let text = format!("login attempt to {url} failed with status: {status}");
                Err(Failure::Final(if status == StatusCode::UNAUTHORIZED {
                    Error::Unauthorized(text)
                } else {
                    Error::Registry(text)
                }))
            }
        }
    }

    async fn authorize(
        &self,
        challenges: &[Challenge],
        url: &str,
    ) -> Result<Option<auth::Authorization>, Failure> {
        let purpose = Purpose { scope: self.scope.clone(), verified: self.endpoint.verify, url };
        auth::authorize(&self.client, challenges, &self.credentials, &purpose).await
    }

    /// Sends a request, with what the registry wants to see; once more with a new token if it expired.
    async fn send(&self, method: Method, url: &str, headers: &HeaderMap) -> Result<Response, Failure> {
        let mut challenges = self.challenges.clone();
        for last in [false, true] {
            let mut request = self.client.request(method.clone(), url).headers(headers.clone());
            let authorization = self.current(&challenges, url).await?;
            if let Some(header) = &authorization {
                request = request.header(AUTHORIZATION, header);
            }
            let word = if method == Method::HEAD { "Head" } else { "Get" };
            let answer = request.send().await.map_err(|error| Failure::of_request(word, url, &error))?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            let status = answer.status();
            let asked = Challenge::of(answer.headers());
            if !last && status == StatusCode::UNAUTHORIZED && !asked.is_empty() {
                self.forget(authorization.as_ref()).await;
                challenges = asked;
                continue;
            }
            let body = collect(answer, ERROR_LIMIT).await.unwrap_or_default();
            return Err(Failure::of_answer(url, status, &asked, &body));
        }
        Err(Failure::content(format!("Get {url:?}: the registry asks for ever more")))
    }

    /// The authorisation in use; a new one if there is none.
    async fn current(&self, challenges: &[Challenge], url: &str) -> Result<Option<HeaderValue>, Failure> {
        let mut authorization = self.authorization.lock().await;
        if authorization.is_none() {
            *authorization = self.authorize(challenges, url).await?.map(|new| new.header);
        }
        Ok(authorization.clone())
    }

    /// Drops an authorisation that was refused, unless another request has replaced it already.
    async fn forget(&self, refused: Option<&HeaderValue>) {
        let mut authorization = self.authorization.lock().await;
        if authorization.as_ref() == refused {
            *authorization = None;
        }
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.endpoint.base, self.path)
    }

    /// The digest of what a tag means, by a request that registries do not count; none if they do not tell.
    pub(super) async fn digest_of(&self, target: &str) -> Option<Digest> {
        let url = self.url(&format!("manifests/{target}"));
        let answer = self.send(Method::HEAD, &url, &accepting_manifests()).await.ok()?;
        answer.headers().get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
    }

    /// A manifest, by tag or digest; by digest it is verified.
    pub(super) async fn manifest(&self, target: &str) -> Result<Manifest, Failure> {
        let url = self.url(&format!("manifests/{target}"));
        let answer = self.send(Method::GET, &url, &accepting_manifests()).await?;
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let bytes = collect(answer, DOCUMENT_LIMIT).await?;
        if let Ok(wanted) = target.parse::<Digest>()
            && Digest::of(&bytes) != wanted
        {
            return Err(Failure::content(format!("manifest verification failed for digest {wanted}")));
        }
        Manifest::parse(&bytes, &media_type, target)
    }

    /// A small blob, verified.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let digest = descriptor.digest;
        let url = self.url(&format!("blobs/{digest}"));
        let answer = self.send(Method::GET, &url, &HeaderMap::new()).await?;
        let bytes = collect(answer, DOCUMENT_LIMIT).await?;
        if Digest::of(&bytes) != digest {
            return Err(Failure::content(format!("image config verification failed for digest {digest}")));
        }
        Ok(bytes)
    }

    /// A blob from a byte on; a registry that cannot do that answers with the whole.
    pub(super) async fn blob(&self, digest: Digest, offset: u64) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            headers.insert(RANGE, range_from(offset)?);
        }
        self.send(Method::GET, &self.blob_url(digest), &headers).await
    }

    /// Where a blob is, for messages.
    pub(super) fn blob_url(&self, digest: Digest) -> String {
        self.url(&format!("blobs/{digest}"))
    }

    /// All tags, page by page.
    pub(super) async fn tags(&self) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut all = Vec::new();
        let mut next = Some(self.url("tags/list"));
        while let Some(url) = next {
            let answer = self.send(Method::GET, &url, &HeaderMap::new()).await?;
            let link = answer.headers().get(LINK).and_then(|value| value.to_str().ok());
            next = link.and_then(|link| self.next_page(&url, link)).filter(|after| *after != url);
            let bytes = collect(answer, DOCUMENT_LIMIT).await?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::content(format!("Get {url:?}: no list of tags: {error}")))?;
            all.extend(page.tags.unwrap_or_default());
        }
        Ok(all)
    }

    /// The address in `<...>; rel="next"`, if it is the same registry's.
    fn next_page(&self, url: &str, link: &str) -> Option<String> {
        let address = link.split(';').next()?.trim().strip_prefix('<')?.strip_suffix('>')?;
        let next = reqwest::Url::parse(url).ok()?.join(address).ok()?.to_string();
        next.starts_with(&self.endpoint.base).then_some(next)
    }
}

fn range_from(offset: u64) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(&format!("bytes={offset}-")).map_err(|_| Failure::content("a range is no header"))
}

fn accepting_manifests() -> HeaderMap {
    let types = [OCI_INDEX, DOCKER_LIST, OCI_IMAGE, DOCKER_IMAGE];
    types.into_iter().map(|one| (ACCEPT, HeaderValue::from_static(one))).collect()
}

/// A whole answer, if it is not longer than it may be.
pub(super) async fn collect(answer: Response, limit: usize) -> Result<Vec<u8>, Failure> {
    let url = answer.url().to_string();
    let mut bytes = Vec::new();
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Failure::of_body(&url, &error))?;
        if bytes.len() + piece.len() > limit {
            return Err(Failure::content(format!("Get {url:?}: more than {limit} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

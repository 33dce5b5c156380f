use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Url};
use serde::Deserialize;

use super::Credentials;
use super::failure::Failure;
use crate::error::Error;

/// What Docker calls itself at token services.
const CLIENT_ID: &str = "docker";
/// Longest answer of a token service that is read, bytes.
const TOKEN_LIMIT: usize = 1 << 20;

/// What a registry wants to see (RFC 9110, section 11.6.1): a scheme in lower case, and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// All challenges of an answer.
    pub(super) fn of(headers: &HeaderMap) -> Vec<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        values.filter_map(|value| value.to_str().ok()).flat_map(Self::parse).collect()
    }

    /// The challenges of one header: `Basic realm="x", Bearer realm="y",service="z"`.
    pub(super) fn parse(text: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = text.trim_start_matches([' ', '\t', ',']);
        while !rest.is_empty() {
            let (word, after) = token(rest);
            if word.is_empty() {
                return challenges;
            }
            let value = after.trim_start().strip_prefix('=');
            rest = match (value, challenges.last_mut()) {
                (Some(value), Some(challenge)) => {
                    let (value, after) = parameter(value.trim_start());
                    challenge.parameters.insert(word.to_ascii_lowercase(), value);
                    after
                }
                (Some(_), None) => return challenges,
                (None, _) => {
                    challenges.push(Self { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
                    after
                }
            };
            rest = rest.trim_start_matches([' ', '\t', ',']);
        }
        challenges
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// A word, and what follows it.
fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// A word or a quoted text, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = token(text);
        return (word.to_owned(), rest);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    (value, "")
}

/// An answer to a challenge.
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    /// To be used instead of the password from now on.
    pub(super) refresh_token: Option<String>,
}

/// What a token is for.
pub(super) struct Purpose<'a> {
    /// `repository:library/busybox:pull`, or nothing for a mere login.
    pub(super) scope: Option<String>,
    /// The registry's certificate was verified: then a password must not go to plain http.
    pub(super) verified: bool,
    /// The request that is to be authorised, for messages.
    pub(super) url: &'a str,
}

/// Answers the best of a registry's challenges.
pub(super) async fn authorize(
    client: &Client,
    challenges: &[Challenge],
    credentials: &Credentials,
    purpose: &Purpose<'_>,
) -> Result<Option<Authorization>, Failure> {
    if !credentials.registry_token.is_empty() {
        return bearer(&credentials.registry_token, None).map(Some);
    }
    if let Some(challenge) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
        return token_of(client, challenge, credentials, purpose).await.map(Some);
    }
    if challenges.iter().all(|challenge| challenge.scheme != "basic") {
        return Ok(None);
    }
    if credentials.username.is_empty() {
        let text = format!("Get {:?}: no basic auth credentials", purpose.url);
        return Err(Failure::Final(Error::Registry(text)));
    }
    let Credentials { username, password, .. } = credentials;
    let header = secret(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))?;
    Ok(Some(Authorization { header, refresh_token: None }))
}

fn bearer(token: &str, refresh_token: Option<String>) -> Result<Authorization, Failure> {
    Ok(Authorization { header: secret(&format!("Bearer {token}"))?, refresh_token })
}

fn secret(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Failure::content("the credentials hold characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An address for messages: without what is asked.
fn service_address(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.into()
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
}

/// Asks a token service (distribution's "Token Authentication Specification").
async fn token_of(
    client: &Client,
    challenge: &Challenge,
    credentials: &Credentials,
    purpose: &Purpose<'_>,
) -> Result<Authorization, Failure> {
    let realm = challenge.parameter("realm").unwrap_or_default();
    let mut url = Url::parse(realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| Failure::content(format!("the registry names no token service but {realm:?}")))?;
    let anonymous = credentials.username.is_empty() && credentials.identity_token.is_empty();
    if purpose.verified && url.scheme() != "https" && !anonymous {
        return Err(Failure::content(format!("no credentials are sent to {realm}: it is not encrypted")));
    }
    let login = purpose.scope.is_none();
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(challenge.parameter("service").map(|service| ("service", service)));
    query.extend(purpose.scope.as_deref().map(|scope| ("scope", scope)));
    let request = if credentials.identity_token.is_empty() {
        if !credentials.username.is_empty() {
            query.push(("account", &credentials.username));
        }
        if login {
            query.extend([("offline_token", "true"), ("client_id", CLIENT_ID)]);
        }
        url.query_pairs_mut().extend_pairs(query);
        let request = client.get(url.clone());
        match credentials.username.as_str() {
            "" => request,
            name => request.basic_auth(name, Some(&credentials.password)),
        }
    } else {
        query.extend([
            ("grant_type", "refresh_token"),
            ("refresh_token", credentials.identity_token.as_str()),
            ("client_id", CLIENT_ID),
        ]);
        // Written as a query is, which is also how a form is written.
        let form = Url::parse_with_params("http://form", query).ok();
        let form = form.as_ref().and_then(Url::query).unwrap_or_default().to_owned();
        client.post(url.clone()).header("content-type", "application/x-www-form-urlencoded").body(form)
    };
    let shown = service_address(&url);
    let answer = request.send().await.map_err(|error| Failure::of_request("Get", &shown, &error))?;
    let status = answer.status();
    let body = super::session::collect(answer, TOKEN_LIMIT).await?;
    if !status.is_success() {
        return Err(Failure::of_answer(&shown, status, &[], &body));
    }
    let answer: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|error| Failure::content(format!("{shown} gave no token: {error}")))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(Failure::content(format!("authorization server {shown} did not include a token")));
    }
    bearer(&token, Some(answer.refresh_token).filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<String> {
        let show = |challenge: Challenge| {
            let parameters = challenge.parameters.iter().map(|(name, value)| format!(" {name}={value}"));
            format!("{}{}", challenge.scheme, parameters.collect::<String>())
        };
        Challenge::parse(text).into_iter().map(show).collect()
    }

    #[test]
    fn challenges_are_read_as_they_are_written_in_the_wild() {
        assert_eq!(
            parsed(r#"Bearer realm="https://auth/token",service="reg",scope="repository:a/b:pull,push""#),
            ["bearer realm=https://auth/token scope=repository:a/b:pull,push service=reg"]
        );
        assert_eq!(
            parsed(r#"Basic realm="a \"b\"", BEARER Realm = x ,error="invalid_token""#),
            [r#"basic realm=a "b""#, "bearer error=invalid_token realm=x"]
        );
        assert_eq!(parsed("Negotiate"), ["negotiate"]);
        for bad in ["", ",", "=", "realm=\"x\"", "\"", "Basic realm=\"", "Basic =", "Basic realm=\"\\"] {
            let _ = parsed(bad);
        }
    }
}

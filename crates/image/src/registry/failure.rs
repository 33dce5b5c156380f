use reqwest::StatusCode;
use serde::Deserialize;

use super::auth;
use crate::error::Error;
use crate::reference::Reference;

/// Why a request to a registry failed, sorted by what to do about it.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody answers there: another endpoint may, or the same one later.
    Unreachable(String),
    /// The answer broke off, or the registry is busy: the same may work later.
    Passing(String),
    /// The registry said no, in the words of the distribution specification.
    Refused {
        /// `MANIFEST_UNKNOWN` and the like.
        code: String,
        /// Its words.
        message: String,
    },
    /// Nothing to be done.
    Final(Error),
}

#[derive(Deserialize)]
struct Answer {
    errors: Vec<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: String,
    #[serde(default)]
    message: String,
}

impl Failure {
    /// A request that got no answer.
    pub(super) fn of_request(method: &str, url: &str, error: &reqwest::Error) -> Self {
        let text = format!("{method} {url:?}: {}", cause(error));
        if error.is_builder() || error.is_redirect() {
            return Self::Final(Error::Registry(text));
        }
        Self::Unreachable(text)
    }

    /// An answer that broke off.
    pub(super) fn of_body(url: &str, error: &reqwest::Error) -> Self {
        Self::Passing(format!("Get {url:?}: {}", cause(error)))
    }

    /// An answer that is an error.
    pub(super) fn of_answer(
        url: &str,
        status: StatusCode,
        challenges: &[auth::Challenge],
        body: &[u8],
    ) -> Self {
        let refused = |code: &str, message: &str| Self::Refused {
            code: code.to_owned(),
            message: if message.is_empty() { default_message(code) } else { message }.to_owned(),
        };
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            return Self::Passing(format!("received unexpected HTTP status: {status}"));
        }
        // RFC 6750, section 3.1: what is wrong with a token stands beside the challenge.
        for error in challenges.iter().filter_map(|challenge| challenge.parameter("error")) {
            match error {
                "insufficient_scope" => return refused("DENIED", ""),
                "invalid_token" => return refused("UNAUTHORIZED", ""),
                _ => {}
            }
        }
        if let Ok(answer) = serde_json::from_slice::<Answer>(body)
            && let Some(error) = answer.errors.first()
        {
            return refused(&error.code, &error.message);
        }
        match status {
            StatusCode::UNAUTHORIZED => refused("UNAUTHORIZED", ""),
            StatusCode::TOO_MANY_REQUESTS => refused("TOOMANYREQUESTS", ""),
            _ => Self::Final(Error::Registry(format!(
                "Get {url:?}: the registry answered {status}: {}",
                String::from_utf8_lossy(&body[..body.len().min(200)]).trim()
            ))),
        }
    }

    /// Content that is not what its digest or its type says.
    pub(super) fn content(text: impl Into<String>) -> Self {
        Self::Final(Error::Registry(text.into()))
    }

    /// Another endpoint may do better.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The same request may do better later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Passing(_) => true,
            Self::Refused { code, .. } => code == "TOOMANYREQUESTS",
            Self::Final(_) => false,
        }
    }

    /// The error of a pull of `reference`.
    pub(super) fn of_pull(self, reference: &Reference) -> Error {
        let Self::Refused { code, message } = &self else { return self.into_error() };
        let said = said(code, message);
        let name = reference.familiar_name();
        match code.as_str() {
            "DENIED" => Error::NotFound(format!(
                "pull access denied for {name}, repository does not exist or may require 'docker login': {said}"
            )),
            "MANIFEST_UNKNOWN" => {
                Error::NotFound(format!("manifest for {} not found: {said}", reference.familiar()))
            }
            "NAME_UNKNOWN" => Error::NotFound(format!("repository {name} not found: {said}")),
            _ => self.into_error(),
        }
    }

    /// The error of anything else.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Unreachable(text) | Self::Passing(text) => Error::Registry(text),
            Self::Refused { code, message } if code == "UNAUTHORIZED" => {
                Error::Unauthorized(said(&code, &message))
            }
            Self::Refused { code, message } => Error::Registry(said(&code, &message)),
            Self::Final(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// `manifest unknown: manifest unknown`, as Docker writes it.
fn said(code: &str, message: &str) -> String {
    format!("{}: {message}", code.to_ascii_lowercase().replace('_', " "))
}

/// What Docker says where a registry gives no words of its own.
fn default_message(code: &str) -> &'static str {
    match code {
        "DENIED" => "requested access to the resource is denied",
        "UNAUTHORIZED" => "authentication required",
        "MANIFEST_UNKNOWN" => "manifest unknown",
        "NAME_UNKNOWN" => "repository name not known to registry",
        "TOOMANYREQUESTS" => "too many requests",
        _ => "unknown error",
    }
}

/// The innermost of an error's causes, in the words of this crate: `connection refused`.
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "i/o timeout".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "unknown error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull_error(status: u16, body: &str) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let failure = Failure::of_answer("https://r/v2/x", status, &[], body.as_bytes());
        failure.of_pull(&Reference::parse("library/x:1").unwrap()).to_string()
    }

    #[test]
    fn errors_have_dockers_words() {
        let answer = |code: &str, message: &str| {
            format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":null}}]}}"#)
        };
        assert_eq!(
            pull_error(404, &answer("MANIFEST_UNKNOWN", "manifest unknown")),
            "manifest for x:1 not found: manifest unknown: manifest unknown"
        );
        assert_eq!(
            pull_error(403, &answer("DENIED", "")),
            "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        );
        assert_eq!(pull_error(401, "<html>"), "unauthorized: authentication required");
        assert_eq!(
            pull_error(404, "<html>no</html>"),
            r#"Get "https://r/v2/x": the registry answered 404 Not Found: <html>no</html>"#
        );
    }

    #[test]
    fn a_token_for_too_little_is_denied() {
        let challenges = auth::Challenge::parse(r#"Bearer realm="https://t",error="insufficient_scope""#);
        let failure = Failure::of_answer("u", StatusCode::UNAUTHORIZED, &challenges, b"");
        let error = failure.of_pull(&Reference::parse("me/x:1").unwrap());
        assert!(error.to_string().starts_with("pull access denied for me/x"), "{error}");
    }
}

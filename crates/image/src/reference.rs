//! Names of images: the grammar of github.com/distribution/reference, Docker's defaults and its
//! "familiar" short forms.
//!
//! ```text
//! reference = [domain "/"] path [":" tag] ["@" digest]
//! busybox  =  docker.io/library/busybox:latest
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A normalised image name: always with a domain, with at least the tag or the digest once it came
/// out of [`Reference::or_latest`]. Displays in full: `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name as a user writes it.
    ///
    /// # Errors
    /// `Invalid` with Docker's texts, such as "invalid reference format".
    pub fn parse(text: &str) -> Result<Self> {
        if is_identifier(text) {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split([':', '@']).next().unwrap_or_default();
        if remote.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({remote}) must be lowercase"
            )));
        }
        parse_parts(domain, &remainder)
    }

    /// The same with `:latest` added if it has neither tag nor digest.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of a manifest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// `busybox`: the name as Docker prints it.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// `busybox:latest`: the whole as Docker prints it.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// This repository with another tag and no digest.
    ///
    /// # Errors
    /// `Invalid`: "invalid tag format".
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::invalid("invalid tag format"));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// This repository with a digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Names the same repository.
    pub(crate) fn same_repository(&self, other: &Self) -> bool {
        self.domain == other.domain && self.path == other.path
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// 64 hexadecimal digits: an id, never a name.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What comes before the first slash is a registry if it can be no Docker Hub user.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        return (domain, format!("{OFFICIAL_PREFIX}{rest}"));
    }
    (domain, rest.to_owned())
}

fn parse_parts(domain: &str, remainder: &str) -> Result<Reference> {
    let malformed = || Error::invalid("invalid reference format");
    let (head, digest) = match remainder.split_once('@') {
        None => (remainder, None),
        Some((head, digest)) => (head, Some(digest)),
    };
    let (path, tag) = match head.split_once(':') {
        None => (head, None),
        Some((path, tag)) => (path, Some(tag)),
    };
    if !is_domain(domain) || !is_path(path) || tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(malformed());
    }
    if domain.len() + 1 + path.len() > MAX_NAME_BYTES {
        return Err(Error::invalid("repository name must not be more than 255 characters"));
    }
    let digest = match digest {
        None => None,
        Some(text) if !is_digest_shaped(text) => return Err(malformed()),
        Some(text) => Some(text.parse()?),
    };
    Ok(Reference { domain: domain.to_owned(), path: path.to_owned(), tag: tag.map(str::to_owned), digest })
}

/// `host[:port]`, where the host is a DNS name, an IPv4 address or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let Some((address, rest)) = inner.split_once(']') else { return false };
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if rest.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Lower-case words, joined by one of `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !word(*first) || !word(*last) {
        return false;
    }
    bytes
        .chunk_by(|a, b| word(*a) == word(*b))
        .all(|run| word(run[0]) || matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

pub(crate) fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG_BYTES
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest_shaped(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part)
        && digits.len() >= 32
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        Reference::parse(text).unwrap().or_latest().to_string()
    }

    #[test]
    fn short_names_get_dockers_defaults() {
        assert_eq!(full("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("busybox:1.36"), "docker.io/library/busybox:1.36");
        assert_eq!(full("me/app"), "docker.io/me/app:latest");
        assert_eq!(full("index.docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full("localhost:5000/a/b:v1"), "localhost:5000/a/b:v1");
        assert_eq!(full("Registry/app"), "Registry/app:latest");
        assert_eq!(full("[2001:db8::1]:5000/app"), "[2001:db8::1]:5000/app:latest");
        assert_eq!(full("ghcr.io/a/b__c-d---e.f"), "ghcr.io/a/b__c-d---e.f:latest");
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = Digest::of(b"x");
        assert_eq!(full(&format!("busybox@{digest}")), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(full(&format!("busybox:1@{digest}")), format!("docker.io/library/busybox:1@{digest}"));
    }

    #[test]
    fn familiar_forms_are_the_short_ones() {
        for name in ["busybox:latest", "me/app:latest", "ghcr.io/library/app:1", "localhost/app:1"] {
            assert_eq!(Reference::parse(name).unwrap().familiar(), name);
        }
        assert_eq!(Reference::parse("docker.io/library/x:1").unwrap().familiar(), "x:1");
        assert_eq!(Reference::parse("docker.io/library/x/y:1").unwrap().familiar(), "library/x/y:1");
    }

    #[test]
    fn malformed_names_are_refused_with_dockers_words() {
        let format = "invalid reference format";
        for bad in [
            "",
            ":latest",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a_.b",
            "a:",
            "a: b",
            "a b",
            "a/../b",
            "/a",
            "a/",
            "a@",
            "a@sha256:00",
            "a:b:c",
            "ex_ample.com/a",
            "a:-tag",
            "é",
        ] {
            assert_eq!(Reference::parse(bad).unwrap_err().to_string(), format, "{bad:?}");
        }
        assert_eq!(
            Reference::parse("BusyBox").unwrap_err().to_string(),
            "invalid reference format: repository name (library/BusyBox) must be lowercase"
        );
        let id = Digest::of(b"").hex();
        assert!(Reference::parse(&id).unwrap_err().to_string().contains("64-byte hexadecimal"));
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
        assert!(Reference::parse(&"a".repeat(300)).unwrap_err().to_string().contains("255"));
    }
}

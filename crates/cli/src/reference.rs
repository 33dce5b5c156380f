//! Names of images: their parts, and which names there can be.

/// An image's name without what Docker implies: `docker.io/` and `library/`.
pub(crate) fn familiar(name: &str) -> String {
    let name =
        name.strip_prefix("docker.io/").or_else(|| name.strip_prefix("index.docker.io/")).unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name).to_owned()
}

/// An image's name with what Docker implies: `docker.io/library/nginx` for `nginx`.
pub(crate) fn canonical(name: &str) -> String {
    match name.split_once('/') {
        Some((domain, _)) if domain.contains(['.', ':']) || domain == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// Splits `repository:tag`; the colon of a registry's port is not a tag's.
pub(crate) fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

/// The name with the tag that Docker implies, in its familiar form.
pub(crate) fn with_default_tag(name: &str) -> String {
    let familiar = familiar(name);
    if familiar.contains('@') || split_tag(&familiar).1.is_some() {
        familiar
    } else {
        format!("{familiar}:latest")
    }
}

/// Checks that a text can be an image's name, or an id.
///
/// # Errors
/// Docker's text.
pub(crate) fn check(name: &str) -> Result<(), String> {
    const FORMAT: &str = "invalid reference format";
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    let (repository, tag) = split_tag(name);
    if digest.is_some_and(|digest| !is_digest(digest)) || tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(FORMAT.to_owned());
    }
    let path = match repository.split_once('/') {
        Some((domain, path)) if domain.contains(['.', ':']) || domain == "localhost" => path,
        _ => repository,
    };
    if path.chars().any(|c| c.is_ascii_uppercase())
        && path.split('/').all(|part| is_part(&part.to_lowercase()))
    {
        let full = if path.contains('/') { path.to_owned() } else { format!("library/{path}") };
        return Err(format!("{FORMAT}: repository name ({full}) must be lowercase"));
    }
    if path.split('/').all(is_part) { Ok(()) } else { Err(FORMAT.to_owned()) }
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(kind, hex)| {
        !kind.is_empty() && hex.len() >= 32 && hex.bytes().all(|c| c.is_ascii_hexdigit())
    })
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Lower-case letters and digits, with single `.`, one or two `_` or any number of `-` between.
fn is_part(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text
            .split(plain)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.chars().all(|c| c == '-'))
}

/// A platform (`linux/arm64/v8`) as queries about stored images have it: JSON in the OCI's spelling; empty for none.
///
/// # Errors
/// Docker's text when it is no platform.
pub(crate) fn platform_query(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let mut parts = text.split('/');
    let parts = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(os), Some(architecture), variant, None) = parts else {
        return Err(format!("invalid platform: {text:?}: give OS/ARCHITECTURE, such as linux/amd64"));
    };
    let mut platform = serde_json::json!({"architecture": architecture, "os": os});
    if let Some(variant) = variant {
        platform["variant"] = variant.into();
    }
    Ok(platform.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_names() {
        assert_eq!(familiar("docker.io/library/nginx"), "nginx");
        assert_eq!(canonical("nginx:1"), "docker.io/library/nginx:1");
        assert_eq!(canonical("host:5000/a"), "host:5000/a");
        assert_eq!(split_tag("host:5000/a/b"), ("host:5000/a/b", None));
        assert_eq!(split_tag("host:5000/a:1"), ("host:5000/a", Some("1")));
        assert_eq!(with_default_tag("busybox"), "busybox:latest");
        assert_eq!(with_default_tag("docker.io/library/a:1"), "a:1");
    }

    #[test]
    fn names_that_can_be() {
        for name in ["nginx", "a/b_c/d--e.f:1.2-x", "host:5000/a:1", "LOCALHOST.x/a", "0123456789ab"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for (name, wanted) in [
            ("a:b:c", "invalid reference format"),
            ("", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ] {
            assert_eq!(check(name).unwrap_err(), wanted, "{name}");
        }
    }
}

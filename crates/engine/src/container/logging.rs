//! A container's log driver and its options.

use std::collections::BTreeMap;
use std::path::Path;

use portolan_netcore::model::parse_bool;
use portolan_runtime::LogSpec;
use regex::Regex;

use super::record::Definition;
use crate::error::{EngineError, Result};
use crate::model::LogConfig;

/// `--log-driver json-file` and its `--log-opt`s, read.
#[derive(Debug)]
struct JsonFile<'a> {
    max_size_bytes: Option<u64>,
    max_files: u32,
    compress: bool,
    tag: Vec<TagPart<'a>>,
    labels: Vec<&'a str>,
    labels_regex: Option<Regex>,
    env: Vec<&'a str>,
    env_regex: Option<Regex>,
}

/// A piece of the `tag` template.
#[derive(Debug, PartialEq, Eq)]
enum TagPart<'a> {
    Text(&'a str),
    /// A name of [`FIELDS`].
    Field(&'a str),
}

/// What a tag can name, as in Docker.
const FIELDS: [&str; 10] = [
    "ID",
    "FullID",
    "Name",
    "ImageID",
    "ImageFullID",
    "ImageName",
    "Command",
    "DaemonName",
    "ContainerID",
    "ContainerName",
];

/// Whether this engine has the driver and all of its options.
///
/// # Errors
/// `Invalid`, naming what it has not or cannot make sense of.
pub(crate) fn check(log: &LogConfig) -> Result<()> {
    read(log).map(drop)
}

/// The log of a container, in a file.
///
/// # Errors
/// As [`check`].
pub(super) fn log_spec(
    log: &LogConfig,
    path: &Path,
    definition: &Definition,
    env: &[String],
) -> Result<LogSpec> {
    let Some(options) = read(log)? else { return Ok(LogSpec::None) };
    Ok(LogSpec::JsonFile {
        path: path.to_owned(),
        max_size_bytes: options.max_size_bytes,
        max_files: options.max_files,
        compress: options.compress,
        attributes: options.attributes(definition, env),
    })
}

/// None for the driver `none`.
fn read(log: &LogConfig) -> Result<Option<JsonFile<'_>>> {
    match log.driver.as_str() {
        "none" => return Ok(None),
        "" | "json-file" => {}
        other => {
            return Err(EngineError::invalid(format!("logger: no log driver named '{other}' is registered")));
        }
    }
    let mut read = JsonFile {
        max_size_bytes: None,
        max_files: 1,
        compress: false,
        tag: Vec::new(),
        labels: Vec::new(),
        labels_regex: None,
        env: Vec::new(),
        env_regex: None,
    };
    for (key, value) in &log.options {
        let bad = || EngineError::invalid(format!("invalid value for log opt '{key}': {value}"));
        let names = || value.split(',').filter(|name| !name.is_empty()).collect();
        let expression = || {
            let expression = (!value.is_empty()).then(|| Regex::new(value)).transpose();
            expression.map_err(|error| EngineError::invalid(format!("log opt '{key}': {error}")))
        };
        match key.as_str() {
            "max-size" if value == "-1" => {}
            "max-size" => read.max_size_bytes = Some(parse_size(value).ok_or_else(bad)?),
            "max-file" => read.max_files = value.parse().ok().filter(|n| *n >= 1).ok_or_else(bad)?,
            "compress" => read.compress = parse_bool(value).ok_or_else(bad)?,
            "tag" => read.tag = parse_tag(value)?,
            "labels" => read.labels = names(),
            "env" => read.env = names(),
            "labels-regex" => read.labels_regex = expression()?,
            "env-regex" => read.env_regex = expression()?,
            _ => {
                return Err(EngineError::invalid(format!(
                    "unknown log opt '{key}' for json-file log driver"
                )));
            }
        }
    }
    if read.compress && (read.max_files == 1 || read.max_size_bytes.is_none()) {
        return Err(EngineError::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok(Some(read))
}

impl JsonFile<'_> {
    /// What goes with every line.
    fn attributes(&self, definition: &Definition, env: &[String]) -> BTreeMap<String, String> {
        let labels = definition.config.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let env = env.iter().filter_map(|variable| variable.split_once('='));
        let mut chosen: BTreeMap<String, String> = BTreeMap::new();
        chosen.extend(
            labels.filter(|(key, _)| is_named(key, &self.labels, self.labels_regex.as_ref())).map(owned),
        );
        chosen.extend(env.filter(|(key, _)| is_named(key, &self.env, self.env_regex.as_ref())).map(owned));
        let tag: String = self.tag.iter().map(|part| part.render(definition)).collect();
        if !tag.is_empty() {
            chosen.insert("tag".to_owned(), tag);
        }
        chosen
    }
}

fn is_named(key: &str, names: &[&str], expression: Option<&Regex>) -> bool {
    names.contains(&key) || expression.is_some_and(|expression| expression.is_match(key))
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

impl TagPart<'_> {
    fn render(&self, definition: &Definition) -> String {
        let field = match self {
            Self::Text(text) => return (*text).to_owned(),
            Self::Field(field) => *field,
        };
        let image = definition.image_id.as_str();
        match field {
            "ID" => definition.id.short().to_owned(),
            "FullID" | "ContainerID" => definition.id.to_string(),
            "Name" => definition.name.clone(),
            "ContainerName" => format!("/{}", definition.name),
            // Docker's own cuts off the first characters, `sha256:` included.
            "ImageID" => image.chars().take(12).collect(),
            "ImageFullID" => image.to_owned(),
            "ImageName" => definition.config.image.clone(),
            "Command" => definition.args.join(" "),
            _ => "docker".to_owned(),
        }
    }
}

/// Text with `{{.Name}}` and the like in it.
fn parse_tag(text: &str) -> Result<Vec<TagPart<'_>>> {
    let refuse = |what: &str| {
        EngineError::invalid(format!(
            "log opt 'tag': {what:?} is not supported in a template: use {{{{.{}}}}}",
            FIELDS.join("}}, {{.")
        ))
    };
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inside, next)) = after.split_once("}}") else { return Err(refuse(&rest[before.len()..])) };
        let name = inside.trim().strip_prefix('.').filter(|name| FIELDS.contains(name));
        parts.push(TagPart::Text(before));
        parts.push(TagPart::Field(name.ok_or_else(|| refuse(inside.trim()))?));
        rest = next;
    }
    parts.push(TagPart::Text(rest));
    parts.retain(|part| *part != TagPart::Text(""));
    Ok(parts)
}

/// `10m`, `1g`, `4096`, `10MB`: powers of 1024.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        LogConfig {
            driver: driver.to_owned(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn options() {
        let config = log("json-file", &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")]);
        let sizes = read(&config).unwrap().unwrap();
        assert_eq!((sizes.max_size_bytes, sizes.max_files, sizes.compress), (Some(10_485_760), 3, true));
        assert!(read(&log("none", &[])).unwrap().is_none());
        assert!(check(&log("", &[("max-file", "2"), ("compress", "false")])).is_ok(), "as in Docker");
        for bad in [
            log("syslog", &[]),
            log("", &[("max-size", "x")]),
            log("", &[("max-size", "5x")]),
            log("", &[("max-file", "0")]),
            log("", &[("compress", "maybe")]),
            log("", &[("compress", "true"), ("max-file", "2")]),
            log("", &[("compress", "true"), ("max-size", "1m")]),
            log("", &[("env-regex", "(")]),
            log("", &[("tag", "{{.Name | upper}}")]),
            log("", &[("tag", "{{.Name")]),
            log("", &[("colour", "red")]),
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_are_cut_into_text_and_fields() {
        use TagPart::{Field, Text};
        assert_eq!(parse_tag("plain").unwrap(), [Text("plain")]);
        assert_eq!(parse_tag("").unwrap(), []);
        assert_eq!(
            parse_tag("{{.ImageName}}/{{ .Name }}/x").unwrap(),
            [Field("ImageName"), Text("/"), Field("Name"), Text("/x")]
        );
    }

    #[test]
    fn what_is_chosen_by_name_or_expression() {
        let expression = Regex::new("^com\\.").unwrap();
        assert!(is_named("a", &["b", "a"], None) && is_named("com.x", &[], Some(&expression)));
        assert!(!is_named("ab", &["b", "a"], Some(&expression)));
    }
}

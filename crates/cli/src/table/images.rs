//! What `images` shows of an image.

use serde_json::{Value, json};

use super::{List, labels};
use crate::failure::Failure;
use crate::json::Json;
use crate::reference::{familiar, split_tag};
use crate::template::truncate_id;
use crate::units;

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// Writes the list of `GET /images/json`, a line a name.
///
/// # Errors
/// When the template is wrong or standard output is closed.
pub(crate) fn write(
    format: &str,
    quiet: bool,
    truncate: bool,
    digests: bool,
    images: &[Value],
) -> Result<(), Failure> {
    let now = units::now();
    let default = if digests {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}"
    };
    let with_digests =
        digests || format.contains("{{.Digest}}") || format == "json" || format.contains("json .");
    let rows: Vec<Value> = images.iter().flat_map(|image| rows(image, with_digests)).collect();
    List {
        type_name: "*formatter.imageContext",
        headings: HEADINGS,
        default,
        quiet: "{{.ID}}",
        field: &|row, name| field(row, name, truncate, now),
    }
    .write(format, quiet, &rows)
}

/// One row for each name of an image, and for each of its digests if they are shown.
fn rows(image: &Value, digests: bool) -> Vec<Value> {
    let row = |repository: &str, tag: &str, digest: &str| json!({"Image": image, "Repository": repository, "Tag": tag, "Digest": digest, "Labels": image["Labels"]});
    const NONE: &str = "<none>";
    let tags: Vec<(String, &str)> = image
        .texts("RepoTags")
        .into_iter()
        .filter(|name| *name != "<none>:<none>")
        .map(split_tag)
        .map(|(repository, tag)| (familiar(repository), tag.unwrap_or(NONE)))
        .collect();
    let references: Vec<(String, &str)> = image
        .texts("RepoDigests")
        .into_iter()
        .filter(|name| *name != "<none>@<none>")
        .filter_map(|name| name.split_once('@'))
        .map(|(repository, digest)| (familiar(repository), digest))
        .collect();
    let mut out = Vec::new();
    for (repository, tag) in &tags {
        let own: Vec<_> = references.iter().filter(|(name, _)| digests && name == repository).collect();
        if own.is_empty() {
            out.push(row(repository, tag, NONE));
        }
        out.extend(own.iter().map(|(_, digest)| row(repository, tag, digest)));
    }
    if tags.is_empty() {
        out.extend(references.iter().map(|(repository, digest)| row(repository, NONE, digest)));
    }
    if out.is_empty() {
        out.push(row(NONE, NONE, NONE));
    }
    out
}

fn field(row: &Value, name: &str, truncate: bool, now: f64) -> Option<Value> {
    let image = row.get_or_null("Image");
    let known = |key: &str| match image.int(key) {
        -1 => "N/A".to_owned(),
        bytes => units::human_size_with(bytes as f64, 4),
    };
    let text = match name {
        "ID" if truncate => truncate_id(image.text("Id")),
        "ID" => image.text("Id").to_owned(),
        "Repository" | "Tag" | "Digest" => row.text(name).to_owned(),
        "CreatedSince" if image.int("Created") <= 0 => "N/A".to_owned(),
        "CreatedSince" => units::ago(now, image.number("Created")),
        "CreatedAt" => units::local_time(image.int("Created")),
        "Size" => units::human_size(image.number("Size")),
        "VirtualSize" => units::human_size_with(image.number("Size"), 4),
        "Containers" => match image.int("Containers") {
            -1 => "N/A".to_owned(),
            count => count.to_string(),
        },
        "SharedSize" => known("SharedSize"),
        "UniqueSize" if image.int("SharedSize") == -1 => "N/A".to_owned(),
        "UniqueSize" => units::human_size_with(image.number("Size") - image.number("SharedSize"), 4),
        "Labels" => return Some(labels(row)),
        _ => return None,
    };
    Some(Value::from(text))
}

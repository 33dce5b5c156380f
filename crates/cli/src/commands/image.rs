//! `images`, `rmi`, `tag`, `history` and `image prune`.

use serde_json::Value;

use super::each::each;
use super::prune::{confirm, reclaimed};
use super::ps::{check_filter, filters};
use crate::client::{escape_image, target};
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Kind, Matches};
use crate::json::Json;
use crate::reference::{check, platform_query, split_tag};
use crate::session::{Session, line_out};
use crate::table::{List, ellipsis, images};
use crate::template::truncate_id;
use crate::units;

const LIST_FLAGS: &[Flag] = &[
    Flag::switch("all", "Show intermediate images too").short('a'),
    Flag::switch("digests", "Show digests"),
    Flag::list("filter", "Show only what matches (reference=nginx, dangling=true, ...)")
        .checked(check_filter)
        .short('f'),
    Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
    Flag::switch("no-trunc", "Do not shorten anything"),
    Flag::switch("quiet", "Show only image IDs").short('q'),
    Flag::switch("tree", "").refused("multi-platform images are not available"),
];

/// `images`.
pub(super) const IMAGES: Command = Command {
    flags: &[LIST_FLAGS],
    also: &["image ls", "image list", "images"],
    examples: &[("Images without a name", "images -f dangling=true")],
    ..Command::new(
        "images",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        Arity::AtMost(1),
        |session, matches| Box::pin(list(session, matches)),
    )
};

/// `image ls`.
pub(super) const LS: Command = Command { name: "ls", aliases: &["list"], ..IMAGES };

/// `rmi`.
pub(super) const RMI: Command = Command {
    flags: &[&[
        Flag::switch("force", "Remove it even if something uses its name").short('f'),
        Flag::switch("no-prune", "Keep untagged parents"),
        Flag::text("platform", "").refused("multi-platform images are not available"),
    ]],
    also: &["image rm", "image remove", "rmi"],
    ..Command::new(
        "rmi",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove one or more images",
        Arity::AtLeast(1),
        |session, matches| Box::pin(remove(session, matches)),
    )
};

/// `image rm`.
pub(super) const RM: Command = Command { name: "rm", aliases: &["remove"], ..RMI };

/// `tag`.
pub(super) const TAG: Command = Command {
    also: &["image tag", "tag"],
    examples: &[("", "tag nginx:latest nginx:known-good")],
    ..Command::new(
        "tag",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        Arity::Exactly(2),
        |session, matches| Box::pin(tag(session, matches)),
    )
};

/// `history`.
pub(super) const HISTORY: Command = Command {
    flags: &[&[
        Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
        Flag::new("human", Kind::Switch(true), "", "Sizes and dates for people").short('H'),
        Flag::switch("no-trunc", "Do not shorten anything"),
        Flag::text("platform", "Only the image for this platform (os/arch[/variant])"),
        Flag::switch("quiet", "Show only image IDs").short('q'),
    ]],
    also: &["image history", "history"],
    ..Command::new(
        "history",
        "[OPTIONS] IMAGE",
        "Show the history of an image",
        Arity::Exactly(1),
        |session, matches| Box::pin(history(session, matches)),
    )
};

/// `image prune`.
pub(super) const PRUNE: Command = Command {
    flags: &[&[
        Flag::switch("all", "Remove all images that no container uses").short('a'),
        Flag::list("filter", "Remove only what matches (until=24h, label=...)").checked(check_filter),
        Flag::switch("force", "Do not ask").short('f'),
    ]],
    ..Command::new("prune", "[OPTIONS]", "Remove unused images", Arity::Exactly(0), |session, matches| {
        Box::pin(prune(session, matches))
    })
};

async fn list(session: Session, matches: Matches) -> Outcome {
    let mut wanted = matches.list("filter");
    let reference = matches.args.first().map(|name| format!("reference={name}"));
    wanted.extend(reference.as_deref());
    let filters = filters(&wanted)?;
    let all = if matches.on("all") { "1" } else { "" };
    let path = target("/images/json", &[("all", all), ("filters", &filters)]);
    let mut found = session.client.get(&path).await?;
    if let Some(found) = found.as_array_mut() {
        found.sort_by_key(|image| std::cmp::Reverse(image.int("Created")));
    }
    images::write(
        session.format(&matches, "imagesFormat"),
        matches.on("quiet"),
        !matches.on("no-trunc"),
        matches.on("digests"),
        found.as_array().map_or(&[][..], Vec::as_slice),
    )?;
    Ok(0)
}

async fn remove(session: Session, matches: Matches) -> Outcome {
    let query = [
        ("force", if matches.on("force") { "1" } else { "" }),
        ("noprune", if matches.on("no-prune") { "1" } else { "" }),
    ];
    let client = &*session.client;
    let force = matches.on("force");
    let missing = std::cell::Cell::new(0);
    let status = each(&matches.args, async |name: &str| {
        let path = target(&format!("/images/{}", escape_image(name)), &query);
        let removed = client.delete(&path).await.inspect_err(|why| {
            if why.is_not_found() {
                missing.set(missing.get() + 1);
            }
        })?;
        let items = removed.as_array().map_or(&[][..], Vec::as_slice);
        Ok(items.iter().map(deleted_line).collect::<Vec<_>>().join("\n"))
    })
    .await?;
    // With --force an image that is not there is told but is no failure.
    if force && missing.get() == matches.args.len() {
        return Ok(0);
    }
    Ok(status)
}

fn deleted_line(item: &Value) -> String {
    match item.text("Deleted") {
        "" => format!("Untagged: {}", item.text("Untagged")),
        id => format!("Deleted: {id}"),
    }
}

async fn tag(session: Session, matches: Matches) -> Outcome {
    let (source, name) = (&matches.args[0], &matches.args[1]);
    check(name)
        .map_err(|why| format!("Error parsing reference: {name:?} is not a valid repository/tag: {why}"))?;
    let (repository, tag) = split_tag(name);
    let path = target(
        &format!("/images/{}/tag", escape_image(source)),
        &[("repo", repository), ("tag", tag.unwrap_or("latest"))],
    );
    session.client.post(&path, Value::Null).await?;
    Ok(0)
}

fn history_headings(human: bool) -> [(&'static str, &'static str); 6] {
    [
        ("ID", "IMAGE"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", if human { "CREATED" } else { "CREATED AT" }),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ]
}

async fn history(session: Session, matches: Matches) -> Outcome {
    let platform = platform_query(matches.text_or_empty("platform"))?;
    let path =
        target(&format!("/images/{}/history", escape_image(&matches.args[0])), &[("platform", &platform)]);
    let layers = session.client.get(&path).await?;
    let truncate = !matches.on("no-trunc");
    let human = matches.on_or("human", true);
    let now = units::now();
    let field = |item: &Value, name: &str| {
        let text = match name {
            "ID" if truncate => truncate_id(item.text("Id")),
            "ID" => item.text("Id").to_owned(),
            "CreatedAt" => units::rfc3339_local(item.int("Created")),
            "CreatedSince" if !human => units::rfc3339_local(item.int("Created")),
            "CreatedSince" => units::ago(now, item.number("Created")),
            "CreatedBy" => {
                let command = item.text("CreatedBy").replace('\t', " ");
                if truncate { ellipsis(&command, 45) } else { command }
            }
            "Size" if human => units::human_size(item.number("Size")),
            "Size" => item.int("Size").to_string(),
            "Comment" => item.text("Comment").to_owned(),
            _ => return None,
        };
        Some(Value::from(text))
    };
    List {
        type_name: "*image.historyContext",
        headings: &history_headings(human),
        default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        quiet: "{{.ID}}",
        field: &field,
    }
    .write(
        matches.text_or_empty("format"),
        matches.on("quiet"),
        layers.as_array().map_or(&[][..], Vec::as_slice),
    )?;
    Ok(0)
}

async fn prune(session: Session, matches: Matches) -> Outcome {
    let all = matches.on("all");
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !matches.on("force") && !confirm(warning)? {
        return Ok(0);
    }
    let dangling = format!("dangling={}", !all);
    let mut wanted = matches.list("filter");
    wanted.push(&dangling);
    let filters = filters(&wanted)?;
    let path = target("/images/prune", &[("filters", &filters)]);
    let report = session.client.post(&path, Value::Null).await?;
    let deleted = report.items("ImagesDeleted");
    if !deleted.is_empty() {
        line_out("Deleted Images:")?;
        for item in deleted {
            let line = match item.text("Deleted") {
                "" => format!("untagged: {}", item.text("Untagged")),
                id => format!("deleted: {id}"),
            };
            line_out(&line)?;
        }
        line_out("")?;
    }
    line_out(&reclaimed(&report))?;
    Ok(0)
}

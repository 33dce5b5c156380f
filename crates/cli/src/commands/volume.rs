//! `volume create`, `ls`, `rm` and `prune`.

use portolan_api::VolumeCreate;
use serde_json::Value;

use super::each::each;
use super::exec::to_json;
use super::inspect::VOLUME_INSPECT;
use super::prune::{confirm, list_deleted, reclaimed};
use super::ps::{check_filter, filters};
use crate::client::{escape, target};
use crate::command::{Arity, Command};
use crate::create::env::{check_label, pairs};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Matches, any};
use crate::json::Json;
use crate::session::{Session, line_err, line_out};
use crate::table::{List, labels};
use crate::units;

const NO_CLUSTER: &str = "there is no swarm mode";

/// `volume`.
pub(super) const VOLUME: Command =
    Command::group("volume", "Manage volumes", &[&CREATE, &LS, &VOLUME_INSPECT, &RM, &PRUNE]);

const CREATE: Command = Command {
    flags: &[&[
        Flag::text("availability", "").refused(NO_CLUSTER),
        Flag::text("driver", "Driver of the volume").short('d'),
        Flag::text("group", "").refused(NO_CLUSTER),
        Flag::list("label", "Set metadata").checked(check_label),
        Flag::text("name", "").hidden(),
        Flag::new("opt", Kind::List(any), "map", "Option of the driver").short('o'),
        Flag::text("scope", "").refused(NO_CLUSTER),
        Flag::text("sharing", "").refused(NO_CLUSTER),
        Flag::text("type", "").refused(NO_CLUSTER),
    ]],
    examples: &[("", "volume create data"), ("", "run -v data:/data busybox")],
    ..Command::new("create", "[OPTIONS] [VOLUME]", "Create a volume", Arity::AtMost(1), |session, matches| {
        Box::pin(create(session, matches))
    })
};

const LS: Command = Command {
    aliases: &["list"],
    flags: &[&[
        Flag::switch("cluster", "").refused(NO_CLUSTER),
        Flag::list("filter", "Show only what matches (dangling=true, ...)").checked(check_filter).short('f'),
        Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
        Flag::switch("quiet", "Show only names").short('q'),
    ]],
    also: &["volume ls", "volume list"],
    ..Command::new("ls", "[OPTIONS]", "List volumes", Arity::Exactly(0), |session, matches| {
        Box::pin(ls(session, matches))
    })
};

const RM: Command = Command {
    aliases: &["remove"],
    flags: &[&[Flag::switch("force", "A volume that is not there is no failure").short('f')]],
    also: &["volume rm", "volume remove"],
    ..Command::new(
        "rm",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Remove one or more volumes",
        Arity::AtLeast(1),
        |session, matches| Box::pin(rm(session, matches)),
    )
};

const PRUNE: Command = Command {
    flags: &[&[
        Flag::switch("all", "Remove named volumes too").short('a'),
        Flag::list("filter", "Remove only what matches (label=...)").checked(check_filter),
        Flag::switch("force", "Do not ask").short('f'),
    ]],
    ..Command::new(
        "prune",
        "[OPTIONS]",
        "Remove unused local volumes",
        Arity::Exactly(0),
        |session, matches| Box::pin(prune(session, matches)),
    )
};

async fn create(session: Session, matches: Matches) -> Outcome {
    let named = matches.args.first().map(String::as_str);
    if named.is_some() && matches.has("name") {
        return Err(Failure::new(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let body = VolumeCreate {
        driver: matches.text("driver").unwrap_or("local").to_owned(),
        driver_opts: pairs(matches.list("opt")),
        labels: pairs(matches.list("label")),
        name: named.or(matches.text("name")).unwrap_or_default().to_owned(),
        ..VolumeCreate::default()
    };
    let created = session.client.post("/volumes/create", to_json(&body)?).await?;
    line_out(created.text("Name"))?;
    Ok(0)
}

const HEADINGS: &[(&str, &str)] = &[
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Availability", "AVAILABILITY"),
    ("Status", "STATUS"),
];

fn field(volume: &Value, name: &str) -> Option<Value> {
    let usage = volume.get_or_null("UsageData");
    let text = match name {
        "Name" | "Driver" | "Scope" | "Mountpoint" => volume.text(name).to_owned(),
        "Labels" => return Some(labels(volume)),
        "Links" if usage.is_null() => "N/A".to_owned(),
        "Links" => usage.int("RefCount").to_string(),
        "Size" if usage.is_null() || usage.int("Size") < 0 => "N/A".to_owned(),
        "Size" => units::human_size_with(usage.number("Size"), 4),
        "Group" | "Availability" | "Status" => "N/A".to_owned(),
        _ => return None,
    };
    Some(Value::from(text))
}

async fn ls(session: Session, matches: Matches) -> Outcome {
    let filters = filters(&matches.list("filter"))?;
    let mut found = session.client.get(&target("/volumes", &[("filters", &filters)])).await?;
    for warning in found.texts("Warnings") {
        line_err(&format!("WARNING: {warning}"));
    }
    let mut volumes = match found.get_mut("Volumes").map(Value::take) {
        Some(Value::Array(volumes)) => volumes,
        _ => Vec::new(),
    };
    volumes.sort_by(|a, b| super::port::natural(a.text("Name"), b.text("Name")));
    List {
        type_name: "*formatter.volumeContext",
        headings: HEADINGS,
        default: "{{.Driver}}\t{{.Name}}",
        quiet: "{{.Name}}",
        field: &field,
    }
    .write(session.format(&matches, "volumesFormat"), matches.on("quiet"), &volumes)?;
    Ok(0)
}

/// Writes what each volume takes.
pub(super) fn write_usage(volumes: &[Value]) -> Result<(), Failure> {
    List {
        type_name: "*formatter.volumeContext",
        headings: HEADINGS,
        default: "{{.Name}}\t{{.Links}}\t{{.Size}}",
        quiet: "{{.Name}}",
        field: &field,
    }
    .write("", false, volumes)
}

async fn rm(session: Session, matches: Matches) -> Outcome {
    let force = if matches.on("force") { "1" } else { "" };
    let client = &*session.client;
    each(&matches.args, async |name: &str| {
        let path = target(&format!("/volumes/{}", escape(name)), &[("force", force)]);
        client.delete(&path).await?;
        Ok(name.to_owned())
    })
    .await
}

async fn prune(session: Session, matches: Matches) -> Outcome {
    let all = matches.on("all");
    let warning = if all {
        "WARNING! This will remove all volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if !matches.on("force") && !confirm(warning)? {
        return Ok(0);
    }
    let mut wanted = matches.list("filter");
    if all {
        wanted.push("all=true");
    }
    let filters = filters(&wanted)?;
    let path = target("/volumes/prune", &[("filters", &filters)]);
    let report = session.client.post(&path, Value::Null).await?;
    list_deleted("Deleted Volumes:", &report.texts("VolumesDeleted"))?;
    line_out(&reclaimed(&report))?;
    Ok(0)
}

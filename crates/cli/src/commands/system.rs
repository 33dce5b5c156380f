//! `system df` and `system prune`.

use serde_json::{Value, json};

use super::events::EVENTS;
use super::info::INFO;
use super::prune::{confirm, list_deleted};
use super::ps::{check_filter, filters};
use crate::client::target;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_out};
use crate::table::List;
use crate::units;

/// `system`.
pub(super) const SYSTEM: Command =
    Command::group("system", "Manage the engine", &[&DF, &EVENTS, &INFO, &PRUNE]);

const DF: Command = Command {
    flags: &[&[
        Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
        Flag::switch("verbose", "").short('v').refused("use 'ps -s', 'images' and 'volume ls'"),
    ]],
    ..Command::new("df", "[OPTIONS]", "Show docker disk usage", Arity::Exactly(0), |session, matches| {
        Box::pin(df(session, matches))
    })
};

const PRUNE: Command = Command {
    flags: &[&[
        Flag::switch("all", "Remove all images that no container uses").short('a'),
        Flag::list("filter", "Remove only what matches (until=24h, label=...)").checked(check_filter),
        Flag::switch("force", "Do not ask").short('f'),
        Flag::switch("volumes", "Remove anonymous volumes too"),
    ]],
    ..Command::new("prune", "[OPTIONS]", "Remove unused data", Arity::Exactly(0), |session, matches| {
        Box::pin(prune(session, matches))
    })
};

const HEADINGS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

async fn df(session: Session, matches: Matches) -> Outcome {
    let usage = session.client.get("/system/df").await?;
    let rows = usage_rows(&usage);
    List {
        type_name: "*formatter.diskUsageContext",
        headings: HEADINGS,
        default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        quiet: "{{.Type}}",
        field: &|row, name| row.get(name).cloned(),
    }
    .write(matches.text_or_empty("format"), false, &rows)?;
    Ok(0)
}

fn row(title: &str, total: usize, active: usize, size: f64, free: f64) -> Value {
    let share = if size > 0.0 { format!(" ({:.0}%)", (free * 100.0 / size).floor()) } else { String::new() };
    json!({
        "Type": title,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": units::human_size_with(size, 4),
        "Reclaimable": format!("{}{share}", units::human_size_with(free, 4)),
    })
}

fn usage_rows(usage: &Value) -> Vec<Value> {
    let images = usage.items("Images");
    let in_use: Vec<_> = images.iter().filter(|image| image.int("Containers") > 0).collect();
    let layers = usage.number("LayersSize");
    let used: f64 = in_use
        .iter()
        .filter(|image| image.int("Size") != -1 && image.int("SharedSize") != -1)
        .map(|image| image.number("Size") - image.number("SharedSize"))
        .sum();
    let containers = usage.items("Containers");
    let is_active =
        |container: &&Value| matches!(container.text("State"), "running" | "paused" | "restarting");
    let written = |containers: &mut dyn Iterator<Item = &Value>| -> f64 {
        containers.map(|container| container.number("SizeRw")).sum()
    };
    let all = written(&mut containers.iter());
    let live = written(&mut containers.iter().filter(is_active));
    let volumes = usage.items("Volumes");
    let size_of = |volume: &&Value| volume.at(&["UsageData"]).number("Size").max(0.0);
    let is_used = |volume: &&Value| volume.at(&["UsageData"]).int("RefCount") > 0;
    let volume_size: f64 = volumes.iter().map(|volume| size_of(&volume)).sum();
    let volume_used: f64 = volumes.iter().filter(is_used).map(|volume| size_of(&volume)).sum();
    let cache = usage.items("BuildCache");
    let cached: f64 = cache.iter().map(|record| record.number("Size")).sum();
    vec![
        row("Images", images.len(), in_use.len(), layers, layers - used),
        row("Containers", containers.len(), containers.iter().filter(is_active).count(), all, all - live),
        row(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(is_used).count(),
            volume_size,
            volume_size - volume_used,
        ),
        row("Build Cache", cache.len(), 0, cached, cached),
    ]
}

async fn prune(session: Session, matches: Matches) -> Outcome {
    let (all, volumes) = (matches.on("all"), matches.on("volumes"));
    let mut warning = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
    if volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    });
    if !matches.on("force") && !confirm(&warning)? {
        return Ok(0);
    }
    let given = matches.list("filter");
    let client = &*session.client;
    let query = filters(&given)?;
    let mut space = 0.0;
    let prune =
        async |path: &str, query: &str| client.post(&target(path, &[("filters", query)]), Value::Null).await;
    let report = prune("/containers/prune", &query).await?;
    list_deleted("Deleted Containers:", &report.texts("ContainersDeleted"))?;
    space += report.number("SpaceReclaimed");
    let report = prune("/networks/prune", &query).await?;
    list_deleted("Deleted Networks:", &report.texts("NetworksDeleted"))?;
    if volumes {
        let report = prune("/volumes/prune", &query).await?;
        list_deleted("Deleted Volumes:", &report.texts("VolumesDeleted"))?;
        space += report.number("SpaceReclaimed");
    }
    let dangling = format!("dangling={}", !all);
    let mut wanted = given.clone();
    wanted.push(&dangling);
    let report = prune("/images/prune", &filters(&wanted)?).await?;
    let deleted: Vec<String> = report
        .items("ImagesDeleted")
        .iter()
        .map(|item| match item.text("Deleted") {
            "" => format!("untagged: {}", item.text("Untagged")),
            id => format!("deleted: {id}"),
        })
        .collect();
    let deleted: Vec<&str> = deleted.iter().map(String::as_str).collect();
    list_deleted("Deleted Images:", &deleted)?;
    space += report.number("SpaceReclaimed");
    line_out(&format!("Total reclaimed space: {}", units::human_size_with(space, 4)))?;
    Ok(0)
}

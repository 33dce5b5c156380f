//! `system df` and `system prune`.

use serde_json::{Value, json};

use super::events::EVENTS;
use super::info::INFO;
use super::prune::{confirm, list_deleted};
use super::ps::{check_filter, filters};
use crate::client::target;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_out, write_out};
use crate::table::{List, containers, images};
use crate::template::truncate_id;
use crate::units;

/// `system`.
pub(super) const SYSTEM: Command =
    Command::group("system", "Manage the engine", &[&DF, &EVENTS, &INFO, &PRUNE]);

const DF: Command = Command {
    flags: &[&[
        Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
        Flag::switch("verbose", "Show each image, container and volume").short('v'),
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

const IMAGES: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
const CONTAINERS: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";

async fn df(session: Session, matches: Matches) -> Outcome {
    if matches.on("verbose") && !matches.text_or_empty("format").is_empty() {
        return Err(Failure::new("the verbose and the format options conflict"));
    }
    let usage = session.client.get("/system/df").await?;
    if matches.on("verbose") {
        return each_object(&usage);
    }
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

/// What each image, container and volume takes.
fn each_object(usage: &Value) -> Outcome {
    write_out("Images space usage:\n\n")?;
    images::write(IMAGES, false, true, false, usage.items("Images"))?;
    write_out("\nContainers space usage:\n\n")?;
    let mut own = usage.items("Containers").to_vec();
    // What a container shares with its image is not its own.
    own.iter_mut()
        .filter_map(Value::as_object_mut)
        .for_each(|container| drop(container.remove("SizeRootFs")));
    containers::write(CONTAINERS, false, false, true, &own)?;
    write_out("\nLocal Volumes space usage:\n\n")?;
    super::volume::write_usage(usage.items("Volumes"))?;
    let cache = usage.items("BuildCache");
    let size = cache.iter().map(|record| record.number("Size")).sum();
    write_out(&format!("\nBuild cache usage: {}\n\n", units::human_size(size)))?;
    let now = units::now();
    let age = |record: &Value, key: &str| match record.text(key).parse::<jiff::Timestamp>() {
        Ok(then) => units::ago(now, then.as_second() as f64),
        Err(_) => String::new(),
    };
    List {
        type_name: "*formatter.buildCacheContext",
        headings: CACHE_HEADINGS,
        default: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
        quiet: "{{.ID}}",
        field: &|record, name| {
            Some(Value::from(match name {
                "ID" => truncate_id(record.text("ID")),
                "CacheType" => record.text("Type").to_owned(),
                "Size" => units::human_size(record.number("Size")),
                "CreatedSince" => age(record, "CreatedAt"),
                "LastUsedSince" => age(record, "LastUsedAt"),
                "UsageCount" => record.int("UsageCount").to_string(),
                "Shared" => record.on("Shared").to_string(),
                _ => return None,
            }))
        },
    }
    .write("", false, cache)?;
    Ok(0)
}

const CACHE_HEADINGS: &[(&str, &str)] = &[
    ("ID", "CACHE ID"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("Shared", "SHARED"),
];

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

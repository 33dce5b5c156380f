//! `stats`.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::create::container_path;
use crate::client::{ClientError, target};
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_err, write_out};
use crate::table::List;
use crate::template::truncate_id;
use crate::units::{binary_size, human_size};

/// `stats`.
pub(super) const STATS: Command = Command {
    flags: &[&[
        Flag::switch("all", "Show all containers, not only the running ones").short('a'),
        Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
        Flag::switch("no-stream", "Show one reading and end"),
        Flag::switch("no-trunc", "Do not shorten anything"),
    ]],
    also: &["container stats", "stats"],
    ..Command::new(
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Display a live stream of container(s) resource usage statistics",
        Arity::AtLeast(0),
        |session, matches| Box::pin(stats(session, matches)),
    )
};

const HEADINGS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

async fn stats(session: Session, matches: Matches) -> Outcome {
    let truncate = !matches.on("no-trunc");
    loop {
        let names = names(&session, &matches).await?;
        let readings = join_all(names.iter().map(|name| read(&session, name))).await;
        let mut rows = Vec::new();
        for reading in readings {
            match reading {
                Ok(reading) => rows.push(reading),
                // A container that ended meanwhile is no failure of a list that follows.
                Err(why) if why.is_not_found() && matches.args.is_empty() => {}
                Err(why) => return Err(why.into()),
            }
        }
        let list = List {
            type_name: "*container.statsContext",
            headings: HEADINGS,
            default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
            quiet: "{{.ID}}",
            field: &|row, name| match name {
                "ID" if truncate => Some(Value::from(truncate_id(row.text("ID")))),
                name => row.get(name).cloned(),
            },
        };
        let text = list.render(session.format(&matches, "statsFormat"), false, &rows)?;
        if matches.on("no-stream") {
            write_out(&text)?;
            return Ok(0);
        }
        // Each reading replaces the one before on the screen.
        write_out(&format!("\x1b[H\x1b[J{text}"))?;
        if rows.is_empty() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn names(session: &Session, matches: &Matches) -> Result<Vec<String>, ClientError> {
    if !matches.args.is_empty() {
        return Ok(matches.args.clone());
    }
    let all = if matches.on("all") { "1" } else { "" };
    let list = session.client.get(&target("/containers/json", &[("all", all)])).await?;
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    Ok(list.iter().map(|item| item.text("Id").to_owned()).collect())
}

/// One reading; the daemon measures for about a second to tell the use of the CPU.
async fn read(session: &Session, name: &str) -> Result<Value, ClientError> {
    let path = target(&container_path(name, "/stats"), &[("stream", "0")]);
    let stats = session.client.get(&path).await?;
    if stats.text("id").is_empty() {
        line_err(&format!("no statistics of {name}"));
    }
    Ok(row(name, &stats))
}

fn row(name: &str, stats: &Value) -> Value {
    let memory = stats.get_or_null("memory_stats");
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .map(|key| memory.at(&["stats"]).number(key))
        .find(|bytes| *bytes > 0.0)
        .unwrap_or(0.0);
    let usage = memory.number("usage");
    let used = if cache < usage { usage - cache } else { usage };
    let limit = memory.number("limit");
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let sum = |key: &str| -> f64 {
        let networks = stats.entries("networks");
        networks.iter().map(|(_, network)| network.number(key)).sum()
    };
    let block = |operation: &str| -> f64 {
        let entries = stats.at(&["blkio_stats"]).items("io_service_bytes_recursive");
        entries
            .iter()
            .filter(|entry| entry.text("op").eq_ignore_ascii_case(operation))
            .map(|entry| entry.number("value"))
            .sum()
    };
    json!({
        "Container": name,
        "ID": stats.text("id"),
        "Name": stats.text("name").trim_start_matches('/'),
        "CPUPerc": format!("{:.2}%", cpu_share(stats)),
        "MemUsage": format!("{} / {}", binary_size(used), binary_size(limit)),
        "MemPerc": format!("{share:.2}%"),
        "NetIO": format!("{} / {}", human_size(sum("rx_bytes")), human_size(sum("tx_bytes"))),
        "BlockIO": format!("{} / {}", human_size(block("read")), human_size(block("write"))),
        "PIDs": stats.at(&["pids_stats"]).int("current").to_string(),
    })
}

/// The share of one CPU that was used between the two readings of the answer, in percent.
fn cpu_share(stats: &Value) -> f64 {
    let (now, before) = (stats.get_or_null("cpu_stats"), stats.get_or_null("precpu_stats"));
    let total = |cpu: &Value| cpu.at(&["cpu_usage"]).number("total_usage");
    let used = total(now) - total(before);
    let system = now.number("system_cpu_usage") - before.number("system_cpu_usage");
    let cpus = match now.number("online_cpus") {
        0.0 => now.at(&["cpu_usage"]).items("percpu_usage").len() as f64,
        count => count,
    };
    if used > 0.0 && system > 0.0 { used / system * cpus * 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_as_docker_shows_it() {
        let row = row(
            "web",
            &json!({
                "id": "abc", "name": "/web",
                "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
                "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
                "memory_stats": {"usage": 3_145_728, "limit": 104_857_600, "stats": {"inactive_file": 1_048_576}},
                "networks": {"eth0": {"rx_bytes": 1450, "tx_bytes": 0}},
                "pids_stats": {"current": 3},
            }),
        );
        assert_eq!(row["CPUPerc"], "40.00%");
        assert_eq!(row["MemUsage"], "2MiB / 100MiB");
        assert_eq!(row["MemPerc"], "2.00%");
        assert_eq!(row["NetIO"], "1.45kB / 0B");
        assert_eq!(row["PIDs"], "3");
    }
}

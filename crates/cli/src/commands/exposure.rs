//! `exposure`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::Session;
use crate::table::List;
use crate::table::ports::bracketed;

const HOST: &str = "HostPort";
const CONTAINER: &str = "ContainerPort";
// Of rows that stand for several ports.
const LAST_HOST: &str = "LastHostPort";
const LAST_CONTAINER: &str = "LastContainerPort";

const HEADINGS: &[(&str, &str)] = &[
    ("Port", "PORT"),
    ("Name", "CONTAINER"),
    ("Target", "LEADS TO"),
    ("Reach", "REACHED BY"),
    ("From", "SOURCES"),
    ("Reason", "WHY"),
    ("Network", "NETWORK"),
    ("Container", "CONTAINER ID"),
];

/// `exposure`.
pub(super) const EXPOSURE: Command = Command {
    flags: &[&[Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'")]],
    examples: &[
        ("", "exposure"),
        ("Ports, and from where they are reached", "exposure --format '{{.Port}} {{.Reach}} {{.From}}'"),
    ],
    ..Command::new(
        "exposure",
        "[OPTIONS]",
        "Show every published port, who can reach it, and why",
        Arity::Exactly(0),
        |session, matches| Box::pin(exposure(session, matches)),
    )
};

async fn exposure(session: Session, matches: Matches) -> Outcome {
    let rows = session.client.get("/portolan/exposure").await?;
    let mut rows = rows.as_array().cloned().unwrap_or_default();
    let format = matches.text_or_empty("format");
    // Programs read a port a line.
    if format.is_empty() || format.starts_with("table") {
        rows = together(rows);
    }
    List {
        type_name: "*formatter.exposureContext",
        headings: HEADINGS,
        default: "{{.Port}}\t{{.Name}}\t{{.Target}}\t{{.Reach}}\t{{.From}}\t{{.Reason}}",
        quiet: "{{.Port}}",
        field: &field,
    }
    .write(format, false, &rows)?;
    Ok(0)
}

/// A row for each range: ports in a row that differ in nothing else. Each stands where its first port stood.
fn together(rows: Vec<Value>) -> Vec<Value> {
    let mut ranges: Vec<Value> = Vec::new();
    let mut latest: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let mut rest = row.clone();
        for number in [HOST, CONTAINER] {
            rest.as_object_mut().and_then(|fields| fields.remove(number));
        }
        let found = latest.get(&rest.to_string()).copied();
        match found.and_then(|at| ranges.get_mut(at)).filter(|range| follows(range, &row)) {
            Some(range) => {
                (range[LAST_HOST], range[LAST_CONTAINER]) = (row[HOST].clone(), row[CONTAINER].clone());
            }
            None => {
                latest.insert(rest.to_string(), ranges.len());
                ranges.push(row);
            }
        }
    }
    ranges
}

/// A port is the next one of a range, on the host and in the container.
fn follows(range: &Value, row: &Value) -> bool {
    let number = |value: &Value, key: &str| value.get_or_null(key).as_u64();
    let next = |last, first, key| {
        let after = number(range, last).or(number(range, first)).map(|port| port + 1);
        after.is_some() && after == number(row, key)
    };
    next(LAST_HOST, HOST, HOST) && next(LAST_CONTAINER, CONTAINER, CONTAINER)
}

/// `8000`, or `8000-8010` of a range.
fn ports(row: &Value, first: &str, last: &str) -> String {
    let first = row.get_or_null(first).as_u64().unwrap_or_default();
    row.get_or_null(last).as_u64().map_or_else(|| first.to_string(), |last| format!("{first}-{last}"))
}

fn field(row: &Value, name: &str) -> Option<Value> {
    Some(Value::from(match name {
        "Port" => {
            let (ip, protocol) = (bracketed(row.text("HostIp")), row.text("Protocol"));
            format!("{ip}:{}/{protocol}", ports(row, HOST, LAST_HOST))
        }
        "Target" => match row.text("Target") {
            "" => "-".to_owned(),
            target => format!("{}:{}", bracketed(target), ports(row, CONTAINER, LAST_CONTAINER)),
        },
        "From" => match row.texts("From") {
            from if from.is_empty() && row.text("Reach") == "nobody" => "-".to_owned(),
            from if from.is_empty() => "everybody".to_owned(),
            from => from.join(","),
        },
        "Name" | "Reach" | "Reason" | "Network" | "Container" => row.text(name).to_owned(),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_in_a_row_are_one_line() {
        let row = |ip: &str, host: u16, container: u16, name: &str| {
            json!({"HostIp": ip, "HostPort": host, "Protocol": "tcp", "Target": "10.0.0.2", "ContainerPort": container,
                "Name": name, "Reach": "every interface", "From": []})
        };
        let rows = vec![
            row("0.0.0.0", 8000, 80, "web"),
            row("::", 8000, 80, "web"),
            row("0.0.0.0", 8001, 81, "web"),
            row("::", 8001, 81, "web"),
            row("0.0.0.0", 8002, 81, "web"),
            row("0.0.0.0", 8003, 82, "other"),
        ];
        let lines: Vec<String> = together(rows)
            .iter()
            .map(|row| {
                ["Port", "Target"]
                    .map(|name| field(row, name).unwrap().as_str().unwrap().to_owned())
                    .join(" ")
            })
            .collect();
        assert_eq!(
            lines,
            [
                "0.0.0.0:8000-8001/tcp 10.0.0.2:80-81",
                "[::]:8000-8001/tcp 10.0.0.2:80-81",
                "0.0.0.0:8002/tcp 10.0.0.2:81",
                "0.0.0.0:8003/tcp 10.0.0.2:82",
            ]
        );
    }
}

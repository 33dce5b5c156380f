//! `exposure`.

use serde_json::Value;

use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::Session;
use crate::table::List;
use crate::table::ports::bracketed;

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
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    List {
        type_name: "*formatter.exposureContext",
        headings: HEADINGS,
        default: "{{.Port}}\t{{.Name}}\t{{.Target}}\t{{.Reach}}\t{{.From}}\t{{.Reason}}",
        quiet: "{{.Port}}",
        field: &field,
    }
    .write(matches.text_or_empty("format"), false, rows)?;
    Ok(0)
}

fn field(row: &Value, name: &str) -> Option<Value> {
    let number = |key: &str| row.get_or_null(key).as_u64().unwrap_or_default();
    Some(Value::from(match name {
        "Port" => {
            let (ip, protocol) = (bracketed(row.text("HostIp")), row.text("Protocol"));
            format!("{ip}:{}/{protocol}", number("HostPort"))
        }
        "Target" => match row.text("Target") {
            "" => "-".to_owned(),
            target => format!("{}:{}", bracketed(target), number("ContainerPort")),
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

//! `ps`.

use crate::client::target;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::session::{Session, line_err};
use crate::table::containers;

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Show all containers, not only the running ones").short('a'),
    Flag::list("filter", "Show only what matches (name=web, status=exited, ...)")
        .checked(check_filter)
        .short('f'),
    Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
    Flag::int("last", "Show the last n containers made").short('n'),
    Flag::switch("latest", "Show the container made last").short('l'),
    Flag::switch("no-trunc", "Do not shorten anything"),
    Flag::switch("quiet", "Show only container IDs").short('q'),
    Flag::switch("size", "Show sizes of files").short('s'),
];

/// `ps`.
pub(super) const PS: Command = Command {
    flags: &[FLAGS],
    also: &["container ls", "container list", "container ps", "ps"],
    examples: &[
        ("Names and ports of everything that runs", "ps --format 'table {{.Names}}\\t{{.Ports}}'"),
        ("Containers that ended with an error", "ps -a -f status=exited -f exited=1"),
    ],
    ..Command::new("ps", "[OPTIONS]", "List containers", Arity::Exactly(0), |session, matches| {
        Box::pin(ps(session, matches))
    })
};

/// `container ls`.
pub(super) const LS: Command = Command { name: "ls", aliases: &["list", "ps"], ..PS };

async fn ps(session: Session, matches: Matches) -> Outcome {
    let format = session.format(&matches, "psFormat");
    let size = matches.on("size") || format.contains(".Size");
    let latest = matches.on("latest") && !matches.has("last");
    let last = if latest { 1 } else { matches.int("last").unwrap_or(-1) };
    let limit = if last > 0 { last.to_string() } else { String::new() };
    let filters = filters(&matches.list("filter"))?;
    let path = target(
        "/containers/json",
        &[
            ("all", if matches.on("all") { "1" } else { "" }),
            ("limit", &limit),
            ("size", if size { "1" } else { "" }),
            ("filters", &filters),
        ],
    );
    let list = session.client.get(&path).await?;
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    if matches.on("quiet") && !format.is_empty() {
        line_err("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    containers::write(format, matches.on("quiet"), matches.on("size"), !matches.on("no-trunc"), list)?;
    Ok(0)
}

/// Checks `--filter`.
pub(super) fn check_filter(value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains('=') {
        return Ok(());
    }
    Err("bad format of filter (expected name=value)".to_owned())
}

/// The `filters` parameter of `--filter` flags; empty for none.
pub(super) fn filters(flags: &[&str]) -> Result<String, Failure> {
    let mut filters = portolan_api::Filters::default();
    for (key, value) in flags.iter().filter_map(|flag| flag.split_once('=')) {
        filters.add(key.trim().to_lowercase(), value.trim());
    }
    Ok(filters.to_query().unwrap_or_default())
}

//! `container prune`, and what all prune commands share.

use std::io::{self, BufRead};

use serde_json::Value;

use super::ps::{check_filter, filters};
use crate::client::target;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_out, write_out};
use crate::units;

/// `container prune`.
pub(super) const CONTAINER_PRUNE: Command = Command {
    flags: &[&[
        Flag::list("filter", "Remove only what matches (until=24h, label=...)").checked(check_filter),
        Flag::switch("force", "Do not ask").short('f'),
    ]],
    ..Command::new(
        "prune",
        "[OPTIONS]",
        "Remove all stopped containers",
        Arity::Exactly(0),
        |session, matches| Box::pin(prune(session, matches)),
    )
};

async fn prune(session: Session, matches: Matches) -> Outcome {
    if !matches.on("force") && !confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let filters = filters(&matches.list("filter"))?;
    let path = target("/containers/prune", &[("filters", &filters)]);
    let report = session.client.post(&path, Value::Null).await?;
    list_deleted("Deleted Containers:", &report.texts("ContainersDeleted"))?;
    line_out(&reclaimed(&report))?;
    Ok(0)
}

/// A heading and a line each, if there is any.
pub(super) fn list_deleted(heading: &str, names: &[&str]) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    line_out(&format!("{heading}\n{}\n", names.join("\n")))
}

/// `Total reclaimed space: 1.2MB`.
pub(super) fn reclaimed(report: &Value) -> String {
    format!("Total reclaimed space: {}", units::human_size_with(report.number("SpaceReclaimed"), 4))
}

/// Asks whether to go on; the end of input is a no.
pub(super) fn confirm(warning: &str) -> io::Result<bool> {
    write_out(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

//! `diff`.

use super::create::container_path;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::Matches;
use crate::json::Json;
use crate::session::{Session, line_out};

/// `diff`.
pub(super) const DIFF: Command = Command {
    also: &["container diff", "diff"],
    ..Command::new(
        "diff",
        "CONTAINER",
        "Inspect changes to files or directories on a container's filesystem",
        Arity::Exactly(1),
        |session, matches| Box::pin(diff(session, matches)),
    )
};

async fn diff(session: Session, matches: Matches) -> Outcome {
    let path = container_path(&matches.args[0], "/changes");
    let changes = session.client.get(&path).await?;
    for change in changes.as_array().map_or(&[][..], Vec::as_slice) {
        let letter = match change.int("Kind") {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        line_out(&format!("{letter} {}", change.text("Path")))?;
    }
    Ok(0)
}

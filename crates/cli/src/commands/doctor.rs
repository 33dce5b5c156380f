//! `doctor`.

use serde_json::Value;

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_out};

/// `doctor`.
pub(super) const DOCTOR: Command = Command {
    flags: &[&[
        Flag::text("format", "text (default) or json"),
        Flag::switch("quiet", "Show problems only").short('q'),
    ]],
    examples: &[("", "doctor"), ("For a program", "doctor --format json")],
    ..Command::new(
        "doctor",
        "[OPTIONS]",
        "Examine this host's networking: what is wrong, why it matters, and what puts it right",
        Arity::Exactly(0),
        |session, matches| Box::pin(doctor(session, matches)),
    )
};

/// The exit status is 1 if something is wrong.
async fn doctor(session: Session, matches: Matches) -> Outcome {
    let format = matches.text_or_empty("format");
    if !matches!(format, "" | "text" | "json") {
        return Err(Failure::new(format!("unknown format {format:?}: text or json")));
    }
    let found = session.client.get("/portolan/doctor").await?;
    let found = found.as_array().map_or(&[][..], Vec::as_slice);
    let is_problem = |one: &&Value| one.text("Status") == "problem";
    let shown: Vec<&Value> = found.iter().filter(|one| !matches.on("quiet") || is_problem(one)).collect();
    if format == "json" {
        let all = Value::from_iter(shown.into_iter().cloned());
        line_out(&serde_json::to_string_pretty(&all).map_err(|error| Failure::new(error.to_string()))?)?;
    } else {
        for one in shown {
            for line in lines(one) {
                line_out(&line)?;
            }
        }
    }
    Ok(u8::from(found.iter().any(|one| is_problem(&one))))
}

/// One finding: what there is, then why it matters and what to type.
fn lines(one: &Value) -> Vec<String> {
    let mut lines = vec![format!("{:<8} {:<13} {}", one.text("Status"), one.text("Check"), one.text("What"))];
    let indent = " ".repeat(23);
    if !one.text("Why").is_empty() {
        lines.push(format!("{indent}why: {}", one.text("Why")));
    }
    lines.extend(one.texts("Fix").iter().map(|command| format!("{indent}fix: {command}")));
    lines
}

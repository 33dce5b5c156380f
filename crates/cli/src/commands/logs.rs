//! `logs`.

use http::Method;

use super::create::container_path;
use crate::client::{empty, target};
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::Session;
use crate::terminal::{Frames, Sink};
use crate::units;

/// `logs`.
pub(super) const LOGS: Command = Command {
    flags: &[&[
        Flag::switch("details", "Show the extra details of the log driver"),
        Flag::switch("follow", "Keep showing what is written").short('f'),
        Flag::text("since", "Show what was written after a time or duration (10m)"),
        Flag::text("tail", "Number of lines to show from the end").short('n'),
        Flag::switch("timestamps", "Show the time of each line").short('t'),
        Flag::text("until", "Show what was written before a time or duration"),
    ]],
    also: &["container logs", "logs"],
    examples: &[("The last 20 lines and what follows", "logs -f -n 20 web")],
    ..Command::new(
        "logs",
        "[OPTIONS] CONTAINER",
        "Fetch the logs of a container",
        Arity::Exactly(1),
        |session, matches| Box::pin(logs(session, matches)),
    )
};

async fn logs(session: Session, matches: Matches) -> Outcome {
    let container = session.client.get(&container_path(&matches.args[0], "/json")).await?;
    let on = |flag: &str| if matches.on(flag) { "1" } else { "" };
    let now = jiff::Timestamp::now();
    let time = |flag: &str| match matches.text_or_empty(flag) {
        "" => Ok(String::new()),
        value => units::api_timestamp(value, now),
    };
    let (since, until) = (
        time("since").map_err(|why| format!("invalid value for \"since\": {why}"))?,
        time("until").map_err(|why| format!("invalid value for \"until\": {why}"))?,
    );
    let path = target(
        &container_path(container.text("Id"), "/logs"),
        &[
            ("stdout", "1"),
            ("stderr", "1"),
            ("since", &since),
            ("until", &until),
            ("timestamps", on("timestamps")),
            ("follow", on("follow")),
            ("details", on("details")),
            ("tail", matches.text("tail").unwrap_or("all")),
        ],
    );
    let (_, mut body) = session.client.stream(Method::GET, &path, empty()).await?;
    let sink = Sink { stdout: true, stderr: true };
    let mut frames = Frames::new(container.at(&["Config"]).on("Tty"), sink);
    while let Some(chunk) = body.chunk().await? {
        frames.buffer.extend_from_slice(&chunk);
        frames.flush()?;
    }
    Ok(0)
}

//! `events`.

use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::ps::{check_filter, filters};
use crate::client::{empty, target};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_out, write_out};
use crate::table::render_typed;
use crate::template::docker;
use crate::units;

/// `events`.
pub(super) const EVENTS: Command = Command {
    flags: &[&[
        Flag::list("filter", "Show only what matches (type=network, event=die, ...)")
            .checked(check_filter)
            .short('f'),
        Flag::text("format", "json or a Go template"),
        Flag::text("since", "Begin at a time or a duration ago"),
        Flag::text("until", "Stop at a time or after a duration"),
    ]],
    also: &["system events", "events"],
    examples: &[("What happened in the last ten minutes", "events --since 10m --until 0s")],
    ..Command::new(
        "events",
        "[OPTIONS]",
        "Get real time events from the server",
        Arity::Exactly(0),
        |session, matches| Box::pin(events(session, matches)),
    )
};

async fn events(session: Session, matches: Matches) -> Outcome {
    let now = Timestamp::now();
    let time = |flag: &str| match matches.text_or_empty(flag) {
        "" => Ok(String::new()),
        value => units::api_timestamp(value, now).map_err(Failure::new),
    };
    let (since, until) = (time("since")?, time("until")?);
    let filters = filters(&matches.list("filter"))?;
    let path = target("/events", &[("since", &since), ("until", &until), ("filters", &filters)]);
    let format = matches.text_or_empty("format");
    let (_, body) = session.client.stream(Method::GET, &path, empty()).await?;
    let mut events = body.json_lines();
    while let Some(event) = events.next().await? {
        match format {
            "" => line_out(&line(&event))?,
            format => write_out(&render_typed(format, &event, &docker::EVENT)?)?,
        }
    }
    Ok(0)
}

/// `2026-11-23T18:55:12.137394983Z container start ID (image=nginx, name=web)`.
fn line(event: &Value) -> String {
    let nanoseconds = event.get_or_null("timeNano").as_i64();
    let time = nanoseconds
        .and_then(|time| Timestamp::from_nanosecond(i128::from(time)).ok())
        .or_else(|| Timestamp::from_second(event.int("time")).ok())
        .map(|time| units::rfc3339(time, true))
        .unwrap_or_default();
    let actor = event.get_or_null("Actor");
    let mut out = format!("{time} {} {} {}", event.text("Type"), event.text("Action"), actor.text("ID"));
    let mut attributes: Vec<_> = actor
        .entries("Attributes")
        .into_iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if !attributes.is_empty() {
        attributes.sort();
        out.push_str(&format!(" ({})", attributes.join(", ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_an_event() {
        let event = json!({
            "Type": "network", "Action": "connect",
            "Actor": {"ID": "abc", "Attributes": {"name": "bridge", "container": "c1"}},
            "timeNano": 1_795_460_112_137_394_983_i64,
        });
        let text = line(&event);
        assert!(text.contains(".137394983"), "{text}");
        assert!(text.ends_with(" network connect abc (container=c1, name=bridge)"), "{text}");
    }
}

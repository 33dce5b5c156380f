//! The progress that the daemon tells while it pulls, loads or imports.

use serde_json::Value;

use crate::client::BodyReader;
use crate::failure::Failure;
use crate::json::Json;
use crate::session::{line_err, line_out, write_out};

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere; failures still count.
    Nowhere,
}

/// Shows a stream of progress messages until it ends: each status on a line, without the bars that
/// change while bytes move.
///
/// # Errors
/// The error that a message brings.
pub(crate) async fn show(body: BodyReader, to: To) -> Result<(), Failure> {
    let mut lines = body.json_lines();
    while let Some(message) = lines.next().await? {
        if let Some(error) = error_of(&message) {
            return Err(Failure::new(error));
        }
        let Some(text) = text_of(&message) else {
            continue;
        };
        match to {
            To::Stdout if message.get("stream").is_some() => write_out(&text)?,
            To::Stdout => line_out(&text)?,
            To::Stderr => line_err(text.trim_end_matches('\n')),
            To::Nowhere => {}
        }
    }
    Ok(())
}

fn error_of(message: &Value) -> Option<String> {
    message
        .at(&["errorDetail", "message"])
        .as_str()
        .or_else(|| message.get("error")?.as_str())
        .map(str::to_owned)
}

fn text_of(message: &Value) -> Option<String> {
    if let Some(text) = message.get("stream").and_then(Value::as_str) {
        return Some(text.to_owned());
    }
    let moving =
        message.get("progressDetail").and_then(Value::as_object).is_some_and(|detail| !detail.is_empty());
    let status = message.text("status");
    match message.text("id") {
        _ if moving || status.is_empty() => None,
        "" => Some(status.to_owned()),
        id => Some(format!("{id}: {status}")),
    }
}

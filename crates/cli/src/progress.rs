//! The progress that the daemon tells while it pulls, loads or imports.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::client::BodyReader;
use crate::failure::Failure;
use crate::json::Json;
use crate::session::{line_err, line_out, write_out};
use crate::units::human_size;

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

/// Shows a stream of progress messages until it ends. On a terminal each layer has a line that changes
/// in its place; elsewhere each status is a line, without the bars that change while bytes move.
///
/// # Errors
/// The error that a message brings.
pub(crate) async fn show(body: BodyReader, to: To) -> Result<(), Failure> {
    let mut lines = body.json_lines();
    let mut screen = Screen::default();
    while let Some(message) = lines.next().await? {
        if let Some(error) = error_of(&message) {
            return Err(Failure::new(error));
        }
        if to.is_terminal() && message.get("stream").is_none() {
            to.write(&screen.shown(&message))?;
            continue;
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

impl To {
    fn is_terminal(self) -> bool {
        match self {
            To::Stdout => io::stdout().is_terminal(),
            To::Stderr => io::stderr().is_terminal(),
            To::Nowhere => false,
        }
    }

    fn write(self, text: &str) -> io::Result<()> {
        match self {
            To::Stdout => write_out(text),
            To::Stderr => io::stderr().lock().write_all(text.as_bytes()),
            To::Nowhere => Ok(()),
        }
    }
}

/// The lines of layers on a terminal, counted from the first one.
#[derive(Debug, Default)]
struct Screen {
    lines: HashMap<String, usize>,
}

impl Screen {
    /// What to write for a message: the cursor goes up to its layer's line and comes back.
    fn shown(&mut self, message: &Value) -> String {
        let (id, status) = (message.text("id"), message.text("status"));
        if id.is_empty() || message.get("progressDetail").is_none() {
            self.lines.clear();
            let Some(text) = text_of(message) else { return String::new() };
            return format!("{text}\n");
        }
        let known = self.lines.len();
        let line = *self.lines.entry(id.to_owned()).or_insert(known);
        let mut text = format!("{id}: {status}");
        if let Some(bar) = bar(message) {
            text.push(' ');
            text.push_str(&bar);
        }
        if line == known {
            return format!("\x1b[2K{text}\n");
        }
        let up = known - line;
        format!("\x1b[{up}A\x1b[2K{text}\r\x1b[{up}B")
    }
}

/// `[=====>     ]  1.2MB/5MB`; nothing where no bytes move.
fn bar(message: &Value) -> Option<String> {
    const WIDTH: usize = 50;
    let number = |name: &str| message.at(&["progressDetail", name]).as_f64().unwrap_or_default();
    let (current, total) = (number("current"), number("total"));
    if current <= 0.0 {
        return None;
    }
    if total <= 0.0 || current > total {
        return Some(format!("{:>8}", human_size(current)));
    }
    // Between 0 and WIDTH.
    let done = (current / total * WIDTH as f64) as usize;
    let arrow = if done < WIDTH { ">" } else { "" };
    let filled = "=".repeat(done);
    let blank = " ".repeat(WIDTH.saturating_sub(done + 1));
    Some(format!("[{filled}{arrow}{blank}] {:>8}/{}", human_size(current), human_size(total)))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_layer_keeps_its_line() {
        let mut screen = Screen::default();
        let mut shown = |message: Value| screen.shown(&message);
        let layer = |id: &str, status: &str| json!({"id": id, "status": status, "progressDetail": {}});
        assert_eq!(shown(json!({"id": "1", "status": "Pulling from a"})), "1: Pulling from a\n");
        assert_eq!(shown(layer("x", "Waiting")), "\x1b[2Kx: Waiting\n");
        assert_eq!(shown(layer("y", "Waiting")), "\x1b[2Ky: Waiting\n");
        assert_eq!(shown(layer("x", "Pull complete")), "\x1b[2A\x1b[2Kx: Pull complete\r\x1b[2B");
        assert_eq!(shown(json!({"status": "Status: done"})), "Status: done\n");
    }

    #[test]
    fn bars_show_how_far_it_is() {
        let bar = |current: u64, total: u64| {
            bar(&json!({"progressDetail": {"current": current, "total": total}})).unwrap_or_default()
        };
        assert_eq!(bar(0, 10), "");
        assert_eq!(bar(5, 10), format!("[{}>{}]       5B/10B", "=".repeat(25), " ".repeat(24)));
        assert_eq!(bar(10, 10), format!("[{}]      10B/10B", "=".repeat(50)));
        assert_eq!(bar(2000, 0).trim(), "2kB");
    }
}

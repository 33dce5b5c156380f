//! `version`.

use serde_json::{Value, json};

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, write_out};
use crate::table::render_json;

/// `version`.
pub(super) const VERSION: Command = Command {
    flags: &[&[Flag::text("format", "json or a Go template").short('f')]],
    examples: &[("", "version -f '{{.Server.Version}}'")],
    ..Command::new(
        "version",
        "[OPTIONS]",
        "Show the version information",
        Arity::Exactly(0),
        |session, matches| Box::pin(version(session, matches)),
    )
};

/// The newest API version that this client speaks.
const API_VERSION: &str = "1.51";

async fn version(session: Session, matches: Matches) -> Outcome {
    let server = session.client.get("/version").await;
    let client = client(&session.context);
    if let Some(format) = matches.text("format") {
        let failure = server.as_ref().err().map(ToString::to_string);
        let both = json!({"Client": client, "Server": server.unwrap_or(Value::Null)});
        write_out(&render_json(format, &both)?)?;
        return failure.map_or(Ok(0), |text| Err(Failure::new(text)));
    }
    let mut text = String::from("Client:\n");
    let platform = format!("{}/{}", client.text("Os"), client.text("Arch"));
    for (title, value) in [
        ("Version", client.text("Version")),
        ("API version", client.text("ApiVersion")),
        ("OS/Arch", &platform),
        ("Context", client.text("Context")),
    ] {
        text.push_str(&line(1, title, value));
    }
    match server {
        Ok(server) => {
            text.push_str("\nServer:");
            text.push_str(&server_text(&server));
            write_out(&text)?;
            Ok(0)
        }
        Err(why) => {
            write_out(&text)?;
            Err(why.into())
        }
    }
}

fn client(context: &str) -> Value {
    json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "Os": "linux",
        "Arch": arch(),
        "Context": context,
    })
}

/// What `info` tells of this client.
pub(super) fn client_info(context: &str) -> Value {
    let mut info = client(context);
    if let Some(info) = info.as_object_mut() {
        info.remove("ApiVersion");
    }
    info["Debug"] = json!(false);
    info["Plugins"] = json!([]);
    info
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A line of a component: the title, a colon and the value from column 20 on.
fn line(depth: usize, title: &str, value: &str) -> String {
    let indent = " ".repeat(depth);
    let title = format!("{title}:");
    let width = 20 - depth;
    format!("{indent}{title:width$}{value}\n")
}

fn server_text(server: &Value) -> String {
    let mut out = match server.at(&["Platform", "Name"]).as_str() {
        Some(name) if !name.is_empty() => format!(" {name}\n"),
        _ => "\n".to_owned(),
    };
    for component in server.items("Components") {
        out.push_str(&format!(" {}:\n", component.text("Name")));
        out.push_str(&line(2, "Version", component.text("Version")));
        let details = component.get_or_null("Details");
        if component.text("Name") != "Engine" {
            for (key, value) in component.entries("Details") {
                out.push_str(&line(2, key, value.as_str().unwrap_or_default()));
            }
            continue;
        }
        let api =
            format!("{} (minimum version {})", details.text("ApiVersion"), details.text("MinAPIVersion"));
        let built = built(details.text("BuildTime"));
        let platform = format!("{}/{}", details.text("Os"), details.text("Arch"));
        for (title, value) in [
            ("API version", api.as_str()),
            ("Go version", details.text("GoVersion")),
            ("Git commit", details.text("GitCommit")),
            ("Built", &built),
            ("OS/Arch", &platform),
            ("Experimental", details.text("Experimental")),
        ] {
            out.push_str(&line(2, title, value));
        }
    }
    out
}

/// A build time as Docker's CLI shows it: `Thu May  7 21:09:36 2026`.
fn built(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        Err(_) => rfc3339.to_owned(),
    }
}

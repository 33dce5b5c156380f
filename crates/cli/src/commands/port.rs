//! `port`.

use super::create::container_path;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::json::Json;
use crate::session::{Session, line_out};
use crate::table::ports::bracketed;

/// `port`.
pub(super) const PORT: Command = Command {
    also: &["container port", "port"],
    examples: &[("Where port 80 of the container is published", "port web 80")],
    ..Command::new(
        "port",
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List port mappings or a specific mapping for the container",
        Arity::Between(1, 2),
        |session, matches| Box::pin(port(session, matches)),
    )
};

async fn port(session: Session, matches: Matches) -> Outcome {
    let name = &matches.args[0];
    let container = session.client.get(&container_path(name, "/json")).await?;
    let ports = container.at(&["NetworkSettings"]);
    let mut lines = Vec::new();
    match matches.args.get(1) {
        Some(wanted) => {
            let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
            let number: u16 =
                number.parse().map_err(|_| Failure::new(format!("Error: invalid port: {number:?}")))?;
            let key = format!("{number}/{}", protocol.to_lowercase());
            let bindings = ports.get_or_null("Ports").items(&key);
            if bindings.is_empty() {
                return Err(Failure::new(format!("Error: No public port '{wanted}' published for {name}")));
            }
            lines.extend(bindings.iter().map(address));
        }
        None => {
            for (port, bindings) in ports.entries("Ports") {
                let bindings = bindings.as_array().map_or(&[][..], Vec::as_slice);
                lines.extend(bindings.iter().map(|binding| format!("{port} -> {}", address(binding))));
            }
        }
    }
    lines.sort_by_key(|line| natural(line));
    for line in lines {
        line_out(&line)?;
    }
    Ok(0)
}

fn address(binding: &serde_json::Value) -> String {
    format!("{}:{}", bracketed(binding.text("HostIp")), binding.text("HostPort"))
}

/// A key that orders numbers in texts by their value: `80/tcp` before `443/tcp`.
pub(super) fn natural(text: &str) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest[..digits].parse().unwrap_or(0);
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        out.push((number, rest[..letters].to_owned()));
        rest = &rest[letters..];
    }
    out
}

//! `port`.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::create::container_path;
use super::exec::to_json;
use crate::client::escape;
use crate::command::{Arity, Command};
use crate::create::ports::{Bindings, publish};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_err, line_out};
use crate::table::ports::bracketed;

/// `port`.
pub(super) const PORT: Command = Command {
    also: &["container port", "port"],
    flags: &[&[
        Flag::list("from", "With 'add': only these sources (10.0.0.0/8) may use the port"),
        Flag::switch("cut", "With 'rm' and 'move': end the connections that came by the port"),
        Flag::switch("keep-connections", "With 'rm' and 'move': connections go on to their end (default)"),
    ]],
    examples: &[
        ("Where port 80 of the container is published", "port web 80"),
        ("Publish a port of a running container, for some", "port add --from 10.0.0.0/8 web 8081:80"),
        ("Publish it elsewhere on the host", "port move web 8081 9081"),
        ("Unpublish it and end its connections", "port rm --cut web 8081/tcp"),
    ],
    ..Command::new(
        "port",
        "[add|rm|move] CONTAINER [PORT...]",
        "List port mappings or a specific mapping for the container; add, remove and move published ports",
        Arity::AtLeast(1),
        |session, matches| Box::pin(port(session, matches)),
    )
};

async fn port(session: Session, matches: Matches) -> Outcome {
    // With two words it is a look-up, even of a container called `add`.
    match matches.args.as_slice() {
        [verb, name, ports @ ..] if verb == "add" && !ports.is_empty() => {
            return add(&session, &matches, name, ports).await;
        }
        [verb, name, ports @ ..] if verb == "rm" && !ports.is_empty() => {
            return remove(&session, &matches, name, ports).await;
        }
        [verb, name, from, to] if verb == "move" => {
            let moves = json!([{ "From": from, "To": to }]);
            let body = json!({ "Move": moves, "Connections": connections(&matches)? });
            return change(&session, name, body).await;
        }
        [_] | [_, _] => {}
        _ => {
            return Err(Failure::new(
                "use 'port CONTAINER [PORT]', 'port add CONTAINER PORT...', 'port rm CONTAINER PORT...' or \
                 'port move CONTAINER FROM TO'",
            ));
        }
    }
    for flag in ["from", "cut", "keep-connections"] {
        if matches.has(flag) {
            return Err(Failure::new(format!("--{flag} goes with 'port add', 'port rm' or 'port move'")));
        }
    }
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
    lines.sort_by(|a, b| natural(a, b));
    for line in lines {
        line_out(&line)?;
    }
    Ok(0)
}

/// `port add`: what `--publish` takes.
async fn add(session: &Session, matches: &Matches, name: &str, ports: &[String]) -> Outcome {
    let mut bindings = Bindings::new();
    let from: String = matches.list("from").iter().map(|source| format!(",from={source}")).collect();
    for port in ports {
        publish(&format!("{port}{from}"), &mut bindings).map_err(Failure::new)?;
    }
    change(session, name, json!({ "Add": to_json(&bindings)? })).await
}

/// `port rm`: host ports, `[address:]port[/protocol]`.
async fn remove(session: &Session, matches: &Matches, name: &str, ports: &[String]) -> Outcome {
    change(session, name, json!({ "Remove": ports, "Connections": connections(matches)? })).await
}

/// What becomes of the connections that there are.
fn connections(matches: &Matches) -> Result<&'static str, Failure> {
    match (matches.on("cut"), matches.on("keep-connections")) {
        (true, true) => Err(Failure::new("--cut and --keep-connections exclude each other")),
        (true, false) => Ok("cut"),
        _ => Ok("keep"),
    }
}

async fn change(session: &Session, name: &str, body: Value) -> Outcome {
    let path = format!("/portolan/containers/{}/ports", escape(name));
    let answer = session.client.post(&path, body).await?;
    for warning in answer.texts("Warnings") {
        line_err(&format!("WARNING: {warning}"));
    }
    Ok(0)
}

fn address(binding: &serde_json::Value) -> String {
    format!("{}:{}", bracketed(binding.text("HostIp")), binding.text("HostPort"))
}

/// Compares texts with the numbers in them by their value: `80/tcp` before `443/tcp`.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (Some(x), Some(y)) = (a.first(), b.first()) else {
            return a.len().cmp(&b.len());
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, n) = (digits(&mut a), digits(&mut b));
            // Without leading zeros the longer number is the larger one.
            let order = m.len().cmp(&n.len()).then(m.cmp(n));
            if order.is_ne() {
                return order;
            }
        } else if x == y {
            (a, b) = (&a[1..], &b[1..]);
        } else {
            return x.cmp(y);
        }
    }
}

/// Takes the digits at the start; returns them without leading zeros.
fn digits<'t>(text: &mut &'t [u8]) -> &'t [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_by_value() {
        let mut names = ["vol1", "443/tcp", "80/tcp", "vol10", "vol2", "010a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["010a", "80/tcp", "443/tcp", "vol1", "vol2", "vol10"]);
    }
}

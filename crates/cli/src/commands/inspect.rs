//! `inspect` of anything, and of each kind.

use serde_json::Value;

use super::create::container_path;
use crate::client::{ClientError, escape, escape_image, target};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json;
use crate::reference::platform_query;
use crate::session::{Session, line_err, line_out, write_out};
use crate::table::{render_json, render_typed};
use crate::template::{Struct, docker};

const FORMAT: Flag = Flag::text("format", "json or a Go template").short('f');
const SIZE: Flag = Flag::switch("size", "Show sizes of files too").short('s');

/// `inspect`.
pub(super) const INSPECT: Command = Command {
    flags: &[&[FORMAT, SIZE, Flag::text("type", "Kind of object: container, image, network or volume")]],
    examples: &[(
        "The address of a container on a network",
        "inspect -f '{{.NetworkSettings.Networks.mynet.IPAddress}}' web",
    )],
    ..Command::new(
        "inspect",
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on Docker objects",
        Arity::AtLeast(1),
        |session, matches| Box::pin(any(session, matches)),
    )
};

/// `container inspect`.
pub(super) const CONTAINER_INSPECT: Command = Command {
    flags: &[&[FORMAT, SIZE]],
    ..Command::new(
        "inspect",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Display detailed information on one or more containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(of(session, matches, &[Kind::Container])),
    )
};

/// `image inspect`.
pub(super) const IMAGE_INSPECT: Command = Command {
    flags: &[&[FORMAT, Flag::text("platform", "Only the image for this platform (os/arch[/variant])")]],
    ..Command::new(
        "inspect",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Display detailed information on one or more images",
        Arity::AtLeast(1),
        |session, matches| Box::pin(of(session, matches, &[Kind::Image])),
    )
};

/// `network inspect`.
pub(super) const NETWORK_INSPECT: Command = Command {
    flags: &[&[FORMAT, Flag::switch("verbose", "Show more for diagnosis").short('v')]],
    examples: &[(
        "Who is on a network",
        "network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{println}}{{end}}' mynet",
    )],
    ..Command::new(
        "inspect",
        "[OPTIONS] NETWORK [NETWORK...]",
        "Display detailed information on one or more networks",
        Arity::AtLeast(1),
        |session, matches| Box::pin(of(session, matches, &[Kind::Network])),
    )
};

/// `volume inspect`.
pub(super) const VOLUME_INSPECT: Command = Command {
    flags: &[&[FORMAT]],
    ..Command::new(
        "inspect",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Display detailed information on one or more volumes",
        Arity::AtLeast(1),
        |session, matches| Box::pin(of(session, matches, &[Kind::Volume])),
    )
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Kind {
    fn structure(self) -> &'static Struct {
        match self {
            Kind::Container => &docker::CONTAINER,
            Kind::Image => &docker::IMAGE,
            Kind::Network => &docker::NETWORK,
            Kind::Volume => &docker::VOLUME,
        }
    }

    fn path(self, name: &str, matches: &Matches) -> Result<String, Failure> {
        let on = |flag: &str| if matches.on(flag) { "1" } else { "" };
        Ok(match self {
            Kind::Container => target(&container_path(name, "/json"), &[("size", on("size"))]),
            Kind::Image => target(
                &format!("/images/{}/json", escape_image(name)),
                &[("platform", &platform_query(matches.text_or_empty("platform"))?)],
            ),
            Kind::Network => target(
                &format!("/networks/{}", escape(name)),
                &[("verbose", if matches.on("verbose") { "true" } else { "" })],
            ),
            Kind::Volume => format!("/volumes/{}", escape(name)),
        })
    }
}

const TYPES: &str = "must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"";

async fn any(session: Session, matches: Matches) -> Outcome {
    let kinds: &[Kind] = match matches.text("type") {
        None => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        Some("container") => &[Kind::Container],
        Some("image") => &[Kind::Image],
        Some("network") => &[Kind::Network],
        Some("volume") => &[Kind::Volume],
        Some("") => return Err(Failure::new(format!("type is empty: {TYPES}"))),
        Some(kind @ ("node" | "service" | "task" | "plugin" | "secret" | "config")) => {
            return Err(Failure::new(format!(
                "objects of type {kind} are not supported: there is no swarm mode and there are no plugins"
            )));
        }
        Some(other) => return Err(Failure::new(format!("unknown type: {other:?}: {TYPES}"))),
    };
    of(session, matches, kinds).await
}

async fn of(session: Session, matches: Matches, kinds: &[Kind]) -> Outcome {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in &matches.args {
        match look_up(&session, &matches, kinds, name).await? {
            Ok(object) => found.push(object),
            Err(text) => failures.push(text),
        }
    }
    let format = matches.text_or_empty("format");
    if format.is_empty() {
        line_out(&json::indent(&list(&found), "    "))?;
    } else {
        write_formatted(format, &found)?;
    }
    for text in &failures {
        line_err(text);
    }
    Ok(u8::from(!failures.is_empty()))
}

/// Writes what was found through a template, one after the other, or all as one JSON list.
fn write_formatted(format: &str, found: &[Found]) -> Result<(), Failure> {
    if format == "json" {
        line_out(&compact(&list(found)))?;
        return Ok(());
    }
    for Found { kind, raw } in found {
        let value: Value = serde_json::from_str(raw)
            .map_err(|why| Failure::new(format!("cannot read the daemon's answer: {why}")))?;
        // A template that does not fit Docker's structures may fit the JSON (`.Id`), whose mistakes are told.
        let text = match render_typed(format, &value, kind.structure()) {
            Ok(text) => text,
            Err(_) => render_json(format, &value)?,
        };
        write_out(&text)?;
    }
    if found.is_empty() {
        line_out("")?;
    }
    Ok(())
}

/// An object's kind, and its JSON as it was sent.
struct Found {
    kind: Kind,
    raw: String,
}

fn list(found: &[Found]) -> String {
    let all: Vec<&str> = found.iter().map(|found| found.raw.as_str()).collect();
    format!("[{}]", all.join(","))
}

/// The raw JSON of the first kind that has the name, or the text of why there is none.
async fn look_up(
    session: &Session,
    matches: &Matches,
    kinds: &[Kind],
    name: &str,
) -> Result<Result<Found, String>, Failure> {
    for kind in kinds.iter().copied() {
        match session.client.get_text(&kind.path(name, matches)?).await {
            Ok(raw) => return Ok(Ok(Found { kind, raw })),
            Err(why @ ClientError::Connect { .. }) => return Err(why.into()),
            Err(why) if kinds.len() == 1 => return Ok(Err(why.to_string())),
            Err(why) if why.is_not_found() => {}
            Err(why) => return Ok(Err(why.to_string())),
        }
    }
    Ok(Err(format!("Error: No such object: {name}")))
}

/// JSON text without white space between its parts.
fn compact(raw: &str) -> String {
    match serde_json::from_str::<Value>(raw) {
        Ok(value) => json::go_json(&value),
        Err(_) => raw.trim().to_owned(),
    }
}

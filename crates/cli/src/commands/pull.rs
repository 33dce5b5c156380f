//! `pull`: asks the daemon, and shows its progress or why it cannot.

use crate::client::{BodyReader, target};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::progress;
use crate::reference::{canonical, check, split_tag, with_default_tag};
use crate::session::{Session, line_out};

/// `pull`.
pub(super) const PULL: Command = Command {
    flags: &[&[
        Flag::switch("all-tags", "Pull every tag of the repository").short('a'),
        Flag::new("disable-content-trust", crate::flags::Kind::Switch(true), "", "").hidden(),
        Flag::text("platform", "Platform of the image"),
        Flag::switch("quiet", "Do not show progress").short('q'),
    ]],
    also: &["image pull", "pull"],
    ..Command::new(
        "pull",
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
        Arity::Exactly(1),
        |session, matches| Box::pin(pull(session, matches)),
    )
};

/// Asks the daemon for an image, with the credentials that there are for its registry.
pub(super) async fn start(
    session: &Session,
    image: &str,
    platform: &str,
    all_tags: bool,
) -> Result<BodyReader, Failure> {
    let auth = session.config.header_for(image)?;
    Ok(session.client.stream_with_auth(&path(image, platform, all_tags), &auth).await?)
}

fn path(image: &str, platform: &str, all_tags: bool) -> String {
    let (name, tag) = match image.split_once('@') {
        Some((name, digest)) => (name, digest),
        None => match split_tag(image) {
            (name, Some(tag)) => (name, tag),
            (name, None) if all_tags => (name, ""),
            (name, None) => (name, "latest"),
        },
    };
    target("/images/create", &[("fromImage", &canonical(name)), ("tag", tag), ("platform", platform)])
}

async fn pull(session: Session, matches: Matches) -> Outcome {
    let image = &matches.args[0];
    let all = matches.on("all-tags");
    let quiet = matches.on("quiet");
    check(image)?;
    let tagged = image.contains('@') || split_tag(image).1.is_some();
    if all && tagged {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    if !tagged && !all && !quiet {
        line_out("Using default tag: latest")?;
    }
    let body = start(&session, image, matches.text_or_empty("platform"), all).await?;
    let to = if quiet { progress::To::Nowhere } else { progress::To::Stdout };
    progress::show(body, to).await?;
    line_out(&if all { canonical(image) } else { canonical(&with_default_tag(image)) })?;
    Ok(0)
}

//! `commit`.

use serde_json::Value;

use crate::client::target;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Kind, Matches};
use crate::json::Json;
use crate::reference::split_tag;
use crate::session::{Session, line_out};

/// `commit`.
pub(super) const COMMIT: Command = Command {
    flags: &[&[
        Flag::text("author", "Author of the image").short('a'),
        Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
        Flag::text("message", "Message of the image's history").short('m'),
        Flag::new("pause", Kind::Switch(true), "", "Pause the container meanwhile").short('p'),
    ]],
    also: &["container commit", "commit"],
    examples: &[("", "commit -m 'with my settings' web mynginx:1")],
    ..Command::new(
        "commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create a new image from a container's changes",
        Arity::Between(1, 2),
        |session, matches| Box::pin(commit(session, matches)),
    )
};

async fn commit(session: Session, matches: Matches) -> Outcome {
    let (repository, tag) = match matches.args.get(1) {
        Some(name) => match split_tag(name) {
            (repository, None) => (repository, "latest"),
            (repository, Some(tag)) => (repository, tag),
        },
        None => ("", ""),
    };
    let pause = if matches.on_or("pause", true) { "" } else { "0" };
    let mut query = vec![
        ("container", matches.args[0].as_str()),
        ("repo", repository),
        ("tag", tag),
        ("comment", matches.text_or_empty("message")),
        ("author", matches.text_or_empty("author")),
        ("pause", pause),
    ];
    query.extend(matches.list("change").into_iter().map(|change| ("changes", change)));
    let image = session.client.post(&target("/commit", &query), Value::Null).await?;
    line_out(image.text("Id"))?;
    Ok(0)
}

//! `rm`.

use std::cell::Cell;

use super::create::container_path;
use super::each::each;
use crate::client::target;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::session::Session;

/// `rm`.
pub(super) const RM: Command = Command {
    aliases: &["remove"],
    flags: &[&[
        Flag::switch("force", "Kill it first if it runs").short('f'),
        Flag::switch("link", "Remove the link only").short('l'),
        Flag::switch("volumes", "Remove its anonymous volumes too").short('v'),
    ]],
    also: &["container rm", "container remove", "rm"],
    examples: &[("Remove every container, running or not", "rm -f $(portolan ps -aq)")],
    ..Command::new(
        "rm",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Remove one or more containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(rm(session, matches)),
    )
};

async fn rm(session: Session, matches: Matches) -> Outcome {
    let on = |flag: &str| if matches.on(flag) { "1" } else { "" };
    let query = [("force", on("force")), ("link", on("link")), ("v", on("volumes"))];
    let client = &*session.client;
    let failed = Cell::new(false);
    let status = each(&matches.args, async |name: &str| {
        let name = name.trim_matches('/');
        match client.delete(&target(&container_path(name, ""), &query)).await {
            Ok(_) => Ok(name.to_owned()),
            Err(why) => {
                // With --force a container that is not there is told but is no failure.
                failed.set(failed.get() || !(matches.on("force") && why.is_not_found()));
                Err(why.into())
            }
        }
    })
    .await?;
    Ok(if failed.get() { status } else { 0 })
}

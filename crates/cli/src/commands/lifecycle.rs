//! `stop`, `restart`, `kill`, `pause`, `unpause`, `wait` and `rename`.

use super::create::post_container;
use super::each::each;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::Session;

const STOP_FLAGS: &[Flag] = &[
    Flag::text("signal", "Signal to send").short('s'),
    Flag::int("timeout", "Seconds to wait before killing").short('t').aliases(&["time"]),
];

/// `stop`.
pub(super) const STOP: Command = Command {
    flags: &[STOP_FLAGS],
    also: &["container stop", "stop"],
    examples: &[("Give it 30 seconds to end", "stop -t 30 web")],
    ..Command::new(
        "stop",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop one or more running containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(stop(session, matches, "/stop")),
    )
};

/// `restart`.
pub(super) const RESTART: Command = Command {
    flags: &[STOP_FLAGS],
    also: &["container restart", "restart"],
    examples: &[("", "restart web")],
    ..Command::new(
        "restart",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Restart one or more containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(stop(session, matches, "/restart")),
    )
};

/// `kill`.
pub(super) const KILL: Command = Command {
    flags: &[&[Flag::text("signal", "Signal to send").short('s')]],
    also: &["container kill", "kill"],
    examples: &[("Have nginx read its configuration again", "kill -s HUP web")],
    ..Command::new(
        "kill",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Kill one or more running containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(kill(session, matches)),
    )
};

/// `pause`.
pub(super) const PAUSE: Command = Command {
    also: &["container pause", "pause"],
    ..Command::new(
        "pause",
        "CONTAINER [CONTAINER...]",
        "Pause all processes within one or more containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(simple(session, matches, "/pause")),
    )
};

/// `unpause`.
pub(super) const UNPAUSE: Command = Command {
    also: &["container unpause", "unpause"],
    ..Command::new(
        "unpause",
        "CONTAINER [CONTAINER...]",
        "Unpause all processes within one or more containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(simple(session, matches, "/unpause")),
    )
};

/// `wait`.
pub(super) const WAIT: Command = Command {
    also: &["container wait", "wait"],
    examples: &[("Print the exit status of a container when it ends", "wait job")],
    ..Command::new(
        "wait",
        "CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes",
        Arity::AtLeast(1),
        |session, matches| Box::pin(wait(session, matches)),
    )
};

/// `rename`.
pub(super) const RENAME: Command = Command {
    also: &["container rename", "rename"],
    ..Command::new(
        "rename",
        "CONTAINER NEW_NAME",
        "Rename a container",
        Arity::Exactly(2),
        |session, matches| Box::pin(rename(session, matches)),
    )
};

async fn stop(session: Session, matches: Matches, rest: &str) -> Outcome {
    let signal = matches.text_or_empty("signal");
    let timeout = matches.text_or_empty("timeout");
    let session = &session;
    each(&matches.args, async |name: &str| {
        post_container(session, name, rest, &[("signal", signal), ("t", timeout)]).await?;
        Ok(name.to_owned())
    })
    .await
}

async fn kill(session: Session, matches: Matches) -> Outcome {
    let signal = matches.text_or_empty("signal");
    let session = &session;
    each(&matches.args, async |name: &str| {
        post_container(session, name, "/kill", &[("signal", signal)]).await?;
        Ok(name.to_owned())
    })
    .await
}

async fn simple(session: Session, matches: Matches, rest: &str) -> Outcome {
    let session = &session;
    each(&matches.args, async |name: &str| {
        post_container(session, name, rest, &[]).await?;
        Ok(name.to_owned())
    })
    .await
}

async fn wait(session: Session, matches: Matches) -> Outcome {
    let session = &session;
    each(&matches.args, async |name: &str| {
        let answer = post_container(session, name, "/wait", &[]).await?;
        match answer.at(&["Error", "Message"]).as_str() {
            Some(message) if !message.is_empty() => Err(Failure::new(message)),
            _ => Ok(answer.int("StatusCode").to_string()),
        }
    })
    .await
}

async fn rename(session: Session, matches: Matches) -> Outcome {
    let (old, new) = (matches.args[0].trim(), matches.args[1].trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    match post_container(&session, old, "/rename", &[("name", new)]).await {
        Ok(_) => Ok(0),
        Err(why @ crate::client::ClientError::Api { .. }) => {
            Err(Failure::new(format!("{why}\nError: failed to rename container named {old}")))
        }
        Err(why) => Err(why.into()),
    }
}

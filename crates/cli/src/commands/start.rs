//! `start`, with or without attaching.

use serde_json::Value;

use super::create::{container_path, post_container};
use super::follow::{Finish, Follow, wait};
use super::run::{attach, check_terminal, detach_keys};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Matches};
use crate::json::Json;
use crate::session::{Session, line_err, line_out};
use crate::terminal::{self, Attached, Signals, Sink, Streams, resize_to_terminal};

/// `start`.
pub(super) const START: Command = Command {
    flags: &[&[
        Flag::switch("attach", "Show the output and pass signals on").short('a'),
        Flag::text("checkpoint", "").refused("checkpoints are not available"),
        Flag::text("checkpoint-dir", "").refused("checkpoints are not available"),
        Flag::text("detach-keys", "Key sequence that detaches"),
        Flag::switch("interactive", "Send our standard input").short('i'),
        Flag::new("sig-proxy", Kind::Switch(true), "", "Pass our signals on to the process").hidden(),
    ]],
    also: &["container start", "start"],
    examples: &[("Start a shell again and use it", "start -ai mybox")],
    ..Command::new(
        "start",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start one or more stopped containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(start(session, matches)),
    )
};

async fn start(session: Session, matches: Matches) -> Outcome {
    if matches.on("attach") || matches.on("interactive") {
        if matches.args.len() > 1 {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        }
        return start_attached(&session, &matches, &matches.args[0]).await;
    }
    let mut failed = Vec::new();
    for name in &matches.args {
        match post_container(&session, name, "/start", &[]).await {
            Ok(_) => line_out(name)?,
            Err(why) => {
                line_err(&why.to_string());
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}

async fn start_attached(session: &Session, matches: &Matches, name: &str) -> Outcome {
    let client = &*session.client;
    let container = client.get(&container_path(name, "/json")).await?;
    let id = container.text("Id");
    let config = container.get_or_null("Config");
    let tty = config.on("Tty");
    let shown = matches.on("attach");
    let streams = Streams {
        stdin: matches.on("interactive") && config.on("OpenStdin"),
        sink: Sink { stdout: shown, stderr: shown },
        tty,
        detach_keys: detach_keys(session, matches)?,
    };
    check_terminal(streams.stdin, tty)?;
    let sizes = tty && terminal::stdout_is_terminal();
    let signals = Signals::watch(matches.on_or("sig-proxy", true) && !tty, sizes)?;
    let rm = container.at(&["HostConfig"]).on("AutoRemove");
    let condition = if rm { "removed" } else { "next-exit" };
    let (duplex, status) = tokio::try_join!(
        attach(client, id, &streams, session.detach_keys(matches), false),
        wait(client, id, condition)
    )?;
    let attached = Attached::join(duplex, &streams).await?;
    let path = container_path(id, "/start");
    if let Err(why) = client.post(&path, Value::Null).await {
        drop(attached);
        if rm {
            let _ = status.await;
        }
        return Err(why.into());
    }
    let what = format!("/containers/{id}");
    if sizes {
        resize_to_terminal(client, &what).await;
    }
    let follow = Follow { client, what, attached, signals, shows_output: shown };
    match follow.until(status).await? {
        Finish::Exited(code) => Ok(code),
        Finish::Detached => Ok(0),
    }
}

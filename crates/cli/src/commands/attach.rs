//! `attach`.

use super::create::container_path;
use super::follow::{Finish, Follow, wait};
use super::run::{attach as open, check_terminal, detach_keys};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Matches};
use crate::json::Json;
use crate::session::Session;
use crate::terminal::{self, Attached, Signals, Sink, Streams, resize_by, resize_to_terminal};

/// `attach`.
pub(super) const ATTACH: Command = Command {
    flags: &[&[
        Flag::text("detach-keys", "Key sequence that detaches"),
        Flag::switch("no-stdin", "Do not send our standard input"),
        Flag::new("sig-proxy", Kind::Switch(true), "", "Pass our signals on to the process"),
    ]],
    also: &["container attach", "attach"],
    examples: &[("Leave again with Ctrl-P Ctrl-Q", "attach mybox")],
    ..Command::new(
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        Arity::Exactly(1),
        |session, matches| Box::pin(attach(session, matches)),
    )
};

async fn attach(session: Session, matches: Matches) -> Outcome {
    let client = &*session.client;
    let container = client.get(&container_path(&matches.args[0], "/json")).await?;
    let state = container.get_or_null("State");
    if !state.on("Running") {
        return Err(Failure::new("You cannot attach to a stopped container, start it first"));
    }
    if state.on("Paused") {
        return Err(Failure::new("You cannot attach to a paused container, unpause it first"));
    }
    if state.on("Restarting") {
        return Err(Failure::new("You cannot attach to a restarting container, wait until it is running"));
    }
    let config = container.get_or_null("Config");
    let tty = config.on("Tty");
    let streams = Streams {
        stdin: !matches.on("no-stdin") && config.on("OpenStdin"),
        sink: Sink { stdout: true, stderr: true },
        tty,
        detach_keys: detach_keys(&session, &matches)?,
    };
    check_terminal(!matches.on("no-stdin"), tty)?;
    let id = container.text("Id");
    let sizes = tty && terminal::stdout_is_terminal();
    let signals = Signals::watch(matches.on_or("sig-proxy", true) && !tty, sizes)?;
    let (duplex, status) = tokio::try_join!(
        open(client, id, &streams, session.detach_keys(&matches), false),
        wait(client, id, "")
    )?;
    let attached = Attached::join(duplex, &streams).await?;
    let what = format!("/containers/{id}");
    if sizes {
        // Only a change of size makes a shell that waits show its prompt again.
        resize_by(client, &what, 1).await;
        resize_to_terminal(client, &what).await;
    }
    let follow = Follow { client, what, attached, signals, shows_output: true };
    match follow.until(status).await? {
        Finish::Exited(code) => Ok(code),
        Finish::Detached => Ok(0),
    }
}

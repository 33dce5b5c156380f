//! `exec`.

use portolan_api::{ExecConfig, ExecStart, StrSlice};
use serde_json::Value;

use super::create::container_path;
use super::follow::{Finish, Follow, exit_status};
use super::run::{check_terminal, detach_keys};
use crate::command::{Arity, Command};
use crate::create::env;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::Session;
use crate::terminal::{self, Attached, Signals, Sink, Streams, resize_to_terminal};

/// `exec`.
pub(super) const EXEC: Command = Command {
    flags: &[&[
        Flag::switch("detach", "Run in the background").short('d'),
        Flag::text("detach-keys", "Key sequence that detaches"),
        Flag::list("env", "Set an environment variable").short('e').checked(env::check_env),
        Flag::list("env-file", "Read environment variables from a file"),
        Flag::switch("interactive", "Keep stdin open even if not attached").short('i'),
        Flag::switch("privileged", "Give the command full access to the host"),
        Flag::switch("tty", "Give the command a terminal").short('t'),
        Flag::text("user", "User and group to run as (name|uid[:group|gid])").short('u'),
        Flag::text("workdir", "Working directory").short('w'),
    ]],
    stop_at_word: true,
    also: &["container exec", "exec"],
    examples: &[
        ("A shell in a running container", "exec -it web sh"),
        ("One command, its exit status is ours", "exec web cat /etc/hosts"),
    ],
    ..Command::new(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        Arity::AtLeast(2),
        |session, matches| Box::pin(exec(session, matches)),
    )
};

async fn exec(session: Session, matches: Matches) -> Outcome {
    let detach = matches.on("detach");
    let tty = matches.on("tty");
    let streams = Streams {
        stdin: !detach && matches.on("interactive"),
        sink: Sink { stdout: !detach, stderr: !detach },
        tty,
        detach_keys: detach_keys(&session, &matches)?,
    };
    if let Err(why) = check_terminal(streams.stdin, tty) {
        // A container that is not there is the more important news.
        session.client.get(&container_path(&matches.args[0], "/json")).await?;
        return Err(why);
    }
    let console_size = terminal::size().filter(|_| tty).map(|(height, width)| [height, width]);
    let id = create(&session, &matches, &streams, console_size).await?;
    let body = ExecStart { detach, tty, console_size };
    let body = to_json(&body)?;
    let what = format!("/exec/{id}");
    let path = format!("{what}/start");
    let client = &*session.client;
    if detach {
        client.post(&path, body).await?;
        return Ok(0);
    }
    let sizes = tty && terminal::stdout_is_terminal();
    let signals = Signals::watch(false, sizes)?;
    let duplex = client.hijack(&path, body).await?;
    let attached = Attached::join(duplex, &streams).await?;
    if sizes {
        resize_to_terminal(client, &what).await;
    }
    let follow = Follow { client, what: what.clone(), attached, signals, shows_output: true };
    // An exec's end shows in its output; its exit code is asked for afterwards.
    match follow.until(async { Ok(0) }).await? {
        Finish::Detached => return Ok(0),
        Finish::Exited(_) => {}
    }
    let ended = client.get(&format!("{what}/json")).await?;
    Ok(exit_status(ended.int("ExitCode")))
}

async fn create(
    session: &Session,
    matches: &Matches,
    streams: &Streams,
    console_size: Option<[u16; 2]>,
) -> Result<String, Failure> {
    let config = ExecConfig {
        user: matches.text_or_empty("user").to_owned(),
        privileged: matches.on("privileged"),
        tty: streams.tty,
        console_size,
        attach_stdin: streams.stdin,
        attach_stderr: streams.sink.stderr,
        attach_stdout: streams.sink.stdout,
        detach_keys: session.detach_keys(matches).to_owned(),
        env: Some(env::variables(&matches.list("env-file"), &matches.list("env"))?),
        working_dir: matches.text_or_empty("workdir").to_owned(),
        cmd: Some(StrSlice(matches.args[1..].to_vec())),
        detach: matches.on("detach"),
    };
    let path = container_path(&matches.args[0], "/exec");
    let created = session.client.post(&path, to_json(&config)?).await?;
    match created.text("Id") {
        "" => Err(Failure::new("exec ID empty")),
        id => Ok(id.to_owned()),
    }
}

/// A request's body.
pub(super) fn to_json(body: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(body).map_err(|why| Failure::new(format!("cannot write the request: {why}")))
}

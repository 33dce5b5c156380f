//! `run`: create, attach, wait, start; then follow until the container is over.

use serde_json::Value;

use super::create::{make, post_container, request_of};
use super::follow::{Finish, Follow, wait};
use crate::client::{Client, ClientError, Duplex, target};
use crate::command::{Arity, Command};
use crate::create::{CREATE, LIMITS};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Matches};
use crate::session::{Session, line_out};
use crate::terminal::{self, Attached, Signals, Sink, Streams, parse_detach_keys, resize_to_terminal};

const RUN_FLAGS: &[Flag] = &[
    Flag::switch("detach", "Run in the background and print the container ID").short('d'),
    Flag::text("detach-keys", "Key sequence that detaches"),
    Flag::new("sig-proxy", Kind::Switch(true), "", "Pass our signals on to the process"),
];

/// `run`.
pub(super) const RUN: Command = Command {
    flags: &[CREATE, LIMITS, RUN_FLAGS],
    stop_at_word: true,
    also: &["container run", "run"],
    examples: &[
        ("A shell that is gone when you leave it", "run --rm -it busybox sh"),
        ("A web server on port 8080 of this host", "run -d --name web -p 8080:80 nginx"),
        ("Two containers that know each other by name", "network create mynet"),
        ("", "run -d --name db --network mynet busybox top"),
        ("", "run --rm --network mynet busybox ping -c1 db"),
    ],
    ..Command::new(
        "run",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and run a new container from an image",
        Arity::AtLeast(1),
        |session, matches| Box::pin(run(session, matches)),
    )
};

async fn run(session: Session, matches: Matches) -> Outcome {
    let mut request = request_of(&session, &matches)?;
    let detached = matches.on("detach");
    if detached {
        if matches.has("attach") {
            return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
        }
        request.config.attach_stdin = false;
        request.config.attach_stdout = false;
        request.config.attach_stderr = false;
        request.config.stdin_once = false;
    } else {
        check_terminal(request.config.attach_stdin, request.config.tty)?;
    }
    let keys = detach_keys(&session, &matches)?;
    if let (Some((height, width)), Some(host)) = (terminal::size(), &mut request.host_config) {
        host.console_size = [height, width];
    }
    let config = request.config.clone();
    let rm = matches.on("rm");
    let id = make(&session, &matches, request).await.map_err(|why| start_failure(&session, why))?;

    let streams = Streams {
        stdin: config.attach_stdin,
        sink: Sink { stdout: config.attach_stdout, stderr: config.attach_stderr },
        tty: config.tty,
        detach_keys: keys,
    };
    if !(streams.stdin || streams.sink.stdout || streams.sink.stderr) {
        line_out(&id)?;
        start(&session, &id).await.map_err(|why| start_failure(&session, why.into()))?;
        return Ok(0);
    }
    let start = Start {
        session: &session,
        id: &id,
        streams,
        forward_signals: matches.on_or("sig-proxy", true),
        detach_keys: session.detach_keys(&matches),
        rm,
    };
    start.and_follow().await
}

async fn start(session: &Session, id: &str) -> Result<Value, ClientError> {
    post_container(session, id, "/start", &[]).await
}

/// Refuses to attach a container's terminal to an input that is none.
pub(super) fn check_terminal(attach_stdin: bool, tty: bool) -> Result<(), Failure> {
    if attach_stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    Ok(())
}

/// The key sequence that detaches; none for Docker's own.
pub(super) fn detach_keys(session: &Session, matches: &Matches) -> Result<Option<Vec<u8>>, Failure> {
    match session.detach_keys(matches) {
        "" => Ok(None),
        keys => Ok(Some(parse_detach_keys(keys)?)),
    }
}

/// A failure to create or start: 127 if the program is not there, 126 if it cannot be run, 125 for
/// anything else.
fn start_failure(session: &Session, why: Failure) -> Failure {
    let text = why.text();
    if let Failure::Text { status: 125, .. } = why {
        return why;
    }
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let status = if has(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    };
    Failure::Text { text: session.with_pointer(&text), status }
}

/// Opens a container's streams.
pub(super) async fn attach(
    client: &Client,
    id: &str,
    streams: &Streams,
    detach_keys: &str,
    logs: bool,
) -> Result<Duplex, ClientError> {
    let on = |on: bool| if on { "1" } else { "" };
    let path = target(
        &super::create::container_path(id, "/attach"),
        &[
            ("stream", "1"),
            ("stdin", on(streams.stdin)),
            ("stdout", on(streams.sink.stdout)),
            ("stderr", on(streams.sink.stderr)),
            ("logs", on(logs)),
            ("detachKeys", detach_keys),
        ],
    );
    client.hijack(&path, Value::Null).await
}

/// A container that is made, about to be started with us attached.
struct Start<'s> {
    session: &'s Session,
    id: &'s str,
    streams: Streams,
    forward_signals: bool,
    detach_keys: &'s str,
    rm: bool,
}

impl Start<'_> {
    async fn and_follow(self) -> Outcome {
        let client = &*self.session.client;
        let sizes = self.streams.tty && terminal::stdout_is_terminal();
        let signals = Signals::watch(self.forward_signals, sizes)?;
        let condition = if self.rm { "removed" } else { "next-exit" };
        let (duplex, status) = tokio::try_join!(
            attach(client, self.id, &self.streams, self.detach_keys, false),
            wait(client, self.id, condition)
        )?;
        let attached = Attached::join(duplex, &self.streams).await?;
        if let Err(why) = start(self.session, self.id).await {
            drop(attached);
            if self.rm {
                // The daemon removes what it could not start; when it has, we are done.
                let _ = status.await;
            }
            return Err(start_failure(self.session, why.into()));
        }
        let what = format!("/containers/{}", self.id);
        if sizes {
            resize_to_terminal(client, &what).await;
        }
        let follow = Follow {
            client,
            what,
            attached,
            signals,
            shows_output: self.streams.sink.stdout || self.streams.sink.stderr,
        };
        match follow.until(status).await? {
            Finish::Exited(code) => Ok(code),
            Finish::Detached => Ok(0),
        }
    }
}

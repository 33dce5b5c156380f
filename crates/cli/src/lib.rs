//! The command line `portolan`: Docker's commands, words and output over the Docker Engine API.
//!
//! [`main`] reads the command line by constant tables (`flags`, `command`), runs one command of
//! `commands` on a single-threaded runtime and turns its outcome into an exit status. Nothing here
//! knows the engine: the same program drives a real dockerd.
//!
//! - `client`: HTTP over a unix socket or TCP, streams both ways
//! - `commands`: one file a command
//! - `credentials`: registries' credentials in Docker's `config.json`
//! - `config`, `context`: Docker's `config.json`, and which daemon is meant
//! - `create`: the flags of `run` and `create`, turned into the API's request
//! - `template`: Go templates for `--format`
//! - `table`: columns, and the fields that lists show
//! - `terminal`: raw mode, sizes, detach keys, attached streams

mod client;
mod command;
mod commands;
mod completion;
mod config;
mod context;
mod create;
mod credentials;
mod failure;
mod flags;
mod help;
mod json;
mod progress;
mod reference;
mod session;
mod table;
mod template;
mod terminal;
mod units;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use client::Client;
use command::{Action, Found};
use config::ConfigFile;
use failure::{Failure, Outcome};
use flags::Matches;
use session::{Session, line_err, line_out, write_out};

/// Runs the command line `argv` (the program's name first) and returns its exit status.
///
/// The program shows itself under the name that it was called by, so a symlink named `docker`
/// behaves as Docker's CLI does.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let mut words = argv.into_iter().map(|word| word.to_string_lossy().into_owned());
    let program = words
        .next()
        .as_deref()
        .map(Path::new)
        .and_then(Path::file_name)
        .map_or_else(|| "portolan".to_owned(), |name| name.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    let outcome = run(&program, &words);
    ExitCode::from(report(outcome))
}

/// Prints a failure's text and returns the exit status.
fn report(outcome: Outcome) -> u8 {
    match outcome {
        Ok(status) => status,
        Err(Failure::Text { text, status }) => {
            if !text.is_empty() {
                line_err(&text);
            }
            status
        }
        // What a shell reports of a program that SIGPIPE ended.
        Err(Failure::Io(why)) if why.kind() == io::ErrorKind::BrokenPipe => 141,
        Err(other) => {
            line_err(&other.text());
            1
        }
    }
}

/// The client's configuration; a file that is no JSON is told, and nothing of it is followed.
fn configuration(global: &Matches) -> ConfigFile {
    let path = ConfigFile::locate(global.text("config"));
    ConfigFile::read(path.clone()).unwrap_or_else(|why| {
        line_err(&format!("WARNING: {}", why.text()));
        ConfigFile::empty(path)
    })
}

fn session(program: &str, global: &Matches, found: &Found) -> Result<Session, Failure> {
    let config = configuration(global);
    let chosen = context::choose(global, &config, |name| std::env::var(name).ok())?;
    let version = std::env::var("DOCKER_API_VERSION").ok();
    let client = Client::new(chosen.host, version.as_deref(), debug(global)?, config.headers()?);
    Ok(Session {
        program: program.into(),
        path: found.path.as_str().into(),
        client: Rc::new(client),
        context: chosen.context.into(),
        config: Rc::new(config),
    })
}

/// Whether `--debug` or `--log-level` asks for every request to be told.
fn debug(global: &Matches) -> Result<bool, Failure> {
    match global.text("log-level") {
        None | Some("info" | "warn" | "error" | "fatal") => Ok(global.on("debug")),
        Some("debug") => Ok(true),
        Some(other) => Err(Failure::new(format!("unable to parse logging level: {other}"))),
    }
}

fn run(program: &str, words: &[String]) -> Outcome {
    if let Some((ask, words)) = words.split_first()
        && ask == completion::ASK
    {
        let Some((global, found, rest)) = completion::read(words) else { return Ok(0) };
        let session = session(program, &global, &found)?;
        return on_runtime(Box::pin(async move { completion::complete(&session, &found, &rest).await }));
    }
    let root = Found { command: &commands::ROOT, path: String::new() };
    let global = Matches::parse(root.command.flags, words, true).map_err(|why| {
        let mut text = help::flag_mistake(program, &root, &why);
        text = text.replace(" COMMAND\n", " COMMAND [ARG...]\n");
        Failure::Text { text, status: 125 }
    })?;
    if global.on("version") {
        line_out(&commands::version_line(program))?;
        return Ok(0);
    }
    if global.help {
        write_out(&help::text(program, &root))?;
        return Ok(0);
    }
    let asks_help = global.args.first().is_some_and(|word| word == "help");
    let words = &global.args[usize::from(asks_help)..];
    let (found, rest) = command::find(root.command, words);
    if asks_help {
        if !found.command.children().is_empty()
            && let Some(word) = rest.first()
        {
            let topic = if found.path.is_empty() { word.clone() } else { format!("{} {word}", found.path) };
            return Err(Failure::new(format!("unknown help topic: {topic}")));
        }
        write_out(&help::text(program, &found))?;
        return Ok(0);
    }
    dispatch(program, &global, &found, &rest)
}

fn dispatch(program: &str, global: &Matches, found: &Found, rest: &[String]) -> Outcome {
    let command = found.command;
    match command.action {
        Action::Unsupported(instead) => {
            Err(Failure::new(format!("{program}: '{program} {}' is not supported: {instead}", found.path)))
        }
        Action::Group(_) => group(program, found, rest),
        Action::Run(action) => {
            let matches = Matches::parse(command.flags, rest, command.stop_at_word).map_err(|why| {
                Failure::Text { text: help::flag_mistake(program, found, &why), status: 125 }
            })?;
            if matches.help {
                write_out(&help::text(program, found))?;
                return Ok(0);
            }
            command::check_arity(program, found, matches.args.len())?;
            let session = session(program, global, found)?;
            on_runtime(action(session, matches))
        }
    }
}

fn group(program: &str, found: &Found, rest: &[String]) -> Outcome {
    let matches = Matches::parse(&[], rest, true)
        .map_err(|why| Failure::Text { text: help::flag_mistake(program, found, &why), status: 125 })?;
    match matches.args.first() {
        Some(word) if found.path.is_empty() => Err(Failure::new(format!(
            "{program}: unknown command: {program} {word}\n\n{}",
            help::more_line(program, "", "Run")
        ))),
        Some(word) => Err(Failure::new(format!(
            "{program}: unknown command: {program} {path} {word}\n\nUsage:  {program} {path}\n\n{}",
            help::more_line(program, &found.path, "Run"),
            path = found.path,
        ))),
        None => {
            if matches.help {
                write_out(&help::text(program, found))?;
            } else {
                line_err(help::text(program, found).trim_end());
            }
            Ok(0)
        }
    }
}

/// Runs a command to its end. Threads that still wait for standard input do not hold the exit up.
fn on_runtime(running: command::Running) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let outcome = runtime.block_on(running);
    runtime.shutdown_background();
    outcome
}

//! What a command is, and how a command line finds its command.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::help;
use crate::session::Session;

/// A command's future; everything runs on one thread.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// How many words a command takes besides its flags.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arity {
    /// Exactly so many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
    /// At most so many.
    AtMost(usize),
    /// From the first to the second number.
    Between(usize, usize),
}

/// What a command does.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// Runs.
    Run(fn(Session, Matches) -> Running),
    /// Has only commands below it.
    Group(&'static [&'static Command]),
    /// Docker has it and we do not; the text says what to use instead.
    Unsupported(&'static str),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Run(_) => "Run",
            Action::Group(_) => "Group",
            Action::Unsupported(_) => "Unsupported",
        })
    }
}

/// One command of the command line.
#[derive(Debug)]
pub(crate) struct Command {
    /// Its name under its parent.
    pub(crate) name: &'static str,
    /// Other names under its parent.
    pub(crate) aliases: &'static [&'static str],
    /// All full names of the same command, shown by `--help`; empty if there is one.
    pub(crate) also: &'static [&'static str],
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    /// One line about it.
    pub(crate) about: &'static str,
    /// Its flags, in tables that commands can share.
    pub(crate) flags: &'static [&'static [Flag]],
    /// How many words it takes.
    pub(crate) arity: Arity,
    /// Whether the first word that is not a flag ends the flags.
    pub(crate) stop_at_word: bool,
    /// Examples: what it does, and the words after the program's name.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    /// What it does.
    pub(crate) action: Action,
}

impl Command {
    /// A command that runs; the other fields are set with struct update.
    pub(crate) const fn new(
        name: &'static str,
        usage: &'static str,
        about: &'static str,
        arity: Arity,
        run: fn(Session, Matches) -> Running,
    ) -> Command {
        Command {
            name,
            aliases: &[],
            also: &[],
            usage,
            about,
            flags: &[],
            arity,
            stop_at_word: false,
            examples: &[],
            action: Action::Run(run),
        }
    }

    /// A command with commands below it.
    pub(crate) const fn group(
        name: &'static str,
        about: &'static str,
        commands: &'static [&'static Command],
    ) -> Command {
        Command {
            name,
            aliases: &[],
            also: &[],
            usage: "COMMAND",
            about,
            flags: &[],
            arity: Arity::AtLeast(0),
            stop_at_word: true,
            examples: &[],
            action: Action::Group(commands),
        }
    }

    /// A command of Docker's that we do not have.
    pub(crate) const fn unsupported(name: &'static str, instead: &'static str) -> Command {
        Command {
            name,
            aliases: &[],
            also: &[],
            usage: "",
            about: "",
            flags: &[],
            arity: Arity::AtLeast(0),
            stop_at_word: true,
            examples: &[],
            action: Action::Unsupported(instead),
        }
    }

    /// The commands below it.
    pub(crate) fn children(&self) -> &'static [&'static Command] {
        match self.action {
            Action::Group(commands) => commands,
            Action::Run(_) | Action::Unsupported(_) => &[],
        }
    }

    fn child(&self, name: &str) -> Option<&'static Command> {
        self.children()
            .iter()
            .copied()
            .find(|command| command.name == name || command.aliases.contains(&name))
    }

    /// Whether it is shown in lists of commands.
    pub(crate) fn visible(&self) -> bool {
        !matches!(self.action, Action::Unsupported(_))
    }
}

/// A command found by the words that lead to it.
#[derive(Debug)]
pub(crate) struct Found {
    /// The command.
    pub(crate) command: &'static Command,
    /// The words that name it after the program's name, such as `network create`.
    pub(crate) path: String,
}

/// Walks the words down from `root`; returns the command and the words that it gets.
pub(crate) fn find(root: &'static Command, words: &[String]) -> (Found, Vec<String>) {
    let mut found = Found { command: root, path: String::new() };
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let Some(child) = found.command.child(word) else {
            break;
        };
        if !found.path.is_empty() {
            found.path.push(' ');
        }
        found.path.push_str(child.name);
        found.command = child;
        rest = after;
    }
    (found, rest.to_vec())
}

/// Checks the number of words.
///
/// # Errors
/// Docker's text with the usage line.
pub(crate) fn check_arity(program: &str, found: &Found, given: usize) -> Result<(), Failure> {
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    let needs = match found.command.arity {
        Arity::Exactly(0) | Arity::AtMost(0) if given > 0 => {
            return Err(Failure::new(help::mistake(
                program,
                found,
                &format!("'{program} {}' accepts no arguments", found.path),
                "Run",
            )));
        }
        Arity::Exactly(count) if given != count => format!("requires {count} {}", plural(count)),
        Arity::AtLeast(count) if given < count => {
            format!("requires at least {count} {}", plural(count))
        }
        Arity::AtMost(count) if given > count => {
            format!("requires at most {count} {}", plural(count))
        }
        Arity::Between(low, high) if given < low || given > high => {
            format!("requires at least {low} and at most {high} {}", plural(high))
        }
        _ => return Ok(()),
    };
    let verb = match found.command.arity {
        Arity::AtLeast(_) => "See",
        _ => "Run",
    };
    Err(Failure::new(help::mistake(program, found, &format!("'{program} {}' {needs}", found.path), verb)))
}

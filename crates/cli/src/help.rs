//! `--help` and the usage lines of error texts, written from the command tables.

use crate::command::{Action, Command, Found};
use crate::flags::{Flag, Kind};

/// The line `Usage:  docker run [OPTIONS] IMAGE ...`.
pub(crate) fn usage_line(program: &str, found: &Found) -> String {
    let mut line = format!("Usage:  {program}");
    for part in [found.path.as_str(), found.command.usage] {
        if !part.is_empty() {
            line.push(' ');
            line.push_str(&part.replace("{program}", program));
        }
    }
    line
}

/// The line that says where to read more.
pub(crate) fn more_line(program: &str, path: &str, verb: &str) -> String {
    if path.is_empty() {
        format!("{verb} '{program} --help' for more information")
    } else {
        format!("{verb} '{program} {path} --help' for more information")
    }
}

/// A mistake in the words given: `docker: TEXT`, the usage line and where to read more.
pub(crate) fn mistake(program: &str, found: &Found, text: &str, verb: &str) -> String {
    format!(
        "{program}: {text}\n\n{}\n\n{}",
        usage_line(program, found),
        more_line(program, &found.path, verb)
    )
}

/// A mistake in the flags given: TEXT, the usage line and where to read more.
pub(crate) fn flag_mistake(program: &str, found: &Found, text: &str) -> String {
    format!("{text}\n\n{}\n\n{}", usage_line(program, found), more_line(program, &found.path, "Run"))
}

/// The whole `--help` text of a command.
pub(crate) fn text(program: &str, found: &Found) -> String {
    let command = found.command;
    let mut out = usage_line(program, found);
    out.push_str("\n\n");
    out.push_str(command.about);
    out.push('\n');
    if !command.also.is_empty() {
        let names: Vec<String> = command.also.iter().map(|name| format!("{program} {name}")).collect();
        out.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    if let Action::Group(commands) = command.action {
        out.push_str("\nCommands:\n");
        out.push_str(&command_list(commands));
    }
    let options = options(command);
    if !options.is_empty() {
        let title = if found.path.is_empty() { "Global Options" } else { "Options" };
        out.push_str(&format!("\n{title}:\n{options}"));
    }
    if !command.examples.is_empty() {
        out.push_str("\nExamples:\n");
        for (what, words) in command.examples {
            if !what.is_empty() {
                out.push_str(&format!("  # {what}\n"));
            }
            out.push_str(&format!("  {program} {words}\n"));
        }
    }
    if matches!(command.action, Action::Group(_)) {
        let path = if found.path.is_empty() { String::new() } else { format!("{} ", found.path) };
        out.push_str(&format!("\nRun '{program} {path}COMMAND --help' for more information on a command.\n"));
    }
    out
}

fn command_list(commands: &[&Command]) -> String {
    let mut visible: Vec<_> = commands.iter().filter(|command| command.visible()).collect();
    visible.sort_by_key(|command| command.name);
    let width = visible.iter().map(|command| command.name.len()).max().unwrap_or(0);
    visible.iter().map(|command| format!("  {:width$}   {}\n", command.name, command.about)).collect()
}

fn options(command: &Command) -> String {
    let mut flags: Vec<&Flag> =
        command.flags.iter().flat_map(|table| table.iter()).filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.long);
    let names: Vec<String> = flags.iter().map(|flag| name_column(flag)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    flags
        .iter()
        .zip(&names)
        .map(|(flag, name)| {
            let default = match flag.kind {
                Kind::Switch(true) => " (default true)",
                _ => "",
            };
            format!("{name:width$}   {}{default}\n", flag.help)
        })
        .collect()
}

fn name_column(flag: &Flag) -> String {
    let letter = match flag.short {
        Some(letter) => format!("  -{letter}, "),
        None => "      ".to_owned(),
    };
    let value = match flag.value {
        "" => String::new(),
        value => format!(" {value}"),
    };
    format!("{letter}--{}{value}", flag.long)
}

//! `completion`: scripts for shells, generated from the command tables.

use std::io;

use clap_complete::Shell;

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Kind, Matches};
use crate::session::{Session, write_bytes};

/// `completion`.
pub(crate) const COMPLETION: Command = Command {
    examples: &[
        ("For this shell", "completion bash > /etc/bash_completion.d/portolan"),
        ("", "completion zsh > ~/.zsh/completions/_portolan"),
        ("", "completion fish > ~/.config/fish/completions/portolan.fish"),
    ],
    ..Command::new(
        "completion",
        "bash|zsh|fish",
        "Generate the autocompletion script for the specified shell",
        Arity::Exactly(1),
        |session, matches| Box::pin(completion(session, matches)),
    )
};

async fn completion(session: Session, matches: Matches) -> Outcome {
    let shell = match matches.args[0].as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        other => {
            return Err(Failure::new(format!(
                "there is no completion for {other:?}: must be one of bash, zsh or fish"
            )));
        }
    };
    let script = script(shell, &session.program)?;
    write_bytes(&script)?;
    Ok(0)
}

fn script(shell: Shell, program: &str) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut root = clap_command(&crate::commands::ROOT);
    clap_complete::generate(shell, &mut root, program, &mut out);
    Ok(out)
}

/// The command as clap describes it; only completion needs that, so nothing else pays for it.
fn clap_command(command: &'static Command) -> clap::Command {
    let mut out = clap::Command::new(command.name)
        .about(command.about)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .visible_aliases(command.aliases.iter().copied());
    for flag in command.flags.iter().flat_map(|table| table.iter()) {
        if flag.hidden {
            continue;
        }
        let mut arg = clap::Arg::new(flag.long).long(flag.long).help(flag.help);
        if let Some(letter) = flag.short {
            arg = arg.short(letter);
        }
        arg = match flag.kind {
            Kind::Switch(_) => arg.action(clap::ArgAction::SetTrue),
            _ => arg.action(clap::ArgAction::Append),
        };
        out = out.arg(arg);
    }
    for child in command.children() {
        if child.visible() {
            out = out.subcommand(clap_command(child));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_the_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell, "portolan").unwrap()).unwrap();
            assert!(script.contains("network-alias"), "{shell}");
            assert!(script.contains("disconnect"), "{shell}");
        }
    }
}

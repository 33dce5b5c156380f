//! `completion`: scripts for shells, which ask this program what may follow.
//!
//! The scripts hold no words of their own: they call the hidden `__complete` with the words up to the cursor, so
//! that names of containers, images, networks and volumes are the daemon's, and flags are those of this version.

use crate::client::Client;
use crate::command::{self, Arity, Command, Found};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::reference::familiar;
use crate::session::{Session, write_out};

/// The hidden command that the scripts call.
pub(crate) const ASK: &str = "__complete";
/// The line that stands for "names of files".
const FILES: &str = ":files";

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

const BASH: &str = r#"# bash completion for PROGRAM
_PROGRAM() {
    local line=${COMP_LINE:0:COMP_POINT} words cur out
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[${#words[@]} - 1]}
    out=$("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    COMPREPLY=()
    if [[ $out == :files ]]; then
        compopt -o default 2>/dev/null
    elif [[ -n $out ]]; then
        mapfile -t COMPREPLY <<<"$out"
        # Readline has cut the word at ':' and '='.
        COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*[:=]}"}"}")
    fi
}
complete -F _PROGRAM PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
# zsh completion for PROGRAM
_PROGRAM() {
    local -a out
    out=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ "$out" == :files ]]; then
        _files
    elif [[ -n "$out" ]]; then
        compadd -- "${out[@]}"
    fi
}
if [[ "${funcstack[1]}" == _PROGRAM ]]; then
    _PROGRAM
else
    compdef _PROGRAM PROGRAM
fi
"#;

const FISH: &str = r#"# fish completion for PROGRAM
function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l out ($words[1] __complete $words[2..-1] "$cur" 2>/dev/null)
    if test "$out" = :files
        __fish_complete_path "$cur"
    else
        printf '%s\n' $out
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"#;

async fn completion(session: Session, matches: Matches) -> Outcome {
    let script = match matches.args[0].as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        other => {
            return Err(Failure::new(format!(
                "there is no completion for {other:?}: must be one of bash, zsh or fish"
            )));
        }
    };
    write_out(&script.replace("PROGRAM", &session.program))?;
    Ok(0)
}

/// What can stand at the cursor.
#[derive(Debug, PartialEq)]
enum What {
    Words(Vec<String>),
    Containers {
        running: bool,
    },
    Images,
    Networks,
    Volumes,
    /// Objects of any kind.
    Anything,
    Files,
}

/// Prints what may follow `words`, the last of which is being typed; nothing if that is not known.
pub(crate) async fn complete(session: &Session, found: &Found, rest: &[String]) -> Outcome {
    let Some((typed, before)) = rest.split_last() else { return Ok(0) };
    let (flag, typed) = match typed.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => (Some(flag), value),
        _ => (None, typed.as_str()),
    };
    let prefix = flag.map(|flag| format!("{flag}=")).unwrap_or_default();
    let mut all = Vec::new();
    for what in expected(found, before, flag, typed) {
        match what {
            What::Files => all.push(FILES.to_owned()),
            What::Words(words) => all.extend(words),
            what => all.extend(names(&session.client, &what).await),
        }
    }
    all.retain(|word| word == FILES || word.starts_with(typed));
    if all.len() > 1 {
        all.retain(|word| word != FILES);
    }
    all.sort();
    all.dedup();
    let lines = all.iter().map(|word| match word.as_str() {
        FILES => format!("{FILES}\n"),
        word => format!("{prefix}{word}\n"),
    });
    write_out(&lines.collect::<String>())?;
    Ok(0)
}

/// What is expected after the words `before` of a command; `flag` if the value of a flag is being typed (`--x=`).
fn expected(found: &Found, before: &[String], flag: Option<&str>, typed: &str) -> Vec<What> {
    let command = found.command;
    if let Some(flag) = flag {
        return flag_named(command, flag).map(value_of).into_iter().collect();
    }
    if let Some((last, earlier)) = before.split_last()
        && let Some(flag) = flag_named(command, last).filter(|flag| !flag.is_switch())
        && Matches::parse(command.flags, earlier, command.stop_at_word)
            .is_ok_and(|matches| !command.stop_at_word || matches.args.is_empty())
    {
        return vec![value_of(flag)];
    }
    let Ok(matches) = Matches::parse(command.flags, before, command.stop_at_word) else { return Vec::new() };
    let may_be_flag = !command.stop_at_word || matches.args.is_empty();
    if typed.starts_with('-') && may_be_flag {
        let flags = command.flags.iter().flat_map(|table| table.iter()).filter(|flag| !flag.hidden);
        return vec![What::Words(flags.map(|flag| format!("--{}", flag.long)).collect())];
    }
    if !command.children().is_empty() {
        let children = command.children().iter().filter(|child| child.visible());
        let names = children.map(|child| child.name.to_owned()).collect();
        return if matches.args.is_empty() { vec![What::Words(names)] } else { Vec::new() };
    }
    positional(command, &matches.args)
}

/// What the usage line calls the word at this place.
fn positional(command: &Command, before: &[String]) -> Vec<What> {
    let mut usage: Vec<&str> = command.usage.split_whitespace().filter(|word| *word != "[OPTIONS]").collect();
    let mut before = before;
    let mut out = Vec::new();
    if let Some(verbs) = usage.first().and_then(|word| verbs(word)) {
        usage.remove(0);
        match before.split_first() {
            Some((first, rest)) if verbs.contains(first) => before = rest,
            Some(_) => {}
            None => out.push(What::Words(verbs)),
        }
    }
    let place = usage.get(before.len()).or(usage.last().filter(|word| word.contains("...")));
    out.extend(place.and_then(|word| object(command, word)));
    out
}

/// The words that a usage line writes out: `[add|rm|move]`, `bash|zsh|fish`.
fn verbs(word: &str) -> Option<Vec<String>> {
    let word = word.trim_start_matches('[').trim_end_matches(']');
    let is_written_out = word.contains('|') && word.chars().all(|c| c.is_ascii_lowercase() || c == '|');
    is_written_out.then(|| word.split('|').map(str::to_owned).collect())
}

fn object(command: &Command, word: &str) -> Option<What> {
    let lives = matches!(
        command.name,
        "attach" | "exec" | "kill" | "pause" | "port" | "stats" | "stop" | "top" | "unpause"
    );
    Some(match word {
        _ if word.contains("CONTAINER") => What::Containers { running: lives },
        _ if word.contains("IMAGE") => What::Images,
        _ if word.contains("NETWORK") => What::Networks,
        _ if word.contains("VOLUME") => What::Volumes,
        _ if word.contains("NAME|ID") => What::Anything,
        _ if word.contains("PORT") || word.contains("TAG") || word.contains("NAME") => return None,
        _ => What::Files,
    })
}

fn flag_named(command: &Command, word: &str) -> Option<&'static Flag> {
    let mut flags = command.flags.iter().flat_map(|table| table.iter());
    match word.strip_prefix("--") {
        Some(long) => flags.find(|flag| flag.named(long)),
        None => {
            let letter = word.strip_prefix('-')?.chars().next_back();
            flags.find(|flag| flag.short.is_some() && flag.short == letter)
        }
    }
}

/// What a flag takes.
fn value_of(flag: &Flag) -> What {
    let words = |words: &[&str]| What::Words(words.iter().map(|word| (*word).to_owned()).collect());
    match flag.long {
        "network" => What::Networks,
        "volumes-from" | "link" => What::Containers { running: false },
        "restart" => words(&["no", "always", "on-failure", "unless-stopped"]),
        "pull" => words(&["always", "missing", "never"]),
        "format" => words(&["json", "table"]),
        "type" => words(&["container", "image", "network", "volume"]),
        "driver" => words(&["bridge", "ipvlan", "macvlan"]),
        "log-level" => words(&["debug", "info", "warn", "error", "fatal"]),
        _ => What::Files,
    }
}

/// The names of objects; none if the daemon does not tell.
async fn names(client: &Client, what: &What) -> Vec<String> {
    let list = async |path: &str| client.get(path).await.unwrap_or_default();
    let mut out = Vec::new();
    if let What::Containers { .. } | What::Anything = what {
        let all = if *what == (What::Containers { running: true }) { "" } else { "?all=1" };
        let found = list(&format!("/containers/json{all}")).await;
        let own = found.as_array().into_iter().flatten().flat_map(|container| container.texts("Names"));
        // Names with a slash inside are links.
        out.extend(
            own.map(|name| name.trim_start_matches('/'))
                .filter(|name| !name.contains('/'))
                .map(str::to_owned),
        );
    }
    if let What::Images | What::Anything = what {
        let found = list("/images/json").await;
        for name in found.as_array().into_iter().flatten().flat_map(|image| image.texts("RepoTags")) {
            let name = familiar(name);
            out.extend(name.strip_suffix(":latest").map(str::to_owned));
            out.push(name);
        }
    }
    if let What::Networks | What::Anything = what {
        let found = list("/networks").await;
        out.extend(found.as_array().into_iter().flatten().map(|network| network.text("Name").to_owned()));
    }
    if let What::Volumes | What::Anything = what {
        let found = list("/volumes").await;
        out.extend(found.items("Volumes").iter().map(|volume| volume.text("Name").to_owned()));
    }
    out
}

/// Reads the words of `__complete`: the global flags, the command and its words. `None` where nothing is known.
pub(crate) fn read(words: &[String]) -> Option<(Matches, Found, Vec<String>)> {
    let root = Found { command: &crate::commands::ROOT, path: String::new() };
    let (typed, before) = words.split_last()?;
    let global_only =
        (Matches::default(), Found { command: root.command, path: String::new() }, words.to_vec());
    let Ok(global) = Matches::parse(root.command.flags, before, true) else { return Some(global_only) };
    if global.args.is_empty() {
        return Some((global, root, words.to_vec()));
    }
    let asks_help = global.args[0] == "help";
    let (found, mut rest) = command::find(root.command, &global.args[usize::from(asks_help)..]);
    rest.push(typed.clone());
    Some((global, found, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(words: &[&str]) -> Vec<What> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (_, found, rest) = read(&words).unwrap();
        let (typed, before) = rest.split_last().unwrap();
        expected(&found, before, None, typed)
    }

    fn offers(words: &[&str], wanted: &str) -> bool {
        at(words).iter().any(|what| matches!(what, What::Words(all) if all.iter().any(|word| word == wanted)))
    }

    #[test]
    fn words_and_flags_come_from_the_tables() {
        assert!(offers(&["ne"], "network"));
        assert!(offers(&["--de"], "--debug"));
        assert!(offers(&["help", "network", "c"], "connect"));
        assert!(offers(&["-H", "unix:///x", "network", ""], "disconnect"));
        assert!(offers(&["run", "-d", "--net"], "--network-alias"));
        assert!(offers(&["run", "--restart", ""], "unless-stopped"));
        assert!(offers(&["port", ""], "move"));
        assert!(offers(&["completion", ""], "fish"));
        assert!(!offers(&["run", "busybox", "--net"], "--network"));
    }

    #[test]
    fn objects_come_from_the_usage_lines() {
        let all = What::Containers { running: false };
        let running = What::Containers { running: true };
        assert_eq!(at(&["rm", "-f", ""]), [all]);
        assert_eq!(at(&["rm", "one", ""]), at(&["logs", ""]));
        assert_eq!(at(&["exec", "-it", ""]), [running]);
        assert_eq!(at(&["run", "--network", ""]), [What::Networks]);
        assert_eq!(at(&["run", "-it", ""]), [What::Images]);
        assert_eq!(at(&["rmi", ""]), [What::Images]);
        assert_eq!(at(&["network", "rm", ""]), [What::Networks]);
        assert_eq!(at(&["network", "connect", "n", ""]), at(&["rm", ""]));
        assert_eq!(at(&["volume", "inspect", ""]), [What::Volumes]);
        assert_eq!(at(&["inspect", ""]), [What::Anything]);
        assert_eq!(at(&["port", "add", ""]), [What::Containers { running: true }]);
        assert_eq!(at(&["load", "-i", ""]), [What::Files]);
        assert_eq!(at(&["port", "web", ""]), []);
    }
}

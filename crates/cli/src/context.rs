//! Which daemon is meant: `--host`, a context of Docker's CLI, the environment, or the default socket.

use std::path::Path;

use serde_json::Value;

use crate::client::{DEFAULT_SOCKET, Host};
use crate::config::ConfigFile;
use crate::failure::Failure;
use crate::flags::Matches;
use crate::json::Json;

/// The context that is no context: the environment or the default socket.
const DEFAULT: &str = "default";
const NO_TLS: &str = "TLS is not supported: reach the daemon through an SSH tunnel to its socket";

/// A daemon, and the name of the context that chose it.
#[derive(Debug, PartialEq)]
pub(crate) struct Chosen {
    /// Where it listens.
    pub(crate) host: Host,
    /// `default` if no context was asked for.
    pub(crate) context: String,
}

/// Chooses, in Docker's order: `--context` or `--host`, `$PORTOLAN_HOST` and `$DOCKER_HOST`, `$DOCKER_CONTEXT`, the
/// `currentContext` of the configuration file.
///
/// # Errors
/// When the choice contradicts itself, is not there, or asks for what we do not speak.
pub(crate) fn choose(
    global: &Matches,
    config: &ConfigFile,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Chosen, Failure> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let hosts = global.list("host");
    if hosts.len() > 1 {
        return Err(Failure::new("Specify only one -H"));
    }
    let named = global.text("context").filter(|name| !name.is_empty());
    let host = hosts.first().map(|host| (*host).to_owned());
    if named.is_some() && host.is_some() {
        return Err(Failure::new("conflicting options: cannot specify both --host and --context"));
    }
    let from_environment = || variable("PORTOLAN_HOST").or_else(|| variable("DOCKER_HOST"));
    let host = host.or_else(|| named.is_none_or(|name| name == DEFAULT).then(from_environment).flatten());
    let context = named
        .map(str::to_owned)
        .or_else(|| host.is_none().then(|| variable("DOCKER_CONTEXT")).flatten())
        .or_else(|| host.is_none().then(|| config.text("currentContext").to_owned()))
        .filter(|name| !name.is_empty() && name != DEFAULT);
    let chosen = match (context, host) {
        (Some(context), _) => Chosen { host: of_context(&context, config)?, context },
        (None, Some(address)) => Chosen { host: Host::parse(&address)?, context: DEFAULT.to_owned() },
        (None, None) => Chosen { host: Host::Unix(DEFAULT_SOCKET.into()), context: DEFAULT.to_owned() },
    };
    // What goes over a network in the clear must not be what was meant to be encrypted.
    let secret = ["DOCKER_TLS_VERIFY", "DOCKER_TLS"].into_iter().find(|name| variable(name).is_some());
    match (secret, &chosen.host) {
        (Some(name), Host::Tcp(_)) => {
            Err(Failure::new(format!("{name} is set for {}, but {NO_TLS}, or unset {name}", chosen.host)))
        }
        _ => Ok(chosen),
    }
}

/// The daemon of a context that Docker's CLI has made.
fn of_context(name: &str, config: &ConfigFile) -> Result<Host, Failure> {
    let contexts = config.directory().join("contexts");
    let Some((id, meta)) = find(&contexts.join("meta"), name) else {
        return Err(Failure::new(format!(
            "context {name:?}: context not found in {}: name the daemon with --host, or give --context {DEFAULT}",
            contexts.display()
        )));
    };
    let endpoint = meta.at(&["Endpoints", "docker"]);
    let wrong = |why: String| Failure::new(format!("context {name:?}: {why} (or give --context {DEFAULT})"));
    if contexts.join("tls").join(id).join("docker").exists() {
        return Err(wrong(NO_TLS.to_owned()));
    }
    match endpoint.text("Host") {
        "" => Ok(Host::Unix(DEFAULT_SOCKET.into())),
        address => Host::parse(address).map_err(wrong),
    }
}

/// The folder's name and content of the context with this name; folders are named by a digest of it.
fn find(contexts: &Path, name: &str) -> Option<(std::ffi::OsString, Value)> {
    std::fs::read_dir(contexts).ok()?.flatten().find_map(|folder| {
        let text = std::fs::read(folder.path().join("meta.json")).ok()?;
        let meta: Value = serde_json::from_slice(&text).ok()?;
        (meta.text("Name") == name).then(|| (folder.file_name(), meta))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Case<'c> {
        words: &'c [&'c str],
        environment: &'c [(&'c str, &'c str)],
        current: &'c str,
    }

    fn chosen(directory: &Path, case: &Case<'_>) -> Result<(String, String), String> {
        let words: Vec<String> = case.words.iter().map(|word| (*word).to_owned()).collect();
        let global = Matches::parse(crate::commands::ROOT.flags, &words, true).unwrap();
        let config = ConfigFile {
            path: directory.join("config.json"),
            content: json!({"currentContext": case.current}),
        };
        let variable = |name: &str| {
            case.environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        choose(&global, &config, variable)
            .map(|chosen| (chosen.host.to_string(), chosen.context))
            .map_err(|why| why.text())
    }

    #[test]
    fn the_daemon_is_chosen_in_dockers_order() {
        let directory = std::env::temp_dir().join(format!("portolan-cli-context-{}", std::process::id()));
        let make = |id: &str, name: &str, host: &str| {
            let folder = directory.join("contexts/meta").join(id);
            std::fs::create_dir_all(&folder).unwrap();
            let meta = json!({"Name": name, "Endpoints": {"docker": {"Host": host}}});
            std::fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
        };
        make("0a", "lab", "unix:///lab.sock");
        make("0b", "far", "ssh://far");
        make("0c", "safe", "tcp://safe:2376");
        std::fs::create_dir_all(directory.join("contexts/tls/0c/docker")).unwrap();
        type Env<'e> = &'e [(&'e str, &'e str)];
        type Good<'g> = (&'g [&'g str], Env<'g>, &'g str, (&'g str, &'g str));
        type Bad<'b> = (&'b [&'b str], Env<'b>, &'b str, &'b str);
        let good: [Good<'_>; 6] = [
            (&[], &[], "", ("unix:///run/portolan/portolan.sock", "default")),
            (&[], &[], "lab", ("unix:///lab.sock", "lab")),
            (&[], &[("DOCKER_CONTEXT", "lab")], "far", ("unix:///lab.sock", "lab")),
            (
                &[],
                &[("DOCKER_HOST", "unix:///e"), ("DOCKER_CONTEXT", "lab")],
                "lab",
                ("unix:///e", "default"),
            ),
            (&["-c", "lab"], &[("DOCKER_HOST", "unix:///e")], "", ("unix:///lab.sock", "lab")),
            (&["-c", "default"], &[("DOCKER_HOST", "unix:///e")], "lab", ("unix:///e", "default")),
        ];
        for (words, environment, current, (host, context)) in good {
            let chosen = chosen(&directory, &Case { words, environment, current });
            assert_eq!(chosen, Ok((host.to_owned(), context.to_owned())), "{words:?} {environment:?}");
        }
        let bad: [Bad<'_>; 5] = [
            (&["-c", "lab", "-H", "unix:///e"], &[], "", "cannot specify both --host and --context"),
            (&[], &[("DOCKER_CONTEXT", "none")], "", "context \"none\": context not found"),
            (&[], &[], "far", "the protocol ssh is not supported"),
            (&[], &[], "safe", "TLS is not supported"),
            (&["-H", "tcp://h:1"], &[("DOCKER_TLS_VERIFY", "1")], "", "DOCKER_TLS_VERIFY is set"),
        ];
        for (words, environment, current, why) in bad {
            let text = chosen(&directory, &Case { words, environment, current }).unwrap_err();
            assert!(text.contains(why), "{words:?} {environment:?} {current}: {text}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}

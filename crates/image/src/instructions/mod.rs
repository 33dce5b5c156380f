//! Dockerfile instructions that `import` and `commit` take as changes: those that only alter the
//! configuration.

mod health;
mod words;

use std::collections::BTreeMap;

use crate::config::{Empty, RunConfig};
use crate::error::{Error, Result};
use words::{expand_word, expand_words, split_words};

/// Applies `changes` to `config`, in order.
///
/// # Errors
/// `Invalid` in Docker's words: "RUN is not a valid change command".
pub(crate) fn apply(config: &RunConfig, changes: &[String]) -> Result<RunConfig> {
    let mut state = State { config: config.clone(), cmd_set: false };
    for line in logical_lines(changes) {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        state.apply(name, rest.trim())?;
    }
    Ok(state.config)
}

struct State {
    config: RunConfig,
    /// A CMD was among the changes: a later ENTRYPOINT leaves it.
    cmd_set: bool,
}

/// Lines without comments, with continuations joined.
fn logical_lines(changes: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in changes.iter().flat_map(|change| change.split('\n')) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let line = if current.is_empty() { trimmed } else { line.trim_end() };
        match line.strip_suffix('\\') {
            Some(start) => current.push_str(start),
            None => {
                current.push_str(line);
                lines.push(std::mem::take(&mut current));
            }
        }
    }
    if !current.is_empty() {
        lines.push(current);
    }
    lines
}

impl State {
    fn apply(&mut self, name: &str, rest: &str) -> Result<()> {
        let upper = name.to_ascii_uppercase();
        let one_or_more = || {
            let missing = Error::invalid(format!("{upper} requires at least one argument"));
            if rest.is_empty() { Err(missing) } else { Ok(rest) }
        };
        match upper.as_str() {
            "CMD" => {
                self.config.cmd = Some(self.command(one_or_more()?)?);
                self.cmd_set = true;
            }
            "ENTRYPOINT" => {
                self.config.entrypoint = Some(self.command(one_or_more()?)?);
                if !self.cmd_set {
                    self.config.cmd = None;
                }
            }
            "ENV" => self.env(one_or_more()?)?,
            "EXPOSE" => self.expose(one_or_more()?)?,
            "HEALTHCHECK" => self.config.healthcheck = Some(health::parse(one_or_more()?)?),
            "LABEL" => self.label(one_or_more()?)?,
            "ONBUILD" => self.on_build(one_or_more()?)?,
            "STOPSIGNAL" => {
                let signal = self.one_word("STOPSIGNAL", rest)?;
                check_signal(&signal)?;
                self.config.stop_signal = signal;
            }
            "USER" => self.config.user = self.one_word("USER", rest)?,
            "VOLUME" => self.volume(one_or_more()?)?,
            "WORKDIR" => {
                let directory = self.one_word("WORKDIR", rest)?;
                self.config.working_dir = clean_path(&self.config.working_dir, &directory);
            }
            _ => return Err(Error::invalid(format!("{name} is not a valid change command"))),
        }
        Ok(())
    }

    /// JSON form as it is, shell form handed to the shell.
    fn command(&self, rest: &str) -> Result<Vec<String>> {
        if let Some(words) = json_words(rest)? {
            return Ok(words);
        }
        let shell = if self.config.shell.is_empty() {
            vec!["/bin/sh".to_owned(), "-c".to_owned()]
        } else {
            self.config.shell.clone()
        };
        Ok(shell.into_iter().chain([rest.to_owned()]).collect())
    }

    fn env(&mut self, rest: &str) -> Result<()> {
        // All values of one instruction see the environment before it.
        let environment = self.environment();
        for (key, value) in name_values("ENV", rest)? {
            let (key, value) = (expand_word(&key, &environment)?, expand_word(&value, &environment)?);
            if key.is_empty() {
                return Err(Error::invalid("ENV names can not be blank"));
            }
            let line = format!("{key}={value}");
            let same_key = |old: &&mut String| old.split('=').next() == Some(key.as_str());
            match self.config.env.iter_mut().find(same_key) {
                Some(old) => *old = line,
                None => self.config.env.push(line),
            }
        }
        Ok(())
    }

    fn label(&mut self, rest: &str) -> Result<()> {
        let environment = self.environment();
        for (key, value) in name_values("LABEL", rest)? {
            let (key, value) = (expand_word(&key, &environment)?, expand_word(&value, &environment)?);
            if key.is_empty() {
                return Err(Error::invalid("LABEL names can not be blank"));
            }
            self.config.labels.insert(key, value);
        }
        Ok(())
    }

    fn expose(&mut self, rest: &str) -> Result<()> {
        for word in expand_words(rest, &self.environment())? {
            for port in exposed_ports(&word)? {
                self.config.exposed_ports.insert(port, Empty {});
            }
        }
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Result<()> {
        let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match trigger.as_str() {
            "ONBUILD" => Err(Error::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
            "MAINTAINER" | "FROM" => {
                Err(Error::invalid(format!("{trigger} isn't allowed as an ONBUILD trigger")))
            }
            _ => {
                self.config.on_build.push(rest.to_owned());
                Ok(())
            }
        }
    }

    fn volume(&mut self, rest: &str) -> Result<()> {
        let paths = json_words(rest)?.unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
        let environment = self.environment();
        for path in paths {
            let path = expand_word(&path, &environment)?.trim().to_owned();
            if path.is_empty() {
                return Err(Error::invalid("VOLUME specified can not be an empty string"));
            }
            self.config.volumes.insert(path, Empty {});
        }
        Ok(())
    }

    fn one_word(&self, name: &str, rest: &str) -> Result<String> {
        if rest.is_empty() {
            return Err(Error::invalid(format!("{name} requires exactly one argument")));
        }
        expand_word(rest, &self.environment())
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let pair = |line: &String| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        self.config.env.iter().filter_map(pair).collect()
    }
}

/// The words of a JSON array of strings; none if it is no such thing.
fn json_words(rest: &str) -> Result<Option<Vec<String>>> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    let words: Option<Vec<String>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
    match words {
        Some(words) => Ok(Some(words)),
        None => Err(Error::invalid("when using JSON array syntax, arrays must be comprised of strings only")),
    }
}

/// `name=value ...`, or the old `name value with spaces`.
fn name_values(instruction: &str, rest: &str) -> Result<Vec<(String, String)>> {
    let words = split_words(rest);
    if !words.first().is_some_and(|word| word.contains('=')) {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            return Err(Error::invalid(format!("{instruction} must have two arguments")));
        };
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Error::invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn exposed_ports(word: &str) -> Result<Vec<String>> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err(Error::invalid(format!("invalid containerPort: {word}"))),
    }
}

fn check_signal(text: &str) -> Result<()> {
    const NAMES: &str = " ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV \
                         STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX ";
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |offset: &str, most: u8| offset.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n));
    let known = match (text.parse::<u8>(), name.split_once(['+', '-'])) {
        (Ok(number), _) => (1..=64).contains(&number),
        (_, Some(("RTMIN", offset))) => name.contains('+') && real_time(offset, 15),
        (_, Some(("RTMAX", offset))) => name.contains('-') && real_time(offset, 14),
        _ => !name.contains(' ') && NAMES.contains(&format!(" {name} ")),
    };
    if known { Ok(()) } else { Err(Error::invalid(format!("invalid signal: {text}"))) }
}

/// `path` from `base` on, without `.`, `..` and double slashes.
fn clean_path(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{base}/{path}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Result<RunConfig> {
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        apply(&RunConfig::default(), &changes)
    }

    #[test]
    fn commands_in_both_forms() {
        let config = applied(&["CMD [\"nginx\", \"-g\", \"daemon off;\"]"]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["nginx", "-g", "daemon off;"]);
        let config = applied(&["cmd echo $HOME \"x\""]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo $HOME \"x\""]);
        let config = applied(&["CMD a", "ENTRYPOINT [\"e\"]"]).unwrap();
        assert!(config.cmd.is_some() && config.entrypoint.unwrap() == ["e"]);
        let base = RunConfig { cmd: Some(vec!["old".into()]), ..RunConfig::default() };
        assert_eq!(
            apply(&base, &["ENTRYPOINT e".into()]).unwrap().cmd,
            None,
            "a new entrypoint drops the old command"
        );
        assert!(applied(&["CMD [1]"]).is_err());
        assert_eq!(applied(&["CMD [a"]).unwrap().cmd.unwrap()[2], "[a", "what is no JSON is for the shell");
    }

    #[test]
    fn environment_and_labels_expand_and_unquote() {
        let config = applied(&[
            "ENV A=1 B=\"two words\" C=a\\ b",
            "ENV A=${A}1 D=$B E='$B' F=${none:-d} G=${A:+set}",
            "ENV OLD old style  value",
            "LABEL x=y \"a b\"=c\\\n  last=1",
        ])
        .unwrap();
        assert_eq!(
            config.env,
            ["A=11", "B=two words", "C=a b", "D=two words", "E=$B", "F=d", "G=set", "OLD=old style  value"]
        );
        let labels: Vec<_> = config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["a b=c", "last=1", "x=y"]);
    }

    #[test]
    fn the_rest() {
        let config = applied(&[
            "# a comment",
            "EXPOSE 80 53/UDP 8000-8001",
            "VOLUME [\"/a\", \"/b c\"]",
            "VOLUME /d /e",
            "WORKDIR /x",
            "WORKDIR y/../z",
            "USER 1000:1000",
            "STOPSIGNAL SIGUSR1",
            "ONBUILD RUN make",
        ])
        .unwrap();
        let keys = |set: &crate::Set| set.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&config.exposed_ports), ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(keys(&config.volumes), ["/a", "/b c", "/d", "/e"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/x/z", "1000:1000"));
        assert_eq!((config.stop_signal.as_str(), config.on_build[0].as_str()), ("SIGUSR1", "RUN make"));
    }

    #[test]
    fn wrong_changes_are_named() {
        for (change, text) in [
            ("RUN x", "RUN is not a valid change command"),
            ("CMD", "CMD requires at least one argument"),
            ("EXPOSE 99999", "invalid containerPort: 99999"),
            ("EXPOSE 80/icmp", "invalid proto: icmp"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
            ("STOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ] {
            let error = applied(&[change]).unwrap_err();
            assert_eq!(error.to_string(), text);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        }
    }
}

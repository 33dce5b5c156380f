//! What a container is asked to be, completed with what its image says.

use std::collections::BTreeMap;

use portolan_image::{Healthcheck, RunConfig};

use crate::error::{EngineError, Result};
use crate::model::{ContainerConfig, HealthConfig};

/// Fills the gaps of `config` from the image, by Docker's rules.
///
/// # Errors
/// There is nothing to run, or the image's own configuration makes no sense.
pub(crate) fn merge(config: &mut ContainerConfig, image: &RunConfig) -> Result<()> {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.keys() {
        let port = port.parse().map_err(|error| EngineError::invalid(format!("the image: {error}")))?;
        config.exposed_ports.insert(port, ());
    }
    for variable in &image.env {
        if !config.env.iter().any(|own| key(own) == key(variable)) {
            config.env.push(variable.clone());
        }
    }
    for (label, value) in &image.labels {
        config.labels.entry(label.clone()).or_insert_with(|| value.clone());
    }
    merge_command(config, image);
    if let Some(check) = &image.healthcheck {
        merge_health(config.healthcheck.get_or_insert_default(), check);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    config.volumes.extend(image.volumes.keys().cloned());
    if config.stop_signal.as_ref().is_none_or(String::is_empty) {
        config.stop_signal = Some(image.stop_signal.clone()).filter(|signal| !signal.is_empty());
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout;
    }
    if config.shell.is_none() && !image.shell.is_empty() {
        config.shell = Some(image.shell.clone());
    }
    Ok(())
}

fn merge_command(config: &mut ContainerConfig, image: &RunConfig) {
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if empty(&config.entrypoint) {
        if empty(&config.cmd) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    // `--entrypoint ""` takes the image's away.
    if config.entrypoint.as_ref().is_some_and(|e| e.len() == 1 && e[0].is_empty()) {
        config.entrypoint = None;
    }
}

fn merge_health(own: &mut HealthConfig, image: &Healthcheck) {
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    let fill = |own: &mut i64, image: i64| {
        if *own == 0 {
            *own = image;
        }
    };
    fill(&mut own.interval_ns, image.interval);
    fill(&mut own.timeout_ns, image.timeout);
    fill(&mut own.start_period_ns, image.start_period);
    fill(&mut own.start_interval_ns, image.start_interval);
    if own.retries == 0 {
        own.retries = u32::try_from(image.retries).unwrap_or_default();
    }
}

/// Program and arguments: the entrypoint and then the command.
///
/// # Errors
/// Both are empty.
pub(crate) fn command_line(config: &ContainerConfig) -> Result<Vec<String>> {
    let parts = config.entrypoint.iter().chain(&config.cmd).flatten().cloned();
    let line: Vec<String> = parts.collect();
    if line.is_empty() { Err(EngineError::invalid("no command specified")) } else { Ok(line) }
}

/// The environment of the first process: PATH, HOSTNAME, TERM and those of links unless the container sets
/// them, then its own variables; a bare `KEY` unsets.
pub(crate) fn environment(config: &ContainerConfig, tty: bool, links: Vec<String>) -> Vec<String> {
    let mut variables = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    variables.push(format!("HOSTNAME={}", config.hostname));
    if tty {
        variables.push("TERM=xterm".to_owned());
    }
    variables.extend(links);
    replace_or_append(&mut variables, &config.env);
    variables
}

/// Sets, replaces and (`KEY` without a value) unsets variables; the first position of a key is kept.
pub(crate) fn replace_or_append(variables: &mut Vec<String>, changes: &[String]) {
    let mut position: BTreeMap<String, usize> = BTreeMap::new();
    for (index, variable) in variables.iter().enumerate() {
        position.insert(key(variable).to_owned(), index);
    }
    let mut unset = Vec::new();
    for change in changes {
        if !change.contains('=') {
            unset.push(change.as_str());
        } else if let Some(index) = position.get(key(change)) {
            variables[*index].clone_from(change);
        } else {
            position.insert(key(change).to_owned(), variables.len());
            variables.push(change.clone());
        }
    }
    variables.retain(|variable| !unset.contains(&key(variable)));
}

fn key(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn image() -> RunConfig {
        RunConfig {
            entrypoint: Some(list(&["/entry"])),
            cmd: Some(list(&["serve"])),
            env: list(&["A=image", "B=image"]),
            user: "www".to_owned(),
            stop_signal: "SIGQUIT".to_owned(),
            ..RunConfig::default()
        }
    }

    fn line(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> Result<Vec<String>> {
        let mut config = ContainerConfig {
            entrypoint: entrypoint.map(list),
            cmd: cmd.map(list),
            ..ContainerConfig::default()
        };
        merge(&mut config, &image())?;
        command_line(&config)
    }

    #[test]
    fn entrypoint_and_command_follow_dockers_table() {
        assert_eq!(line(None, None).unwrap(), ["/entry", "serve"]);
        assert_eq!(line(None, Some(&["x"])).unwrap(), ["/entry", "x"]);
        // An entrypoint of its own drops the image's command too.
        assert_eq!(line(Some(&["sh"]), None).unwrap(), ["sh"]);
        assert_eq!(line(Some(&["sh"]), Some(&["-c"])).unwrap(), ["sh", "-c"]);
        assert_eq!(line(Some(&[""]), Some(&["ls"])).unwrap(), ["ls"]);
        assert!(line(Some(&[""]), None).is_err(), "nothing is left to run");
    }

    #[test]
    fn own_settings_win() {
        let mut config = ContainerConfig {
            env: list(&["B=own", "C=own"]),
            user: "root".to_owned(),
            stop_signal: Some(String::new()),
            ..ContainerConfig::default()
        };
        merge(&mut config, &image()).unwrap();
        assert_eq!(config.env, ["B=own", "C=own", "A=image"]);
        assert_eq!(config.user, "root");
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn the_environment_has_dockers_order_and_unsets() {
        let config = ContainerConfig {
            hostname: "box".to_owned(),
            env: list(&["X=1", "PATH=/bin", "HOSTNAME"]),
            ..ContainerConfig::default()
        };
        assert_eq!(environment(&config, true, Vec::new()), ["PATH=/bin", "TERM=xterm", "X=1"]);
        assert_eq!(
            environment(
                &ContainerConfig { hostname: "box".to_owned(), ..ContainerConfig::default() },
                false,
                Vec::new()
            ),
            ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box"]
        );
    }
}

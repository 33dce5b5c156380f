//! Environment variables, labels and what is attached.

use std::collections::BTreeMap;
use std::fs;

/// Checks `--env`.
pub(crate) fn check_env(value: &str) -> Result<(), String> {
    match value.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {value}")),
        None if value.is_empty() => Err(format!("invalid environment variable: {value}")),
        _ => Ok(()),
    }
}

/// Checks `--label`.
pub(crate) fn check_label(value: &str) -> Result<(), String> {
    if value.is_empty() || value.starts_with('=') {
        return Err(format!("invalid label '{value}': empty name"));
    }
    Ok(())
}

/// Checks `--attach`.
pub(crate) fn check_attach(value: &str) -> Result<(), String> {
    match value.to_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// The environment of the files and then of the flags. A name without `=` takes its value from our
/// own environment and is left out if it has none (from a file) or passed on bare (from a flag).
///
/// # Errors
/// When a file cannot be read or has a line that is not a variable.
pub(crate) fn variables(files: &[&str], flags: &[&str]) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for file in files {
        for line in lines_of(file, "invalid env file")? {
            match line.split_once('=') {
                Some(_) => out.push(line),
                None => out.extend(own(&line)),
            }
        }
    }
    for flag in flags {
        match flag.contains('=') {
            true => out.push((*flag).to_owned()),
            false => out.push(own(flag).unwrap_or_else(|| (*flag).to_owned())),
        }
    }
    Ok(out)
}

fn own(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| format!("{name}={value}"))
}

/// The labels of the files and then of the flags.
///
/// # Errors
/// When a file cannot be read or has a line that is not a label.
pub(crate) fn labels(files: &[&str], flags: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let mut out = BTreeMap::new();
    let mut add = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        out.insert(key.to_owned(), value.to_owned());
    };
    for file in files {
        for line in lines_of(file, "invalid label file")? {
            add(&line);
        }
    }
    flags.iter().for_each(|flag| add(flag));
    Ok(out)
}

/// The lines of a file that are neither empty nor comments; `what` starts the error texts.
fn lines_of(path: &str, what: &str) -> Result<Vec<String>, String> {
    let bytes = fs::read(path).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => format!("open {path}: no such file or directory"),
        _ => format!("open {path}: {why}"),
    })?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut out = Vec::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line)
            .map_err(|_| format!("{what} ({path}): invalid utf8 bytes at line {}", at + 1))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(format!("{what} ({path}): no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("{what} ({path}): variable '{name}' contains whitespaces"));
        }
        out.push(line.to_owned());
    }
    Ok(out)
}

/// A map of `key=value` words; a word without `=` has an empty value.
pub(crate) fn pairs<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    words
        .into_iter()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_before_flags() {
        let dir = std::env::temp_dir().join(format!("portolan-cli-env-{}", std::process::id()));
        fs::write(&dir, "# note\n\nA=1\n  B=x y\r\nNOT_SET_ANYWHERE\n").unwrap();
        let path = dir.to_str().unwrap();
        let read = variables(&[path], &["A=2", "ALSO_NOT_SET"]).unwrap();
        assert_eq!(read, ["A=1", "B=x y", "A=2", "ALSO_NOT_SET"]);
        fs::write(&dir, "A B=1\n").unwrap();
        assert!(variables(&[path], &[]).unwrap_err().contains("variable 'A B' contains whitespaces"));
        fs::remove_file(&dir).unwrap();
    }
}

use super::json_words;
use crate::config::Healthcheck;
use crate::error::{Error, Result};

const SHORTEST_NS: i64 = 1_000_000;

/// `NONE`, or `[--option=value ...] CMD command`.
pub(super) fn parse(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.split_whitespace().next().filter(|word| word.starts_with("--")) {
        set_option(&mut check, option)?;
        rest = rest[option.len()..].trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if !command.is_empty() => Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "NONE" => Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }),
        "CMD" => {
            let words = match json_words(command)? {
                _ if command.is_empty() => Vec::new(),
                Some(words) if words.is_empty() => Vec::new(),
                Some(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            };
            if words.is_empty() {
                return Err(Error::invalid("Missing command after HEALTHCHECK CMD"));
            }
            check.test = words;
            Ok(check)
        }
        "" => Err(Error::invalid("HEALTHCHECK requires at least one argument")),
        other => Err(Error::invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    }
}

fn set_option(check: &mut Healthcheck, option: &str) -> Result<()> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let time = || {
        let nanoseconds = duration_ns(value)
            .ok_or_else(|| Error::invalid(format!("invalid duration {value:?} of HEALTHCHECK {name}")))?;
        if nanoseconds != 0 && nanoseconds < SHORTEST_NS {
            return Err(Error::invalid(format!("Interval {:?} cannot be less than 1ms", &name[2..])));
        }
        Ok(nanoseconds)
    };
    match name {
        "--interval" => check.interval = time()?,
        "--timeout" => check.timeout = time()?,
        "--start-period" => check.start_period = time()?,
        "--start-interval" => check.start_interval = time()?,
        "--retries" => {
            let retries = value.parse::<i64>().ok().filter(|retries| *retries >= 0);
            let bad = || Error::invalid(format!("--retries cannot be negative or no number ({value})"));
            check.retries = retries.ok_or_else(bad)?;
        }
        _ => return Err(Error::invalid(format!("Unknown flag: {}", name.trim_start_matches('-')))),
    }
    Ok(())
}

/// Go's notation: `1m30s`, `1.5h`, `100ms`.
fn duration_ns(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_like_dockers() {
        let check = parse("--interval=1m30s --retries=3 CMD curl -f http://x || exit 1").unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://x || exit 1"]);
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(parse("CMD [\"a\", \"b\"]").unwrap().test, ["CMD", "a", "b"]);
        assert_eq!(parse("NONE").unwrap().test, ["NONE"]);
        for bad in [
            "CMD",
            "NONE x",
            "RUN x",
            "--interval=1 CMD x",
            "--interval=1us CMD x",
            "--nope=1 CMD x",
            "--retries=-1 CMD x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

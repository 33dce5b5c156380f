//! Sizes, durations and times, read and written as Docker's CLI does.

use jiff::Timestamp;

/// Reads a size such as `64m`, `1.5GiB` or `4096` into bytes (binary multiples, as Docker's
/// `units.RAMInBytes`).
///
/// # Errors
/// Docker's text when it is not a size.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|at| at + 1).ok_or_else(invalid)?;
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    if number < 0.0 {
        return Err(invalid());
    }
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let mut letters = suffix.chars();
    let power = match letters.next() {
        None => 0,
        Some('b') if suffix.len() == 1 => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    if power > 0 && !matches!(letters.as_str(), "" | "b" | "ib") {
        return Err(format!("invalid suffix: '{suffix}'"));
    }
    Ok((number * 1024f64.powi(power)) as i64)
}

/// Reads a number of processors such as `1.5` into billionths.
///
/// # Errors
/// Docker's text when it is not a number or finer than a billionth.
pub(crate) fn parse_nano_cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(wrong());
    }
    let whole: i64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| wrong())?,
    };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let nano: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    whole.checked_mul(1_000_000_000).and_then(|value| value.checked_add(sign * nano)).ok_or_else(wrong)
}

/// Reads a Go duration such as `1h30m`, `1.5s`, `300ms` into nanoseconds.
///
/// # Errors
/// Go's text when it is not one.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1f64, &text[1..]),
        Some(b'+') => (1f64, &text[1..]),
        _ => (1f64, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1f64,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            other => {
                return Err(format!("time: unknown unit {other:?} in duration {text:?}"));
            }
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    Ok((sign * total) as i64)
}

/// A size in decimal units with three significant digits: `1.45MB`.
pub(crate) fn human_size(bytes: f64) -> String {
    human_size_with(bytes, 3)
}

/// A size in decimal units with `digits` significant digits.
pub(crate) fn human_size_with(bytes: f64, digits: usize) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], digits)
}

/// A size in binary units with four significant digits: `1.5GiB`.
pub(crate) fn binary_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"], 4)
}

fn scaled(mut size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while size >= base && unit < units.len() - 1 {
        size /= base;
        unit += 1;
    }
    format!("{}{}", general(size, digits), units[unit])
}

/// C's `%.{digits}g` for numbers that need no exponent up to `digits` digits.
pub(crate) fn general(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{:.*e}", digits.saturating_sub(1), value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        let mantissa = trim_zeros(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let places = (digits as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{value:.places$}")).to_owned()
}

fn trim_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// A length of time in words, as Docker writes ages: `About a minute`, `5 seconds`.
pub(crate) fn human_duration(seconds: f64) -> String {
    let whole = seconds as i64;
    let minutes = (seconds / 60.0) as i64;
    let hours = (seconds / 3600.0).round() as i64;
    match () {
        () if whole < 1 => "Less than a second".to_owned(),
        () if whole == 1 => "1 second".to_owned(),
        () if whole < 60 => format!("{whole} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", (seconds / 3600.0) as i64 / 24 / 365),
    }
}

/// How long ago, in words, `now` being `now` (both seconds since the epoch).
pub(crate) fn ago(now: f64, then: f64) -> String {
    format!("{} ago", human_duration(now - then))
}

/// The time now, in seconds since the epoch.
pub(crate) fn now() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

/// A time in the local zone as Go prints it: `2026-11-23 18:26:11 +0000 UTC`.
pub(crate) fn local_time(epoch_seconds: i64) -> String {
    match Timestamp::from_second(epoch_seconds) {
        Ok(time) => {
            time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
        }
        Err(_) => String::new(),
    }
}

/// An RFC 3339 time as Go prints it: `2026-11-23 18:26:11.303419622 +0000 UTC`. What is not a time
/// stays as it is.
pub(crate) fn go_time(rfc3339: &str) -> String {
    let Ok(time) = rfc3339.parse::<Timestamp>() else {
        return rfc3339.to_owned();
    };
    let zone = match jiff::fmt::temporal::Pieces::parse(rfc3339)
        .ok()
        .and_then(|pieces| pieces.to_numeric_offset())
    {
        Some(offset) if offset.seconds() != 0 => jiff::tz::TimeZone::fixed(offset),
        _ => jiff::tz::TimeZone::UTC,
    };
    let name = if zone == jiff::tz::TimeZone::UTC { "UTC" } else { "%z" };
    time.to_zoned(zone).strftime(&format!("%Y-%m-%d %H:%M:%S%.f %z {name}")).to_string()
}

/// A time in the local zone as RFC 3339: `2026-11-23T18:26:11Z`.
pub(crate) fn rfc3339_local(epoch_seconds: i64) -> String {
    match Timestamp::from_second(epoch_seconds) {
        Ok(time) => rfc3339(time, false),
        Err(_) => String::new(),
    }
}

/// A time in the local zone as RFC 3339, with nanoseconds if `nanoseconds`.
pub(crate) fn rfc3339(time: Timestamp, nanoseconds: bool) -> String {
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    let format = if nanoseconds { "%Y-%m-%dT%H:%M:%S.%9f%:z" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    let text = local.strftime(format).to_string();
    match text.strip_suffix("+00:00") {
        Some(utc) => format!("{utc}Z"),
        None => text,
    }
}

/// Turns what `--since` and `--until` take (a Go duration before now, an RFC 3339 time in several
/// shortened forms, or seconds since the epoch) into the form that the API takes: seconds and
/// nanoseconds since the epoch.
///
/// # Errors
/// A text that names the value when it is none of these.
pub(crate) fn api_timestamp(value: &str, now: Timestamp) -> Result<String, String> {
    // "0" is a duration too, and is meant as the beginning of time.
    if value == "0" {
        return Ok(value.to_owned());
    }
    if let Ok(nanoseconds) = parse_duration(value) {
        let then =
            now.checked_sub(jiff::SignedDuration::from_nanos(nanoseconds)).map_err(|why| why.to_string())?;
        return Ok(stamp(then));
    }
    if let Ok(time) = value.parse::<Timestamp>() {
        return Ok(stamp(time));
    }
    if value.contains('-') {
        let text = value.trim_end_matches('Z');
        let zone = if value.ends_with('Z') { jiff::tz::TimeZone::UTC } else { jiff::tz::TimeZone::system() };
        let civil = match text.split_once('T') {
            Some((date, time)) if !time.contains(':') => format!("{date}T{time}:00"),
            Some(_) => text.to_owned(),
            None => format!("{text}T00:00"),
        };
        return civil
            .parse::<jiff::civil::DateTime>()
            .and_then(|time| time.to_zoned(zone))
            .map(|time| stamp(time.timestamp()))
            .map_err(|_| format!("invalid time {value:?}: give a duration such as 10m, an RFC 3339 time or seconds since 1970"));
    }
    let number = value.split_once('.').map_or(value, |(whole, _)| whole);
    match number.parse::<i64>() {
        Ok(_) => Ok(value.to_owned()),
        Err(_) => Err(format!("failed to parse value as time or duration: {value:?}")),
    }
}

fn stamp(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", 0), ("64m", 64 << 20), ("1.5g", 3 << 29), ("1 KiB", 1024), ("10b", 10), ("2MB", 2 << 20)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_bytes("x").unwrap_err(), "invalid size: 'x'");
        assert_eq!(parse_bytes("1q").unwrap_err(), "invalid suffix: 'q'");
    }

    #[test]
    fn sizes_are_written() {
        for (bytes, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1_450_000.0, "1.45MB"),
            (199_999_999.0, "200MB"),
            (999_900.0, "1e+03kB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(binary_size(1536.0 * 1024.0 * 1024.0), "1.5GiB");
    }

    #[test]
    fn ages_are_words() {
        for (seconds, text) in [
            (0.4, "Less than a second"),
            (1.9, "1 second"),
            (59.0, "59 seconds"),
            (61.0, "About a minute"),
            (180.0, "3 minutes"),
            (3600.0, "About an hour"),
            (86400.0 * 3.0, "3 days"),
            (86400.0 * 20.0, "2 weeks"),
            (86400.0 * 90.0, "3 months"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn cpus_and_durations() {
        assert_eq!(parse_nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_nano_cpus(".25"), Ok(250_000_000));
        assert!(parse_nano_cpus("x").is_err());
        assert_eq!(parse_duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000_000));
        assert!(parse_duration("5").unwrap_err().contains("missing unit"));
    }

    #[test]
    fn since_takes_several_forms() {
        let now: Timestamp = "2026-11-23T18:00:00Z".parse().unwrap();
        assert_eq!(api_timestamp("10m", now).unwrap(), "1795456200.000000000");
        assert_eq!(api_timestamp("2026-11-23T17:50:00Z", now).unwrap(), "1795456200.000000000");
        assert_eq!(api_timestamp("2026-11-23T17:50Z", now).unwrap(), "1795456200.000000000");
        assert_eq!(api_timestamp("1136073600", now).unwrap(), "1136073600");
        // Nothing is left out since 1970.
        assert_eq!(api_timestamp("0", now).unwrap(), "0");
        assert!(api_timestamp("soon", now).is_err());
    }
}

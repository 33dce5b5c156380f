//! Times as the API gives them: `until` of a prune, Unix seconds with a fraction, RFC 3339, or an age.

use jiff::{SignedDuration, Timestamp};

use crate::error::{EngineError, Result};
use crate::model::Filters;

/// The filter `until`: one time before which something was created.
///
/// # Errors
/// `Invalid`: more than one, or none that can be understood.
pub(crate) fn parse_until(filters: &Filters) -> Result<Option<Timestamp>> {
    let Some(values) = filters.values("until") else { return Ok(None) };
    let (Some(value), 1) = (values.first(), values.len()) else {
        return Err(EngineError::invalid("more than one until filter specified"));
    };
    match parse(value, Timestamp::now()) {
        Some(time) => Ok(Some(time)),
        None => Err(EngineError::invalid(format!("failed to parse {value:?} as a time or a duration"))),
    }
}

/// Unix seconds (`1700000000.123`), RFC 3339, a date, or a Go duration such as `1h30m` before now.
pub(crate) fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(age) = go_duration(text) {
        return now.checked_sub(age).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return local.to_zoned(jiff::tz::TimeZone::system()).ok().map(|zoned| zoned.timestamp());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Timestamp::new(seconds.parse().ok()?, digits.parse().ok()?).ok()
}

/// `300ms`, `1h30m`, `24h`: at least one number with a unit.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut total = 0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit..];
    }
    SignedDuration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let now = Timestamp::from_second(100_000).unwrap();
        let parsed = |text: &str| parse(text, now).map(|t| t.as_millisecond());
        assert_eq!(parsed("1h30m"), Some(94_600_000));
        assert_eq!(parsed("1.5s"), Some(99_998_500));
        assert_eq!(parsed("1700000000.25"), Some(1_700_000_000_250));
        assert_eq!(parsed("1970-01-01T00:00:01Z"), Some(1000));
        for bad in ["", "x", "1x", "h", "-"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}

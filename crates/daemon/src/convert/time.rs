//! Points in time as Docker's clients write and read them.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use crate::http::ApiError;

/// What Go prints for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with as many digits of nanoseconds as are needed, as Go's `RFC3339Nano`.
pub(crate) fn rfc3339(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

/// Reads `since` and `until`: seconds since 1970 with an optional fraction, a duration back from now (`10m`), or a
/// date with or without a time and a zone.
pub(crate) fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let invalid = || {
        ApiError::invalid(format!(
            "invalid value {text:?}: write seconds since 1970, a duration such as 10m, or an RFC 3339 time"
        ))
    };
    if let Some(time) = unix_time(text) {
        return Ok(time);
    }
    if let Some(ago) = go_duration(text) {
        return now.checked_sub(ago).map_err(|_| invalid());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // A time without a zone is the daemon's local time, as in Docker.
    let local = text.parse::<jiff::civil::DateTime>().map_err(|_| invalid())?;
    Ok(local.to_zoned(TimeZone::system()).map_err(|_| invalid())?.timestamp())
}

/// `1700000000` or `1700000000.123456789`.
fn unix_time(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

/// Go's durations: `1h30m`, `1.5s`, `300ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// The kernel's `st_mode` as Go's `os.FileMode`, which has the kind of file in its upper bits.
pub(crate) fn go_mode(mode: u32) -> u32 {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => DIR,
        libc::S_IFLNK => SYMLINK,
        libc::S_IFBLK => DEVICE,
        libc::S_IFCHR => DEVICE | CHAR_DEVICE,
        libc::S_IFIFO => NAMED_PIPE,
        libc::S_IFSOCK => SOCKET,
        _ => 0,
    };
    let bit = |from: u32, to: u32| if mode & from == 0 { 0 } else { to };
    kind | bit(libc::S_ISUID, SETUID)
        | bit(libc::S_ISGID, SETGID)
        | bit(libc::S_ISVTX, STICKY)
        | (mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_times_are_read() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let read = |text: &str| parse_time(text, now).map(|time| time.as_nanosecond());
        assert_eq!(read("1600000000").unwrap(), 1_600_000_000_000_000_000);
        assert_eq!(read("1600000000.5").unwrap(), 1_600_000_000_500_000_000);
        assert_eq!(read("1600000000.000000001").unwrap(), 1_600_000_000_000_000_001);
        assert_eq!(read("1m30s").unwrap(), 1_699_999_910_000_000_000);
        assert_eq!(read("2020-09-13T12:26:40Z").unwrap(), 1_600_000_000_000_000_000);
        assert_eq!(read("2020-09-13T14:26:40+02:00").unwrap(), 1_600_000_000_000_000_000);
        assert!(read("2020-09-13").is_ok() && read("2020-09-13T12:26:40").is_ok());
        assert!(read("yesterday").is_err() && read("10x").is_err());
    }

    #[test]
    fn never_is_the_year_one() {
        assert_eq!(rfc3339(None), "0001-01-01T00:00:00Z");
        let time = Timestamp::from_nanosecond(1_600_000_000_123_000_000).unwrap();
        assert_eq!(rfc3339(Some(time)), "2020-09-13T12:26:40.123Z");
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
    }
}

//! The query part of a URL, read as Docker reads it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use portolan_api::Filters;

use super::ApiError;

/// Keys and values of a query, in the order given; a key may come several times.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<Parameter>);

#[derive(Debug)]
struct Parameter {
    key: String,
    value: String,
    /// A route has asked for it.
    read: AtomicBool,
}

impl Query {
    /// Reads `a=1&b=2` with percent escapes and `+` for blanks. Broken escapes are taken literally.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part| percent_decode(part, true).into_owned();
            Parameter { key: text(key), value: text(value), read: AtomicBool::new(false) }
        });
        Query(pairs.collect())
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |parameter| parameter.key == key).map(|parameter| {
            parameter.read.store(true, Ordering::Relaxed);
            parameter.value.as_str()
        })
    }

    /// The first value of a key, if it is not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|parameter| parameter.key == key)?;
        found.read.store(true, Ordering::Relaxed);
        Some(found.value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a key.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.values(key).map(str::to_owned).collect()
    }

    /// Keys that nobody has asked for: they had no effect.
    pub(crate) fn unread(&self) -> Vec<&str> {
        let unread = self.0.iter().filter(|parameter| !parameter.read.load(Ordering::Relaxed));
        unread.map(|parameter| parameter.key.as_str()).collect()
    }

    /// A flag: absent, empty, `0`, `no`, `false` and `none` are false, everything else is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        match self.get(key) {
            None => false,
            Some(value) => {
                !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
            }
        }
    }

    /// A flag with a default for when the key is absent.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        if self.values(key).next().is_some() { self.flag(key) } else { default }
    }

    /// A whole number.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value
            .parse()
            .map(Some)
            .map_err(|_| ApiError::invalid(format!("invalid value {value:?} for {key}: not an integer")))
    }

    /// The `filters` parameter.
    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        Ok(Filters::parse(self.get("filters").unwrap_or_default())?)
    }
}

/// Undoes percent escapes; in queries `+` is a blank too. What is no escape stays as it is, what is not UTF-8
/// is replaced.
pub(crate) fn percent_decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || (plus && byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => match (tail.first().and_then(hex_digit), tail.get(1).and_then(hex_digit)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = &tail[2..];
                }
                _ => bytes.push(b'%'),
            },
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex_digit(byte: &u8) -> Option<u8> {
    char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_docker_reads_them() {
        let query = Query::parse("a=1&b=true&c=True&d=0&e=false&f=&g=none&h=yes&z=1");
        let flags: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(|key| query.flag(key)).into();
        assert_eq!(flags, [true, true, true, false, false, false, false, true, false]);
        assert_eq!(query.unread(), ["z"]);
        assert!(query.flag_or("i", true));
        assert!(!query.flag_or("f", true));
    }

    #[test]
    fn escapes_are_undone() {
        let query =
            Query::parse("filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D&x=a+b%2Bc&y=100%&z=%e2%82%ac");
        assert_eq!(query.get("filters"), Some(r#"{"label":["a=b"]}"#));
        assert_eq!(
            (query.get("x"), query.get("y"), query.get("z")),
            (Some("a b+c"), Some("100%"), Some("€"))
        );
        assert_eq!(percent_decode("a+b%2fc", false), "a+b/c");
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let query = Query::parse("t=-1&limit=many");
        assert_eq!(query.integer("t").unwrap(), Some(-1));
        assert_eq!(query.integer("missing").unwrap(), None);
        assert!(query.integer("limit").unwrap_err().message.contains("many"));
    }
}

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use crate::error::{Error, Result};

/// Splits at spaces outside of quotes; quotes and escapes stay for [`expand_word`].
pub(super) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', Some('"') | None) => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Removes quotes and escapes, and puts in the values of `$NAME`, `${NAME}`, `${NAME:-default}` and
/// `${NAME:+alternative}`, but not in single quotes.
pub(super) fn expand_word(text: &str, environment: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, Some('\'')) => out.push(c),
            ('\\', None) => out.extend(chars.next()),
            // In double quotes only these can be escaped.
            ('\\', _) => match chars.peek() {
                Some('"' | '$' | '\\') => out.extend(chars.next()),
                _ => out.push('\\'),
            },
            ('$', _) => expand_variable(&mut chars, environment, &mut out)?,
            (c, _) => out.push(c),
        }
    }
    if let Some(open) = quote {
        return Err(Error::invalid(format!("unexpected end of statement while looking for matching {open}")));
    }
    Ok(out)
}

/// Expands, and splits what is not quoted.
pub(super) fn expand_words(text: &str, environment: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for word in split_words(text) {
        let expanded = expand_word(&word, environment)?;
        if word.contains(['"', '\'']) {
            words.push(expanded);
        } else {
            words.extend(expanded.split_whitespace().map(str::to_owned));
        }
    }
    Ok(words)
}

fn expand_variable(
    chars: &mut Peekable<Chars<'_>>,
    environment: &BTreeMap<String, String>,
    out: &mut String,
) -> Result<()> {
    let value = |name: &str| environment.get(name).cloned().unwrap_or_default();
    if chars.next_if_eq(&'{').is_none() {
        let name = take_name(chars);
        if name.is_empty() {
            out.push('$');
        }
        out.push_str(&value(&name));
        return Ok(());
    }
    let name = take_name(chars);
    let mut inner = String::new();
    let mut depth = 1;
    for c in chars.by_ref() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        inner.push(c);
    }
    if depth > 0 {
        return Err(Error::invalid("syntax error: missing '}'"));
    }
    let current = value(&name);
    let expanded = match inner.as_str() {
        "" if !name.is_empty() => current,
        _ if inner.starts_with(":-") && current.is_empty() => expand_word(&inner[2..], environment)?,
        _ if inner.starts_with(":-") => current,
        _ if inner.starts_with(":+") && current.is_empty() => String::new(),
        _ if inner.starts_with(":+") => expand_word(&inner[2..], environment)?,
        _ => return Err(Error::invalid(format!("unsupported modifier in substitution: ${{{name}{inner}}}"))),
    };
    out.push_str(&expanded);
    Ok(())
}

fn take_name(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
        // `$1` and the like are one character long.
        if name.len() == 1 && c.is_ascii_digit() {
            break;
        }
    }
    name
}

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// `key` or `key=value`.
pub(super) fn label_holds(labels: &BTreeMap<String, String>, filter: &str) -> bool {
    match filter.split_once('=') {
        None => labels.contains_key(filter),
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
    }
}

/// Go's `path.Match`: `*` and `?` stop at slashes, `[a-z]` and `[^a-z]` are classes, `\` escapes.
pub(super) fn path_matches(pattern: &str, text: &str) -> Result<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    check_pattern(&pattern)?;
    Ok(matches_from(&pattern, &text))
}

fn check_pattern(pattern: &[char]) -> Result<()> {
    let bad = || Error::invalid("syntax error in pattern");
    let mut at = 0;
    while at < pattern.len() {
        at = match pattern[at] {
            '[' => at + class(&pattern[at..], '\0').ok_or_else(bad)?.1,
            '\\' if at + 1 == pattern.len() => return Err(bad()),
            '\\' => at + 2,
            _ => at + 1,
        };
    }
    Ok(())
}

/// Greedy matching with one point to come back to: the last star.
fn matches_from(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p == pattern.len() && t == text.len() {
            return true;
        }
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(_) if t == text.len() => None,
            Some('?') => (text[t] != '/').then_some(1),
            Some('[') => class(&pattern[p..], text[t]).filter(|(holds, _)| *holds).map(|(_, length)| length),
            Some('\\') => (pattern.get(p + 1) == Some(&text[t])).then_some(2),
            Some(c) => (*c == text[t]).then_some(1),
            None => None,
        };
        if let Some(length) = step {
            p += length;
            t += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < text.len() && text[from] != '/' => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Whether `c` is in the class that begins here, and how long the class is; none if it is malformed.
fn class(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut holds = false;
    let mut first = true;
    loop {
        let mut low = *pattern.get(at)?;
        if low == ']' && !first {
            return Some((holds != negated, at + 1));
        }
        if matches!(low, ']' | '-') {
            return None;
        }
        if low == '\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        at += 1;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            high = *pattern.get(at + 1)?;
            at += 2;
            if high == ']' {
                return None;
            }
            if high == '\\' {
                high = *pattern.get(at)?;
                at += 1;
            }
        }
        holds |= (low..=high).contains(&c);
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_gos() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("*:latest", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("ghcr.io/*/app", "ghcr.io/me/app", true),
            ("b?sy[a-c]ox", "busybox", true),
            ("b?sy[^b]ox", "busybox", false),
            ("a\\*", "a*", true),
            ("a*b*c", "aXbYbZc", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(path_matches(pattern, text).unwrap(), expected, "{pattern} {text}");
        }
        for bad in ["[", "[]", "[a", "[a-]", "\\"] {
            assert!(path_matches(bad, "a").is_err(), "{bad}");
        }
    }
}

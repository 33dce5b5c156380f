//! Reading Docker's JSON without a type for each answer.
//!
//! The CLI talks to every API version from 1.40 on, shows raw answers through templates, and reads
//! only a few fields of each: so it reads by name, and a missing or null field is simply empty.

use serde_json::Value;

/// Look-ups that treat missing, null and wrongly typed fields as empty.
pub(crate) trait Json {
    /// The member, or null.
    fn get_or_null(&self, key: &str) -> &Value;
    /// The member of a member ... or null.
    fn at(&self, path: &[&str]) -> &Value;
    /// The member's text, or the empty text.
    fn text(&self, key: &str) -> &str;
    /// The member's number, or 0.
    fn int(&self, key: &str) -> i64;
    /// The member's number, or 0.
    fn number(&self, key: &str) -> f64;
    /// The member's truth, or false.
    fn on(&self, key: &str) -> bool;
    /// The member's elements, or none.
    fn items(&self, key: &str) -> &[Value];
    /// The member's texts, or none.
    fn texts(&self, key: &str) -> Vec<&str>;
    /// The member's entries, or none.
    fn entries(&self, key: &str) -> Vec<(&str, &Value)>;
}

static NULL: Value = Value::Null;

impl Json for Value {
    fn get_or_null(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }

    fn at(&self, path: &[&str]) -> &Value {
        path.iter().fold(self, |value, key| value.get(*key).unwrap_or(&NULL))
    }

    fn text(&self, key: &str) -> &str {
        self.get_or_null(key).as_str().unwrap_or_default()
    }

    fn int(&self, key: &str) -> i64 {
        self.get_or_null(key).as_i64().unwrap_or_default()
    }

    fn number(&self, key: &str) -> f64 {
        self.get_or_null(key).as_f64().unwrap_or_default()
    }

    fn on(&self, key: &str) -> bool {
        self.get_or_null(key).as_bool().unwrap_or_default()
    }

    fn items(&self, key: &str) -> &[Value] {
        self.get_or_null(key).as_array().map_or(&[], Vec::as_slice)
    }

    fn texts(&self, key: &str) -> Vec<&str> {
        self.items(key).iter().filter_map(Value::as_str).collect()
    }

    fn entries(&self, key: &str) -> Vec<(&str, &Value)> {
        self.get_or_null(key)
            .as_object()
            .map(|map| map.iter().map(|(key, value)| (key.as_str(), value)).collect())
            .unwrap_or_default()
    }
}

/// Lays out JSON text with `indent` a level, leaving every scalar exactly as it was sent (numbers,
/// escapes, order), as Go's `json.Indent` does.
pub(crate) fn indent(raw: &str, indent: &str) -> String {
    let mut out = String::with_capacity(raw.len() * 2);
    let mut depth = 0usize;
    let mut chars = raw.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    };
    let mut in_text = false;
    while let Some(c) = chars.next() {
        if in_text {
            out.push(c);
            match c {
                '\\' => out.extend(chars.next()),
                '"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => {
                in_text = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Writes a value as Go's `encoding/json` does: compact, with `<`, `>` and `&` escaped.
pub(crate) fn go_json(value: &Value) -> String {
    let plain = value.to_string();
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    plain
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indent_keeps_scalars() {
        assert_eq!(
            indent(r#"[{"a":1e3,"b":[],"c":{ },"d":["x:\"{",null]}]"#, "    "),
            "[\n    {\n        \"a\": 1e3,\n        \"b\": [],\n        \"c\": {},\n        \"d\": [\n            \"x:\\\"{\",\n            null\n        ]\n    }\n]"
        );
    }
}

//! Writing values as Go's `fmt` does.

use serde_json::Value;

use crate::units;

/// Writes a value as Go's `%v`; a missing value is `<no value>` at the top and `<nil>` inside.
pub(super) fn print(value: &Value, top: bool) -> String {
    match value {
        Value::Null if top => "<no value>".to_owned(),
        Value::Null => "<nil>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(float)) if number.is_f64() => go_float(float),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| print(item, false)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key}:{}", print(value, false))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// Go's `%v` of a float: shortest, with an exponent from 1e+21 on.
fn go_float(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e21).contains(&value.abs()) {
        units::general(value, 17)
    } else {
        value.to_string()
    }
}

/// Go's `printf` with the verbs that templates use: `%s %v %d %q %t %x %X %o %b %c %f %e %g %%`,
/// with flags, width and precision.
pub(super) fn printf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | '#' | '0' | ' ')) {
            flags.push(flag);
        }
        let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut text = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                text.push(digit);
            }
            text
        };
        let width: usize = digits(&mut chars).parse().unwrap_or(0);
        let precision = chars.next_if_eq(&'.').map(|_| digits(&mut chars).parse::<usize>().unwrap_or(0));
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match args.next() {
            Some(value) => verb_text(verb, value, &flags, precision),
            None => format!("%!{verb}(MISSING)"),
        };
        pad_into(&mut out, &text, width, &flags);
    }
    let extra: Vec<_> = args.map(|value| print(value, false)).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn verb_text(verb: char, value: &Value, flags: &str, precision: Option<usize>) -> String {
    let text = match (verb, value) {
        ('v', _) => print(value, false),
        ('s', Value::String(text)) => match precision {
            Some(count) => text.chars().take(count).collect(),
            None => text.clone(),
        },
        ('s', Value::Array(_) | Value::Object(_)) => print(value, false),
        ('q', Value::String(text)) => super::functions::go_quote(text),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('t', Value::Bool(truth)) => truth.to_string(),
        (_, Value::Number(number)) => match (verb, number.as_i64(), number.as_f64()) {
            ('d', Some(whole), _) if !number.is_f64() => whole.to_string(),
            ('x', Some(whole), _) => format!("{whole:x}"),
            ('X', Some(whole), _) => format!("{whole:X}"),
            ('o', Some(whole), _) => format!("{whole:o}"),
            ('b', Some(whole), _) => format!("{whole:b}"),
            ('c', Some(whole), _) => {
                u32::try_from(whole).ok().and_then(char::from_u32).map(String::from).unwrap_or_default()
            }
            ('f' | 'F', _, Some(float)) => format!("{float:.*}", precision.unwrap_or(6)),
            ('g', _, Some(float)) => units::general(float, precision.unwrap_or(17)),
            _ => format!("%!{verb}({})", print(value, false)),
        },
        _ => format!("%!{verb}({})", print(value, false)),
    };
    match value {
        Value::Number(_) if flags.contains('+') && !text.starts_with('-') => format!("+{text}"),
        _ => text,
    }
}

fn pad_into(out: &mut String, text: &str, width: usize, flags: &str) {
    let missing = width.saturating_sub(text.chars().count());
    if flags.contains('-') {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else {
        let fill = if flags.contains('0') { '0' } else { ' ' };
        out.extend(std::iter::repeat_n(fill, missing));
        out.push_str(text);
    }
}

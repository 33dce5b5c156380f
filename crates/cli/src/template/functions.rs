//! The functions of templates: Go's own and Docker's.

use std::cmp::Ordering;

use serde_json::Value;

use super::print::{print, printf};
use super::{Datum, types};
use crate::json::go_json;

const NAMES: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "eq", "ne", "lt", "le", "gt",
    "ge", "html", "js", "urlquery", "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// Whether there is such a function.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether the function leaves a table's heading as it is.
pub(super) fn passes_heading(name: &str) -> bool {
    matches!(name, "json" | "title" | "lower" | "upper" | "pad" | "truncate" | "join" | "split")
}

/// Go's truth: false, 0, nothing and what is empty are not true.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Calls a function with what may be Docker's structures: what `index` finds in them keeps its type, `json` and
/// the functions that print see them as Go does, and the others see plain values.
pub(super) fn call_typed<'d>(name: &str, args: Vec<Datum<'d>>) -> Result<Datum<'d>, String> {
    if name == "index"
        && let [Datum::Typed(value, kind), key, rest @ ..] = args.as_slice()
        && let Some(found) = types::index(value, *kind, &key.value())
    {
        if rest.is_empty() {
            return Ok(found);
        }
        let args = std::iter::once(found).chain(rest.iter().cloned()).collect();
        return call_typed(name, args);
    }
    let args = args.iter().map(|arg| match (name, arg) {
        ("json", Datum::Typed(value, kind)) => types::encode(value, *kind),
        ("print" | "printf" | "println" | "html" | "js" | "urlquery", Datum::Typed(value, kind)) => {
            Value::from(types::show(value, *kind))
        }
        (_, arg) => arg.value(),
    });
    call(name, args.collect()).map(Datum::Json)
}

/// Calls a function.
fn call(name: &str, args: Vec<Value>) -> Result<Value, String> {
    let count = |wanted: usize| {
        if args.len() == wanted {
            Ok(())
        } else {
            Err(format!("wrong number of args for {name}: want {wanted} got {}", args.len()))
        }
    };
    let text = |at: usize| match args.get(at) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(Value::Null) => Ok(""),
        Some(other) => Err(format!("wrong type for value; expected string; got {}", type_name(other))),
        None => Err(format!("wrong number of args for {name}")),
    };
    let number = |at: usize| {
        args.get(at).and_then(Value::as_i64).ok_or_else(|| format!("expected integer argument of {name}"))
    };
    match name {
        "and" | "or" => {
            let decided = args.iter().find(|arg| truth(arg) == (name == "or"));
            decided
                .or(args.last())
                .cloned()
                .ok_or_else(|| format!("wrong number of args for {name}: want at least 1 got 0"))
        }
        "not" => count(1).map(|()| Value::Bool(!truth(&args[0]))),
        "len" => count(1).and_then(|()| length(&args[0]).map(Value::from)),
        "index" => index(&args),
        "slice" => slice(&args),
        "print" => Ok(Value::from(print_all(&args, false))),
        "println" => Ok(Value::from(print_all(&args, true) + "\n")),
        "printf" => Ok(Value::from(printf(text(0)?, &args[1..]))),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, &args).map(Value::Bool),
        "html" => Ok(Value::from(html(&print_all(&args, false)))),
        "js" => Ok(Value::from(
            print_all(&args, false)
                .replace('\\', "\\\\")
                .replace('\'', "\\'")
                .replace('"', "\\\"")
                .replace('\n', "\\n"),
        )),
        "urlquery" => Ok(Value::from(crate::client::escape(&print_all(&args, false)).replace("%20", "+"))),
        "json" => count(1).map(|()| Value::from(go_json(&args[0]))),
        "split" => count(2).and_then(|()| {
            let separator = text(1)?;
            Ok(if separator.is_empty() {
                text(0)?.chars().map(String::from).collect()
            } else {
                text(0)?.split(separator).map(str::to_owned).collect()
            })
        }),
        "join" => count(2).and_then(|()| {
            let items = args[0].as_array().map_or(&[][..], Vec::as_slice);
            let items: Vec<_> = items.iter().map(|item| print(item, false)).collect();
            Ok(Value::from(items.join(text(1)?)))
        }),
        "title" => count(1).and_then(|()| Ok(Value::from(title(text(0)?)))),
        "lower" => count(1).and_then(|()| Ok(Value::from(text(0)?.to_lowercase()))),
        "upper" => count(1).and_then(|()| Ok(Value::from(text(0)?.to_uppercase()))),
        "pad" => count(3).and_then(|()| {
            let spaces = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0));
            let padded = match text(0)? {
                "" => String::new(),
                text => format!("{}{text}{}", spaces(number(1)?), spaces(number(2)?)),
            };
            Ok(Value::from(padded))
        }),
        "truncate" => count(2).and_then(|()| {
            let length = usize::try_from(number(1)?).unwrap_or(0);
            Ok(Value::from(text(0)?.chars().take(length).collect::<String>()))
        }),
        _ => Err(format!("function {name:?} not defined")),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(map) => Ok(map.len()),
        Value::Null => Err("len of nil pointer".to_owned()),
        other => Err(format!("len of type {}", type_name(other))),
    }
}

fn index(args: &[Value]) -> Result<Value, String> {
    let (first, keys) = args.split_first().ok_or("wrong number of args for index: want at least 1 got 0")?;
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Array(items), key) => {
                let at = key
                    .as_i64()
                    .ok_or_else(|| format!("cannot index slice/array with type {}", type_name(key)))?;
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at))
                    .cloned()
                    .ok_or_else(|| format!("error calling index: index out of range: {at}"))?
            }
            (Value::Object(map), Value::String(key)) => map.get(key).cloned().unwrap_or(Value::Null),
            (Value::Null, _) => return Err("error calling index: index of untyped nil".to_owned()),
            (Value::String(text), key) => key
                .as_i64()
                .and_then(|at| text.as_bytes().get(usize::try_from(at).ok()?))
                .map(|byte| Value::from(*byte))
                .ok_or_else(|| "error calling index: index out of range".to_owned())?,
            (other, _) => {
                return Err(format!("error calling index: can't index item of type {}", type_name(other)));
            }
        };
    }
    Ok(value)
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let value = args.first().ok_or("wrong number of args for slice: want at least 1 got 0")?;
    let size = length(value)?;
    let bound = |at: usize, default: usize| match args.get(at) {
        None => Ok(default),
        Some(bound) => bound
            .as_u64()
            .and_then(|bound| usize::try_from(bound).ok())
            .filter(|bound| *bound <= size)
            .ok_or_else(|| format!("error calling slice: index out of range: {bound}")),
    };
    let (low, high) = (bound(1, 0)?, bound(2, size)?);
    let wrong = || format!("error calling slice: invalid slice index: {low} > {high}");
    match value {
        Value::String(text) => text.get(low..high).map(Value::from).ok_or_else(wrong),
        Value::Array(items) => {
            items.get(low..high).map(|items| Value::from(items.to_vec())).ok_or_else(wrong)
        }
        other => Err(format!("can't slice item of type {}", type_name(other))),
    }
}

fn compare(name: &str, args: &[Value]) -> Result<bool, String> {
    let (first, others) = args.split_first().ok_or("missing argument for comparison")?;
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    if name == "eq" {
        return Ok(others.iter().any(|other| equal(first, other)));
    }
    let second = &others[0];
    if name == "ne" {
        return Ok(!equal(first, second));
    }
    let order = match (first, second) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        _ => return Err("incompatible types for comparison".to_owned()),
    };
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn print_all(args: &[Value], spaces: bool) -> String {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        let between_texts = at > 0 && (arg.is_string() || args[at - 1].is_string());
        if at > 0 && (spaces || !between_texts) {
            out.push(' ');
        }
        out.push_str(&print(arg, false));
    }
    out
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

fn title(text: &str) -> String {
    let mut at_start = true;
    text.chars()
        .flat_map(|c| {
            let upper = at_start;
            at_start = !c.is_alphanumeric() && c != '_' && c != '\'';
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Quotes text as Go's `strconv.Quote`.
pub(crate) fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An id as lists show it: without the digest's algorithm, 12 digits.
pub(crate) fn truncate_id(id: &str) -> String {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.chars().take(12).collect()
}

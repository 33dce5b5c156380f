//! JSON seen as one of Docker's Go structures: absent fields have Go's zero values, and structures, maps and
//! lists print as Go prints them.

use serde_json::{Map as Object, Value};

use super::Datum;
use super::print::print;

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Whatever the JSON is.
    Any,
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// True or false.
    Bool,
    /// RFC 3339 in JSON, Go's own form in print.
    Time,
    /// Nanoseconds in JSON, `1m30s` in print.
    Duration,
    /// What may be absent, and is `<nil>` then.
    Pointer(&'static Kind),
    /// A list; an absent one is empty.
    List(&'static Kind),
    /// A map with keys of the user's choice; an absent one is empty.
    Map(&'static Kind),
    /// A structure.
    Struct(&'static Struct),
}

/// A structure: its fields in the order in which Go prints them.
#[derive(Debug)]
pub(crate) struct Struct {
    /// Its name in Go, which is also the field's if it is a part of another structure.
    pub(super) name: &'static str,
    /// Its fields.
    pub(super) fields: &'static [Field],
}

/// A field of a structure.
#[derive(Debug)]
pub(crate) struct Field {
    /// The name in templates.
    name: &'static str,
    /// The name in JSON; `None` for the fields of a part, which stand beside the others there.
    json: Option<&'static str>,
    kind: Kind,
    /// JSON leaves it out when it is empty.
    optional: bool,
}

/// A field that JSON spells as templates do.
pub(super) const fn field(name: &'static str, kind: Kind) -> Field {
    spelt(name, name, kind)
}

/// A field that JSON spells in another way.
pub(super) const fn spelt(name: &'static str, json: &'static str, kind: Kind) -> Field {
    Field { name, json: Some(json), kind, optional: false }
}

/// A structure whose fields are also fields of the one round it.
pub(super) const fn part(of: &'static Struct) -> Field {
    Field { name: "", json: None, kind: Kind::Struct(of), optional: false }
}

impl Field {
    pub(super) const fn optional(self) -> Field {
        Field { optional: true, ..self }
    }

    fn of(&self, whole: &Value) -> Value {
        match self.json {
            Some(name) => whole.get(name).cloned().unwrap_or_default(),
            None => whole.clone(),
        }
    }
}

impl Struct {
    fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find_map(|field| match (field.json, field.kind) {
            (None, Kind::Struct(part)) if part.is_called(name) => Some(field),
            (None, Kind::Struct(part)) => part.field(name),
            _ => (field.name == name).then_some(field),
        })
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.rsplit('.').next() == Some(name)
    }
}

/// JSON of a kind, as a template sees it: texts, numbers and truths are plain, with their zero values.
pub(super) fn see<'d>(value: Value, kind: Kind) -> Datum<'d> {
    match (kind, &value) {
        (Kind::Any, _) => Datum::Json(value),
        (Kind::Text, Value::Null) => Datum::Json(Value::from("")),
        (Kind::Int, Value::Null) => Datum::Json(Value::from(0)),
        (Kind::Bool, Value::Null) => Datum::Json(Value::from(false)),
        (Kind::Text | Kind::Int | Kind::Bool, _) => Datum::Json(value),
        (Kind::Pointer(of), value) if !value.is_null() => see(value.clone(), *of),
        _ => Datum::Typed(value, kind),
    }
}

/// A field of a value of some kind.
pub(super) fn field_of<'d>(value: &Value, kind: Kind, name: &str) -> Result<Datum<'d>, String> {
    match kind {
        Kind::Struct(of) => of
            .field(name)
            .map(|field| see(field.of(value), field.kind))
            .ok_or_else(|| format!("can't evaluate field {name} in type {}", of.name)),
        Kind::Map(of) => Ok(value.get(name).map_or(Datum::Absent, |value| see(value.clone(), *of))),
        Kind::Pointer(of) => Err(format!("nil pointer evaluating *{}.{name}", type_name(*of))),
        _ => Err(format!("can't evaluate field {name} in type {}", type_name(kind))),
    }
}

/// What `index` finds in a list or map; what a map lacks is its elements' zero value.
pub(super) fn index<'d>(value: &Value, kind: Kind, key: &Value) -> Option<Datum<'d>> {
    let key = match key {
        Value::Number(at) => return element(value, kind, usize::try_from(at.as_u64()?).ok()?),
        Value::String(key) => key,
        _ => return None,
    };
    match kind {
        Kind::Map(of) => Some(see(value.get(key).cloned().unwrap_or_default(), *of)),
        _ => None,
    }
}

fn element<'d>(value: &Value, kind: Kind, at: usize) -> Option<Datum<'d>> {
    match kind {
        Kind::List(of) => value.get(at).map(|value| see(value.clone(), *of)),
        _ => None,
    }
}

/// The elements of a list or map, with their keys; `None` for what has none.
pub(super) fn elements<'d>(value: &Value, kind: Kind) -> Option<Vec<(Value, Datum<'d>)>> {
    let (Kind::List(of) | Kind::Map(of)) = kind else { return None };
    Some(match value {
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, item)| (Value::from(at), see(item.clone(), *of))).collect()
        }
        Value::Object(map) => sorted(map)
            .into_iter()
            .map(|(key, value)| (Value::from(key.as_str()), see(value.clone(), *of)))
            .collect(),
        _ => Vec::new(),
    })
}

fn type_name(kind: Kind) -> String {
    match kind {
        Kind::Any => "interface {}".to_owned(),
        Kind::Text => "string".to_owned(),
        Kind::Int => "int64".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Time => "time.Time".to_owned(),
        Kind::Duration => "time.Duration".to_owned(),
        Kind::Pointer(of) => format!("*{}", type_name(*of)),
        Kind::List(of) => format!("[]{}", type_name(*of)),
        Kind::Map(of) => format!("map[string]{}", type_name(*of)),
        Kind::Struct(of) => of.name.to_owned(),
    }
}

fn sorted(map: &Object<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    entries
}

/// Prints as Go's `%v`. Where Go prints the address of what a pointer inside points at, this prints the thing,
/// which is what was asked for.
pub(super) fn show(value: &Value, kind: Kind) -> String {
    match kind {
        Kind::Any => print(value, false),
        Kind::Text | Kind::Int | Kind::Bool => print(&see(value.clone(), kind).value(), false),
        Kind::Time => time(value.as_str()),
        Kind::Duration => duration(value.as_i64().unwrap_or_default()),
        Kind::Pointer(_) if value.is_null() => "<nil>".to_owned(),
        Kind::Pointer(of) => show(value, *of),
        Kind::List(of) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let items: Vec<_> = items.iter().map(|item| show(item, *of)).collect();
            format!("[{}]", items.join(" "))
        }
        Kind::Map(of) => {
            let entries = value.as_object().map(sorted).unwrap_or_default();
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key}:{}", show(value, *of))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Kind::Struct(of) => {
            let fields: Vec<_> = of.fields.iter().map(|field| show(&field.of(value), field.kind)).collect();
            format!("{{{}}}", fields.join(" "))
        }
    }
}

/// Go's text of a time: `2026-11-30 20:29:23.833767785 +0000 UTC`.
fn time(rfc3339: Option<&str>) -> String {
    let text = rfc3339.unwrap_or("0001-01-01T00:00:00Z").replacen('T', " ", 1);
    match (text.strip_suffix('Z'), text.rsplit_once(['+', '-'])) {
        (Some(utc), _) => format!("{utc} +0000 UTC"),
        (None, Some((local, zone))) => {
            let sign = &text[local.len()..=local.len()];
            let zone = zone.replace(':', "");
            format!("{local} {sign}{zone} {sign}{zone}")
        }
        _ => text,
    }
}

/// Go's text of a duration: `1h2m3.5s`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    // Below a second Go takes the largest unit that fits.
    let (unit, size) = match all {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let (whole, rest) = (all / size, all % size);
    let digits = size.ilog10() as usize;
    let fraction = if digits == 0 { String::new() } else { format!(".{rest:0digits$}") };
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hours, minutes) = (whole / 3600, whole / 60 % 60);
    match (unit, hours, minutes) {
        ("s", 0, 0) | ("ns" | "µs" | "ms", ..) => format!("{sign}{whole}{fraction}{unit}"),
        (_, 0, _) => format!("{sign}{minutes}m{}{fraction}s", whole % 60),
        _ => format!("{sign}{hours}h{minutes}m{}{fraction}s", whole % 60),
    }
}

/// The JSON that Go writes: every field that is not optional, in order.
pub(super) fn encode(value: &Value, kind: Kind) -> Value {
    match kind {
        Kind::Any | Kind::Text | Kind::Int | Kind::Bool => see(value.clone(), kind).value(),
        Kind::Time if value.is_null() => Value::from("0001-01-01T00:00:00Z"),
        Kind::Duration if value.is_null() => Value::from(0),
        Kind::Pointer(of) if !value.is_null() => encode(value, *of),
        Kind::Struct(of) => {
            let mut out = Object::new();
            encode_fields(value, of, &mut out);
            Value::Object(out)
        }
        Kind::List(of) => match value {
            Value::Array(items) => items.iter().map(|item| encode(item, *of)).collect(),
            other => other.clone(),
        },
        Kind::Map(of) => match value {
            Value::Object(map) => Value::Object(
                sorted(map).into_iter().map(|(key, value)| (key.clone(), encode(value, *of))).collect(),
            ),
            other => other.clone(),
        },
        Kind::Time | Kind::Duration | Kind::Pointer(_) => value.clone(),
    }
}

fn encode_fields(value: &Value, of: &Struct, out: &mut Object<String, Value>) {
    for field in of.fields {
        match (field.json, field.kind) {
            (None, Kind::Struct(part)) => encode_fields(value, part, out),
            (None, _) => {}
            (Some(name), kind) => {
                let given = field.of(value);
                if !(field.optional && is_empty(&given, kind)) {
                    out.insert(name.to_owned(), encode(&given, kind));
                }
            }
        }
    }
}

/// What `omitempty` leaves out; a structure or time never is, and what a pointer points at counts as something.
fn is_empty(value: &Value, kind: Kind) -> bool {
    match kind {
        Kind::Pointer(_) => value.is_null(),
        Kind::Struct(_) => false,
        Kind::Time => value.is_null(),
        _ => !super::functions::truth(value),
    }
}

/// The value for functions that know no types: lists and maps are there even when they are absent, and
/// structures have all their fields.
pub(super) fn plain(value: &Value, kind: Kind) -> Value {
    match (kind, value) {
        (Kind::List(_), Value::Null) => Value::Array(Vec::new()),
        (Kind::Map(_), Value::Null) => Value::Object(Object::new()),
        (Kind::Time, _) => Value::from(time(value.as_str())),
        _ => encode(value, kind),
    }
}

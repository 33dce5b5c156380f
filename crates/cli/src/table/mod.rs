//! Lists: columns, `--format`, and what each list shows.

pub(crate) mod columns;
pub(crate) mod containers;
pub(crate) mod images;
pub(crate) mod ports;

use std::rc::Rc;

use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::json::Json;
use crate::session::write_out;
use crate::template::{Datum, Kind, Row, Struct, Template, TemplateError};

/// What a list shows: its columns and how each is computed.
pub(crate) struct List<'l> {
    /// What error texts call a row.
    pub(crate) type_name: &'static str,
    /// The columns and their headings.
    pub(crate) headings: &'l [(&'static str, &'static str)],
    /// The template of the table without `--format`.
    pub(crate) default: &'l str,
    /// The template with `--quiet`.
    pub(crate) quiet: &'l str,
    /// A column of an item; `None` if the list has none of that name.
    pub(crate) field: &'l dyn Fn(&Value, &str) -> Option<Value>,
}

struct Item<'l> {
    list: &'l List<'l>,
    item: &'l Value,
}

impl Row for Item<'_> {
    fn type_name(&self) -> &str {
        self.list.type_name
    }

    fn field(&self, name: &str, args: &[Value]) -> Option<Value> {
        if name == "Label"
            && let Some(Value::String(label)) = args.first()
        {
            let value = self.item.at(&["Labels", label]).as_str();
            return Some(Value::from(value.unwrap_or_default()));
        }
        (self.list.field)(self.item, name)
    }

    fn json(&self) -> Value {
        let mut names: Vec<_> = self.list.headings.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let row: Map<_, _> = names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), (self.list.field)(self.item, name)?)))
            .collect();
        Value::Object(row)
    }
}

/// The headings, as the data of a table's first line.
struct Headings<'l>(&'l [(&'static str, &'static str)]);

impl Row for Headings<'_> {
    fn type_name(&self) -> &str {
        "formatter.SubHeaderContext"
    }

    fn field(&self, name: &str, args: &[Value]) -> Option<Value> {
        if let (false, Some(Value::String(label))) = (args.is_empty(), args.first()) {
            // The heading of `{{.Label "a.b"}}` is the last part of the label's name.
            let last = label.rsplit('.').next().unwrap_or(label);
            return Some(Value::from(last.replace(['-', '_'], " ")));
        }
        let heading = self.0.iter().find(|(known, _)| *known == name);
        Some(heading.map_or(Value::Null, |(_, heading)| Value::from(*heading)))
    }

    fn json(&self) -> Value {
        Value::Null
    }
}

impl List<'_> {
    /// Writes the items to standard output. `format` is `--format`: empty or `table` for the usual
    /// table, `json`, `table TEMPLATE` or a template.
    ///
    /// # Errors
    /// When the template is wrong or standard output is closed.
    pub(crate) fn write(&self, format: &str, quiet: bool, items: &[Value]) -> Result<(), Failure> {
        write_out(&self.render(format, quiet, items)?)?;
        Ok(())
    }

    /// The text that [`List::write`] writes.
    ///
    /// # Errors
    /// When the template is wrong.
    pub(crate) fn render(&self, format: &str, quiet: bool, items: &[Value]) -> Result<String, Failure> {
        let usual = matches!(format, "" | "table");
        let (source, is_table) = match format {
            _ if quiet && (usual || !format.starts_with("table ")) => (self.quiet.to_owned(), false),
            _ if usual => (self.default.to_owned(), true),
            "json" => ("{{json .}}".to_owned(), false),
            format => match format.strip_prefix("table") {
                Some(rest) => (rest.to_owned(), true),
                None => (format.to_owned(), false),
            },
        };
        let source = source.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&source)
            .map_err(|why| Failure::new(format!("failed to parse template: {why}")))?;
        let mut out = String::new();
        if is_table {
            let headings = Datum::Row(Rc::new(Headings(self.headings)));
            out.push_str(&template.render_heading(headings).map_err(failed)?);
            out.push('\n');
        }
        for item in items {
            let row = Datum::Row(Rc::new(Item { list: self, item }));
            out.push_str(&template.render(row).map_err(failed)?);
            out.push('\n');
        }
        Ok(if is_table { columns::align(&out, 10, 3) } else { out })
    }
}

fn failed(why: TemplateError) -> Failure {
    Failure::new(format!("failed to execute template: {why}"))
}

/// Renders a template over one JSON value, with a line end.
///
/// # Errors
/// When the template is wrong or does not fit.
pub(crate) fn render_json(format: &str, value: &Value) -> Result<String, Failure> {
    render_one(format, Datum::Json(value.clone()))
}

/// Renders a template over one of Docker's structures, with a line end.
///
/// # Errors
/// When the template is wrong or does not fit.
pub(crate) fn render_typed(format: &str, value: &Value, of: &'static Struct) -> Result<String, Failure> {
    render_one(format, Datum::Typed(value.clone(), Kind::Struct(of)))
}

fn render_one(format: &str, value: Datum<'_>) -> Result<String, Failure> {
    let source = match format {
        "json" => "{{json .}}",
        other => other,
    };
    let mut out = Template::parse(source)
        .and_then(|template| template.render(value))
        .map_err(|why| Failure::new(format!("template parsing error: {why}")))?;
    out.push('\n');
    Ok(out)
}

/// Labels as one text: `a=1,b=2`, ordered.
pub(crate) fn labels(item: &Value) -> Value {
    let mut labels: Vec<_> = item
        .entries("Labels")
        .into_iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    labels.sort();
    Value::from(labels.join(","))
}

/// Cuts text to a display width; what is cut ends in an ellipsis.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

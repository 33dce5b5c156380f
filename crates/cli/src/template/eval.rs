//! Walks a template's tree over its data.

use serde_json::Value;

use super::functions;
use super::lex::Place;
use super::parse::{Base, Node, Operand, Pipeline};
use super::print::print;
use super::{Datum, TemplateError, types};

/// What is rendered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// Data.
    Data,
    /// The heading of a table: functions leave their last argument as it is.
    Heading,
}

struct Run<'d> {
    root: Datum<'d>,
    variables: Vec<(String, Datum<'d>)>,
    mode: Mode,
    out: String,
}

#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// Renders the tree.
pub(super) fn render(nodes: &[Node], data: Datum<'_>, mode: Mode) -> Result<String, TemplateError> {
    let mut run = Run { root: data.clone(), variables: Vec::new(), mode, out: String::new() };
    run.nodes(nodes, &data)?;
    Ok(run.out)
}

fn fail(place: Place, at: String, what: impl Into<String>) -> TemplateError {
    TemplateError::Execute { line: place.line, column: place.column, at, what: what.into() }
}

impl<'d> Run<'d> {
    fn nodes(&mut self, nodes: &[Node], dot: &Datum<'d>) -> Result<Flow, TemplateError> {
        for node in nodes {
            let scope = self.variables.len();
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Show(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&shown(&value));
                    }
                    continue;
                }
                Node::If(pipeline, then, otherwise) => {
                    let truth = functions::truth(&self.pipeline(pipeline, dot)?.value());
                    self.nodes(if truth { then } else { otherwise }, dot)?
                }
                Node::With(pipeline, then, otherwise) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if functions::truth(&value.value()) {
                        self.nodes(then, &value)?
                    } else {
                        self.nodes(otherwise, dot)?
                    }
                }
                Node::Range(pipeline, body, otherwise) => self.range(pipeline, body, otherwise, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            self.variables.truncate(scope);
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Datum<'d>,
    ) -> Result<Flow, TemplateError> {
        let plain = Pipeline { variables: Vec::new(), declares: false, commands: pipeline.commands.clone() };
        let over = self.pipeline(&plain, dot)?;
        let pairs = pairs(&over).ok_or_else(|| {
            let (place, at) = place_of(pipeline);
            fail(place, at, format!("range can't iterate over {}", shown(&over)))
        })?;
        if pairs.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in pairs {
            let scope = self.variables.len();
            match pipeline.variables.as_slice() {
                [value] => self.set(value, item.clone(), pipeline.declares),
                [index, value] => {
                    self.set(index, Datum::Json(key), pipeline.declares);
                    self.set(value, item.clone(), pipeline.declares);
                }
                _ => {}
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, value: Datum<'d>, declares: bool) {
        let found = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match found {
            Some((_, old)) if !declares => *old = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Datum<'d>) -> Result<Datum<'d>, TemplateError> {
        let mut result: Option<Datum<'d>> = None;
        for command in &pipeline.commands {
            result = Some(self.command(command, dot, result)?);
        }
        let result = result.unwrap_or(Datum::Json(Value::Null));
        for name in &pipeline.variables {
            self.set(name, result.clone(), pipeline.declares);
        }
        Ok(result)
    }

    fn command(
        &mut self,
        command: &[Operand],
        dot: &Datum<'d>,
        piped: Option<Datum<'d>>,
    ) -> Result<Datum<'d>, TemplateError> {
        let Some((first, rest)) = command.split_first() else {
            return Ok(Datum::Json(Value::Null));
        };
        if let Base::Function(name) = &first.base {
            let value = self.call(name, first, rest, dot, piped)?;
            return self.fields(value, first, &first.fields, &[]);
        }
        let mut args = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            args.push(self.operand(operand, dot, &[])?.value());
        }
        args.extend(piped.map(|value| value.value()));
        if !args.is_empty() && first.fields.is_empty() {
            return Err(fail(
                first.place,
                first.text(),
                format!("can't give argument to non-function {}", first.text()),
            ));
        }
        self.operand(first, dot, &args)
    }

    /// Calls a function; `and` and `or` evaluate no more arguments than they need.
    fn call(
        &mut self,
        name: &str,
        function: &Operand,
        rest: &[Operand],
        dot: &Datum<'d>,
        piped: Option<Datum<'d>>,
    ) -> Result<Datum<'d>, TemplateError> {
        let mut args: Vec<Datum<'d>> = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            let value = self.operand(operand, dot, &[])?;
            if self.mode == Mode::Data
                && matches!(name, "and" | "or")
                && functions::truth(&value.value()) == (name == "or")
            {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(piped);
        if self.mode == Mode::Heading && functions::passes_heading(name) {
            let heading = args.iter().map(Datum::value).find(Value::is_string);
            return Ok(Datum::Json(heading.unwrap_or_default()));
        }
        functions::call_typed(name, args).map_err(|what| {
            let words: Vec<_> = std::iter::once(function).chain(rest).map(Operand::text).collect();
            fail(function.place, words.join(" "), what)
        })
    }

    fn operand(
        &mut self,
        operand: &Operand,
        dot: &Datum<'d>,
        args: &[Value],
    ) -> Result<Datum<'d>, TemplateError> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) if name.is_empty() => self.root.clone(),
            Base::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| {
                    fail(operand.place, operand.text(), format!("undefined variable \"${name}\""))
                })?,
            Base::Literal(value) => Datum::Json(value.clone()),
            Base::Function(name) => self.call(name, operand, &[], dot, None)?,
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
        };
        self.fields(base, operand, &operand.fields, args)
    }

    fn fields(
        &mut self,
        base: Datum<'d>,
        operand: &Operand,
        fields: &[(String, Place)],
        args: &[Value],
    ) -> Result<Datum<'d>, TemplateError> {
        let mut value = base;
        let last = fields.last().map_or(operand.place, |(_, place)| *place);
        for (at, (name, _)) in fields.iter().enumerate() {
            let args = if at + 1 == fields.len() { args } else { &[] };
            let found = match &value {
                Datum::Row(row) => row
                    .field(name, args)
                    .map(Datum::Json)
                    .ok_or_else(|| format!("can't evaluate field {name} in type {}", row.type_name())),
                Datum::Absent => return Ok(Datum::Absent),
                Datum::Typed(value, kind) => types::field_of(value, *kind, name),
                Datum::Json(Value::Object(map)) => map
                    .get(name)
                    .or_else(|| spelt_otherwise(map, name))
                    .cloned()
                    .map(Datum::Json)
                    .ok_or_else(|| format!("map has no entry for key {name:?}")),
                Datum::Json(Value::Null) => Err(format!("nil pointer evaluating interface {{}}.{name}")),
                Datum::Json(_) => Err(format!("can't evaluate field {name} in type interface {{}}")),
            };
            value = found.map_err(|what| fail(last, operand.text(), what))?;
        }
        Ok(value)
    }
}

/// What stands in the output for a value.
fn shown(value: &Datum<'_>) -> String {
    match value {
        Datum::Typed(value, kind) => types::show(value, *kind),
        other => print(&other.value(), true),
    }
}

/// What `range` goes through; `None` if that is nothing to go through.
fn pairs<'d>(over: &Datum<'d>) -> Option<Vec<(Value, Datum<'d>)>> {
    if let Datum::Typed(value, kind) = over {
        return types::elements(value, *kind);
    }
    Some(match over.value() {
        Value::Null => Vec::new(),
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(at, item)| (Value::from(at), Datum::Json(item))).collect()
        }
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            pairs.into_iter().map(|(key, value)| (Value::from(key), Datum::Json(value))).collect()
        }
        Value::Number(number) => (0..number.as_i64().unwrap_or(0))
            .map(|at| (Value::from(at), Datum::Json(Value::from(at))))
            .collect(),
        _ => return None,
    })
}

fn place_of(pipeline: &Pipeline) -> (Place, String) {
    pipeline
        .commands
        .first()
        .and_then(|command| command.first())
        .map_or((Place::default(), String::new()), |operand| (operand.place, operand.text()))
}

/// Docker's templates name the fields of Go's structures, which JSON spells with other capitals here and
/// there (`APIVersion` is `ApiVersion`). Only a spelling that no other key shares is meant.
fn spelt_otherwise<'m>(map: &'m serde_json::Map<String, Value>, name: &str) -> Option<&'m Value> {
    let mut alike = map.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    match (alike.next(), alike.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

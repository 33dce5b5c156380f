//! Go templates, as `--format` takes them, over JSON.
//!
//! `lex` cuts the text into tokens, `parse` builds a tree, `eval` walks it over a [`Datum`], and
//! `functions` holds what can be called. What is supported is what Docker documents: fields,
//! methods of list rows, pipelines, variables, `if`/`else if`/`else`, `range`, `with`, `break`,
//! `continue`, comments, trimming, Go's built-in functions and Docker's own. Named templates
//! (`define`, `template`, `block`) are refused by name.

mod eval;
mod functions;
mod lex;
mod parse;
mod print;

use std::rc::Rc;

use serde_json::Value;
use thiserror::Error;

pub(crate) use functions::{go_quote, truncate_id};

/// Why a template cannot be used.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum TemplateError {
    /// Its text is wrong.
    #[error("template: :{line}: {what}")]
    Parse {
        /// Line of the template, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// It does not fit the data.
    #[error("template: :{line}:{column}: executing \"\" at <{at}>: {what}")]
    Execute {
        /// Line of the template, from 1.
        line: usize,
        /// Column of the expression, from 0.
        column: usize,
        /// The expression.
        at: String,
        /// What is wrong.
        what: String,
    },
}

/// One row of a list: named columns that are computed when asked for.
pub(crate) trait Row {
    /// What error texts call the row's type.
    fn type_name(&self) -> &str;
    /// The column, or the method's result; `None` if there is none of this name.
    fn field(&self, name: &str, args: &[Value]) -> Option<Value>;
    /// The whole row, for `json`.
    fn json(&self) -> Value;
}

/// What a template can be rendered with.
#[derive(Clone)]
pub(crate) enum Datum<'d> {
    /// JSON.
    Json(Value),
    /// A row of a list.
    Row(Rc<dyn Row + 'd>),
    /// What a map with keys of the user's choice does not hold.
    Absent,
}

impl Datum<'_> {
    /// The JSON of it.
    fn value(&self) -> Value {
        match self {
            Datum::Json(value) => value.clone(),
            Datum::Row(row) => row.json(),
            Datum::Absent => Value::Null,
        }
    }
}

/// A template, read and ready.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Where its text is wrong.
    pub(crate) fn parse(text: &str) -> Result<Template, TemplateError> {
        let tokens = lex::tokens(text)?;
        Ok(Template { nodes: parse::parse(tokens)? })
    }

    /// Renders it.
    ///
    /// # Errors
    /// Where it does not fit the data.
    pub(crate) fn render(&self, data: Datum<'_>) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data, eval::Mode::Data)
    }

    /// Renders it as the heading of a table, where functions leave their argument as it is.
    ///
    /// # Errors
    /// Where it does not fit the data.
    pub(crate) fn render_heading(&self, data: Datum<'_>) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data, eval::Mode::Heading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str, data: Value) -> Result<String, String> {
        Template::parse(template)
            .and_then(|template| template.render(Datum::Json(data)))
            .map_err(|why| why.to_string())
    }

    #[test]
    fn what_docker_users_write() {
        let data = json!({
            "Name": "web", "N": 3, "F": 1.5, "On": true, "None": null,
            "List": ["a", "b"], "Map": {"b": {"IP": "2"}, "a": {"IP": "1"}},
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
            "Labels": null, "Actor": {"Attributes": {"name": "web"}}, "Networks": {},
        });
        for (template, wanted) in [
            ("{{.Name}} {{.N}} {{.F}} {{.On}}", "web 3 1.5 true"),
            ("{{json .List}} {{json .Name}}", r#"["a","b"] "web""#),
            ("{{.List}} {{.Map}}", "[a b] map[a:map[IP:1] b:map[IP:2]]"),
            ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range $i, $x := .List}}{{$i}}={{$x}} {{end}}", "0=a 1=b "),
            ("{{range $k, $v := .Map}}{{$k}}:{{$v.IP}} {{end}}", "a:1 b:2 "),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{if .On}}yes{{else}}no{{end}}", "yes"),
            ("{{if not .On}}a{{else if eq .N 3}}b{{else}}c{{end}}", "b"),
            ("{{with .Map}}{{.a.IP}}{{end}}", "1"),
            ("{{len .List}} {{index .List 1}} {{index .Map \"a\" \"IP\"}}", "2 b 1"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{join .List \"-\"}} {{upper .Name}} {{title .Name}}", "a-b WEB Web"),
            ("{{.Name | upper | printf \"%-5s|\"}}", "WEB  |"),
            ("{{truncate .Name 2}} {{pad .Name 1 2}}.", "we  web  ."),
            ("{{.NAME}}", "web"),
            ("{{.Actor.Attributes.name}} {{.Actor.Attributes.image}}", "web <no value>"),
            ("{{.Labels.a}} {{.Networks.n.IPAddress}} {{.Labels}}", "<no value> <no value> map[]"),
            ("{{with .Networks.n}}{{.IPAddress}}{{else}}-{{end}}", "-"),
            ("{{index (split \"a,b\" \",\") 1}}", "b"),
            ("{{println .Name}}x", "web\nx"),
            ("a {{- /* note */ -}} b", "ab"),
            ("{{$x := .Name}}{{$x}}{{$x = \"y\"}}{{$x}}", "weby"),
            ("{{eq .N 1 3}} {{ne .N 3}} {{lt .N 4}} {{ge .F 1.5}}", "true false true true"),
            ("{{and .On .Name}} {{or .None \"d\"}}", "web d"),
            ("{{range .List}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
            ("{{$.Name}} {{\"q\\\"\"}} {{`r\\n`}}", "web q\" r\\n"),
            ("{{printf \"%d/%s/%q/%v\" .N .Name .Name .List}}", "3/web/\"web\"/[a b]"),
        ] {
            assert_eq!(render(template, data.clone()), Ok(wanted.to_owned()), "{template}");
        }
    }

    #[test]
    fn mistakes_name_the_place() {
        for (template, wanted) in [
            ("{{.Foo", "template: :1: unclosed action"),
            ("{{foo .}}", "template: :1: function \"foo\" not defined"),
            ("{{if .A}}", "template: :1: unexpected EOF"),
            ("{{end}}", "template: :1: unexpected {{end}}"),
            ("\n{{.Foo}}", "template: :2:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""),
            (
                "{{.A.B}}",
                "template: :1:4: executing \"\" at <.A.B>: can't evaluate field B in type interface {}",
            ),
        ] {
            assert_eq!(render(template, json!({"A": 1})).unwrap_err(), wanted, "{template}");
        }
    }
}

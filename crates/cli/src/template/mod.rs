//! Go templates, as `--format` takes them, over JSON.
//!
//! `lex` cuts the text into tokens, `parse` builds a tree, `eval` walks it over a [`Datum`], and
//! `functions` holds what can be called. `types` shows JSON as Go shows the structures of `docker`. What is supported is what Docker documents: fields,
//! methods of list rows, pipelines, variables, `if`/`else if`/`else`, `range`, `with`, `break`,
//! `continue`, comments, trimming, Go's built-in functions and Docker's own. Named templates
//! (`define`, `template`, `block`) are refused by name.

#[rustfmt::skip] // A table: as many fields a line as fit.
pub(crate) mod docker;
mod eval;
mod functions;
mod lex;
mod parse;
mod print;
mod types;

use std::rc::Rc;

use serde_json::Value;
use thiserror::Error;

pub(crate) use functions::{go_quote, truncate_id};
pub(crate) use types::{Kind, Struct};

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
    /// JSON of one of Docker's structures, or of a list, map or absent pointer in it.
    Typed(Value, Kind),
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
            Datum::Typed(value, kind) => types::plain(value, *kind),
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
    fn structures_are_shown_as_go_shows_them() {
        let data = json!({
            "Id": "abc", "State": {"Running": true}, "Mounts": null,
            "Config": {
                "Entrypoint": null, "ExposedPorts": {"80/tcp": {}}, "Labels": null,
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 90_500_000_000_i64},
            },
            "HostConfig": {
                "RestartPolicy": {"MaximumRetryCount": 0, "Name": "no"}, "Dns": ["1.1.1.1"],
                "PidsLimit": null, "LogConfig": {"Type": "json-file", "Config": {}},
            },
            "NetworkSettings": {
                "IPAddress": "172.17.0.2",
                "Ports": {"80/tcp": [
                    {"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}
                ], "81/tcp": null},
                "Networks": {"bridge": {"IPAddress": "172.17.0.2", "IPAMConfig": null}},
            },
        });
        let render = |template: &str| {
            Template::parse(template)
                .and_then(|template| {
                    template.render(Datum::Typed(data.clone(), Kind::Struct(&docker::CONTAINER)))
                })
                .map_err(|why| why.to_string())
        };
        for (template, wanted) in [
            ("{{.ID}} {{.State.Running}} {{.State.Pid}} {{.State.Error}}|", "abc true 0 |"),
            ("{{.Config.Entrypoint}} {{.Config.Env}} {{.Config.Volumes}}", "[] [] map[]"),
            ("{{.Config.ExposedPorts}} {{.Config.StopTimeout}} {{.SizeRw}}", "map[80/tcp:{}] <nil> <nil>"),
            ("{{.Config.Healthcheck}}", "{[CMD true] 1m30.5s 0s 0s 0s 0}"),
            ("{{.HostConfig.RestartPolicy}} {{.HostConfig.LogConfig}}", "{no 0} {json-file map[]}"),
            ("{{.HostConfig.Mounts}} {{.HostConfig.Tmpfs}} {{.HostConfig.DNS}}", "[] map[] [1.1.1.1]"),
            ("{{.HostConfig.Memory}} {{.HostConfig.Init}}", "0 <nil>"),
            ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{0.0.0.0 8080} {:: 8080}] 81/tcp:[]]"),
            ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostIP}}", "0.0.0.0"),
            ("{{(index .NetworkSettings.Ports \"80/tcp\" 1).HostPort}}", "8080"),
            ("{{index .Config.Labels \"a\"}}|{{.Config.Labels.a}}", "|<no value>"),
            ("{{.NetworkSettings.Networks.n.IPAddress}}", "<no value>"),
            ("{{with .NetworkSettings.Networks.n}}{{.IPAddress}}{{else}}-{{end}}", "-"),
            ("{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{$e.DNSNames}}{{end}}", "bridge []"),
            (
                "{{range $p, $b := .NetworkSettings.Ports}}{{$p}}{{range $b}} {{.}}{{end}};{{end}}",
                "80/tcp {0.0.0.0 8080} {:: 8080};81/tcp;",
            ),
            ("{{len .Mounts}} {{len .Config.Labels}} {{join .Config.Cmd \",\"}}|", "0 0 |"),
            ("{{printf \"%v %s\" .HostConfig.RestartPolicy .Config.Env}}", "{no 0} []"),
            ("{{if .State.Health}}a{{else}}b{{end}}{{if .HostConfig.RestartPolicy}}c{{end}}", "bc"),
            ("{{json .HostConfig.RestartPolicy}}", r#"{"Name":"no","MaximumRetryCount":0}"#),
            ("{{json .HostConfig.Mounts}} {{json .Config.Labels}}", "null null"),
            ("{{json .NetworkSettings.Networks.bridge.IPAMConfig}}", "null"),
        ] {
            assert_eq!(render(template), Ok(wanted.to_owned()), "{template}");
        }
        for (template, wanted) in [
            ("{{.Config.Foo}}", "can't evaluate field Foo in type container.Config"),
            ("{{.State.Health.Status}}", "nil pointer evaluating *container.Health.Status"),
            ("{{.Id}}", "can't evaluate field Id in type container.InspectResponse"),
        ] {
            assert!(render(template).unwrap_err().ends_with(wanted), "{template}: {:?}", render(template));
        }
        let network = json!({"Created": "2026-11-30T20:29:18.94563+01:00", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}});
        let text = Template::parse("{{.Created}} {{.IPAM}}")
            .unwrap()
            .render(Datum::Typed(network, Kind::Struct(&docker::NETWORK)));
        assert_eq!(text.unwrap(), "2026-11-30 20:29:18.94563 +0100 +0100 { map[] [{10.0.0.0/24   map[]}]}");
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

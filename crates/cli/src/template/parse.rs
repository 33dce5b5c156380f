//! Builds the tree of a template from its tokens.

use serde_json::Value;

use super::TemplateError;
use super::functions;
use super::lex::{Kind, Place, Token};

/// A piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Text.
    Text(String),
    /// `{{pipeline}}`.
    Show(Pipeline),
    /// `{{if}}`.
    If(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{with}}`.
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{range}}`.
    Range(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{break}}`.
    Break,
    /// `{{continue}}`.
    Continue,
}

/// `$a, $b := command | command`.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipeline {
    /// The variables set.
    pub(super) variables: Vec<String>,
    /// Whether they are new (`:=`) or there already (`=`).
    pub(super) declares: bool,
    /// The commands; each gets the result of the one before as last argument.
    pub(super) commands: Vec<Vec<Operand>>,
}

/// One word of a command.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    /// What it starts with.
    pub(super) base: Base,
    /// The fields behind it.
    pub(super) fields: Vec<(String, Place)>,
    /// Where it stands.
    pub(super) place: Place,
}

/// What an operand starts with.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// `.`.
    Dot,
    /// `$name`.
    Variable(String),
    /// A literal.
    Literal(Value),
    /// A function.
    Function(String),
    /// `( pipeline )`.
    Group(Box<Pipeline>),
}

impl Operand {
    /// The operand as error texts quote it.
    pub(super) fn text(&self) -> String {
        let mut out = match &self.base {
            Base::Dot if self.fields.is_empty() => ".".to_owned(),
            Base::Dot => String::new(),
            Base::Variable(name) => format!("${name}"),
            Base::Literal(value) => value.to_string(),
            Base::Function(name) => name.clone(),
            Base::Group(_) => "(...)".to_owned(),
        };
        for (field, _) in &self.fields {
            out.push('.');
            out.push_str(field);
        }
        out
    }
}

/// How a list of nodes ended.
#[derive(Debug, PartialEq)]
enum End {
    Text,
    Closed,
    Else,
    ElseIf,
    ElseWith,
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
    line: usize,
}

/// Builds the tree.
pub(super) fn parse(tokens: Vec<Token>) -> Result<Vec<Node>, TemplateError> {
    let line = tokens.iter().map(|token| token.place.line).max().unwrap_or(1).max(1);
    let mut parser = Parser { tokens: tokens.into_iter(), line };
    let (nodes, end) = parser.nodes()?;
    match end {
        End::Text => Ok(nodes),
        End::Closed => Err(parser.error("unexpected {{end}}")),
        _ => Err(parser.error("unexpected {{else}}")),
    }
}

impl Parser {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.as_slice().first().map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.next()?;
        if token.place.line > 0 {
            self.line = token.place.line;
        }
        Some(token)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Word(found)) if found == word);
        if found {
            self.next();
        }
        found
    }

    fn error(&self, what: impl Into<String>) -> TemplateError {
        TemplateError::Parse { line: self.line, what: what.into() }
    }

    fn close(&mut self, after: &str) -> Result<(), TemplateError> {
        match self.next() {
            Some(token) if token.kind == Kind::Close => Ok(()),
            _ => Err(self.error(format!("unexpected token in {after}"))),
        }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(token) = self.next() {
            match token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                _ => {
                    if let Some(end) = self.action(&mut nodes)? {
                        return Ok((nodes, end));
                    }
                }
            }
        }
        Ok((nodes, End::Text))
    }

    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<Option<End>, TemplateError> {
        let keyword = match self.peek() {
            Some(Kind::Word(word)) => word.clone(),
            _ => String::new(),
        };
        match keyword.as_str() {
            "end" => {
                self.next();
                self.close("end")?;
                return Ok(Some(End::Closed));
            }
            "else" => {
                self.next();
                let end = if self.take_word("if") {
                    return Ok(Some(End::ElseIf));
                } else if self.take_word("with") {
                    return Ok(Some(End::ElseWith));
                } else {
                    End::Else
                };
                self.close("else")?;
                return Ok(Some(end));
            }
            "if" | "with" | "range" => {
                self.next();
                nodes.push(self.control(&keyword)?);
            }
            "break" | "continue" => {
                self.next();
                self.close(&keyword)?;
                nodes.push(if keyword == "break" { Node::Break } else { Node::Continue });
            }
            "define" | "template" | "block" => {
                return Err(self.error(format!("{{{{{keyword}}}}} is not supported")));
            }
            _ => {
                let pipeline = self.pipeline("command")?;
                self.close("command")?;
                nodes.push(Node::Show(pipeline));
            }
        }
        Ok(None)
    }

    fn control(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        let pipeline = self.pipeline(keyword)?;
        self.close(keyword)?;
        let (then, end) = self.nodes()?;
        let otherwise = match end {
            End::Text => return Err(self.error("unexpected EOF")),
            End::Closed => Vec::new(),
            End::ElseIf => vec![self.control("if")?],
            End::ElseWith => vec![self.control("with")?],
            End::Else => match self.nodes()? {
                (nodes, End::Closed) => nodes,
                (_, End::Text) => return Err(self.error("unexpected EOF")),
                _ => return Err(self.error("expected end; found {{else}}")),
            },
        };
        Ok(match keyword {
            "if" => Node::If(pipeline, then, otherwise),
            "with" => Node::With(pipeline, then, otherwise),
            _ => Node::Range(pipeline, then, otherwise),
        })
    }

    fn pipeline(&mut self, context: &str) -> Result<Pipeline, TemplateError> {
        let mut pipeline = Pipeline::default();
        self.variables(&mut pipeline);
        loop {
            let command = self.command()?;
            if command.is_empty() {
                return Err(self.error(format!("missing value for {context}")));
            }
            pipeline.commands.push(command);
            if !matches!(self.peek(), Some(Kind::Sign('|'))) {
                return Ok(pipeline);
            }
            self.next();
        }
    }

    /// Reads `$a, $b :=` if that is what follows.
    fn variables(&mut self, pipeline: &mut Pipeline) {
        let tokens = self.tokens.as_slice();
        let kind = |at: usize| tokens.get(at).map(|token| &token.kind);
        let (count, operator) = match (kind(0), kind(1), kind(2), kind(3)) {
            (Some(Kind::Variable(_)), Some(Kind::Sign(',')), Some(Kind::Variable(_)), operator) => {
                (2, operator)
            }
            (Some(Kind::Variable(_)), operator, _, _) => (1, operator),
            _ => return,
        };
        let declares = match operator {
            Some(Kind::Declare) => true,
            Some(Kind::Sign('=')) => false,
            _ => return,
        };
        pipeline.declares = declares;
        for _ in 0..2 * count {
            if let Some(Token { kind: Kind::Variable(name), .. }) = self.next() {
                pipeline.variables.push(name);
            }
        }
    }

    fn command(&mut self) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        match self.peek() {
            None | Some(Kind::Close | Kind::Sign('|') | Kind::Sign(')')) => return Ok(None),
            _ => {}
        }
        let Some(token) = self.next() else {
            return Ok(None);
        };
        let place = token.place;
        let mut fields = Vec::new();
        let base = match token.kind {
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push((name, place));
                Base::Dot
            }
            Kind::Variable(name) => Base::Variable(name),
            Kind::Quoted(text) => Base::Literal(Value::from(text)),
            Kind::Int(number) => Base::Literal(Value::from(number)),
            Kind::Float(number) => Base::Literal(Value::from(number)),
            Kind::Word(word) => match word.as_str() {
                "true" => Base::Literal(Value::Bool(true)),
                "false" => Base::Literal(Value::Bool(false)),
                "nil" => Base::Literal(Value::Null),
                _ if functions::exists(&word) => Base::Function(word),
                _ => return Err(self.error(format!("function {word:?} not defined"))),
            },
            Kind::Sign('(') => {
                let pipeline = self.pipeline("parenthesized pipeline")?;
                match self.next() {
                    Some(token) if token.kind == Kind::Sign(')') => {}
                    _ => return Err(self.error("unclosed left paren")),
                }
                Base::Group(Box::new(pipeline))
            }
            other => return Err(self.error(format!("unexpected {other:?} in command"))),
        };
        while let Some(Token { kind: Kind::Field(name), spaced: false, place }) =
            self.tokens.as_slice().first()
        {
            fields.push((name.clone(), *place));
            self.next();
        }
        Ok(Some(Operand { base, fields, place }))
    }
}

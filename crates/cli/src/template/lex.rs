//! Cuts a template into text and the tokens of its actions.

use super::TemplateError;

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside actions.
    Text(String),
    /// `{{`.
    Open,
    /// `}}`.
    Close,
    /// `.Name`, directly after what it belongs to or after a space.
    Field(String),
    /// `.` alone.
    Dot,
    /// `$name`, or `$` alone as the empty name.
    Variable(String),
    /// A word: a keyword or a function.
    Word(String),
    /// A quoted text, unquoted.
    Quoted(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction or exponent.
    Float(f64),
    /// `(`, `)`, `|`, `,`, `=`.
    Sign(char),
    /// `:=`.
    Declare,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Whether white space precedes it.
    pub(super) spaced: bool,
    pub(super) place: Place,
}

/// A place in the template.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Place {
    /// Line, from 1.
    pub(super) line: usize,
    /// Byte in the line, from 0.
    pub(super) column: usize,
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    out: Vec<Token>,
}

/// Cuts `text` into tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer { text, at: 0, out: Vec::new() };
    let mut trim_start = false;
    while lexer.at < text.len() {
        let rest = lexer.rest();
        let Some(open) = rest.find("{{") else {
            lexer.push_text(rest, trim_start, false);
            break;
        };
        let before = &rest[..open];
        let inside = &rest[open + 2..];
        let trims = inside.starts_with('-') && inside[1..].starts_with(|c: char| c.is_ascii_whitespace());
        lexer.push_text(before, trim_start, trims);
        lexer.at += open;
        trim_start = lexer.action(trims)?;
    }
    Ok(lexer.out)
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn place(&self) -> Place {
        let before = &self.text[..self.at];
        Place {
            line: before.matches('\n').count() + 1,
            column: before.len() - before.rfind('\n').map_or(0, |at| at + 1),
        }
    }

    fn error(&self, what: impl Into<String>) -> TemplateError {
        TemplateError::Parse { line: self.place().line, what: what.into() }
    }

    fn push_text(&mut self, text: &str, trim_start: bool, trim_end: bool) {
        let mut text = text;
        if trim_start {
            text = text.trim_start();
        }
        if trim_end {
            text = text.trim_end();
        }
        if !text.is_empty() {
            self.push(Kind::Text(text.to_owned()), false);
        }
    }

    fn push(&mut self, kind: Kind, spaced: bool) {
        let place = self.place();
        self.out.push(Token { kind, spaced, place });
    }

    /// Reads from `{{` past `}}`; returns whether the text behind is trimmed.
    fn action(&mut self, trims: bool) -> Result<bool, TemplateError> {
        let start = self.at;
        self.at += if trims { 3 } else { 2 };
        if self.rest().trim_start().starts_with("/*") {
            return self.comment();
        }
        self.out.push(Token { kind: Kind::Open, spaced: false, place: Place::default() });
        loop {
            let spaces = self.rest().len() - self.rest().trim_start().len();
            self.at += spaces;
            let rest = self.rest();
            if rest.is_empty() {
                self.at = start;
                return Err(self.error("unclosed action"));
            }
            if spaces > 0 && rest.starts_with("-}}") {
                self.push(Kind::Close, true);
                self.at += 3;
                return Ok(true);
            }
            if rest.starts_with("}}") {
                self.push(Kind::Close, spaces > 0);
                self.at += 2;
                return Ok(false);
            }
            self.token(spaces > 0)?;
        }
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest().find("*/") else {
            return Err(self.error("unclosed comment"));
        };
        self.at += end + 2;
        let rest = self.rest();
        let trimmed = rest.trim_start();
        let trims = trimmed.starts_with("-}}");
        let close = if trims { "-}}" } else { "}}" };
        if !trimmed.starts_with(close) {
            return Err(self.error("comment ends before closing delimiter"));
        }
        self.at += rest.len() - trimmed.len() + close.len();
        Ok(trims)
    }

    fn token(&mut self, spaced: bool) -> Result<(), TemplateError> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or_default();
        let second = rest.chars().nth(1).unwrap_or_default();
        match first {
            '.' if is_word(second) && !second.is_ascii_digit() => {
                let name = word(&rest[1..]);
                self.push(Kind::Field(name.to_owned()), spaced);
                self.at += 1 + name.len();
            }
            '.' if !second.is_ascii_digit() => {
                self.push(Kind::Dot, spaced);
                self.at += 1;
            }
            '$' => {
                let name = word(&rest[1..]);
                self.push(Kind::Variable(name.to_owned()), spaced);
                self.at += 1 + name.len();
            }
            ':' if second == '=' => {
                self.push(Kind::Declare, spaced);
                self.at += 2;
            }
            '(' | ')' | '|' | ',' | '=' => {
                self.push(Kind::Sign(first), spaced);
                self.at += 1;
            }
            '"' | '`' | '\'' => self.quoted(first, spaced)?,
            '0'..='9' | '+' | '-' | '.' => self.number(spaced)?,
            c if is_word(c) => {
                let name = word(rest);
                self.push(Kind::Word(name.to_owned()), spaced);
                self.at += name.len();
            }
            c => {
                return Err(self.error(format!("unexpected {c:?} in command")));
            }
        }
        Ok(())
    }

    fn number(&mut self, spaced: bool) -> Result<(), TemplateError> {
        let rest = self.rest();
        let end = rest
            .char_indices()
            .find(|(at, c)| {
                !(c.is_ascii_alphanumeric() || *c == '.' || *c == '_' || (*at == 0 && matches!(c, '+' | '-')))
            })
            .map_or(rest.len(), |(at, _)| at);
        let text = rest[..end].replace('_', "");
        let parsed = text
            .strip_prefix("0x")
            .map(|digits| i64::from_str_radix(digits, 16).ok())
            .unwrap_or_else(|| text.parse().ok());
        let kind = match (parsed, text.parse::<f64>()) {
            (Some(number), _) => Kind::Int(number),
            (None, Ok(number)) => Kind::Float(number),
            (None, Err(_)) => return Err(self.error(format!("bad number syntax: {text:?}"))),
        };
        self.push(kind, spaced);
        self.at += end;
        Ok(())
    }

    fn quoted(&mut self, quote: char, spaced: bool) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut out = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                let kind = match (quote, out.chars().next()) {
                    ('\'', Some(only)) => Kind::Int(i64::from(u32::from(only))),
                    _ => Kind::Quoted(out),
                };
                self.push(kind, spaced);
                self.at += at + 1;
                return Ok(());
            }
            if c == '\\' && quote != '`' {
                match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some(c @ ('"' | '\'' | '\\')) => out.push(c),
                    Some('u') => {
                        let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let point = u32::from_str_radix(&digits, 16).ok();
                        out.extend(point.and_then(char::from_u32));
                    }
                    _ => return Err(self.error("invalid syntax in quoted string")),
                }
            } else {
                out.push(c);
            }
        }
        Err(self.error(match quote {
            '`' => "unterminated raw quoted string",
            '\'' => "unterminated character constant",
            _ => "unterminated quoted string",
        }))
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

//! Flag tables and the parser that reads them, with the grammar of Docker's command line.
//!
//! Every command declares its flags as a constant table; one table serves parsing, `--help` and
//! shell completion. Nothing is built at start: a command line is read by looking names up in the
//! table, so that the parser costs microseconds.
//!
//! Grammar (that of Go's pflag, which Docker users know by heart): `--name value`, `--name=value`,
//! `-n value`, `-nvalue`, `-n=value`, joined switches `-tid`, `--switch=false`, `--` ends the flags,
//! and commands that run another program stop at the first word that is not a flag.

use crate::units;

/// What a flag takes and how its value is checked while parsing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A switch; the value is its default.
    Switch(bool),
    /// Free text; the last one given wins.
    Text,
    /// A signed integer.
    Int,
    /// An unsigned integer of at most this many bits.
    Uint(u8),
    /// A size such as `64m`, in bytes.
    Bytes,
    /// As [`Kind::Bytes`], where `-1` means "no limit".
    BytesOrUnlimited,
    /// A decimal number of processors such as `1.5`.
    Cpus,
    /// A Go duration such as `1m30s`.
    Duration,
    /// A repeatable value, each checked by the function.
    List(fn(&str) -> Result<(), String>),
    /// A repeatable value that is also split at commas.
    Csv,
}

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Name after the two dashes.
    pub(crate) long: &'static str,
    /// Letter after the single dash.
    pub(crate) short: Option<char>,
    /// Other long names that mean the same; they are not shown.
    pub(crate) aliases: &'static [&'static str],
    /// What the value is.
    pub(crate) kind: Kind,
    /// Word that stands for the value in `--help`.
    pub(crate) value: &'static str,
    /// Help text of one line.
    pub(crate) help: &'static str,
    /// Accepted, but left out of `--help`.
    pub(crate) hidden: bool,
    /// Why the flag is refused when it is given, if it is.
    pub(crate) refused: Option<&'static str>,
}

impl Flag {
    /// A flag with a value.
    pub(crate) const fn new(long: &'static str, kind: Kind, value: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, aliases: &[], kind, value, help, hidden: false, refused: None }
    }

    /// A switch that is off by default.
    pub(crate) const fn switch(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Switch(false), "", help)
    }

    /// A flag with free text.
    pub(crate) const fn text(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Text, "string", help)
    }

    /// A repeatable flag with any text.
    pub(crate) const fn list(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::List(any), "list", help)
    }

    /// A flag with an integer.
    pub(crate) const fn int(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Int, "int", help)
    }

    /// The same flag with a letter.
    pub(crate) const fn short(mut self, letter: char) -> Flag {
        self.short = Some(letter);
        self
    }

    /// The same flag with further names.
    pub(crate) const fn aliases(mut self, names: &'static [&'static str]) -> Flag {
        self.aliases = names;
        self
    }

    /// The same flag, each value checked by `check`.
    pub(crate) const fn checked(mut self, check: fn(&str) -> Result<(), String>) -> Flag {
        self.kind = Kind::List(check);
        self
    }

    /// The same flag, accepted but not shown.
    pub(crate) const fn hidden(mut self) -> Flag {
        self.hidden = true;
        self
    }

    /// The same flag, recognised so that using it can be refused by name.
    pub(crate) const fn refused(mut self, why: &'static str) -> Flag {
        self.refused = Some(why);
        self.hidden = true;
        self
    }

    /// Whether it takes no value.
    pub(crate) fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch(_))
    }

    /// Whether it has this name after the two dashes.
    pub(crate) fn named(&self, long: &str) -> bool {
        self.long == long || self.aliases.contains(&long)
    }

    /// How error texts name the flag: `-t, --tty` or `--cpus`.
    fn title(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let checked = match self.kind {
            Kind::Switch(_) => parse_bool(value).map(drop),
            Kind::Text => Ok(()),
            Kind::Int => value
                .parse::<i64>()
                .map(drop)
                .map_err(|_| format!("strconv.ParseInt: parsing {value:?}: invalid syntax")),
            Kind::Uint(bits) => value
                .parse::<u64>()
                .ok()
                .filter(|number| bits == 64 || *number >> bits == 0)
                .map(drop)
                .ok_or_else(|| format!("strconv.ParseUint: parsing {value:?}: invalid syntax")),
            Kind::Bytes => units::parse_bytes(value).map(drop),
            Kind::BytesOrUnlimited if value == "-1" => Ok(()),
            Kind::BytesOrUnlimited => units::parse_bytes(value).map(drop),
            Kind::Cpus => units::parse_nano_cpus(value).map(drop),
            Kind::Duration => units::parse_duration(value).map(drop),
            Kind::List(check) => check(value),
            Kind::Csv => Ok(()),
        };
        checked.map_err(|why| format!("invalid argument {value:?} for \"{}\" flag: {why}", self.title()))
    }
}

/// Accepts any value.
pub(crate) fn any(_: &str) -> Result<(), String> {
    Ok(())
}

/// Reads a switch's explicit value as Go's `strconv.ParseBool` does. The engine has a reading of its own:
/// what the command line shares with it is what goes over the wire, and this never does.
fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {value:?}: invalid syntax")),
    }
}

/// A command line, read: the flags that were given and the other words.
#[derive(Debug, Default, Clone)]
pub(crate) struct Matches {
    given: Vec<(&'static Flag, String)>,
    /// The words that are not flags.
    pub(crate) args: Vec<String>,
    /// Whether `--help` was among the flags.
    pub(crate) help: bool,
}

impl Matches {
    /// Reads `words` by the flag tables. With `stop_at_word` the first word that is not a flag ends
    /// the flags (`run IMAGE -x`); without it flags may follow words.
    ///
    /// # Errors
    /// The text of the first mistake, in the words of Docker's CLI.
    pub(crate) fn parse(
        tables: &[&'static [Flag]],
        words: &[String],
        stop_at_word: bool,
    ) -> Result<Matches, String> {
        let mut matches = Matches::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                matches.args.extend(rest.by_ref().cloned());
            } else if let Some(long) = word.strip_prefix("--") {
                matches.read_long(tables, long, &mut rest)?;
            } else if word.len() > 1 && word.starts_with('-') {
                matches.read_letters(tables, word, &mut rest)?;
            } else {
                matches.args.push(word.clone());
                if stop_at_word {
                    matches.args.extend(rest.by_ref().cloned());
                }
            }
            if matches.help {
                break;
            }
        }
        Ok(matches)
    }

    fn read_long<'a>(
        &mut self,
        tables: &[&'static [Flag]],
        word: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), String> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: --{word}"));
        }
        let Some(flag) = tables.iter().flat_map(|table| table.iter()).find(|flag| flag.named(name)) else {
            if name == "help" {
                self.help = true;
                return Ok(());
            }
            return Err(format!("unknown flag: --{name}"));
        };
        let value = match value {
            Some(value) => value,
            None if flag.is_switch() => "true".to_owned(),
            None => rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?.clone(),
        };
        self.give(flag, value)
    }

    fn read_letters<'a>(
        &mut self,
        tables: &[&'static [Flag]],
        word: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), String> {
        let letters = &word[1..];
        for (at, letter) in letters.char_indices() {
            let after = &letters[at + letter.len_utf8()..];
            let Some(flag) =
                tables.iter().flat_map(|table| table.iter()).find(|flag| flag.short == Some(letter))
            else {
                if letter == 'h' {
                    self.help = true;
                    return Ok(());
                }
                return Err(format!("unknown shorthand flag: {letter:?} in {word}"));
            };
            if let Some(value) = after.strip_prefix('=') {
                return self.give(flag, value.to_owned());
            }
            if flag.is_switch() {
                self.give(flag, "true".to_owned())?;
                continue;
            }
            if !after.is_empty() {
                return self.give(flag, after.to_owned());
            }
            let value = rest.next().ok_or_else(|| format!("flag needs an argument: {letter:?} in {word}"))?;
            return self.give(flag, value.clone());
        }
        Ok(())
    }

    fn give(&mut self, flag: &'static Flag, value: String) -> Result<(), String> {
        flag.check(&value)?;
        if let Some(why) = flag.refused {
            let harmless = flag.is_switch() && parse_bool(&value) == Ok(false);
            if !harmless {
                return Err(format!("--{} is not supported: {why}", flag.long));
            }
        }
        self.given.push((flag, value));
        Ok(())
    }

    /// Whether the flag was given at all.
    pub(crate) fn has(&self, long: &str) -> bool {
        self.given.iter().any(|(flag, _)| flag.long == long)
    }

    /// A switch's value: the last one given, or `false`.
    pub(crate) fn on(&self, long: &str) -> bool {
        self.on_or(long, false)
    }

    /// A switch's value: the last one given, or `default`.
    pub(crate) fn on_or(&self, long: &str, default: bool) -> bool {
        self.text(long).map_or(default, |value| parse_bool(value).unwrap_or(default))
    }

    /// The last value given.
    pub(crate) fn text(&self, long: &str) -> Option<&str> {
        self.given.iter().rev().find(|(flag, _)| flag.long == long).map(|(_, value)| value.as_str())
    }

    /// The last value given, or the empty text.
    pub(crate) fn text_or_empty(&self, long: &str) -> &str {
        self.text(long).unwrap_or_default()
    }

    /// The last value given as an integer (checked while parsing).
    pub(crate) fn int(&self, long: &str) -> Option<i64> {
        self.text(long).and_then(|value| value.parse().ok())
    }

    /// The last value given as a size in bytes (checked while parsing); `-1` passes through.
    pub(crate) fn bytes(&self, long: &str) -> Option<i64> {
        self.text(long).and_then(|value| match value {
            "-1" => Some(-1),
            _ => units::parse_bytes(value).ok(),
        })
    }

    /// The last value given as a duration in nanoseconds (checked while parsing).
    pub(crate) fn nanoseconds(&self, long: &str) -> Option<i64> {
        self.text(long).and_then(|value| units::parse_duration(value).ok())
    }

    /// Every value given, in order; values of [`Kind::Csv`] flags are split at commas.
    pub(crate) fn list(&self, long: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (flag, value) in &self.given {
            if flag.long == long {
                match flag.kind {
                    Kind::Csv => values.extend(value.split(',')),
                    _ => values.push(value.as_str()),
                }
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::switch("detach", "").short('d'),
        Flag::switch("interactive", "").short('i'),
        Flag::switch("tty", "").short('t'),
        Flag::list("env", "").short('e'),
        Flag::list("publish", "").short('p'),
        Flag::list("network", "").aliases(&["net"]),
        Flag::text("name", ""),
        Flag::new("cpus", Kind::Cpus, "decimal", ""),
        Flag::new("alias", Kind::Csv, "strings", ""),
        Flag::text("gpus", "").refused("there is no GPU support"),
    ];

    fn parse(line: &str, stop: bool) -> Result<Matches, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Matches::parse(&[FLAGS], &words, stop)
    }

    #[test]
    fn joined_letters_and_values() {
        let read = parse("-tid -p8080:80 -p=81 -e A=1 --net=x --alias a,b busybox sh -c x", true).unwrap();
        assert!(read.on("tty") && read.on("interactive") && read.on("detach"));
        assert_eq!(read.list("publish"), ["8080:80", "81"]);
        assert_eq!(read.list("env"), ["A=1"]);
        assert_eq!(read.list("network"), ["x"]);
        assert_eq!(read.list("alias"), ["a", "b"]);
        assert_eq!(read.args, ["busybox", "sh", "-c", "x"]);
    }

    #[test]
    fn flags_may_follow_words_unless_told() {
        let read = parse("a -d b -- -t", false).unwrap();
        assert!(read.on("detach"));
        assert_eq!(read.args, ["a", "b", "-t"]);
        assert!(!parse("-d=false", false).unwrap().on("detach"));
    }

    #[test]
    fn mistakes_read_as_in_docker() {
        for (line, text) in [
            ("--foo", "unknown flag: --foo"),
            ("-zt", "unknown shorthand flag: 'z' in -zt"),
            ("--name", "flag needs an argument: --name"),
            ("-e", "flag needs an argument: 'e' in -e"),
            (
                "--tty=foo",
                "invalid argument \"foo\" for \"-t, --tty\" flag: strconv.ParseBool: parsing \"foo\": invalid syntax",
            ),
            (
                "--cpus x",
                "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number",
            ),
            ("--gpus all", "--gpus is not supported: there is no GPU support"),
        ] {
            assert_eq!(parse(line, false).unwrap_err(), text, "{line}");
        }
    }

    #[test]
    fn help_ends_the_reading() {
        assert!(parse("-d --help --foo", true).unwrap().help);
        assert!(!parse("busybox --help", true).unwrap().help);
    }
}

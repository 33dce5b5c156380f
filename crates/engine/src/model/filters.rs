//! `?filters=`: by key, the values of which one must match.

use std::collections::{BTreeMap, BTreeSet};

use portolan_netcore::model::parse_bool;

use crate::error::{EngineError, Result};

/// Filters as the client gave them. A key without values filters nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Whether the filters hold nothing.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }

    /// Adds a value of a key.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into());
    }

    /// The values of a key; none at all if the key is not filtered by.
    pub fn values(&self, key: &str) -> Option<&BTreeSet<String>> {
        self.0.get(key).filter(|values| !values.is_empty())
    }

    /// Refuses keys that the command does not know, as Docker does.
    pub fn check_keys(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(EngineError::invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }

    /// A key that takes one boolean: `None` if absent.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let Some(values) = self.values(key) else { return Ok(None) };
        let mut result = None;
        for value in values {
            let parsed = parse_bool(value)
                .ok_or_else(|| EngineError::invalid(format!("invalid filter '{key}={value}'")))?;
            match result {
                Some(earlier) if earlier != parsed => {
                    return Err(EngineError::invalid(format!(
                        "invalid filter '{key}': contradicting values"
                    )));
                }
                _ => result = Some(parsed),
            }
        }
        Ok(result)
    }

    /// `key` or `key=value` labels: all must be there. Docker's `label` filter; `label!` has none of them.
    pub fn labels_match(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wanted.as_str()),
        };
        self.values("label").is_none_or(|wanted| wanted.iter().all(has))
            && self.values("label!").is_none_or(|unwanted| !unwanted.iter().any(has))
    }

    /// Whether any value of `key` is `text`; true if the key is absent.
    pub fn exact(&self, key: &str, text: &str) -> bool {
        self.values(key).is_none_or(|values| values.contains(text))
    }

    /// The values of a key as regular expressions, made once for all that they are held against.
    pub fn expressions(&self, key: &str) -> Expressions {
        let made = |value: &String| (value.clone(), regex::Regex::new(value).ok());
        Expressions(self.values(key).map(|values| values.iter().map(made).collect()))
    }
}

/// The values of a key that are each a name or a regular expression that finds something in one. As in Docker,
/// what is no expression finds nothing but itself.
#[derive(Clone, Debug)]
pub struct Expressions(Option<Vec<(String, Option<regex::Regex>)>>);

impl Expressions {
    /// Whether any of them is or finds something in any of the texts; true if the key is absent.
    pub fn find(&self, texts: &[&str]) -> bool {
        let finds = |(value, expression): &(String, Option<regex::Regex>)| {
            let found = |text: &&str| value == text || expression.as_ref().is_some_and(|e| e.is_match(text));
            texts.iter().any(found)
        };
        self.0.as_ref().is_none_or(|values| values.iter().any(finds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        let mut filters = Filters::default();
        for (key, value) in pairs {
            filters.add(*key, *value);
        }
        filters
    }

    #[test]
    fn labels_must_all_match() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        assert!(filters(&[("label", "a"), ("label", "b")]).labels_match(&labels));
        assert!(filters(&[("label", "a=1")]).labels_match(&labels));
        assert!(!filters(&[("label", "a=2")]).labels_match(&labels));
        assert!(!filters(&[("label", "a"), ("label", "c")]).labels_match(&labels));
        assert!(!filters(&[("label!", "a=1")]).labels_match(&labels));
    }

    #[test]
    fn names_are_found_by_expression() {
        let finds = |value: &str| filters(&[("name", value)]).expressions("name").find(&["my-net"]);
        assert!(finds("net") && finds("^my-net$") && finds("^(a|my)-"));
        assert!(Filters::default().expressions("name").find(&["x"]));
        assert!(!finds("^net") && !finds("my.net.") && !finds("("));
        assert!(filters(&[("name", "(")]).expressions("name").find(&["("]));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = filters(&[("colour", "red")]).check_keys(&["label"]).unwrap_err();
        assert_eq!(error.message(), "invalid filter 'colour'");
    }

    #[test]
    fn booleans_may_not_contradict() {
        assert_eq!(filters(&[("dangling", "1")]).boolean("dangling").unwrap(), Some(true));
        assert!(filters(&[("dangling", "1"), ("dangling", "false")]).boolean("dangling").is_err());
        assert!(filters(&[("dangling", "maybe")]).boolean("dangling").is_err());
    }
}

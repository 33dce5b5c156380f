//! The `filters` query parameter: which values each key may have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

/// `{"label":["a=b","c"],"status":["running"]}`; keys are joined by *and*, the values of a key by *or* (but
/// `label`, where all must match).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, BTreeSet<String>>);

/// A `filters` parameter that is not what Docker takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Text as Docker's.
    pub message: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for FilterError {}

impl Filters {
    /// Reads the parameter: lists of values, or the older form of `{"value": true}` objects.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Set(BTreeMap<String, bool>),
        }
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let parsed: Option<BTreeMap<String, Option<Values>>> = serde_json::from_str(text)
            .map_err(|error| FilterError { message: format!("invalid filter: {error}") })?;
        let values = |values| match values {
            None => BTreeSet::new(),
            Some(Values::List(list)) => list.into_iter().collect(),
            Some(Values::Set(set)) => set.into_keys().collect(),
        };
        Ok(Filters(parsed.unwrap_or_default().into_iter().map(|(key, given)| (key, values(given))).collect()))
    }

    /// The parameter's text; `None` if there is nothing to filter by.
    pub fn to_query(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        Some(serde_json::to_string(&self.0).expect("a map of texts is always JSON"))
    }

    /// Adds a value.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into());
    }

    /// The values of a key; none if the key was not given.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether a key was given.
    pub fn contains(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    /// Refuses keys that the command does not have.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|key| !accepted.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(FilterError { message: format!("invalid filter '{key}'") }),
        }
    }

    /// A key that is true or false; `default` if it was not given.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, FilterError> {
        let Some(values) = self.0.get(key) else { return Ok(default) };
        let truth: BTreeSet<Option<bool>> = values
            .iter()
            .map(|value| match value.as_str() {
                "1" | "true" => Some(true),
                "0" | "false" => Some(false),
                _ => None,
            })
            .collect();
        match truth.into_iter().collect::<Vec<_>>()[..] {
            [Some(flag)] => Ok(flag),
            _ => Err(FilterError {
                message: format!("invalid filter '{key}={:?}'", values.iter().collect::<Vec<_>>()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_values_are_read() {
        let wanted = Filters::parse(r#"{"label":["a=b"],"dangling":["true"]}"#).unwrap();
        assert_eq!(wanted, Filters::parse(r#"{"label":{"a=b":true},"dangling":{"true":true}}"#).unwrap());
        assert!(wanted.flag("dangling", false).unwrap());
        assert!(wanted.validate(&["label"]).is_err());
        assert_eq!(Filters::parse(&wanted.to_query().unwrap()).unwrap(), wanted);
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(Filters::parse("[1]").is_err());
        assert!(Filters::parse(r#"{"a":1}"#).is_err());
        assert!(Filters::parse(r#"{"a":["maybe"]}"#).unwrap().flag("a", true).is_err());
    }
}

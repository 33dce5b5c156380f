//! Values that look different on the command line and in the file.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `--default-address-pool base=10.10.0.0/16,size=24`; in the file `{"base": "10.10.0.0/16", "size": 24}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AddressPool {
    pub(super) base: IpNet,
    pub(super) size: u8,
}

impl FromStr for AddressPool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut base, mut size) = (None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("base", value)) => {
                    base = Some(value.parse().map_err(|_| format!("invalid base pool: {value:?}"))?)
                }
                Some(("size", value)) => {
                    size = Some(value.parse().map_err(|_| format!("invalid size value: {value:?}"))?)
                }
                Some((key, _)) => return Err(format!("unexpected key {key:?} in {text:?}")),
                None => return Err(format!("invalid field {part:?}: must be a key=value pair")),
            }
        }
        match (base, size) {
            (Some(base), Some(size)) => Ok(AddressPool { base, size }),
            _ => Err("both base and size are needed, such as base=10.10.0.0/16,size=24".to_owned()),
        }
    }
}

/// `--default-ulimit nofile=1024:2048`; in the file `{"Name": "nofile", "Soft": 1024, "Hard": 2048}` by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Ulimit {
    #[serde(default)]
    pub(super) name: String,
    pub(super) soft: i64,
    pub(super) hard: i64,
}

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid ulimit {text:?}: write name=soft[:hard]");
        let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse().map_err(|_| invalid());
        Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
    }
}

/// `--log-opt max-size=10m`, `--add-runtime crun=/usr/bin/crun`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: String,
}

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(KeyValue { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("invalid value {text:?}: write name=value")),
        }
    }
}

/// `--default-network-opt bridge=com.docker.network.driver.mtu=1400`; in the file
/// `{"bridge": {"com.docker.network.driver.mtu": "1400"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NetworkOption {
    pub(super) driver: String,
    pub(super) key: String,
    pub(super) value: String,
}

impl FromStr for NetworkOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '=');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(driver), Some(key), Some(value)) if !driver.is_empty() && !key.is_empty() => {
                Ok(NetworkOption { driver: driver.to_owned(), key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("invalid value {text:?}: write driver=key=value")),
        }
    }
}

/// An OCI runtime in the file: `{"path": "/usr/bin/crun", "runtimeArgs": []}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Runtime {
    pub(super) path: String,
    #[serde(default)]
    pub(super) runtime_args: Vec<String>,
}

/// Bytes as a number, or as a text with a unit (`64m`, `1GiB`), powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Size(pub(super) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid size: '{text}'");
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let shift = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).map(Size).ok_or_else(invalid)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(bytes) => Ok(Size(bytes)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// A repeated flag of pairs is a map in the file.
pub(super) mod pairs {
    use super::{BTreeMap, Deserialize, KeyValue, Serialize};

    pub(in crate::config) fn serialize<S: serde::Serializer>(
        pairs: &Option<Vec<KeyValue>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let map = pairs.as_ref().map(|pairs| {
            pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect::<BTreeMap<_, _>>()
        });
        map.serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<KeyValue>>, D::Error> {
        let map = Option::<BTreeMap<String, String>>::deserialize(deserializer)?;
        Ok(map.map(|map| map.into_iter().map(|(key, value)| KeyValue { key, value }).collect()))
    }
}

/// `--add-runtime name=path` is an object with `path` in the file.
pub(super) mod runtimes {
    use super::{BTreeMap, Deserialize, KeyValue, Runtime, Serialize};

    pub(in crate::config) fn serialize<S: serde::Serializer>(
        runtimes: &Option<Vec<KeyValue>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let entry = |pair: &KeyValue| {
            (pair.key.clone(), Runtime { path: pair.value.clone(), runtime_args: Vec::new() })
        };
        runtimes
            .as_ref()
            .map(|pairs| pairs.iter().map(entry).collect::<BTreeMap<_, _>>())
            .serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<KeyValue>>, D::Error> {
        let Some(map) = Option::<BTreeMap<String, Runtime>>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let pair = |(key, runtime): (String, Runtime)| match runtime.runtime_args[..] {
            [] => Ok(KeyValue { key, value: runtime.path }),
            _ => {
                Err(serde::de::Error::custom(format_args!("runtimeArgs of runtime {key} are not supported")))
            }
        };
        map.into_iter().map(pair).collect::<Result<_, _>>().map(Some)
    }
}

/// A repeated `--default-ulimit` is a map by name in the file.
pub(super) mod ulimits {
    use super::{BTreeMap, Deserialize, Serialize, Ulimit};

    pub(in crate::config) fn serialize<S: serde::Serializer>(
        ulimits: &Option<Vec<Ulimit>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let map = ulimits
            .as_ref()
            .map(|all| all.iter().map(|one| (one.name.as_str(), one)).collect::<BTreeMap<_, _>>());
        map.serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<Ulimit>>, D::Error> {
        let map = Option::<BTreeMap<String, Ulimit>>::deserialize(deserializer)?;
        Ok(map.map(|map| map.into_iter().map(|(name, ulimit)| Ulimit { name, ..ulimit }).collect()))
    }
}

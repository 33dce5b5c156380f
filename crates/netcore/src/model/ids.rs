//! Ids: 64 hexadecimal digits, as Docker prints them. One type a noun, so that none can be swapped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id of 64 hexadecimal digits")]
pub struct InvalidId(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// An id from 32 bytes of the caller's entropy.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                let mut text = String::with_capacity(64);
                for byte in bytes {
                    text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
                    text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
                }
                Self(text.into_boxed_str())
            }

            /// All 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits, as `docker ps` prints an id.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if valid { Ok(Self(text.into())) } else { Err(InvalidId(text.to_owned())) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    };
}

id!(
    /// A network, such as the one `docker network create` prints.
    NetworkId
);
id!(
    /// An endpoint: what joins one sandbox to one network.
    EndpointId
);
id!(
    /// A sandbox: a network namespace with its resolv.conf and hosts files.
    SandboxId
);
id!(
    /// A container.
    ContainerId
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IfName;

    /// CVE-2021-20206: files, links and sysctls are named by these, so none of them may be a path.
    #[test]
    fn no_id_or_link_name_is_a_path() {
        for text in ["..", ".", "../../etc", "a/b", "/etc", "a\0b", ""] {
            assert!(text.parse::<NetworkId>().is_err(), "{text:?}");
            assert!(text.parse::<SandboxId>().is_err(), "{text:?}");
            assert!(IfName::new(text).is_err(), "{text:?}");
        }
        let dots = format!("../{}", "0".repeat(61));
        assert!(dots.parse::<ContainerId>().is_err());
    }
}

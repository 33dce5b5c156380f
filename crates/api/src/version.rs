//! API versions: `1.40` as a number that can be compared.

use std::fmt;
use std::str::FromStr;

/// A version of the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// 1.
    pub major: u32,
    /// The part that counts.
    pub minor: u32,
}

impl ApiVersion {
    /// A version.
    pub const fn new(major: u32, minor: u32) -> Self {
        ApiVersion { major, minor }
    }
}

/// A text that is not `<number>.<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseApiVersionError;

impl fmt::Display for ParseApiVersionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not an API version such as 1.40")
    }
}

impl std::error::Error for ParseApiVersionError {}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ParseApiVersionError;

    fn from_str(text: &str) -> Result<Self, ParseApiVersionError> {
        let digits = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse().map_err(|_| ParseApiVersionError),
            false => Err(ParseApiVersionError),
        };
        let (major, minor) = text.split_once('.').ok_or(ParseApiVersionError)?;
        Ok(ApiVersion { major: digits(major)?, minor: digits(minor)? })
    }
}

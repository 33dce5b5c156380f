//! What every route needs: a request with its version, typed query and JSON body, and answers.

mod body;
mod error;
mod query;
mod request;
mod response;

pub(crate) use body::{Body, BodyReader, BodyWriter, drain};
pub(crate) use error::ApiError;
pub(crate) use query::{Query, percent_decode};
pub(crate) use request::{Request, decode_json};
pub(crate) use response::{Response, empty, json, metrics, ndjson, no_content, stream, text};

/// What a route answers.
pub(crate) type Answer = Result<Response, ApiError>;

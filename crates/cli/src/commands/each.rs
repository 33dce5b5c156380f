//! Commands that do the same to each of the containers named, side by side.

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream;

use crate::failure::{Failure, Outcome};
use crate::session::{line_err, line_out};

/// How many are under way at a time; each has a connection.
const SIDE_BY_SIDE: usize = 50;

/// Runs `act` for every name and prints each name whose turn succeeded, in the order given; then
/// failures go to standard error as they are, and make the exit status 1.
pub(super) async fn each<'n, F>(names: &'n [String], act: impl Fn(&'n str) -> F) -> Outcome
where
    F: Future<Output = Result<String, Failure>>,
{
    let mut done = stream::iter(names).map(|name| act(name)).buffered(SIDE_BY_SIDE);
    let mut failures = Vec::new();
    while let Some(outcome) = done.next().await {
        match outcome {
            Ok(line) => line_out(&line)?,
            Err(why) => failures.push(why.text()),
        }
    }
    for text in &failures {
        line_err(text);
    }
    Ok(u8::from(!failures.is_empty()))
}

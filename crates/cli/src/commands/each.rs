//! Commands that do the same to each of the containers named, side by side.

use std::future::Future;

use futures_util::future::join_all;

use crate::failure::{Failure, Outcome};
use crate::session::{line_err, line_out};

/// Runs `act` for every name at once and prints each name whose turn succeeded, in the order given;
/// failures go to standard error as they are, and make the exit status 1.
pub(super) async fn each<'n, F>(names: &'n [String], act: impl Fn(&'n str) -> F) -> Outcome
where
    F: Future<Output = Result<String, Failure>>,
{
    let done = join_all(names.iter().map(|name| act(name))).await;
    let mut status = 0;
    let mut failures = Vec::new();
    for outcome in done {
        match outcome {
            Ok(line) => line_out(&line)?,
            Err(why) => {
                status = 1;
                failures.push(why.text());
            }
        }
    }
    for text in &failures {
        line_err(text);
    }
    Ok(status)
}

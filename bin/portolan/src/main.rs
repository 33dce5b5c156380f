//! `portolan`: one binary, several processes. The name it is called by, or its first word, decides
//! which; this is the only place that builds real adapters.
//!
//! | called as | is |
//! |---|---|
//! | `portolan daemon ...`, `dockerd ...` | the daemon |
//! | `portolan ...`, `docker ...` | the command line |
//! | `launcher`, `resolver` (hidden) | processes that the daemon starts |

mod daemon;
mod lender;
mod resolver;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let called = argv.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str());
    let word = argv.get(1).and_then(|word| word.to_str());
    match (called, word) {
        (Some("dockerd" | "portoland"), _) => report("dockerd", daemon::main(argv)),
        (_, Some("daemon")) => report("portolan daemon", daemon::main(argv.into_iter().skip(1).collect())),
        (_, Some("launcher")) => {
            report("portolan launcher", portolan_runtime::launcher_main().map_err(Into::into))
        }
        (_, Some("resolver")) => report("portolan resolver", resolver::main(argv.get(2))),
        _ => portolan_cli::main(argv),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a process goes to its terminal")]
fn report(who: &str, outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{who}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The command line on its own, without the daemon: for trying it against a real dockerd.

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan_cli::main(std::env::args_os().collect())
}

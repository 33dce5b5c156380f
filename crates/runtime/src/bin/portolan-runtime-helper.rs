//! The launcher for this crate's own tests and benchmark, in place of the real program.

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() != Some("launcher") {
        eprintln!("usage: portolan-runtime-helper launcher (by Launcher::start)");
        return 2.into();
    }
    match portolan_runtime::launcher_main() {
        Ok(()) => 0.into(),
        Err(error) => {
            eprintln!("launcher: {error}");
            1.into()
        }
    }
}

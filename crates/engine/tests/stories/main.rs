//! Stories of real containers under a real engine on a simulated network. They need root and busybox, and
//! touch nothing but their own directories, cgroups and namespaces: containers are in the "host" network,
//! whose simulation has nothing to set up.
//!
//! A program of its own rather than a set of `#[test]`s: it is its own launcher too, and that must be started
//! before any thread exists.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod fixture;
mod lifecycle;
mod resources;
mod streams;

use std::path::Path;

use fixture::Fixture;
use portolan_runtime::{Launcher, LauncherConfig, launcher_main};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("launcher") {
        launcher_main().unwrap();
        return;
    }
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: containers need root and /bin/busybox (package busybox-static)");
        return;
    }
    let directory = tempfile::Builder::new().prefix("engine-").tempdir_in("/tmp").unwrap();
    let launcher = Launcher::start(LauncherConfig::new(directory.path().join("exec"))).unwrap();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fixture = Fixture::new(directory.path(), launcher).await;
        macro_rules! tell {
            ($($module:ident :: $story:ident),* $(,)?) => {$(
                let name = concat!(stringify!($module), "::", stringify!($story));
                if wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())) {
                    $module::$story(&fixture).await;
                    fixture.assert_nothing_left(name).await;
                    println!("story {name} ... ok");
                }
            )*};
        }
        tell!(
            lifecycle::a_run_from_create_to_removal,
            lifecycle::auto_remove_answers_when_nothing_can_be_seen,
            lifecycle::a_program_that_does_not_exist,
            lifecycle::a_network_that_cannot_be_made_leaves_nothing,
            lifecycle::names_and_conflicts,
            lifecycle::stop_kill_and_restart_policies,
            lifecycle::removal_by_force,
            lifecycle::containers_outlive_the_daemon,
            streams::output_from_before_the_first_byte,
            streams::input_and_its_end,
            streams::exec_codes_are_known_when_the_stream_ends,
            streams::detach_keys_leave_it_running,
            streams::logs_by_tail_and_time,
            resources::volumes_are_filled_and_go_with_the_container,
            resources::files_in_and_out,
            resources::limits_and_statistics,
            resources::health_is_watched,
        );
        fixture.close().await;
    });
}

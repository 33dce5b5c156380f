//! What end-to-end tests stand on: namespaces that play hosts, and an engine in one of them.
//!
//! Nothing touches the machine's own network: an [`Engine`] lives in a namespace with no link to it.
//! The same tests run against Portolan and against Docker, to prove the tests themselves:
//!
//! | variable | values | default |
//! |---|---|---|
//! | `PORTOLAN_E2E_ENGINE` | `portolan`, `docker` | `portolan` |
//! | `PORTOLAN_E2E_DOCKER` | `newer` for that of Debian's sid | that of Debian 12 |
//! | `PORTOLAN_E2E_CLIENT` | `docker`, `portolan` | `docker` |
//! | `PORTOLAN_E2E_FIREWALL` | `nftables`, `iptables` | `nftables` (Docker: `iptables`) |
//! | `PORTOLAN_BIN` | the binary | `target/release/portolan` |

mod engine;
mod host;
mod output;
mod paths;

pub use engine::{Client, Engine, EngineBuilder, EngineKind, Firewall};
pub use host::Host;
pub use output::{Output, run};
pub use paths::{image_tar, portolan_binary, repository};

/// Skips the rest of a test with a reason. The runner counts these lines; in CI they are failures.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        #[allow(clippy::print_stdout, reason = "the runner reads it")]
        {
            println!("SKIPPED: {}", format_args!($($reason)*));
        }
        return;
    }};
}

/// Whether tests that need root can run.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

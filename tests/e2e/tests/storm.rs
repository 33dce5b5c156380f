//! Self-healing under fire, by the program that also measures it: `bench/storm.py`, which says what is
//! broken, who lives through it and who attacks. Here each kind of storm blows for a moment, and what is
//! held is that no connection dies, that no probe of anything closed gets through, and that all is whole
//! again; how soon is in `bench/RESULTS.md`.

use portolan_e2e::has_line;
use portolan_testkit::{Client, EngineKind, Firewall, image_tar, portolan_binary, repository, run, skip};

#[test]
fn storms_of_every_kind_break_no_connection_and_open_nothing() {
    if EngineKind::from_env() == EngineKind::Docker {
        skip!("Docker does not heal");
    }
    let text = |path: std::path::PathBuf| path.display().to_string();
    let (script, image) = (text(repository().join("bench/storm.py")), text(image_tar("busybox")));
    let (docker, portolan) = (text(Client::Docker.program()), text(portolan_binary()));
    let backend = match Firewall::from_env() {
        Firewall::Nftables => "nftables",
        Firewall::Iptables => "iptables",
    };
    let mut words = vec!["python3", &script, "--docker", &docker, "--portolan", &portolan];
    words.extend(["--image", &image, "--seconds", "0.5", "--backend", backend]);
    let output = run(&words, None);
    #[allow(clippy::print_stdout, reason = "figures for a person")]
    {
        println!("{}", output.stdout);
    }
    has_line(output.ok(), &["all at once", "20 of 20", "| 0 of"]);
}

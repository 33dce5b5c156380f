use super::bpf::interpreter::run;
use super::profile::{COLUMNS, number};
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn decide(filter: &[u8], name: &str, arguments: [u64; 6]) -> u32 {
    let (arch, column) = COLUMNS[0];
    run(filter, arch, number(name, column).expect("a call of this architecture"), arguments)
}

fn default_filter(capabilities: &[&str]) -> Vec<u8> {
    let capabilities: Vec<String> = capabilities.iter().map(|c| (*c).to_owned()).collect();
    compile(&SeccompProfile::Default, &capabilities).unwrap()
}

#[test]
fn default_profile_allows_the_ordinary_and_refuses_the_rest() {
    let filter = default_filter(&crate::defaults::DEFAULT_CAPABILITIES);
    assert!(filter.len() / 8 <= 4096, "{} instructions", filter.len() / 8);
    for name in ["read", "openat", "execve", "futex", "chroot", "exit_group", "ptrace", "epoll_pwait2"] {
        assert_eq!(decide(&filter, name, [0; 6]), ALLOW, "{name}");
    }
    for name in [
        "unshare",
        "mount",
        "umount2",
        "keyctl",
        "add_key",
        "bpf",
        "reboot",
        "init_module",
        "setns",
        "swapon",
    ] {
        assert_eq!(decide(&filter, name, [0; 6]), EPERM, "{name}");
    }
    assert_eq!(decide(&filter, "clone3", [0; 6]), ENOSYS);
}

#[test]
fn arguments_decide() {
    let filter = default_filter(&[]);
    let first = |name, value| decide(&filter, name, [value, 0, 0, 0, 0, 0]);
    assert_eq!(first("clone", 0x11), ALLOW);
    assert_eq!(first("clone", 0x1000_0000 | 0x11), EPERM, "CLONE_NEWUSER");
    for (family, verdict) in [(2, ALLOW), (37, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)] {
        assert_eq!(first("socket", family), verdict, "family {family}");
    }
    assert_eq!(first("socket", 1 << 32 | 40), ALLOW, "all 64 bits are compared");
    for (persona, verdict) in
        [(0, ALLOW), (8, ALLOW), (0xffff_ffff, ALLOW), (0x40000, EPERM), (1 << 32, EPERM)]
    {
        assert_eq!(first("personality", persona), verdict, "{persona:#x}");
    }
}

#[test]
fn capabilities_open_calls() {
    assert_eq!(decide(&default_filter(&["CAP_SYS_ADMIN"]), "mount", [0; 6]), ALLOW);
    assert_eq!(decide(&default_filter(&["CAP_SYS_ADMIN"]), "clone3", [0; 6]), ALLOW);
    assert_eq!(decide(&default_filter(&["CAP_SYS_TIME"]), "settimeofday", [0; 6]), ALLOW);
    assert_eq!(decide(&default_filter(&["CAP_SYS_TIME"]), "mount", [0; 6]), EPERM);
}

#[test]
fn the_unknown_does_not_exist_and_strange_architectures_die() {
    let filter = default_filter(&[]);
    assert_eq!(run(&filter, COLUMNS[0].0, 100_000, [0; 6]), ENOSYS);
    assert_eq!(run(&filter, 0x1234, 0, [0; 6]), 0x8000_0000);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_have_their_own_numbers() {
    let filter = default_filter(&[]);
    let i386 = COLUMNS[1].0;
    assert_eq!(run(&filter, i386, 3, [0; 6]), ALLOW, "read");
    assert_eq!(run(&filter, i386, 21, [0; 6]), EPERM, "mount");
    assert_eq!(run(&filter, COLUMNS[0].0, 0x4000_0000, [0; 6]), ALLOW, "read on x32");
    assert_eq!(run(&filter, COLUMNS[0].0, 0x4000_00a5, [0; 6]), EPERM, "mount on x32");
}

#[test]
fn docker_json() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"name": "kill", "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 5, "op": "SCMP_CMP_LE"}]},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["s390x"]}}]}"#;
    let filter = compile(&SeccompProfile::Json(text.into()), &[]).unwrap();
    assert_eq!(decide(&filter, "mkdirat", [0; 6]), 0x0005_000d);
    assert_eq!(decide(&filter, "kill", [5, 9, 0, 0, 0, 0]), EPERM);
    assert_eq!(decide(&filter, "kill", [6, 9, 0, 0, 0, 0]), ALLOW);
    assert_eq!(decide(&filter, "kill", [5, 8, 0, 0, 0, 0]), ALLOW);
    assert_eq!(decide(&filter, "mount", [0; 6]), EPERM);
    assert_eq!(decide(&filter, "read", [0; 6]), ALLOW);
    for bad in [
        "{",
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}"#,
    ] {
        compile(&SeccompProfile::Json(bad.into()), &[]).expect_err(bad);
    }
}

//! Profiles: what to do for which system call.

use super::allowed::ALLOWED;
use super::syscalls::SYSCALLS;

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Errno(u16),
    KillProcess,
    KillThread,
    Trap,
    Trace(u16),
    Log,
}

impl Action {
    /// `SECCOMP_RET_*`
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::Log => 0x7ffc_0000,
        }
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & value == second`
    MaskedEqual,
}

/// A condition on one argument, 64 bits unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) argument: u32,
    pub(crate) operator: Operator,
    pub(crate) value: u64,
    pub(crate) second: u64,
}

/// An action for some calls if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    pub(crate) conditions: Vec<Condition>,
}

/// Rules, and what happens to the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) default: Action,
    pub(crate) rules: Vec<Rule>,
}

/// Position of the native architecture in the table, and what runs on it besides.
#[cfg(target_arch = "x86_64")]
pub(super) const COLUMNS: &[(u32, usize)] = &[(AUDIT_ARCH_X86_64, 0), (AUDIT_ARCH_I386, 1)];
/// 32-bit programs are refused on aarch64: their numbers are not in the table.
#[cfg(target_arch = "aarch64")]
pub(super) const COLUMNS: &[(u32, usize)] = &[(0xc000_00b7, 3)];

#[cfg(target_arch = "x86_64")]
pub(super) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// x32 shares its AUDIT_ARCH with x86_64; its numbers have bit 30 set.
pub(super) const X32: usize = 2;

/// The number of a call in a column of the table.
pub(super) fn number(name: &str, column: usize) -> Option<u32> {
    let row = SYSCALLS.binary_search_by(|(candidate, _)| (*candidate).cmp(name)).ok()?;
    u32::try_from(SYSCALLS[row].1[column]).ok()
}

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
/// All `CLONE_NEW*` flags but `CLONE_NEWTIME`, which clone(2) cannot take.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Calls that come with a capability.
const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "init_module", "finit_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// Equal in effect to Docker's default profile: a list of what is allowed, more with capabilities,
/// the rest EPERM.
pub(super) fn default_profile(capabilities: &[String]) -> Profile {
    let has = |wanted: &str| capabilities.iter().any(|capability| capability == wanted);
    let mut rules = vec![allow(ALLOWED), allow(&["ptrace", "process_vm_readv", "process_vm_writev"])];
    if cfg!(target_arch = "x86_64") {
        rules.push(allow(&["arch_prctl", "modify_ldt"]));
    }
    // AF_VSOCK (40) reaches the hypervisor past the network namespace; 38 is AF_ALG.
    rules.push(allow_if("socket", Operator::Less, 38, 0));
    rules.push(allow_if("socket", Operator::Equal, 39, 0));
    rules.push(allow_if("socket", Operator::Greater, 40, 0));
    // PER_LINUX, PER_LINUX32, both with UNAME26, and "only ask".
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(allow_if("personality", Operator::Equal, persona, 0));
    }
    for (_, names) in WITH_CAPABILITY.iter().filter(|(capability, _)| has(capability)) {
        rules.push(allow(names));
    }
    if !has("CAP_SYS_ADMIN") {
        rules.push(allow_if("clone", Operator::MaskedEqual, NEW_NAMESPACES, 0));
        // Its flags are behind a pointer, out of reach: "not there" makes libc fall back to clone.
        rules.push(Rule {
            names: vec!["clone3".into()],
            action: Action::Errno(ENOSYS),
            conditions: Vec::new(),
        });
    }
    Profile { default: Action::Errno(EPERM), rules }
}

fn allow(names: &[&str]) -> Rule {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Rule { names, action: Action::Allow, conditions: Vec::new() }
}

fn allow_if(name: &str, operator: Operator, value: u64, second: u64) -> Rule {
    let conditions = vec![Condition { argument: 0, operator, value, second }];
    Rule { names: vec![name.to_owned()], action: Action::Allow, conditions }
}

//! Which devices a container may use: lines in `devices.allow` (v1), an eBPF program (v2).

use super::layout::Layout;
use super::{Cgroup, write};
use crate::defaults::DEVICE_RULES;
use crate::error::Attempt;
use crate::{Error, Result, sys};

/// Access to some devices; `None` is every number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    /// `b`, `c`, or `a` for both.
    pub(crate) kind: char,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    /// Any of `r`, `w`, `m`.
    pub(crate) access: String,
}

impl DeviceRule {
    /// Reads `c 10:200 rwm`, as `--device-cgroup-rule` has it.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("invalid device cgroup rule format: '{text}'"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind, numbers, access] = words[..] else { return Err(invalid()) };
        let number =
            |text: &str| if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) };
        let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
        let valid = matches!(kind, "a" | "b" | "c")
            && !access.is_empty()
            && access.chars().all(|c| "rwm".contains(c));
        if !valid {
            return Err(invalid());
        }
        let kind = kind.chars().next().ok_or_else(invalid)?;
        Ok(Self { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() })
    }

    fn line(&self) -> String {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

/// What every container may use.
pub(crate) fn default_rules() -> Vec<DeviceRule> {
    DEVICE_RULES.iter().filter_map(|text| DeviceRule::parse(text).ok()).collect()
}

impl Cgroup {
    /// Allows these devices and no others.
    pub(crate) fn allow_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        match self.layout {
            Layout::V1(_) => {
                let Some(deny) = self.file("devices", "devices.deny") else { return Ok(()) };
                let allow = self.required("devices", "devices.allow")?;
                write(&deny, "a")?;
                rules.iter().try_for_each(|rule| write(&allow, &rule.line()))
            }
            Layout::V2(_) => {
                let program =
                    sys::load_device_program(&program(rules)).attempt(|| "load the device filter".into())?;
                let directory = std::fs::File::open(self.main_directory())
                    .attempt(|| format!("open cgroup {}", self.path))?;
                sys::attach_device_program(&program, &directory)
                    .attempt(|| format!("attach the device filter to cgroup {}", self.path))
            }
        }
    }
}

/// An eBPF instruction (linux/bpf.h): registers as `source << 4 | destination`.
fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..].copy_from_slice(&immediate.to_ne_bytes());
    bytes
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `struct bpf_cgroup_dev_ctx` is (access << 16 | type, major, minor): they go to r2 and r3, r4, r5;
/// then one block a rule, which returns 1 if all of it matches.
fn program(rules: &[DeviceRule]) -> Vec<u8> {
    let mut program = vec![
        instruction(LOAD_WORD, 0x12, 0, 0),
        instruction(MOVE_REGISTER, 0x23, 0, 0),
        instruction(AND, 0x03, 0, 0xffff),
        instruction(SHIFT_RIGHT, 0x02, 0, 16),
        instruction(LOAD_WORD, 0x14, 4, 0),
        instruction(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules {
        // (register, wanted value)
        let mut tests: Vec<(u8, i32)> = Vec::new();
        match rule.kind {
            'b' => tests.push((3, 1)),
            'c' => tests.push((3, 2)),
            _ => {}
        }
        let bits = |number: u32| i32::from_ne_bytes(number.to_ne_bytes());
        tests.extend(rule.major.map(|major| (4, bits(major))));
        tests.extend(rule.minor.map(|minor| (5, bits(minor))));
        let granted = rule.access.chars().fold(0, |bits, c| {
            bits | if c == 'm' {
                1
            } else if c == 'r' {
                2
            } else {
                4
            }
        });
        let mut block = vec![instruction(MOVE_REGISTER, 0x26, 0, 0), instruction(AND, 0x06, 0, !granted & 7)];
        tests.push((6, 0));
        let length = block.len() + tests.len() + 2;
        for (register, value) in tests {
            let rest = length - block.len() - 1;
            let skip = i16::try_from(rest).expect("a block has at most eight instructions");
            block.push(instruction(JUMP_IF_NOT, register, skip, value));
        }
        block.extend([instruction(MOVE, 0, 0, 1), instruction(EXIT, 0, 0, 0)]);
        program.extend(block);
    }
    program.extend([instruction(MOVE, 0, 0, 0), instruction(EXIT, 0, 0, 0)]);
    program.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_and_write() {
        let rule = DeviceRule::parse("c 10:* rw").unwrap();
        assert_eq!(rule, DeviceRule { kind: 'c', major: Some(10), minor: None, access: "rw".into() });
        assert_eq!(rule.line(), "c 10:* rw");
        for bad in ["", "c 10 rw", "x 1:1 r", "c 1:1 q", "c a:1 r"] {
            DeviceRule::parse(bad).expect_err(bad);
        }
        assert_eq!(default_rules().len(), DEVICE_RULES.len());
    }

    /// The kernel's verifier is the judge; attached to a v2 cgroup, the program is obeyed.
    #[test]
    fn the_kernel_takes_and_obeys_the_filter() {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(std::path::Path::new);
        let root = root.into_iter().find(|root| root.join("cgroup.controllers").exists());
        let (true, Some(root)) = (rustix::process::geteuid().is_root(), root) else {
            eprintln!("skipped: needs root and a cgroup v2 file system");
            return;
        };
        let directory = root.join(format!("runtime-devices-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        // /dev/null as every container has it, /dev/zero for reading only, and nothing else.
        let rules = ["c 1:3 rwm", "c 1:5 r"].map(|text| DeviceRule::parse(text).unwrap());
        let filter = sys::load_device_program(&program(&rules)).unwrap();
        sys::attach_device_program(&filter, &std::fs::File::open(&directory).unwrap()).unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs; for f in '>/dev/null' '</dev/zero' '>/dev/zero' '</dev/full'; \
             do (eval : \"$f\") 2>&- && printf y || printf n; done",
            directory.display()
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        std::fs::remove_dir(&directory).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "yynn");
    }
}

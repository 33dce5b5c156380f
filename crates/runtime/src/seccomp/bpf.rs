//! From rules to the kernel's classic BPF.

use std::collections::BTreeMap;

use super::profile::{Action, COLUMNS, Condition, Operator, Profile, X32, number};

/// `struct sock_filter` (linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    /// Instructions to skip if true, if false; at most 255.
    jt: u8,
    jf: u8,
    k: u32,
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ENOSYS: u16 = 38;
const X32_BIT: u32 = 0x4000_0000;

/// What happens to a call: an action, or conditional actions with a last resort.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    alternatives: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

/// Compiles for the native architecture and those that run on it besides.
pub(super) fn compile(profile: &Profile) -> Vec<u8> {
    let mut program = vec![statement(LOAD, ARCHITECTURE)];
    for &(audit, column) in COLUMNS {
        let mut ranges = ranges(profile, column);
        if column == 0 {
            // x86_64 and x32 share their AUDIT_ARCH; their numbers do not overlap.
            ranges.retain(|(first, _)| *first < X32_BIT);
            ranges.extend(self::ranges(profile, X32).into_iter().filter(|(first, _)| *first >= X32_BIT));
        }
        let mut section = vec![statement(LOAD, NUMBER)];
        search(&ranges, &mut section);
        program.push(Instruction { code: EQUAL, jt: 1, jf: 0, k: audit });
        program.push(statement(JUMP, length(&section)));
        program.extend(section);
    }
    // An architecture that no rule speaks of.
    program.push(statement(RETURN, Action::KillProcess.code()));
    program.iter().flat_map(Instruction::bytes).collect()
}

/// Ranges of numbers with one verdict each: their first numbers, ascending, from 0 (or the x32 bit).
fn ranges(profile: &Profile, column: usize) -> Vec<(u32, Verdict)> {
    let verdicts = verdicts(profile, column);
    let default = Verdict { alternatives: Vec::new(), otherwise: profile.default };
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |first: u32, verdict: &Verdict| {
        if ranges.last().is_none_or(|(_, last)| last != verdict || (first == X32_BIT)) {
            ranges.push((first, verdict.clone()));
        }
    };
    let mut next = if column == X32 { X32_BIT } else { 0 };
    if verdicts.keys().next() != Some(&next) {
        push(next, &default);
    }
    for (number, verdict) in &verdicts {
        if *number > next {
            push(next, &default);
        }
        push(*number, verdict);
        next = number + 1;
    }
    // Calls younger than the profile do not exist, rather than being forbidden: programs that try
    // them first then fall back.
    let unknown = match profile.default {
        Action::Errno(_) => Verdict { alternatives: Vec::new(), otherwise: Action::Errno(ENOSYS) },
        _ => default,
    };
    push(next, &unknown);
    ranges
}

fn verdicts(profile: &Profile, column: usize) -> BTreeMap<u32, Verdict> {
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| number(name, column)) {
            let verdict = verdicts
                .entry(number)
                .or_insert_with(|| Verdict { alternatives: Vec::new(), otherwise: profile.default });
            if rule.conditions.is_empty() {
                // A rule without conditions is the stronger one, wherever it stands.
                *verdict = Verdict { alternatives: Vec::new(), otherwise: rule.action };
            } else if verdict.otherwise == profile.default {
                verdict.alternatives.push((rule.conditions.clone(), rule.action));
            }
        }
    }
    verdicts
}

/// Binary search for the number in the accumulator.
fn search(ranges: &[(u32, Verdict)], program: &mut Vec<Instruction>) {
    match ranges {
        [] => {}
        [(_, verdict)] => decide(verdict, program),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let mut left = Vec::new();
            search(low, &mut left);
            match u8::try_from(left.len()) {
                Ok(skip) => {
                    program.push(Instruction { code: GREATER_OR_EQUAL, jt: skip, jf: 0, k: high[0].0 })
                }
                Err(_) => {
                    program.push(Instruction { code: GREATER_OR_EQUAL, jt: 0, jf: 1, k: high[0].0 });
                    program.push(statement(JUMP, length(&left)));
                }
            }
            program.extend(left);
            search(high, program);
        }
    }
}

fn decide(verdict: &Verdict, program: &mut Vec<Instruction>) {
    for (conditions, action) in &verdict.alternatives {
        let mut block = Vec::new();
        for condition in conditions {
            test(condition, &mut block);
        }
        let end = block.len() + 1;
        for (position, instruction) in block.iter_mut().enumerate() {
            // The next alternative begins after this one's return.
            let skip = u8::try_from(end - position - 1).unwrap_or(MISS - 1);
            if instruction.code & 0x07 == 0x05 {
                instruction.jt = if instruction.jt == MISS { skip } else { instruction.jt };
                instruction.jf = if instruction.jf == MISS { skip } else { instruction.jf };
            }
        }
        program.extend(block);
        program.push(statement(RETURN, action.code()));
    }
    program.push(statement(RETURN, verdict.otherwise.code()));
}

/// Stands for "to the next alternative" until its distance is known. Six conditions make at most 30
/// instructions, so it is no real distance.
const MISS: u8 = 255;

/// Falls through if the condition holds.
fn test(condition: &Condition, block: &mut Vec<Instruction>) {
    let low = ARGUMENTS + 8 * condition.argument;
    let high = low + 4;
    let (value_high, value_low) = halves(condition.value);
    let jump = |code, k, jt, jf| Instruction { code, jt, jf, k };
    match condition.operator {
        Operator::Equal => block.extend([
            statement(LOAD, high),
            jump(EQUAL, value_high, 0, MISS),
            statement(LOAD, low),
            jump(EQUAL, value_low, 0, MISS),
        ]),
        Operator::NotEqual => block.extend([
            statement(LOAD, high),
            jump(EQUAL, value_high, 0, 2),
            statement(LOAD, low),
            jump(EQUAL, value_low, MISS, 0),
        ]),
        Operator::Greater | Operator::GreaterOrEqual => {
            let last = if condition.operator == Operator::Greater { GREATER } else { GREATER_OR_EQUAL };
            block.extend([
                statement(LOAD, high),
                jump(GREATER, value_high, 3, 0),
                jump(EQUAL, value_high, 0, MISS),
                statement(LOAD, low),
                jump(last, value_low, 0, MISS),
            ]);
        }
        Operator::Less | Operator::LessOrEqual => {
            let last = if condition.operator == Operator::Less { GREATER_OR_EQUAL } else { GREATER };
            block.extend([
                statement(LOAD, high),
                jump(GREATER, value_high, MISS, 0),
                jump(EQUAL, value_high, 0, 2),
                statement(LOAD, low),
                jump(last, value_low, MISS, 0),
            ]);
        }
        Operator::MaskedEqual => {
            let (second_high, second_low) = halves(condition.second);
            block.extend([
                statement(LOAD, high),
                statement(AND, value_high),
                jump(EQUAL, second_high, 0, MISS),
                statement(LOAD, low),
                statement(AND, value_low),
                jump(EQUAL, second_low, 0, MISS),
            ]);
        }
    }
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, (value & 0xffff_ffff) as u32)
}

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn length(program: &[Instruction]) -> u32 {
    u32::try_from(program.len()).expect("a filter has at most 4096 instructions")
}

impl Instruction {
    fn bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.jt;
        bytes[3] = self.jf;
        bytes[4..].copy_from_slice(&self.k.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
pub(super) mod interpreter;

//! Runs a filter as the kernel does, for tests of decisions that no test can provoke natively.

use super::{AND, EQUAL, GREATER, GREATER_OR_EQUAL, JUMP, LOAD, RETURN};

/// What the filter returns for a call.
pub(in crate::seccomp) fn run(program: &[u8], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend([0; 8]);
    arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let bytes = &program[8 * at..8 * at + 8];
        let (code, k) =
            (u16::from_ne_bytes([bytes[0], bytes[1]]), u32::from_ne_bytes(bytes[4..].try_into().unwrap()));
        let mut branch = |holds: bool| at += usize::from(if holds { bytes[2] } else { bytes[3] });
        match code {
            LOAD => accumulator = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            AND => accumulator &= k,
            EQUAL => branch(accumulator == k),
            GREATER => branch(accumulator > k),
            GREATER_OR_EQUAL => branch(accumulator >= k),
            JUMP => at += k as usize,
            RETURN => return k,
            other => panic!("instruction {other:#x}"),
        }
        at += 1;
    }
}

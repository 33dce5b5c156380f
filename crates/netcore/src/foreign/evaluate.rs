//! One packet through one base chain.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::packet::{Bits, Packet, sure};
use super::{Comparison, Element, Expr, Ruleset, Table, Verdict};

/// Registers of nf_tables' machine, in bytes.
const REGISTERS: usize = 64;
/// The kernel allows 16 levels of jumps.
const DEPTH: usize = 16;

/// Whether something holds of a packet of which not all is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Perhaps,
}

impl Holds {
    fn invert(self, invert: bool) -> Self {
        match self {
            Self::Yes if invert => Self::No,
            Self::No if invert => Self::Yes,
            other => other,
        }
    }
}

/// How a packet leaves a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Accepted,
    /// Dropped there: by a rule of this chain, by its number from 0, or by its policy.
    Dropped(String, Option<usize>),
    /// Back to the caller.
    Returned,
}

/// All the ways it may leave a chain, and the one it takes if nothing that is not certain applies.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) may_pass: bool,
    pub(super) may_return: bool,
    pub(super) end: End,
    /// It could be another if more were known of the packet's port.
    pub(super) asks_port: bool,
}

/// Sends the packet through a base chain.
pub(super) fn evaluate(ruleset: &Ruleset, table: &Table, chain: &str, packet: &Packet) -> Outcome {
    let mut run = Run { ruleset, table, packet, known: BTreeMap::new(), asks_port: Cell::new(false) };
    let outcome = run.chain(chain, 0);
    let drops = table.chains.get(chain).and_then(|chain| chain.base.as_ref()).is_some_and(|base| base.drops);
    Outcome {
        may_pass: outcome.may_pass || (outcome.may_return && !drops),
        may_return: false,
        end: match outcome.end {
            End::Returned if drops => End::Dropped(chain.to_owned(), None),
            End::Returned => End::Accepted,
            end => end,
        },
        asks_port: run.asks_port.get(),
    }
}

struct Run<'a> {
    ruleset: &'a Ruleset,
    table: &'a Table,
    packet: &'a Packet,
    known: BTreeMap<String, Outcome>,
    asks_port: Cell<bool>,
}

impl Run<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> Outcome {
        if self.ruleset.ours.contains(name) {
            return Outcome { may_pass: true, may_return: false, end: End::Accepted, asks_port: false };
        }
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let mut outcome = Outcome { may_pass: false, may_return: true, end: End::Returned, asks_port: false };
        let table = self.table;
        let rules = match table.chains.get(name) {
            Some(chain) if depth <= DEPTH => chain.rules.as_slice(),
            _ => return Outcome { may_pass: true, ..outcome },
        };
        let mut decided = false;
        let mut returns = false;
        for (number, rule) in rules.iter().enumerate() {
            for (holds, verdict) in self.rule(rule) {
                let (sub, comes_back) = self.verdict(name, number, &verdict, depth);
                outcome.may_pass |= sub.may_pass;
                let leaves_by_return = sub.may_return && !comes_back;
                returns |= leaves_by_return;
                if holds == Holds::Perhaps {
                    continue;
                }
                let goes_on = comes_back && sub.end == End::Returned;
                if !decided && !goes_on {
                    outcome.end = sub.end.clone();
                    decided = true;
                }
                if !(comes_back && sub.may_return) {
                    outcome.may_return = returns;
                    self.known.insert(name.to_owned(), outcome.clone());
                    return outcome;
                }
            }
        }
        self.known.insert(name.to_owned(), outcome.clone());
        outcome
    }

    /// What becomes of the packet by a verdict, and whether after a return it is the next rule's.
    fn verdict(&mut self, chain: &str, number: usize, verdict: &Verdict, depth: usize) -> (Outcome, bool) {
        let outcome = |may_pass, may_return, end| Outcome { may_pass, may_return, end, asks_port: false };
        match verdict {
            Verdict::Accept | Verdict::Elsewhere => (outcome(true, false, End::Accepted), false),
            Verdict::Drop => (outcome(false, false, End::Dropped(chain.to_owned(), Some(number))), false),
            Verdict::Return => (outcome(false, true, End::Returned), false),
            Verdict::Jump(to) => (self.chain(to, depth + 1), true),
            Verdict::Goto(to) => (self.chain(to, depth + 1), false),
        }
    }

    /// The verdicts that a rule may come to, in the order of trying.
    fn rule(&self, rule: &[Expr]) -> Vec<(Holds, Verdict)> {
        let mut registers = [Bits::default(); REGISTERS];
        let mut so_far = Holds::Yes;
        for expr in rule {
            let holds = match expr {
                Expr::Verdict(verdict) => return vec![(so_far, verdict.clone())],
                Expr::VerdictMap { map, at } => return self.map(map, &registers[*at..], so_far),
                Expr::Perhaps => Holds::Perhaps,
                Expr::Compare { at, how, bytes } => {
                    self.note(compare(&registers[*at..], *how, bytes), &registers[*at..], bytes.len())
                }
                Expr::Range { at, least, greatest, invert } => {
                    let holds = between(&registers[*at..], least, greatest).invert(*invert);
                    self.note(holds, &registers[*at..], least.len())
                }
                Expr::Lookup { set, at, invert } => self.lookup(set, &registers[*at..]).invert(*invert),
                _ => {
                    self.compute(expr, &mut registers);
                    Holds::Yes
                }
            };
            match holds {
                Holds::No => return Vec::new(),
                Holds::Perhaps => so_far = Holds::Perhaps,
                Holds::Yes => {}
            }
        }
        Vec::new()
    }

    /// What remains open may be so for want of the port.
    fn note(&self, holds: Holds, registers: &[Bits], len: usize) -> Holds {
        if holds == Holds::Perhaps && registers.iter().take(len).any(|bits| bits.port != 0) {
            self.asks_port.set(true);
        }
        holds
    }

    fn compute(&self, expr: &Expr, registers: &mut [Bits; REGISTERS]) {
        let (to, bits) = match expr {
            Expr::Load { field, to, len } => (*to, self.packet.load(*field, *len, &self.ruleset.links)),
            Expr::Constant { to, bytes } => (*to, sure(bytes)),
            Expr::Forget => (0, vec![Bits::default(); REGISTERS]),
            Expr::Mask { from, to, mask, xor } => {
                let bits = mask.iter().zip(xor).enumerate().map(|(at, (mask, xor))| {
                    let bits = registers.get(from + at).copied().unwrap_or_default();
                    Bits {
                        value: (bits.value & mask) ^ xor,
                        known: bits.known | !mask,
                        port: bits.port & mask,
                    }
                });
                (*to, bits.collect())
            }
            _ => return,
        };
        for (register, bits) in registers.iter_mut().skip(to).zip(bits) {
            *register = bits;
        }
    }

    fn lookup(&self, name: &str, registers: &[Bits]) -> Holds {
        let Some(set) = self.table.sets.get(name) else { return Holds::Perhaps };
        let mut found = if set.partial { Holds::Perhaps } else { Holds::No };
        for element in &set.elements {
            match self.note(has(element, registers), registers, element.least.len()) {
                Holds::Yes => return Holds::Yes,
                Holds::Perhaps => found = Holds::Perhaps,
                Holds::No => {}
            }
        }
        found
    }

    fn map(&self, name: &str, registers: &[Bits], so_far: Holds) -> Vec<(Holds, Verdict)> {
        let Some(map) = self.table.sets.get(name) else { return vec![(Holds::Perhaps, Verdict::Elsewhere)] };
        let mut all = Vec::new();
        for element in &map.elements {
            let verdict = element.verdict.clone().unwrap_or(Verdict::Elsewhere);
            match self.note(has(element, registers), registers, element.least.len()) {
                Holds::Yes => {
                    all.push((so_far, verdict));
                    return all;
                }
                Holds::Perhaps => all.push((Holds::Perhaps, verdict)),
                Holds::No => {}
            }
        }
        if map.partial {
            all.push((Holds::Perhaps, Verdict::Elsewhere));
        }
        all
    }
}

fn has(element: &Element, registers: &[Bits]) -> Holds {
    match &element.greatest {
        None => compare(registers, Comparison::Eq, &element.least),
        Some(greatest) => between(registers, &element.least, greatest),
    }
}

/// The least and the greatest value that the registers may have, and whether they are the same.
fn bounds(registers: &[Bits], len: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let registers = registers.get(..len)?;
    let least = registers.iter().map(|bits| bits.value & bits.known).collect();
    let greatest = registers.iter().map(|bits| bits.value | !bits.known).collect();
    Some((least, greatest))
}

fn compare(registers: &[Bits], how: Comparison, bytes: &[u8]) -> Holds {
    let Some((least, greatest)) = bounds(registers, bytes.len()) else { return Holds::Perhaps };
    let order = |always: bool, never: bool| match (always, never) {
        (true, _) => Holds::Yes,
        (_, true) => Holds::No,
        _ => Holds::Perhaps,
    };
    let (least, greatest) = (least.as_slice(), greatest.as_slice());
    match how {
        Comparison::Eq | Comparison::Ne => {
            let differs =
                registers.iter().zip(bytes).any(|(bits, byte)| (bits.value ^ byte) & bits.known != 0);
            let equal = least == greatest && least == bytes;
            order(equal, differs).invert(how == Comparison::Ne)
        }
        Comparison::Lt => order(greatest < bytes, least >= bytes),
        Comparison::Le => order(greatest <= bytes, least > bytes),
        Comparison::Gt => order(least > bytes, greatest <= bytes),
        Comparison::Ge => order(least >= bytes, greatest < bytes),
    }
}

fn between(registers: &[Bits], from: &[u8], to: &[u8]) -> Holds {
    match (compare(registers, Comparison::Ge, from), compare(registers, Comparison::Le, to)) {
        (Holds::Yes, Holds::Yes) => Holds::Yes,
        (Holds::No, _) | (_, Holds::No) => Holds::No,
        _ => Holds::Perhaps,
    }
}

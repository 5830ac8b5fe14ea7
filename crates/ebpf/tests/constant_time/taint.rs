//! What a program's instructions do with secrets: an abstract run over all paths.
//!
//! Each register and each byte of the stack is one of a few things, the worst that it can be on any path. All that is read from
//! the scratch area is taken for secret, keys, counters and messages alike; what a function is told beside it, lengths and
//! numbers of blocks, is public. A finding is an instruction whose time may depend on a secret: a conditional jump on one, an
//! access at an address that one went into, a division, a call that is handed one.

use std::collections::{BTreeMap, BTreeSet};

/// An instruction as the kernel is given it (Linux, Documentation/bpf/standardization/instruction-set.rst).
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    pub code: u8,
    pub to: u8,
    pub from: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// What a register or a byte of the stack may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing yet.
    Nothing,
    /// No secret went into it.
    Public,
    /// The scratch area's address, and public numbers.
    Scratch,
    /// An address on the stack, so far below its top.
    Stack(i32),
    /// A secret went into it, or it may be things that do not go together.
    Secret,
}

use Value::{Nothing, Public, Scratch, Secret, Stack};

impl Value {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Nothing, value) | (value, Nothing) => value,
            (one, other) if one == other => one,
            _ => Secret,
        }
    }
}

/// Bytes of a stack.
const STACK: i32 = 512;

/// What all registers and the stack may hold before an instruction.
#[derive(Clone, PartialEq, Eq)]
struct State {
    registers: [Value; 11],
    stack: Vec<Value>,
}

impl State {
    /// As a function finds it: the scratch area, a public number, and no stack of its own yet.
    fn entry() -> Self {
        let mut registers = [Nothing; 11];
        registers[1] = Scratch;
        registers[2] = Public;
        registers[10] = Stack(0);
        Self { registers, stack: vec![Nothing; STACK as usize] }
    }

    fn or(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (one, other) in both.registers.iter_mut().zip(&other.registers) {
            *one = one.or(*other);
        }
        for (one, other) in both.stack.iter_mut().zip(&other.stack) {
            *one = one.or(*other);
        }
        both
    }

    /// Bytes of the stack, if it has those.
    fn slot(&mut self, offset: i32, size: i32) -> Option<&mut [Value]> {
        let begin = usize::try_from(STACK + offset).ok()?;
        self.stack.get_mut(begin..begin + size as usize)
    }
}

/// What was found in a program's functions.
#[derive(Debug, Default)]
pub struct Findings {
    /// Instructions whose time may depend on a secret, by their number, with what is wrong with them.
    pub leaks: BTreeMap<usize, &'static str>,
    /// For each instruction that can be reached the registers that may hold a secret before it.
    pub secrets: BTreeMap<usize, Vec<u8>>,
}

/// No verifier would let that pass.
const BEYOND: &str = "leaves the stack";

const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_LONG: u8 = 0x18;
/// In a call: the number is how far away another function of the program begins.
const OWN_FUNCTION: u8 = 1;

/// Looks at every function that the program's main part calls, and at those that they call.
pub fn examine(code: &[Instruction]) -> Findings {
    let mut findings = Findings::default();
    let mut functions = BTreeSet::new();
    // The main part ends where the first function begins.
    let first = (0..code.len()).filter_map(|at| callee(code, at)).min().expect("the program calls functions");
    let mut waiting: Vec<usize> = (0..first).filter_map(|at| callee(code, at)).collect();
    while let Some(function) = waiting.pop() {
        if functions.insert(function) {
            waiting.extend(run(code, function, &mut findings));
        }
    }
    findings
}

fn callee(code: &[Instruction], at: usize) -> Option<usize> {
    let instruction = code[at];
    (instruction.code == CALL && instruction.from == OWN_FUNCTION)
        .then(|| (at as i64 + 1 + i64::from(instruction.immediate)) as usize)
}

/// Runs one function until no state changes any more; returns which it calls.
fn run(code: &[Instruction], function: usize, findings: &mut Findings) -> Vec<usize> {
    let mut states: BTreeMap<usize, State> = [(function, State::entry())].into();
    let mut changed = BTreeSet::from([function]);
    let mut calls = Vec::new();
    while let Some(at) = changed.pop_first() {
        let mut state = states[&at].clone();
        let secret = |value: &Value| *value == Secret;
        let held = (0..10).filter(|register| secret(&state.registers[usize::from(*register)])).collect();
        findings.secrets.insert(at, held);
        calls.extend(callee(code, at));
        let mut leak = |what| {
            findings.leaks.insert(at, what);
        };
        for next in step(code, at, &mut state, &mut leak) {
            let joined = states.get(&next).map_or_else(|| state.clone(), |known| known.or(&state));
            if states.get(&next) != Some(&joined) {
                states.insert(next, joined);
                changed.insert(next);
            }
        }
    }
    calls
}

/// What one instruction does to a state, and where it goes on.
fn step(code: &[Instruction], at: usize, state: &mut State, leak: &mut impl FnMut(&'static str)) -> Vec<usize> {
    let Instruction { code: operation, to, from, offset, immediate } = code[at];
    let (to, from) = (usize::from(to), usize::from(from));
    let jump = |by: i64| (at as i64 + 1 + by) as usize;
    let by_register = operation & 0x08 != 0;
    let size = [4, 2, 1, 8][usize::from(operation >> 3 & 3)];
    match operation & 0x07 {
        // BPF_LD: an immediate of 64 bits, in the place of two instructions.
        0x00 => {
            assert_eq!(operation, LOAD_LONG);
            state.registers[to] = Public;
            return vec![at + 2];
        }
        // BPF_LDX.
        0x01 => {
            state.registers[to] = match state.registers[from] {
                Stack(place) => match state.slot(place + i32::from(offset), size) {
                    Some(slot) => slot.iter().fold(Nothing, |all, byte| all.or(*byte)),
                    None => {
                        leak(BEYOND);
                        Secret
                    }
                },
                Scratch => Secret,
                _ => {
                    leak("reads where a secret says");
                    Secret
                }
            };
        }
        // BPF_ST and BPF_STX.
        0x02 | 0x03 => {
            let value = if operation & 0x07 == 0x02 { Public } else { state.registers[from] };
            match state.registers[to] {
                Stack(place) => match state.slot(place + i32::from(offset), size) {
                    Some(slot) => slot.fill(value),
                    None => leak(BEYOND),
                },
                Scratch => {}
                _ => leak("writes where a secret says"),
            }
        }
        // BPF_ALU and BPF_ALU64.
        0x04 | 0x07 => {
            let other = if by_register { state.registers[from] } else { Public };
            let wide = operation & 0x07 == 0x07;
            let one = state.registers[to];
            state.registers[to] = match (operation >> 4, one, other) {
                // Division and remainder.
                (0x3 | 0x9, one, other) => {
                    if one == Secret || other == Secret {
                        leak("divides a secret");
                    }
                    one.or(other)
                }
                (0xb, _, other) => other,
                // Negation and the order of bytes.
                (0x8 | 0xd, one, _) => one,
                (0x0, Stack(place), Public) if wide && !by_register => Stack(place + immediate),
                (0x0 | 0x1, Scratch, Public) | (0x0, Public, Scratch) if wide => Scratch,
                (_, Public, Public) => Public,
                _ => Secret,
            };
        }
        // BPF_JMP and BPF_JMP32.
        _ => match operation {
            CALL => {
                if state.registers[1] != Scratch || state.registers[2] == Secret || from != usize::from(OWN_FUNCTION) {
                    leak("hands a secret on");
                }
                for register in 1..=5 {
                    state.registers[register] = Nothing;
                }
                state.registers[0] = Public;
            }
            EXIT => return Vec::new(),
            0x05 => return vec![jump(offset.into())],
            0x06 => return vec![jump(immediate.into())],
            _ => {
                if state.registers[to] == Secret || by_register && state.registers[from] == Secret {
                    leak("jumps on a secret");
                }
                return vec![at + 1, jump(offset.into())];
            }
        },
    }
    vec![at + 1]
}

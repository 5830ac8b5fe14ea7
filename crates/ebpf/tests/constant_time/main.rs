//! No instruction of the cipher takes a time that depends on a secret: read off the instructions that the kernel is given, and
//! which its compiler turns into the machine's one by one.

#[path = "../common/mod.rs"]
mod common;

mod taint;

use common::Programs;
use taint::{Instruction, examine};

/// What the kernel is given of a program.
fn code(name: &str) -> Vec<Instruction> {
    let programs = Programs::load();
    let plain = programs.code(name).iter().map(|insn| Instruction {
        code: insn.code,
        to: insn.dst_reg(),
        from: insn.src_reg(),
        offset: insn.off,
        immediate: insn.imm,
    });
    plain.collect()
}

/// The one exception: whether a message is authentic is for all to see.
const VERDICT: &[&str] = &["jumps on a secret"];

#[test]
fn no_time_depends_on_a_secret_when_sealing() {
    let findings = examine(&code("seal"));
    assert!(findings.secrets.len() > 500, "so few instructions are no cipher");
    assert!(findings.leaks.is_empty(), "{:?}", findings.leaks);
}

#[test]
fn no_time_depends_on_a_secret_when_opening_but_on_the_verdict() {
    let code = code("open");
    let findings = examine(&code);
    assert!(findings.leaks.values().eq(VERDICT), "{:?}", findings.leaks);
    // It asks whether the whole difference is zero, of nothing else.
    let (at, _) = findings.leaks.first_key_value().expect("one, as was just seen");
    let verdict = code[*at];
    assert!([0x15, 0x55].contains(&verdict.code) && verdict.immediate == 0, "{verdict:?}");
}

/// The control: wherever an instruction that has a secret at hand is exchanged for one that leaks it, it is found.
#[test]
fn a_planted_leak_is_found_anywhere() {
    let code = code("seal");
    let secrets = examine(&code).secrets;
    let mut planted = 0;
    for (at, registers) in secrets {
        // What jumps, and what takes two places, is left as it is; and of the rest every third, or it would take long.
        let Some(register) =
            registers.first().copied().filter(|_| ![0, 5, 6].contains(&(code[at].code & 7)) && at % 3 == 0)
        else {
            continue;
        };
        let plain = Instruction { code: 0, to: register, from: 10, offset: 0, immediate: 0 };
        let leaks = [
            // A jump to the next instruction if the register, or its lower half, is not zero.
            (Instruction { code: 0x55, ..plain }, "jumps on a secret"),
            (Instruction { code: 0x56, ..plain }, "jumps on a secret"),
            // A jump if another is greater than it.
            (Instruction { code: 0x2d, to: 10, from: register, ..plain }, "jumps on a secret"),
            (Instruction { code: 0x3f, to: 0, from: register, ..plain }, "divides a secret"),
            (Instruction { code: 0x71, to: 0, from: register, ..plain }, "reads where a secret says"),
            (Instruction { code: 0x72, ..plain }, "writes where a secret says"),
        ];
        let (leak, what) = leaks[planted % leaks.len()];
        let mut changed = code.clone();
        changed[at] = leak;
        assert_eq!(examine(&changed).leaks.get(&at), Some(&what), "instruction {at}: {leak:?}");
        planted += 1;
    }
    assert!(planted > 150, "only {planted}");
}

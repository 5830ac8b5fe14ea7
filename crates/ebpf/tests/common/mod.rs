#![allow(dead_code, reason = "no user of this needs all of it")]
//! Runs the programs of `bpf/aead_test.bpf.c` with a message of the test's choice.

use std::mem::{offset_of, size_of};
use std::time::Duration;

use libbpf_rs::libbpf_sys::bpf_insn;
use libbpf_rs::{Object, ObjectBuilder, ProgramInput};

/// What stands before the message: `struct request` in the C.
#[repr(C)]
struct Request {
    ethernet: [u8; 16],
    key: [u8; 32],
    counter: u64,
    len: u32,
    outcome: i32,
}

/// Bytes at the head of the scratch area that have to be zero after a message: WL_SECRET_LEN in the C.
pub const SECRET_LEN: usize = 184;

/// The programs, in this machine's kernel until they are dropped.
pub struct Programs(Object);

/// What a program made of a message.
pub struct Outcome {
    /// What the C function returned.
    pub returned: i32,
    /// The message, worked on.
    pub message: Vec<u8>,
    /// What one run took.
    pub took: Duration,
}

impl Programs {
    pub fn load() -> Self {
        let object = ObjectBuilder::default()
            .open_memory(ebpf::AEAD_TEST_OBJECT)
            .and_then(|open| open.load())
            .expect("the kernel takes the programs; this needs root");
        Self(object)
    }

    /// Runs `name` `times` times over `message`, telling it of `len` bytes.
    pub fn run(&self, name: &str, key: &[u8; 32], counter: u64, message: &[u8], len: usize, times: u32) -> Outcome {
        let mut packet = vec![0; size_of::<Request>()];
        packet[offset_of!(Request, key)..][..32].copy_from_slice(key);
        packet[offset_of!(Request, counter)..][..8].copy_from_slice(&counter.to_ne_bytes());
        packet[offset_of!(Request, len)..][..4].copy_from_slice(&(len as u32).to_ne_bytes());
        packet[offset_of!(Request, outcome)..][..4].copy_from_slice(&i32::MAX.to_ne_bytes());
        packet.extend_from_slice(message);
        let took = self.test_run(name, &mut packet, times);
        let returned = packet[offset_of!(Request, outcome)..][..4].try_into().expect("four bytes");
        let message = packet.split_off(size_of::<Request>());
        Outcome { returned: i32::from_ne_bytes(returned), message, took }
    }

    /// The instructions of `name` and of all functions that it calls.
    pub fn code(&self, name: &str) -> &[bpf_insn] {
        self.0.progs().find(|program| program.name() == name).expect("it is in the object").insns()
    }

    /// The head of the scratch area after what ran last on this processor.
    pub fn leftover(&self) -> Vec<u8> {
        let mut packet = vec![0xEE; SECRET_LEN];
        self.test_run("leftover", &mut packet, 1);
        packet
    }

    fn test_run(&self, name: &str, packet: &mut [u8], times: u32) -> Duration {
        let program = self.0.progs_mut().find(|program| program.name() == name).expect("it is in the object");
        let given = packet.to_vec();
        let input =
            ProgramInput { data_in: Some(&given), data_out: Some(packet), repeat: times, ..ProgramInput::default() };
        let output = program.test_run(input).expect("the kernel runs it");
        assert_eq!(output.return_value, 0, "{name} could not even begin");
        output.duration
    }

    /// Poly1305's tag of `message` and its length, by a key of its own.
    pub fn authenticate(&self, key: &[u8; 32], message: &[u8]) -> Vec<u8> {
        let room = [message, &[0; 16]].concat();
        let outcome = self.run("authenticate", key, 0, &room, message.len(), 1);
        assert_eq!(outcome.returned, 0);
        outcome.message[message.len()..][..16].to_vec()
    }

    /// The payload with its tag behind it.
    pub fn seal(&self, key: &[u8; 32], counter: u64, payload: &[u8]) -> Vec<u8> {
        let room = [payload, &[0; 16]].concat();
        let outcome = self.run("seal", key, counter, &room, payload.len(), 1);
        assert_eq!(outcome.returned, 0);
        outcome.message
    }

    /// The payload of `sealed`, or what was left of it if it is not authentic.
    pub fn open(&self, key: &[u8; 32], counter: u64, sealed: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        let outcome = self.run("open", key, counter, sealed, sealed.len(), 1);
        match outcome.returned {
            0 => Ok(outcome.message[..sealed.len() - 16].to_vec()),
            -1 => Err(outcome.message),
            other => panic!("wl_open returned {other}"),
        }
    }
}

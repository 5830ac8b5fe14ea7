//! End to end: real daemons in network namespaces of this machine, configured by Debian's `wg`, carrying real traffic.
//!
//! Each test makes what it needs and takes it away. They need root, the programs and peers that `cargo xtask setup` installs,
//! and our binary: where `WIRELOOM_BIN` says, or else next to this test. What is missing makes a test fail, never pass.
#![forbid(unsafe_code)]
// A test that cannot go on panics: then the daemons' logs are shown as they are dropped.
#![allow(clippy::unwrap_used)]

// First in the alphabet and so the first to start: they take two and three minutes, in which the others run beside them.
mod across_a_kernels_rekey;
mod across_a_kill;
mod across_a_rekey;
mod attend;
mod bed;
mod capture;
mod commands;
mod common;
mod configuration;
mod datapath;
mod doctor;
mod eavesdropper;
mod ebpf;
mod engines;
mod errors;
mod estate;
mod files;
mod filters;
mod heirs;
mod helping;
mod hostile;
mod hostile_flood;
mod interop;
mod kernel;
mod kernel_device;
mod keys;
mod laboratory;
mod latency;
mod lifecycle;
mod links;
mod moves;
mod nat;
mod netns;
mod onion;
mod paper;
mod policy;
mod policy_restart;
mod privileges;
mod quick_dns;
mod quick_failures;
mod quick_kill_switch;
mod quick_reference;
mod quick_up;
mod reload;
mod restart;
mod restart_up;
mod routing;
mod scale;
mod service;
mod sizes;
mod sleep;
mod telling;
mod wg;
mod wire;

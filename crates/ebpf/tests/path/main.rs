//! The data path's programs where they belong, on interfaces, with the maps written as the daemon would: packets of the kernel's own go in at one
//! end, and what comes out at the other is held against `ring`.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod bed;
mod egress;
mod ingress;
mod kernels;
mod replay;
mod tunnel;
mod wire;

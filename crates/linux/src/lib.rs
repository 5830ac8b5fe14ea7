//! Everything that touches the kernel by system call.
//!
//! What is in here is a thin and safe layer: a type for each kernel object, a method for each thing that Wireloom asks of
//! it, and an error that says what happened. No protocol, no policy, no threads (but for a helper that enters a network
//! namespace and ends) and no processes (but for the [`steward`], which holds the privileges): who waits for what, and what
//! follows from it, is decided in `plane` and `control`, which forbid `unsafe` and can do so because of this crate.
//!
//! The hot calls (`tun::Queue::read`, `tun::Queue::write_vectored`, `udp::Socket::recv`, `udp::Socket::send`) allocate
//! nothing: their message headers and control buffers are on the stack. Each offload is probed when its object is made,
//! and what the kernel did not grant is missing from the answer, so that the same code runs on Linux 5.4 and on 6.18.

#![warn(missing_docs)]

pub mod bpf;
pub mod buffer;
pub mod capabilities;
pub mod clock;
pub mod heir;
pub mod icmp;
pub mod link;
pub mod manager;
pub mod memory;
#[cfg(feature = "modelled")]
pub mod modelled;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod poll;
pub mod probe;
pub mod process;
pub mod rt;
pub mod sandbox;
pub mod steward;
mod sys;
pub mod tun;
pub mod udp;
pub mod unix;

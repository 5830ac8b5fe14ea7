//! The evaluation: what the lab measured, kept, reckoned with and told.
//!
//! The lab measures; here lies what it found. A [`Run`] is everything of one machine: what the machine is, which [`System`]s were there, and a
//! [`Record`] for each measurement, good or failed. The [`catalogue`] knows every experiment: its question, its axis, its metrics with
//! their units, and which figure of the thesis on parallel WireGuard tunnels it answers. A [`Plan`] tells what is still to be
//! measured, so that a run can be resumed.
//!
//! Nothing here opens a socket or starts a program: the same file gives the same report on every machine.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod catalogue;
mod caveat;
mod code;
pub mod compare;
pub mod criteria;
mod distribution;
mod error;
mod kernel;
pub mod merge;
pub mod model;
mod plan;
pub mod plot;
mod record;
pub mod report;
mod run;
pub mod statistics;
mod text;
mod time;
mod unit;
pub mod verdict;
pub mod whole;

pub use code::{Code, CodePart, count_lines};
pub use distribution::Distribution;
pub use error::EvaluationError;
pub use kernel::{Growth, GuestKernel};
pub use plan::{Plan, Step, Todo};
pub use record::{Place, Record};
pub use run::{FORMAT, Machine, Run, System};
pub use text::{line, one_line};
pub use time::stamp;
pub use unit::Unit;

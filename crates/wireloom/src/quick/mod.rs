//! `wireloom up` and `down`: an interface with all that belongs to it, from one file, as wg-quick(8) has it.
//!
//! [`place`] finds the file, which `config::quick` reads. [`machine`] looks at what there is, [`plan`] makes of both an ordered list of
//! [`step`]s without touching anything, and [`up`] applies them one by one. Each that was begun is in the [`journal`] first, so that
//! whatever happens, [`undo`] finds what there is to take back: at once, in reverse, when a step fails or somebody interrupts, or
//! later by [`down`]. What wg-quick brought up has no journal: then the steps are derived from the file and the device.
//!
//! The steps: [`link`] and [`configure`] make the device, [`network`] gives it addresses, routes and rules. Around it [`dns`] sees to the
//! name servers, with [`resolv_conf`] where nobody else does, [`firewall`] to the tables, [`sysctl`] to a setting, and [`hook`] runs the file's commands;
//! other programs are run by [`program`].

mod again;
mod attend;
mod configure;
mod dns;
pub mod down;
mod engine;
pub mod error;
mod firewall;
mod home;
mod hook;
mod journal;
mod link;
mod machine;
mod network;
pub mod place;
mod plan;
mod policy;
mod program;
mod reload;
mod resolv_conf;
mod said;
mod save;
mod step;
mod sysctl;
pub mod tables;
mod undo;
pub mod up;

pub use again::{attend_again, configure_again, has_link};
pub use down::{DownArgs, Manner, down, take_down};
pub use engine::Engine;
pub use error::QuickError;
pub use journal::{Journal, Lock, numbers};
pub use link::{Starter, open_netns};
pub use place::interface_of_word;
pub use reload::{ReloadArgs, reload};
pub use save::{save, strip};
pub use up::{UpArgs, bring_up, up};

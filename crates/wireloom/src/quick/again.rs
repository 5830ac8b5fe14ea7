//! Keys and peers once more: for a daemon that has taken over an interface which is up.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use linux::netns;

use super::configure::{Configure, Mark};
use super::error::QuickError;
use super::journal::Journal;
use super::place::Place;
use super::step::{Stage, Step, StepError};
use crate::attend::Duties;
use crate::error::Error;

/// Gives the device of `journal` the keys and peers that its file has now, and the mark that it had. What belongs to the interface itself is left
/// as it is. Names that cannot be resolved are tried again until it is `interrupted`.
pub fn configure_again(journal: &Journal, interrupted: &Arc<AtomicBool>) -> Result<(), Error> {
    let place = Place { interface: super::interface_of_word(&journal.interface)?, file: journal.file.clone() };
    let quick = place.read()?;
    let home = netns::current().map_err(Error::Links)?;
    let interface = journal.interface.clone();
    let mut stage = Stage {
        interface: interface.clone(),
        home,
        interrupted: Arc::clone(interrupted),
        endpoints: Vec::new(),
        mark: 0,
        port: 0,
    };
    let again = |source: StepError| QuickError::Again { interface: interface.clone(), source: Box::new(source) };
    let names = Duties::names(&quick.device);
    let mut configure = Configure::new(&interface, &journal.file.to_string_lossy(), quick.device);
    configure.apply(&mut stage).map_err(|error| again(error.into()))?;
    for step in &journal.steps {
        match step {
            Step::Mark(noted) => {
                let mut mark = Mark { interface: interface.clone(), mark: noted.mark };
                mark.apply().map_err(|error| again(error.into()))?;
            }
            Step::Attend(noted) => noted.again(&stage, &names).map_err(|error| again(error.into()))?,
            _ => {}
        }
    }
    Ok(())
}

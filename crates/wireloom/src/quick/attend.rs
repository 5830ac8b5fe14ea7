//! The attendant of the interface: its peers' names resolved again, its keys wiped before suspend, its metrics served.
//!
//! Where nothing of that is wanted there is no such step. It is one of the last, so that it finds the interface as it will be. Our own
//! interfaces are attended to from home, where their datagrams leave and names are resolved; the kernel's are spoken to where they are, and
//! so an interface that was put into another namespace has its attendant, and its names, there.

use std::os::fd::AsFd;

use linux::netns;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::step::Stage;
use crate::attend::{self, AttendError, Duties, Name};
use crate::metrics::Place;

/// The step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attend {
    interface: String,
    /// The file that tells the names.
    file: String,
    /// Whether it is done inside of the namespace that the interface was put into.
    inside: bool,
    /// Whether session keys are wiped before the machine sleeps.
    wipe_on_suspend: bool,
    /// Where metrics are served.
    metrics: Vec<Place>,
    /// Not in the journal: whoever takes it back needs none of them.
    #[serde(skip)]
    names: Vec<Name>,
}

impl Attend {
    /// The step, if there is anything to do.
    pub fn new(interface: &str, file: &str, engine: Engine, duties: Duties) -> Option<Attend> {
        let (interface, file, inside) = (interface.to_owned(), file.to_owned(), engine == Engine::Kernel);
        let is_wanted = !duties.is_empty();
        let Duties { names, wipe_on_suspend, metrics } = duties;
        is_wanted.then_some(Attend { interface, file, inside, wipe_on_suspend, metrics, names })
    }

    /// Whether session keys are wiped before the machine sleeps.
    pub fn wipes(&self) -> bool {
        self.wipe_on_suspend
    }

    /// Where metrics are served.
    pub fn metrics(&self) -> &[Place] {
        &self.metrics
    }

    /// As a person would type it.
    pub fn describe(&self) -> String {
        let names = if self.names.is_empty() { String::new() } else { format!(" --file {}", self.file) };
        let wipe = if self.wipe_on_suspend { " --wipe-on-suspend" } else { "" };
        let metrics: String = self.metrics.iter().map(|place| format!(" --metrics {place}")).collect();
        format!("wireloom attend {}{names}{wipe}{metrics}", self.interface)
    }

    /// Whether it is done inside of the namespace that the interface was put into.
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// Starts it.
    ///
    /// # Errors
    /// It could not take up its duties.
    pub fn apply(&self, stage: &Stage) -> Result<(), AttendError> {
        self.start(stage, self.names.clone())
    }

    /// Starts it again, for a device that has been taken over, and so was not there for a moment.
    ///
    /// # Errors
    /// As [`Attend::apply`].
    pub fn again(&self, stage: &Stage, names: &[Name]) -> Result<(), AttendError> {
        self.start(stage, names.to_vec())
    }

    fn start(&self, stage: &Stage, names: Vec<Name>) -> Result<(), AttendError> {
        let (wipe_on_suspend, metrics) = (self.wipe_on_suspend, self.metrics.clone());
        let duties = Duties { names, wipe_on_suspend, metrics };
        if self.inside {
            return attend::start(&self.interface, &duties);
        }
        let started = netns::run_in(stage.home.as_fd(), || Ok(attend::start(&self.interface, &duties)));
        started.map_err(AttendError::Start)?
    }

    /// Ends it. It would end with the interface.
    ///
    /// # Errors
    /// It does not.
    pub fn undo(&self) -> Result<(), AttendError> {
        attend::end(&self.interface)
    }
}

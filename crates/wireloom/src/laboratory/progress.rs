//! Where a run stands: on a terminal one line that changes, elsewhere a line for each measurement.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use evaluation::catalogue;
use lab::experiment::Progress;

/// Tells on standard error where a run stands.
pub struct Teller {
    terminal: bool,
}

impl Teller {
    /// For the standard error that there is.
    pub fn new() -> Teller {
        Teller { terminal: io::stderr().is_terminal() }
    }

    /// What comes next. That nobody can be told is no reason to stop.
    pub fn tell(&self, progress: &Progress<'_>) {
        let (before, after) = if self.terminal { ("\r\x1b[2K", "") } else { ("", "\n") };
        let mut out = io::stderr();
        let _ = write!(out, "{before}{}{after}", line(progress)).and_then(|()| out.flush());
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

/// Something that takes minutes: on a terminal one line that changes, elsewhere a line when what is done changes, and one a minute.
pub struct Line {
    terminal: bool,
    last: Option<(String, Instant)>,
}

impl Line {
    /// For the standard error that there is.
    pub fn new() -> Line {
        Line { terminal: io::stderr().is_terminal(), last: None }
    }

    /// `what` is done, and `text` tells how far it is.
    pub fn tell(&mut self, what: &str, text: &str) {
        if self.terminal {
            eprint!("\r\x1b[2K{text}");
            return;
        }
        let fresh = |(last, when): &(String, Instant)| last == what && when.elapsed() < Duration::from_secs(60);
        if !self.last.as_ref().is_some_and(fresh) {
            eprintln!("{text}");
            self.last = Some((what.to_owned(), Instant::now()));
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

fn line(progress: &Progress<'_>) -> String {
    let Progress { step, round, done, of, left } = *progress;
    let title = catalogue::find(&step.experiment).map_or(step.experiment.as_str(), |it| it.title);
    let x: String = step.x.iter().map(|(key, value)| format!(", {key} {value}")).collect();
    let digits = of.to_string().len();
    format!("[{:>digits$}/{of}] round {round}: {}: {title}{x} ({})", done + 1, step.system, about(left))
}

/// How long it will take, as somebody who waits wants to know it.
pub fn about(left: Duration) -> String {
    match left.as_secs() {
        0..90 => format!("about {} s left", left.as_secs().max(1)),
        seconds @ 90..5400 => format!("about {} minutes left", seconds.div_ceil(60)),
        seconds => format!("about {:.1} hours left", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use evaluation::Step;

    use super::*;

    #[test]
    fn a_line_says_what_and_how_long() {
        let mut step = Step::new("streams", "wireloom", 1.0);
        step.x.insert("streams".to_owned(), 4.0);
        let progress = Progress { step: &step, round: 2, done: 6, of: 120, left: Duration::from_secs(301) };
        assert_eq!(
            line(&progress),
            "[  7/120] round 2: wireloom: Throughput against streams, streams 4 (about 6 minutes left)"
        );
    }

    #[test]
    fn times_as_people_say_them() {
        assert_eq!(about(Duration::ZERO), "about 1 s left");
        assert_eq!(about(Duration::from_secs(89)), "about 89 s left");
        assert_eq!(about(Duration::from_secs(7200)), "about 2.0 hours left");
    }
}

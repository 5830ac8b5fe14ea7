//! `wireloom top`: a live view of interfaces in a terminal.
//!
//! The interface is asked once an interval ([`crate::watch`]); what happened between two answers is what is shown ([`view`], [`screen`]). The
//! terminal is given back as it was however this ends: by a key, a signal, an error or a panic. `--once` prints one picture, in plain lines, and takes no
//! terminal.

mod screen;
mod view;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use linux::poll::{Signal, SignalFd};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::complete;
use crate::error::Error;
use crate::interface::InterfaceName;
use crate::watch::Seen;
use screen::Manner;
use view::{Look, View};

/// What to watch, and how.
#[derive(Args)]
pub struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// Print one picture, after one interval, in plain lines
    #[arg(long)]
    pub once: bool,
    /// The interface; all that there are, if not said
    #[arg(add = ArgValueCompleter::new(complete::interface))]
    pub interface: Option<InterfaceName>,
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("expected a number of seconds from 0.1 to 3600")
}

/// Why there is nothing to watch.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// No terminal.
    #[error("there is no terminal here, expected one on standard input and output, or `wireloom top --once`")]
    NoTerminal,
    /// No interface.
    #[error("no interface runs here, expected one that `wireloom run` makes")]
    NoInterfaces,
    /// The interface does not answer.
    #[error("{0}")]
    Ask(Box<Error>),
    /// The terminal failed.
    #[error("the terminal cannot be used: {0}")]
    Terminal(io::Error),
    /// Standard output failed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl From<Error> for TopError {
    fn from(error: Error) -> TopError {
        TopError::Ask(Box::new(error))
    }
}

fn look(name: &str) -> Result<Look, TopError> {
    Ok(Look { seen: Seen::ask(name)?, at: Instant::now() })
}

/// Shows interfaces until somebody has seen enough.
pub fn top(args: &TopArgs) -> Result<(), TopError> {
    let names = match &args.interface {
        Some(name) => vec![name.as_str().to_owned()],
        None => crate::client::interfaces()?,
    };
    let Some(first) = names.first() else { return Err(TopError::NoInterfaces) };
    if args.once {
        return once(&names, args.interval);
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    // What cannot be watched at all is told before the screen is cleared.
    let before = look(first)?;
    let signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup]).map_err(TopError::Terminal)?;
    // Also sets a hook that gives the terminal back in a panic.
    let terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    let restore = Restore;
    let mut top = Top::new(names, before, args.interval);
    let end = top.run(terminal, &signals);
    drop(restore);
    end
}

/// Gives the terminal back when it is dropped.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn once(names: &[String], interval: Duration) -> Result<(), TopError> {
    let before = names.iter().map(|name| look(name)).collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(interval);
    let mut text = String::new();
    for (name, before) in names.iter().zip(&before) {
        let separator = if text.is_empty() { "" } else { "\n" };
        let view = View::of(before, &look(name)?, view::Order::default(), SystemTime::now());
        text.push_str(separator);
        text.push_str(&screen::plain(&view));
    }
    io::stdout().write_all(text.as_bytes()).map_err(TopError::Output)
}

struct Top {
    names: Vec<String>,
    /// Which of them is shown.
    shown: usize,
    interval: Duration,
    before: Look,
    after: Option<Look>,
    manner: Manner,
    /// How far it can be scrolled, as last drawn.
    most: usize,
    page: usize,
}

/// What a key asks for.
#[derive(PartialEq, Eq)]
enum Wish {
    Leave,
    Look,
    Nothing,
}

impl Top {
    fn new(names: Vec<String>, before: Look, interval: Duration) -> Top {
        Top { names, shown: 0, interval, before, after: None, manner: Manner::default(), most: 0, page: 10 }
    }

    fn run(&mut self, mut terminal: DefaultTerminal, signals: &SignalFd) -> Result<(), TopError> {
        let mut next = Instant::now() + self.interval.min(Duration::from_millis(500));
        loop {
            self.draw(&mut terminal)?;
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                next = Instant::now() + self.interval;
                if !self.manner.paused {
                    self.look()?;
                }
                continue;
            }
            wait(signals, left).map_err(TopError::Terminal)?;
            if signals.next().is_some() {
                return Ok(());
            }
            while event::poll(Duration::ZERO).map_err(TopError::Terminal)? {
                match self.happened(&event::read().map_err(TopError::Terminal)?) {
                    Wish::Leave => return Ok(()),
                    Wish::Look => {
                        self.before = look(&self.names[self.shown])?;
                        self.after = None;
                        next = Instant::now() + self.interval;
                    }
                    Wish::Nothing => (),
                }
            }
        }
    }

    fn look(&mut self) -> Result<(), TopError> {
        let new = look(&self.names[self.shown])?;
        if let Some(former) = self.after.replace(new) {
            self.before = former;
        }
        Ok(())
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> Result<(), TopError> {
        let after = self.after.as_ref().unwrap_or(&self.before);
        let view = View::of(&self.before, after, self.manner.order, SystemTime::now());
        let manner = self.manner;
        let (mut most, mut page) = (0, 0);
        let drawn = terminal.draw(|frame| {
            most = screen::draw(frame, &view, manner);
            page = usize::from(frame.area().height) / 2;
        });
        drawn.map_err(TopError::Terminal)?;
        (self.most, self.page) = (most, page.max(1));
        self.manner.scroll = self.manner.scroll.min(most);
        Ok(())
    }

    fn happened(&mut self, event: &Event) -> Wish {
        let Event::Key(key) = event else { return Wish::Nothing };
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let manner = &mut self.manner;
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Leave,
            KeyCode::Esc if manner.help => manner.help = false,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Leave,
            KeyCode::Char('s') => manner.order = manner.order.next(),
            KeyCode::Char('p' | ' ') => manner.paused = !manner.paused,
            KeyCode::Char('h' | '?') => manner.help = !manner.help,
            KeyCode::Up => manner.scroll = manner.scroll.saturating_sub(1),
            KeyCode::Down => manner.scroll = (manner.scroll + 1).min(self.most),
            KeyCode::PageUp => manner.scroll = manner.scroll.saturating_sub(self.page),
            KeyCode::PageDown => manner.scroll = (manner.scroll + self.page).min(self.most),
            KeyCode::Home => manner.scroll = 0,
            KeyCode::End => manner.scroll = self.most,
            KeyCode::Tab => {
                self.shown = (self.shown + 1) % self.names.len();
                manner.scroll = 0;
                return Wish::Look;
            }
            _ => (),
        }
        Wish::Nothing
    }
}

/// Waits until a key was pressed, a signal came, the terminal has another size, or the time is over.
fn wait(signals: &SignalFd, time: Duration) -> io::Result<()> {
    let stdin = rustix::stdio::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    match poll(&mut fds, Some(&time)) {
        // A resize interrupts it.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

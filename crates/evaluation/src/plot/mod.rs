//! Pictures of figures, as SVG to stand in the report's page.
//!
//! All are as wide as a phone and grow with what they stand in, so text stays legible on both. Colours are classes of the page's style
//! sheet (`s0` to `s7`), which knows light and dark and print; shapes and dashes tell systems apart without colours. What a colour means
//! is told by the page beside the pictures. No text is ever put where another may be: labels that would touch are left out.

mod bars;
mod cores;
mod lines;
mod percentiles;
mod prediction;
mod scale;

use std::fmt::Write;

use crate::text::is_wild;

pub use bars::{Bar, bars};
pub use cores::{Loads, cores};
pub use lines::{Line, lines};
pub use percentiles::{BEYOND, Curve, FEWEST, percentiles, quantile};
pub use prediction::prediction;
pub use scale::Scale;

/// Of every picture.
pub const WIDTH: f64 = 420.0;
/// Width of a letter of the pictures' text, generously.
const LETTER: f64 = 6.8;

/// How many colours there are.
const COLOURS: usize = 8;

/// What tells a system apart in all pictures: its number among the run's systems.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// The number.
    pub number: usize,
    /// Whether it is drawn stronger.
    pub ours: bool,
}

impl Style {
    /// Classes of the style sheet.
    pub fn class(&self) -> String {
        format!("s{}{}", self.number % COLOURS, if self.ours { " ours" } else { "" })
    }

    /// The dashes of its lines, by a number that changes when the colours are used up.
    fn dashes(&self) -> &'static str {
        match self.number / COLOURS {
            0 => "",
            1 => " stroke-dasharray=\"7 3\"",
            _ => " stroke-dasharray=\"2 3\"",
        }
    }

    /// Its mark around a point.
    fn mark(&self, x: f64, y: f64) -> String {
        match self.number % 5 {
            0 => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
            1 => {
                format!("<rect class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" width=\"6.4\" height=\"6.4\"/>", x - 3.2, y - 3.2)
            }
            2 => path(&[(x, y - 4.4), (x + 4.2, y + 3.2), (x - 4.2, y + 3.2)]),
            3 => path(&[(x, y - 4.6), (x + 4.6, y), (x, y + 4.6), (x - 4.6, y)]),
            _ => path(&[(x, y + 4.4), (x + 4.2, y - 3.2), (x - 4.2, y - 3.2)]),
        }
    }

    /// A small picture of it for the legend.
    pub fn swatch(&self) -> String {
        format!(
            "<svg class=\"swatch\" viewBox=\"0 0 28 12\" width=\"28\" height=\"12\" aria-hidden=\"true\"><g class=\"{}\"><line class=\"line\" \
             x1=\"1\" y1=\"6\" x2=\"27\" y2=\"6\"{}/>{}</g></svg>",
            self.class(),
            self.dashes(),
            self.mark(14.0, 6.0)
        )
    }
}

fn path(points: &[(f64, f64)]) -> String {
    format!("<polygon class=\"mark\" points=\"{}\"/>", joined(points))
}

fn joined(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// Text as HTML and SVG have it: without what is no text, and nothing of it markup.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Neither XML nor HTML may have some of these at all, and others turn text round.
            c if (is_wild(c) && c != '\n') || c == '\u{fffe}' || c == '\u{ffff}' => {}
            c => out.push(c),
        }
    }
    out
}

/// As much of a text as fits into a width, with a sign where something is missing.
fn cut(text: &str, width: f64) -> String {
    let most = (width / LETTER) as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// A picture with a name for those who cannot see it.
fn picture(height: f64, title: &str, drawn: &str) -> String {
    format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">\n{drawn}</svg>\n",
        escape(title)
    )
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
}

fn stroke(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// A frame of two scales, with marks on both.
struct Frame {
    /// Across.
    x: Scale,
    /// Upwards.
    y: Scale,
}

impl Frame {
    const LEFT: f64 = 46.0;
    const RIGHT: f64 = 12.0;
    const TOP: f64 = 24.0;
    const BOTTOM: f64 = 40.0;
    const HEIGHT: f64 = 250.0;

    fn x(&self, value: f64) -> f64 {
        Frame::LEFT + self.x.part(value) * (WIDTH - Frame::LEFT - Frame::RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        Frame::HEIGHT - Frame::BOTTOM - self.y.part(value) * (Frame::HEIGHT - Frame::TOP - Frame::BOTTOM)
    }

    /// Lines of the scale upwards with their numbers, marks across with theirs, and what both count.
    fn draw(&self, out: &mut String, up: &str, across: &str, marks: &[(f64, String)]) {
        text(out, 2.0, 14.0, "start", up);
        let right = WIDTH - Frame::RIGHT;
        for (value, label) in self.y.marks() {
            let y = self.y(value);
            stroke(out, "grid", (Frame::LEFT, y), (right, y));
            text(out, Frame::LEFT - 5.0, y + 4.0, "end", &label);
        }
        let bottom = Frame::HEIGHT - Frame::BOTTOM;
        stroke(out, "axis", (Frame::LEFT, bottom), (right, bottom));
        let mut free = f64::NEG_INFINITY;
        for (value, label) in marks {
            let x = self.x(*value);
            stroke(out, "axis", (x, bottom), (x, bottom + 4.0));
            let half = label.chars().count() as f64 * LETTER / 2.0;
            // The last one may stand over the right edge; it is moved back rather than left out.
            let middle = x.min(WIDTH - half);
            if middle - half > free {
                text(out, middle, bottom + 17.0, "middle", label);
                free = middle + half + 4.0;
            }
        }
        text(out, (Frame::LEFT + right) / 2.0, Frame::HEIGHT - 6.0, "middle", across);
    }
}

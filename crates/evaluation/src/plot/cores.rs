//! How busy each processor was: a row for each system, a cell for each processor, filled as far as it was busy.

use std::fmt::Write;

use super::{Style, WIDTH, cut, escape, picture, stroke, text};

const ROW: f64 = 58.0;
const TOP: f64 = 20.0;
const CELL: f64 = 24.0;

/// One system's processors.
#[derive(Clone, Debug)]
pub struct Loads {
    /// How it is drawn.
    pub style: Style,
    /// Its name.
    pub name: String,
    /// The processor's place, 1 for the busiest of each round, and its busy share, 0 to 1.
    pub shares: Vec<(f64, f64)>,
}

/// Draws them below each other.
pub fn cores(title: &str, rows: &[Loads]) -> String {
    let mut out = String::new();
    text(&mut out, 2.0, 13.0, "start", "busy share of each processor, the busiest first, %");
    let most = rows.iter().map(|row| row.shares.len()).max().unwrap_or(1).max(1);
    let width = ((WIDTH - 4.0) / most as f64).min(80.0);
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<g class=\"{}\"><title>{}</title>", row.style.class(), escape(&row.name));
        text(&mut out, 2.0, top + 12.0, "start", &cut(&row.name, WIDTH));
        for (at, (core, share)) in row.shares.iter().enumerate() {
            let x = 2.0 + width * at as f64;
            let (height, bottom) = (CELL * share.clamp(0.0, 1.0), top + 17.0 + CELL);
            let inner = (width - 3.0).max(1.0);
            let _ = writeln!(
                out,
                "<rect class=\"cell\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{inner:.1}\" height=\"{CELL}\"><title>number {core} by load: {:.0} %</title></rect>\
                 <rect class=\"bar\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{inner:.1}\" height=\"{height:.1}\"/>",
                top + 17.0,
                share * 100.0,
                bottom - height
            );
            // Two digits and a gap need this much.
            if width >= 24.0 {
                text(&mut out, x + inner / 2.0, bottom + 12.0, "middle", &format!("{:.0}", share * 100.0));
            }
        }
        stroke(
            &mut out,
            "axis",
            (2.0, top + 17.0 + CELL),
            (2.0 + width * row.shares.len() as f64 - 3.0, top + 17.0 + CELL),
        );
        out.push_str("</g>\n");
    }
    picture(TOP + ROW * rows.len() as f64, title, &out)
}

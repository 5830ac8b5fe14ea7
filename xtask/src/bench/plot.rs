//! Pictures of figures, as SVG: bars in groups with their spreads, and lines.
//!
//! A picture is a column of panels, each with its own scale from zero. It names its colours itself and needs nothing but a browser.

use std::fmt::Write;

use super::stats::Spread;

/// Sizes in pixels.
const WIDTH: f64 = 960.0;
const PANEL: f64 = 240.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
/// Above the first panel: the title, and what the colours mean.
const HEAD: f64 = 56.0;
/// Of a panel: its title above, its labels below.
const ABOVE: f64 = 34.0;
const BELOW: f64 = 36.0;
/// Lines of the scale.
const STEPS: f64 = 4.0;

/// Told apart by those who do not see all colours, too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

/// One part of a picture.
pub enum Panel {
    /// Bars.
    Bars {
        /// What they show, with its unit.
        title: String,
        /// The bars.
        bars: Bars,
    },
    /// Lines, for figures that grow with something.
    Lines {
        /// What they show, with its unit.
        title: String,
        /// What is to the right.
        across: String,
        /// The lines: a name and points, from left to right.
        lines: Vec<(String, Vec<(f64, Spread)>)>,
    },
}

/// Bars in groups.
pub struct Bars {
    /// The groups' names.
    pub groups: Vec<String>,
    /// A name and a bar for each group, where there is one.
    pub series: Vec<(String, Vec<Option<Spread>>)>,
    /// Digits behind the point.
    pub digits: usize,
}

/// Draws panels below each other.
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let height = HEAD + PANEL * panels.len() as f64;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>"
    );
    text(&mut out, (LEFT, 20.0), "start", title);
    for (number, panel) in panels.iter().enumerate() {
        let top = HEAD + PANEL * number as f64;
        let (title, names) = match panel {
            Panel::Bars { title, bars } => (title, bars.series.iter().map(|(name, _)| name).collect::<Vec<_>>()),
            Panel::Lines { title, lines, .. } => (title, lines.iter().map(|(name, _)| name).collect()),
        };
        let _ = writeln!(out, "<g font-weight=\"bold\">");
        text(&mut out, (LEFT, top + 16.0), "start", title);
        let _ = writeln!(out, "</g>");
        if number == 0 {
            legend(&mut out, &names);
        }
        match panel {
            Panel::Bars { bars, .. } => bars.draw(&mut out, top),
            Panel::Lines { across, lines, .. } => draw_lines(&mut out, top, across, lines),
        }
    }
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String, names: &[&String]) {
    for (number, name) in names.iter().enumerate() {
        let x = LEFT + number as f64 * (WIDTH - LEFT - RIGHT) / names.len() as f64;
        let _ = writeln!(out, "<rect x=\"{x:.1}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{}\"/>", colour(number));
        text(out, (x + 18.0, 42.0), "start", name);
    }
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

impl Bars {
    fn draw(&self, out: &mut String, top: f64) {
        let spreads = self.series.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let scale = Scale::new(out, top, spreads, self.digits);
        let group = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let width = group * 0.8 / self.series.len().max(1) as f64;
        for (number, name) in self.groups.iter().enumerate() {
            text(out, (LEFT + group * (number as f64 + 0.5), scale.zero + 18.0), "middle", name);
        }
        for (series, (_, bars)) in self.series.iter().enumerate() {
            for (number, spread) in bars.iter().enumerate() {
                let Some(spread) = spread else { continue };
                let x = LEFT + group * (number as f64 + 0.1) + width * series as f64;
                let y = scale.y(spread.median);
                let _ = writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                    width * 0.92,
                    scale.zero - y,
                    colour(series)
                );
                let middle = x + width * 0.46;
                whisker(out, &scale, middle, spread);
                let above = scale.y(spread.high) - 4.0;
                text(out, (middle, above), "middle", &format!("{:.*}", self.digits, spread.median));
            }
        }
    }
}

fn draw_lines(out: &mut String, top: f64, across: &str, lines: &[(String, Vec<(f64, Spread)>)]) {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let scale = Scale::new(out, top, points().map(|(_, spread)| spread), 1);
    let far = points().map(|(at, _)| *at).fold(f64::MIN_POSITIVE, f64::max);
    let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * at / far * 0.98;
    let mut marks: Vec<f64> = points().map(|(at, _)| *at).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for at in marks {
        text(out, (x(at), scale.zero + 16.0), "middle", &format!("{at}"));
    }
    text(out, (WIDTH - RIGHT, scale.zero + 30.0), "end", across);
    for (number, (_, points)) in lines.iter().enumerate() {
        let path: Vec<_> =
            points.iter().map(|(at, spread)| format!("{:.1},{:.1}", x(*at), scale.y(spread.median))).collect();
        let colour = colour(number);
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (at, spread) in points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*at),
                scale.y(spread.median)
            );
            whisker(out, &scale, x(*at), spread);
        }
    }
}

/// From zero to what is highest.
struct Scale {
    zero: f64,
    each: f64,
}

impl Scale {
    /// Draws it, too.
    fn new<'a>(out: &mut String, top: f64, spreads: impl Iterator<Item = &'a Spread>, digits: usize) -> Scale {
        let highest = spreads.map(|spread| spread.high).fold(0.0, f64::max);
        let highest = if highest > 0.0 { round_up(highest) } else { 1.0 };
        let zero = top + PANEL - BELOW;
        let scale = Scale { zero, each: (PANEL - ABOVE - BELOW) / highest };
        for step in 0..=STEPS as u32 {
            let value = highest * f64::from(step) / STEPS;
            let y = scale.y(value);
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
                WIDTH - RIGHT
            );
            text(out, (LEFT - 6.0, y + 4.0), "end", &format!("{value:.digits$}"));
        }
        scale
    }

    fn y(&self, value: f64) -> f64 {
        self.zero - value.max(0.0) * self.each
    }
}

/// The next of 1, 1.2, 1.6, 2, 3, 4, 6 and 8, and their tenfolds: each is cut in four well enough.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0]
        .into_iter()
        .map(|step| step * unit)
        .find(|it| *it >= value)
        .unwrap_or(unit * 10.0)
}

/// From the least to the most, where there is more than one.
fn whisker(out: &mut String, scale: &Scale, x: f64, spread: &Spread) {
    if spread.count > 1 {
        let (low, high) = (scale.y(spread.low), scale.y(spread.high));
        let _ = writeln!(out, "<line x1=\"{x:.1}\" y1=\"{low:.1}\" x2=\"{x:.1}\" y2=\"{high:.1}\" stroke=\"#333\"/>");
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(low: f64, median: f64, high: f64) -> Spread {
        Spread { low, median, high, count: 3 }
    }

    /// The numbers of an attribute, of all elements of a name.
    fn numbers(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let nodes = document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", element)));
        nodes.filter_map(|node| node.attribute(attribute)?.parse().ok()).collect()
    }

    #[test]
    fn bars_are_as_high_as_their_values_and_names_are_escaped() {
        let series = vec![
            ("a <b> & \"c\"\u{1}".to_owned(), vec![Some(spread(1.0, 2.0, 3.0)), None]),
            ("d".to_owned(), vec![Some(spread(4.0, 4.0, 4.0)), Some(spread(0.0, 1.0, 2.0))]),
        ];
        let bars = Bars { groups: vec!["one".to_owned(), "two".to_owned()], series, digits: 1 };
        let svg = svg("what & where", &[Panel::Bars { title: "Gb/s".to_owned(), bars }]);
        // The background, two of the legend, and three bars: 2, 4 and 1 of 4.
        let heights = numbers(&svg, "rect", "height");
        let full = PANEL - ABOVE - BELOW;
        assert_eq!(heights[3..], [full / 2.0, full, full / 4.0]);
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        assert!(
            ["what & where", "a <b> & \"c\"", "one", "Gb/s", "2.0"].iter().all(|it| texts.contains(it)),
            "{texts:?}"
        );
        for (key, most) in [("x", WIDTH), ("y", HEAD + PANEL)] {
            assert!(numbers(&svg, "rect", key).iter().all(|it| (0.0..=most).contains(it)), "{svg}");
        }
    }

    #[test]
    fn lines_lead_from_point_to_point() {
        let line = |factor: f64| (1..=4).map(|n| (f64::from(n), spread(1.0, factor * f64::from(n), 9.0))).collect();
        let lines = vec![("x".to_owned(), line(2.0)), ("y".to_owned(), line(1.0))];
        let panel = Panel::Lines { title: "t".to_owned(), across: "workers".to_owned(), lines };
        let svg = svg("", &[panel]);
        assert_eq!(numbers(&svg, "circle", "cx").len(), 8);
        let heights = numbers(&svg, "circle", "cy");
        assert!(heights.windows(2).take(3).all(|pair| pair[0] > pair[1]), "{heights:?}");
    }

    #[test]
    fn nothing_to_draw_is_drawn() {
        let bars = Bars { groups: Vec::new(), series: Vec::new(), digits: 0 };
        let panels = [
            Panel::Bars { title: String::new(), bars },
            Panel::Lines { title: String::new(), across: String::new(), lines: Vec::new() },
        ];
        assert!(roxmltree::Document::parse(&svg("", &panels)).is_ok());
        assert!(roxmltree::Document::parse(&svg("", &[])).is_ok());
        assert_eq!((round_up(7.0), round_up(9.5), round_up(0.11), round_up(100.0)), (8.0, 10.0, 0.12, 100.0));
    }
}

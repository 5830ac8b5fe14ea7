//! How a [`View`] is drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table};

use super::view::{Load, Order, View, age, scaled};

/// Drops that are shown: those that grow fastest.
const DROPS: usize = 4;
/// Workers that have a line each; of more, the busiest do.
const WORKERS: usize = 8;
/// Characters of a bar.
const BAR: usize = 20;

const HELP: &[&str] = &[
    "q, Esc      leave",
    "s           sort by the next: traffic, handshake, loss, name",
    "p, Space    hold the picture, and go on",
    "Up, Down    scroll, as PageUp, PageDown, Home and End do",
    "Tab         the next interface",
    "h, ?        this help",
    "",
    "loss   of the peer's data messages within the interval, as the",
    "       gaps in its counters tell; late ones are taken for lost",
    "busy   how much of a processor the worker took",
];

/// How it is to be drawn.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// By what the peers are sorted.
    pub order: Order,
    /// The first peer that is shown.
    pub scroll: usize,
    /// The picture is held.
    pub paused: bool,
    /// The help lies over it.
    pub help: bool,
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn bar(share: f64) -> String {
    let full = ((share * BAR as f64).round() as usize).min(BAR);
    format!("[{}{}]", "█".repeat(full), " ".repeat(BAR - full))
}

/// The lines above the peers.
pub fn above(view: &View) -> Vec<String> {
    let [rx, tx] = view.rates.map(|rate| scaled(rate, "b/s"));
    let mut lines = vec![view.title.clone(), format!("in {rx}, out {tx}")];
    if !view.handshakes.is_empty() {
        let told = view.handshakes.iter().filter(|(_, count)| *count > 0);
        let told: Vec<_> = told.map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
        lines.push(format!("handshakes: {}", if told.is_empty() { "none".to_owned() } else { told.join(", ") }));
    }
    let mut workers: Vec<(usize, &Load)> = view.workers.iter().enumerate().collect();
    if workers.len() > WORKERS {
        workers.sort_by(|a, b| b.1.busy.total_cmp(&a.1.busy));
        workers.truncate(WORKERS);
    }
    for (number, load) in workers {
        let [rx, tx] = load.packets.map(|rate| scaled(rate, "p/s"));
        let [in_batch, out_batch] = load.batch.map(|size| size.map_or("-".to_owned(), |size| format!("{size:.1}")));
        lines.push(format!(
            "worker {number} {} {:>7} in {rx} (batch {in_batch}), out {tx} (batch {out_batch})",
            bar(load.busy),
            percent(Some(load.busy))
        ));
    }
    if !view.workers.is_empty() {
        let told = view.drops.iter().take(DROPS);
        let told: Vec<_> =
            told.map(|(reason, rate, count)| format!("{reason} {} ({count})", scaled(*rate, "/s"))).collect();
        lines.push(format!("dropped: {}", if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }));
    }
    lines
}

const COLUMNS: [&str; 7] = ["PEER", "ENDPOINT", "IN", "OUT", "HANDSHAKE", "LOSS", "ALLOWED IPS"];
const WIDTHS: [u16; 6] = [9, 24, 11, 11, 15, 8];

/// What stands in each column of each peer.
pub fn table(view: &View) -> impl Iterator<Item = [String; 7]> {
    view.peers.iter().map(|row| {
        let [rx, tx] = row.rates.map(|rate| scaled(rate, "b/s"));
        let handshake = row.handshake.map_or("never".to_owned(), |at| format!("{} ago", age(at)));
        [row.name.clone(), row.endpoint.clone(), rx, tx, handshake, percent(row.loss), row.allowed_ips.clone()]
    })
}

/// How many peers fit below so many lines.
fn room(area: Rect, above: usize) -> usize {
    usize::from(area.height).saturating_sub(above + 3)
}

/// Draws the view. Returns by how much it can be scrolled at most.
pub fn draw(frame: &mut Frame<'_>, view: &View, manner: Manner) -> usize {
    let area = frame.area();
    let above = above(view);
    let height = above.len().min(usize::from(area.height)) as u16;
    let parts = Layout::vertical([
        Constraint::Length(height),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [top, _, middle, foot] = parts.areas(area);
    let lines: Vec<Line<'_>> = above.iter().map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines), top);

    let room = room(area, above.len());
    let most = view.peers.len().saturating_sub(room);
    let scroll = manner.scroll.min(most);
    let rows = table(view).skip(scroll).take(room).map(Row::new);
    let widths = WIDTHS.map(Constraint::Length).into_iter().chain([Constraint::Min(10)]);
    let header = Row::new(COLUMNS).style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(Table::new(rows, widths).header(header), middle);

    let shown = format!("{}-{}", (scroll + 1).min(view.peers.len()), (scroll + room).min(view.peers.len()));
    let held = if manner.paused { "held · " } else { "" };
    let order = manner.order.name();
    let text = format!("{held}peers {shown} of {} by {order} · q leave, s sort, p hold, h help", view.peers.len());
    frame.render_widget(Paragraph::new(text), foot);
    if manner.help {
        let height = (HELP.len() as u16 + 2).min(area.height);
        let width = 66.min(area.width);
        let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
        frame.render_widget(Clear, place);
        let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(*line)).collect();
        frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("wireloom top")), place);
    }
    most
}

/// The view as plain lines, for scripts.
pub fn plain(view: &View) -> String {
    let mut text = above(view).join("\n");
    text.push_str("\n\n");
    for row in [COLUMNS.map(str::to_owned)].into_iter().chain(table(view)) {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            match WIDTHS.get(at) {
                Some(&width) => line.push_str(&format!("{cell:<width$} ", width = usize::from(width))),
                None => line.push_str(cell),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{look, time};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Instant;

    fn view() -> View {
        let start = Instant::now();
        View::of(&look(start, 0, 0), &look(start, 2, 2000), Order::Traffic, time())
    }

    /// The lines of a screen of this size.
    fn drawn(view: &View, manner: Manner, width: u16, height: u16) -> (Vec<String>, usize) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut most = 0;
        terminal.draw(|frame| most = draw(frame, view, manner)).unwrap();
        let cells = terminal.backend().buffer().content();
        let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
        (cells.chunks(usize::from(width)).map(|cells| line(cells).trim_end().to_owned()).collect(), most)
    }

    #[test]
    fn a_screen_shows_what_the_view_says() {
        let (lines, most) = drawn(&view(), Manner::default(), 110, 24);
        let expected = [
            "wg0 · wireloom 1.2.3 · up 1 h 1 min · port 51820 · 3 peers · 12.0 MiB",
            "in 32.0 kb/s, out 16.0 kb/s",
            "handshakes: initiations sent 5",
            "worker 0 [████████████████████] 100.0 % in 100 p/s (batch 4.0), out 0 p/s (batch -)",
            "worker 1 [█████               ]  25.0 % in 100 p/s (batch 4.0), out 0 p/s (batch -)",
            "dropped: replayed 1.0 k/s (2000), no-route 0 /s (7)",
            "",
            "PEER      ENDPOINT                 IN          OUT         HANDSHAKE       LOSS     ALLOWED IPS",
            "AgICAgIC… 192.0.2.2:51820          24.0 kb/s   12.0 kb/s   3 min 15 s ago  50.0 %   10.0.0.2/32",
            "AQEBAQEB… 192.0.2.1:51820          8.0 kb/s    4.0 kb/s    1 min 5 s ago   50.0 %   10.0.0.1/32",
            "AwMDAwMD… -                        0 b/s       0 b/s       never           -        10.0.0.3/32",
        ];
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(line, expected);
        }
        assert_eq!(lines[23], "peers 1-3 of 3 by traffic · q leave, s sort, p hold, h help");
        assert_eq!(most, 0);
    }

    #[test]
    fn what_does_not_fit_is_scrolled_to() {
        let (_, most) = drawn(&view(), Manner::default(), 80, 11);
        assert_eq!(most, 1, "two of three fit");
        let (lines, _) = drawn(&view(), Manner { scroll: 99, paused: true, ..Manner::default() }, 80, 11);
        assert!(lines[8].starts_with("AQEB") && lines[9].starts_with("AwMD"), "{lines:?}");
        assert!(lines[10].starts_with("held · peers 2-3 of 3"), "{lines:?}");
    }

    #[test]
    fn any_size_can_be_drawn() {
        for (width, height) in [(1, 1), (2, 3), (7, 5), (20, 8), (66, 12), (300, 100)] {
            for help in [false, true] {
                drawn(&view(), Manner { help, ..Manner::default() }, width, height);
            }
        }
        let (lines, _) = drawn(&view(), Manner { help: true, ..Manner::default() }, 80, 24);
        assert!(lines.iter().any(|line| line.contains("q, Esc      leave")), "{lines:?}");
    }

    #[test]
    fn a_script_gets_all_of_it() {
        let text = plain(&view());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6 + 1 + 4, "{text}");
        assert!(lines[8].starts_with("AgICAgIC… 192.0.2.2:51820") && lines[8].ends_with(" 10.0.0.2/32"), "{text}");
        assert!(lines[8].contains("3 min 15 s ago"), "{text}");
    }
}

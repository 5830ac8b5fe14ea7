//! Text from files, as a terminal may have it.

use std::fmt::Display;

/// Whether a character moves the cursor, ends a line, or turns round what stands beside it.
pub(crate) fn is_wild(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// In one line, with those characters written as numbers.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_wild(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// The same of whatever can be shown.
pub fn line(of: &dyn Display) -> String {
    one_line(&of.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(one_line("a\u{1b}[2J\nb\u{202e}c ä–"), "a\\u{1b}[2J\\u{a}b\\u{202e}c ä–");
        assert_eq!(line(&1.5), "1.5");
    }
}

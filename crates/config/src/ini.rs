//! The sections and assignments of other programs' INI files, in two dialects.
//!
//! *systemd* (systemd.syntax(7)): comments begin with `#` or `;`, a line that ends with a backslash goes on in the next one, and a section may
//! come any number of times, each on its own. *Keyfile* (GLib's, NetworkManager's): comments begin with `#`, values have escapes, and sections of
//! one name are one. What the values mean is the caller's business. `wg`'s own files are another thing: see [`crate::file`].

use zeroize::Zeroizing;

use crate::foreign::{ImportError, Problem, at};
use crate::value::Quoted;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Systemd,
    Keyfile,
}

/// A section with what stands in it.
pub(crate) struct Section {
    /// Where it opens, from 1.
    pub line: usize,
    pub name: String,
    pub entries: Vec<Entry>,
}

/// One assignment. The value may be a key, and so is wiped.
pub(crate) struct Entry {
    pub line: usize,
    pub key: String,
    pub value: Zeroizing<String>,
}

/// Reads all sections, in the file's order.
pub(crate) fn sections(text: &[u8], dialect: Dialect) -> Result<Vec<Section>, ImportError> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let before = text.get(..error.valid_up_to()).unwrap_or_default();
        at(1 + before.iter().filter(|&&b| b == b'\n').count())(Problem::NotText)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = text.split('\n').enumerate();
    while let Some((number, raw)) = lines.next() {
        let number = number + 1;
        let line = raw.trim();
        if is_blank(line, dialect) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').ok_or_else(|| at(number)(Problem::NotAnAssignment))?;
            // GLib takes a section that comes again for the same one; the caller of the other dialect wants each.
            sections.push(Section { line: number, name: name.to_owned(), entries: Vec::new() });
            continue;
        }
        let mut whole = Zeroizing::new(String::with_capacity(line.len()));
        whole.push_str(line);
        while dialect == Dialect::Systemd && goes_on(&whole) {
            whole.pop();
            whole.push(' ');
            // Comments between the pieces are passed over.
            let Some((_, next)) = lines.by_ref().find(|(_, next)| !is_comment(next.trim(), dialect)) else { break };
            let mut longer = Zeroizing::new(String::with_capacity(whole.len() + next.len()));
            longer.push_str(&whole);
            longer.push_str(next.trim());
            whole = longer;
        }
        let (key, value) = whole.split_once('=').ok_or_else(|| at(number)(Problem::NotAnAssignment))?;
        let key = key.trim();
        let section = sections.last_mut().ok_or_else(|| at(number)(Problem::NoSection(Quoted::new(key))))?;
        section.entries.push(Entry {
            line: number,
            key: key.to_owned(),
            value: Zeroizing::new(value.trim().to_owned()),
        });
    }
    Ok(sections)
}

fn is_comment(line: &str, dialect: Dialect) -> bool {
    line.starts_with('#') || (dialect == Dialect::Systemd && line.starts_with(';'))
}

fn is_blank(line: &str, dialect: Dialect) -> bool {
    line.is_empty() || is_comment(line, dialect)
}

/// Whether the last backslash stands for itself and not behind another.
fn goes_on(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

/// The items of a keyfile's list, without the empty ones: each ends with a semicolon, one that belongs to an item is escaped.
pub(crate) fn list(value: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        let last = items.len() - 1;
        match letter {
            ';' => items.push(String::new()),
            '\\' => items[last].push(unescaped(letters.next())),
            _ => items[last].push(letter),
        }
    }
    items.retain_mut(|item| {
        *item = item.trim().to_owned();
        !item.is_empty()
    });
    items
}

fn unescaped(letter: Option<char>) -> char {
    match letter {
        Some('s') => ' ',
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some(other) => other,
        None => '\\',
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot set itself up fails
mod tests {
    use super::*;

    fn flat(text: &str, dialect: Dialect) -> Vec<String> {
        let sections = sections(text.as_bytes(), dialect).unwrap_or_else(|error| panic!("{error}"));
        sections
            .iter()
            .flat_map(|section| {
                section.entries.iter().map(|e| format!("{}/{}={}@{}", section.name, e.key, *e.value, e.line))
            })
            .collect()
    }

    #[test]
    fn systemd_lines_go_on_behind_a_backslash() {
        let text = "[A]\n; one\nB = c\\\n# two\n  d \\\n e\n[A]\nF=\\\\\nG=#";
        assert_eq!(flat(text, Dialect::Systemd), ["A/B=c d  e@3", "A/F=\\\\@8", "A/G=#@9"]);
        assert_eq!(flat("[A]\nB=c\\", Dialect::Systemd), ["A/B=c@2"]);
    }

    #[test]
    fn keyfile_lines_end_where_they_end() {
        assert_eq!(flat("[a.b c]\n# one\nb = c\\\nd=;", Dialect::Keyfile), ["a.b c/b=c\\@3", "a.b c/d=;@4"]);
        assert_eq!(list("a;b\\;c; ;d"), ["a", "b;c", "d"]);
        assert_eq!(list(""), [""; 0]);
        assert_eq!(list("a\\sb\\\\"), ["a b\\"]);
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line() {
        let told = |text: &[u8]| sections(text, Dialect::Systemd).err().unwrap().to_string();
        assert!(told(b"\nA=b").starts_with("2: key 'A' stands before any section"), "{}", told(b"\nA=b"));
        assert!(told(b"[A]\nB").starts_with("2: a line that is neither"));
        assert!(told(b"[A").starts_with("1: a line that is neither"));
        assert!(told(b"[A]\n\n\xff").starts_with("3: not text"));
    }
}

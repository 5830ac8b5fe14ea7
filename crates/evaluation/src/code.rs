//! How much code has to be trusted, counted where it lies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::EvaluationError;

/// Lines of code, without comments and blank lines, and what was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// What was counted, in words: which parts of which package in which version.
    pub counted: String,
    /// Lines by language.
    pub lines: BTreeMap<String, u64>,
}

impl Code {
    /// Counts what lies below some paths: lines that have anything beside comments and blanks. Tests that are in files of their own are
    /// left out where a folder is named `test`, `tests`, `benches`, `examples`, `fuzz` or `selftest`, as are folders whose names begin
    /// with a dot; tests inside a file of Rust are counted with it. Links are not followed.
    ///
    /// # Errors
    /// A path is not there, a file cannot be read, or there is no code in any.
    pub fn count(paths: &[PathBuf], counted: &str) -> Result<Code, EvaluationError> {
        let mut code = Code { counted: counted.to_owned(), lines: BTreeMap::new() };
        for path in paths {
            code.walk(path)?;
        }
        if code.lines.is_empty() {
            let place = paths.first().map_or(Path::new("."), PathBuf::as_path).display().to_string();
            return Err(EvaluationError::Invalid { place, what: "no code in it".to_owned() });
        }
        Ok(code)
    }

    fn walk(&mut self, path: &Path) -> Result<(), EvaluationError> {
        let failed = |source| EvaluationError::File { path: path.to_owned(), source };
        let kind = fs::symlink_metadata(path).map_err(failed)?.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if !(LEFT_OUT.contains(&&*name) || name.starts_with('.')) {
                    self.walk(&entry.path())?;
                }
            }
        } else if kind.is_file()
            && let Some(language) = path.extension().and_then(|it| language(it.to_str()?))
        {
            // Sources of others may be in any encoding; comments and brackets are ASCII in all.
            let bytes = fs::read(path).map_err(failed)?;
            let lines = code_lines(&String::from_utf8_lossy(&bytes), language);
            if lines > 0 {
                *self.lines.entry(language.name.to_owned()).or_default() += lines;
            }
        }
        Ok(())
    }

    /// Of all languages.
    pub fn total(&self) -> u64 {
        self.lines.values().fold(0, |sum, lines| sum.saturating_add(*lines))
    }
}

/// Folders that hold no code that packets meet.
const LEFT_OUT: [&str; 6] = ["test", "tests", "benches", "examples", "fuzz", "selftest"];

/// What code looks like.
struct Language {
    name: &'static str,
    extensions: &'static [&'static str],
    /// What begins a comment that the line ends.
    line: &'static str,
    /// Whether comments go from `/*` to `*/`.
    block: bool,
    /// Whether such comments stand in each other.
    nested: bool,
    /// What a text stands between, with a backslash before what it does not end at.
    quotes: &'static [char],
}

const C: Language =
    Language { name: "C", extensions: &["c", "h"], line: "//", block: true, nested: false, quotes: &['"', '\''] };

/// Those that data planes are written in.
const LANGUAGES: [Language; 7] = [
    C,
    Language { name: "C++", extensions: &["cc", "cpp", "hpp", "cxx"], ..C },
    // A single quote is a lifetime as often as a letter.
    Language { name: "Rust", extensions: &["rs"], nested: true, quotes: &['"'], ..C },
    Language { name: "Go", extensions: &["go"], quotes: &['"', '\'', '`'], ..C },
    Language { name: "Assembly", extensions: &["s", "S", "asm"], quotes: &['"'], ..C },
    Language { name: "Perl", extensions: &["pl", "pm"], line: "#", block: false, nested: false, quotes: &[] },
    Language { name: "Shell", extensions: &["sh", "bash"], line: "#", block: false, nested: false, quotes: &[] },
];

fn language(extension: &str) -> Option<&'static Language> {
    LANGUAGES.iter().find(|it| it.extensions.contains(&extension))
}

/// What ends a text: a quote, and in Rust's raw texts as many `#` behind it, where a backslash is only a backslash.
#[derive(Clone, Copy)]
struct Quote {
    end: char,
    hashes: usize,
    raw: bool,
}

impl Quote {
    /// That of a text that begins here, and how long its beginning is.
    fn at(rest: &str, word: bool, language: &Language) -> Option<(Quote, usize)> {
        if language.name == "Rust" && !word {
            let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'));
            if let Some(raw) = raw {
                let hashes = raw.len() - raw.trim_start_matches('#').len();
                if raw[hashes..].starts_with('"') {
                    return Some((Quote { end: '"', hashes, raw: true }, rest.len() - raw.len() + hashes + 1));
                }
            }
        }
        let c = rest.chars().next().filter(|c| language.quotes.contains(c))?;
        Some((Quote { end: c, hashes: 0, raw: c == '`' }, c.len_utf8()))
    }

    /// Whether it ends here.
    fn ends(self, rest: &str) -> bool {
        let Some(behind) = rest.strip_prefix(self.end) else { return false };
        behind.len() - behind.trim_start_matches('#').len() >= self.hashes
    }
}

/// Lines with anything but comments and blanks.
fn code_lines(text: &str, language: &Language) -> u64 {
    let (mut lines, mut depth, mut quote) = (0, 0_u32, None::<Quote>);
    for line in text.lines() {
        let (mut code, mut word) = (false, false);
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let mut taken = c.len_utf8();
            if depth > 0 {
                if rest.starts_with("*/") {
                    (depth, taken) = (depth - 1, 2);
                } else if language.nested && rest.starts_with("/*") {
                    (depth, taken) = (depth + 1, 2);
                }
            } else if let Some(end) = quote {
                code = true;
                if c == '\\' && !end.raw {
                    taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
                } else if end.ends(rest) {
                    (quote, taken) = (None, taken + end.hashes);
                }
            } else if rest.starts_with(language.line) {
                break;
            } else if language.block && rest.starts_with("/*") {
                (depth, taken) = (1, 2);
            } else {
                code |= !c.is_whitespace();
                if let Some(letter) = ["'\"'", "'\\\"'"].into_iter().find(|it| rest.starts_with(it)) {
                    taken = letter.len();
                } else if let Some((begun, long)) = Quote::at(rest, word, language) {
                    (quote, taken) = (Some(begun), long);
                }
            }
            word = c.is_alphanumeric() || c == '_';
            rest = &rest[taken..];
        }
        lines += u64::from(code);
        // A text goes on over lines in Rust, and between Go's backticks.
        if quote.is_some_and(|quote| !quote.raw && (quote.end == '\'' || language.name != "Rust")) {
            quote = None;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_told_apart() {
        for (name, text, lines) in [
            ("rs", "let a = \"/* no comment\"; // one\n/* a /* b */ c\n*/ let b;\n\n//! told\n", 2),
            ("rs", "fn f<'a>(c: char) { c == '\"' }\n// told\nlet s = \"two\n// of it\n\";\n", 4),
            ("rs", "let s = r#\"a \" b\n// of it\n\"#;\n// told\nlet r = br\"\\\"; // told\nfor\n", 5),
            ("c", "/* a /* b */ int c;\nchar *d = \"// no comment\"; /* begins\nends */\n'\"';\n// e\n", 3),
            ("go", "a := `one\n// of it\n`\n// told\n", 3),
            ("sh", "#!/bin/sh\necho '#'\n  # told\n", 1),
            ("S", "/* told */\n\tmov %rax, %rbx // it\n", 1),
        ] {
            assert_eq!(code_lines(text, language(name).unwrap()), lines, "{text}");
        }
    }

    #[test]
    fn counts_code_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/a.rs", "// a comment\n\nfn main() {\n    let a = 1; // one\n}\n");
        write("bpf/b.c", "/* two\n * lines */\nint a;\n");
        write("tests/c.rs", "fn test() {}\n");
        write("README.md", "# Prose\n");
        write("data.json", "{}\n");
        let code = Code::count(&[folder.path().to_owned()], "all of it").unwrap();
        assert_eq!(code.lines, [("C".to_owned(), 1), ("Rust".to_owned(), 3)].into());
        assert_eq!((code.total(), code.counted.as_str()), (4, "all of it"));
        let error = Code::count(&[folder.path().join("tests/none")], "").unwrap_err().to_string();
        assert!(error.contains("tests/none: No such file"), "{error}");
        fs::remove_dir_all(folder.path().join("src")).unwrap();
        fs::remove_dir_all(folder.path().join("bpf")).unwrap();
        assert!(Code::count(&[folder.path().to_owned()], "").unwrap_err().to_string().ends_with("no code in it"));
    }
}

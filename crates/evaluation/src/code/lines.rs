//! Lines of code: what is left of sources without comments, blanks and tests.
//!
//! Nothing beyond the standard library is used here, since a build script counts by this file, too. A walk gives each file to a language by how its name
//! ends; what holds tests alone is passed over, and so is what stands behind `#[cfg(test)]` in a file of Rust, so that languages that keep their tests in files
//! of their own are not told apart from those that do not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Counts what lies in a folder, by language: the files whose paths from there `keep` says yes to. Links are not followed.
///
/// # Errors
/// The file system's.
pub fn count(root: &Path, keep: &mut dyn FnMut(&str) -> bool) -> io::Result<BTreeMap<String, u64>> {
    let mut lines = BTreeMap::new();
    walk(root, "", keep, &mut lines)?;
    Ok(lines)
}

fn walk(
    folder: &Path,
    below: &str,
    keep: &mut dyn FnMut(&str) -> bool,
    lines: &mut BTreeMap<String, u64>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, kind) = (format!("{below}{name}"), entry.file_type()?);
        if kind.is_dir() {
            if !(LEFT_OUT.contains(&&*name) || name.starts_with('.')) {
                walk(&entry.path(), &format!("{path}/"), keep, lines)?;
            }
        } else if kind.is_file()
            && let Some(language) = language_of(&name)
            && keep(&path)
        {
            // Sources of others may be in any encoding; comments and brackets are ASCII in all.
            let found = code_lines(&String::from_utf8_lossy(&fs::read(entry.path())?), language);
            if found > 0 {
                *lines.entry(language.name.to_owned()).or_default() += found;
            }
        }
    }
    Ok(())
}

/// Folders that hold no code that packets meet.
const LEFT_OUT: [&str; 8] =
    ["test", "tests", "integration_tests", "tuntest", "benches", "examples", "fuzz", "selftest"];

/// How the names of files end that hold tests alone.
const TESTS: [&str; 8] =
    ["/tests.rs", "_tests.rs", "/test.rs", "_test.go", "_test.c", "_test.bpf.c", "-selftest.c", "_test.rs"];

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

const C: Language = Language {
    name: "C",
    extensions: &["c", "h", "inc"],
    line: "//",
    block: true,
    nested: false,
    quotes: &['"', '\''],
};

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

/// What a file of code is in, by its name; none for one that holds tests.
fn language_of(name: &str) -> Option<&'static Language> {
    if TESTS.iter().any(|end| format!("/{name}").ends_with(end)) {
        return None;
    }
    language(name.rsplit_once('.')?.1)
}

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

/// Where one is in an item that is for tests alone.
#[derive(Clone, Copy, PartialEq)]
enum Tests {
    /// In none.
    None,
    /// Before its first brace.
    Begin,
    /// Within so many braces.
    Within(u32),
}

impl Tests {
    /// One letter of code further. An item ends with its braces, or with a semicolon before any.
    fn after(self, c: char) -> Tests {
        match (self, c) {
            (Tests::Begin, ';') | (Tests::Within(1), '}') => Tests::None,
            (Tests::Begin, '{') => Tests::Within(1),
            (Tests::Within(depth), '{') => Tests::Within(depth + 1),
            (Tests::Within(depth), '}') => Tests::Within(depth - 1),
            (same, _) => same,
        }
    }
}

/// Lines with anything but comments and blanks.
fn code_lines(text: &str, language: &Language) -> u64 {
    let (mut lines, mut depth, mut quote) = (0, 0_u32, None::<Quote>);
    let mut tests = Tests::None;
    for line in text.lines() {
        let (mut code, mut word) = (false, false);
        if language.name == "Rust" && depth == 0 && quote.is_none() && line.trim_start().starts_with("#[cfg(test)]") {
            tests = Tests::Begin;
            continue;
        }
        let skipped = tests != Tests::None;
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
                if let Some(letter) =
                    ["'\"'", "'\\\"'", "'{'", "'}'", "';'"].into_iter().find(|it| rest.starts_with(it))
                {
                    taken = letter.len();
                } else if let Some((begun, long)) = Quote::at(rest, word, language) {
                    (quote, taken) = (Some(begun), long);
                } else {
                    tests = tests.after(c);
                }
            }
            word = c.is_alphanumeric() || c == '_';
            rest = &rest[taken..];
        }
        lines += u64::from(code && !skipped);
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
    fn tests_are_not_counted() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use b;\n    fn c() { let d = '}'; \"}\"; }\n}\nfn e() {}\n#[cfg(test)]\nmod f;\nfn g() {}\n";
        assert_eq!(code_lines(text, language("rs").unwrap()), 3);
        for (name, counted) in
            [("tests.rs", false), ("a_test.go", false), ("a_test.bpf.c", false), ("latest.rs", true), ("a.md", false)]
        {
            assert_eq!(language_of(name).is_some(), counted, "{name}");
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
        let lines = count(folder.path(), &mut |_| true).unwrap();
        assert_eq!(lines, [("C".to_owned(), 1), ("Rust".to_owned(), 3)].into());
        let mut seen = Vec::new();
        let lines = count(folder.path(), &mut |path| {
            seen.push(path.to_owned());
            path.starts_with("bpf/")
        });
        assert_eq!(lines.unwrap(), [("C".to_owned(), 1)].into());
        seen.sort();
        assert_eq!(seen, ["bpf/b.c", "src/a.rs"]);
        assert!(count(&folder.path().join("none"), &mut |_| true).is_err());
    }
}

//! Keeps `docs/conformance.md` true: each test that its tables name exists, in the file that they name, and each row names one or says why there is none.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the whole project.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where a test of the tables is: they leave out `crates/`, and the longer way to the end-to-end tests.
fn file(name: &str) -> PathBuf {
    let crates = root().join("crates");
    match name.strip_prefix("e2e/") {
        Some(rest) => crates.join("lab/tests/e2e").join(rest),
        None => crates.join(name),
    }
}

/// The words between backticks that name a test: a file and a function, as in `e2e/wire.rs::idle`.
fn named(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(".rs::"))
}

/// Whether a line is a row of a table, and neither its head nor what underlines that.
fn is_row(line: &str) -> bool {
    line.starts_with("| ") && !["| behaviour |", "| bug |", "| ---"].iter().any(|head| line.starts_with(head))
}

#[test]
fn every_test_that_is_named_exists() {
    let text = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    let (mut rows, mut missing) = (0, Vec::new());
    for line in text.lines().filter(|line| is_row(line)) {
        rows += 1;
        let mut any = false;
        for (path, test) in named(line) {
            any = true;
            let path = format!("{path}.rs");
            let source = sources
                .entry(path.clone())
                .or_insert_with_key(|path| fs::read_to_string(file(path)).unwrap_or_default());
            if !source.contains(&format!("fn {test}(")) {
                missing.push(format!("{path}::{test}"));
            }
        }
        if !any && !line.contains("none: ") {
            missing.push(format!("no test in: {line}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(rows > 100, "the tables were not understood: {rows} rows");
}

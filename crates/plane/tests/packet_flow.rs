//! Keeps `docs/packet-flow.md` true: every function that it names is where it says.

#![cfg(not(feature = "loom"))]

use std::{fs, path::Path};

#[test]
fn every_function_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/packet-flow.md")).unwrap();
    let mut rows = 0;
    for line in page.lines().filter(|line| line.starts_with('|') && line.contains("::")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, file) = (cells[2].trim_matches('`'), cells[3].trim_matches('`'));
        let (owner, function) = name.split_once("::").unwrap();
        let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        // From the head of the owner's implementations to the function: the file may have other owners.
        let found = source.split("\nimpl").skip(1).any(|block| {
            let head = block.split('{').next().unwrap_or_default();
            let body = block.split("\n}\n").next().unwrap_or_default();
            let names_owner = head.split(|c: char| !c.is_alphanumeric()).any(|word| word == owner);
            names_owner && [format!("fn {function}("), format!("fn {function}<")].iter().any(|text| body.contains(text))
        });
        assert!(found, "{file} has no `{name}`");
        rows += 1;
    }
    assert!(rows > 25, "only {rows} rows were read");
}

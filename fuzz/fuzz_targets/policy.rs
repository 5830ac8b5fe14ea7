//! The rules that people write, and those that the control socket takes: whatever is read is written so that it reads the same.

#![no_main]

use config::policy::{MAX_RULES, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match parse(input) {
        Ok(rules) => {
            assert!(rules.len() <= MAX_RULES);
            let again: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
            assert_eq!(parse(again.as_bytes()), Ok(rules), "{again}");
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.chars().any(char::is_control), "an error is one line: {text:?}");
        }
    }
});

//! The files of runs, which the lab keeps and people send each other: what is read can be told, as a page and as a summary, and comes back from what is
//! written of it as it was.

#![no_main]

use evaluation::{Run, report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Run::parse("a file", text) {
        Ok(run) => {
            assert_eq!(Run::parse("what was written", &run.text()).unwrap(), run);
            assert!(report::html(&run).ends_with("</html>\n"));
            let told = report::summary(&run, 80);
            assert!(!told.chars().any(|c| c != '\n' && c.is_control()), "{told:?}");
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.chars().any(char::is_control), "an error is one line: {line:?}");
        }
    }
});

//! `page RUN.json OUT.html`: the report of a run as a page, and its answers on the terminal. Without a run, of one that is made up.

use std::path::Path;
use std::{env, fs, process};

use evaluation::{EvaluationError, Run, report};

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    if let Err(error) = page() {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn page() -> Result<(), EvaluationError> {
    let names: Vec<String> = env::args().skip(1).collect();
    let (run, out) = match &names[..] {
        [run, out] => (Run::load(Path::new(run))?, out),
        [out] => (support::made_up(7), out),
        _ => {
            eprintln!("page [RUN.json] OUT.html");
            process::exit(2);
        }
    };
    let failed = |source| EvaluationError::File { path: out.into(), source };
    fs::write(out, report::html(&run)).map_err(failed)?;
    print!("{}", report::summary(&run, 100));
    Ok(())
}

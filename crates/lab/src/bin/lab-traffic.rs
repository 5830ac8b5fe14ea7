//! The helper that the lab runs inside its namespaces, as a program of its own: `lab::helper` is all of it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    lab::helper::main()
}

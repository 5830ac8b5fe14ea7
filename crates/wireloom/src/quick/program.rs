//! Programs of the system that `up` and `down` leave some of their work to: `nft`, `resolvconf`, `resolvectl`.
//!
//! They are looked for in PATH and then where Debian keeps those of root, which the PATH of `su` lacks. What one has to say on standard error
//! is passed on when it did its work, and becomes a part of the error's one line when it did not.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Where programs are looked for that PATH does not lead to.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ProgramError {
    #[error("there is no {0} here, expected it in PATH: {1}")]
    Missing(&'static str, &'static str),
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} failed ({status}): {said}")]
    Failed { program: String, status: ExitStatus, said: String },
}

/// Where the program is, if it is here and may be executed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// Runs a program to its end with `input` for it to read. Gives what it wrote to standard output.
///
/// # Errors
/// It cannot be run, or says that it failed.
pub fn run<S: AsRef<OsStr>>(program: &Path, args: &[S], input: &str) -> Result<String, ProgramError> {
    let name = || program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let start = || {
        let mut command = Command::new(program);
        // As wg-quick has it, for those whose output is read.
        command.args(args).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read to the end says by its status whether that was right.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    let output = start().map_err(|source| ProgramError::Start { program: name(), source })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        eprint!("{said}");
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // Its first line: `nft` goes on with the text that it could not read.
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("without a word").trim().to_owned();
    Err(ProgramError::Failed { program: name(), status: output.status, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_says_and_fails() {
        let sh = find("sh").unwrap();
        assert!(find("no-such-program-anywhere").is_none());
        assert_eq!(run(&sh, &["-c", "cat"], "line\n").unwrap(), "line\n");
        // It may leave without having read, however much there is.
        assert_eq!(run(&sh, &["-c", "echo done"], &"x".repeat(1 << 20)).unwrap(), "done\n");
        let failed = run(&sh, &["-c", "echo; echo why >&2; echo more >&2; exit 3"], "").unwrap_err();
        assert_eq!(failed.to_string(), "sh failed (exit status: 3): why");
    }
}

//! The commands of PreUp, PostUp, PreDown and PostDown.
//!
//! They run where `wireloom` runs, with its standard input and outputs, by bash as wg-quick(8) says, since files are full of what only bash can
//! read (`<(…)`); where there is none, by `sh`. As in wg-quick a command ends at its first part that fails, patterns are the extended ones, `LC_ALL` is `C`, our
//! own folder comes first in PATH, and `$INTERFACE` and `$CONFIG_FILE` are known, though not in the environment of what it calls. A hook that fails fails `up`;
//! there is nothing to undo about one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde::{Deserialize, Serialize};

use super::program;

/// What the shell is given: its arguments are the interface and the file. The command comes in the environment, which only root can read, while
/// everybody can read the arguments of all processes; and it is gone from there when it runs.
const BASH: &str =
    "set -- \"$1\" \"$2\" \"$WIRELOOM_HOOK\"; unset WIRELOOM_HOOK; INTERFACE=$1 CONFIG_FILE=$2; eval \"$3\"";

/// When a hook runs, named as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // as in the file
pub enum When {
    PreUp,
    PostUp,
    PreDown,
    PostDown,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            When::PreUp => "PreUp",
            When::PostUp => "PostUp",
            When::PreDown => "PreDown",
            When::PostDown => "PostDown",
        })
    }
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum HookError {
    #[error("{when} hook failed ({status})")]
    Failed { when: When, status: ExitStatus },
    #[error("{when} hook cannot be run by {}: {source}", shell.display())]
    Start { when: When, shell: PathBuf, source: io::Error },
}

/// One command of the file, with the interface's name put in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// When it runs.
    pub when: When,
    /// The command as the shell gets it. The journal does without: there may be a secret in it.
    #[serde(skip)]
    pub command: String,
    /// The interface.
    pub interface: String,
    /// The file that says so.
    pub file: PathBuf,
}

impl Hook {
    /// The command itself, which is what a person would type.
    pub fn describe(&self) -> String {
        self.command.clone()
    }

    /// Runs the command to its end.
    ///
    /// # Errors
    /// It failed, or there is no shell.
    pub fn apply(&mut self) -> Result<(), HookError> {
        let bash = program::find("bash");
        let shell = bash.clone().or_else(|| program::find("sh")).unwrap_or_else(|| "/bin/sh".into());
        let mut command = Command::new(&shell);
        match bash {
            Some(_) => command.args(["-e", "-o", "pipefail", "-O", "extglob"]),
            None => command.arg("-e"),
        };
        // The word after the script is the name under which the shell complains.
        command.args(["-c", BASH, "wireloom", &self.interface]).arg(&self.file);
        command.env("WIRELOOM_HOOK", &self.command).env("LC_ALL", "C").env("PATH", path());
        let status = command.status().map_err(|source| HookError::Start { when: self.when, shell, source })?;
        if status.success() {
            return Ok(());
        }
        Err(HookError::Failed { when: self.when, status })
    }
}

/// PATH with the folder of this program in front, so that hooks call the same.
fn path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(own) = std::env::current_exe().ok().as_deref().and_then(Path::parent).map(Path::to_owned) else {
        return path;
    };
    let all = std::iter::once(own).chain(std::env::split_paths(&path));
    // A folder whose name has a colon in it cannot be put in.
    std::env::join_paths(all).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(command: &str) -> Hook {
        Hook {
            when: When::PostUp,
            command: command.to_owned(),
            interface: "wg7".to_owned(),
            file: "/etc/wireguard/wg7.conf".into(),
        }
    }

    #[test]
    fn a_hook_is_run_by_bash_with_what_wg_quick_gives_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let log = log.to_str().unwrap();
        let says = |command: &str| {
            hook(command).apply().unwrap();
            std::fs::read_to_string(log).unwrap()
        };
        assert_eq!(says(&format!("cat <(echo $INTERFACE $CONFIG_FILE) > {log}")), "wg7 /etc/wireguard/wg7.conf\n");
        assert_eq!(says(&format!("bash -c 'echo $LC_ALL-$INTERFACE' > {log}")), "C-\n");
        assert_eq!(says(&format!("v=aab; echo ${{v##+(a)}} > {log}")), "b\n");
        let own = std::env::current_exe().unwrap();
        let path = says(&format!("printf %s \"$PATH\" > {log}"));
        assert_eq!(std::env::split_paths(&path).next().as_deref(), own.parent());
    }

    #[test]
    fn nobody_can_read_a_command_among_the_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let secret = "hunter2";
        let see = "tr '\\0' ' ' < /proc/$$/cmdline; env | grep WIRELOOM || true";
        hook(&format!(": {secret}; {{ {see}; }} > {}", log.display())).apply().unwrap();
        let seen = std::fs::read_to_string(log).unwrap();
        assert!(seen.contains("wireloom wg7 /etc/wireguard/wg7.conf"), "{seen}");
        assert!(!seen.contains(secret), "{seen}");
    }

    #[test]
    fn a_hook_fails_at_its_first_part_that_fails() {
        let text = hook("exit 7").apply().unwrap_err().to_string();
        assert_eq!(text, "PostUp hook failed (exit status: 7)");
        for command in ["false; true", "false | true", "(", "no-such-program-anywhere 2>/dev/null"] {
            assert!(hook(command).apply().is_err(), "{command}");
        }
        hook("true; false || true").apply().unwrap();
    }
}

//! Running cargo and other commands in sight of the person.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use lab::{Engine, LabError, System, interrupted};
use rustix::process::{Pid, Signal, kill_process};

use crate::error::Failure;

/// The workspace's root.
pub fn root() -> PathBuf {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(xtask) => Path::new(&xtask).join(".."),
        None => PathBuf::from("."),
    }
}

/// `cargo ARGS` in the workspace.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Where cargo builds, `CARGO_TARGET_DIR` and all.
pub fn target_folder() -> Result<PathBuf, Failure> {
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(Failure::io("cargo metadata"))?;
    serde_json::from_slice::<serde_json::Value>(&output.stdout)
        .ok()
        .and_then(|json| Some(PathBuf::from(json["target_directory"].as_str()?)))
        .ok_or(Failure::NoTarget)
}

/// Runs a command to its end with its output in sight.
pub fn show(command: &mut Command) -> Result<(), Failure> {
    let child = start(command)?;
    finish(command, child)
}

/// Runs a command to its end, and hands each line of its standard output to `see` before it is printed.
pub fn show_lines(command: &mut Command, mut see: impl FnMut(&str) + Send) -> Result<(), Failure> {
    let mut child = start(command.stdout(Stdio::piped()))?;
    let stdout = child.stdout.take();
    thread::scope(|scope| {
        scope.spawn(move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines()) {
                let Ok(line) = line else { break };
                see(&line);
                println!("{line}");
            }
        });
        finish(command, child)
    })
}

/// Our binary, built for release, and the lab's helper next to it. `WIRELOOM_BIN` names another one to use instead of ours.
pub fn build_release() -> Result<System, Failure> {
    println!("Building the binary (release) …");
    show(&mut cargo(&["build", "--release", "-p", "wireloom", "-p", "wireloom-lab", "--bins"]))?;
    if env::var_os("WIRELOOM_BIN").is_some() {
        let system = System::wireloom()?;
        println!("Using {} instead of it.", system.program()?.display());
        return Ok(system);
    }
    let system = System::Wireloom(target_folder()?.join("release/wireloom"), Engine::Userspace);
    system.program()?;
    Ok(system)
}

/// Ours with sessions of a few seconds, in a folder of its own. `WIRELOOM_HURRIED_BIN` names another one to use instead of ours.
pub fn build_hurried() -> Result<System, Failure> {
    if let Some(path) = env::var_os("WIRELOOM_HURRIED_BIN") {
        let system = System::Wireloom(path.into(), Engine::Userspace);
        println!("Using {}.", system.program()?.display());
        return Ok(system);
    }
    println!("Building the binary with short sessions …");
    let (built, folder) = (target_folder()?.join("debug/wireloom"), target_folder()?.join("hurried"));
    let (kept, usual) = (folder.join("wireloom"), folder.join("usual"));
    let failed = || Failure::io(folder.display().to_string());
    std::fs::create_dir_all(&folder).map_err(failed())?;
    // It takes the place of the one that everybody else means, which is put there again.
    let is_there = built.exists();
    if is_there {
        std::fs::rename(&built, &usual).map_err(failed())?;
    }
    let without = ["--no-default-features", "--features", "hurried"];
    let made = show(cargo(&["build", "-p", "wireloom", "--bin", "wireloom"]).args(without));
    let moved = made.and_then(|()| std::fs::rename(&built, &kept).map_err(failed()));
    if is_there {
        std::fs::rename(&usual, &built).map_err(failed())?;
    }
    moved?;
    let system = System::Wireloom(kept, Engine::Userspace);
    system.program()?;
    Ok(system)
}

fn start(command: &mut Command) -> Result<Child, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).spawn().map_err(Failure::io(format!("running `{name}`")))
}

fn finish(command: &Command, mut child: Child) -> Result<(), Failure> {
    let mut told = false;
    let status = loop {
        let status = child.try_wait().map_err(Failure::io("waiting"))?;
        if let Some(status) = status {
            break status;
        }
        if interrupted() && !told {
            told = true;
            // On Ctrl-C it has heard already; a signal to us alone is passed on, once, and its end awaited.
            if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        thread::sleep(Duration::from_millis(20));
    };
    if interrupted() {
        return Err(LabError::Interrupted.into());
    }
    if status.success() {
        return Ok(());
    }
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    Err(Failure::Command { command: words.join(" "), status })
}

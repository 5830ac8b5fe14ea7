//! `cargo xtask dist`: what is installed on a machine, in `dist` of the target folder.
//!
//! `wireloom` is the program, `man` holds its pages (for `/usr/share/man/man1`), `completions` what each shell is to read. The program
//! writes both of them itself, so that they are those of this very build.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;

use crate::cargo::{build_release, show, target_folder};
use crate::error::Failure;

/// What `dist` may be told.
#[derive(Args, Debug)]
pub struct Options {}

/// The shells, and what their files are called where they look for them.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "wireloom"), ("zsh", "_wireloom"), ("fish", "wireloom.fish")];

/// Builds everything anew.
pub fn run(_options: &Options) -> Result<(), Failure> {
    let program = build_release()?.program()?;
    let folder = target_folder()?.join("dist");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::io("the old dist folder")(error));
        }
        _ => {}
    }
    fs::create_dir_all(&folder).map_err(Failure::io("the dist folder"))?;
    fs::copy(&program, folder.join("wireloom")).map_err(Failure::io("copying the program"))?;
    write_pages(&program, &folder.join("man"))?;
    for (shell, name) in COMPLETIONS {
        write_completions(&program, shell, &folder.join("completions").join(name))?;
    }
    println!("Built {}: the program, man/ and completions/.", folder.display());
    Ok(())
}

/// Has the program write its manual pages into a folder, which it makes.
pub fn write_pages(program: &Path, folder: &Path) -> Result<(), Failure> {
    show(Command::new(program).arg("man-pages").arg(folder))
}

/// Has the program write what a shell is to read.
pub fn write_completions(program: &Path, shell: &str, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new("."))).map_err(Failure::io("a folder for completions"))?;
    let mut command = Command::new(program);
    let output = command
        .args(["completions", shell])
        .stderr(Stdio::inherit())
        .output()
        .map_err(Failure::io("running our program"))?;
    if !output.status.success() {
        let command = format!("{} completions {shell}", program.display());
        return Err(Failure::Command { command, status: output.status });
    }
    fs::write(to, output.stdout).map_err(Failure::io("writing the completions"))
}

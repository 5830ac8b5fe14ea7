//! `cargo xtask bpf`: makes the programs that run inside the kernel, `crates/ebpf/objects`, of their C sources.
//!
//! The objects are committed, so that whoever builds Wireloom needs no clang; what keeps them honest is that anyone can make them
//! anew and compare, which is `--check` and a stage of `cargo xtask test`. For that the same sources have to make the same bytes
//! on any machine: one version of the compiler, no header from outside the folder, no path of the machine, no debug information
//! but BTF, which the loader needs. A digest of the sources goes into each object, behind the licence, so that it can be told what
//! a program in a running kernel was made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use blake2::{Blake2s256, Digest};
use clap::Args;

use crate::cargo::{root, show};
use crate::error::Failure;

/// What `bpf` may be told.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Options {
    /// Change nothing, and fail if a committed object is not what its sources make
    #[arg(long)]
    pub check: bool,
}

/// The compiler and what takes its debug information out again.
const CLANG: &str = "clang-19";
const STRIP: &str = "llvm-strip-19";

/// The compiler's version as it says it; another one may make other code of the same sources.
const VERSION: &str = " version 19.1.";

/// What all programs are compiled with. `-mcpu=v3` has 32-bit operations, which Linux 6.1 runs. The helpers' prototypes are
/// constants that no program uses all of.
const FLAGS: &[&str] = &[
    "-target",
    "bpf",
    "-mcpu=v3",
    "-mlittle-endian",
    "-O2",
    "-g",
    "-Qn",
    "-nostdinc",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-const-variable",
    "-fdebug-compilation-dir=.",
];

/// Makes the objects, or looks whether they are what they should be.
pub fn run(options: &Options) -> Result<(), Failure> {
    look_at_compiler()?;
    let folder = root().join("crates/ebpf");
    let folder = folder.canonicalize().map_err(Failure::io(folder.display().to_string()))?;
    let (sources, objects) = (folder.join("bpf"), folder.join("objects"));
    let programs = files(&sources, ".bpf.c")?;
    let new = tempfile::tempdir().map_err(Failure::io("a temporary folder"))?;
    for program in &programs {
        build(&sources, program, &new.path().join(object_name(program)))?;
    }
    let wanted: Vec<String> = programs.iter().map(|program| object_name(program)).collect();
    let mut wrong: Vec<String> = files(&objects, ".bpf.o")?.into_iter().filter(|name| !wanted.contains(name)).collect();
    for name in &wanted {
        let made = read(&new.path().join(name))?;
        let path = objects.join(name);
        let committed = fs::read(&path).unwrap_or_default();
        if options.check {
            if made != committed {
                wrong.push(name.clone());
            }
        } else if made == committed {
            println!("{name}: {} bytes, as before", made.len());
        } else {
            fs::create_dir_all(&objects).map_err(Failure::io(objects.display().to_string()))?;
            fs::write(&path, &made).map_err(Failure::io(path.display().to_string()))?;
            println!("{name}: {} bytes, new", made.len());
        }
    }
    if wrong.is_empty() {
        println!("{}: what the sources make.", wanted.join(", "));
        return Ok(());
    }
    Err(Failure::Bpf(format!(
        "{} in crates/ebpf/objects: not what the sources in crates/ebpf/bpf make; run `cargo xtask bpf`, delete what has no \
         source, and commit",
        wrong.join(", ")
    )))
}

fn object_name(program: &str) -> String {
    format!("{}.o", program.trim_end_matches(".c"))
}

/// One program, compiled and without what only a debugger would read.
fn build(sources: &Path, program: &str, object: &Path) -> Result<(), Failure> {
    let digest = digest(sources, program)?;
    let mut clang = clang(sources);
    show(clang.arg(format!("-DWL_SOURCES=\"{digest}\"")).args(["-c", program, "-o"]).arg(object))?;
    show(Command::new(STRIP).arg("-g").arg(object))?;
    if !read(object)?.windows(digest.len()).any(|bytes| bytes == digest.as_bytes()) {
        return Err(Failure::Bpf(format!("{program} does not say what it is made of: have it end with WL_LICENSE;")));
    }
    Ok(())
}

/// The compiler, in the folder and for names alone, since the paths of its command line are where those in objects come from.
fn clang(sources: &Path) -> Command {
    let mut clang = Command::new(CLANG);
    clang.current_dir(sources).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).args(FLAGS);
    clang
}

/// The digest of a program's source and of all that it includes, by their names and texts in the order of the names.
fn digest(sources: &Path, program: &str) -> Result<String, Failure> {
    let output = clang(sources).args(["-MM", program]).output().map_err(Failure::io(CLANG))?;
    if !output.status.success() {
        return Err(Failure::Bpf(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    // As for make: a target and a colon, then names with a backslash at the end of each line but the last.
    let rule = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = rule.split_once(':').map_or("", |(_, names)| names);
    let names: BTreeSet<&str> = names.split_whitespace().filter(|name| *name != "\\").collect();
    let mut hash = Blake2s256::new();
    for name in names {
        let text = read(&sources.join(name))?;
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(&text);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The names of a folder's files with this ending, sorted. A folder that is not there has none.
fn files(folder: &Path, ending: &str) -> Result<Vec<String>, Failure> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let fail = || Failure::io(folder.display().to_string());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail())? {
        names.extend(entry.map_err(fail())?.file_name().into_string().ok().filter(|name| name.ends_with(ending)));
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(Failure::io(path.display().to_string()))
}

/// The right compiler is there.
fn look_at_compiler() -> Result<(), Failure> {
    let remedy = "`cargo xtask setup` installs it, as does `apt-get install clang-19 llvm-19` on Debian 12 and later";
    let output = Command::new(CLANG).arg("--version").output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let first = said.as_ref().ok().and_then(|said| said.lines().next());
    match first {
        Some(line) if line.contains(VERSION) => {}
        Some(line) => {
            return Err(Failure::Bpf(format!(
                "{CLANG} is {line:?}, and the programs are made by version 19.1; {remedy}"
            )));
        }
        None => return Err(Failure::Bpf(format!("{CLANG} cannot be run; {remedy}"))),
    }
    match Command::new(STRIP).arg("--version").output() {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::Bpf(format!("{STRIP} cannot be run; {remedy}"))),
    }
}

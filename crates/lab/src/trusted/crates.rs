//! Crates, by a program of ours that needs them and is never built: cargo chooses, verifies and fetches them, into its own cache, and tells where they are.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evaluation::count_lines;
use serde::Deserialize;

use super::paths;
use super::selection::Selection;
use crate::{LabError, run};

/// How long cargo may take to fetch them.
const LIMIT: Duration = Duration::from_secs(600);

/// For what they are.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The crates that hold cryptography, as far as a program needs them; of `ring` only what seals.
const CRYPTOGRAPHY: &[&str] = &[
    "aead",
    "blake2",
    "block-buffer",
    "chacha20",
    "chacha20poly1305",
    "cipher",
    "constant_time_eq",
    "cpufeatures",
    "crypto-common",
    "curve25519-dalek",
    "curve25519-dalek-derive",
    "digest",
    "getrandom",
    "hmac",
    "inout",
    "opaque-debug",
    "poly1305",
    "ppv-lite86",
    "rand_chacha",
    "rand_core",
    "subtle",
    "universal-hash",
    "x25519-dalek",
    "zeroize",
];

/// What ring seals with, and what that needs.
const RING: &[&str] = &[
    "ring/src/aead.rs",
    "ring/src/aead/",
    "ring/src/lib.rs",
    "ring/src/cpu.rs",
    "ring/src/cpu/",
    "ring/src/bb/",
    "ring/src/error/",
    "ring/src/polyfill/",
    "ring/src/constant_time.rs|ring/src/deprecated_constant_time.rs",
    "ring/crypto/chacha/asm/",
    "ring/crypto/cipher/asm/",
    "ring/crypto/poly1305/",
    "ring/crypto/*.c",
    "ring/include/",
];

/// Of the crates' files, what is not for this platform and this use.
pub const WITHOUT: &[&str] = &[
    "ring/src/aead/aes*",
    "ring/src/aead/aes*/*",
    "ring/src/aead/gcm*",
    "ring/src/aead/gcm/*",
    "ring/src/aead/quic.rs",
    "ring/src/aead/chacha20_poly1305_openssh.rs",
    "ring/crypto/constant_time_test.c",
    "curve25519-dalek/src/backend/serial/u32/*",
    "curve25519-dalek/src/backend/serial/fiat*/*",
    "curve25519-dalek/src/backend/vector/ifma/*",
    "curve25519-dalek/src/backend/*/*/constants.rs",
    "ring/src/cpu/arm/*",
    "curve25519-dalek/src/ristretto.rs",
    "blake2/src/blake2b*",
    "chacha20/src/backends/neon.rs",
    "getrandom/src/*wasi*",
    "getrandom/src/*wasm*",
    "getrandom/src/*js*",
    "getrandom/src/*windows*",
    "getrandom/src/*apple*",
    "getrandom/src/*bsd*",
    "getrandom/src/*solaris*",
    "getrandom/src/*vita*",
    "getrandom/src/backends/*wasi*",
    "getrandom/src/backends/*wasm*",
    "getrandom/src/backends/*windows*",
    "getrandom/src/backends/*apple*",
    "getrandom/src/backends/efi*",
    "getrandom/src/backends/*solaris*",
    "getrandom/src/backends/*vita*",
];

/// What that is, in words.
pub const WORDS: &str = "crates of ciphers, hashes, curves and random numbers, without tables of constants; of ring what ChaCha20-Poly1305 needs";

/// What cargo tells of them; it tells more.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// Writes what numbers depend on besides their selection.
pub fn rules(hasher: &mut impl Hasher) {
    (CRYPTOGRAPHY, RING).hash(hasher);
}

/// A crate as a dependency: of one version, with features between spaces and none by default where any is said.
pub fn line(name: &str, version: &str, features: &str) -> String {
    let features: Vec<String> = features.split_whitespace().map(|it| format!("{it:?}")).collect();
    let default = if features.is_empty() { "" } else { ", default-features = false" };
    format!("{name} = {{ version = \"={version}\"{default}, features = [{}] }}\n", features.join(", "))
}

/// Lines of a selection, and of which crates.
pub fn count(selection: &Selection, dependencies: &str) -> Result<(String, BTreeMap<String, u64>), LabError> {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    let mut of = Vec::new();
    for package in fetch(dependencies)? {
        let paths: Vec<String> = match selection.paths {
            [] if package.name == "ring" => RING.iter().map(|path| (*path).to_owned()).collect(),
            [] if CRYPTOGRAPHY.contains(&&*package.name) => vec![format!("{}/src/", package.name)],
            [] => continue,
            paths => paths.iter().map(|path| (*path).to_owned()).collect(),
        };
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let found = count_of(&package, &paths, selection.without)?;
        if !found.is_empty() {
            of.push(format!("{} {}", package.name, package.version));
        }
        for (language, count) in found {
            *lines.entry(language).or_default() += count;
        }
    }
    match lines.is_empty() {
        true => Err(LabError::Unreadable { what: "what was to be counted", text: dependencies.to_owned() }),
        false => Ok((of.join(", "), lines)),
    }
}

fn count_of(package: &Package, paths: &[&str], without: &[&str]) -> Result<BTreeMap<String, u64>, LabError> {
    let folder = package.manifest_path.parent().unwrap_or(Path::new("/"));
    let lines =
        count_lines(folder, &mut |file| !paths::places(paths, without, &format!("{}/{file}", package.name)).is_empty());
    lines.map_err(LabError::io(folder.display().to_string()))
}

/// The crates that a program with these dependencies is made of.
fn fetch(dependencies: &str) -> Result<Vec<Package>, LabError> {
    let folder = tempfile::tempdir().map_err(LabError::io("a folder for a program"))?;
    let failed = || LabError::io("a program that needs crates");
    let manifest = format!(
        "[package]\nname = \"counted\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n{dependencies}"
    );
    fs::create_dir(folder.path().join("src")).map_err(failed())?;
    fs::write(folder.path().join("src/lib.rs"), "").map_err(failed())?;
    fs::write(folder.path().join("Cargo.toml"), manifest).map_err(failed())?;
    cargo(folder.path(), &["fetch", "--target", TARGET])?;
    let text = cargo(folder.path(), &["metadata", "--format-version", "1", "--offline", "--filter-platform", TARGET])?;
    let metadata: Result<Metadata, _> = serde_json::from_str(&text);
    let mut packages = metadata.map_err(std::io::Error::other).map_err(failed())?.packages;
    packages.retain(|package| package.name != "counted");
    Ok(packages)
}

fn cargo(folder: &Path, args: &[&str]) -> Result<String, LabError> {
    let mut command = Command::new("cargo");
    command.args(args).arg("--quiet").current_dir(folder);
    let finished = run(&mut command, LIMIT).map_err(|error| match error {
        LabError::Missing { program, .. } => {
            LabError::Missing { program, hint: "crates are fetched by it: rustup, or `apt-get install cargo`" }
        }
        other => other,
    })?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    // What went wrong stands first; what follows is why, and the last of that says it.
    let lines: Vec<&str> = finished.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let output = match (lines.iter().find(|line| line.starts_with("error")), lines.last()) {
        (Some(first), Some(last)) if first != last => format!("{first}: {last}"),
        _ => lines.first().copied().unwrap_or_default().to_owned(),
    };
    Err(LabError::Failed { command: finished.command, status: finished.status, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_of_one_version() {
        assert_eq!(line("ring", "0.17.14", ""), "ring = { version = \"=0.17.14\", features = [] }\n");
        let expected = "gotatun = { version = \"=1.0\", default-features = false, features = [\"ring\", \"tun\"] }\n";
        assert_eq!(line("gotatun", "1.0", "ring tun"), expected);
    }

    #[test]
    fn of_a_crate_its_sources_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["src/lib.rs", "src/tests.rs", "src/windows.rs", "build.rs"] {
            fs::create_dir_all(folder.path().join("src")).unwrap();
            fs::write(folder.path().join(file), "fn a() {}\n").unwrap();
        }
        let manifest_path = folder.path().join("Cargo.toml");
        let package = Package { name: "x".to_owned(), version: "1".to_owned(), manifest_path };
        assert_eq!(count_of(&package, &["x/src/"], &["*/windows.rs"]).unwrap()["Rust"], 1);
        assert!(count_of(&package, &["y/src/"], &[]).unwrap().is_empty());
    }
}

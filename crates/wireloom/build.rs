//! Counts this program's own code for `lab code`: an installed one has no sources beside it, and others' would be of another version.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

#[path = "../evaluation/src/code/lines.rs"]
mod lines;

/// A part: what it is, whether it is only in the eBPF engine, whether it is cryptography, and its files: folders with a slash at their end.
type Part = (&'static str, bool, bool, &'static [&'static str]);

const PARTS: [Part; 4] = [
    (
        "protocol, data plane, control socket and privileges: crates noise, plane, inet, control and linux, of config what the control \
         socket speaks, of wireloom the daemon",
        false,
        false,
        &[
            "crates/noise/src/",
            "crates/plane/src/",
            "crates/inet/src/",
            "crates/control/src/",
            "crates/linux/src/",
            "crates/config/src/lib.rs",
            "crates/config/src/address.rs",
            "crates/config/src/device.rs",
            "crates/config/src/key.rs",
            "crates/config/src/lines.rs",
            "crates/config/src/policy.rs",
            "crates/config/src/stats.rs",
            "crates/config/src/value.rs",
            "crates/config/src/uapi/",
            "crates/wireloom/src/main.rs",
            "crates/wireloom/src/argv.rs",
            "crates/wireloom/src/attend/",
            "crates/wireloom/src/error.rs",
            "crates/wireloom/src/interface.rs",
            "crates/wireloom/src/metrics/",
            "crates/wireloom/src/policy.rs",
            "crates/wireloom/src/run.rs",
            "crates/wireloom/src/tell.rs",
            "crates/wireloom/src/watch.rs",
            "crates/wireloom/src/zones.rs",
        ],
    ),
    ("ChaCha20-Poly1305 with vectors: crate aead", false, true, &["crates/aead/src/"]),
    ("the eBPF engine: crate ebpf and its programs", true, false, &["crates/ebpf/src/", "crates/ebpf/bpf/"]),
    ("ChaCha20-Poly1305 of the eBPF programs", true, true, CIPHERS),
];

/// What in the folder of programs is cryptography.
const CIPHERS: &[&str] = &[
    "crates/ebpf/bpf/aead.h",
    "crates/ebpf/bpf/chacha20.h",
    "crates/ebpf/bpf/poly1305.h",
    "crates/ebpf/bpf/crypto.bpf.c",
];

/// The crates of cryptography that ours asks for; what these need is cargo's to find.
const CRATES: [&str; 6] = ["blake2", "chacha20poly1305", "ring", "subtle", "x25519-dalek", "zeroize"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_LAB").is_none() {
        return Ok(());
    }
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let mut text =
        "/// What it is, whether only with programs in the kernel, whether cryptography, lines by language.\n\
                    pub type Part = (&'static str, bool, bool, &'static [(&'static str, u64)]);\n\n\
                    /// All parts.\npub const PARTS: &[Part] = &[\n"
            .to_owned();
    for (what, ebpf, cryptography, paths) in PARTS {
        let mut seen = vec![false; paths.len()];
        let mut keep = |file: &str| {
            let file = format!("crates/{file}");
            if !cryptography && CIPHERS.contains(&&*file) {
                return false;
            }
            let at = paths.iter().position(|path| file == *path || path.ends_with('/') && file.starts_with(path));
            at.map(|at| seen[at] = true).is_some()
        };
        let found = lines::count(&root.join("crates"), &mut keep)?;
        if let Some(at) = seen.iter().position(|seen| !seen) {
            return Err(format!("build.rs counts {}, which is not there", paths[at]).into());
        }
        let found: Vec<_> = found.into_iter().collect();
        writeln!(text, "    ({what:?}, {ebpf}, {cryptography}, &{found:?}),")?;
        for path in paths {
            println!("cargo::rerun-if-changed={}", root.join(path).display());
        }
    }
    text += "];\n\n/// Crates of cryptography, each with its version.\npub const CRATES: &[(&str, &str)] = &[\n";
    let lock = root.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = fs::read_to_string(lock)?;
    for name in CRATES {
        let begin = format!("name = \"{name}\"\nversion = \"");
        let version = lock.split_once(&begin).and_then(|(_, rest)| rest.split_once('"'));
        let (version, _) = version.ok_or_else(|| format!("Cargo.lock has no {name}"))?;
        writeln!(text, "    ({name:?}, {version:?}),")?;
    }
    text += "];\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("code.rs"), text)?;
    Ok(())
}

//! What a guest finds when it boots: busybox, the kernel's modules, and programs of this machine with the libraries that they
//! need.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::image::Image;
use crate::namespace::scratch_folder;
use crate::{LabError, run};

/// Programs of this machine that every guest has.
const PROGRAMS: [&str; 5] = ["ip", "wg", "ping", "iperf3", "ethtool"];

/// The first process.
const INIT: &str = include_str!("init.sh");

/// How long a command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes the initrd for `image` to `to`. The `extra` programs come to `/usr/local/bin`, which is in the path.
pub(super) fn write(image: &Image, extra: &[PathBuf], to: &Path) -> Result<(), LabError> {
    let folder = scratch_folder("a folder for the initrd")?;
    let tree = Tree { root: folder.path() };
    for folder in ["bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/local/bin"] {
        tree.folder(folder)?;
    }
    symlink("../run", tree.folder("var")?.join("run")).map_err(LabError::io("var/run in the initrd"))?;
    tree.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644)?;
    tree.file("init", INIT, 0o755)?;
    let mut order = String::new();
    for module in image.modules()? {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        tree.copy(&module, &format!("modules/{name}"))?;
        order.push_str(&format!("{name}\n"));
    }
    tree.file("modules/order", &order, 0o644)?;

    // The shell of busybox would rather run its own `ip` and `ping` than those in the path.
    let mut programs: Vec<(PathBuf, String)> =
        vec![(find("busybox")?, "bin/busybox".to_owned()), (find("dash")?, "bin/sh".to_owned())];
    for program in PROGRAMS {
        programs.push((find(program)?, format!("usr/bin/{program}")));
    }
    for program in extra {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        programs.push((program.clone(), format!("usr/local/bin/{name}")));
    }
    let mut libraries = BTreeSet::new();
    for (program, place) in &programs {
        tree.copy(program, place)?;
        libraries.extend(libraries_of(program)?);
    }
    for library in &libraries {
        tree.copy(Path::new(library), library.trim_start_matches('/'))?;
    }
    let archive = File::create(to).map_err(LabError::io(to.display().to_string()))?;
    let mut child = Command::new("sh");
    child.args(["-c", "find . | cpio --quiet -o -H newc"]).current_dir(folder.path()).stdout(archive);
    let status = child.status().map_err(LabError::io("running cpio"))?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::Failed { command: "cpio -o".to_owned(), status, output: String::new() })
}

/// The folder that becomes the archive.
struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    fn folder(&self, name: &str) -> Result<PathBuf, LabError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(LabError::io(format!("{name} in the initrd")))?;
        Ok(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> Result<(), LabError> {
        let path = self.root.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .map_err(LabError::io(format!("{name} in the initrd")))
    }

    /// Copies what `from` leads to, with its mode.
    fn copy(&self, from: &Path, name: &str) -> Result<(), LabError> {
        let path = self.root.join(name);
        let parent = path.parent().unwrap_or(self.root);
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(from, &path))
            .map(drop)
            .map_err(LabError::io(format!("copying {} into the initrd", from.display())))
    }
}

/// Where a program of this machine is.
fn find(program: &str) -> Result<PathBuf, LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or(LabError::Missing {
            program: program.to_owned(),
            hint: "`cargo xtask setup` installs what the lab uses",
        })
}

/// The libraries of a program, its loader among them, by their paths on this machine. One that is linked statically, as busybox may
/// be, has none.
fn libraries_of(program: &Path) -> Result<Vec<String>, LabError> {
    let finished = run(Command::new("ldd").arg(program).env("LC_ALL", "C"), LIMIT)?;
    // An error to ldd, and no fault.
    if finished.log().contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    let text = finished.checked()?.stdout;
    if text.contains("not found") {
        return Err(LabError::Unreadable { what: "the libraries of a program", text });
    }
    Ok(paths_in(&text))
}

/// The paths in what `ldd` prints, each `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`.
fn paths_in(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_libraries() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(paths_in(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}

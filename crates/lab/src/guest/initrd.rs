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
use crate::{Debian, LabError, run};

/// Programs of this machine that every guest has.
const PROGRAMS: [&str; 5] = ["ip", "wg", "ping", "iperf3", "ethtool"];

/// The first process.
const INIT: &str = include_str!("init.sh");

/// What it, or a service of systemd, runs scripts by.
const SERVE: &str = include_str!("serve.sh");

/// The first process before systemd.
const SYSTEM_INIT: &str = include_str!("system-init.sh");

/// The service.
const SERVICE: &str = include_str!("lab.service");

/// Units of a Debian that only cost time in a guest.
const MASKED: [&str; 7] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
];

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
    tree.file("serve", SERVE, 0o755)?;
    tree.modules(image, "modules")?;

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
    pack(tree.root, to)
}

/// Writes the initrd of a guest whose first process is systemd, in a `debian` that has it, to `to`: with the `extra` programs as above, of
/// which the libraries are those of that Debian.
pub(super) fn write_system(image: &Image, debian: &Debian, extra: &[PathBuf], to: &Path) -> Result<(), LabError> {
    let tree = Tree { root: debian.root() };
    let units = tree.folder("etc/systemd/system")?;
    let wanted = tree.folder("etc/systemd/system/multi-user.target.wants")?;
    tree.folder("lab")?;
    tree.copy(&find("busybox")?, "lab/busybox")?;
    tree.file("lab/init", SYSTEM_INIT, 0o755)?;
    tree.file("lab/serve", SERVE, 0o755)?;
    tree.modules(image, "lab/modules")?;
    tree.file("etc/systemd/system/lab.service", SERVICE, 0o644)?;
    link("../lab.service", &wanted.join("lab.service"))?;
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    for program in extra {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        tree.copy(program, &format!("usr/local/bin/{name}"))?;
    }
    pack(tree.root, to)
}

/// A symbolic link, where none is yet.
fn link(to: &str, at: &Path) -> Result<(), LabError> {
    match symlink(to, at) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(LabError::io(at.display().to_string())(error))
        }
        _ => Ok(()),
    }
}

/// Makes the archive.
fn pack(root: &Path, to: &Path) -> Result<(), LabError> {
    let archive = File::create(to).map_err(LabError::io(to.display().to_string()))?;
    let mut child = Command::new("sh");
    child.args(["-c", "find . | cpio --quiet -o -H newc"]).current_dir(root).stdout(archive);
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

    /// The kernel's modules, and the order to load them in.
    fn modules(&self, image: &Image, folder: &str) -> Result<(), LabError> {
        let mut order = String::new();
        for module in image.modules()? {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            self.copy(&module, &format!("{folder}/{name}"))?;
            order.push_str(&format!("{name}\n"));
        }
        self.file(&format!("{folder}/order"), &order, 0o644)
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

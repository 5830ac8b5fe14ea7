//! `cargo xtask deb`: the Debian package, in `deb` of the target folder.
//!
//! What it holds is laid out in a folder as it will lie on a machine, and `dpkg-deb` packs that. It is made of this build and of
//! `packaging/`; names of files, times and order are the same each time, so that the same input gives the same bytes. Times are
//! `SOURCE_DATE_EPOCH`, or else that of the last commit. `DEBFULLNAME` and `DEBEMAIL` say who answers for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use lab::run_checked;

use crate::cargo::{build_release, root, target_folder};
use crate::error::Failure;
use crate::{dist, package};

/// What `deb` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// Then install it in a small Debian, look at it, and remove it again (needs root)
    #[arg(long)]
    pub check: bool,
    /// Pack this program, instead of building ours for release
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// How long a tool may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The shells, and where each looks for what a package brings.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/wireloom"),
    ("zsh", "usr/share/zsh/vendor-completions/_wireloom"),
    ("fish", "usr/share/fish/vendor_completions.d/wireloom.fish"),
];

/// Where its documents lie.
const DOC: &str = "usr/share/doc/wireloom";

/// What dpkg runs.
const SCRIPTS: [&str; 3] = ["postinst", "postrm", "prerm"];

/// The libraries that the program may need, the packages of Debian that hold them, and what their versions of symbols begin with.
const LIBRARIES: [(&str, &str, &str); 6] = [
    ("libc.so.", "libc6", "GLIBC_"),
    ("libm.so.", "libc6", "GLIBC_"),
    ("ld-linux", "libc6", "GLIBC_"),
    ("libgcc_s.so.", "libgcc-s1", "GCC_"),
    // Its symbols' versions (ELFUTILS_1.6) are not those of the package (0.188).
    ("libelf.so.", "libelf1", "no version"),
    ("libz.so.", "zlib1g", "ZLIB_"),
];

/// Builds it, and checks it if that is asked for.
pub fn run(options: &Options) -> Result<(), Failure> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => build_release()?.program()?,
    };
    let deb = build(&program)?;
    println!("Built {}.", deb.display());
    if options.check { package::check(&deb, &program) } else { Ok(()) }
}

/// Packs this program. Returns where the package is.
pub fn build(program: &Path) -> Result<PathBuf, Failure> {
    let folder = target_folder()?.join("deb");
    let tree = folder.join("tree");
    match fs::remove_dir_all(&tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::io("the old tree")(error)),
        _ => {}
    }
    let stage = Stage { tree };
    stage.programs(program)?;
    stage.documents()?;
    let version = env!("CARGO_PKG_VERSION");
    let epoch = epoch()?;
    stage.text(&format!("{DOC}/changelog"), &changelog(version, epoch)?, 0o644)?;
    stage.compress(&format!("{DOC}/changelog"))?;
    stage.control(program, version)?;

    let deb = folder.join(format!("wireloom_{version}_{}.deb", architecture()?));
    let mut command = Command::new("dpkg-deb");
    // One thread: what several make depends on how many there are.
    command.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]).arg(&stage.tree).arg(&deb);
    // Whatever is newer counts as of this time.
    run_checked(command.env("SOURCE_DATE_EPOCH", epoch.to_string()), LIMIT)?;
    Ok(deb)
}

/// The folder that is packed.
struct Stage {
    tree: PathBuf,
}

impl Stage {
    /// A path in the tree, with its folder made.
    fn place(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.tree.join(name);
        let mut folder = path.parent().unwrap_or(&self.tree).to_owned();
        fs::create_dir_all(&folder).map_err(Failure::io(name))?;
        // Whatever the umask says.
        while folder.starts_with(&self.tree) {
            fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(Failure::io(name))?;
            folder.pop();
        }
        Ok(path)
    }

    fn mode(path: &Path, mode: u32) -> Result<(), Failure> {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Failure::io(path.display().to_string()))
    }

    fn text(&self, name: &str, text: &str, mode: u32) -> Result<(), Failure> {
        let path = self.place(name)?;
        fs::write(&path, text).map_err(Failure::io(name))?;
        Self::mode(&path, mode)
    }

    fn copy(&self, from: &Path, name: &str, mode: u32) -> Result<(), Failure> {
        let path = self.place(name)?;
        fs::copy(from, &path).map_err(Failure::io(from.display().to_string()))?;
        Self::mode(&path, mode)
    }

    /// As Debian wants documents, without name and time of the file.
    fn compress(&self, name: &str) -> Result<(), Failure> {
        let path = self.tree.join(name);
        run_checked(Command::new("gzip").args(["-9n"]).arg(&path), LIMIT)?;
        Self::mode(&path.with_file_name(format!("{}.gz", file_name(&path))), 0o644)
    }

    /// The program, what it writes about itself, and its unit.
    fn programs(&self, program: &Path) -> Result<(), Failure> {
        let installed = self.place("usr/bin/wireloom")?;
        run_checked(
            Command::new("strip").args(["--strip-unneeded", "-R", ".comment", "-o"]).arg(&installed).arg(program),
            LIMIT,
        )?;
        Self::mode(&installed, 0o755)?;
        let pages = "usr/share/man/man1";
        dist::write_pages(program, &self.place(&format!("{pages}/x"))?.with_file_name(""))?;
        for page in files_in(&self.tree.join(pages))? {
            self.compress(&format!("{pages}/{}", file_name(&page)))?;
        }
        for (shell, name) in COMPLETIONS {
            let to = self.place(name)?;
            dist::write_completions(program, shell, &to)?;
            Self::mode(&to, 0o644)?;
        }
        let unit = "wireloom@.service";
        self.copy(&root().join("packaging/systemd").join(unit), &format!("lib/systemd/system/{unit}"), 0o644)?;
        // Where `up` finds files by name; wg-quick's, and shared with it.
        let configuration = self.place("etc/wireguard/x")?.with_file_name("");
        Self::mode(&configuration, 0o700)
    }

    fn documents(&self) -> Result<(), Failure> {
        let root = root();
        self.copy(&root.join("packaging/deb/copyright"), &format!("{DOC}/copyright"), 0o644)?;
        self.copy(&root.join("packaging/deb/lintian-overrides"), "usr/share/lintian/overrides/wireloom", 0o644)?;
        self.copy(&root.join("README.md"), &format!("{DOC}/README.md"), 0o644)?;
        self.copy(&root.join("CHANGELOG.md"), &format!("{DOC}/NEWS.md"), 0o644)?;
        for document in files_in(&root.join("docs"))?.iter().filter(|path| file_name(path).ends_with(".md")) {
            self.copy(document, &format!("{DOC}/{}", file_name(document)), 0o644)?;
        }
        self.copy(&root.join("packaging/systemd/hardened.conf"), &format!("{DOC}/examples/hardened.conf"), 0o644)?;
        let dashboards = root.join("contrib/grafana");
        if dashboards.exists() {
            for dashboard in files_in(&dashboards)? {
                self.copy(&dashboard, &format!("{DOC}/examples/grafana/{}", file_name(&dashboard)), 0o644)?;
            }
        }
        for file in files_in(&self.tree.join(DOC))? {
            // Debian's limit for documents that lie there as they are.
            let long = fs::metadata(&file).map_err(Failure::io(file_name(&file)))?.len() > 4096;
            if long && file_name(&file).ends_with(".md") {
                self.compress(&format!("{DOC}/{}", file_name(&file)))?;
            }
        }
        Ok(())
    }

    /// What dpkg reads and runs; last, since it sums up the rest.
    fn control(&self, program: &Path, version: &str) -> Result<(), Failure> {
        let files = files_below(&self.tree)?;
        let (mut bytes, mut sums) = (0, Command::new("md5sum"));
        for file in &files {
            bytes += fs::metadata(self.tree.join(file)).map_err(Failure::io(file.display().to_string()))?.len();
            sums.arg(file);
        }
        let sums = run_checked(sums.current_dir(&self.tree), LIMIT)?;
        let needs = run_checked(Command::new("objdump").arg("-p").arg(program).env("LC_ALL", "C"), LIMIT)?;
        let depends = depends(&needs).map_err(Failure::Package)?;
        let control = format!(
            "Package: wireloom\n\
             Version: {version}\n\
             Architecture: {}\n\
             Maintainer: {}\n\
             Installed-Size: {}\n\
             Depends: {depends}\n\
             Recommends: nftables\n\
             Suggests: openresolv | resolvconf | systemd-resolved, wireguard-tools\n\
             Section: net\n\
             Priority: optional\n\
             Description: WireGuard for Linux at line rate, with no kernel module\n \
             Wireloom runs WireGuard interfaces in user space and configures them. It speaks\n \
             the stock protocol, its commands are those of wg(8), its files those of\n \
             wg-quick(8), and it drives the kernel's own WireGuard just as well.\n \
             .\n \
             The package brings the program, its manual pages, completions for bash, zsh and\n \
             fish, and wireloom@.service, which runs a tunnel from /etc/wireguard.\n",
            architecture()?,
            maintainer(),
            bytes.div_ceil(1024),
        );
        self.text("DEBIAN/control", &control, 0o644)?;
        self.text("DEBIAN/md5sums", &sums, 0o644)?;
        for script in SCRIPTS {
            self.copy(&root().join("packaging/deb").join(script), &format!("DEBIAN/{script}"), 0o755)?;
        }
        Ok(())
    }
}

/// What a program depends on, by what `objdump -p` says of it: of each package the greatest version of a symbol.
fn depends(objdump: &str) -> Result<String, String> {
    let package_of = |library: &str| {
        let known = LIBRARIES.iter().find(|(name, ..)| library.starts_with(name));
        known.ok_or_else(|| format!("the program needs {library}, of which it is not known which package has it"))
    };
    let mut versions: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut prefix = "";
    for line in objdump.lines().map(str::trim) {
        if let Some(library) = line.strip_prefix("NEEDED") {
            versions.entry(package_of(library.trim())?.1).or_default();
        } else if let Some(library) = line.strip_prefix("required from ") {
            prefix = package_of(library)?.2;
            versions.entry(package_of(library)?.1).or_default();
        } else if let Some(symbol) = line.rsplit(' ').next().filter(|_| line.starts_with("0x") && !prefix.is_empty())
            && let Some(version) = symbol.strip_prefix(prefix)
        {
            let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
            let package = LIBRARIES.iter().find(|(.., other)| *other == prefix).map_or("", |found| found.1);
            let newest = versions.entry(package).or_default();
            *newest = newest.clone().max(numbers);
        }
    }
    let mut text = String::new();
    for (package, version) in versions {
        let version: Vec<_> = version.iter().map(u32::to_string).collect();
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = match version.as_slice() {
            [] => write!(text, "{comma}{package}"),
            version => write!(text, "{comma}{package} (>= {})", version.join(".")),
        };
    }
    if text.is_empty() { Err("the program needs no library, which objdump was to name".to_owned()) } else { Ok(text) }
}

/// Debian's changelog; what has changed is told in ours.
fn changelog(version: &str, epoch: u64) -> Result<String, Failure> {
    let mut date = Command::new("date");
    date.args(["-u", "-R", &format!("-d@{epoch}")]).env("LC_ALL", "C");
    let date = run_checked(&mut date, LIMIT)?;
    Ok(format!(
        "wireloom ({version}) unstable; urgency=medium\n\n  * See NEWS.md.\n\n \
         -- {}  {date}",
        maintainer()
    ))
}

/// Who answers for the package: as Debian's own tools are told.
fn maintainer() -> String {
    let told = |name, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    format!("{} <{}>", told("DEBFULLNAME", "The Wireloom authors"), told("DEBEMAIL", "wireloom@localhost"))
}

/// The time that everything in the package is of, in seconds since 1970.
fn epoch() -> Result<u64, Failure> {
    if let Some(given) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let given = given.to_string_lossy().into_owned();
        return given
            .parse()
            .map_err(|_| Failure::Package(format!("SOURCE_DATE_EPOCH is '{given}', expected seconds")));
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(root());
    let commit = lab::run(&mut git, LIMIT).ok().and_then(|finished| finished.stdout.trim().parse().ok());
    // A tree without its history: of the year that it says it is of.
    const UNKNOWN: u64 = 1_767_225_600;
    Ok(commit.unwrap_or(UNKNOWN))
}

/// Debian's word for what this was built for.
fn architecture() -> Result<&'static str, Failure> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "riscv64" => Ok("riscv64"),
        other => Err(Failure::Package(format!("it is not known what Debian calls {other}"))),
    }
}

/// The files in a folder, sorted.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(Failure::io(folder.display().to_string()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// The files below a folder, by their paths from there, sorted.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).map_err(Failure::io(next.display().to_string()))?.flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files.iter().filter_map(|path| Some(path.strip_prefix(folder).ok()?.to_owned())).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_program_needs() {
        let text = "\nDynamic Section:\n  NEEDED               libgcc_s.so.1\n  NEEDED               libc.so.6\n\
                    \nVersion References:\n  required from libgcc_s.so.1:\n    0x0b792650 0x00 09 GCC_3.0\n    \
                    0x09276060 0x00 10 GCC_4.2.0\n  required from libc.so.6:\n    0x09691a75 0x00 03 GLIBC_2.9\n    \
                    0x06969194 0x00 02 GLIBC_2.34\n    0x06969194 0x00 04 GLIBC_2.2.5\n";
        assert_eq!(depends(text).as_deref(), Ok("libc6 (>= 2.34), libgcc-s1 (>= 4.2.0)"));
        assert_eq!(depends("  NEEDED   libc.so.6\n").as_deref(), Ok("libc6"));
        assert!(depends("  NEEDED   libssl.so.3\n").is_err_and(|why| why.contains("libssl.so.3")));
        assert!(depends("").is_err());
    }
}

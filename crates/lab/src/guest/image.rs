//! The files of a kernel that guests boot, and how those of Debian's cloud images come here: downloaded by apt, and never installed.
//!
//! A kernel's folder in the user's cache holds its `vmlinuz`, the modules that a guest loads with all that they need, an
//! `order` to load them in, which modules were `wanted`, and its `release`. It is made once, beside its place, and then moved there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::apt::{Apt, DOWNLOAD_LIMIT};
use super::kernel::{Kernel, Series};
use super::sizes::Sizes;
use crate::{LabError, run_checked};

/// What a guest loads, without what these depend on. Some kernels have some of them built in.
pub(super) const MODULES: [&str; 9] =
    ["virtio_pci", "virtio_net", "virtio_console", "wireguard", "tun", "veth", "sch_netem", "sch_ingress", "cls_bpf"];

/// How the packages of these images end. The signed ones hold the same and depend on more.
const SUFFIX: &str = "-cloud-amd64-unsigned";

/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A kernel's files.
#[derive(Clone, Debug)]
pub struct Image {
    /// What `uname -r` says in it.
    pub release: String,
    /// What is known of one that was compiled here.
    pub sizes: Option<Sizes>,
    folder: PathBuf,
}

impl Image {
    /// The newest package of a series.
    ///
    /// # Errors
    /// [`LabError::NoKernel`] when there is none.
    pub fn find_package(series: Series) -> Result<Package, LabError> {
        let prefix = format!("linux-image-{}.", series.name());
        let (apt, name) = Apt::search(series, &prefix, |names| newest(names, &prefix))?;
        Ok(Package { kernel: Kernel::Debian(series), name, apt })
    }

    /// What lies in a folder, if it was made as `wanted` says and is whole.
    pub(super) fn of(folder: PathBuf, wanted: &str) -> Option<Image> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let release = read("release").filter(|_| read("wanted").as_deref() == Some(wanted))?;
        Some(Image { release: release.trim().to_owned(), sizes: read("sizes").and_then(|it| Sizes::read(&it)), folder })
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kernel itself.
    pub fn vmlinuz(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The modules, in the order to load them in.
    pub(super) fn modules(&self) -> Result<Vec<PathBuf>, LabError> {
        let order = self.folder.join("order");
        let text = fs::read_to_string(&order).map_err(LabError::io(order.display().to_string()))?;
        Ok(text.lines().map(|name| self.folder.join(name)).collect())
    }
}

/// A package that holds an image, somewhere out there.
pub struct Package {
    /// Its name.
    pub name: String,
    kernel: Kernel,
    apt: Apt,
}

impl Package {
    /// Downloads it and keeps what guests need; what another has fetched meanwhile stays.
    ///
    /// # Errors
    /// What apt or dpkg said, or that a module is not in it.
    pub fn fetch(&self) -> Result<Image, LabError> {
        let place = self.kernel.folder();
        let parent = place.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(LabError::io(parent.display().to_string()))?;
        // One at a time, so that nobody takes for half-made, and removes, what another has just put there.
        let lock = parent.join("lock");
        let lock = fs::File::create(&lock).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(LabError::io("the lock of the folder of kernels"))?;
        if let Ok(image) = self.kernel.image() {
            return Ok(image);
        }
        // On the same file system, so that the result can be moved.
        let scratch = tempfile::tempdir_in(parent).map_err(LabError::io("a folder for the download"))?;
        let (download, tree, made) =
            (scratch.path().join("download"), scratch.path().join("tree"), scratch.path().join("made"));
        for folder in [&download, &made] {
            fs::create_dir(folder).map_err(LabError::io("a folder for the download"))?;
        }
        let mut command = self.apt.command("apt-get");
        command.args(["-q", "download", &self.name]).current_dir(&download);
        run_checked(&mut command, DOWNLOAD_LIMIT)?;
        let deb = only_file(&download, |_| true)?;
        run_checked(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree), LIMIT)?;

        let vmlinuz = only_file(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))?;
        let release = file_name(&vmlinuz).trim_start_matches("vmlinuz-").to_owned();
        copy(&vmlinuz, &made.join("vmlinuz"))?;
        let order = Modules::of(&tree.join("lib/modules").join(&release))?.keep(&made)?;
        write(&made.join("order"), &order)?;
        write(&made.join("wanted"), &MODULES.join("\n"))?;
        // Last, since it is what tells that all is there.
        write(&made.join("release"), &release)?;
        let _ = fs::remove_dir_all(&place);
        fs::rename(&made, &place).map_err(LabError::io(place.display().to_string()))?;
        self.kernel.image()
    }
}

/// The name with the greatest version of those that are images for clouds.
fn newest(names: &str, prefix: &str) -> Option<String> {
    let numbers = |name: &str| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    names
        .lines()
        .filter_map(|name| Some((name, name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?)))
        .max_by_key(|(_, version)| numbers(version))
        .map(|(name, _)| name.to_owned())
}

/// The modules of an unpacked package.
struct Modules {
    files: Vec<PathBuf>,
    /// What the kernel has without loading it.
    built_in: String,
    order: Vec<String>,
}

impl Modules {
    fn of(folder: &Path) -> Result<Modules, LabError> {
        let mut files = Vec::new();
        find_files(&folder.join("kernel"), &mut files)?;
        let path = folder.join("modules.builtin");
        let built_in = fs::read_to_string(&path).map_err(LabError::io(path.display().to_string()))?;
        Ok(Modules { files, built_in, order: Vec::new() })
    }

    /// Copies what is wanted into `into`, unpacked, and tells the order to load it in.
    fn keep(mut self, into: &Path) -> Result<String, LabError> {
        let mut seen = BTreeSet::new();
        for name in MODULES {
            self.add(name, into, &mut seen)?;
        }
        Ok(self.order.iter().map(|name| format!("{name}\n")).collect())
    }

    /// Keeps a module after all that it depends on.
    fn add(&mut self, name: &str, into: &Path, seen: &mut BTreeSet<String>) -> Result<(), LabError> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(file) = self.files.iter().find(|file| module_name(file) == name).cloned() else {
            let is_built_in = self.built_in.lines().any(|line| module_name(Path::new(line)) == name);
            let absent = || LabError::Unreadable { what: "a module in the package", text: name.to_owned() };
            return is_built_in.then_some(()).ok_or_else(absent);
        };
        let kept = format!("{name}.ko");
        let to = into.join(&kept);
        if file.extension() == Some(OsStr::new("xz")) {
            let script = format!("busybox xzcat '{}' > '{}'", file.display(), to.display());
            run_checked(Command::new("sh").args(["-c", &script]), LIMIT)?;
        } else {
            copy(&file, &to)?;
        }
        let bytes = fs::read(&to).map_err(LabError::io(to.display().to_string()))?;
        for needed in dependencies(&bytes) {
            self.add(&needed, into, seen)?;
        }
        self.order.push(kept);
        Ok(())
    }
}

/// A module's name as the kernel knows it, where `-` and `_` are one.
fn module_name(file: &Path) -> String {
    file_name(file).split('.').next().unwrap_or_default().replace('-', "_")
}

/// What the `.modinfo` of a module says that it depends on.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"depends=";
    module
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(FIELD))
        .map(|value| String::from_utf8_lossy(value).replace('-', "_"))
        .into_iter()
        .flat_map(|value| value.split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect()
}

fn find_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), LabError> {
    let failed = || LabError::io(folder.display().to_string());
    for entry in fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.is_dir() { find_files(&path, into)? } else { into.push(path) }
    }
    Ok(())
}

pub(super) fn only_file(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf, LabError> {
    let entries = fs::read_dir(folder).map_err(LabError::io(folder.display().to_string()))?;
    let found = entries.flatten().map(|entry| entry.path()).find(|path| is_it(&file_name(path)));
    found.ok_or_else(|| LabError::Unreadable { what: "the downloaded package", text: folder.display().to_string() })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<(), LabError> {
    fs::copy(from, to).map(drop).map_err(LabError::io(to.display().to_string()))
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(LabError::io(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_made_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        let image = |wanted: &str| Image::of(folder.path().to_owned(), wanted);
        for (name, text) in
            [("vmlinuz", "MZ"), ("order", ""), ("wanted", "CONFIG_WIREGUARD=y\n"), ("sizes", "with 4 3 2 1\n")]
        {
            assert!(image("CONFIG_WIREGUARD=y\n").is_none(), "without {name}");
            write(&folder.path().join(name), text).unwrap();
        }
        assert!(image("CONFIG_WIREGUARD=y\n").is_none(), "without its release");
        write(&folder.path().join("release"), "6.12.1-built-in\n").unwrap();
        let found = image("CONFIG_WIREGUARD=y\n").unwrap();
        assert_eq!((found.release.as_str(), found.sizes), ("6.12.1-built-in", None), "sizes that are cut off");
        assert!(found.modules().unwrap().is_empty());
        assert!(image("CONFIG_WIREGUARD=y\nCONFIG_SMP=y\n").is_none(), "one of another configuration");
    }

    #[test]
    fn finds_the_newest() {
        let names = "linux-image-6.12.9+deb12-cloud-amd64-unsigned\n\
                     linux-image-6.12.90+deb12-cloud-amd64-unsigned\n\
                     linux-image-6.12.90+deb12.1-cloud-amd64-unsigned\n\
                     linux-image-6.12.91+deb12-cloud-amd64-dbg\n\
                     linux-image-6.12.92+deb12-amd64-unsigned\n";
        let found = newest(names, "linux-image-6.12.");
        assert_eq!(found.as_deref(), Some("linux-image-6.12.90+deb12.1-cloud-amd64-unsigned"));
        assert_eq!(newest(names, "linux-image-6.1."), None);
        let old = "linux-image-6.1.0-9-cloud-amd64-unsigned\nlinux-image-6.1.0-10-cloud-amd64-unsigned\n";
        assert_eq!(newest(old, "linux-image-6.1.").as_deref(), Some("linux-image-6.1.0-10-cloud-amd64-unsigned"));
    }

    #[test]
    fn reads_what_a_module_needs() {
        let module = b"\x7fELF\0license=GPL\0__depends=x\0depends=libchacha,curve25519-x86_64\0name=wireguard\0";
        assert_eq!(dependencies(module), ["libchacha", "curve25519_x86_64"]);
        assert!(dependencies(b"\0depends=\0name=udp_tunnel\0").is_empty());
        assert_eq!(module_name(Path::new("a/curve25519-x86_64.ko.xz")), "curve25519_x86_64");
    }
}

//! `strip`, `export` and `import`: what they print and write, and what they leave alone.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const WIRELOOM: &str = env!("CARGO_BIN_EXE_wireloom");
const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A file that each format can say.
fn text() -> String {
    format!(
        "[Interface]\nAddress = 10.0.0.2/24\nDNS = 10.0.0.1\nDNS = corp.example\nMTU = 1380\nListenPort = 51820\nPrivateKey = {SECRET}\n\n\
         [Peer]\nPublicKey = {KEY}\nPresharedKey = {SECRET}\nAllowedIPs = 10.9.0.0/16, 192.0.2.0/24\nEndpoint = vpn.example.com:51820\n\
         PersistentKeepalive = 25\n"
    )
}

fn run(program: &str, words: &[&str], folder: &Path) -> Output {
    Command::new(program).args(words).current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(folder: &TempDir, name: &str) -> u32 {
    fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_is_stripped_is_what_wg_quick_strips() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        text(),
        String::new(),
        "\n\n".into(),
        "[Interface]\nMTU=1".into(),
        format!(
            "# a\n  [Interface] # b\n\tlistenport = 7 # c\naddress=1\n#Address = 2\n\n[peer]\nPublicKey={KEY}\nAllowedIPs = ::/0\n  \n[Interface]\nPostUp = a; b"
        ),
    ] {
        write(&folder, "wg0.conf", &text);
        let theirs = run("wg-quick", &["strip", "./wg0.conf"], folder.path());
        let ours = run(WIRELOOM, &["strip", "./wg0.conf"], folder.path());
        assert!(theirs.status.success() && ours.status.success(), "{}{}", stderr(&theirs), stderr(&ours));
        assert_eq!(stdout(&ours), stdout(&theirs), "{text:?}");
    }
    let missing = run(WIRELOOM, &["strip", "./wg1.conf"], folder.path());
    assert!(
        !missing.status.success() && stderr(&missing).contains("there is no file ./wg1.conf"),
        "{}",
        stderr(&missing)
    );
}

#[test]
fn what_is_exported_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "wg0.conf", &text());
    let check = |words: &[&str], told: &str| {
        let output = run(WIRELOOM, words, folder.path());
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), told, "{words:?}");
        stdout(&output)
    };
    let written = check(&["export", "--format", "networkd", "./wg0.conf", "--output", "out"], "");
    assert_eq!(written, "out/50-wg0.netdev\nout/50-wg0.network\n");
    let written = check(&["export", "--format", "networkmanager", "./wg0.conf", "--output", "out"], "");
    assert_eq!(written, "out/wg0.nmconnection\n");
    let is_there = fs::read_to_string("/etc/group").unwrap().lines().any(|line| line.starts_with("systemd-network:"));
    let modes =
        ["50-wg0.netdev", "50-wg0.network", "wg0.nmconnection"].map(|name| mode(&folder, &format!("out/{name}")));
    assert_eq!(modes, [if is_there { 0o640 } else { 0o600 }, 0o644, 0o600]);
    for files in [
        &["out/50-wg0.netdev", "out/50-wg0.network"][..],
        &["out/50-wg0.network", "out/50-wg0.netdev"],
        &["out/wg0.nmconnection"],
    ] {
        let printed = check(&[&["import"], files].concat(), "");
        assert_eq!(printed, text().replace("10.0.0.1\nDNS = ", "10.0.0.1, "), "{files:?}");
    }
    let written = check(&["import", "out/wg0.nmconnection", "--output", "out"], "");
    assert_eq!((written.as_str(), mode(&folder, "out/wg0.conf")), ("out/wg0.conf\n", 0o600));
    // On standard output both files of networkd are there, keys and all.
    let printed = check(&["export", "--format", "networkd", "./wg0.conf"], "");
    assert!(printed.starts_with("# 50-wg0.netdev\n[NetDev]\n") && printed.contains("\n# 50-wg0.network\n[Match]\n"));
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "wg0.conf", &text());
    fs::create_dir(folder.path().join("out")).unwrap();
    write(&folder, "out/50-wg0.network", "mine");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), folder.path().join("out/wg0.nmconnection")).unwrap();
    let refused = |words: &[&str], told: &str| {
        let output = run(WIRELOOM, words, folder.path());
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), format!("wireloom: {told}\n")));
    };
    let there = "is there already, expected another place or --force";
    refused(
        &["export", "--format", "networkd", "./wg0.conf", "--output", "out"],
        &format!("out/50-wg0.network {there}"),
    );
    assert!(!folder.path().join("out/50-wg0.netdev").exists());
    let nm = ["export", "--format", "networkmanager", "./wg0.conf", "--output", "out"];
    refused(&nm, &format!("out/wg0.nmconnection {there}"));
    assert!(!folder.path().join("elsewhere").exists());
    let forced = run(WIRELOOM, &[&nm[..], &["--force"]].concat(), folder.path());
    assert!(forced.status.success(), "{}", stderr(&forced));
    // The link went, and not what it led to.
    assert!(!folder.path().join("elsewhere").exists() && mode(&folder, "out/wg0.nmconnection") == 0o600);
    refused(&["import", "out/wg0.nmconnection", "--output", "wg0.conf"], &format!("wg0.conf {there}"));
    assert_eq!(fs::read_to_string(folder.path().join("wg0.conf")).unwrap(), text());
}

#[test]
fn what_is_wrong_and_what_is_lost_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.netdev", "[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey=x\n");
    write(
        &folder,
        "b.netdev",
        &format!("[NetDev]\nName=wg0\nKind=wireguard\nMode=x\n[WireGuard]\nPrivateKey={SECRET}\n"),
    );
    write(&folder, "b.network", "[Match]\nName=wg0\n[Network]\nDHCP=yes\n");
    write(&folder, "c.txt", "");
    let told = |words: &[&str]| stderr(&run(WIRELOOM, words, folder.path()));
    let key = "the private key is not a key, expected 44 characters of base64 as `wg genkey` prints them";
    assert_eq!(told(&["import", "a.netdev"]), format!("wireloom: a.netdev:5: {key}\n"));
    assert_eq!(
        told(&["import", "no.netdev"]),
        "wireloom: cannot read no.netdev: No such file or directory (os error 2)\n"
    );
    let none = "has no counterpart in wg-quick";
    assert_eq!(
        told(&["import", "b.netdev", "b.network"]),
        format!(
            "wireloom: b.network:4: 'DHCP' of ['Network'] {none}\nwireloom: b.netdev:4: 'Mode' of ['NetDev'] {none}\n"
        )
    );
    // The other part is found beside it, or asked for.
    assert!(
        told(&["import", "b.netdev"]).starts_with("wireloom: b.network: read as well\nwireloom: b.network:4: 'DHCP'")
    );
    fs::remove_file(folder.path().join("b.network")).unwrap();
    assert_eq!(
        told(&["import", "b.netdev"]),
        format!(
            "wireloom: b.netdev: without its .network there are no addresses, expected that as another argument\n\
             wireloom: b.netdev:4: 'Mode' of ['NetDev'] {none}\n"
        )
    );
    for files in [&["import", "c.txt"][..], &["import", "b.netdev", "c.txt"]] {
        assert_eq!(
            told(files),
            "wireloom: c.txt is not to be imported, expected a .netdev with its .network, or a .nmconnection\n"
        );
    }
    write(&folder, "wg0.conf", &format!("[Interface]\nPrivateKey = {SECRET}\nPostUp = echo %i\nSaveConfig = true\n"));
    assert_eq!(
        told(&["export", "--format", "networkmanager", "./wg0.conf"]),
        "wireloom: ./wg0.conf: PostUp = 'echo %i': NetworkManager runs no commands\n\
         wireloom: ./wg0.conf: SaveConfig = true: NetworkManager never writes to its files\n"
            .replace("./wg0.conf", folder.path().canonicalize().unwrap().join("wg0.conf").to_str().unwrap())
    );
}

//! wg-quick's files: what is ours of them, what is the device's, and what is refused.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use config::file;
use config::quick::{self, Engine, KernelTables, Quick, Table, expand};
use config::value::NoServices;
use proptest::prelude::*;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn parse(text: &str) -> Quick {
    quick::parse(text.as_bytes(), &NoServices, &KernelTables).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    match quick::parse(text.as_bytes(), &NoServices, &KernelTables) {
        Ok(_) => panic!("not refused: {text}"),
        Err(error) => error.to_string(),
    }
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(T::to_string).collect()
}

#[test]
fn an_engine_is_read_from_a_comment_that_says_nothing_else() {
    let engine = |lines: &str| parse(&format!("[Interface]\n{lines}\n[Peer]\nPublicKey = {KEY}\n")).engine;
    for (line, expected) in [
        ("# Engine = ebpf", Some(Engine::Ebpf)),
        ("#engine=Userspace # the default", Some(Engine::Userspace)),
        ("\t#\tENGINE = kernel ", Some(Engine::Kernel)),
        ("# Engine = ebpf\n# Engine = auto", Some(Engine::Auto)),
        ("## Engine = nothing", None),
        ("# The Engine = ebpf", None),
        ("# Engine: ebpf", None),
        ("MTU = 1400 # Engine = ebpf", None),
    ] {
        assert_eq!(engine(line), expected, "{line}");
    }
    assert_eq!(parse(&format!("[Interface]\n[Peer]\n# Engine = steam\nPublicKey = {KEY}\n")).engine, None);
    let told = refusal("[Interface]\n# Engine = steam\n");
    assert!(told.starts_with("2: ") && told.contains("expected userspace, ebpf, kernel or auto"), "{told}");
    // To others it is the comment that it looks like.
    assert_eq!(quick::strip(b"[Interface]\n# Engine = ebpf\nMTU = 1400\n")[..], *b"[Interface]\n# Engine = ebpf\n\n");
}

#[test]
fn a_whole_file_is_read() {
    let text = format!(
        "# a laptop\n[Interface]\naddress = 10.0.0.2/24,fd00::2/64 10.1.0.1\nAddress=192.0.2.9/255.255.255.252 # old\nDNS = 10.0.0.1, fd00::1, corp.example ~lan\n\
         MTU = 1380\nTable = 0x2a\nListenPort = 51820\nPreUp = echo %i; echo %i up # gone\nPostUp = a\nPostUp = b = c\nPreDown = d\nPostDown = e\n\
         SaveConfig = TRUE\n\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = 0.0.0.0/0\n[ Interface ]\nFwMark = 7\nMTU = 1381"
    );
    let quick = parse(&text);
    assert_eq!(texts(&quick.addresses), ["10.0.0.2/24", "fd00::2/64", "10.1.0.1/32", "192.0.2.9/30"]);
    assert_eq!(texts(&quick.dns), ["10.0.0.1", "fd00::1"]);
    assert_eq!(quick.search, ["corp.example", "~lan"]);
    assert_eq!((quick.mtu, quick.table, quick.save_config), (Some(1381), Table::Number(42), true));
    assert_eq!(expand(&quick.pre_up[0], "wg0"), "echo wg0; echo wg0 up");
    assert_eq!(
        (quick.post_up, quick.pre_down, quick.post_down),
        (vec!["a".into(), "b = c".into()], vec!["d".into()], vec!["e".into()])
    );
    assert_eq!((quick.device.listen_port, quick.device.fwmark, quick.device.peers.len()), (Some(51820), Some(7), 1));
    assert!(quick.warnings.is_empty());
}

#[test]
fn tables_have_names() {
    let table = |value: &str| parse(&format!("[Interface]\nTable = {value}")).table;
    assert_eq!(
        [table("auto"), table("Off"), table("main"), table("1")],
        [Table::Auto, Table::Off, Table::Number(254), Table::Number(1)]
    );
    assert_eq!(parse("[Interface]").table, Table::Auto);
}

#[test]
fn an_mtu_that_keeps_ipv6_away_is_refused_where_there_is_any() {
    let check = |mtu: u32, interface: &str, allowed: &str| {
        let text = format!("[Interface]\n{interface}\nMTU = {mtu}\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = {allowed}");
        parse(&text).check().map_err(|error| error.to_string())
    };
    for (interface, allowed) in [("Address = 10.0.0.1, fd00::1", "10.0.0.2"), ("Address = 10.0.0.1", "0.0.0.0/0, ::/0")]
    {
        let why = check(1279, interface, allowed).unwrap_err();
        assert!(why.contains("line 3") || why.starts_with("3"), "{why}");
        assert!(why.contains("MTU 1279 is too small for IPv6, expected 1280 or more"), "{why}");
        assert_eq!(check(1280, interface, allowed), Ok(()));
    }
    assert_eq!(check(68, "Address = 10.0.0.1", "0.0.0.0/0"), Ok(()));
    assert_eq!(check(68, "Table = off", "::/0"), Ok(()), "no routes");
}

#[test]
fn an_empty_value_is_none_and_a_warning() {
    let quick = parse("[Interface]\nDNS =\nTable = # none\nMTU=1400\n");
    let lines: Vec<_> = quick.warnings.iter().map(|warning| (warning.line, warning.to_string())).collect();
    assert_eq!(lines[0], (2, "DNS has no value, and is as if it were not there".to_owned()));
    assert_eq!((lines.len(), lines[1].0, quick.table, quick.mtu), (2, 3, Table::Auto, Some(1400)));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let wrong = [
        ("[Interface]\nAddress = 10.0.0.1/33", "2: address '10.0.0.1/33'"),
        ("[Interface]\n\nAddress = 10.0.0.1/255.0.255.0", "3: address '10.0.0.1/255.0.255.0'"),
        ("[Interface]\nAddress = vpn", "2: address 'vpn'"),
        ("[Interface]\nDNS = 10.0.0", "2: DNS server '10.0.0'"),
        ("[Interface]\nDNS = fe80::1%eth0", "2: DNS server 'fe80::1%eth0'"),
        ("[Interface]\nDNS = 10.0.0.1, $(reboot)", "2: search domain '$(reboot)'"),
        ("[Interface]\nDNS = -h", "2: search domain '-h'"),
        ("[Interface]\nMTU = 67", "2: MTU '67'"),
        ("[Interface]\nMTU = 65536", "2: MTU '65536'"),
        ("[Interface]\nTable = 0", "2: table '0'"),
        ("[Interface]\nTable = vpn", "2: table 'vpn'"),
        ("[Interface]\nSaveConfig = yes", "2: SaveConfig is 'yes'"),
        ("[Interface]\nMTU", "2: a line that is neither"),
        ("[Interface]\nMTU = 1400\nAddress = 10.0.0.1/24\nPrivateKey = x\n", "4: the private key is"),
        ("MTU = 1400", "1: key 'MTU' stands before any section"),
        ("[Interface]\n[Peer]\nMTU = 1400", "3: key 'MTU' is unknown in [Peer]"),
        (
            "[Interface]\nAddres = 10.0.0.1",
            "2: key 'Addres' is unknown in [Interface], expected PrivateKey, ListenPort, FwMark, Address, DNS, MTU, Table,",
        ),
    ];
    for (text, expected) in wrong {
        let told = refusal(text);
        assert!(told.starts_with(expected), "{told}");
        assert!(told.contains("expected") || text.contains("PrivateKey"), "{told}");
    }
}

#[test]
fn what_is_stripped_is_the_devices() {
    let text = format!(
        "\n[Interface] # mine\n  ListenPort = 7 \nMTU = 1400\n# Address = 1\n[Peer]\n\tPublicKey={KEY}\r\nMTU = 3"
    );
    let stripped =
        format!("\n[Interface] # mine\nListenPort = 7\n# Address = 1\n[Peer]\nPublicKey={KEY}\r\nMTU = 3\n\n");
    assert_eq!(String::from_utf8(quick::strip(text.as_bytes()).to_vec()).unwrap(), stripped);
    assert_eq!(**quick::strip(b"[Interface]\nMTU=1\n"), *b"[Interface]\n\n");
    assert_eq!(**quick::strip(b""), *b"\n");
    // A NUL is as if it were not there, in a key as well.
    assert_eq!(**quick::strip(b"[Inter\0face]\nPre\0Up=x\n\0ListenPort=1\n"), *b"[Interface]\nListenPort=1\n\n");
}

/// A line that stands in such a file, or nearly.
fn line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "[Interface]".to_owned(),
        "[Peer]".to_owned(),
        format!("PublicKey = {KEY}"),
        format!("PrivateKey={KEY}#"),
        "AllowedIPs = 10.0.0.0/8".to_owned(),
        "Address = 10.0.0.1/8".to_owned(),
        "DNS=1.1.1.1,x".to_owned(),
        "MTU = 1400".to_owned(),
        "Table = off".to_owned(),
        "PostUp = true".to_owned(),
        "SaveConfig = true".to_owned(),
        String::new(),
    ]);
    prop_oneof![8 => known, 1 => "(Address|DNS|MTU|Table|SaveConfig)? ?=?[ -~é]{0,12}"]
}

proptest! {
    #[test]
    fn any_lines_are_a_file_or_one_line_of_error(lines in prop::collection::vec(line(), 0..12)) {
        let text = lines.join("\n");
        match quick::parse(text.as_bytes(), &NoServices, &KernelTables) {
            Ok(quick) => {
                // The device's part is what is left of it, in either way.
                let stripped = file::parse(&quick::strip(text.as_bytes()), &NoServices);
                prop_assert!(stripped.is_ok_and(|it| it.peers.len() == quick.device.peers.len() && it.listen_port == quick.device.listen_port));
            }
            Err(error) => {
                prop_assert!(error.line >= 1 && error.line <= lines.len().max(1), "{}", error);
                prop_assert!(!error.to_string().chars().any(char::is_control), "{}", error);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = quick::parse(&bytes, &NoServices, &KernelTables);
        let _ = quick::strip(&bytes);
    }
}

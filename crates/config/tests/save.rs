//! What is saved is what runs, with the comments of the file.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use common::{Links, device};
use config::device::Device;
use config::quick::{self, Address, KernelTables};
use config::save::{Running, Saved, save};
use config::show;
use config::value::NoServices;
use proptest::prelude::*;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

fn saved(old: &str, addresses: &[Address], device: &Device) -> Saved {
    let quick =
        quick::parse(old.as_bytes(), &NoServices, &KernelTables).unwrap_or_else(|error| panic!("{error}: {old}"));
    save(old.as_bytes(), &quick, &Running { addresses, mtu: 1420, device, zones: &Links }).unwrap()
}

fn text(saved: &Saved) -> String {
    String::from_utf8(saved.text.to_vec()).unwrap()
}

/// The device that a text is about.
fn running(text: &str) -> Device {
    use config::device::{AllowedIpChange, Peer};
    let file = config::file::parse(text.as_bytes(), &NoServices).unwrap();
    let peers = file.peers.into_iter().map(|from| {
        let mut peer = Peer::new(from.public_key);
        peer.allowed_ips = from
            .allowed_ips
            .iter()
            .map(|change| match change {
                AllowedIpChange::Add(cidr) | AllowedIpChange::Remove(cidr) => *cidr,
            })
            .collect();
        peer
    });
    Device {
        public_key: file.private_key.as_ref().and_then(Option::as_ref).map(noise::PrivateKey::public),
        private_key: file.private_key.flatten(),
        listen_port: file.listen_port.unwrap_or(0),
        fwmark: 0,
        peers: peers.collect(),
    }
}

#[test]
fn comments_stay_where_they_belong() {
    let old = format!(
        "# The laptop's tunnel.\n\n# mine\n[Interface] # first\nAddress = 10.0.0.2/24 # of the office\nSaveConfig = true\n# two hooks\nPostUp = a\nPostUp = b # second\n\
         Table = main\nDNS = 10.0.0.1, corp.example\n# PrivateKey = old\nPrivateKey = {SECRET}\n# below\n\n# Alice\n[Peer]\nPublicKey = {KEY} # her key\n\
         # her network\nAllowedIPs = 10.0.0.0/8\n\n# Bob\n[Peer]\n#Endpoint = 192.0.2.1:1\nPublicKey = {OTHER}\nPersistentKeepalive = 5 # gone\n# the end"
    );
    let addresses = [Address { ip: "10.0.0.3".parse().unwrap(), len: 24 }];
    let device = running(&format!(
        "[Interface]\nPrivateKey = {SECRET}\nListenPort = 7\n[Peer]\nPublicKey = {OTHER}\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.1.0.0/16\n"
    ));
    let both = saved(&old, &addresses, &device);
    let expected = format!(
        "# The laptop's tunnel.\n# mine\n[Interface] # first\nAddress = 10.0.0.3/24 # of the office\n\
         DNS = 10.0.0.1\nDNS = corp.example\nTable = main\nSaveConfig = true\n# two hooks\nPostUp = a\nPostUp = b # second\nListenPort = 7\n# PrivateKey = old\n\
         PrivateKey = {SECRET}\n# below\n\n# Bob\n[Peer]\n#Endpoint = 192.0.2.1:1\nPublicKey = {OTHER}\n# gone\n# the end\n\n# Alice\n[Peer]\nPublicKey = {KEY} # her key\n\
         # her network\nAllowedIPs = 10.1.0.0/16\n"
    );
    assert_eq!((text(&both), both.lost), (expected.clone(), 0));
    // From then on nothing moves any more.
    assert_eq!(text(&saved(&expected, &addresses, &device)), expected);
    let without = saved(
        &expected,
        &addresses,
        &running(&format!("[Interface]\nPrivateKey = {SECRET}\n[Peer]\nPublicKey = {KEY}\n")),
    );
    assert_eq!(without.lost, 4);
    assert!(!text(&without).contains("Bob") && text(&without).ends_with("# her network\n"), "{}", text(&without));
}

#[test]
fn without_comments_it_is_what_wg_quick_writes() {
    let old = "[Interface]\nMTU = 1300\nTable = auto\nPostDown = d\nPreUp = a\nPreDown = c\nPostUp = b\n";
    let device = running(&format!("[Interface]\nPrivateKey = {SECRET}\n"));
    let expected = format!(
        "[Interface]\nMTU = 1420\nTable = auto\nPreUp = a\nPostUp = b\nPreDown = c\nPostDown = d\nPrivateKey = {SECRET}\n"
    );
    assert_eq!(text(&saved(old, &[], &device)), expected);
}

fn line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "[Interface]".to_owned(),
        "[Peer] # x".to_owned(),
        format!("PublicKey = {KEY} # y"),
        format!("PublicKey = {OTHER}"),
        "# a".to_owned(),
        "#".to_owned(),
        "AllowedIPs = 10.0.0.0/8 # z".to_owned(),
        "Address = 10.0.0.1/8".to_owned(),
        "PostUp = true # t".to_owned(),
        String::new(),
    ]);
    prop_oneof![8 => known, 1 => "# ?[ -~é]{0,12}"]
}

proptest! {
    #[test]
    fn what_is_saved_is_what_runs(mut device in device(), lines in prop::collection::vec(line(), 0..16)) {
        for peer in &mut device.0.peers {
            (peer.last_handshake, peer.rx_bytes, peer.tx_bytes) = (None, 0, 0);
        }
        let old = lines.join("\n");
        // What is no file has comments, too.
        let quick = quick::parse(old.as_bytes(), &NoServices, &KernelTables).unwrap_or_default();
        let saved = save(old.as_bytes(), &quick, &Running { addresses: &[], mtu: 1420, device: &device.0, zones: &Links }).unwrap();
        let mut plain = Vec::new();
        show::conf(&mut plain, &device.0, &Links).unwrap();
        let settings = |text: &[u8]| {
            let lines = text.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b'#').next().unwrap().trim_ascii().to_vec());
            lines.filter(|line| !line.is_empty() && !line.starts_with(b"PostUp")).collect::<Vec<_>>()
        };
        prop_assert_eq!(settings(&saved.text), settings(&plain));
        // No comment is gone that is not told.
        let comments = |text: &[u8]| text.split(|&b| b == b'\n').filter(|line| line.contains(&b'#')).count();
        let homeless = lines.iter().take_while(|line| !line.starts_with('[')).count();
        let kept = comments(&saved.text) + saved.lost;
        if lines.iter().any(|line| line.starts_with('[')) && homeless == 0 {
            prop_assert_eq!(kept, comments(old.as_bytes()), "{}\n---\n{}", old, String::from_utf8_lossy(&saved.text));
        }
    }
}

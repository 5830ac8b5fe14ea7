//! The files of systemd-networkd and NetworkManager: whatever is read of them can be printed as wg-quick's, and goes out again.

#![no_main]

use config::networkd::{self, Network};
use config::quick::{self, KernelTables};
use config::value::NoServices;
use config::{nm, print};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // Both files of networkd, with a line of dashes between them.
    const BETWEEN: &[u8] = b"\n----\n";
    let at = input.windows(BETWEEN.len()).position(|window| window == BETWEEN);
    let (netdev, network) = at.map_or((input, &b""[..]), |at| (&input[..at], &input[at + BETWEEN.len()..]));
    let network = Network::parse(network, &KernelTables).ok();
    let imported = [networkd::import(netdev, network, &NoServices, &KernelTables), nm::import(input, &NoServices)];
    for imported in imported.into_iter().flatten() {
        for lost in &imported.lost {
            assert!(!lost.to_string().contains(char::is_control));
        }
        let printed = print::whole(&imported.quick);
        let again = quick::parse(printed.as_bytes(), &NoServices, &KernelTables).expect("what was printed is a file");
        assert_eq!(*printed, *print::whole(&again));
        let exported = networkd::export(&imported.interface, &imported.quick);
        let network = Network::parse(exported.files[1].text.as_bytes(), &KernelTables).expect("what was exported");
        let back = networkd::import(exported.files[0].text.as_bytes(), Some(network), &NoServices, &KernelTables);
        assert_eq!(back.expect("what was exported").interface, imported.interface);
        let exported = nm::export(&imported.interface, &imported.quick);
        let back = nm::import(exported.files[0].text.as_bytes(), &NoServices);
        assert_eq!(back.expect("what was exported").interface, imported.interface);
    }
});

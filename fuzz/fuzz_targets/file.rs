//! Configuration files and keys.

#![no_main]

use config::value::NoServices;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = config::file::parse(input, &NoServices);
    let quick = config::quick::parse(input, &NoServices, &config::quick::KernelTables);
    // What is stripped is what the device's part of a good file says.
    if quick.is_ok() {
        assert!(config::file::parse(&config::quick::strip(input), &NoServices).is_ok());
    }
    let _ = config::key::from_base64::<noise::PrivateKey>(input);
    let _ = config::key::from_hex::<noise::PublicKey>(input);
});

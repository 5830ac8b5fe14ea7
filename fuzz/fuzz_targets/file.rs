//! Configuration files and keys.

#![no_main]

use config::value::NoServices;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = config::file::parse(input, &NoServices);
    let _ = config::key::from_base64::<noise::PrivateKey>(input);
    let _ = config::key::from_hex::<noise::PublicKey>(input);
});

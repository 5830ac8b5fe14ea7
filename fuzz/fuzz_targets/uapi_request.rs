//! What a client of the control socket sends.

#![no_main]

use config::uapi::RequestReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut reader = RequestReader::new(input);
    loop {
        match reader.read(&config::address::NumericZones) {
            Ok(Some(_)) => (),
            Ok(None) => break,
            Err(error) if error.ends_connection() => break,
            Err(_) => (),
        }
    }
});

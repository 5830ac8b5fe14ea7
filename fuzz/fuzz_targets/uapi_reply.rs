//! What a device answers on its control socket.

#![no_main]

use config::uapi::ReplyReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = ReplyReader::new(input).get(&config::address::NumericZones);
    let _ = ReplyReader::new(input).set();
    let _ = ReplyReader::new(input).drops();
    let _ = ReplyReader::new(input).stats();
});

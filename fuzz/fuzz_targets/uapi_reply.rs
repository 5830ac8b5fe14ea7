//! What a device answers on its control socket.

#![no_main]

use config::uapi::{EventReader, ReplyReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = ReplyReader::new(input).get(&config::address::NumericZones);
    let _ = ReplyReader::new(input).set();
    let _ = EventReader::new(input).answer();
    let mut events = EventReader::new(input);
    while let Ok(Some(_)) = events.event() {}
    let _ = ReplyReader::new(input).drops();
    let _ = ReplyReader::new(input).stats();
});

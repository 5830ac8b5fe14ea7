//! What whoever reaches the metrics' port says: the head of a request.

#![no_main]

// A parser of the binary's crate.
#[path = "../../crates/wireloom/src/metrics/http.rs"]
#[allow(dead_code)]
mod http;

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;

/// A stream that hands out a byte at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(1);
        self.0.read(&mut out[..len])
    }
}

fuzz_target!(|input: &[u8]| {
    let (mut stream, mut slow) = (input, Slow(input));
    let read = http::read(&mut stream).map_err(|error| error.kind());
    // Whoever sends it byte by byte says the same.
    assert_eq!(read, http::read(&mut slow).map_err(|error| error.kind()));
    match &read {
        // It broke off; and no more than a head is ever read.
        Err(kind) => assert_eq!((*kind, input.len() < http::HEAD_MAX), (io::ErrorKind::UnexpectedEof, true)),
        Ok(Err(status)) => {
            let mut reply = Vec::new();
            assert!(http::refuse(&mut reply, *status, "why").is_ok());
            assert!(reply.starts_with(b"HTTP/1.1 4"));
        }
        Ok(Ok(request)) => {
            assert!(!request.path.contains(['?', ' ', '\r', '\n']) && !request.query.contains([' ', '\r', '\n']));
            assert!(request.path.len() + request.query.len() < input.len());
            // Written plainly it asks for the same.
            let method = if request.head_only { "HEAD" } else { "GET" };
            let version = u8::from(request.chunks);
            let plain = format!("{method} {}?{} HTTP/1.{version}\r\n\r\n", request.path, request.query);
            assert_eq!(http::parse(plain.as_bytes()), Ok(Some(request.clone())), "{plain:?}");
        }
    }
});

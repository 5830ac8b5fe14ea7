//! What is counted of handshakes: messages that were sent and taken, by type, and those that got no answer.
//!
//! A message that is refused is counted as dropped, by reason (docs/drops.md), and not here.

use noise::message::MessageType;

/// Messages by type.
#[derive(Clone, Copy, Default)]
pub(crate) struct Messages {
    initiations: u64,
    responses: u64,
    cookies: u64,
}

impl Messages {
    pub(crate) fn count(&mut self, message: &[u8]) {
        match MessageType::of(message) {
            Some(MessageType::Initiation) => self.initiations += 1,
            Some(MessageType::Response) => self.responses += 1,
            Some(MessageType::CookieReply) => self.cookies += 1,
            Some(MessageType::Transport) | None => (),
        }
    }
}

/// The counts of a device.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    /// Sent, tries that went unanswered included.
    pub(crate) sent: Messages,
    /// Received and found authentic.
    pub(crate) received: Messages,
    /// Handshakes or data that got no answer in time, so that another try began.
    pub(crate) unanswered: u64,
    /// Handshakes given up after 90 seconds of tries.
    pub(crate) abandoned: u64,
}

impl Told {
    /// Each count with its name.
    pub(crate) fn list(&self) -> [(&'static str, u64); 8] {
        [
            ("initiations_sent", self.sent.initiations),
            ("initiations_received", self.received.initiations),
            ("responses_sent", self.sent.responses),
            ("responses_received", self.received.responses),
            ("cookies_sent", self.sent.cookies),
            ("cookies_received", self.received.cookies),
            ("unanswered", self.unanswered),
            ("abandoned", self.abandoned),
        ]
    }
}

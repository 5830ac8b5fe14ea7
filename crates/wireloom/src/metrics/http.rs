//! As much of HTTP as it takes to be scraped: the head of a request is read, within bounds of size and time, and answered once; then the
//! connection ends.
//!
//! The head is parsed by httparse. A reply whose length is not known beforehand goes out in chunks (RFC 9112, section 7.1), so that one that
//! breaks off is known for it; to who speaks HTTP/1.0 it goes until the end of the connection.

use std::io::{self, Read, Write};

/// The longest head of a request, in bytes.
pub const HEAD_MAX: usize = 8 * 1024;
/// Most fields of a head.
const FIELDS_MAX: usize = 64;
/// Bytes of a chunk.
const CHUNK: usize = 32 * 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path, without the query.
    pub path: String,
    /// What stands behind `?`.
    pub query: String,
    /// Only the head of the reply is wanted.
    pub head_only: bool,
    /// Chunks are understood.
    pub chunks: bool,
}

/// What is answered instead of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It makes no sense.
    BadRequest,
    /// There is nothing of this name.
    NotFound,
    /// Things are read here, and nothing else.
    MethodNotAllowed,
    /// It did not come in time.
    RequestTimeout,
    /// The head is too long.
    HeadTooLarge,
    /// The interface does not answer.
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// What a head that begins with `bytes` asks for; `None` while it is not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, Status> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => (),
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Err(_) => return Err(Status::BadRequest),
    }
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Status::BadRequest);
    };
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Status::MethodNotAllowed),
    };
    // Also the form that is meant for a proxy (RFC 9112, section 3.2.2).
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // The form for a proxy may leave out the one path that there always is.
    let path = if path.is_empty() { "/" } else { path };
    Ok(Some(Request { path: path.to_owned(), query: query.to_owned(), head_only, chunks: version >= 1 }))
}

/// Reads the head of a request. The stream's reads must end in time.
pub fn read(stream: &mut impl Read) -> io::Result<Result<Request, Status>> {
    let mut head = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    loop {
        match parse(&head) {
            Ok(None) => (),
            Ok(Some(request)) => return Ok(Ok(request)),
            Err(status) => return Ok(Err(status)),
        }
        let room = piece.len().min(HEAD_MAX - head.len());
        match stream.read(&mut piece[..room]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => head.extend_from_slice(&piece[..len]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(Err(Status::RequestTimeout));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}

const COMMON: &str = "Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";

/// Answers with a status and a line that says more.
pub fn refuse(stream: &mut impl Write, status: Status, why: &str) -> io::Result<()> {
    let allow = if status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
    let text = format!(
        "HTTP/1.1 {}\r\n{allow}{COMMON}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{why}\n",
        status.line(),
        why.len() + 1
    );
    stream.write_all(text.as_bytes())
}

/// The body of a reply, as it is written. It must be finished.
pub struct Body<W> {
    stream: W,
    buffer: Vec<u8>,
    chunks: bool,
    /// Nobody wants it.
    silent: bool,
}

/// Answers, with a body of this type that is then written.
pub fn answer<W: Write>(mut stream: W, request: &Request, content_type: &str) -> io::Result<Body<W>> {
    let coding = if request.chunks { "Transfer-Encoding: chunked\r\n" } else { "" };
    let head = format!("HTTP/1.1 200 OK\r\n{COMMON}{coding}Content-Type: {content_type}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let buffer = Vec::with_capacity(CHUNK);
    Ok(Body { stream, buffer, chunks: request.chunks, silent: request.head_only })
}

impl<W: Write> Body<W> {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() || self.silent {
            self.buffer.clear();
            return Ok(());
        }
        if self.chunks {
            write!(self.stream, "{:x}\r\n", self.buffer.len())?;
            self.buffer.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the body.
    pub fn finish(mut self) -> io::Result<()> {
        self.send()?;
        if self.chunks && !self.silent {
            self.stream.write_all(b"0\r\n\r\n")?;
        }
        self.stream.flush()
    }
}

impl<W: Write> Write for Body<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > CHUNK {
            self.send()?;
        }
        let taken = bytes.len().min(CHUNK);
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(text: &str) -> Result<Option<Request>, Status> {
        parse(text.as_bytes())
    }

    #[test]
    fn what_scrapers_send_is_understood() {
        let request = asked("GET /metrics?names=mdlayher HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n").unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.query.as_str()), ("/metrics", "names=mdlayher"));
        assert!(request.chunks && !request.head_only);
        let request = asked("HEAD http://host:1/metrics HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert!(request.path == "/metrics" && request.head_only && !request.chunks);
        assert_eq!(asked("GET http://host HTTP/1.1\r\n\r\n").unwrap().unwrap().path, "/");
        let request = asked("GET http://host?names=a/b HTTP/1.1\r\n\r\n").unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.query.as_str()), ("/", "names=a/b"));
        assert_eq!(asked("GET /metrics HTTP/1.1\r\nHost: x\r\n"), Ok(None));
        assert_eq!(asked("POST /metrics HTTP/1.1\r\n\r\n"), Err(Status::MethodNotAllowed));
        assert_eq!(asked("GET /metrics HTTP/9.9\r\n\r\n"), Err(Status::BadRequest));
        assert_eq!(asked("\x16\x03\x01 no TLS here\r\n\r\n"), Err(Status::BadRequest));
        assert_eq!(
            asked(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_MAX))),
            Ok(Some(Request {
                path: format!("/{}", "x".repeat(HEAD_MAX)),
                query: String::new(),
                head_only: false,
                chunks: true
            }))
        );
        assert_eq!(asked(&format!("GET /{}", "x".repeat(HEAD_MAX))), Err(Status::HeadTooLarge));
        let fields: String = (0..=FIELDS_MAX).map(|n| format!("A{n}: b\r\n")).collect();
        assert_eq!(asked(&format!("GET / HTTP/1.1\r\n{fields}\r\n")), Err(Status::HeadTooLarge));
    }

    /// Undoes the chunks.
    fn joined(mut body: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
            let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
            assert_eq!(&body[end + 2 + len..end + 4 + len], b"\r\n");
            whole.extend(&body[end + 2..end + 2 + len]);
            body = &body[end + 4 + len..];
            if len == 0 {
                assert!(body.is_empty());
                return whole;
            }
        }
    }

    proptest! {
        #[test]
        fn any_head_is_read_within_its_bounds(bytes: Vec<u8>, pieces in "(GET|PUT|HEAD) [ -~]{0,40} HTTP/1.[01](\r\n[ -~]{0,20}){0,4}\r\n\r\n") {
            for bytes in [&bytes[..], pieces.as_bytes()] {
                // The same whether it comes at once or byte by byte.
                let mut at_once = bytes;
                let whole = read(&mut at_once);
                let mut slowly = Slow(bytes);
                let slow = read(&mut slowly);
                prop_assert_eq!(whole.ok(), slow.ok());
            }
        }

        #[test]
        fn a_body_arrives_whole(pieces in proptest::collection::vec(0_usize..70_000, 0..6), chunks: bool, head_only: bool) {
            let request = Request { path: String::new(), query: String::new(), head_only, chunks };
            let (mut sent, mut expected) = (Vec::new(), Vec::new());
            let mut body = answer(&mut sent, &request, "text/plain").unwrap();
            for (n, len) in pieces.into_iter().enumerate() {
                let piece = vec![n as u8; len];
                body.write_all(&piece).unwrap();
                expected.extend(piece);
            }
            body.finish().unwrap();
            let end = sent.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let body = &sent[end..];
            match (head_only, chunks) {
                (true, _) => prop_assert!(body.is_empty()),
                (false, true) => prop_assert_eq!(joined(body), expected),
                (false, false) => prop_assert_eq!(body, expected),
            }
        }
    }

    /// A byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = out.len().min(1);
            self.0.read(&mut out[..len])
        }
    }
}

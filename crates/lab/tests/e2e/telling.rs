//! What a running device tells: as JSON, as metrics, and on a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lab::{End, Engine, Namespace, Outer, Tap, TunnelSpec, wait_until};
use serde_json::Value;

use crate::common::{LIMIT, SOON, check_pings, spec, wait_for_ping, wireloom};
use crate::engines::{each_engine, each_engine_and_mixed, engine};
use crate::lifecycle::WITH_SOCKET;

each_engine!(
    what_is_told_is_what_happened_and_holds_no_keys,
    top_shows_what_is_true_and_gives_the_terminal_back,
    top_once_tells_what_moved_within_the_interval,
    what_is_counted_of_a_peer_is_true_whoever_moved_it,
);

each_engine_and_mixed!(what_was_lost_on_the_way_is_told);

fn program() -> String {
    wireloom().program().unwrap().display().to_string()
}

/// What `wireloom` prints on the host of an end.
#[track_caller]
fn said(end: &End, words: &[&str]) -> String {
    end.namespace().run(&program(), words).unwrap()
}

/// The one interface that `show --json` tells of.
#[track_caller]
fn told(end: &End) -> Value {
    let text = said(end, &["show", &end.daemon.interface, "--json"]);
    let mut all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(all["schema"], 1);
    all["interfaces"][0].take()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

/// A sample of the text format: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format of Prometheus and checks what its rules say: each name has its help, its type and its samples in one place, no two samples
/// are the same, counters end with `_total`, and the buckets of a histogram grow up to its count.
fn parsed(text: &str) -> Vec<Sample> {
    let (mut samples, mut types, mut seen) = (Vec::<Sample>::new(), BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line is not whole");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !types.contains_key(name), "{line}: told twice");
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
            assert_eq!(kind.0, name);
            assert!(["counter", "gauge", "histogram"].contains(&kind.1), "{line}");
            assert!(kind.1 != "counter" || name.ends_with("_total"), "{line}");
            types.insert(name.to_owned(), kind.1.to_owned());
            current = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(seen.insert(series.to_owned()), "{series} is told twice");
        let (name, rest) = series.split_once('{').unwrap();
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = parts.filter(|_| types[&current] == "histogram").unwrap_or(name);
        assert_eq!(family, current, "{line}: out of its place");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
        let mut labels = BTreeMap::new();
        let mut rest = rest.strip_suffix('}').unwrap();
        while !rest.is_empty() {
            let (label, behind) = rest.split_once("=\"").unwrap();
            let end = behind.char_indices().scan(false, |escaped, (at, c)| {
                let was = std::mem::replace(escaped, c == '\\' && !*escaped);
                Some((at, c == '"' && !was))
            });
            let end = end.filter(|(_, ends)| *ends).map(|(at, _)| at).next().unwrap();
            assert!(labels.insert(label.to_owned(), behind[..end].to_owned()).is_none());
            rest = behind[end + 1..].trim_start_matches(',');
        }
        samples.push((name.to_owned(), labels, value));
    }
    for name in types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
        let mut last: BTreeMap<Vec<String>, f64> = BTreeMap::new();
        for (part, labels, value) in &samples {
            let key: Vec<_> =
                labels.iter().filter(|(label, _)| *label != "le").map(|(_, value)| value.clone()).collect();
            if *part == format!("{name}_bucket") {
                assert!(last.insert(key, *value).is_none_or(|before| before <= *value), "{labels:?}");
            } else if *part == format!("{name}_count") {
                assert_eq!(last[&key], *value, "{labels:?}");
            }
        }
    }
    samples
}

/// The sum of the samples of this name that have these labels.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&Sample| {
        sample.0 == name && labels.iter().all(|(label, value)| sample.1.get(*label).is_some_and(|it| it == value))
    };
    let mut found = samples.iter().filter(has).peekable();
    assert!(found.peek().is_some(), "no {name} with {labels:?}");
    found.map(|sample| sample.2).sum()
}

const PORT: u16 = 9586;

/// A connection to the metrics from the host itself.
fn connect(host: &Namespace, address: &str) -> std::io::Result<TcpStream> {
    let connected = host.inside(|| TcpStream::connect_timeout(&format!("{address}:{PORT}").parse().unwrap(), LIMIT));
    let stream = connected.map_err(std::io::Error::other)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// A daemon in the foreground answers on its own socket before its metrics are there.
#[track_caller]
fn wait_for_metrics(host: &Namespace) {
    wait_until("metrics", LIMIT, || connect(host, "127.0.0.1").is_ok()).unwrap();
}

/// The answer to a request, head and body.
fn answer(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{reply:?}"));
    if !head.contains("Transfer-Encoding: chunked") {
        return (head.to_owned(), body.to_owned());
    }
    let (mut whole, mut rest) = (String::new(), body);
    loop {
        let (len, behind) = rest.split_once("\r\n").unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        whole.push_str(&behind[..len]);
        rest = behind[len..].strip_prefix("\r\n").unwrap();
        if len == 0 {
            assert_eq!(rest, "");
            return (head.to_owned(), whole);
        }
    }
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn scrape(host: &Namespace, address: &str) -> String {
    let (head, body) = answer(connect(host, address).unwrap(), SCRAPE);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    body
}

/// The file of the repository.
fn file(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words in a text that look like names of metrics.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_name = |word: &&str| word.starts_with("wireguard_") || word.starts_with("wireloom_");
    words.filter(is_name).filter(|word| !word.ends_with("_exporter")).map(str::to_owned).collect()
}

fn what_is_told_is_what_happened_and_holds_no_keys() {
    let tunnel = spec().build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let place = format!("unix:{}", path.display());
    let interface = &left.daemon.interface;
    let rules = folder.path().join("policy");
    std::fs::write(&rules, "pass out proto=icmp\ndrop in proto=tcp\n").unwrap();
    said(left, &["policy", interface, &rules.display().to_string()]);
    check_pings(left, right);
    said(left, &["attend", interface, "--metrics", &PORT.to_string(), "--metrics", &place]);

    // Once nothing moves any more, all forms tell the same.
    let mut json = Value::Null;
    let mut text = String::new();
    wait_until("two looks in a row that agree", LIMIT, || {
        let before = told(left);
        text = scrape(left.namespace(), "127.0.0.1");
        json = told(left);
        let parts = ["peers", "drops", "handshakes"];
        parts.iter().all(|part| before[part] == json[part])
    })
    .unwrap();
    let samples = parsed(&text);
    let (peer, key) = (&json["peers"][0], right.keys.public.to_string());
    assert_eq!((&json["engine"], peer["public_key"].as_str()), (&Value::from("wireloom"), Some(key.as_str())));
    let echoes = [("interface", interface.as_str()), ("number", "1"), ("rule", "pass out proto=icmp")];
    let rule = &json["policy"][0];
    assert_eq!((rule["rule"].as_str(), json["policy"].as_array().unwrap().len()), (Some("pass out proto=icmp"), 2));
    assert_eq!(sum(&samples, "wireloom_rule_packets_total", &echoes) as u64, number(&rule["packets"]));
    assert!((4..=6).contains(&number(&rule["packets"])) && number(&rule["bytes"]) >= 4 * 84, "{rule}");
    let labels = [("interface", interface.as_str()), ("public_key", key.as_str())];
    let count = |name| sum(&samples, name, &labels) as u64;
    assert_eq!(count("wireguard_sent_bytes_total"), number(&peer["tx_bytes"]));
    assert_eq!(count("wireguard_received_bytes_total"), number(&peer["rx_bytes"]));
    assert_eq!(count("wireguard_latest_handshake_seconds"), number(&peer["latest_handshake"]));
    assert_eq!(count("wireloom_peer_received_packets_total"), number(&peer["rx_packets"]));
    assert_eq!(count("wireloom_peer_expected_packets_total"), number(&peer["rx_expected_packets"]));
    let sent = samples.iter().find(|sample| sample.0 == "wireguard_sent_bytes_total").unwrap();
    assert_eq!(sent.1["allowed_ips"], format!("{}/32,{}/128", right.v4, right.v6));

    // What the workers moved and the handshakes are what the peer's counters say.
    let handshakes = &json["handshakes"];
    let of = |name: &str| number(&handshakes[name]);
    let messages = |way: &str| 148 * of(&format!("initiations_{way}")) + 92 * of(&format!("responses_{way}"));
    let moved = |way: &str| {
        let workers = json["workers"].as_array().unwrap();
        workers.iter().map(|worker| number(&worker[way]["bytes"])).sum::<u64>()
    };
    // What programs moved is not the workers'.
    let all = engine() == Engine::Userspace;
    for (way, told) in [("sent", number(&peer["tx_bytes"])), ("received", number(&peer["rx_bytes"]))] {
        let sum = moved(way) + messages(way);
        assert!(if all { sum == told } else { sum < told }, "{way}: {json}");
    }
    let direction = |way| [("interface", interface.as_str()), ("direction", way)];
    assert_eq!(sum(&samples, "wireloom_worker_bytes_total", &direction("sent")) as u64, moved("sent"));
    let received = sum(&samples, "wireloom_batch_packets_sum", &direction("received")) as u64;
    assert!(if all { received == number(&peer["rx_packets"]) } else { received <= number(&peer["rx_packets"]) });
    assert!(of("initiations_sent") + of("initiations_received") >= 1);
    assert!(sum(&samples, "wireloom_worker_busy_seconds_total", &[]) > 0.0);
    assert!(sum(&samples, "wireloom_worker_wakeups_total", &[]) > 0.0);
    let resident = sum(&samples, "wireloom_resident_memory_bytes", &[]);
    assert!((1e6..2e9).contains(&resident), "{resident}");
    assert_eq!(sum(&samples, "wireguard_peers_total", &[]), 1.0);

    // Every name is in the manual of names, and those of the dashboard are told.
    let all =
        answer(connect(left.namespace(), "127.0.0.1").unwrap(), &SCRAPE.replace("metrics", "metrics?names=mdlayher")).1;
    let told_names: BTreeSet<_> = parsed(&all).into_iter().map(|sample| sample.0).collect();
    let family = |name: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let families: BTreeSet<_> = told_names.iter().map(|name| family(name)).collect();
    let documented = file("docs/metrics.md");
    let rows = documented.lines().filter(|line| line.starts_with("| `"));
    // Some are told by the eBPF engine alone.
    let told_here = |line: &&str| !line.contains("| Of the eBPF engine alone") || json["programs"].is_object();
    let rows: BTreeSet<_> = rows.filter(told_here).map(|line| line.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(families, rows);
    let dashboard = file("contrib/grafana/wireloom.json");
    let shown: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = shown["panels"].as_array().unwrap();
    let used: BTreeSet<_> = panels.iter().flat_map(|panel| names(&panel["targets"].to_string())).collect();
    let default: BTreeSet<_> = samples.iter().map(|sample| sample.0.clone()).collect();
    assert!(used.len() > 12 && used.is_subset(&default), "{:?}", used.difference(&default).collect::<Vec<_>>());

    // No secret is in any of it, in either spelling.
    let dump = said(left, &["show", interface, "private-key"]);
    let secret = dump.trim();
    assert!(secret.len() == 44 && ![&all, &text, &json.to_string()].iter().any(|it| it.contains(secret)));
    assert_eq!(json["private_key"], "(hidden)");

    // Where others may write, somebody else's file could come to stand in its place.
    for mode in [0o777, 0o1777, 0o775] {
        let shared = folder.path().join(format!("{mode:o}"));
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(mode)).unwrap();
        let place = format!("unix:{}/socket", shared.display());
        let mut command = left.namespace().command(program());
        let refused = lab::run(command.args(["attend", interface, "--metrics", &place]), LIMIT).unwrap();
        assert_eq!((refused.status.code(), refused.stderr.lines().count()), (Some(1), 1), "{}", refused.log());
        assert!(refused.stderr.contains("which others may write to"), "{}", refused.stderr);
    }
    said(left, &["attend", interface, "--metrics", &PORT.to_string(), "--metrics", &place]);
    // The socket: for its group, too. It ends with the interface, and so does the process.
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(names(&answer(UnixStream::connect(&path).unwrap(), SCRAPE).1), names(&text));
    left.namespace().ip(&["link", "delete", interface]).unwrap();
    wait_until("the end of the metrics", SOON, || !path.exists() && connect(left.namespace(), "127.0.0.1").is_err())
        .unwrap();
}

#[test]
fn whoever_stalls_holds_up_no_scrape_and_only_this_host_is_served() {
    let namespace = Namespace::new().unwrap();
    let daemon = wireloom()
        .start_with(&namespace, |command| {
            command.args(["--metrics", ":9586"]);
        })
        .unwrap();
    wait_for_metrics(&namespace);
    namespace.ip(&["address", "add", "192.0.2.1/32", "dev", "lo"]).unwrap();
    let mut addresses = vec!["127.0.0.1"];
    addresses.extend(std::path::Path::new("/proc/net/if_inet6").exists().then_some("[::1]"));
    for address in &addresses {
        assert_eq!(sum(&parsed(&scrape(&namespace, address)), "wireguard_peers_total", &[]), 0.0);
    }
    assert!(connect(&namespace, "192.0.2.1").is_err());
    let status =
        |request: &str| answer(connect(&namespace, "127.0.0.1").unwrap(), request).0.lines().next().unwrap().to_owned();
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status("nonsense\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(
        status(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000))),
        "HTTP/1.1 431 Request Header Fields Too Large"
    );
    let (head, body) = answer(connect(&namespace, "127.0.0.1").unwrap(), "HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK") && body.is_empty(), "{head}");

    // Seven that say nothing leave room for one who does.
    let mut stalled: Vec<_> = (0..7).map(|_| connect(&namespace, "127.0.0.1").unwrap()).collect();
    scrape(&namespace, "127.0.0.1");
    stalled.push(connect(&namespace, "127.0.0.1").unwrap());
    wait_until("one too many to be turned away", SOON, || {
        let mut ninth = connect(&namespace, "127.0.0.1").unwrap();
        ninth.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        !matches!(ninth.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    })
    .unwrap();
    // In time all of them have to go.
    for mut stream in stalled {
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{reply}");
    }
    wait_until("room again", SOON, || {
        let mut stream = connect(&namespace, "127.0.0.1").unwrap();
        let mut reply = String::new();
        stream.write_all(SCRAPE.as_bytes()).is_ok()
            && stream.read_to_string(&mut reply).is_ok()
            && reply.contains("wireloom_")
    })
    .unwrap();
    drop(daemon);
}

#[test]
fn memory_is_told_of_who_runs_the_interface_and_not_of_who_made_its_socket() {
    let (namespace, interface) = (Namespace::new().unwrap(), lab::unique_interface());
    std::fs::create_dir_all("/var/run/wireguard").unwrap();
    let mut command = namespace.command("perl");
    // Who made it has gone.
    let script = WITH_SOCKET.replace("listen($socket, 16)", "fork() ? wait : do { listen($socket, 16); exit }");
    command.args(["-e", &script]).arg(lab::socket_path(&interface)).arg(program()).args(["run", "-f", &interface]);
    let _daemon = lab::Daemon::start(&mut command, &namespace, &interface).unwrap();
    // The socket is there before the daemon has taken it over.
    wait_until("the memory of the daemon", SOON, || {
        let text = namespace.run(&program(), &["show", &interface, "--json"]).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        json["interfaces"][0]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000)
    })
    .unwrap();
}

fn what_was_lost_on_the_way_is_told() {
    let tunnel = TunnelSpec { switched: true, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    wait_for_ping(left, right);
    let to = format!("udp dport {} @th,64,8 4", right.listen_port);
    let tap = Tap::on_wire(&left.port, &format!("{to} numgen inc mod 4 0"), "drop").unwrap();
    let ping = left.namespace().run("sh", &["-c", &format!("ping -c 40 -i 0.02 -W 1 {} || true", right.v4)]).unwrap();
    assert!(ping.contains("packet loss"), "{ping}");
    let lost = tap.packets().unwrap();
    assert!(lost >= 8, "{lost} of 40");
    tap.remove().unwrap();
    // Once one more has come, the gap is closed behind it.
    wait_for_ping(left, right);
    let peer = &told(right)["peers"][0];
    assert_eq!(number(&peer["rx_expected_packets"]) - number(&peer["rx_packets"]), lost, "{peer}");
    let back = &told(left)["peers"][0];
    assert_eq!(back["rx_expected_packets"], back["rx_packets"], "nothing was lost the other way");
}

fn what_is_counted_of_a_peer_is_true_whoever_moved_it() {
    /// 1000 bytes and 28 of headers inside, padded to a multiple of 16, and 32 around them.
    const SEALED: u64 = 1040 + 32;
    const PINGS: u64 = 50;
    let tunnel = spec().build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    said(left, &["attend", &left.daemon.interface, "--metrics", &PORT.to_string()]);
    let look = || {
        let (json, text) = (told(left), scrape(left.namespace(), "127.0.0.1"));
        let (samples, peer) = (parsed(&text), &json["peers"][0]);
        let metric = |name| sum(&samples, name, &[]) as u64;
        let moved =
            [peer["tx_bytes"].clone(), peer["rx_bytes"].clone(), peer["rx_packets"].clone()].map(|it| number(&it));
        let names =
            ["wireguard_sent_bytes_total", "wireguard_received_bytes_total", "wireloom_peer_received_packets_total"];
        assert_eq!(moved, names.map(metric), "JSON and metrics");
        let listed = left.peer(right).unwrap();
        assert_eq!([listed.sent, listed.received], [moved[0], moved[1]], "JSON and `wg show`");
        let taken = if engine() == Engine::Ebpf { left.daemon.taken().unwrap() } else { (0, 0) };
        (moved, left.counters().unwrap(), taken)
    };
    let before = look();
    let [pings, size] = [PINGS.to_string(), "1000".to_owned()];
    left.namespace().run("ping", &["-q", "-c", &pings, "-i", "0.01", "-s", &size, &right.v4.to_string()]).unwrap();
    let after = look();
    let moved = std::array::from_fn(|n| after.0[n] - before.0[n]);
    assert_eq!(moved, [PINGS * SEALED, PINGS * SEALED, PINGS]);
    // The interface's own counters know what the daemon moved, and nothing of what programs did: see docs/ebpf.md.
    let (interface, taken) = (after.1.since(before.1), (after.2.0 - before.2.0, after.2.1 - before.2.1));
    assert_eq!((interface.sent_packets + taken.0, interface.received_packets + taken.1), (PINGS, PINGS));
}

/// A program on a terminal of its own, as script(1) makes one.
struct Screen {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn start(host: &Namespace, script: &str) -> Screen {
        let mut command = host.command("script");
        command.args(["-qec", script, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (shown, mut out) = (Arc::new(Mutex::new(Vec::new())), child.stdout.take().unwrap());
        let kept = shown.clone();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut piece) {
                kept.lock().unwrap().extend(&piece[..len]);
            }
        });
        Screen { child, shown }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// What the screen shows now: only what has changed is written to it, each piece behind the place where it belongs.
    fn picture(&self) -> String {
        let text = self.text();
        let mut rows = vec![vec![' '; 120]; 30];
        let (mut row, mut column) = (0, 0);
        for piece in text.rsplit_once("\x1b[?1049h").map_or("", |it| it.1).split('\x1b') {
            let Some(end) = piece.find(|c: char| c.is_ascii_alphabetic()) else { continue };
            let (code, plain) = piece.split_at(end);
            let mut chars = plain.chars();
            match chars.next() {
                Some('H') => {
                    let mut place = code.trim_start_matches('[').split(';').map(|it| it.parse::<usize>().unwrap_or(1));
                    (row, column) = (place.next().unwrap_or(1) - 1, place.next().unwrap_or(1) - 1);
                }
                Some('J') => rows.iter_mut().for_each(|row| row.fill(' ')),
                _ => (),
            }
            for c in chars {
                if let Some(cell) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = c;
                }
                column += 1;
            }
        }
        rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        let shows = || self.picture().contains(text);
        wait_until(text, LIMIT, shows)
            .unwrap_or_else(|error| panic!("{error}:\n{}\n{:?}", self.picture(), self.text()));
    }

    fn press(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for the end. The terminal must be as it was before, and its screen given back.
    #[track_caller]
    fn end(mut self) -> String {
        wait_until("the end", LIMIT, || self.child.try_wait().unwrap().is_some()).unwrap();
        wait_until("all that was shown", LIMIT, || self.text().contains("that is all")).unwrap();
        let text = self.text();
        let settings: Vec<_> =
            text.split("settings:").skip(1).map(|it| it.split(';').next().unwrap().trim().to_owned()).collect();
        assert_eq!(settings.len(), 2, "{text:?}");
        assert_eq!(settings[0], settings[1], "{text:?}");
        let last = |code: &str| text.rfind(code).unwrap_or_else(|| panic!("no {code:?} in {text:?}"));
        assert!(last("\x1b[?1049l") > last("\x1b[?1049h"), "the screen is not given back");
        assert!(last("\x1b[?25h") > last("\x1b[?25l"), "the cursor stays hidden");
        text
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `top` on a terminal, whose settings are told before and after.
fn watched(end: &End) -> Screen {
    let script = format!(
        "stty rows 30 cols 120; echo \"settings:$(stty -g);\"; {} top {} --interval 0.2; echo \"code:$?\"; echo \"settings:$(stty -g);\"; echo that is all",
        program(),
        end.daemon.interface
    );
    Screen::start(end.namespace(), &script)
}

fn top_shows_what_is_true_and_gives_the_terminal_back() {
    let tunnel = spec().build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let short: String = right.keys.public.to_string().chars().take(8).collect();
    let mut screen = watched(left);
    let [interface, endpoint] = [left.daemon.interface.clone(), right.endpoint(Outer::V4).to_string()];
    screen.wait_for(&format!("{interface} · wireloom "));
    screen.wait_for(&format!("{short}… {endpoint}"));
    screen.wait_for(&format!("{}/32,{}/128", right.v4, right.v6));
    screen.wait_for("handshakes: initiations sent ");
    screen.wait_for("peers 1-1 of 1 by traffic");
    screen.press("h");
    screen.wait_for("q, Esc      leave");
    screen.press("hs");
    screen.wait_for("peers 1-1 of 1 by handshake");
    assert!(!screen.picture().contains("Esc"), "{}", screen.picture());
    screen.press("p");
    screen.wait_for("held · peers 1-1 of 1");
    screen.press("q");
    assert!(screen.end().contains("code:0"));

    // A signal ends it as well as a key does.
    let screen = watched(left);
    screen.wait_for(&short);
    let is_top = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"top")
    };
    let pid = left.namespace().pids().into_iter().find(is_top).unwrap();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
    screen.end();

    // And when the interface goes, that is said in a line.
    let screen = watched(left);
    screen.wait_for(&short);
    left.namespace().ip(&["link", "delete", &left.daemon.interface]).unwrap();
    assert!(screen.end().contains("wireloom: no interface"));
}

fn top_once_tells_what_moved_within_the_interval() {
    let tunnel = spec().build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    wait_for_ping(left, right);
    let mut pings = left.namespace().command("ping");
    let mut pings =
        pings.args(["-q", "-i", "0.01", "-s", "1000", &right.v4.to_string()]).stdout(Stdio::null()).spawn().unwrap();
    let text = said(right, &["top", &right.daemon.interface, "--once", "--interval", "2"]);
    pings.kill().unwrap();
    pings.wait().unwrap();
    let short: String = left.keys.public.to_string().chars().take(8).collect();
    let row = text.lines().find(|line| line.starts_with(&short)).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains(&left.endpoint(Outer::V4).to_string()) && row.contains(&format!("{}/32", left.v4)), "{row}");
    // A hundred a second of 1060 bytes, if the machine keeps up; a few at least.
    assert!(row.contains("kb/s") && row.contains(" 0.0 %"), "{text}");
    assert!(text.contains("worker 0 [") && text.contains("dropped: "), "{text}");
}

/// What is told of 100,000 peers, and what that takes.
#[test]
fn a_hundred_thousand_peers_are_told_of_in_pieces() {
    let namespace = Namespace::new().unwrap();
    let daemon = wireloom()
        .start_with(&namespace, |command| {
            command.args(["--metrics", "9586"]);
        })
        .unwrap();
    wait_for_metrics(&namespace);
    const PEERS: u32 = 100_000;
    let mut request = String::from("set=1\n");
    for peer in 0..PEERS {
        let [a, b, c, d] = peer.to_be_bytes();
        request += &format!(
            "public_key={:064x}\nallowed_ip=10.{b}.{c}.{d}/32\n",
            (u128::from(peer) + 1) << 64 | u128::from(a)
        );
    }
    request += "\n";
    let mut stream = UnixStream::connect(lab::socket_path(&daemon.interface)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = [0; 32];
    let len = stream.read(&mut reply).unwrap();
    assert_eq!(&reply[..len], b"errno=0\n\n");
    let start = std::time::Instant::now();
    let text = scrape(&namespace, "127.0.0.1");
    let took = start.elapsed();
    assert_eq!(text.lines().filter(|line| line.starts_with("wireguard_sent_bytes_total{")).count(), PEERS as usize);
    let is_attendant = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "wl-attendant")
    };
    let pid = namespace.pids().into_iter().find(is_attendant).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!("{} bytes in {took:?}, {} KiB at most, {} after", text.len(), memory("VmHWM"), memory("VmRSS"));
    // The peers, and not the text: that would be twice as much.
    assert!(text.len() > 60_000_000 && memory("VmHWM") < 60 << 10, "{status}");
}

//! What `save` writes: a running device as a file of wg-quick's, with what the file before it had beyond that.
//!
//! The lines are those of `wg-quick save`, in its order. What wg-quick loses is kept: search domains, and comments. A comment that stands on lines of
//! its own belongs to the setting or the section below it, one at the end of a line to that line. It comes back where the setting or the section does; where
//! only the setting is gone, at the end of its section; with a peer that is gone it goes, and is counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use zeroize::Zeroizing;

use crate::address::{IpText, Zones};
use crate::device::Device;
use crate::quick::{Address, Quick};
use crate::show;

/// What a file is to say.
pub struct Saved {
    /// Its text.
    pub text: Zeroizing<Vec<u8>>,
    /// How many comments went with their peers.
    pub lost: usize,
}

/// What runs.
pub struct Running<'a> {
    /// The addresses of the interface.
    pub addresses: &'a [Address],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The device.
    pub device: &'a Device,
    /// What the interfaces are called.
    pub zones: &'a dyn Zones,
}

/// The text of a file that says what runs, in place of the text `old`, which says what `quick` has.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn save(old: &[u8], quick: &Quick, running: &Running<'_>) -> io::Result<Saved> {
    let mut plain = Zeroizing::new(Vec::with_capacity(4096 + old.len() + running.device.peers.len() * 512));
    plain.extend_from_slice(b"[Interface]\n");
    let mut more = String::new();
    for address in running.addresses {
        more += &format!("Address = {address}\n");
    }
    for &server in &quick.dns {
        more += &format!("DNS = {}\n", IpText(server));
    }
    if !quick.search.is_empty() {
        more += &format!("DNS = {}\n", quick.search.join(", "));
    }
    if quick.mtu.is_some() {
        more += &format!("MTU = {}\n", running.mtu);
    }
    if let Some(table) = table_as_written(old) {
        more += &format!("Table = {table}\n");
    }
    if quick.save_config {
        more += "SaveConfig = true\n";
    }
    crate::print::hooks(&mut more, quick);
    plain.extend_from_slice(more.as_bytes());
    let mut device = Zeroizing::new(Vec::with_capacity(plain.capacity()));
    show::conf(&mut *device, running.device, running.zones)?;
    plain.extend_from_slice(device.strip_prefix(b"[Interface]\n").unwrap_or(&device));
    while plain.ends_with(b"\n\n") {
        plain.pop();
    }
    Ok(Comments::of(old).put_into(&plain))
}

/// The value of `Table`, if there is one: a name stays one.
fn table_as_written(old: &[u8]) -> Option<String> {
    let mut table = None;
    let mut in_interface = false;
    for line in old.split(|&b| b == b'\n').map(Line::of) {
        match line {
            Line::Section(name, _) => in_interface = is_interface(&name),
            Line::Setting(key, value, _) if in_interface && key == "table" && !value.is_empty() => {
                table = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
    }
    table
}

/// A line by what it is, in lower case and without blanks where that does not matter. Comments begin with `#`.
enum Line<'a> {
    Blank,
    Comment(&'a [u8]),
    Section(String, Option<&'a [u8]>),
    Setting(String, &'a [u8], Option<&'a [u8]>),
}

impl Line<'_> {
    fn of(line: &[u8]) -> Line<'_> {
        let line = line.trim_ascii();
        let (said, comment) = match line.iter().position(|&b| b == b'#') {
            Some(at) => (line[..at].trim_ascii(), Some(&line[at..])),
            None => (line, None),
        };
        let name = |text: &[u8]| String::from_utf8_lossy(text).to_lowercase().replace([' ', '\t'], "");
        match (said, comment) {
            ([], None) => Line::Blank,
            ([], Some(comment)) => Line::Comment(comment),
            ([b'[', ..], _) => Line::Section(name(said), comment),
            _ => {
                let equals = said.iter().position(|&b| b == b'=').unwrap_or(said.len());
                let value = said.get(equals + 1..).unwrap_or_default().trim_ascii();
                Line::Setting(name(&said[..equals]), value, comment)
            }
        }
    }
}

fn is_interface(section: &str) -> bool {
    section == "[interface]"
}

/// The section `[Interface]`, or that of a peer by its key as it is written.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    Interface,
    Peer(Vec<u8>),
}

/// The comments above a line, and that behind it.
type Around = (Vec<Vec<u8>>, Option<Vec<u8>>);

/// The comments of a section.
#[derive(Default)]
struct Section {
    /// Above its first line.
    above: Vec<Vec<u8>>,
    /// Behind it.
    behind: Option<Vec<u8>>,
    /// Those of its settings, by the key and how often it came before.
    settings: HashMap<(String, usize), Around>,
    /// Below all.
    below: Vec<Vec<u8>>,
}

impl Section {
    fn count(&self) -> usize {
        let settings = self.settings.values().map(|(above, behind)| above.len() + usize::from(behind.is_some()));
        self.above.len() + usize::from(self.behind.is_some()) + settings.sum::<usize>() + self.below.len()
    }
}

/// The comments of a file.
#[derive(Default)]
struct Comments(HashMap<Place, Section>);

impl Comments {
    fn of(text: &[u8]) -> Comments {
        let mut comments = Comments::default();
        // The section being read: known as a peer's only once its key has come, and so put away when it ends.
        let mut current: Option<(Place, Section)> = None;
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut waiting: Vec<Vec<u8>> = Vec::new();
        for line in text.split(|&b| b == b'\n') {
            match Line::of(line) {
                Line::Comment(comment) => waiting.push(comment.to_vec()),
                // What stands above a blank line does not belong to what is below it, but at the head of the file it has nowhere else to go.
                Line::Blank => {
                    if let Some((_, section)) = &mut current {
                        section.below.append(&mut waiting);
                    }
                }
                Line::Section(name, behind) => {
                    comments.put_away(current.take());
                    counts.clear();
                    let place = if is_interface(&name) { Place::Interface } else { Place::Peer(Vec::new()) };
                    let section = Section {
                        above: std::mem::take(&mut waiting),
                        behind: behind.map(<[u8]>::to_vec),
                        ..Section::default()
                    };
                    current = Some((place, section));
                }
                Line::Setting(key, value, behind) => {
                    let Some((place, section)) = &mut current else { continue };
                    if let (Place::Peer(public), "publickey") = (&mut *place, key.as_str()) {
                        *public = value.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
                    }
                    let count = counts.entry(key.clone()).or_default();
                    if !waiting.is_empty() || behind.is_some() {
                        let comments = (std::mem::take(&mut waiting), behind.map(<[u8]>::to_vec));
                        section.settings.insert((key, *count), comments);
                    }
                    *count += 1;
                }
            }
        }
        if let Some((_, section)) = &mut current {
            section.below.append(&mut waiting);
        }
        comments.put_away(current);
        comments
    }

    /// Keeps a section that was read; one that comes twice is one.
    fn put_away(&mut self, section: Option<(Place, Section)>) {
        let Some((place, mut section)) = section else { return };
        let there = self.0.entry(place).or_default();
        there.above.append(&mut section.above);
        there.below.append(&mut section.below);
        // What has its place taken goes to the end.
        match (&there.behind, section.behind) {
            (Some(_), Some(second)) => there.below.push(second),
            (None, behind) => there.behind = behind,
            (Some(_), None) => {}
        }
        for (key, (above, behind)) in section.settings {
            match there.settings.entry(key) {
                Entry::Occupied(_) => there.below.extend(above.into_iter().chain(behind)),
                Entry::Vacant(place) => {
                    place.insert((above, behind));
                }
            }
        }
    }

    /// The text with the comments where they belong.
    fn put_into(mut self, plain: &[u8]) -> Saved {
        let size: usize = self.0.values().map(|section| section.count()).sum();
        if size == 0 {
            return Saved { text: Zeroizing::new(plain.to_vec()), lost: 0 };
        }
        let mut text = Zeroizing::new(Vec::with_capacity(plain.len() * 2 + size * 256));
        for part in parts(plain) {
            let mut section = self.0.remove(&place_of(part)).unwrap_or_default();
            let mut counts: HashMap<String, usize> = HashMap::new();
            section.above.iter().for_each(|comment| put(&mut text, comment));
            let lines = part.strip_suffix(b"\n").unwrap_or(part).split(|&b| b == b'\n');
            for line in lines.filter(|line| !line.is_empty()) {
                let behind = match Line::of(line) {
                    Line::Setting(key, ..) => {
                        let count = counts.entry(key.clone()).or_default();
                        let (above, behind) = section.settings.remove(&(key, *count)).unwrap_or_default();
                        *count += 1;
                        above.iter().for_each(|comment| put(&mut text, comment));
                        behind
                    }
                    _ => section.behind.take(),
                };
                text.extend_from_slice(line);
                if let Some(behind) = behind {
                    text.push(b' ');
                    text.extend_from_slice(&behind);
                }
                text.push(b'\n');
            }
            // Those of settings that are gone, in an order that does not change from time to time.
            let mut gone: Vec<_> = section.settings.into_iter().collect();
            gone.sort_by(|(one, _), (other, _)| one.cmp(other));
            for (_, (above, behind)) in gone {
                above.iter().chain(&behind).for_each(|comment| put(&mut text, comment));
            }
            section.below.iter().for_each(|comment| put(&mut text, comment));
            text.push(b'\n');
        }
        text.pop();
        Saved { text, lost: self.0.values().map(Section::count).sum() }
    }
}

fn put(text: &mut Vec<u8>, line: &[u8]) {
    text.extend_from_slice(line);
    text.push(b'\n');
}

/// The sections of a text that was just printed: an empty line stands between two.
fn parts(plain: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = plain;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|pair| pair == b"\n\n").map_or(rest.len(), |at| at + 2);
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

fn place_of(part: &[u8]) -> Place {
    let mut lines = part.split(|&b| b == b'\n').map(Line::of);
    match lines.next() {
        Some(Line::Section(name, _)) if is_interface(&name) => Place::Interface,
        _ => Place::Peer(
            lines
                .find_map(|line| match line {
                    Line::Setting(key, value, _) if key == "publickey" => Some(value.to_vec()),
                    _ => None,
                })
                .unwrap_or_default(),
        ),
    }
}

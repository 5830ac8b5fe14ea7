//! The page's part about kernels in guests, and the same in lines for a terminal.

use std::fmt::Write;

use crate::kernel::GuestKernel;
use crate::plot::escape;
use crate::run::Run;
use crate::unit::Unit;

/// What can be learnt from an emulator, said wherever something is told of one.
const EMULATED: &str = "Emulation tells that a thing works, how it loads, what it weighs and what an update costs, never how fast it carries packets. Times of loading \
                        are the emulator's, and compare with each other alone.";

/// Writes it, where there is something to write.
pub fn section(out: &mut String, run: &Run) {
    if run.kernels.is_empty() {
        return;
    }
    out.push_str("<section id=\"kernels\"><h2>Kernels in guests</h2>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<p class=\"question\">What does WireGuard weigh in kernels that this machine does not run, and what does exchanging it cost?</p>\n\
         <p class=\"faint\">Each kernel was booted in a machine of its own, where its WireGuard carried checked bytes between two namespaces. {EMULATED} \
         Memory of a module is what <code>/proc/modules</code> says; what building in adds is the difference of two kernels of one configuration, with \
         WireGuard and all that it needs, and without.</p>"
    );
    out.push_str("<div class=\"scroll\"><table class=\"prose\"><thead><tr>");
    for head in [
        "kernel",
        "release",
        "WireGuard is",
        "carried",
        "file of the module",
        "its memory",
        "memory with all modules that it needs",
        "adds to the compressed image",
        "adds to memory (code, data, zeros)",
        "loading (emulated)",
        "a new version takes",
    ] {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for (name, it) in &run.kernels {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
        for cell in cells(it) {
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn cells(it: &GuestKernel) -> [String; 10] {
    let none = || "–".to_owned();
    let bytes = |value: Option<u64>| value.map_or_else(none, grouped);
    let needed = it.memory_with_needed.map_or_else(none, |all| format!("{} ({} more)", grouped(all), it.needed));
    let parts = it.growth.map_or_else(none, |it| {
        format!("{} ({} + {} + {})", grouped(it.memory()), grouped(it.text), grouped(it.data), grouped(it.bss))
    });
    let carried = match (&it.failure, it.emulated) {
        (Some(failure), _) => format!("failed: {failure}"),
        (None, true) => format!("{}, emulated", grouped(it.carried)),
        (None, false) => grouped(it.carried),
    };
    let update = if it.failure.is_some() { none() } else { it.update().to_owned() };
    [
        it.release.clone(),
        it.place.clone(),
        carried,
        bytes(it.file),
        bytes(it.memory),
        needed,
        bytes(it.growth.map(|it| it.image)),
        parts,
        it.load().map_or_else(none, |seconds| Unit::Seconds.text(seconds)),
        update,
    ]
}

/// A line for each kernel, and what they are not; nothing where there is none.
pub fn lines(run: &Run) -> Vec<String> {
    let mut lines: Vec<String> = run.kernels.iter().map(|(name, it)| line(name, it)).collect();
    if !lines.is_empty() {
        lines.push(EMULATED.to_owned());
    }
    lines
}

fn line(name: &str, it: &GuestKernel) -> String {
    if let Some(failure) = &it.failure {
        return format!("{name}: failed: {failure}");
    }
    let mut parts = vec![format!("{} carried {} right", it.place, grouped(it.carried))];
    if let (Some(file), Some(memory)) = (it.file, it.memory) {
        parts.push(format!("file {}, memory {}", grouped(file), grouped(memory)));
    }
    if let Some(all) = it.memory_with_needed {
        parts.push(format!("{} with the {} modules that it needs", grouped(all), it.needed));
    }
    if let Some(growth) = it.growth {
        parts.push(format!(
            "adds {} to the compressed image and {} to memory",
            grouped(growth.image),
            grouped(growth.memory())
        ));
    }
    if let Some(seconds) = it.load() {
        parts.push(format!("loads in {} in the emulator", Unit::Seconds.text(seconds)));
    }
    parts.push(
        format!("a new version takes {}", it.update()).replace("takes the module is", "means that the module is"),
    );
    format!("{name} ({}): {}.", it.release, parts.join("; "))
}

/// Bytes, with commas: sizes of what lies in a file are told exactly.
fn grouped(bytes: u64) -> String {
    let digits = bytes.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + " B"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_grouped_by_thousands() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1,000 B"), (219_353, "219,353 B"), (12_345_678, "12,345,678 B")]
        {
            assert_eq!(grouped(bytes), text);
        }
    }
}

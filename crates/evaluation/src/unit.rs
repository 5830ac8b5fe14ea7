//! Units: values are kept in base units, and written as people read them.

/// What a metric or an axis counts in. A value in a record is always in the base unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bits per second.
    BitsPerSecond,
    /// Packets per second.
    PacketsPerSecond,
    /// Seconds.
    Seconds,
    /// Bytes of memory, in binary steps.
    Bytes,
    /// Bytes of a packet, always as they are.
    Octets,
    /// Something per second.
    PerSecond,
    /// A part of one, written as per cent.
    Share,
    /// Processors' worth of time.
    Processors,
    /// Bits per second for each processor that was busy.
    BitsPerSecondPerProcessor,
    /// Seconds of processor time for each byte carried.
    SecondsPerByte,
    /// A number of things.
    Count,
}

impl Unit {
    /// The scales it is written in, from small to large: how many base units each is, and its name.
    fn scales(self) -> &'static [(f64, &'static str)] {
        match self {
            Unit::BitsPerSecond => &[(1.0, "bit/s"), (1e3, "kb/s"), (1e6, "Mb/s"), (1e9, "Gb/s"), (1e12, "Tb/s")],
            Unit::PacketsPerSecond => &[(1.0, "packets/s"), (1e3, "kpps"), (1e6, "Mpps")],
            Unit::Seconds => &[(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")],
            Unit::Bytes => &[(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB"), (1_073_741_824.0, "GiB")],
            Unit::Octets => &[(1.0, "B")],
            Unit::PerSecond => &[(1.0, "per s"), (1e3, "thousand per s")],
            Unit::Share => &[(0.01, "%")],
            Unit::Processors => &[(1.0, "processors")],
            Unit::BitsPerSecondPerProcessor => &[
                (1.0, "bit/s per processor"),
                (1e3, "kb/s per processor"),
                (1e6, "Mb/s per processor"),
                (1e9, "Gb/s per processor"),
            ],
            Unit::SecondsPerByte => &[(1e-9, "s/GB")],
            Unit::Count => &[(1.0, "")],
        }
    }

    /// The scale that suits a value: how many base units it is, and its name. For an axis it is that of the largest value.
    pub fn scale(self, largest: f64) -> (f64, &'static str) {
        let scales = self.scales();
        let fits = scales.iter().rev().find(|(size, _)| largest.abs() >= *size);
        *fits.unwrap_or(&scales[0])
    }

    /// A number of it in a scale: what is counted has no digits behind the point unless it is a mean.
    pub fn number(self, value: f64) -> String {
        let counted = matches!(self, Unit::Count | Unit::Octets) && value.fract() == 0.0;
        if counted { format!("{value}") } else { digits(value) }
    }

    /// A chosen value with its unit, such as one of an axis: without digits that say nothing.
    pub fn chosen(self, value: f64) -> String {
        let (size, name) = self.scale(value);
        let number = plain(value / size);
        if name.is_empty() { number } else { format!("{number} {name}") }
    }

    /// A value with its unit, in three digits or a little more.
    pub fn text(self, value: f64) -> String {
        let (size, name) = self.scale(value);
        let number = self.number(value / size);
        match name {
            "" => number,
            "%" => format!("{number} %"),
            name => format!("{number} {name}"),
        }
    }
}

/// A name with its unit behind it, unless there is none or the name ends in it.
pub fn named(name: &str, unit: &str) -> String {
    if unit.is_empty() || name.ends_with(unit) { name.to_owned() } else { format!("{name}, {unit}") }
}

/// A number in three digits, without those that say nothing: `1`, `2.5`.
pub fn plain(value: f64) -> String {
    if value.fract() == 0.0 {
        return format!("{value}");
    }
    let text = digits(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A number in three digits, those before the point never cut: `0.0123`, `1.23`, `12.3`, `123`, `1235`.
pub fn digits(value: f64) -> String {
    if value.is_infinite() {
        return "∞".to_owned();
    }
    if value == 0.0 || value.is_nan() {
        return format!("{value}");
    }
    let before = value.abs().log10().floor();
    let behind = (2.0 - before).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.behind$}");
    // 9.996 becomes 10.00, one digit too many.
    let rounded: f64 = text.parse().unwrap_or(value);
    let behind = if rounded != 0.0 { (2.0 - rounded.abs().log10().floor()).clamp(0.0, 9.0) as usize } else { 0 };
    format!("{value:.behind$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_people_read_them() {
        for (unit, value, text) in [
            (Unit::BitsPerSecond, 9.0448e9, "9.04 Gb/s"),
            (Unit::BitsPerSecond, 999.0, "999 bit/s"),
            (Unit::PacketsPerSecond, 629_015.0, "629 kpps"),
            (Unit::PacketsPerSecond, 1.5e6, "1.50 Mpps"),
            (Unit::Seconds, 85e-6, "85.0 µs"),
            (Unit::Seconds, 0.0, "0 ns"),
            (Unit::Seconds, 90.0, "90.0 s"),
            (Unit::Bytes, 10.125 * 1_048_576.0, "10.1 MiB"),
            (Unit::Share, 0.5, "50.0 %"),
            (Unit::SecondsPerByte, 1.58e-9, "1.58 s/GB"),
            (Unit::Count, 100_000.0, "100000"),
            (Unit::Count, 8.0, "8"),
            (Unit::Octets, 1420.0, "1420 B"),
            (Unit::Processors, 9.996, "10.0 processors"),
        ] {
            assert_eq!(unit.text(value), text);
        }
        assert_eq!(
            (digits(0.012_34), digits(-3.0), digits(12_345.6)),
            ("0.0123".into(), "-3.00".into(), "12346".into())
        );
    }
}

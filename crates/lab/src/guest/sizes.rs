//! What a kernel weighs that was compiled here, with WireGuard and without.

use crate::LabError;

/// Bytes of one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The compressed image, which is what lies in `/boot`.
    pub image: u64,
    /// Code and constants in memory, as `size` counts the sections of `vmlinux.o`, which has none of the fillings of the linked kernel.
    pub text: u64,
    /// Data with values.
    pub data: u64,
    /// Data that begins as zeros.
    pub bss: u64,
}

/// The same configuration twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// With WireGuard built in, and all that it needs.
    pub with: Size,
    /// Without.
    pub without: Size,
}

impl Size {
    /// From the size of an image, and what `size` says of the `vmlinux.o` that it was made of.
    pub(super) fn of(image: u64, said: &str) -> Result<Size, LabError> {
        let unreadable = || LabError::Unreadable { what: "the sections of a kernel", text: said.to_owned() };
        // A line of names, then one of numbers.
        let line = said.lines().nth(1).ok_or_else(unreadable)?;
        let mut numbers = line.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(text)), Some(Ok(data)), Some(Ok(bss))) => Ok(Size { image, text, data, bss }),
            _ => Err(unreadable()),
        }
    }
}

impl Sizes {
    /// What building in adds. What would be less is nothing: alignment may swallow some of it.
    pub fn growth(&self) -> Size {
        let more = |of: fn(&Size) -> u64| of(&self.with).saturating_sub(of(&self.without));
        Size { image: more(|it| it.image), text: more(|it| it.text), data: more(|it| it.data), bss: more(|it| it.bss) }
    }

    /// As it lies in a file: two lines.
    pub(super) fn text(&self) -> String {
        let line = |name: &str, it: Size| format!("{name} {} {} {} {}\n", it.image, it.text, it.data, it.bss);
        line("with", self.with) + &line("without", self.without)
    }

    /// What [`Sizes::text`] has written.
    pub(super) fn read(text: &str) -> Option<Sizes> {
        let size = |name: &str| -> Option<Size> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            let [image, text, data, bss] = numbers[..] else { return None };
            Some(Size { image, text, data, bss })
        };
        Some(Sizes { with: size("with")?, without: size("without")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "   text\t   data\t    bss\t    dec\t    hex\tfilename\n5000\t 300\t  20\t5320\t14c8\tvmlinux\n";

    #[test]
    fn reads_what_size_says() {
        assert_eq!(Size::of(7, SAID).unwrap(), Size { image: 7, text: 5000, data: 300, bss: 20 });
        for bad in ["", "text data bss\n", "text data bss\n1 2\n", "text data bss\n1 2 -3\n"] {
            assert!(Size::of(7, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn comes_back_from_its_file_and_tells_what_was_added() {
        let without = Size { image: 7, text: 5000, data: 300, bss: 20 };
        let sizes = Sizes { with: Size { image: 9, text: 6000, data: 400, bss: 19 }, without };
        assert_eq!(Sizes::read(&sizes.text()), Some(sizes));
        assert_eq!(sizes.growth(), Size { image: 2, text: 1000, data: 100, bss: 0 });
        for bad in ["", "with 1 2 3 4\n", "with 1 2 3 4\nwithout 1 2 3\n", "with a b c d\nwithout 1 2 3 4\n"] {
            assert_eq!(Sizes::read(bad), None, "{bad}");
        }
    }
}

//! Standard error, which may be closed or full.
//!
//! What is told there is for whoever looks on. That nobody can be told is no reason to stop half way through bringing an interface up, and the
//! macros of the standard library would: they panic, and a panic ends the process without undoing anything. So these stand in for them,
//! under the same names, in all modules of this program. Standard output has none: what is asked for there is the result, and that it
//! cannot be written is an error.

/// Tells a line on standard error, if somebody hears it.
macro_rules! eprintln {
    ($($words:tt)*) => {
        $crate::tell::tell(format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Tells a part of a line on standard error, if somebody hears it.
macro_rules! eprint {
    ($($words:tt)*) => {
        $crate::tell::tell(format_args!($($words)*))
    };
}

/// Writes to standard error at once and as a whole; what comes of it makes no difference.
pub fn tell(words: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = std::io::stderr().lock().write_all(words.to_string().as_bytes());
}

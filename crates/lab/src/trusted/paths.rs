//! Which files are meant.
//!
//! A path that ends with a slash is a folder with all below it, `*` stands for anything within a name, and `|` stands between what a file is called in one
//! version and in another. What is left out is written the same way, or as a name alone, wherever that is.

/// How names end that are for other processors, wherever they are.
pub const OTHER_PROCESSORS: &[&str] = &[
    "*_arm.go",
    "*_arm64.*",
    "*_ppc64le.*",
    "*_s390x.*",
    "*_noasm.go",
    "*_ref.go",
    "*arm*",
    "*ppc*",
    "*s390*",
    "*sparc*",
    "*mips*",
    "*ia64*",
    "*alpha*",
    "*c64x*",
    "*parisc*",
    "*vis3*",
    "*riscv*",
    "*_t4*",
    "*loongarch*",
    "*-x86.pl",
    "*-586.pl",
    "*-386.pl",
    "*x86-mont*",
    "*x86-gf2m*",
    "*neon*",
    "*aarch64*",
    "*fiat32*",
    "*donna32*",
];

/// Which paths of a selection a file is among: the places of those that it is, none if it is left out.
pub fn places(paths: &[&str], without: &[&str], file: &str) -> Vec<usize> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let left_out = without.iter().chain(OTHER_PROCESSORS).any(|pattern| {
        // A pattern without a slash is of the name alone, and one that begins with one of these of the end of the path.
        let below = pattern.strip_prefix("*/").is_some_and(|end| ends(end, file));
        below || matches(pattern, if pattern.contains('/') { file } else { name })
    });
    if left_out {
        return Vec::new();
    }
    let is = |path: &str| {
        path.split('|').any(|path| if path.ends_with('/') { file.starts_with(path) } else { matches(path, file) })
    };
    paths.iter().enumerate().filter(|(_, path)| is(path)).map(|(at, _)| at).collect()
}

/// Whether a path ends with what a pattern says, after any folder.
fn ends(pattern: &str, path: &str) -> bool {
    path.match_indices('/').any(|(at, _)| matches(pattern, &path[at + 1..]))
}

/// Whether a path is what a pattern says, where `*` is anything without a slash.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((begin, rest)) => path.strip_prefix(begin).is_some_and(|path| {
            let reach = path.find('/').unwrap_or(path.len());
            (0..=reach).filter(|at| path.is_char_boundary(*at)).any(|at| matches(rest, &path[at..]))
        }),
    }
}

/// What to unpack for a selection: the folders and files that its paths are in, without stars.
pub fn to_unpack(paths: &[&str]) -> Vec<String> {
    let plain = |path: &&str| {
        let path = match path.find(['*', '|']) {
            Some(at) => &path[..path[..at].rfind('/').unwrap_or(0)],
            None => path.trim_end_matches('/'),
        };
        path.to_owned()
    };
    let mut all: Vec<String> = paths.iter().map(plain).collect();
    all.sort();
    all.dedup();
    // What lies in a folder comes with it, and tar takes it amiss to be asked for it twice.
    let whole = all.clone();
    all.retain(|path| {
        !whole.iter().any(|folder| path.strip_prefix(&**folder).is_some_and(|rest| rest.starts_with('/')))
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_end_at_slashes() {
        assert!(matches("a/*.c", "a/b.c") && matches("a/*", "a/") && matches("*x*", "axb") && matches("a", "a"));
        assert!(!matches("a/*.c", "a/b/c.c") && !matches("a", "ab") && !matches("*x", "xy"));
        let found = |file| places(&["a/", "b/*.c", "c.c|d.c"], &["a/out/*", "*/mock.rs", "*_win.c"], file);
        assert_eq!(found("a/x/y.c"), [0]);
        assert_eq!(found("b/x.c"), [1]);
        assert_eq!(found("d.c"), [2]);
        for file in ["b/x/y.c", "a/out/x.c", "a/x/mock.rs", "a/x_win.c", "a/chacha-armv8.pl", "e.c"] {
            assert_eq!(found(file), [0; 0], "{file}");
        }
        assert_eq!(to_unpack(&["a/", "b/*.c", "c/d|c/e", "c/f.h", "b/*.h", "cd/e.c"]), ["a", "b", "c", "cd/e.c"]);
    }
}

//! No tunnel, and the list of systems.

use std::collections::BTreeSet;

use crate::check;
use lab::subject;

#[test]
fn without_a_tunnel() {
    check::carries("none");
}

#[test]
fn without_a_tunnel_nothing_is_left_half_way() {
    check::fails_cleanly("none");
}

#[test]
fn each_has_a_slug_of_its_own_and_says_what_it_lacks() {
    let all = subject::all();
    let slugs: BTreeSet<&str> = all.iter().map(|subject| subject.slug()).collect();
    assert_eq!(slugs.len(), all.len());
    for subject in &all {
        let slug = subject.slug();
        assert!(slug.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{slug}");
        assert!(!subject.name().is_empty());
        if let Err(missing) = subject.available() {
            assert!(!missing.what.is_empty() && !missing.install.is_empty(), "{slug}: {missing}");
            assert!(!missing.to_string().contains('\n'), "{slug}: {missing}");
        }
    }
}

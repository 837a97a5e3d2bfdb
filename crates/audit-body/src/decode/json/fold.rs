//! Compares names like Go's `encoding/json`, which ignores case.

/// Whether a key equals a name of ASCII letters, ignoring case according to Unicode's simple
/// folding: the Kelvin sign equals `k`, and the long s equals `s`.
pub(super) fn folds_to(key: &[u8], name: &str) -> bool {
    if key.len() < name.len() || key.len() > 3 * name.len() {
        return false;
    }
    let Ok(key) = str::from_utf8(key) else { return false };
    let fold = |character: char| match character {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

#[cfg(test)]
mod tests {
    use super::folds_to;

    #[test]
    fn names_fold() {
        for key in ["kind", "KIND", "Kind", "\u{212a}ind"] {
            assert!(folds_to(key.as_bytes(), "kind"), "{key}");
        }
        assert!(folds_to("apiVer\u{17f}ion".as_bytes(), "apiVersion"));
        assert!(!folds_to(b"kinds", "kind") && !folds_to(b"kin", "kind"));
        assert!(!folds_to(b"\xffind", "kind"));
    }
}

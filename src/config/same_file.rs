//! Whether two paths are spellings of the same file, which may not exist yet.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Symbolic links that are followed to a file that does not exist.
const LINKS: usize = 40;

/// Compares device and inode, or, of files that do not exist yet, those of the nearest directory
/// that does and the names below it.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one == other || identity(one).is_some_and(|identity| Some(identity) == self::identity(other))
}

/// Device and inode of what exists, and the rest of the path.
fn identity(path: &Path) -> Option<(u64, u64, Vec<OsString>)> {
    let mut at = path.to_owned();
    let mut below = Vec::new();
    let mut links = 0;
    loop {
        let existing = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
        if let Ok(metadata) = fs::metadata(existing) {
            return Some((metadata.dev(), metadata.ino(), names(below)));
        }
        match fs::read_link(existing) {
            Ok(target) if links < LINKS => {
                links += 1;
                at = at.parent().unwrap_or(Path::new("")).join(target);
            }
            _ => {
                let last = at.components().next_back()?.as_os_str().to_owned();
                below.push(last);
                at = at.parent().map_or_else(PathBuf::new, Path::to_owned);
            }
        }
    }
}

/// The names from the top, without `.` and `..`.
fn names(below: Vec<OsString>) -> Vec<OsString> {
    let mut names: Vec<OsString> = Vec::new();
    for name in below.into_iter().rev() {
        match Path::new(&name).components().next() {
            Some(Component::ParentDir) => drop(names.pop()),
            Some(Component::Normal(_)) => names.push(name),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use test_support::TempDir;

    #[test]
    fn spellings_of_one_file_are_the_same_and_others_are_not() {
        let dir = TempDir::new();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("a")).unwrap();
        symlink(path("a"), path("link")).unwrap();
        symlink("a/audit.log", path("to-log")).unwrap();
        for exists in [false, true] {
            if exists {
                fs::write(path("a/audit.log"), "").unwrap();
                fs::hard_link(path("a/audit.log"), path("hard")).unwrap();
                assert!(is_same(&path("hard"), &path("a/audit.log")));
            }
            for spelling in ["a/../a/audit.log", "a/./audit.log", "link/audit.log", "to-log"] {
                assert!(is_same(&path("a/audit.log"), &path(spelling)), "{spelling}, {exists}");
            }
            for other in ["a/other.log", "audit.log", "b/audit.log", "a/audit.log/x"] {
                assert!(!is_same(&path("a/audit.log"), &path(other)), "{other}, {exists}");
            }
        }
        // Where not even the directory exists.
        assert!(is_same(&path("new/audit.log"), &path("new/../new/audit.log")));
        assert!(is_same(Path::new("new.log"), Path::new("./new.log")));
    }
}

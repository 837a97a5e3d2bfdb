//! Notices by polling that files have changed: the policy, certificates, tokens.
//!
//! Polling, because it sees what notification misses or reports oddly: ConfigMap and Secret
//! volumes (Kubernetes swaps the `..data` symbolic link), renames over the file, writes in place,
//! bind mounts and network file systems.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The interval at which files are polled.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Watches a few files for change.
///
/// Make it *before* reading the files for the first time: a change between the two is then
/// noticed by the next [`FileWatcher::changed`].
#[derive(Debug)]
pub struct FileWatcher {
    paths: Vec<PathBuf>,
    known: Stamps,
}

/// Identifies the states of some files, without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps(Vec<Option<Stamp>>);

/// Identifies a state of a file. The change time is included because programs can set
/// the modification time back, and the inode because a file can be replaced by one just as old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The state of the file that `path` leads to through symbolic links; nothing if it cannot
    /// be looked at.
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl FileWatcher {
    /// Watches `paths`, taking their present state as known. A path need not exist yet.
    pub fn new(paths: Vec<PathBuf>) -> FileWatcher {
        let known = Stamps::of(&paths);
        FileWatcher { paths, known }
    }

    /// Returns the files.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Returns the state that the files have now, which is not taken as known.
    pub fn stamps(&self) -> Stamps {
        Stamps::of(&self.paths)
    }

    /// Returns the state that the files had at the last call of [`FileWatcher::changed`] (or of
    /// [`FileWatcher::new`]).
    pub fn known(&self) -> &Stamps {
        &self.known
    }

    /// Returns whether any of the files was replaced, written, created or removed since the last
    /// call (or since [`FileWatcher::new`]). The content may be the same nevertheless. A file that
    /// is being written is reported again when more of it arrives.
    ///
    /// Costs one `stat` a file and blocks for as long as that takes.
    pub fn changed(&mut self) -> bool {
        let now = self.stamps();
        let changed = now != self.known;
        self.known = now;
        changed
    }
}

impl Stamps {
    fn of(paths: &[PathBuf]) -> Stamps {
        Stamps(paths.iter().map(|path| Stamp::of(path)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use test_support::TempDir;

    #[test]
    fn an_untouched_file_is_unchanged() {
        let dir = TempDir::new();
        let mut watcher = FileWatcher::new(vec![dir.write("a", "1"), dir.path().join("absent")]);
        assert!(!watcher.changed());
        assert!(!watcher.changed());
    }

    #[test]
    fn writing_in_place_replacing_removing_and_creating_are_changes() {
        let dir = TempDir::new();
        let path = dir.write("a", "1");
        let mut watcher = FileWatcher::new(vec![dir.write("other", "x"), path.clone()]);
        dir.write("a", "22");
        assert!(watcher.changed());
        fs::rename(dir.write("new", "33"), &path).unwrap();
        assert!(watcher.changed());
        fs::remove_file(&path).unwrap();
        assert!(watcher.changed());
        assert!(!watcher.changed());
        dir.write("a", "33");
        assert!(watcher.changed());
        assert!(!watcher.changed());
    }

    #[test]
    fn a_replacement_as_long_and_as_old_is_a_change() {
        let dir = TempDir::new();
        let (old, new) = (dir.write("old", "1"), dir.write("new", "2"));
        let time = fs::metadata(&old).unwrap().modified().unwrap();
        fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
        let mut watcher = FileWatcher::new(vec![old.clone()]);
        fs::rename(new, old).unwrap();
        assert!(watcher.changed());
    }

    #[test]
    fn a_swapped_symbolic_link_on_the_way_is_a_change() {
        let dir = TempDir::new();
        dir.write("v1/policy.yaml", "1");
        dir.write("v2/policy.yaml", "1");
        symlink("v1", dir.path().join("..data")).unwrap();
        symlink("..data/policy.yaml", dir.path().join("policy.yaml")).unwrap();
        let mut watcher = FileWatcher::new(vec![dir.path().join("policy.yaml")]);
        symlink("v2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        assert!(watcher.changed());
    }
}

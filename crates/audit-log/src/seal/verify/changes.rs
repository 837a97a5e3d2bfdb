//! Detects whether log files were rotated while they were read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::files::named;
use crate::seal::seal_path;

/// Returns the files with their inodes. The result changes with each rotation, compression and
/// deletion, but not when the log is only appended to.
pub(super) fn names(files: &[PathBuf]) -> Vec<(PathBuf, Option<u64>)> {
    let inode = |path: &PathBuf| fs::metadata(path).ok().map(|metadata| metadata.ino());
    let mut names = Vec::new();
    for (plain, log, _, seal) in files.iter().filter_map(|file| named(file).ok()).flatten() {
        for path in [log, Some(seal), Some(seal_path(&plain))].into_iter().flatten() {
            let inode = inode(&path);
            names.push((path, inode));
        }
    }
    names
}

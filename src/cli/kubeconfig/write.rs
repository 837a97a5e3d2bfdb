//! Replacing a kubeconfig, atomically and readable only by its owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use watched_files::regular_file;

/// kubectl's lock on a kubeconfig: a file beside it.
pub(super) struct Lock(PathBuf);

impl Lock {
    /// Takes the lock.
    pub(super) fn take(target: &Path) -> anyhow::Result<Lock> {
        let mut name = target.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => Ok(Lock(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(anyhow!(
                "{} is locked: another process, such as kubectl config, is changing it; if there is \
                 none, remove {}",
                target.display(),
                path.display()
            )),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", target.display())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Reads the kubeconfig; one that does not exist is empty.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    match regular_file::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces the file, with mode 0600. What a symbolic link leads to is replaced, and not the link.
pub(super) fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let written = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, &target));
    written.with_context(|| {
        let _ = fs::remove_file(&temporary);
        format!("cannot write {}", target.display())
    })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whether two paths lead to the same file.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => one == other,
    }
}

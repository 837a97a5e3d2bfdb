//! A seal file. It is only appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Signed;
use crate::disk;
use crate::open_file::copy_owner_and_mode;

/// Number of bytes at the end of a file that are searched for its last record.
const TAIL: u64 = 1 << 20;

/// A seal file. It is opened when it is first used.
#[derive(Debug)]
pub(crate) struct SealFile {
    path: PathBuf,
    file: Option<Arc<File>>,
    /// The length to which the file must be truncated after a failed write.
    cut_to: Option<u64>,
}

impl SealFile {
    pub(crate) fn new(path: PathBuf) -> SealFile {
        SealFile { path, file: None, cut_to: None }
    }

    /// Renames the file. If it does not exist yet, it will be created under the new name.
    pub(crate) fn rename(&mut self, to: &Path) -> io::Result<()> {
        match disk::rename(&self.path, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        to.clone_into(&mut self.path);
        Ok(())
    }

    /// Creates the file, with owner and mode of the log, unless it exists. Returns whether it was
    /// created.
    pub(crate) fn ensure(&mut self, log: &File) -> io::Result<bool> {
        if let Some(file) = &self.file {
            let own = file.metadata()?;
            let there = fs::metadata(&self.path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
                return Ok(false);
            }
            tracing::error!(
                "the audit log's seal {} was removed or replaced by another process",
                self.path.display()
            );
        }
        disk::step()?;
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(&self.path)?;
        let made = file.metadata()?.len() == 0;
        if made {
            copy_owner_and_mode(&log.metadata()?, &file.metadata()?, &file);
        }
        self.file = Some(Arc::new(file));
        self.cut_to = None;
        Ok(made)
    }

    /// Appends a line completely or not at all. Returns whether the file was created.
    pub(crate) fn append(&mut self, line: &[u8], log: &File) -> io::Result<bool> {
        let made = self.ensure(log)?;
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Some(length) = self.cut_to {
            file.set_len(length)?;
            self.cut_to = None;
        }
        let length = file.metadata()?.len();
        if let Err(error) = disk::append(file, line) {
            let cut = disk::step().and_then(|()| file.set_len(length));
            self.cut_to = cut.is_err().then_some(length);
            return Err(error);
        }
        Ok(made)
    }

    /// Returns the file, which can be synced while other threads append to it.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    /// Returns the directory of the file.
    pub(crate) fn folder(&self) -> PathBuf {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    }
}

/// Truncates a partial record that a crash of the machine has left. Called at startup.
pub(crate) fn mend(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    let (start, tail) = tail(&mut file)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if end < tail.len() && (end > 0 || start == 0) {
        tracing::warn!(
            "the audit log's seal {} ended with a partial record; its last {} bytes were removed",
            path.display(),
            tail.len() - end
        );
        disk::step()?;
        file.set_len(start + end as u64)?;
    }
    Ok(())
}

/// Returns the last record that ends with a newline. A record without one was left by a crash and
/// will be removed. Lines that are not records, because another process has written to the file,
/// are skipped; `log verify` reports them.
pub(crate) fn last_record(path: &Path) -> io::Result<Option<Signed>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let (_, tail) = tail(&mut file)?;
    Ok(tail.rsplit(|byte| *byte == b'\n').skip(1).find_map(|line| Signed::parse(line, false)))
}

fn tail(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let start = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok((start, tail))
}

//! The directory of a spool.
//!
//! The directory is kept open and locked with `flock(2)` while it is used, so that no second
//! process sends or deletes the same batches, even if it uses another path to the directory. Files
//! are accessed relative to the open directory, so batches in a renamed directory can still be
//! sent.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::name::{BatchName, Kind};
use super::segment::parse_open;
use crate::{FileId, Lock, create_private_dir, try_lock};
use watched_files::regular_file::unusable;

/// The file that is locked if the file system cannot lock directories, such as NFS.
const LOCK: &str = ".lock";
/// Temporary names of files that are being written.
const TEMPORARY: [&str; 2] = ["new.tmp", "rejected.tmp"];

/// An open spool directory, which no other process uses.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    extension: &'static str,
    handle: File,
    /// The locked file, if `handle` cannot be locked.
    _lock: Option<File>,
}

/// A batch file in the directory.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: BatchName,
    pub(crate) kind: Kind,
    pub(crate) bytes: u64,
}

impl Directory {
    /// Opens and locks the directory. Creates it with mode 0700 if it is missing. `extension` is
    /// that of its batch files.
    ///
    /// # Errors
    /// Returns the system's error, or [`io::ErrorKind::ResourceBusy`] if another process, or
    /// another backend of this one, has locked it.
    pub(crate) fn open(path: &Path, extension: &'static str) -> io::Result<Directory> {
        create_private_dir(path)?;
        // `File::open` would block on a named pipe.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = File::from(openat(rustix::fs::CWD, path, flags, Mode::empty())?);
        let _lock = lock(&handle)?;
        for name in TEMPORARY {
            // An incomplete batch that a crash has left.
            let _ = unlinkat(&handle, name, AtFlags::empty());
        }
        Ok(Directory { path: path.to_owned(), extension, handle, _lock })
    }

    /// Returns whether the path still leads to this directory.
    ///
    /// # Errors
    /// Returns the error of the operating system, except if the path does not exist.
    pub(crate) fn is_at_path(&self) -> io::Result<bool> {
        let own = self.handle.metadata()?;
        match fs::metadata(&self.path) {
            Ok(now) => Ok(FileId::of(&now) == FileId::of(&own)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the path of a file in it, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the batches in the directory, the oldest first. Warns once about each entry that has
    /// the name of a batch and is not a regular file.
    pub(crate) fn batches(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            let Ok(text) = entry.file_name().to_str() else { continue };
            let Some((name, kind)) = BatchName::parse(self.extension, text) else { continue };
            let stat = match statat(&self.handle, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                found.push(Found { name, kind, bytes: stat.st_size.max(0) as u64 });
            } else {
                tracing::warn!(
                    "ignored {}: it has the name of a batch, but is not a regular file",
                    self.path_of(text).display()
                );
            }
        }
        found.sort_by_key(|found| found.name.number);
        Ok(found)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Returns the system's error, or [`io::ErrorKind::InvalidInput`] if it is not a regular file.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_file(name)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Returns the system's error, or [`io::ErrorKind::InvalidInput`] if it is not a regular file.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.handle, name, flags, Mode::empty()) {
            Err(Errno::LOOP) => return Err(not_regular("a symbolic link")),
            file => File::from(file?),
        };
        if let Some(kind) = unusable(file.metadata()?.file_type()) {
            return Err(not_regular(kind));
        }
        Ok(file)
    }

    /// Creates an empty file to append to.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Opens a file to append to.
    pub(crate) fn open_to_write(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.handle, name, flags, Mode::empty())?))
    }

    /// Returns the numbers of the open segments, the lowest first.
    pub(crate) fn open_segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            found.extend(entry.file_name().to_str().ok().and_then(parse_open));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Reads a file by its path, if the directory handle is stale.
    pub(crate) fn read_by_path(&self, name: &str) -> io::Result<Vec<u8>> {
        watched_files::regular_file::read(&self.path_of(name))
    }

    /// Writes a file atomically: afterwards it is complete and synced, or does not exist.
    pub(crate) fn write(&self, kind: Kind, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = match kind {
            Kind::Pending => TEMPORARY[0],
            Kind::Rejected => TEMPORARY[1],
        };
        match unlinkat(&self.handle, temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(&self.handle, temporary, flags, mode)?);
        let written = file.write_all(content).and_then(|()| file.sync_data());
        let named = written.and_then(|()| {
            renameat(&self.handle, temporary, &self.handle, name).map_err(io::Error::from)
        });
        if let Err(error) = named {
            // Frees its disk space, which may be scarce.
            let _ = unlinkat(&self.handle, temporary, AtFlags::empty());
            return Err(error);
        }
        // The batch will be written again under another name, and must not be sent twice.
        self.sync().inspect_err(|_| {
            let _ = unlinkat(&self.handle, name, AtFlags::empty());
        })
    }

    /// Renames a file. The new name must be unused.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match renameat_with(&self.handle, from, &self.handle, to, RenameFlags::NOREPLACE) {
            // The file system does not support the flag. No other process creates files in this
            // directory.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match statat(&self.handle, to, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => renameat(&self.handle, from, &self.handle, to)?,
                    Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                    Err(error) => return Err(error.into()),
                }
            }
            renamed => renamed?,
        }
        self.sync()
    }

    /// Removes a file. It is not an error if the file does not exist.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

fn not_regular(kind: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a regular file"))
}

/// Locks the directory, or a file in it if the file system cannot lock directories.
fn lock(directory: &File) -> io::Result<Option<File>> {
    let busy = || {
        io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process, or another backend of this one, uses it; a spool directory has one \
             owner",
        )
    };
    match try_lock(directory) {
        Lock::Held => return Ok(None),
        Lock::InUse => return Err(busy()),
        Lock::Unsupported(_) => {}
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(directory, LOCK, flags, Mode::RUSR | Mode::WUSR)?);
    match try_lock(&file) {
        Lock::Held => Ok(Some(file)),
        Lock::InUse => Err(busy()),
        Lock::Unsupported(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::TestFolder;

    #[test]
    fn a_directory_has_one_owner_however_its_path_is_spelled() {
        let dir = TestFolder::new();
        let path = dir.path().join("spool");
        let first = Directory::open(&path, "json").unwrap();
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        for same in ["spool", "link", "spool/../spool"] {
            let error = Directory::open(&dir.path().join(same), "json").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{same}: {error}");
        }
        drop(first);
        Directory::open(&path, "json").unwrap();
    }

    #[test]
    fn files_are_written_whole_and_never_overwritten() {
        let dir = TestFolder::new();
        let directory = Directory::open(dir.path(), "json").unwrap();
        directory.write(Kind::Pending, "a", b"one").unwrap();
        directory.write(Kind::Rejected, "b", b"two").unwrap();
        let error = directory.rename("a", "b").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((directory.read("a").unwrap(), directory.read("b").unwrap()), {
            (b"one".to_vec(), b"two".to_vec())
        });
        directory.remove("a").unwrap();
        directory.remove("a").unwrap();
        assert_eq!(directory.read("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        std::os::unix::fs::symlink("b", dir.path().join("c")).unwrap();
        assert!(directory.read("c").unwrap_err().to_string().contains("a symbolic link"));
        assert!(directory.is_at_path().unwrap());
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(!directory.is_at_path().unwrap());
        assert!(directory.write(Kind::Pending, "a", b"one").is_err());
        fs::create_dir(dir.path()).unwrap();
        assert!(!directory.is_at_path().unwrap());
    }
}

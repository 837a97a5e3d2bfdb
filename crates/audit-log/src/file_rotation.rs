//! Rotates the log file and its seal.

use std::io;

use super::disk;
use super::file::LogFile;
use super::open_file::OpenFile;

impl LogFile {
    /// Renames the file to a backup and opens a new one. If that fails, the current file is used
    /// further, whatever its size.
    pub(super) fn rotate(&mut self) {
        let Some(rotator) = &mut self.rotator else {
            return;
        };
        if self.complained {
            // The file was moved already, and the process is not permitted to create a new one.
            rotator.failed();
            return;
        }
        match self.set_aside() {
            Ok(new) => {
                new.resemble(&self.open);
                if let Some(seal) = &mut self.seal {
                    seal.begin_file(new.file.clone());
                }
                self.replace(new);
                if let Some(rotator) = &mut self.rotator {
                    rotator.rotated();
                }
            }
            Err(error) => {
                tracing::error!(
                    "cannot rotate the audit log {}: {error}; it grows until its directory can be \
                     written to",
                    self.path.display()
                );
                if let Some(rotator) = &mut self.rotator {
                    rotator.failed();
                }
            }
        }
    }

    /// Renames the seal, then the log, and opens a new log. If that fails, both are renamed back.
    /// After a crash, a seal without its log next to a log without its seal shows recovery that the
    /// rotation was interrupted.
    fn set_aside(&mut self) -> io::Result<OpenFile> {
        let backup = self.namer.next()?;
        self.kept.rotate(&backup, self.seal.is_some());
        if let Some(seal) = &mut self.seal {
            seal.rotate(&backup)?;
        }
        let renamed = disk::rename(&self.path, &backup);
        let opened = renamed.and_then(|()| {
            OpenFile::open(&self.path).inspect_err(|_| {
                if let Err(error) = disk::rename(&backup, &self.path) {
                    // The next check detects that the file is missing, and tries to create a new
                    // one.
                    tracing::error!("cannot rename {} back: {error}", backup.display());
                }
            })
        });
        opened.inspect_err(|_| {
            if let Some(seal) = &mut self.seal {
                seal.undo_rotation();
            }
        })
    }
}

//! Updates the seal when another process moves, deletes or truncates the log file.

use std::io::{self, Seek, SeekFrom};

use super::file::LogFile;
use super::open_file::OpenFile;
use super::seal::{Late, Lines};

/// Maximum size of the lines that are written between a truncation and its detection. A larger file
/// was not truncated by logrotate.
const LEFT: u64 = 64 << 20;

impl LogFile {
    /// Closes a full block. Checks the file first: a truncation that is detected later could not be
    /// distinguished from removed lines.
    pub(super) fn close_block(&mut self) {
        use super::output::Output;
        let _ = self.check();
        if let Some(seal) = &mut self.seal {
            seal.close(None);
        }
    }

    /// Handles a file that was opened in place of `old`, or the same file opened again.
    pub(super) fn seal_opened(&mut self, old: &OpenFile) {
        let Some(seal) = &mut self.seal else { return };
        let log = self.open.file.clone();
        if old.id == self.open.id {
            seal.same_file(log);
            return;
        }
        let result = self.namer.next().and_then(|name| {
            seal.next_file(log, &name);
            let lines = self.open.file.try_clone()?;
            (&lines).seek(SeekFrom::Start(0))?;
            seal.adopt(&mut Lines::new(lines), Late::Opened)
        });
        self.seal_error(result);
    }

    /// Handles a truncation of the file to `bytes` bytes by another process.
    pub(super) fn was_cut(&mut self, bytes: u64) {
        let Some(seal) = &mut self.seal else { return };
        let mut left = Vec::new();
        let result = self.namer.next().and_then(|name| {
            if bytes <= LEFT {
                let file = self.open.file.try_clone()?;
                (&file).seek(SeekFrom::Start(0))?;
                let mut lines = Lines::new(file);
                while let Some(line) = lines.next()? {
                    left.push(line);
                }
                if seal.cut(&left, self.open.file.clone(), &name) {
                    tracing::info!(
                        "the audit log {} was truncated by another process, such as logrotate with copytruncate",
                        self.path.display()
                    );
                    return Ok(());
                }
            }
            tracing::error!(
                "{} bytes of the audit log {} were removed by another process",
                self.open.size - bytes,
                self.path.display()
            );
            Ok(())
        });
        self.seal_error(result);
    }

    fn seal_error(&self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(
                "the audit log {} was changed by another process and cannot be sealed in its current \
                 state: {error}",
                self.path.display()
            );
        }
    }
}

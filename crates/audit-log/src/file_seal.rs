//! Handles the seal when another process moves, deletes or truncates the log file.

use std::io::{self, Seek, SeekFrom};

use super::file::LogFile;
use super::open_file::OpenFile;
use super::seal::{Late, Lines};

/// Lines that may come between a cut and our noticing it; a file with more was not cut by
/// logrotate.
const LEFT: u64 = 64 << 20;

impl LogFile {
    /// Closes a block that is full. What the file is now is looked at before: a cut that is noticed
    /// later could not be told from lines that were removed.
    pub(super) fn close_block(&mut self) {
        use super::output::Output;
        let _ = self.check();
        if let Some(seal) = &mut self.seal {
            seal.close(None);
        }
    }

    /// Another file was opened in the place of `old`, or the same once more.
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

    /// Another process has truncated the file to this many bytes.
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

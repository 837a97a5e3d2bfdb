//! Digests of written lines that are not sealed yet.
//!
//! This runs while the output is locked, so it only computes. [`super::chain`] writes the files.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::super::line::Line as EventLine;
use super::digest::{Sha256, sha256};
use super::lines::{Line, Lines};
use super::record::{IndexDigest, Late};
use super::seal_file::SealFile;

/// Maximum number of lines in a block, so that a record is never larger than some 45 kB.
const LINES: usize = 4096;

/// Maximum size of a block in bytes, unless it is a single line.
const BYTES: u64 = 4 << 20;

/// Maximum number of lines (32 bytes each) that wait while the seal cannot be written. Lines beyond
/// it stay unsealed.
const WAITING: usize = 1 << 20;

/// A log file of the chain.
#[derive(Debug)]
pub(crate) struct SealedFile {
    /// The number of the file in the chain.
    pub number: u64,
    pub log: Arc<File>,
    pub seal: Arc<Mutex<SealFile>>,
}

impl SealedFile {
    pub(crate) fn new(number: u64, log: Arc<File>, seal: PathBuf) -> Arc<SealedFile> {
        let seal = Arc::new(Mutex::new(SealFile::new(seal)));
        Arc::new(SealedFile { number, log, seal })
    }
}

/// Lines that are sealed together.
#[derive(Debug)]
pub(crate) struct Block {
    pub file: Arc<SealedFile>,
    /// The number of the first line in its file, from 1.
    pub line: u64,
    /// The offset of the first line in its file, in bytes.
    pub offset: u64,
    pub lines: u64,
    pub bytes: u64,
    /// The digest of each line; empty for [`Late::Skipped`].
    pub hashes: Vec<Sha256>,
    pub time: SystemTime,
    pub late: Option<Late>,
    pub stopped: bool,
    /// Index files whose digests go into the same record.
    pub indexes: Vec<IndexDigest>,
}

/// The lines of one log that are to be sealed.
#[derive(Debug)]
pub(crate) struct LogSeal {
    file: Arc<SealedFile>,
    /// The path of the seal of the active log file.
    path: PathBuf,
    /// The number of the first line in the open block.
    line: u64,
    offset: u64,
    open: Vec<Line>,
    open_bytes: u64,
    /// Lines of the open block that stay unsealed, because too many lines wait.
    skipped: u64,
    closed: VecDeque<Block>,
    /// Number of digests in `closed`.
    waiting: usize,
    /// [`WAITING`], or a smaller limit in tests.
    limit: usize,
    /// The partial line at the end of the file.
    fragment: Vec<u8>,
    /// Whether lines are rejected while the seal cannot be written.
    strict: bool,
    failed: Option<String>,
    /// The start record is not written yet, and no line may be written before it: after a graceful
    /// shutdown and a later crash, such a line would look like an inserted one.
    unstarted: bool,
    /// During a rotation, the path of the backup for which the seal was renamed.
    rotating: Option<PathBuf>,
    /// Rotated files, with their numbers, that may not be sealed completely.
    pending: Vec<(u64, PathBuf)>,
}

impl LogSeal {
    /// Creates the state for `file`, whose next line has the number `line` and begins at `offset`.
    pub(crate) fn new(file: Arc<SealedFile>, path: PathBuf, line: u64, offset: u64) -> LogSeal {
        LogSeal {
            file,
            path,
            line,
            offset,
            open: Vec::new(),
            open_bytes: 0,
            skipped: 0,
            closed: VecDeque::new(),
            waiting: 0,
            limit: WAITING,
            fragment: Vec::new(),
            strict: false,
            failed: None,
            unstarted: false,
            rotating: None,
            pending: Vec::new(),
        }
    }

    /// Sets whether lines are rejected while the seal cannot be written.
    pub(crate) fn strict(self, strict: bool) -> LogSeal {
        LogSeal { strict, ..self }
    }

    /// Returns the error for writing a line now, if lines are rejected.
    pub(crate) fn refusal(&self) -> Option<io::Error> {
        let reason = self.failed.as_ref().filter(|_| self.strict || self.unstarted)?;
        Some(io::Error::other(format!("its seal cannot be written: {reason}")))
    }

    #[cfg(test)]
    pub(crate) fn limited(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Appends the waiting blocks of `next`, which becomes the current file.
    pub(crate) fn followed_by(mut self, mut next: LogSeal) -> LogSeal {
        self.close(None);
        self.closed.append(&mut next.closed);
        LogSeal { closed: self.closed, waiting: self.waiting + next.waiting, ..next }
    }

    /// Adds lines that were written to the file. `ended` means that the partial line before them
    /// was terminated with a newline.
    pub(crate) fn wrote(&mut self, ended: bool, lines: &[EventLine]) {
        if ended && !self.fragment.is_empty() {
            self.fragment.push(b'\n');
            let fragment = std::mem::take(&mut self.fragment);
            self.add(sha256(&fragment), fragment.len() as u64);
        }
        for line in lines {
            if self.waiting < self.limit {
                self.add(sha256(line), line.len() as u64);
            } else {
                self.skip(line.len() as u64);
            }
        }
    }

    /// Sets the partial line with which the file ends.
    pub(crate) fn torn(&mut self, fragment: &[u8]) {
        self.fragment = fragment.to_vec();
    }

    /// Returns whether the open block must be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= LINES || self.open_bytes >= BYTES
    }

    /// Closes the open block, unless it is empty.
    pub(crate) fn close(&mut self, late: Option<Late>) {
        if !self.open.is_empty() {
            let hashes = self.open.iter().map(|line| line.hash).collect();
            let (lines, bytes) = (self.open.len() as u64, std::mem::take(&mut self.open_bytes));
            self.open.clear();
            self.push(lines, bytes, hashes, late);
        } else if self.skipped > 0 {
            let lines = std::mem::take(&mut self.skipped);
            let bytes = std::mem::take(&mut self.open_bytes);
            self.push(lines, bytes, Vec::new(), Some(Late::Skipped));
        }
    }

    /// Closes the open block and returns all blocks that are to be sealed. `stopped` means that no
    /// line follows.
    pub(crate) fn take(&mut self, stopped: bool) -> VecDeque<Block> {
        self.close(None);
        // A partial line is not sealed, so the shutdown is not graceful if there is one.
        if stopped && self.fragment.is_empty() {
            self.push(0, 0, Vec::new(), None);
            if let Some(last) = self.closed.back_mut() {
                last.stopped = true;
            }
        }
        self.waiting = 0;
        std::mem::take(&mut self.closed)
    }

    /// Takes back the blocks that could not be sealed, and the reason. Returns the rotated files
    /// that are not sealed completely.
    pub(crate) fn outcome(
        &mut self,
        mut unsealed: VecDeque<Block>,
        failed: Option<String>,
    ) -> BTreeSet<PathBuf> {
        self.unstarted &= failed.is_some();
        self.failed = failed;
        unsealed.append(&mut self.closed);
        self.closed = unsealed;
        self.waiting = self.closed.iter().map(|block| block.hashes.len()).sum();
        let waits = |number| self.closed.iter().any(|block| block.file.number == number);
        self.pending.retain(|(number, _)| waits(*number));
        self.pending.iter().map(|(_, path)| path.clone()).collect()
    }

    /// Adds the start record: a record without lines, which ends recovery and precedes the lines of
    /// this process.
    pub(crate) fn start(&mut self, late: Option<Late>) {
        self.close(None);
        self.push(0, 0, Vec::new(), late);
    }

    /// Notes that the start record could not be written. No line may be written before it.
    pub(crate) fn not_started(&mut self, reason: String) {
        (self.unstarted, self.failed) = (true, Some(reason));
    }

    /// The first step of a rotation: renames the seal to the name that belongs to `backup`.
    pub(crate) fn rotate(&mut self, backup: &Path) -> io::Result<()> {
        let seal = super::seal_path(backup);
        self.file.seal.lock().expect("nothing panics that holds it").rename(&seal)?;
        self.rotating = Some(backup.to_owned());
        Ok(())
    }

    /// Renames the seal back after the log could not be rotated.
    pub(crate) fn undo_rotation(&mut self) {
        self.rotating = None;
        let result =
            self.file.seal.lock().expect("nothing panics that holds it").rename(&self.path);
        if let Err(error) = result {
            tracing::error!(
                "cannot rename the audit log's seal back to {}: {error}; `log verify` finds it by its \
                 content",
                self.path.display()
            );
        }
    }

    /// Begins a new file. Its seal is created with its first block.
    pub(crate) fn begin_file(&mut self, log: Arc<File>) {
        if !self.fragment.is_empty() {
            // The previous file keeps its partial line.
            let fragment = std::mem::take(&mut self.fragment);
            self.add(sha256(&fragment), fragment.len() as u64);
        }
        self.close(None);
        if let Some(backup) = self.rotating.take() {
            self.pending.push((self.file.number, backup));
        }
        self.file = SealedFile::new(self.file.number + 1, log, self.path.clone());
        (self.line, self.offset) = (1, 0);
    }

    /// Begins a new file after another program has moved the log. The seal of the previous file is
    /// renamed to the name that belongs to `renamed`, even if the log has got another name.
    pub(crate) fn next_file(&mut self, log: Arc<File>, renamed: &Path) {
        let seal = super::seal_path(renamed);
        let result = self.file.seal.lock().expect("nothing panics that holds it").rename(&seal);
        if let Err(error) = result {
            tracing::error!("cannot rename the audit log's seal to {}: {error}", seal.display());
        }
        self.begin_file(log);
    }

    /// Continues with the same file after it was reopened.
    pub(crate) fn same_file(&mut self, log: Arc<File>) {
        self.close(None);
        let (number, seal) = (self.file.number, self.file.seal.clone());
        self.file = Arc::new(SealedFile { number, log, seal });
    }

    /// Adds lines that another process has written.
    pub(crate) fn adopt(&mut self, lines: &mut Lines<impl Read>, late: Late) -> io::Result<()> {
        self.close(None);
        self.adopt_some(lines, late, false, usize::MAX).map(|_| ())
    }

    /// Adds lines that another process has written, until `blocks` blocks wait; then returns
    /// `true`. `ended` means that nothing will be appended to the file, so its last line needs no
    /// newline.
    pub(crate) fn adopt_some(
        &mut self,
        lines: &mut Lines<impl Read>,
        late: Late,
        ended: bool,
        blocks: usize,
    ) -> io::Result<bool> {
        while self.closed.len() < blocks {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.close(Some(late));
                    return Ok(false);
                }
                Err(error) => {
                    self.close(Some(late));
                    return Err(error);
                }
            };
            if !line.whole && !ended {
                self.close(Some(late));
                self.fragment = self.last(line.bytes)?;
                return Ok(false);
            }
            if self.waiting >= self.limit {
                self.skip(line.bytes);
                continue;
            }
            self.add(line.hash, line.bytes);
            if self.is_full() {
                self.close(Some(late));
            }
        }
        Ok(true)
    }

    /// Handles a truncation by another process, after which the file has the lines `left`. Returns
    /// `true` if these are exactly the most recently written lines, like after logrotate's
    /// copytruncate; a new file then begins with them. Returns `false` if lines were removed.
    pub(crate) fn cut(&mut self, left: &[Line], log: Arc<File>, renamed: &Path) -> bool {
        let Some(before) = self.open.len().checked_sub(left.len()) else { return false };
        if self.skipped > 0 || self.open[before..].iter().ne(left) {
            return false;
        }
        let after = self.open.split_off(before);
        self.open_bytes -= after.iter().map(|line| line.bytes).sum::<u64>();
        self.fragment.clear();
        self.next_file(log, renamed);
        self.open_bytes = after.iter().map(|line| line.bytes).sum();
        self.open = after;
        true
    }

    fn add(&mut self, hash: Sha256, bytes: u64) {
        if self.skipped > 0 {
            self.close(None);
        }
        self.open.push(Line { hash, bytes, whole: true });
        self.open_bytes += bytes;
    }

    fn skip(&mut self, bytes: u64) {
        if !self.open.is_empty() {
            self.close(None);
        }
        self.skipped += 1;
        self.open_bytes += bytes;
    }

    fn push(&mut self, lines: u64, bytes: u64, hashes: Vec<Sha256>, late: Option<Late>) {
        let (line, offset) = (self.line, self.offset);
        self.line += lines;
        self.offset += bytes;
        self.waiting += hashes.len();
        let (file, time) = (self.file.clone(), SystemTime::now());
        let (stopped, indexes) = (false, Vec::new());
        let block =
            Block { file, line, offset, lines, bytes, hashes, time, late, stopped, indexes };
        self.closed.push_back(block);
    }

    /// Returns the last bytes of the file.
    fn last(&self, bytes: u64) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let size = self.file.log.metadata()?.len();
        let mut last = vec![0; bytes as usize];
        self.file.log.read_exact_at(&mut last, size.saturating_sub(bytes))?;
        Ok(last)
    }
}

//! Signs blocks and appends their records to the seal files, while other threads write the log.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::checkpoint::Checkpoint;
use super::key::SealKey;
use super::log_seal::Block;
use super::record::{Head, Late, Record, sign};
use crate::LogMetrics;

/// The chain of one log.
#[derive(Debug)]
pub(crate) struct Chain {
    key: SealKey,
    id: String,
    /// The last record; `None` before the first.
    head: Option<Head>,
    /// Seal files with records that may not be on the disk yet.
    unsynced: Vec<Arc<File>>,
    folder: Option<PathBuf>,
    /// The number of the log file that the last record covers.
    file: u64,
    checkpoint: PathBuf,
    /// The record in the checkpoint file on the disk, and its file number.
    checkpointed: Option<(Head, u64)>,
    head_interval: Duration,
    announced: Option<Head>,
    announce_at: Instant,
    metrics: Arc<LogMetrics>,
}

impl Chain {
    /// Creates a chain that continues after `head`, or begins with block 1.
    pub(crate) fn new(
        key: SealKey,
        id: String,
        head: Option<Head>,
        checkpoint: PathBuf,
        head_interval: Duration,
        metrics: Arc<LogMetrics>,
    ) -> Chain {
        Chain {
            key,
            id,
            head,
            unsynced: Vec::new(),
            folder: None,
            file: 0,
            checkpoint,
            checkpointed: None,
            head_interval,
            announced: None,
            announce_at: Instant::now(),
            metrics,
        }
    }

    /// Seals the blocks, in order, and removes the sealed ones from `blocks`. Lines are synced
    /// before their records. When this returns without an error, the records are on the disk.
    pub(crate) fn seal(&mut self, blocks: &mut VecDeque<Block>) -> io::Result<()> {
        let mut synced: Option<Arc<File>> = None;
        let mut stopped = false;
        while let Some(block) = blocks.front() {
            if !synced.as_ref().is_some_and(|log| Arc::ptr_eq(log, &block.file.log)) {
                block.file.log.sync_data()?;
                synced = Some(block.file.log.clone());
            }
            self.append(block)?;
            stopped = block.stopped;
            blocks.pop_front();
            if stopped {
                self.announce_at = Instant::now();
            }
        }
        while let Some(file) = self.unsynced.last() {
            file.sync_data()?;
            self.unsynced.pop();
        }
        if let Some(folder) = &self.folder {
            File::open(folder)?.sync_all()?;
            self.folder = None;
        }
        self.write_checkpoint(stopped)?;
        self.announce();
        Ok(())
    }

    /// Must be called after the records are synced: if the machine crashed while the checkpoint was
    /// ahead of them, verification would report tampering.
    fn write_checkpoint(&mut self, stopped: bool) -> io::Result<()> {
        let Some(head) = self.head.filter(|_| self.file > 0) else { return Ok(()) };
        let new = Some((head, self.file));
        if self.checkpointed == new {
            return Ok(());
        }
        let sync = stopped || self.checkpointed.is_none_or(|(_, file)| file != self.file);
        let checkpoint = Checkpoint::new(&self.id, &head, self.file, self.key.public());
        checkpoint.write(&self.checkpoint, &self.key, sync).map_err(|error| {
            let path = self.checkpoint.display();
            io::Error::new(error.kind(), format!("cannot write the checkpoint {path}: {error}"))
        })?;
        self.checkpointed = new;
        Ok(())
    }

    fn append(&mut self, block: &Block) -> io::Result<()> {
        let mut record = Record::new(&self.id, self.head.as_ref(), self.key.public());
        record.file = block.file.number;
        (record.line, record.offset) = (block.line, block.offset);
        (record.lines, record.bytes) = (block.lines, block.bytes);
        record.time = OffsetDateTime::from(block.time)
            .replace_nanosecond(0)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .format(&Rfc3339)
            .map_err(io::Error::other)?;
        (record.late, record.stopped) = (block.late, block.stopped);
        record.set_digests(&block.hashes);
        record.indexes.clone_from(&block.indexes);
        let mut line = sign(&record, &self.key)?;
        let hash = super::digest::sha256(&line);
        line.push(b'\n');
        let mut seal = block.file.seal.lock().expect("nothing panics that holds it");
        if seal.append(&line, &block.file.log)? {
            self.folder = Some(seal.folder());
        }
        if let Some(file) = seal.file()
            && !self.unsynced.iter().any(|other| Arc::ptr_eq(other, &file))
        {
            self.unsynced.push(file);
        }
        self.head = Some(Head { block: record.block, hash });
        self.file = block.file.number;
        self.metrics.seal.blocks.inc();
        if block.late == Some(Late::Skipped) {
            self.metrics.seal.skipped_lines.inc_by(block.lines);
        }
        Ok(())
    }

    /// Logs the head. Must be called after the records are synced: a head without a record would
    /// look like a truncated seal.
    fn announce(&mut self) {
        let now = Instant::now();
        if self.head == self.announced || now < self.announce_at {
            return;
        }
        if let Some(head) = &self.head {
            tracing::info!(%head, key = %self.key.public(), "audit log sealed");
        }
        self.announced = self.head;
        self.announce_at = now.checked_add(self.head_interval).unwrap_or(now);
    }
}

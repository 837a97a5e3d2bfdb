//! Signs blocks and writes them to the seal files, one after the other, while others write the log.

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
    /// The last record.
    head: Option<Head>,
    /// Written to, but perhaps not on the disk.
    unsynced: Vec<Arc<File>>,
    folder: Option<PathBuf>,
    /// The number of the file that the last record is of.
    file: u64,
    checkpoint: PathBuf,
    /// The last record that the checkpoint on the disk is of, and its file.
    checkpointed: Option<(Head, u64)>,
    head_interval: Duration,
    announced: Option<Head>,
    announce_at: Instant,
    metrics: Arc<LogMetrics>,
}

impl Chain {
    /// Goes on after `head`, or begins with block 1.
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

    /// Seals the blocks, in order, and takes away those that are. When it returns without an
    /// error, their records are on the disk, and so were their lines before.
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

    /// Only when the records are on the disk: a checkpoint ahead of them would accuse a machine
    /// that failed.
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

    /// Only what is on the disk: a head that the seal has not would look like a cut seal.
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

//! A sealed log for tests, with a clock that the test sets.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::verify::{Expected, Report, verify};
use super::{Chain, Head, PublicKey, SealConfig, SealKey};
use crate::LogMetrics;
use crate::file::LogFile;
use crate::file::tests::exclusive;
use crate::output::Output;
use crate::test_folder::TestFolder;

/// Size in bytes at which the log is rotated.
pub(crate) const LIMIT: u64 = 3_000;

/// The open log `audit.log` of a directory.
pub(crate) struct SealedLog {
    pub log: LogFile,
    pub chain: Chain,
    pub metrics: Arc<LogMetrics>,
    lines: u64,
}

impl SealedLog {
    /// Opens the log. The key in the directory is generated once and then kept.
    pub(crate) fn open(folder: &TestFolder) -> SealedLog {
        let key_file = folder.join("key.pem");
        if !key_file.exists() {
            let key = SealKey::generate().unwrap();
            fs::write(&key_file, key.to_pem().unwrap()).unwrap();
        }
        let metrics = Arc::new(LogMetrics::default());
        let path = folder.join("audit.log");
        let mut log = exclusive(&path, LIMIT, metrics.clone());
        let config =
            SealConfig { key_file, checkpoint_file: None, head_interval: Duration::from_secs(60) };
        let chain = log.seal(&config, false, metrics.clone()).unwrap();
        SealedLog { log, chain, metrics, lines: 0 }
    }

    /// Writes `count` distinct lines.
    pub(crate) fn write(&mut self, count: u64) {
        for _ in 0..count {
            let mut id = [0; 8];
            aws_lc_rs::rand::fill(&mut id).unwrap();
            let id = u64::from_be_bytes(id);
            self.lines += 1;
            let filler = "x".repeat((id % 60) as usize);
            let line =
                format!("{{\"auditID\":\"{id:016x}\",\"n\":{},\"f\":\"{filler}\"}}\n", self.lines);
            assert!(self.log.write(&[line.into_bytes().into()]).error.is_none());
        }
    }

    /// Does one round of the sealing thread, which runs once a second.
    pub(crate) fn seal(&mut self, stopped: bool) {
        self.log.check().unwrap();
        let mut blocks = self.log.unsealed(stopped);
        let result = self.chain.seal(&mut blocks);
        self.log.sealed(blocks, result.err().map(|error| error.to_string()));
    }

    /// Shuts down gracefully.
    pub(crate) fn stop(mut self) {
        self.seal(true);
    }
}

/// Returns the public key of the log in the directory.
pub(crate) fn public_key(folder: &Path) -> PublicKey {
    SealKey::load(&folder.join("key.pem")).unwrap().public()
}

/// Verifies `audit.log` and its rotated files.
pub(crate) fn check(folder: &Path, heads: &[Head]) -> Report {
    let keys = [public_key(folder)];
    let expected = Expected { keys: &keys, heads, checkpoints: &[] };
    verify(&[folder.join("audit.log")], expected).unwrap()
}

/// Verifies these files with these keys.
pub(crate) fn verify_by(files: &[PathBuf], keys: &[PublicKey]) -> io::Result<Report> {
    verify(files, Expected { keys, ..Expected::default() })
}

/// Returns the files of the directory with this suffix, sorted by name.
pub(crate) fn with_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    paths.sort();
    paths
}

/// Compresses a rotated file like the cleanup does.
pub(crate) fn compress(path: &Path) -> PathBuf {
    let to = path.with_extension("log.gz");
    fs::write(&to, gzip(&fs::read(path).unwrap())).unwrap();
    fs::remove_file(path).unwrap();
    to
}

/// Compresses bytes with gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

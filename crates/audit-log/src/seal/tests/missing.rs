//! Tests of a start with missing files: a seal, a checkpoint, records that a crash has prevented,
//! the lock.

use std::fs;
use std::sync::Arc;

use super::faults::{intact, warnings};
use super::sealed_log::{SealedLog, check, compress, public_key, with_ending};
use super::verify::{Expected, Kind, verify};
use crate::clock::Clock;
use crate::config::Rotation;
use crate::file::LogFile;
use crate::test_folder::TestFolder;

/// Returns a sealed log of four lines after a graceful shutdown.
fn stopped() -> TestFolder {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(4);
    log.stop();
    folder
}

fn change_line(folder: &TestFolder) {
    let text = folder.read("audit.log").replacen("auditID", "auditId", 1);
    fs::write(folder.join("audit.log"), text).unwrap();
}

#[test]
fn a_deleted_seal_is_reported_even_after_restarts() {
    let folder = stopped();
    change_line(&folder);
    fs::remove_file(folder.join("audit.log.seal")).unwrap();
    let report = check(folder.path(), &[]);
    assert_eq!(report.findings[0].kind, Kind::NoSeal, "{:?}", report.findings);
    assert!(report.findings[0].what.contains("there is no seal"), "{:?}", report.findings);
    for _ in 0..2 {
        let mut log = SealedLog::open(&folder);
        log.write(2);
        log.stop();
        let report = check(folder.path(), &[]);
        let lost = report.findings.iter().find(|finding| finding.what.contains("lines 1-4"));
        let lost = lost.unwrap_or_else(|| panic!("{:?}", report.findings));
        assert_eq!((lost.kind, lost.line), (Kind::NoSeal, Some(1)));
        assert_eq!(report.lines, if report.blocks > 4 { 8 } else { 6 });
    }
}

#[test]
fn a_seal_that_was_put_back_is_noticed_at_the_start() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(2);
    log.seal(false);
    let older = fs::read(folder.join("audit.log.seal")).unwrap();
    log.write(2);
    log.stop();
    fs::write(folder.join("audit.log.seal"), older).unwrap();
    let log = SealedLog::open(&folder);
    assert_eq!(log.metrics.seal.broken.get(), 1);
    log.stop();
    let report = check(folder.path(), &[]);
    let told: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    assert!(told.contains("removed before block"), "{told}");
    assert!(told.contains("lines 3-4 were found without their seal"), "{told}");
}

#[test]
fn a_checkpoint_elsewhere_shows_that_everything_was_deleted() {
    let (folder, elsewhere) = (stopped(), TestFolder::new());
    let checkpoint = elsewhere.join("checkpoint");
    fs::rename(folder.join("audit.log.checkpoint"), &checkpoint).unwrap();
    assert!(check(folder.path(), &[]).is_intact());
    let keys = [public_key(folder.path())];
    let checkpoints = [checkpoint];
    let expected = Expected { keys: &keys, heads: &[], checkpoints: &checkpoints };
    let files = [folder.join("audit.log")];
    assert!(verify(&files, expected).unwrap().is_intact());
    fs::remove_file(folder.join("audit.log.seal")).unwrap();
    assert_eq!(verify(&files, expected).unwrap().findings[0].kind, Kind::NoSeal);
    let missing = [elsewhere.join("missing")];
    assert!(verify(&files, Expected { checkpoints: &missing, ..expected }).is_err());
}

#[test]
fn a_log_that_was_removed_with_its_seal_and_checkpoint_begins_a_new_chain() {
    let folder = stopped();
    for name in ["audit.log", "audit.log.seal", "audit.log.checkpoint"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let mut log = SealedLog::open(&folder);
    assert_eq!(log.metrics.seal.broken.get(), 0);
    log.write(1);
    log.stop();
    intact(&check(folder.path(), &[]), 1);
}

#[test]
fn a_crash_in_the_first_second_after_a_graceful_shutdown_is_not_tampering() {
    let folder = stopped();
    let mut log = SealedLog::open(&folder);
    log.write(3);
    drop(log);
    let report = check(folder.path(), &[]);
    intact(&report, 4);
    assert!(warnings(&report).contains("lines 5-7 are not sealed (yet)"));
    SealedLog::open(&folder).stop();
    let report = check(folder.path(), &[]);
    intact(&report, 7);
    assert!(warnings(&report).contains("lines 5-7 were not sealed before the crash"));
}

#[test]
fn rotations_before_the_first_record_leave_no_file_unsealed_be_it_compressed() {
    for packed in ["gz", "zst"] {
        let folder = TestFolder::new();
        let mut log = SealedLog::open(&folder);
        log.write(150);
        drop(log);
        let rotated = with_ending(folder.path(), ".log");
        assert!(rotated.len() > 3);
        // Deleted like by a retention script.
        let second = &rotated[1];
        if packed == "gz" {
            compress(second);
        } else {
            let bytes = zstd::stream::encode_all(&*fs::read(second).unwrap(), 0).unwrap();
            fs::write(second.with_extension("log.zst"), bytes).unwrap();
            fs::remove_file(second).unwrap();
        }
        SealedLog::open(&folder).stop();
        intact(&check(folder.path(), &[]), 150);
    }
}

#[test]
fn a_damaged_backup_does_not_refuse_the_start() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(150);
    drop(log);
    let packed = compress(&with_ending(folder.path(), ".log")[1]);
    let bytes = fs::read(&packed).unwrap();
    fs::write(&packed, &bytes[..bytes.len() / 2]).unwrap();
    let mut log = SealedLog::open(&folder);
    log.write(1);
    log.stop();
    assert!(!check(folder.path(), &[]).is_intact(), "it is damaged");
}

#[test]
fn a_second_proxy_is_refused_before_it_changes_anything() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(2);
    // A line that is being written: a second process would move it to another file.
    let path = folder.join("audit.log");
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"half\":");
    fs::write(&path, &text).unwrap();
    let names = folder.names();
    let spelled = folder.join("./audit.log");
    let second = LogFile::open_as(&spelled, Rotation::NEVER, Clock::system(), Arc::default(), true);
    let error = second.unwrap_err().to_string();
    assert!(error.contains("already written by another"), "{error}");
    assert_eq!((fs::read(&path).unwrap(), folder.names()), (text, names));
}

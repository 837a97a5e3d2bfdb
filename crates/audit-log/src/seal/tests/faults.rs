//! Tests of the seal when files are rotated, moved, or truncated, and when the process or the disk
//! fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::sealed_log::{SealedLog, check, compress, public_key, verify_by, with_ending};
use super::verify::{Kind, Report};
use super::{Head, SealKey, checkpoint_path, seal_path};
use crate::output::Output;
use crate::test_folder::TestFolder;

pub(super) fn warnings(report: &Report) -> String {
    report.warnings.iter().map(|warning| format!("{warning}\n")).collect()
}

#[track_caller]
pub(super) fn intact(report: &Report, lines: u64) {
    assert!(report.is_intact(), "{:#?}", report.findings);
    assert_eq!(report.lines, lines, "{:#?}", report.warnings);
}

#[test]
fn a_chain_continues_across_rotations_and_restarts() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(100);
    log.seal(false);
    log.write(5);
    log.stop();
    let mut log = SealedLog::open(&folder);
    log.write(20);
    log.stop();
    let rotated = with_ending(folder.path(), "0.log").len();
    let report = check(folder.path(), &[]);
    intact(&report, 125);
    assert!(report.warnings.is_empty(), "{}", warnings(&report));
    assert!(report.files > rotated as u64);
    // Each file can be verified alone, with a note about the missing records before it.
    let second = with_ending(folder.path(), ".log").remove(1);
    let report = verify_by(&[second], &[public_key(folder.path())]).unwrap();
    assert!(report.is_intact() && report.files == 1);
    assert!(warnings(&report).contains("the chain begins at block"), "{}", warnings(&report));
}

#[test]
fn zstd_files_of_other_programs_are_read() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(150);
    log.stop();
    let oldest = with_ending(folder.path(), ".log").remove(0);
    let zstd = |bytes: &[u8]| {
        let compressed = zstd::stream::encode_all(bytes, 0).unwrap();
        fs::write(oldest.with_extension("log.zst"), compressed).unwrap();
    };
    let mut bytes = fs::read(&oldest).unwrap();
    fs::remove_file(&oldest).unwrap();
    zstd(&bytes);
    let report = check(folder.path(), &[]);
    intact(&report, 150);
    assert!(report.warnings.is_empty(), "{}", warnings(&report));
    // An existing checkpoint counts only if its content is valid.
    bytes[5] ^= 1;
    zstd(&bytes);
    assert!(!check(folder.path(), &[]).is_intact());
}

#[test]
fn files_that_retention_has_deleted_are_no_tampering() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(150);
    log.stop();
    let oldest = with_ending(folder.path(), ".log").remove(0);
    fs::remove_file(seal_path(&oldest)).unwrap();
    fs::remove_file(oldest).unwrap();
    let report = check(folder.path(), &[]);
    assert!(report.is_intact(), "{:#?}", report.findings);
    assert!(warnings(&report).contains("earlier files were removed or are kept elsewhere"));
}

#[test]
fn lines_left_unsealed_by_a_crash_are_reported_and_not_tampering() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(10);
    log.seal(false);
    log.write(3);
    drop(log);
    let unsealed = check(folder.path(), &[]);
    intact(&unsealed, 10);
    assert!(warnings(&unsealed).contains("lines 11-13 are not sealed (yet)"));
    SealedLog::open(&folder).stop();
    let report = check(folder.path(), &[]);
    intact(&report, 13);
    assert!(warnings(&report).contains("lines 11-13 were not sealed before the crash"));
}

#[test]
fn a_crash_around_rotations_leaves_nothing_unsealed() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(10);
    log.seal(false);
    // Several files are rotated before anything is sealed.
    log.write(100);
    drop(log);
    compress(
        &with_ending(folder.path(), "0.log")
            .first()
            .cloned()
            .unwrap_or_else(|| with_ending(folder.path(), ".log").remove(1)),
    );
    SealedLog::open(&folder).stop();
    let report = check(folder.path(), &[]);
    intact(&report, 110);
    assert!(warnings(&report).contains("not sealed before the crash"));
}

#[test]
fn a_crash_between_the_two_renames_of_a_rotation_is_repaired() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(10);
    log.seal(false);
    log.write(2);
    drop(log);
    let backup = folder.join("audit-2026-01-01T00-00-00.000.log");
    fs::rename(folder.join("audit.log"), &backup).unwrap();
    let mut log = SealedLog::open(&folder);
    log.write(4);
    log.stop();
    assert!(seal_path(&backup).exists());
    intact(&check(folder.path(), &[]), 16);
}

#[test]
fn lines_that_come_after_an_orderly_end_were_inserted() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(4);
    log.stop();
    let path = folder.join("audit.log");
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"auditID\":\"forged\"}\n");
    fs::write(&path, text).unwrap();
    for restarted in [false, true] {
        if restarted {
            SealedLog::open(&folder).stop();
        }
        let report = check(folder.path(), &[]);
        let finding = &report.findings[0];
        assert_eq!((finding.kind, finding.line), (Kind::Inserted, Some(5)), "{finding}");
    }
}

#[test]
fn only_a_head_shows_an_end_truncated_together_with_its_seal() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(4);
    log.seal(false);
    let (path, seal) = (folder.join("audit.log"), folder.join("audit.log.seal"));
    let checkpoint = checkpoint_path(&path);
    let before = (fs::read(&path).unwrap(), fs::read(&seal).unwrap());
    let checkpoint_before = fs::read(&checkpoint).unwrap();
    log.write(4);
    log.seal(false);
    let head = check(folder.path(), &[]).head.unwrap();
    drop(log);
    fs::write(&path, before.0).unwrap();
    fs::write(&seal, before.1).unwrap();
    let finding = check(folder.path(), &[]).findings.remove(0);
    assert_eq!(finding.kind, Kind::NoSeal, "unless the checkpoint is put back, too: {finding}");
    fs::write(checkpoint, checkpoint_before).unwrap();
    assert!(check(folder.path(), &[]).is_intact());
    let report = check(folder.path(), &[head]);
    assert_eq!(report.findings[0].kind, Kind::Head);
    assert!(report.findings[0].what.contains("its end was removed"));
    // Writing more lines does not hide the truncation.
    let mut log = SealedLog::open(&folder);
    log.write(4);
    log.stop();
    let report = check(folder.path(), &[head]);
    assert_eq!(report.findings[0].kind, Kind::Head, "{:?}", report.findings);
}

#[test]
fn a_token_signed_with_another_key_is_rejected() {
    let folder = TestFolder::new();
    SealedLog::open(&folder).stop();
    let other = SealKey::generate().unwrap().public();
    let files = [folder.join("audit.log")];
    let report = verify_by(&files, &[other]).unwrap();
    assert!(report.findings[0].what.contains("is not a --public-key"));
    // After a change of keys, both are given.
    let before = public_key(folder.path());
    fs::remove_file(folder.join("key.pem")).unwrap();
    let mut log = SealedLog::open(&folder);
    log.write(3);
    log.stop();
    let after = public_key(folder.path());
    assert!(verify_by(&files, &[before, after]).unwrap().is_intact());
    assert!(!verify_by(&files, &[after]).unwrap().is_intact());
}

#[test]
fn logrotate_by_renaming_is_no_tampering() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(5);
    log.seal(false);
    log.write(2);
    let moved = folder.join("audit.log.1");
    fs::rename(folder.join("audit.log"), &moved).unwrap();
    log.write(1);
    log.log.reopen().unwrap();
    log.write(3);
    log.stop();
    let files = [folder.join("audit.log"), moved.clone()];
    let report = verify_by(&files, &[public_key(folder.path())]).unwrap();
    intact(&report, 11);
    // The moved file is reported as missing if it is not given.
    assert_eq!(check(folder.path(), &[]).findings[0].kind, Kind::FileRemoved);
    // The log is moved while the proxy is stopped.
    fs::rename(&moved, folder.join("audit.log.2")).unwrap();
    fs::rename(folder.join("audit.log"), &moved).unwrap();
    let mut log = SealedLog::open(&folder);
    log.write(2);
    log.stop();
    let files = ["audit.log.2", "audit.log.1", "audit.log"].map(|name| folder.join(name));
    intact(&verify_by(&files, &[public_key(folder.path())]).unwrap(), 13);
}

#[test]
fn logrotates_copytruncate_is_no_tampering_if_it_loses_nothing() {
    for (before, after) in [(0, 0), (2, 0), (2, 3), (0, 3)] {
        let folder = TestFolder::new();
        let mut log = SealedLog::open(&folder);
        log.write(5);
        log.seal(false);
        log.write(before);
        let (path, copy) = (folder.join("audit.log"), folder.join("audit.log.1"));
        fs::copy(&path, &copy).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        log.write(after);
        log.seal(false);
        log.write(1);
        log.stop();
        let files = [path, copy];
        let report = verify_by(&files, &[public_key(folder.path())]).unwrap();
        intact(&report, 5 + before + after + 1);
    }
}

#[test]
fn lines_truncated_at_run_time_are_reported() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(5);
    log.seal(false);
    let path = folder.join("audit.log");
    let text = fs::read_to_string(&path).unwrap();
    let two = text.split_inclusive('\n').take(2).map(str::len).sum::<usize>();
    fs::File::options().write(true).open(&path).unwrap().set_len(two as u64).unwrap();
    log.seal(false);
    log.write(2);
    log.stop();
    let report = check(folder.path(), &[]);
    let finding = &report.findings[0];
    assert_eq!((finding.kind, finding.line), (Kind::Removed, Some(3)), "{finding}");
    assert!(finding.what.contains("lines 3-5"), "{finding}");
}

#[test]
fn a_deleted_log_is_missed() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(5);
    log.seal(false);
    fs::remove_file(folder.join("audit.log")).unwrap();
    log.write(1);
    log.seal(false);
    log.stop();
    assert_eq!(check(folder.path(), &[]).findings[0].kind, Kind::FileRemoved);
}

#[test]
fn a_log_that_was_there_before_is_sealed_as_it_is() {
    let folder = TestFolder::new();
    fs::write(folder.join("audit.log"), "{}\n{\"a\":1}\n").unwrap();
    let mut log = SealedLog::open(&folder);
    log.write(1);
    log.stop();
    let report = check(folder.path(), &[]);
    intact(&report, 3);
    assert!(warnings(&report).contains("lines 1-2 are from before the chain"));
}

#[test]
fn a_partial_record_left_by_a_crash_is_truncated_at_startup() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(5);
    log.seal(false);
    drop(log);
    let seal = folder.join("audit.log.seal");
    let mut bytes = fs::read(&seal).unwrap();
    // The beginning of another record, which was not completely on the disk when the machine
    // crashed.
    bytes.extend_from_within(..bytes.len() / 3);
    assert!(!bytes.ends_with(b"\n"));
    fs::write(&seal, bytes).unwrap();
    assert!(check(folder.path(), &[]).is_intact());
    SealedLog::open(&folder).stop();
    intact(&check(folder.path(), &[]), 5);
}

#[test]
fn lines_are_sealed_later_if_the_seal_cannot_be_written() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(5);
    log.seal(false);
    // A directory in place of the seal: not even root can write it.
    let seal = folder.join("audit.log.seal");
    fs::rename(&seal, folder.join("aside")).unwrap();
    fs::create_dir(&seal).unwrap();
    log.write(3);
    log.seal(false);
    log.write(2);
    log.seal(false);
    fs::remove_dir(&seal).unwrap();
    fs::rename(folder.join("aside"), &seal).unwrap();
    log.seal(false);
    log.stop();
    let report = check(folder.path(), &[]);
    intact(&report, 10);
    assert!(report.warnings.is_empty(), "{}", warnings(&report));
}

#[test]
fn the_seal_can_be_read_by_whoever_can_read_the_log() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    SealedLog::open(&folder).stop();
    let mode = fs::metadata(seal_path(&path)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn what_is_no_sealed_log_is_no_verdict() {
    let folder = TestFolder::new();
    let none = |path: PathBuf| verify_by(&[path], &[]).unwrap_err().to_string();
    assert!(none(folder.join("audit.log")).contains("there is no such file"));
    fs::write(folder.join("audit.log"), "{}\n").unwrap();
    assert!(none(folder.join("audit.log")).contains("--audit-log-seal"));
    let head = Head { block: 1, hash: [0; 32] };
    SealedLog::open(&folder).stop();
    assert_eq!(check(folder.path(), &[head]).findings[0].kind, Kind::Head);
}

#[test]
fn lines_beyond_the_limit_are_reported_as_unsealed() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.log.seal.as_mut().unwrap().limited(5);
    log.write(3);
    let failed = Some("as the test wants it".to_owned());
    for _ in 0..3 {
        let blocks = log.log.unsealed(false);
        log.log.sealed(blocks, failed.clone());
        log.write(4);
    }
    log.seal(false);
    log.write(2);
    log.stop();
    let report = check(folder.path(), &[]);
    assert!(report.is_intact(), "{:#?}", report.findings);
    let told = warnings(&report);
    assert!(told.contains("lines 8-15 are not sealed: the seal could not be written"), "{told}");
    assert_eq!(report.lines, 9);
}

#[test]
fn a_partial_line_of_a_failed_write_is_sealed_as_terminated() {
    let folder = TestFolder::new();
    let mut log = SealedLog::open(&folder);
    log.write(2);
    let path = folder.join("audit.log");
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"auditID\":");
    fs::write(&path, text).unwrap();
    log.log.open.measure();
    log.log.seal.as_mut().unwrap().torn(b"{\"auditID\":");
    log.write(2);
    log.stop();
    intact(&check(folder.path(), &[]), 5);
}

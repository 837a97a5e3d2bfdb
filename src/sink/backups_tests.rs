use std::os::unix::fs::PermissionsExt;
use std::time::UNIX_EPOCH;

use flate2::read::GzDecoder;

use super::*;
use crate::sink::test_folder::TestFolder;

/// 2026-11-23T04:42:40Z
const NOW: Duration = Duration::from_secs(1_795_408_960);

fn backups(folder: &TestFolder, rotation: Rotation) -> Backups {
    Backups {
        names: BackupNames::of(&folder.join("audit.log")),
        rotation,
        clock: Clock::fixed(UNIX_EPOCH + NOW),
        stop: Arc::default(),
    }
}

fn create(folder: &TestFolder, names: &[&str]) {
    for name in names {
        fs::write(folder.join(name), format!("{name}\n")).unwrap();
    }
}

#[test]
fn the_oldest_by_name_are_deleted() {
    let folder = TestFolder::new();
    // The newest by name is the oldest by modification.
    create(
        &folder,
        &[
            "audit-2026-11-03T00-00-00.000.log",
            "audit-2026-11-01T00-00-00.000.log",
            "audit-2026-11-02T00-00-00.000.log",
            "audit.log",
            "audit-notatime.log",
            "other-2026-11-01T00-00-00.000.log",
        ],
    );
    backups(&folder, Rotation { max_backups: 2, ..Rotation::NEVER }).clean().unwrap();
    assert_eq!(
        folder.names(),
        [
            "audit-2026-11-02T00-00-00.000.log",
            "audit-2026-11-03T00-00-00.000.log",
            "audit-notatime.log",
            "audit.log",
            "other-2026-11-01T00-00-00.000.log",
        ]
    );
}

#[test]
fn a_backup_and_its_compressed_twin_count_as_one() {
    let folder = TestFolder::new();
    create(
        &folder,
        &[
            "audit-2026-11-01T00-00-00.000.log",
            "audit-2026-11-01T00-00-00.000.log.gz",
            "audit-2026-11-02T00-00-00.000.log",
            "audit-2026-11-02T00-00-00.000.log.gz",
        ],
    );
    backups(&folder, Rotation { max_backups: 1, ..Rotation::NEVER }).clean().unwrap();
    let kept = ["audit-2026-11-02T00-00-00.000.log", "audit-2026-11-02T00-00-00.000.log.gz"];
    assert_eq!(folder.names(), kept);
}

#[test]
fn those_too_old_by_name_are_deleted() {
    let folder = TestFolder::new();
    create(
        &folder,
        &[
            "audit-2026-11-15T04-42-40.000.log",
            "audit-2026-11-15T04-42-40.000.log.gz",
            "audit-2026-11-16T04-42-39.999.log",
            "audit-2026-11-16T04-42-40.000.log",
            "audit-notatime.log",
        ],
    );
    backups(&folder, Rotation { max_age_days: 7, ..Rotation::NEVER }).clean().unwrap();
    assert_eq!(folder.names(), ["audit-2026-11-16T04-42-40.000.log", "audit-notatime.log"]);
}

#[test]
fn an_age_beyond_time_is_no_limit() {
    let folder = TestFolder::new();
    create(&folder, &["audit-1971-01-01T00-00-00.000.log"]);
    backups(&folder, Rotation { max_age_days: u64::MAX, ..Rotation::NEVER }).clean().unwrap();
    assert_eq!(folder.names().len(), 1);
}

#[test]
fn compression_keeps_content_and_mode() {
    let folder = TestFolder::new();
    let name = "audit-2026-11-01T00-00-00.000.log";
    let plain = folder.join(name);
    let content = "a line of the audit log\n".repeat(20_000);
    fs::write(&plain, &content).unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o640)).unwrap();
    // What a crash left: half a compressed file, and a compressed one whose plain one is there.
    fs::write(folder.join("audit-2026-11-01T00-00-00.000.log.gz.tmp"), "half").unwrap();
    fs::write(folder.join("audit-2026-11-01T00-00-00.000.log.gz"), "not complete").unwrap();
    backups(&folder, Rotation { compress: true, ..Rotation::NEVER }).clean().unwrap();

    assert_eq!(folder.names(), ["audit-2026-11-01T00-00-00.000.log.gz"]);
    let compressed = File::open(with_gz(&plain)).unwrap();
    assert_eq!(compressed.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let mut unpacked = String::new();
    GzDecoder::new(compressed).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked == content);
}

#[test]
fn a_file_without_extension_is_compressed_too() {
    let folder = TestFolder::new();
    create(&folder, &["audit-2026-11-01T00-00-00.000", "audit-2026-11-02T00-00-00.000"]);
    let rotation = Rotation { compress: true, max_backups: 1, ..Rotation::NEVER };
    let backups =
        Backups { names: BackupNames::of(&folder.join("audit")), ..backups(&folder, rotation) };
    backups.clean().unwrap();
    assert_eq!(folder.names(), ["audit-2026-11-02T00-00-00.000.gz"]);
    backups.clean().unwrap();
    assert_eq!(folder.names(), ["audit-2026-11-02T00-00-00.000.gz"]);
}

#[test]
fn compression_cut_short_leaves_the_plain_file_only() {
    let folder = TestFolder::new();
    let name = "audit-2026-11-01T00-00-00.000.log";
    create(&folder, &[name]);
    let backups = backups(&folder, Rotation { compress: true, ..Rotation::NEVER });
    backups.stop.store(true, Ordering::Relaxed);
    backups.compress(&folder.join(name)).unwrap();
    assert_eq!(folder.names(), [name]);
}

#[test]
fn nothing_to_do_needs_no_thread() {
    let folder = TestFolder::new();
    let names = BackupNames::of(&folder.join("audit.log"));
    assert!(Cleaner::start(names, Rotation::NEVER, Clock::system()).unwrap().is_none());
}

#[test]
fn a_seal_goes_with_its_log_and_counts_for_nothing() {
    let folder = TestFolder::new();
    create(
        &folder,
        &[
            "audit-2026-11-01T00-00-00.000.log",
            "audit-2026-11-01T00-00-00.000.log.seal",
            "audit-2026-11-02T00-00-00.000.log.gz",
            "audit-2026-11-02T00-00-00.000.log.seal",
            // Of a file that somebody else has moved.
            "audit-2026-11-03T00-00-00.000.log.seal",
            "audit.log.seal",
        ],
    );
    backups(&folder, Rotation { max_backups: 1, ..Rotation::NEVER }).clean().unwrap();
    assert_eq!(
        folder.names(),
        [
            "audit-2026-11-02T00-00-00.000.log.gz",
            "audit-2026-11-02T00-00-00.000.log.seal",
            "audit-2026-11-03T00-00-00.000.log.seal",
            "audit.log.seal",
        ]
    );
}

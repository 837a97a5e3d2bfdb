use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use flate2::read::GzDecoder;

use super::*;
use crate::clock::Clock;
use crate::test_folder::TestFolder;

/// 2026-11-23T04:42:40Z
const NOW: Duration = Duration::from_secs(1_795_408_960);

fn backups(folder: &TestFolder, rotation: Rotation) -> Backups {
    backups_at(folder, rotation, UNIX_EPOCH + NOW)
}

fn backups_at(folder: &TestFolder, rotation: Rotation, now: SystemTime) -> Backups {
    let path = folder.join("audit.log");
    let clock = LogClock::new(&path, Clock::fixed(now));
    Backups {
        names: BackupNames::of(&path),
        rotation,
        clock,
        kept: Arc::default(),
        stop: Arc::default(),
        not_indexed: BTreeSet::new(),
    }
}

/// Creates files that were last written at `modified`.
fn create_at(folder: &TestFolder, names: &[&str], modified: SystemTime) {
    create(folder, names);
    for name in names {
        let file = File::options().append(true).open(folder.join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
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
    // A crash has left an incomplete compressed file, and a compressed file together with its plain
    // file.
    fs::write(folder.join("audit-2026-11-01T00-00-00.000.log.gz.tmp"), "half").unwrap();
    fs::write(folder.join("audit-2026-11-01T00-00-00.000.log.gz"), "not complete").unwrap();
    fs::write(folder.join("audit-2026-11-01T00-00-00.000.log.zst.tmp"), "half").unwrap();
    fs::write(folder.join("audit-2026-11-01T00-00-00.000.log.zst"), "not complete").unwrap();
    for (compress, suffix) in [(Compress::Gzip, GZ), (Compress::Zstd, ZST)] {
        fs::write(&plain, &content).unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o640)).unwrap();
        backups(&folder, Rotation { compress, ..Rotation::NEVER }).clean().unwrap();
        let compressed = with_suffix(&plain, suffix);
        assert_eq!(folder.names(), [compressed.file_name().unwrap().to_str().unwrap()]);
        let compressed = File::open(compressed).unwrap();
        assert_eq!(compressed.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let mut unpacked = String::new();
        match compress {
            Compress::Zstd => {
                zstd::Decoder::new(compressed).unwrap().read_to_string(&mut unpacked).unwrap()
            }
            _ => GzDecoder::new(compressed).read_to_string(&mut unpacked).unwrap(),
        };
        assert!(unpacked == content);
    }
}

#[test]
fn a_file_without_extension_is_compressed_too() {
    let folder = TestFolder::new();
    create(&folder, &["audit-2026-11-01T00-00-00.000", "audit-2026-11-02T00-00-00.000"]);
    let rotation = Rotation { compress: Compress::Gzip, max_backups: 1, ..Rotation::NEVER };
    let mut backups =
        Backups { names: BackupNames::of(&folder.join("audit")), ..backups(&folder, rotation) };
    backups.clean().unwrap();
    assert_eq!(folder.names(), ["audit-2026-11-02T00-00-00.000.gz"]);
    backups.clean().unwrap();
    assert_eq!(folder.names(), ["audit-2026-11-02T00-00-00.000.gz"]);
}

#[test]
fn interrupted_compression_leaves_only_the_plain_file() {
    let folder = TestFolder::new();
    let name = "audit-2026-11-01T00-00-00.000.log";
    create(&folder, &[name]);
    let backups = backups(&folder, Rotation { compress: Compress::Gzip, ..Rotation::NEVER });
    backups.stop.store(true, Ordering::Relaxed);
    backups.compress(&folder.join(name)).unwrap();
    assert_eq!(folder.names(), [name]);
}

#[test]
fn nothing_to_do_needs_no_thread() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let (names, clock) = (BackupNames::of(&path), LogClock::new(&path, Clock::system()));
    assert!(Cleaner::start(names, Rotation::NEVER, clock, Arc::default()).unwrap().is_none());
}

#[test]
fn a_seal_is_deleted_with_its_log_and_is_not_counted() {
    let folder = TestFolder::new();
    create(
        &folder,
        &[
            "audit-2026-11-01T00-00-00.000.log",
            "audit-2026-11-01T00-00-00.000.log.seal",
            "audit-2026-11-02T00-00-00.000.log.gz",
            "audit-2026-11-02T00-00-00.000.log.seal",
            // The seal of a file that another process has moved.
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

#[test]
fn what_is_not_sealed_yet_is_neither_deleted_nor_compressed_nor_is_the_newest_deleted() {
    let folder = TestFolder::new();
    let names = ["1", "2", "3"].map(|day| format!("audit-2026-11-0{day}T00-00-00.000.log"));
    create(&folder, &names.each_ref().map(|name| name.as_str()));
    let rotation =
        Rotation { max_backups: 1, max_age_days: 1, compress: Compress::Gzip, ..Rotation::NEVER };
    let mut backups = backups(&folder, rotation);
    let kept = backups.kept.clone();
    kept.rotate(&folder.join(&names[1]), true);
    kept.rotate(&folder.join(&names[2]), true);
    backups.clean().unwrap();
    let first = format!("{}.gz", names[0]);
    assert_eq!(
        folder.names(),
        [&*first, &*names[1], &*names[2]],
        "the first has the newest record"
    );
    assert!(!kept.unsealed(&names.iter().map(|name| folder.join(name)).collect()));
    assert!(kept.unsealed(&BTreeSet::new()), "all are sealed now");
    backups.clean().unwrap();
    assert_eq!(folder.names(), [format!("{}.gz", names[2])], "the one that was rotated last");
}

#[test]
fn a_clock_far_ahead_deletes_nothing_that_is_young_by_the_files() {
    let day = Duration::from_secs(24 * 60 * 60);
    let today = UNIX_EPOCH + NOW;
    let (old, young) = ("audit-2026-11-01T00-00-00.000.log", "audit-2026-11-22T00-00-00.000.log");
    for (log, ahead, left) in [
        // The clock is right: it alone decides.
        (today, 0, &[young][..]),
        // The clock is five years ahead: only files that are too old by the files' own times are
        // deleted.
        (today, 5 * 366, &[young]),
        (today - 21 * day, 5 * 366, &[old, young]),
        // Nothing was written for two days.
        (today - 2 * day, 0, &[young]),
    ] {
        let folder = TestFolder::new();
        create_at(&folder, &[old, young], today - 22 * day);
        create_at(&folder, &["audit.log"], log);
        let rotation = Rotation { max_age_days: 7, ..Rotation::NEVER };
        let mut backups = backups_at(&folder, rotation, today + ahead * day);
        if ahead > 0 {
            // Files that are written now have the wrong time as well, which is not trusted either.
            create_at(&folder, &["audit.log"], today + ahead * day);
        }
        backups.clean().unwrap();
        let mut expected = left.to_vec();
        expected.push("audit.log");
        assert_eq!(folder.names(), expected, "{ahead} days ahead");
    }
}

#[test]
fn files_of_the_future_do_not_push_out_those_rotated_now() {
    let folder = TestFolder::new();
    create(&folder, &["audit-2031-11-01T00-00-00.000.log", "audit-2031-11-02T00-00-00.000.log"]);
    let path = folder.join("audit.log");
    let clock = Clock::fixed(UNIX_EPOCH + NOW);
    let mut namer = crate::rotate::BackupNamer::new(BackupNames::of(&path), clock);
    let rotation = Rotation { max_backups: 2, max_age_days: 7, ..Rotation::NEVER };
    let mut backups = backups(&folder, rotation);
    for content in ["one", "two", "three"] {
        let backup = namer.next().unwrap();
        fs::write(&backup, content).unwrap();
        backups.kept.rotate(&backup, false);
        backups.clean().unwrap();
    }
    let contents: Vec<_> = folder.names().iter().map(|name| folder.read(name)).collect();
    assert_eq!(contents, ["two", "three"]);
}

#[test]
fn a_deletion_interrupted_by_a_crash_is_completed() {
    let (log, seal) =
        ("audit-2026-11-01T00-00-00.000.log", "audit-2026-11-01T00-00-00.000.log.seal");
    for steps in 0..4 {
        let folder = TestFolder::new();
        create(&folder, &[log, seal, "audit-2026-11-02T00-00-00.000.log"]);
        let rotation = Rotation { max_backups: 1, ..Rotation::NEVER };
        disk::faults::set(disk::faults::Fault::Crash(steps));
        let result = backups(&folder, rotation).clean();
        disk::faults::set(disk::faults::Fault::None);
        assert_eq!(result.is_ok(), steps == 3);
        if result.is_err() {
            assert!(folder.join(log).exists() || !folder.join(seal).exists(), "no seal alone");
        }
        backups(&folder, rotation).clean().unwrap();
        assert_eq!(folder.names(), ["audit-2026-11-02T00-00-00.000.log"], "{steps}");
    }
}

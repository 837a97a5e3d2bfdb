use super::*;
use crate::sink::test_folder::TestFolder;

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// 2026-11-23T04:42:40Z
const NOW: u64 = 1_795_408_960_000;

fn rotator(path: &Path, clock: Clock) -> Rotator {
    let rotation = Rotation { max_size_mib: 1, ..Rotation::NEVER };
    Rotator::new(path, rotation, clock, Arc::default()).unwrap()
}

#[test]
fn backups_are_called_as_kube_apiserver_calls_them() {
    for (name, backup) in [
        ("audit.log", "audit-2026-11-23T04-42-40.000.log"),
        ("kube.audit", "kube-2026-11-23T04-42-40.000.audit"),
        ("a.b.log", "a.b-2026-11-23T04-42-40.000.log"),
        ("audit", "audit-2026-11-23T04-42-40.000"),
        (".audit", "-2026-11-23T04-42-40.000.audit"),
    ] {
        let names = BackupNames::of(&Path::new("/var/log").join(name));
        assert_eq!(names.backup(i128::from(NOW)).unwrap(), Path::new("/var/log").join(backup));
        assert_eq!(names.parse(OsStr::new(backup)), Some((at(NOW), &b""[..])), "{backup}");
        let compressed = format!("{backup}.gz");
        assert_eq!(names.parse(OsStr::new(&compressed)), Some((at(NOW), &b".gz"[..])));
    }
}

#[test]
fn other_names_are_no_backups() {
    let names = BackupNames::of(Path::new("audit.log"));
    for name in [
        "audit.log",
        "audit-notatime.log",
        "audit-2026-11-23T04-42-40.log",
        "audit-2026-11-23T04-42-40.0000.log",
        "audit-2026-13-23T04-42-40.000.log",
        "audit-2026-11-23T04:42:40.000.log",
        "audit-2026-11-23T04-42-40.000.txt",
        "other-2026-11-23T04-42-40.000.log",
        "audit-2026-11-23T04-42-4\u{e4}.000.log",
    ] {
        assert_eq!(names.parse(OsStr::new(name)), None, "{name}");
    }
}

#[test]
fn a_name_that_is_taken_is_never_used() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    fs::write(folder.join("audit-2026-11-23T04-42-40.000.log"), "older").unwrap();
    fs::write(folder.join("audit-2026-11-23T04-42-40.001.log.gz"), "older").unwrap();
    let mut rotator = rotator(&path, Clock::fixed(at(NOW)));
    for expected in ["2", "3", "4"] {
        fs::write(&path, expected).unwrap();
        let backup = rotator.rename(&path).unwrap();
        let name = format!("audit-2026-11-23T04-42-40.00{expected}.log");
        assert_eq!(backup, folder.join(&name));
        assert_eq!(folder.read(&name), expected);
        // A clean-up that is quick must not make the name free again.
        fs::remove_file(backup).unwrap();
    }
    assert_eq!(folder.read("audit-2026-11-23T04-42-40.000.log"), "older");
}

#[test]
fn a_clock_that_is_set_back_does_not_change_the_order() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut rotator = rotator(&path, Clock::fixed(at(NOW)));
    fs::write(&path, "first").unwrap();
    rotator.rename(&path).unwrap();
    rotator.clock = Clock::fixed(at(NOW - 3_600_000));
    fs::write(&path, "second").unwrap();
    rotator.rename(&path).unwrap();
    let names = folder.names();
    assert_eq!(names.iter().map(|name| folder.read(name)).collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn after_a_failure_rotation_pauses() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut rotator = rotator(&path, Clock::system());
    assert!(rotator.rename(&path).is_err(), "there is no such file");
    assert_eq!(rotator.limit(), Some(1 << 20));
    rotator.failed();
    assert_eq!(rotator.limit(), None);
    rotator.retry_at = Some(Instant::now());
    assert_eq!(rotator.limit(), Some(1 << 20));
}

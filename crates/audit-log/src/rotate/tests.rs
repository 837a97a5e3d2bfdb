use super::*;
use crate::test_folder::TestFolder;

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// 2026-11-23T04:42:40Z
const NOW: u64 = 1_795_408_960_000;

fn namer(path: &Path, millis: u64) -> BackupNamer {
    BackupNamer::new(BackupNames::of(path), Clock::fixed(at(millis)))
}

fn rotate(namer: &mut BackupNamer, path: &Path, content: &str) -> PathBuf {
    let backup = namer.next().unwrap();
    fs::write(path, content).unwrap();
    fs::rename(path, &backup).unwrap();
    backup
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
fn an_existing_name_is_never_used() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut namer = namer(&path, NOW);
    // Created after the namer has listed the directory.
    fs::write(folder.join("audit-2026-11-23T04-42-40.000.log"), "older").unwrap();
    fs::write(folder.join("audit-2026-11-23T04-42-40.001.log.gz"), "older").unwrap();
    fs::write(folder.join("audit-2026-11-23T04-42-40.002.log.zst"), "older").unwrap();
    fs::write(folder.join("audit-2026-11-23T04-42-40.003.log.seal"), "older").unwrap();
    fs::write(folder.join("audit-2026-11-23T04-42-40.004.log.seal.deleted"), "older").unwrap();
    for expected in ["5", "6", "7"] {
        let backup = rotate(&mut namer, &path, expected);
        let name = format!("audit-2026-11-23T04-42-40.00{expected}.log");
        assert_eq!(backup, folder.join(&name));
        assert_eq!(folder.read(&name), expected);
        // A quick cleanup must not make the name available again.
        fs::remove_file(backup).unwrap();
    }
    assert_eq!(folder.read("audit-2026-11-23T04-42-40.000.log"), "older");
}

#[test]
fn a_clock_that_is_set_back_does_not_change_the_order() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut first = namer(&path, NOW);
    rotate(&mut first, &path, "first");
    first.clock = Clock::fixed(at(NOW - 3_600_000));
    rotate(&mut first, &path, "second");
    // The same holds after a restart, whether the newest backup is compressed or not.
    let newest = folder.names().pop().unwrap();
    fs::rename(folder.join(&newest), folder.join(&format!("{newest}.gz"))).unwrap();
    let mut restarted = namer(&path, NOW - 7_200_000);
    rotate(&mut restarted, &path, "third");
    rotate(&mut restarted, &path, "fourth");
    let names = folder.names();
    let contents: Vec<_> = names.iter().map(|name| folder.read(name)).collect();
    assert_eq!(contents, ["first", "second", "third", "fourth"]);
}

#[test]
fn where_no_name_is_later_the_clock_counts() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    fs::write(folder.join("audit-9999-12-31T23-59-59.999.log"), "").unwrap();
    let mut namer = namer(&path, NOW);
    rotate(&mut namer, &path, "one");
    rotate(&mut namer, &path, "two");
    assert_eq!(folder.read("audit-2026-11-23T04-42-40.000.log"), "one");
    assert_eq!(folder.read("audit-2026-11-23T04-42-40.001.log"), "two");
}

#[test]
fn after_a_failure_rotation_pauses() {
    let rotation = Rotation { max_size_mib: 1, ..Rotation::NEVER };
    let mut rotator = Rotator::new(rotation, Arc::default());
    assert_eq!(rotator.limit(), Some(1 << 20));
    rotator.failed();
    assert_eq!(rotator.limit(), None);
    rotator.retry_at = Some(Instant::now());
    assert_eq!(rotator.limit(), Some(1 << 20));
}

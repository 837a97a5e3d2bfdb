use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::test_folder::TestFolder;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Returns a log file that is rotated at this size in bytes.
pub(crate) fn limited(path: &Path, bytes: u64, clock: Clock, metrics: Arc<LogMetrics>) -> LogFile {
    let rotation = Rotation { max_size_mib: 1, ..Rotation::NEVER };
    let mut log = LogFile::open(path, rotation, clock, metrics).unwrap();
    log.limit(bytes);
    log
}

/// Returns the same, but locked like a sealed log.
pub(crate) fn exclusive(path: &Path, bytes: u64, metrics: Arc<LogMetrics>) -> LogFile {
    let rotation = Rotation { max_size_mib: 1, ..Rotation::NEVER };
    let mut log = LogFile::open_as(path, rotation, Clock::system(), metrics, true).unwrap();
    log.limit(bytes);
    log
}

fn unlimited(path: &Path) -> LogFile {
    LogFile::open(path, Rotation::NEVER, Clock::system(), Arc::default()).unwrap()
}

fn frozen() -> Clock {
    Clock::fixed(UNIX_EPOCH + Duration::from_secs(1_795_408_960))
}

/// Returns a line of this length in bytes.
fn line(length: usize) -> Line {
    let mut line = vec![b'x'; length - 1];
    line.push(b'\n');
    line.into()
}

/// Writes the lines like the writer; returns the errors.
fn write_all(log: &mut LogFile, lines: &[Line]) -> Vec<io::Error> {
    let mut errors = Vec::new();
    let mut next = 0;
    while next < lines.len() {
        let written = log.write(&lines[next..]);
        assert!(written.whole > 0 || written.error.is_some(), "no progress");
        next += written.whole + usize::from(written.error.is_some());
        errors.extend(written.error);
    }
    errors
}

fn put(log: &mut LogFile, text: &str) {
    assert!(write_all(log, &[text.as_bytes().to_vec().into()]).is_empty());
}

fn sizes(folder: &TestFolder) -> Vec<u64> {
    folder.names().iter().map(|name| fs::metadata(folder.join(name)).unwrap().len()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn missing_directories_and_files_are_created() {
    let folder = TestFolder::new();
    let path = folder.join("a/b/audit.log");
    put(&mut unlimited(&path), "line\n");
    assert_eq!(folder.read("a/b/audit.log"), "line\n");
    assert_eq!(
        (mode(&folder.join("a")), mode(&folder.join("a/b")), mode(&path)),
        (0o700, 0o700, 0o600)
    );
}

#[test]
fn an_existing_file_is_continued_and_keeps_its_mode() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    fs::write(&path, "old\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    put(&mut unlimited(&path), "new\n");
    assert_eq!((folder.read("audit.log").as_str(), mode(&path)), ("old\nnew\n", 0o644));
}

#[test]
fn errors_name_the_path_and_the_remedy() {
    let folder = TestFolder::new();
    fs::write(folder.join("file"), "").unwrap();
    let open = |path: &Path| {
        LogFile::open(path, Rotation::NEVER, Clock::system(), Arc::default())
            .unwrap_err()
            .to_string()
    };
    for path in [folder.path().to_owned(), folder.join("file/audit.log"), PathBuf::from("/")] {
        let error = open(&path);
        assert!(
            error.contains("choose another path") || error.contains("give the full path"),
            "{error}"
        );
        let named = if path.ends_with("audit.log") { folder.join("file") } else { path };
        assert!(error.contains(named.to_str().unwrap()), "{error}");
    }
}

#[test]
fn the_first_write_rotates_at_the_limit_and_later_ones_above_it() {
    // Initial size, size of the first write, size of the next write; sizes of all files, the oldest
    // first.
    for (old, first, next, expected) in [
        (0, 100, 100, vec![200]),
        (900, 99, 1, vec![1000]),
        (900, 100, 1, vec![900, 101]),
        (500, 400, 100, vec![1000]),
        (500, 400, 101, vec![900, 101]),
        (1000, 1, 1, vec![1000, 2]),
        (0, 1000, 1, vec![1000, 1]),
        (0, 1001, 1, vec![1001, 1]),
        (1, 5000, 5000, vec![1, 5000, 5000]),
    ] {
        for together in [true, false] {
            let folder = TestFolder::new();
            let path = folder.join("audit.log");
            if old > 0 {
                fs::write(&path, &*line(old)).unwrap();
            }
            let metrics = Arc::new(LogMetrics::default());
            let mut log = limited(&path, 1000, frozen(), metrics.clone());
            if together {
                assert!(write_all(&mut log, &[line(first), line(next)]).is_empty());
            } else {
                assert!(write_all(&mut log, &[line(first)]).is_empty());
                assert!(write_all(&mut log, &[line(next)]).is_empty());
            }
            assert_eq!(sizes(&folder), expected, "{old} + {first} + {next}, {together}");
            assert_eq!(metrics.rotations.get(), expected.len() as u64 - 1);
        }
    }
}

#[test]
fn rotations_within_a_millisecond_overwrite_nothing() {
    let folder = TestFolder::new();
    let mut log = limited(&folder.join("audit.log"), 10, frozen(), Arc::default());
    let lines: Vec<_> =
        (0..50).map(|index| format!("line {index:02}\n").into_bytes().into()).collect();
    assert!(write_all(&mut log, &lines).is_empty());
    let names = folder.names();
    assert_eq!(names.len(), 50);
    assert_eq!(names[0], "audit-2026-11-23T04-42-40.000.log");
    assert_eq!(names[48], "audit-2026-11-23T04-42-40.048.log");
    let all: String = names.iter().map(|name| folder.read(name)).collect();
    assert_eq!(all.as_bytes(), lines.iter().map(|line| &**line).collect::<Vec<_>>().concat());
}

#[test]
fn a_new_file_has_the_old_ones_mode() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = limited(&path, 10, frozen(), Arc::default());
    put(&mut log, "one line\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    put(&mut log, "one more line\n");
    assert_eq!(folder.names().len(), 2);
    assert_eq!(mode(&path), 0o664);
}

#[test]
fn a_log_that_cannot_be_rotated_grows() {
    let folder = TestFolder::new();
    // This time cannot be represented in a name.
    let clock = Clock::fixed(UNIX_EPOCH + Duration::from_secs(1 << 50));
    let mut log = limited(&folder.join("audit.log"), 10, clock, Arc::default());
    assert!(write_all(&mut log, &[line(8), line(8), line(8)]).is_empty());
    assert_eq!(sizes(&folder), [24]);
}

#[test]
fn a_deleted_file_is_recreated_with_its_unread_lines() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = unlimited(&path);
    put(&mut log, "seen\n");
    assert!(!log.check().unwrap());
    fs::remove_file(&path).unwrap();
    put(&mut log, "unseen\n");
    assert!(log.check().unwrap());
    put(&mut log, "new\n");
    assert_eq!(folder.read("audit.log"), "unseen\nnew\n");
    assert!(!log.check().unwrap());
}

#[test]
fn a_deleted_directory_is_recreated() {
    let folder = TestFolder::new();
    let mut log = unlimited(&folder.join("logs/audit.log"));
    put(&mut log, "old\n");
    log.check().unwrap();
    fs::remove_dir_all(folder.join("logs")).unwrap();
    assert!(log.check().unwrap());
    put(&mut log, "new\n");
    assert_eq!(folder.read("logs/audit.log"), "new\n");
    assert_eq!(mode(&folder.join("logs")), 0o700);
}

#[test]
fn a_moved_file_is_left_for_a_new_one() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = unlimited(&path);
    put(&mut log, "one\n");
    fs::rename(&path, folder.join("audit.log.1")).unwrap();
    put(&mut log, "two\n");
    assert!(log.check().unwrap());
    put(&mut log, "three\n");
    assert_eq!(folder.read("audit.log.1"), "one\ntwo\n");
    assert_eq!(folder.read("audit.log"), "three\n");
}

#[test]
fn a_replaced_file_is_continued() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = unlimited(&path);
    put(&mut log, "one\n");
    fs::rename(&path, folder.join("audit.log.1")).unwrap();
    fs::write(&path, "made by another\n").unwrap();
    assert!(log.check().unwrap());
    put(&mut log, "two\n");
    assert_eq!(folder.read("audit.log"), "made by another\ntwo\n");
}

#[test]
fn rotation_does_not_move_a_file_that_was_put_there() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = limited(&path, 20, frozen(), Arc::default());
    put(&mut log, "sixteen bytes..\n");
    fs::rename(&path, folder.join("audit.log.1")).unwrap();
    fs::write(&path, "").unwrap();
    put(&mut log, "sixteen more....\n");
    assert_eq!(folder.names(), ["audit.log", "audit.log.1"]);
    assert_eq!(folder.read("audit.log"), "sixteen more....\n");
}

#[test]
fn a_truncated_file_is_continued_at_its_new_size() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = limited(&path, 20, frozen(), Arc::default());
    put(&mut log, "sixteen bytes..\n");
    // logrotate's copytruncate
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    put(&mut log, "sixteen more...\n");
    assert_eq!(folder.names(), ["audit.log"], "it is not full any more");
    assert_eq!(folder.read("audit.log"), "sixteen more...\n", "and has no hole");
    assert_eq!(log.open.size, 16);
}

#[test]
fn writing_fails_while_no_file_can_be_created_and_then_recovers() {
    let folder = TestFolder::new();
    let path = folder.join("logs/audit.log");
    let mut log = unlimited(&path);
    put(&mut log, "old\n");
    fs::remove_dir_all(folder.join("logs")).unwrap();
    fs::write(folder.join("logs"), "in the way").unwrap();
    assert!(log.check().is_err());
    assert_eq!(write_all(&mut log, &[line(5), line(5)]).len(), 2);
    fs::remove_file(folder.join("logs")).unwrap();
    assert!(log.check().unwrap());
    put(&mut log, "new\n");
    assert!(folder.read("logs/audit.log").ends_with("new\n"));
}

#[test]
fn a_moved_file_is_used_until_a_new_one_can_be_created() {
    let folder = TestFolder::new();
    let mut log = limited(&folder.join("logs/audit.log"), 10, frozen(), Arc::default());
    put(&mut log, "one\n");
    fs::rename(folder.join("logs/audit.log"), folder.join("moved")).unwrap();
    fs::remove_dir(folder.join("logs")).unwrap();
    fs::write(folder.join("logs"), "in the way").unwrap();
    assert!(!log.check().unwrap());
    put(&mut log, "two, which is long\n");
    assert_eq!(folder.read("moved"), "one\ntwo, which is long\n");
    fs::remove_file(folder.join("logs")).unwrap();
    assert!(log.check().unwrap());
    put(&mut log, "three\n");
    assert_eq!(folder.read("logs/audit.log"), "three\n");
}

#[test]
fn reopen_opens_what_is_there() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = unlimited(&path);
    put(&mut log, "one\n");
    fs::rename(&path, folder.join("audit.log.1")).unwrap();
    log.reopen().unwrap();
    put(&mut log, "two\n");
    assert_eq!(
        (folder.read("audit.log.1"), folder.read("audit.log")),
        ("one\n".into(), "two\n".into())
    );
}

#[test]
fn a_partial_line_left_by_a_crash_is_completed_or_moved_away() {
    for (found, kept, aside) in [
        ("{}\n{\"kind\":\"Event\"}", "{}\n{\"kind\":\"Event\"}\n", None),
        ("{}\n{\"kind\":\"Ev", "{}\n", Some("{\"kind\":\"Ev\n")),
        ("{\"kind\":\"Ev", "", Some("{\"kind\":\"Ev\n")),
        // The last blocks of the file were not written before a crash.
        ("{}\n{\"a\0\0\0", "{}\n", Some("{\"a\0\0\0\n")),
        ("{}\n\0\0\n{}\n", "{}\n", Some("\0\0\n{}\n\n")),
        ("{}\nwhole\n", "{}\nwhole\n", None),
    ] {
        let folder = TestFolder::new();
        let path = folder.join("audit.log");
        fs::write(&path, found).unwrap();
        put(&mut unlimited(&path), "[]\n");
        assert_eq!(folder.read("audit.log"), format!("{kept}[]\n"), "{found:?}");
        let torn = fs::read_to_string(folder.join("audit.log.torn")).ok();
        assert_eq!(torn.as_deref(), aside, "{found:?}");
    }
}

#[test]
fn the_file_its_predecessors_and_the_directory_are_synced() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = limited(&path, 10, frozen(), Arc::default());
    let first = log.unsynced();
    assert_eq!((first.files.len(), first.folder.as_deref()), (1, Some(folder.path())));
    first.sync().unwrap();
    assert!(log.unsynced().is_empty(), "nothing was written since");
    put(&mut log, "one45678\n");
    put(&mut log, "two45678\n");
    let both = log.unsynced();
    assert_eq!((both.files.len(), both.folder.is_some()), (2, true));
    log.still_unsynced(both);
    put(&mut log, "three678\n");
    assert_eq!(log.unsynced().files.len(), 3);
    put(&mut log, "four5678\n");
    log.sync().unwrap();
    assert!(log.unsynced().is_empty());

    let mut log = log.never_synced();
    put(&mut log, "five5678\n");
    put(&mut log, "six45678\n");
    assert_eq!(log.unsynced().files.len(), 1, "old files are not kept open for nothing");
}

#[test]
fn a_partial_line_of_a_failed_write_is_removed() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let mut log = unlimited(&path);
    put(&mut log, "one\n");
    let tear = |log: &mut LogFile| {
        (&*log.open.file).write_all(b"half a li").unwrap();
        log.open.size += 9;
        log.open.torn = true;
    };
    tear(&mut log);
    log.cut(b"half a li");
    put(&mut log, "two\n");
    assert_eq!(folder.read("audit.log"), "one\ntwo\n");

    // Another process truncates the file meanwhile.
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    tear(&mut log);
    log.cut(b"half a li");
    put(&mut log, "three\n");
    assert_eq!(folder.read("audit.log"), "three\n");

    // Another process has written to it: nothing is removed.
    tear(&mut log);
    (&*log.open.file).write_all(b"another writer's").unwrap();
    log.cut(b"half a li");
    put(&mut log, "four\n");
    assert_eq!(folder.read("audit.log"), "three\nhalf a lianother writer's\nfour\n");
}

#[test]
fn a_device_is_never_rotated() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    symlink("/dev/null", &path).unwrap();
    let rotation = Rotation { max_size_mib: 1, ..Rotation::default() };
    let mut log = LogFile::open(&path, rotation, Clock::system(), Arc::default()).unwrap();
    assert!(write_all(&mut log, &[line(1 << 20), line(1 << 20)]).is_empty());
    assert!(!log.check().unwrap());
    assert_eq!(folder.names(), ["audit.log"]);
}

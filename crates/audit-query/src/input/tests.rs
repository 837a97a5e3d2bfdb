use super::*;
use crate::test_folder::TestFolder;

fn names(paths: &[PathBuf]) -> Vec<String> {
    let name = |input: Input| input.path.file_name().unwrap().to_string_lossy().into_owned();
    resolve(paths).unwrap().into_iter().map(name).collect()
}

const ROTATED: [&str; 3] = [
    "audit-2026-11-22T00-00-00.000.log.zst",
    "audit-2026-11-23T00-00-00.000.log.gz",
    "audit-2026-11-24T00-00-00.000.log",
];

fn folder() -> TestFolder {
    let folder = TestFolder::new();
    for name in ROTATED {
        folder.write(name, "");
    }
    for name in ["audit.log", "audit.log.seal", "other-2026-11-24T00-00-00.000.log", "notes.txt"] {
        folder.write(name, "");
    }
    // Its plain twin is there.
    folder.write("audit-2026-11-24T00-00-00.000.log.gz", "");
    folder
}

#[test]
fn a_log_brings_its_rotated_files_oldest_first() {
    let folder = folder();
    let live = folder.path("audit.log");
    assert_eq!(
        names(std::slice::from_ref(&live)),
        [ROTATED[0], ROTATED[1], ROTATED[2], "audit.log"]
    );
    // Also once more, or named themselves.
    let twice = [folder.path(ROTATED[1]), live.clone(), live];
    assert_eq!(names(&twice), [ROTATED[1], ROTATED[0], ROTATED[2], "audit.log"]);
    assert_eq!(names(&[folder.path(ROTATED[1])]), [ROTATED[1]]);
}

#[test]
fn rotated_files_are_found_without_the_log_itself() {
    let folder = folder();
    std::fs::remove_file(folder.path("audit.log")).unwrap();
    assert_eq!(names(&[folder.path("audit.log")]), ROTATED);
}

#[test]
fn a_directory_stands_for_all_its_logs() {
    let folder = folder();
    let expected =
        [ROTATED[0], ROTATED[1], ROTATED[2], "audit.log", "other-2026-11-24T00-00-00.000.log"];
    assert_eq!(names(&[folder.path("")]), expected);
}

#[test]
fn errors_name_what_was_searched() {
    let folder = TestFolder::new();
    let error = resolve(&[folder.path("audit.log")]).unwrap_err().to_string();
    assert!(error.ends_with("audit-2026-11-23T04-42-40.000.log beside it"), "{error}");
    let error = resolve(&[folder.path("")]).unwrap_err().to_string();
    assert!(error.contains("no audit logs in this folder"), "{error}");
    assert!(matches!(resolve(&["-".into(), "-".into()]), Err(InputError::StdinTwice)));
}

#[test]
fn files_of_logrotate_come_from_the_highest_number() {
    let folder = TestFolder::new();
    for name in ["audit.log", "audit.log.1", "audit.log.2.gz", "audit.log.10.gz"] {
        folder.write(name, "");
    }
    let expected = ["audit.log.10.gz", "audit.log.2.gz", "audit.log.1", "audit.log"];
    assert_eq!(names(&[folder.path("audit.log")]), expected);
    assert_eq!(names(&[folder.path("")]), expected);
}

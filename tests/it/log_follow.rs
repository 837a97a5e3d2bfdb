//! `log follow` while a log is written and rotated.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::support::proxy::BINARY;

fn line(id: &str, stage: &str) -> String {
    format!(
        "{{\"kind\":\"Event\",\"auditID\":\"{id}\",\"stage\":\"{stage}\",\"verb\":\"get\",\
         \"requestReceivedTimestamp\":\"2026-11-23T05:00:00.000000Z\",\
         \"stageTimestamp\":\"2026-11-23T05:00:00.000000Z\"}}\n"
    )
}

#[test]
fn events_appear_as_they_are_written_also_after_a_rotation() {
    let folder = std::env::temp_dir().join(format!("log-follow-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("audit.log");
    fs::write(&path, line("old", "ResponseComplete")).unwrap();
    let mut child = Command::new(BINARY)
        .args(["log", "follow", "-o", "id", "--since", "2026-11-01", "--limit", "4"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "old");
    let append = |text: &str| {
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append(&(line("a", "RequestReceived") + &line("a", "ResponseComplete")));
    assert_eq!(next(), "a");
    append(&line("b", "ResponseComplete"));
    fs::rename(&path, folder.join("audit-2026-11-23T05-00-00.000.log")).unwrap();
    append(&line("c", "ResponseComplete"));
    assert_eq!((next(), next()), ("b".to_owned(), "c".to_owned()));
    assert!(child.wait().unwrap().success());
    fs::remove_dir_all(folder).unwrap();
}

//! `log query --proof` and the gaps of `log report summary`, on a log that the proxy sealed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use crate::support::http1;
use crate::support::proxy::{BINARY, Builder};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, wait_for};

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(BINARY).arg("log").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A completely sealed log with compressed rotated files.
struct Sealed {
    dir: TempDir,
}

impl Sealed {
    async fn new() -> Sealed {
        let upstream =
            FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
        let sealed = Sealed { dir: TempDir::new() };
        let key = sealed.dir.path("key.pem");
        assert_eq!(run(&["keygen", key.to_str().unwrap()]).0, 0);
        std::fs::create_dir(sealed.dir.path("logs")).unwrap();
        let mut proxy = Builder::new(upstream.addr)
            .flag(&format!("--audit-log-path={}", sealed.log().display()))
            .flag("--audit-log-mode=blocking")
            .flag("--audit-log-maxsize=1")
            .flag("--audit-log-compress")
            .flag("--audit-log-seal")
            .flag(&format!("--audit-log-seal-key-file={}", key.display()))
            .start()
            .await;
        let long = format!("/api/v1/pods?labelSelector=app%3D{}", "a".repeat(7_000));
        for _ in 0..200 {
            let response = http1::get(proxy.addr, Some("alice"), &long, &[]).await.unwrap();
            assert_eq!(response.head.status, 200);
        }
        wait_for("a compressed log", || (!sealed.files(".gz").is_empty()).then_some(())).await;
        assert!(proxy.stop().await.success());
        sealed
    }

    fn log(&self) -> PathBuf {
        self.dir.path("logs/audit.log")
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path("logs")).unwrap();
        let mut paths: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(ending))
            .collect();
        paths.sort();
        paths
    }

    fn prove(&self, more: &[&str]) -> (i32, String, String) {
        let (key, log) = (self.dir.path("key.pem.pub"), self.log());
        let (key, log) = (key.to_str().unwrap(), log.to_str().unwrap());
        run(&[&["query", "--proof", "--public-key", key, log], more].concat())
    }

    /// Returns the proofs of all events.
    fn proofs(&self, more: &[&str]) -> (i32, Vec<Json>, String) {
        let (code, text, errors) = self.prove(&[&["-o", "json", "--stage", "all"], more].concat());
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (code, lines, errors)
    }

    fn change(&self, from: &str, to: &str) -> Vec<u8> {
        let original = std::fs::read(self.log()).unwrap();
        let text = String::from_utf8(original.clone()).unwrap();
        assert!(text.contains(from));
        std::fs::write(self.log(), text.replacen(from, to, 1)).unwrap();
        original
    }
}

fn offset_of(line: &Json) -> u64 {
    line["proof"]["offset"].as_u64().unwrap()
}

#[tokio::test]
async fn every_event_of_a_sealed_log_is_proved() {
    let sealed = Sealed::new().await;
    let (code, proofs, errors) = sealed.proofs(&[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(proofs.len() >= 200);
    for line in &proofs {
        let (proof, file) = (&line["proof"], line["proof"]["file"].as_str().unwrap());
        assert_eq!(proof["status"], "verified", "{proof}");
        assert_eq!(proof["block"]["signatureValid"], true);
        let lines = proof["block"]["firstLine"].as_u64().unwrap()
            ..=proof["block"]["lastLine"].as_u64().unwrap();
        assert!(lines.contains(&proof["line"].as_u64().unwrap()), "{proof}");
        // The event is where the proof says.
        if Path::new(file) == sealed.log() {
            let text = std::fs::read_to_string(file).unwrap();
            let found = text[offset_of(line) as usize..].lines().next().unwrap();
            assert_eq!(serde_json::from_str::<Json>(found).unwrap(), line["event"]);
            let number = text[..offset_of(line) as usize].lines().count() as u64 + 1;
            assert_eq!(proof["line"], number);
        }
    }
    // In reverse order and in compressed files the same.
    let (code, reverse, _) = sealed.proofs(&["--reverse", "--limit", "40"]);
    assert_eq!(code, 0);
    let last: Vec<_> = proofs.iter().rev().take(40).map(|line| &line["proof"]).collect();
    assert!(reverse.iter().map(|line| &line["proof"]).eq(last));
    let (code, text, _) = sealed.prove(&["--limit", "1"]);
    assert!(code == 0 && text.contains("VERIFIED") && text.contains("signature of "), "{text}");
    assert!(text.contains("1 events: 1 verified") && text.contains("head="), "{text}");
    // After logrotate has renamed the log, its seal is matched by content.
    let renamed = sealed.dir.path("logs/audit.log.1");
    std::fs::rename(sealed.log(), &renamed).unwrap();
    let key = sealed.dir.path("key.pem.pub");
    let (code, text, errors) = run(&[
        "query",
        "--proof",
        "--public-key",
        key.to_str().unwrap(),
        "--limit",
        "2",
        renamed.to_str().unwrap(),
    ]);
    assert!(code == 0 && text.contains("2 events: 2 verified"), "{text}{errors}");
}

#[tokio::test]
async fn what_was_changed_is_not_proved() {
    let sealed = Sealed::new().await;
    let lines = std::fs::read_to_string(sealed.log()).unwrap().lines().count();
    assert!(lines > 1);
    let original = sealed.change("\"username\":\"alice\"", "\"username\":\"malic\"");
    let (code, text, errors) = sealed.prove(&["-u", "malic"]);
    assert_eq!(code, 2, "{text}{errors}");
    assert!(text.contains("NOT VERIFIED") && errors.contains("TAMPERED: "), "{text}{errors}");
    assert!(
        errors.contains("was changed") && errors.contains("1 of 1 events do not verify"),
        "{errors}"
    );
    std::fs::write(sealed.log(), &original).unwrap();

    // An event after the end, added while the proxy was stopped.
    let first = String::from_utf8(original.clone()).unwrap();
    let first = first.lines().next().unwrap();
    let inserted = [&original[..], first.as_bytes(), b"\n"].concat();
    std::fs::write(sealed.log(), inserted).unwrap();
    let (code, proofs, errors) = sealed.proofs(&["--reverse", "--limit", "1"]);
    assert_eq!((code, proofs[0]["proof"]["status"].as_str()), (2, Some("failed")), "{errors}");
    let (_, text, _) = run(&["report", sealed.log().to_str().unwrap()]);
    assert!(text.contains("proved") && text.contains("they were inserted"), "{text}");
    std::fs::write(sealed.log(), &original).unwrap();

    // Another key.
    let other = sealed.dir.path("other.pem");
    assert_eq!(run(&["keygen", other.to_str().unwrap()]).0, 0);
    let other = format!("{}.pub", other.display());
    let log = sealed.log();
    let (code, _, errors) =
        run(&["query", "--proof", "--public-key", &other, "--limit", "1", log.to_str().unwrap()]);
    assert!(code == 2 && errors.contains("not signed by a --public-key"), "{errors}");

    // Without the seals nothing can be proved.
    let (code, text, _) = run(&["report", "-o", "json", log.to_str().unwrap()]);
    let summary: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    assert!(summary["sealed"][0]["blocks"].as_u64().unwrap() > 1, "{summary}");
    assert!(summary["gaps"].as_array().unwrap().iter().all(|gap| gap["kind"] != "proved"));
    std::fs::remove_file(&sealed.files(".gz")[0]).unwrap();
    let (_, text, _) = run(&["report", "-o", "json", log.to_str().unwrap()]);
    let summary: Json = serde_json::from_str(&text).unwrap();
    let gaps = summary["gaps"].as_array().unwrap();
    let is_missing = |gap: &Json| {
        gap["kind"] == "proved" && gap["text"].as_str().unwrap().contains(" is missing: its ")
    };
    assert!(gaps.iter().any(is_missing), "{summary}");
    for seal in [sealed.files(".seal"), sealed.files(".checkpoint")].concat() {
        std::fs::remove_file(seal).unwrap();
    }
    let (code, _, errors) = sealed.prove(&[]);
    assert!(code == 2 && errors.contains("no seal next to the log"), "{errors}");
}

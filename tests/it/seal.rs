//! A sealed audit log: what `log verify` reports after rotations, restarts, a `kill -9`, a failing
//! disk, and tampering.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::http1;
use crate::support::proxy::{BINARY, Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, client, wait_for};

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await
}

/// Runs `kube-audit-proxy log`: exit code, standard output and error.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(BINARY).arg("log").args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    println!("{arguments:?}:\n{text}");
    (output.status.code().unwrap(), text)
}

/// A directory with a key and a log.
struct Sealed {
    dir: TempDir,
    log: PathBuf,
}

impl Sealed {
    fn new() -> Sealed {
        let dir = TempDir::new();
        let key = dir.path("key.pem");
        let (code, text) = run(&["keygen", key.to_str().unwrap()]);
        assert_eq!(code, 0, "{text}");
        std::fs::create_dir(dir.path("logs")).unwrap();
        let log = dir.path("logs/audit.log");
        Sealed { dir, log }
    }

    async fn start(&self, upstream: &FakeUpstream, mode: &str) -> Proxy {
        Builder::new(upstream.addr)
            .flag(&format!("--audit-log-path={}", self.log.display()))
            .flag(&format!("--audit-log-mode={mode}"))
            .flag("--audit-log-maxsize=1")
            .flag("--audit-log-compress")
            .flag("--audit-log-seal")
            .flag(&format!("--audit-log-seal-key-file={}", self.dir.path("key.pem").display()))
            .flag("--audit-log-seal-head-interval=1s")
            .start()
            .await
    }

    fn verify(&self, more: &[&str]) -> (i32, String) {
        let public = self.dir.path("key.pem.pub");
        let mut arguments = vec!["verify", "--public-key", public.to_str().unwrap()];
        arguments.extend(more);
        arguments.push(self.log.to_str().unwrap());
        run(&arguments)
    }

    fn seal(&self) -> PathBuf {
        self.dir.path("logs/audit.log.seal")
    }

    fn compressed(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path("logs")).unwrap();
        let mut paths: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
            .collect();
        paths.sort();
        paths
    }
}

async fn get(proxy: &Proxy, path: &str) -> Option<u16> {
    let answer = http1::get(proxy.addr, Some("alice"), path, &[]).await;
    answer.ok().map(|answer| answer.head.status)
}

/// Returns the last head in the proxy's own log.
fn head(proxy: &Proxy) -> Option<String> {
    let text = proxy.process.stderr();
    let (_, rest) = text.rsplit_once("head=")?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// Changes the lines of the file.
fn change(path: &Path, change: impl FnOnce(Vec<String>) -> Vec<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(str::to_owned).collect();
    std::fs::write(path, change(lines).join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn a_sealed_log_is_intact_until_it_is_changed() {
    let (upstream, sealed) = (upstream().await, Sealed::new());
    let mut proxy = sealed.start(&upstream, "blocking").await;
    // Long enough for a rotation or two.
    let long = format!("/api/v1/pods?labelSelector=app%3D{}", "a".repeat(7_000));
    for _ in 0..200 {
        assert_eq!(get(&proxy, &long).await, Some(200));
    }
    wait_for("a compressed log", || (!sealed.compressed().is_empty()).then_some(())).await;
    let (code, text) = sealed.verify(&[]);
    assert_eq!(code, 0, "while it runs: {text}");
    proxy.process.signal("KILL");
    proxy.process.wait().await;
    let mut proxy = sealed.start(&upstream, "blocking").await;
    assert_eq!(get(&proxy, "/api/v1/pods").await, Some(200));
    assert!(proxy.stop().await.success());
    let first = head(&proxy).expect("a head at the end");
    let mut proxy = sealed.start(&upstream, "blocking").await;
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/api/v1/pods").await, Some(200));
    }
    assert!(proxy.stop().await.success());
    let last = head(&proxy).expect("a head at the end");

    let (code, text) = sealed.verify(&["--head", &first, "--head", &last]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\nintact: ") || text.starts_with("intact: "), "{text}");
    assert!(text.contains(&format!("head={last}")), "{text}");

    let original = std::fs::read(&sealed.log).unwrap();
    change(&sealed.log, |mut lines| {
        lines[1] = lines[1].replace("alice", "mallory");
        lines
    });
    let (code, text) = sealed.verify(&[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("audit.log:2: the line was changed\n"), "{text}");
    std::fs::write(&sealed.log, original).unwrap();

    // The end is removed together with its seal: the checkpoint shows it, and the head does even
    // without a checkpoint.
    let kept = std::fs::read_to_string(sealed.seal()).unwrap().lines().count() - 1;
    change(&sealed.seal(), |lines| lines[..kept].to_vec());
    let (code, text) = sealed.verify(&[]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("audit.log.checkpoint: block ") && text.contains("was removed"),
        "{text}"
    );
    std::fs::remove_file(sealed.dir.path("logs/audit.log.checkpoint")).unwrap();
    let (code, text) = sealed.verify(&["--head", &last]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("its end was removed"), "{text}");

    // A rotated file deleted, with its seal.
    let oldest = &sealed.compressed()[0];
    std::fs::remove_file(oldest).unwrap();
    let (code, text) = sealed.verify(&[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(".log: was removed; its "), "{text}");
}

/// Something that cannot be written replaces the seal, and is removed again.
async fn seal_fails(mode: &str, meanwhile: u16) {
    let (upstream, sealed) = (upstream().await, Sealed::new());
    let mut proxy = sealed.start(&upstream, mode).await;
    assert_eq!(get(&proxy, "/api/v1/pods").await, Some(200));
    wait_for("a record", || {
        std::fs::metadata(sealed.seal()).is_ok_and(|seal| seal.len() > 0).then_some(())
    })
    .await;
    let aside = sealed.dir.path("aside");
    std::fs::rename(sealed.seal(), &aside).unwrap();
    std::fs::create_dir(sealed.seal()).unwrap();
    let started = Instant::now();
    // The first lines that cannot be sealed are written, because they wait for the seal.
    loop {
        let _ = get(&proxy, "/api/v1/pods").await;
        let (code, reason) = client::admin(proxy.admin, "/readyz").await.unwrap();
        if code == 500 {
            assert!(reason.contains("seal") && reason.contains("Is a directory"), "{reason}");
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "is not noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(get(&proxy, "/api/v1/pods").await, Some(meanwhile));
    assert_eq!(client::admin(proxy.admin, "/readyz").await.unwrap().0, 500, "it stays so");
    std::fs::remove_dir(sealed.seal()).unwrap();
    std::fs::rename(aside, sealed.seal()).unwrap();
    let started = Instant::now();
    while client::admin(proxy.admin, "/readyz").await.unwrap().0 != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(get(&proxy, "/api/v1/pods").await, Some(200));
    assert!(proxy.stop().await.success());
    let (code, text) = sealed.verify(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("warning"), "{text}");
}

#[tokio::test]
async fn a_strict_proxy_rejects_requests_while_the_seal_cannot_be_written() {
    seal_fails("blocking-strict", 500).await;
}

#[tokio::test]
async fn a_blocking_proxy_continues_and_seals_later() {
    seal_fails("blocking", 200).await;
}

#[test]
fn usage_errors_are_not_verification_results() {
    let sealed = Sealed::new();
    let (code, text) = sealed.verify(&[]);
    assert_eq!(code, 2);
    assert!(text.contains("there is no such file"), "{text}");
    std::fs::write(&sealed.log, "{}\n").unwrap();
    assert_eq!(sealed.verify(&[]).0, 2);
    assert_eq!(sealed.verify(&["--head", "x"]).0, 2);
    let key = sealed.dir.path("key.pem");
    let (code, text) = run(&["keygen", key.to_str().unwrap()]);
    assert_eq!(code, 2, "a key is not overwritten: {text}");
}

#[tokio::test]
async fn an_invalid_seal_key_is_reported_at_startup() {
    let upstream = upstream().await;
    let builder = Builder::new(upstream.addr);
    let file = builder.dir().write("key.pem", "no key");
    let (code, text) = builder
        .flag("--audit-log-seal")
        .flag(&format!("--audit-log-seal-key-file={}", file.display()))
        .run_to_end()
        .await;
    assert_eq!(code, Some(1));
    assert!(text.contains("--audit-log-seal-key-file") && text.contains("log keygen"), "{text}");
}

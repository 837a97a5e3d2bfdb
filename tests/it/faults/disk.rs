//! Disk failures: full, read-only, removed; and missing permissions.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{EACH, HEALTHY, LOST, REJECTED, Scene, events_in, get, in_each_mode, upstream};
use crate::support::proxy::{BINARY, Builder};
use crate::support::{TempDir, client};

/// A policy that omits `RequestReceived`, so that no first event shows that the log fails.
const LATE: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// Runs a command; returns whether it succeeded.
fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A separate file system, which is unmounted on drop.
pub(super) struct Disk(pub(super) PathBuf);

impl Disk {
    /// Returns a small file system in memory; `None` if this user may not mount one.
    pub(super) fn small(dir: &TempDir) -> Option<Disk> {
        let path = dir.path("disk");
        std::fs::create_dir_all(&path).unwrap();
        let disk = Disk(path);
        run("mount", &["-t", "tmpfs", "-o", "size=256k", "none", disk.path()]).then_some(disk)
    }

    /// Returns a file system on a block device that can be made to fail; `None` if this machine has
    /// no loop devices.
    fn failing(dir: &TempDir) -> Option<Disk> {
        let (path, image) = (dir.path("disk"), dir.path("image"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let (disk, image) = (Disk(path), image.display().to_string());
        let made = run("mkfs.ext4", &["-q", &image])
            && run("mount", &["-o", "loop,errors=remount-ro", &image, disk.path()]);
        made.then_some(disk)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Fills the file system completely, including space freed since the last call.
    pub(super) fn fill(&self) {
        let path = self.0.join("ballast");
        let mut ballast = std::fs::File::options().create(true).append(true).open(path).unwrap();
        for size in [4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub(super) fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        while run("umount", &["-l", self.path()]) {}
    }
}

#[tokio::test]
async fn a_full_disk_has_the_effect_of_the_mode_until_there_is_space() {
    in_each_mode(async |mode| {
        let dir = TempDir::new();
        let Some(disk) = Disk::small(&dir) else {
            return eprintln!("not run: this user may not mount");
        };
        let mut scene = Scene::start(&disk.0.join("audit.log"), mode, &[]).await;
        disk.fill();
        scene.fails_for("No space left on device").await;
        disk.empty();
        scene.heals().await;
        scene.ends("disk full", &[]).await;
    })
    .await;
}

/// The seal is on the same disk.
#[tokio::test]
async fn a_sealed_log_is_intact_after_the_disk_was_full() {
    in_each_mode(async |mode| {
        let dir = TempDir::new();
        let key = dir.path("key.pem").display().to_string();
        assert!(run(BINARY, &["log", "keygen", &key]));
        let Some(disk) = Disk::small(&dir) else {
            return eprintln!("not run: this user may not mount");
        };
        let log = disk.0.join("audit.log");
        let seal = ["--audit-log-seal", &format!("--audit-log-seal-key-file={key}")];
        let mut scene = Scene::start(&log, mode, &seal).await;
        disk.fill();
        scene.fails_for("No space left on device").await;
        disk.empty();
        scene.heals().await;
        scene.ends("disk full, sealed", &[]).await;
        let mut verify = Command::new(BINARY);
        verify.args(["log", "verify", "--public-key", &format!("{key}.pub")]).arg(&log);
        let output = verify.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && text.contains("intact: "), "{mode}: {text}");
        assert!(!text.contains("warning"), "{mode}: {text}");
    })
    .await;
}

/// No first event can show the failure, so the last event of one request is lost.
#[tokio::test]
async fn a_full_disk_stops_a_strict_proxy_that_omits_request_received() {
    let dir = TempDir::new();
    let Some(disk) = Disk::small(&dir) else {
        return eprintln!("not run: this user may not mount");
    };
    let (upstream, log) = (upstream().await, disk.0.join("audit.log"));
    let proxy = Builder::new(upstream.addr)
        .policy(LATE)
        .flag("--audit-log-mode=blocking-strict")
        .flag("--audit-log-sync=always")
        .flag(&format!("--audit-log-path={}", log.display()))
        .start()
        .await;
    assert_eq!(get(&proxy, "before").await, Some(200));
    disk.fill();
    // The last block of the file may have space for some more events. Then a response is aborted.
    let mut passed = 0;
    while get(&proxy, &format!("last-{passed}")).await == Some(200) {
        passed += 1;
        assert!(passed < 100, "a full disk is noticed");
    }
    // From then on nothing is forwarded any more.
    let forwarded = upstream.seen().len();
    let (code, reason) = client::admin(proxy.admin, "/readyz").await.unwrap();
    assert_eq!(code, 500);
    assert!(reason.contains("audit-log failed: cannot write to the audit log"), "{reason}");
    for number in 0..EACH {
        assert_eq!(get(&proxy, &format!("refused-{number}")).await, Some(500));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(upstream.seen().len(), forwarded);
    assert_eq!(proxy.metric(REJECTED).await, EACH as u64);
    assert_eq!(proxy.metric(HEALTHY).await, 0);
    assert_eq!(proxy.metric(LOST).await, 1);
    disk.empty();
    let started = std::time::Instant::now();
    while get(&proxy, "recovered").await != Some(200) {
        assert!(started.elapsed() < Duration::from_secs(20), "does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let events = events_in(&std::fs::File::open(&log).unwrap());
    let count = |id: &str| events.iter().filter(|(of, _)| of == id).count();
    assert_eq!((count("before"), count("recovered")), (1, 1));
    (0..passed).for_each(|number| assert_eq!(count(&format!("last-{number}")), 1));
}

/// Linux behaves like this after a disk failure: even open files cannot be written.
#[tokio::test]
async fn a_read_only_file_system_is_replaced_by_a_writable_one() {
    in_each_mode(async |mode| {
        let dir = TempDir::new();
        let Some(disk) = Disk::failing(&dir) else {
            return eprintln!("not run: this user may not mount, or there are no loop devices");
        };
        let mut scene = Scene::start(&disk.0.join("audit.log"), mode, &[]).await;
        scene.first.sync_all().unwrap();
        assert!(run("mount", &["-o", "remount,abort", disk.path()]));
        scene.fails_for("Read-only file system").await;
        // Another disk is mounted in its place.
        assert!(run("umount", &["-l", disk.path()]));
        assert!(run("mount", &["-t", "tmpfs", "none", disk.path()]));
        scene.heals().await;
        scene.ends("file system read-only", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn a_mount_over_the_log_loses_no_event() {
    in_each_mode(async |mode| {
        let dir = TempDir::new();
        let folder = dir.path("disk");
        std::fs::create_dir(&folder).unwrap();
        let mut scene = Scene::start(&folder.join("audit.log"), mode, &[]).await;
        let cover = Disk(folder.clone());
        if !run("mount", &["-t", "tmpfs", "-o", "ro", "none", cover.path()]) {
            return eprintln!("not run: this user may not mount");
        }
        scene.does_not_care().await;
        scene.proxy.process.logs(": Read-only file system").await;
        scene.proxy.process.logs("events are still written to the previous file").await;
        drop(cover);
        scene.ends("read-only file system mounted over it", &[]).await;
    })
    .await;
}

/// Permission bits do not stop root, but this does.
#[tokio::test]
async fn a_log_without_write_permission_recovers_when_permitted_again() {
    let change = |attribute: &str, log: &Path| run("chattr", &[attribute, log.to_str().unwrap()]);
    in_each_mode(async |mode| {
        let dir = TempDir::new();
        let log = dir.path("audit.log");
        let mut scene = Scene::start(&log, mode, &["--audit-log-sync=interval"]).await;
        if !change("+i", &log) {
            return eprintln!("not run: this user or this file system has no immutable files");
        }
        scene.fails_for("Operation not permitted").await;
        assert!(change("-i", &log), "the file can be removed again");
        scene.heals().await;
        scene.ends("permission lost", &[]).await;
    })
    .await;
}

/// The start record cannot be written. The proxy starts nevertheless, but accepts no line before
/// the record is on the disk: after another crash the line would look inserted.
#[tokio::test]
async fn a_proxy_with_a_seal_starts_on_a_full_disk_and_rejects_requests_until_there_is_space() {
    let dir = TempDir::new();
    let key = dir.path("key.pem").display().to_string();
    assert!(run(BINARY, &["log", "keygen", &key]));
    let Some(disk) = Disk::small(&dir) else {
        return eprintln!("not run: this user may not mount");
    };
    let (upstream, log) = (upstream().await, disk.0.join("audit.log"));
    let start = async || {
        Builder::new(upstream.addr)
            .flag("--audit-log-mode=blocking-strict")
            .flag("--audit-log-seal")
            .flag(&format!("--audit-log-seal-key-file={key}"))
            .flag(&format!("--audit-log-path={}", log.display()))
            .start()
            .await
    };
    let mut proxy = start().await;
    assert_eq!(get(&proxy, "before").await, Some(200));
    assert!(proxy.stop().await.success());
    disk.fill();
    let mut proxy = start().await;
    assert_eq!(get(&proxy, "full").await, Some(500));
    disk.empty();
    let started = std::time::Instant::now();
    let mut tries = 0;
    while get(&proxy, &format!("again-{tries}")).await != Some(200) {
        tries += 1;
        assert!(started.elapsed() < crate::support::DEADLINE, "does not heal");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.process.signal("KILL");
    proxy.process.wait().await;
    for restarted in [false, true] {
        if restarted {
            assert!(start().await.stop().await.success());
        }
        let mut verify = Command::new(BINARY);
        verify.args(["log", "verify", "--public-key", &format!("{key}.pub")]).arg(&log);
        let output = verify.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "restarted {restarted}: {text}");
    }
}

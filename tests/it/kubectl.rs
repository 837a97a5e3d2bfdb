//! Runs `kubectl` against `kube-audit-proxy demo`, and finds its requests in the audit log.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::support::audit_log::{AuditLog, Event};
use crate::support::proxy::Process;
use crate::support::{TempDir, wait_for};

const CONFIGMAP: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  colour: COLOUR\n";

/// A running demo and the `kubectl` that talks to it.
struct Demo {
    process: Process,
    dir: TempDir,
    log: AuditLog,
}

impl Demo {
    async fn start() -> Self {
        let dir = TempDir::new();
        let folder = dir.path("").display().to_string();
        let arguments = ["demo", "--port", "0", "--dir", &folder];
        let process = Process::start(&arguments.map(str::to_owned));
        let log = AuditLog::new(&dir.path("audit.log"));
        let mut demo = Self { process, dir, log };
        let kubeconfig = demo.kubeconfig();
        let process = &mut demo.process;
        wait_for("the demo's kubeconfig", || {
            assert!(process.ended().is_none(), "the demo ended:\n{}", process.stderr());
            kubeconfig.exists().then_some(())
        })
        .await;
        let this = &demo;
        wait_for("the demo to serve", || {
            this.command(&["get", "--raw", "/version"])
                .output()
                .ok()?
                .status
                .success()
                .then_some(())
        })
        .await;
        demo
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path("kubeconfig")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path(""));
        command.stdin(Stdio::null());
        command
    }

    /// Runs `kubectl` in a separate thread, so that the test's runtime continues.
    async fn output(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// Runs `kubectl`, which must succeed; returns its output.
    async fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments:?}: {out}{err}");
        out
    }

    /// Waits for a last event for which `is_wanted` holds.
    async fn event(&mut self, what: &str, is_wanted: impl Fn(&Event) -> bool) -> Event {
        let log = &mut self.log;
        wait_for(&format!("the event of {what}"), || {
            log.events().iter().rev().find(|event| event.is_end() && is_wanted(event)).cloned()
        })
        .await
    }

    async fn object_event(&mut self, verb: &str, resource: &str, name: &str) -> Event {
        let what = format!("{verb} {resource} {name}");
        self.event(&what, |event| {
            event.text("/verb") == verb
                && event.text("/objectRef/resource") == resource
                && event.text("/objectRef/name") == name
                && event.text("/userAgent").starts_with("kubectl")
        })
        .await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_and_is_audited() {
    if !test_support::has_kubectl() {
        return;
    }
    let mut demo = Demo::start().await;
    let file = demo.dir.write("settings.yaml", &CONFIGMAP.replace("COLOUR", "red"));
    let file = file.to_str().unwrap().to_owned();

    assert!(demo.kubectl(&["get", "namespaces"]).await.contains("default"));
    demo.event("get namespaces", |event| {
        event.text("/verb") == "list" && event.text("/objectRef/resource") == "namespaces"
    })
    .await;

    assert!(demo.kubectl(&["apply", "-f", &file]).await.contains("created"));
    let get = demo.object_event("get", "configmaps", "settings").await;
    assert_eq!(get.code(), 404, "apply looks first");
    let created = demo
        .event("apply", |event| {
            matches!(event.text("/verb"), "create" | "patch")
                && event.text("/objectRef/resource") == "configmaps"
        })
        .await;
    assert_eq!(created.code(), 201);

    assert!(demo.kubectl(&["get", "configmap", "settings"]).await.contains("settings"));
    let yaml = demo.kubectl(&["get", "configmap", "settings", "-o", "yaml"]).await;
    assert!(yaml.contains("colour: red"), "{yaml}");

    std::fs::write(&file, CONFIGMAP.replace("COLOUR", "blue")).unwrap();
    assert!(demo.kubectl(&["apply", "-f", &file]).await.contains("configured"));
    let patched = demo.object_event("patch", "configmaps", "settings").await;
    assert_eq!(patched.code(), 200);

    assert!(demo.kubectl(&["delete", "configmap", "settings"]).await.contains("deleted"));
    let deleted = demo.object_event("delete", "configmaps", "settings").await;
    assert_eq!(deleted.code(), 200);
    assert!(!deleted.text("/user/username").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_as_another_user_is_recorded() {
    if !test_support::has_kubectl() {
        return;
    }
    let mut demo = Demo::start().await;
    demo.kubectl(&["get", "configmaps", "--as=viewer", "--as-group=dev"]).await;
    let event = demo
        .event("get --as", |event| {
            event.text("/verb") == "list" && event.text("/objectRef/resource") == "configmaps"
        })
        .await;
    assert_ne!(event.text("/user/username"), "viewer");
    assert_eq!(event.text("/impersonatedUser/username"), "viewer");
    assert_eq!(event.text("/impersonatedUser/groups/0"), "dev");

    // The API denies the write to a user who may only read.
    let output = demo.output(&["delete", "configmap", "none", "--as=viewer"]).await;
    let said = text(&output.stderr);
    assert!(said.contains("User \"viewer\" cannot delete"), "{said}");
    let event = demo.object_event("delete", "configmaps", "none").await;
    assert_eq!(event.code(), 403);
    assert_eq!(event.text("/impersonatedUser/username"), "viewer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_watches_live() {
    if !test_support::has_kubectl() {
        return;
    }
    let mut demo = Demo::start().await;
    let seen = demo.dir.path("watched");
    let mut watching = demo
        .command(&["get", "configmaps", "--watch", "-o", "name"])
        .stdout(std::fs::File::create(&seen).unwrap())
        .spawn()
        .unwrap();
    demo.event_started("watch", "configmaps").await;
    demo.kubectl(&["create", "configmap", "live", "--from-literal=a=b"]).await;
    wait_for("the watch to show it", || {
        std::fs::read_to_string(&seen).unwrap().contains("configmap/live").then_some(())
    })
    .await;
    watching.kill().unwrap();
    watching.wait().unwrap();
    let end = demo
        .event("the watch", |event| {
            event.text("/verb") == "watch" && event.text("/objectRef/resource") == "configmaps"
        })
        .await;
    assert_eq!(end.code(), 200);
}

impl Demo {
    /// Waits for a `ResponseStarted`.
    async fn event_started(&mut self, verb: &str, resource: &str) {
        let log = &mut self.log;
        wait_for(&format!("the start of {verb} {resource}"), || {
            let is_wanted = |event: &&Event| {
                event.stage() == "ResponseStarted"
                    && event.text("/verb") == verb
                    && event.text("/objectRef/resource") == resource
            };
            log.events().iter().find(is_wanted).map(|_| ())
        })
        .await;
    }
}

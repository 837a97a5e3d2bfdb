use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

/// A plugin that runs `script` with the shell, in a directory of its own.
struct Script {
    dir: PathBuf,
    plugin: ExecPlugin,
}

impl Script {
    fn new(name: &str, script: &str) -> Script {
        let dir = std::env::temp_dir().join(format!("kap-exec-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let command = dir.join("plugin");
        std::fs::write(&command, format!("#!/bin/sh\ncd {}\n{script}\n", dir.display())).unwrap();
        std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plugin = ExecPlugin {
            field: "config: users[u].user.exec".into(),
            command,
            args: vec!["an arg".into()],
            env: vec![("ADDED".into(), "value".into())],
            api_version: ApiVersion::V1,
            install_hint: Some("run install-it".into()),
            cluster: None,
            timeout: Duration::from_secs(10),
        };
        Script { dir, plugin }
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.dir.join("runs")).unwrap_or_default().lines().count()
    }

    fn start(&self) -> Arc<ExecCredentials> {
        let credentials = ExecCredentials::new(self.plugin.clone());
        credentials.start();
        credentials
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Returns a shell command that prints a credential with this `status`.
fn print(status: &str) -> String {
    format!(
        "echo run >> runs; echo '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\
         \"kind\":\"ExecCredential\",\"status\":{status}}}'"
    )
}

fn result(script: &Script) -> Result<ReturnedCredential, String> {
    run::run(&script.plugin).result
}

#[test]
fn a_run_gets_arguments_environment_and_exec_info() {
    let mut script = Script::new(
        "environment",
        &format!(
            "printf '%s|%s|%s' \"$1\" \"$ADDED\" \"$KUBERNETES_EXEC_INFO\" > seen; cat > stdin; echo hello >&2; {}",
            print("{\"token\":\"t\"}")
        ),
    );
    script.plugin.cluster = Some(serde_json::json!({"server": "https://a"}));
    let run = run::run(&script.plugin);
    assert_eq!(run.result.ok().unwrap().header.unwrap(), "Bearer t");
    assert_eq!(run.messages, ["hello"]);
    let seen = std::fs::read_to_string(script.dir.join("seen")).unwrap();
    let info = r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"cluster":{"server":"https://a"},"interactive":false}}"#;
    assert_eq!(seen, format!("an arg|value|{info}"));
    assert_eq!(std::fs::read(script.dir.join("stdin")).unwrap(), b"");
}

#[test]
fn failures_say_what_happened() {
    let script = Script::new("fails", "echo no luck >&2; exit 3");
    let run = run::run(&script.plugin);
    let error = run.result.map(|_| ()).unwrap_err();
    assert!(error.ends_with("plugin failed with exit code 3"), "{error}");
    assert_eq!(run.messages, ["no luck"]);
    let mut script = Script::new("hangs", "echo $$ > id; sleep 100 & wait");
    script.plugin.timeout = Duration::from_millis(300);
    let started = std::time::Instant::now();
    let error = result(&script).map(|_| ()).unwrap_err();
    assert!(error.ends_with("plugin did not finish within 300ms"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let id = std::fs::read_to_string(script.dir.join("id")).unwrap();
    assert!(!Path::new("/proc").join(id.trim()).exists(), "it still runs");
    let mut script = Script::new("missing", "");
    script.plugin.command = "/nowhere/get-token".into();
    let error = result(&script).map(|_| ()).unwrap_err();
    assert_eq!(
        error,
        "exec: executable /nowhere/get-token not found; it is a credential plugin: install it: run install-it"
    );
    let script = Script::new("chatty", "yes | head -c 3000000; yes | head -c 3000000 >&2");
    let error = result(&script).map(|_| ()).unwrap_err();
    assert_eq!(error, "decoding stdout: not JSON at line 1 column 1");
}

#[tokio::test]
async fn many_requests_share_one_run() {
    let script = Script::new("shared", &format!("sleep 0.2; {}", print("{\"token\":\"t\"}")));
    let credentials = script.start();
    assert!(credentials.current().is_none());
    assert!(credentials.check().unwrap_err().to_string().contains("still running"));
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let credentials = Arc::clone(&credentials);
            tokio::spawn(async move { credentials.valid().await })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap().header.unwrap(), "Bearer t");
    }
    let own = credentials.valid().await.unwrap();
    assert_eq!((own.generation, script.runs()), (Some(1), 1));
    credentials.check().unwrap();
    // A rejected credential is renewed once, however many requests report it.
    let renewed = futures_util::future::join_all((0..20).map(|_| credentials.renewed(1))).await;
    assert!(renewed.iter().all(|own| own.as_ref().unwrap().generation == Some(2)));
    assert_eq!(script.runs(), 2);
    assert_eq!(credentials.renewed(1).await.unwrap().generation, Some(2));
    assert_eq!(script.runs(), 2);
}

#[tokio::test]
async fn rejections_run_the_plugin_only_so_often() {
    let script = Script::new("rejected", &print("{\"token\":\"t\"}"));
    let credentials = script.start();
    let mut generation = credentials.valid().await.unwrap().generation.unwrap();
    let error = loop {
        match credentials.renewed(generation).await {
            Ok(own) => generation = own.generation.unwrap(),
            Err(error) => break error,
        }
        assert!(script.runs() < 100, "no limit");
    };
    assert!(error.to_string().contains("rejected repeatedly"), "{error}");
}

#[tokio::test]
async fn a_failing_plugin_is_not_run_for_each_request() {
    let script = Script::new("backoff", "echo run >> runs; echo cannot log in >&2; exit 1");
    let credentials = script.start();
    for _ in 0..50 {
        let error = credentials.valid().await.unwrap_err().to_string();
        assert!(error.contains("exit code 1 (cannot log in)"), "{error}");
    }
    assert!(script.runs() <= 3, "{} runs", script.runs());
    assert!(credentials.check().is_err());
}

#[tokio::test]
async fn a_credential_is_renewed_ahead_and_the_last_one_outlives_failures() {
    let now = "$(date -u -d '+2 seconds' +%Y-%m-%dT%H:%M:%S.%NZ)";
    let status = format!("{{\"token\":\"'$n'\",\"expirationTimestamp\":\"'{now}'\"}}");
    let script = Script::new(
        "ahead",
        &format!("n=$(cat runs 2>/dev/null | wc -l); test $n -lt 2 || exit 1; {}", print(&status)),
    );
    let credentials = script.start();
    assert_eq!(credentials.valid().await.unwrap().header.unwrap(), "Bearer 0");
    let started = std::time::Instant::now();
    while credentials.current().expect("never expired").header.unwrap() != "Bearer 1" {
        assert!(started.elapsed() < Duration::from_secs(10), "not renewed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // From now on the plugin fails; the credential is used until it expires.
    while credentials.current().is_some() {
        assert_eq!(credentials.valid().await.unwrap().header.unwrap(), "Bearer 1");
        assert!(started.elapsed() < Duration::from_secs(10), "it does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(credentials.valid().await.is_err());
    assert!(credentials.check().unwrap_err().to_string().contains("exit code 1"));
}

#[tokio::test]
async fn observers_see_a_new_certificate_before_requests_do() {
    let status = "{\"clientCertificateData\":\"C'$(cat runs | wc -l)'\",\"clientKeyData\":\"K\"}";
    let script = Script::new("observed", &print(status));
    let credentials = script.start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let weak = Arc::downgrade(&credentials);
    let log = Arc::clone(&seen);
    credentials.observe(move || {
        let credentials = weak.upgrade().unwrap();
        let generation = credentials.current().and_then(|own| own.generation);
        lock(&log).push((credentials.certificate().unwrap().0, generation));
        true
    });
    let own = credentials.valid().await.unwrap();
    assert!(own.header.is_none());
    credentials.renewed(1).await.unwrap();
    let seen = lock(&seen).clone();
    assert_eq!(seen, [(b"C1".to_vec(), None), (b"C2".to_vec(), Some(1))]);
    credentials.renewed(2).await.unwrap();
}

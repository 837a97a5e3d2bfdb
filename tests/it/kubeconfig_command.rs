//! `kube-audit-proxy kubeconfig`: kubectl can use the resulting kubeconfig with the proxy.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::proxy::{BINARY, Process};
use crate::support::{TempDir, wait_for};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a program with `HOME` in `dir` and no `KUBECONFIG`.
async fn run(program: &str, arguments: &[&str], dir: &TempDir) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("HOME", dir.path("")).env_remove("KUBECONFIG");
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn kubeconfig(arguments: &[&str], dir: &TempDir) -> (i32, String, String) {
    let output = run(BINARY, &[&["kubeconfig"], arguments].concat(), dir).await;
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "demo"), ignore = "needs the feature demo")]
async fn kubectl_works_with_the_generated_kubeconfig() {
    if !test_support::has_kubectl() {
        return;
    }
    let dir = TempDir::new();
    let folder = dir.path("").display().to_string();
    let demo = ["demo", "--port", "0", "--dir", &folder];
    let mut demo = Process::start(&demo.map(str::to_owned));
    let from = dir.path("kubeconfig");
    wait_for("the demo's kubeconfig", || {
        assert!(demo.ended().is_none(), "the demo ended:\n{}", demo.stderr());
        from.exists().then_some(())
    })
    .await;
    // The demo's kubeconfig uses the proxy already; this one uses the API server.
    let written = std::fs::read_to_string(&from).unwrap();
    let document: serde_json::Value = serde_json::from_str(&written).unwrap();
    let server = document["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let ca = dir.path("pki/ca.crt").display().to_string();
    std::fs::create_dir_all(dir.path(".kube")).unwrap();
    for name in ["demo.crt", "demo.key"] {
        let user = document["users"][0]["user"].clone();
        let member = if name.ends_with("crt") { "client-certificate" } else { "client-key" };
        std::fs::copy(user[member].as_str().unwrap(), dir.path(&format!(".kube/{name}"))).unwrap();
    }
    let home = dir.write(
        ".kube/config",
        "apiVersion: v1\nkind: Config\n# my clusters\nclusters:\n- name: direct\n  cluster: {server: https://127.0.0.1:1}\ncontexts:\n- name: direct\n  context: {cluster: direct, user: me, namespace: default}\ncurrent-context: direct\nusers:\n- name: me\n  user: {client-certificate: demo.crt, client-key: ./demo.key, x-unknown: 1}\n",
    );
    let flags = ["--server", &server, "--certificate-authority", &ca];

    let get = ["get", "namespaces", "-o", "name"];
    for more in [&["--embed-certs"][..], &[]] {
        let (code, out, err) = kubeconfig(&[&flags[..], more].concat(), &dir).await;
        assert_eq!((code, err.as_str()), (0, ""));
        let file = dir.write("audited", &out).display().to_string();
        let mut arguments = vec!["--kubeconfig", &file, "config", "current-context"];
        let output = run("kubectl", &arguments, &dir).await;
        assert_eq!(text(&output.stdout).trim(), "direct-audit");
        arguments.truncate(2);
        arguments.extend(get);
        wait_for_kubectl(&arguments, &dir).await;
        assert_eq!(out.contains("client-key-data"), !more.is_empty(), "{out}");
    }

    let before = std::fs::read_to_string(&home).unwrap();
    for _ in 0..2 {
        let (code, out, err) = kubeconfig(&[&flags[..], &["--merge"]].concat(), &dir).await;
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("kubectl --context direct-audit get pods"), "{out}");
    }
    let after = std::fs::read_to_string(&home).unwrap();
    for line in before.lines() {
        assert!(after.contains(line), "{line} is gone:\n{after}");
    }
    assert_eq!(std::fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o600);
    wait_for_kubectl(&[&["--context", "direct-audit"], &get[..]].concat(), &dir).await;
    let output = run("kubectl", &["config", "current-context"], &dir).await;
    assert_eq!(text(&output.stdout).trim(), "direct");
    let contexts = run("kubectl", &["config", "get-contexts", "-o", "name"], &dir).await;
    assert_eq!(text(&contexts.stdout), "direct\ndirect-audit\n");
}

async fn wait_for_kubectl(arguments: &[&str], dir: &TempDir) {
    let output = run("kubectl", arguments, dir).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("namespace/default"), "{out}{err}");
}

#[tokio::test]
async fn errors_name_the_file_and_the_remedy() {
    let dir = TempDir::new();
    let config =
        "contexts: [{name: a, context: {cluster: k}}]\nclusters: [{name: k, cluster: {}}]\n";
    let file = dir.write("config", config).display().to_string();
    let missing = dir.path("ca.crt").display().to_string();
    for (arguments, expected, message) in [
        (
            &["--server=https://p"][..],
            1,
            "/.kube/config: there is no kubeconfig; give one with --from",
        ),
        (&["--server=p:1"], 2, "--server: the scheme is missing; give a URL like"),
        (&["--server=https://p", "--from", "/nowhere/x"], 1, "--from: cannot read /nowhere/x: "),
        (
            &["--server=https://p", "--from", &file],
            1,
            "config: current-context: is not set; set it",
        ),
        (
            &["--server=https://p", "--from", &file, "--context=b"],
            1,
            "config: contexts: has no \"b\"; choose with --context one of a",
        ),
        (
            &[
                "--server=https://p",
                "--from",
                &file,
                "--context=a",
                "--certificate-authority",
                &missing,
            ],
            1,
            "--certificate-authority: cannot read ",
        ),
        (&["--server=https://p", "--use-context"], 2, "--merge"),
    ] {
        let (code, out, err) = kubeconfig(arguments, &dir).await;
        assert_eq!((code, out.as_str()), (expected, ""), "{err}");
        assert!(err.contains(message), "{err}\nhas no\n{message}");
    }
    assert_eq!(std::fs::read_to_string(Path::new(&file)).unwrap(), config);
}

//! The real kubectl against the API, over TLS. Skipped if there is no kubectl.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::setup::{Demo, UpstreamIdentity};

#[derive(Clone)]
struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns its output. It must succeed without output on standard error.
    fn ok(&self, args: &[&str], stdin: &str) -> String {
        let (stdout, stderr, success) = self.run(args, stdin);
        assert!(success, "kubectl {args:?}: {stderr}");
        assert_eq!(stderr, "", "kubectl {args:?}");
        stdout
    }

    /// Returns its error output. It must fail.
    fn fails(&self, args: &[&str], stdin: &str) -> String {
        let (stdout, stderr, success) = self.run(args, stdin);
        assert!(!success, "kubectl {args:?}: {stdout}");
        stderr
    }

    fn run(&self, args: &[&str], stdin: &str) -> (String, String, bool) {
        let mut child = self.command(args).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(stdout), text(stderr), status.success())
    }
}

/// Runs `test` with a kubectl that talks to a demo API.
async fn with_kubectl(test: fn(&Kubectl)) {
    if !test_support::has_kubectl() {
        return;
    }
    let demo = Demo::start(None, None, UpstreamIdentity::RequestHeader).await.unwrap();
    let kubeconfig = demo.write_kubeconfig(demo.api_address()).unwrap();
    let kubectl = Kubectl { kubeconfig, home: demo.folder().to_owned() };
    tokio::task::spawn_blocking(move || test(&kubectl)).await.unwrap();
    let folder = demo.folder().to_owned();
    demo.stop().await;
    assert!(!folder.exists());
}

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1', ports: [{containerPort: 80}]}
      - {name: side, image: 'busybox:1'}
";

#[tokio::test(flavor = "multi_thread")]
async fn create_get_patch_delete() {
    with_kubectl(|kubectl| {
        let create = ["create", "configmap", "hello", "--from-literal=a=1"];
        assert_eq!(kubectl.ok(&create, ""), "configmap/hello created\n");
        let again = kubectl.fails(&create, "");
        assert!(again.contains("configmaps \"hello\" already exists"), "{again}");

        let table = kubectl.ok(&["get", "cm"], "");
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "DATA", "AGE"]);
        assert_eq!(lines[1][..2], ["hello", "1"]);
        let yaml = kubectl.ok(&["get", "cm", "hello", "-o", "yaml"], "");
        assert!(yaml.starts_with("apiVersion: v1\ndata:\n  a: \"1\"\nkind: ConfigMap\n"), "{yaml}");
        let all = kubectl.ok(&["get", "cm,secrets", "-A", "-o", "name"], "");
        assert!(all.contains("configmap/welcome\n") && all.contains("secret/password\n"), "{all}");

        let merge = ["patch", "cm", "hello", "--type=merge", "-p", r#"{"data":{"b":"2"}}"#];
        assert_eq!(kubectl.ok(&merge, ""), "configmap/hello patched\n");
        let json = r#"[{"op":"remove","path":"/data/a"}]"#;
        kubectl.ok(&["patch", "cm", "hello", "--type=json", "-p", json], "");
        let data = kubectl.ok(&["get", "cm", "hello", "-o", "jsonpath={.data}"], "");
        assert_eq!(data, r#"{"b":"2"}"#);
        kubectl.ok(&["label", "cm", "hello", "tier=gold"], "");
        let found = kubectl.ok(&["get", "cm", "-l", "tier=gold", "-o", "name"], "");
        assert_eq!(found, "configmap/hello\n");
        let deleted = kubectl.ok(&["delete", "cm", "hello"], "");
        assert!(deleted.starts_with("configmap \"hello\" deleted"), "{deleted}");
        let gone = kubectl.fails(&["get", "cm", "hello"], "");
        assert_eq!(gone, "Error from server (NotFound): configmaps \"hello\" not found\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_and_edit() {
    with_kubectl(|kubectl| {
        let apply = ["apply", "-f", "-"];
        assert_eq!(kubectl.ok(&apply, DEPLOYMENT), "deployment.apps/web created\n");
        assert_eq!(kubectl.ok(&apply, DEPLOYMENT), "deployment.apps/web unchanged\n");
        let newer = DEPLOYMENT
            .replace("nginx:1", "nginx:2")
            .replace(", labels: {app: web}}\nspec", "}\nspec");
        assert_eq!(kubectl.ok(&apply, &newer), "deployment.apps/web configured\n");
        let images = "jsonpath={.spec.template.spec.containers[*].image}";
        assert_eq!(kubectl.ok(&["get", "deploy", "web", "-o", images], ""), "nginx:2 busybox:1");
        kubectl.ok(&["set", "image", "deploy/web", "side=busybox:2"], "");
        assert_eq!(kubectl.ok(&["get", "deploy", "web", "-o", images], ""), "nginx:2 busybox:2");
        let diff = kubectl.run(&["diff", "-f", "-"], DEPLOYMENT);
        assert!(diff.0.contains("nginx:1"), "{diff:?}");

        let scaled = kubectl.ok(&["scale", "deploy/web", "--replicas=5"], "");
        assert_eq!(scaled, "deployment.apps/web scaled\n");
        let status = kubectl.ok(&["rollout", "status", "deploy/web"], "");
        assert!(status.contains("successfully rolled out"), "{status}");
        let ready = kubectl.ok(&["get", "deploy", "web", "--no-headers"], "");
        assert!(ready.split_whitespace().nth(1) == Some("5/5"), "{ready}");

        let server_side = ["apply", "--server-side", "-f", "-"];
        let other = DEPLOYMENT.replace("name: web, labels", "name: other, labels");
        let applied = kubectl.ok(&server_side, &other);
        assert_eq!(applied, "deployment.apps/other serverside-applied\n");
        kubectl.ok(&server_side, &other);
        kubectl.ok(&["replace", "-f", "-"], &other);
        kubectl.ok(&["delete", "-f", "-"], &other);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_kinds_are_served_and_discovered() {
    with_kubectl(|kubectl| {
        let definition = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
";
        kubectl.ok(&["create", "-f", "-"], definition);
        kubectl.ok(&["wait", "--for=condition=Established", "crd/widgets.example.com"], "");
        let widget =
            "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}";
        assert_eq!(kubectl.ok(&["apply", "-f", "-"], widget), "widget.example.com/w created\n");
        let bigger = widget.replace('3', "4");
        assert_eq!(kubectl.ok(&["apply", "-f", "-"], &bigger), "widget.example.com/w configured\n");
        let table = kubectl.ok(&["get", "wd"], "");
        let words: Vec<_> = table.split_whitespace().collect();
        assert_eq!(words, ["NAME", "SIZE", "w", "4"]);
        let resources = kubectl.ok(&["api-resources", "--api-group=example.com"], "");
        assert!(resources.contains("widgets") && resources.contains("wd"), "{resources}");
        kubectl.ok(&["delete", "crd", "widgets.example.com"], "");
        let gone = kubectl.fails(&["get", "widgets.example.com"], "");
        assert!(
            gone.contains("find the requested resource") || gone.contains("doesn't have"),
            "{gone}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions() {
    with_kubectl(|kubectl| {
        let denied = kubectl.fails(&["create", "configmap", "x", "--as", "viewer"], "");
        assert!(
            denied.contains(
                "configmaps is forbidden: User \"viewer\" cannot create resource \"configmaps\" \
                 in API group \"\" in the namespace \"default\""
            ),
            "{denied}"
        );
        kubectl.ok(&["get", "pods", "--as", "viewer"], "");
        kubectl.ok(&["get", "pods", "--context", "viewer"], "");
        let denied = kubectl.fails(&["get", "pods", "--context", "viewer", "--as", "jane"], "");
        assert!(denied.contains("users \"jane\" is forbidden: User \"viewer\" cannot impersonate"));
        let can = |args: &[&str]| kubectl.run(&[&["auth", "can-i"], args].concat(), "").0;
        assert_eq!(can(&["delete", "pods"]), "yes\n");
        assert_eq!(can(&["delete", "pods", "--as", "viewer"]), "no\n");
        let list = kubectl.ok(&["auth", "can-i", "--list", "--as", "viewer"], "");
        assert!(list.contains("*.*") && list.contains("[get list watch]"), "{list}");
        let who = kubectl.ok(&["auth", "whoami", "--as", "jane", "--as-group", "dev"], "");
        assert!(who.contains("jane") && who.contains("[dev system:authenticated]"), "{who}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_pods_logs_and_listings() {
    with_kubectl(|kubectl| {
        kubectl.ok(&["create", "namespace", "team"], "");
        kubectl.ok(&["run", "p", "--image=nginx", "-n", "team"], "");
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/p", "-n", "team"], "");
        let pods = kubectl.ok(&["get", "pods", "-n", "team"], "");
        assert!(pods.contains("1/1     Running"), "{pods}");
        assert_eq!(kubectl.ok(&["logs", "p", "-n", "team", "--tail=1"], ""), "p: ready\n");
        let echo = kubectl.ok(&["exec", "p", "-n", "team", "--", "echo", "hello"], "");
        assert_eq!(echo, "hello\n");
        let exit = kubectl.fails(&["exec", "p", "-n", "team", "--", "sh", "-c", "exit 3"], "");
        assert!(exit.contains("exit code 3"), "{exit}");
        kubectl.ok(&["describe", "pod", "p", "-n", "team"], "");
        kubectl.ok(&["expose", "pod", "hello-0", "--port=80"], "");
        kubectl.ok(&["create", "deployment", "d", "--image=nginx"], "");
        kubectl.ok(&["create", "secret", "generic", "s", "--from-literal=k=v"], "");
        kubectl.ok(&["create", "serviceaccount", "robot"], "");
        kubectl.ok(&["create", "job", "j", "--image=busybox"], "");
        kubectl.ok(&["create", "cronjob", "cj", "--image=busybox", "--schedule=* * * * *"], "");
        kubectl.ok(&["create", "ingress", "i", "--rule=example.com/*=web:80"], "");
        let backend = "jsonpath={.spec.rules[0].http.paths[0].backend.service.port.number}";
        assert_eq!(kubectl.ok(&["get", "ingress", "i", "-o", backend], ""), "80");
        kubectl.ok(&["cordon", "demo-node"], "");
        let role = ["create", "role", "r", "--verb=get", "--resource=pods"];
        kubectl.ok(&role, "");
        kubectl.ok(&["create", "rolebinding", "b", "--role=r", "--user=jane"], "");
        kubectl.ok(&["get", "all,nodes,ns,events,roles,rolebindings,sa,crd", "-o", "wide"], "");
        kubectl.ok(&["api-resources"], "");
        kubectl.ok(&["api-versions"], "");
        kubectl.ok(&["cluster-info"], "");
        kubectl.ok(&["delete", "configmaps", "--all"], "");
        kubectl.ok(&["delete", "pod", "p", "-n", "team"], "");
        kubectl.ok(&["delete", "namespace", "team"], "");
        let bad = kubectl.fails(&["create", "configmap", "Bad_Name"], "");
        assert!(bad.contains("ConfigMap \"Bad_Name\" is invalid: metadata.name"), "{bad}");
        let nowhere = kubectl.fails(&["create", "configmap", "x", "-n", "none"], "");
        assert!(nowhere.contains("namespaces \"none\" not found"), "{nowhere}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_report_changes_as_they_happen() {
    with_kubectl(|kubectl| {
        let mut watch = kubectl.command(&["get", "configmaps", "-w"]).spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        assert!(next().starts_with("NAME"));
        assert!(next().starts_with("welcome"));
        kubectl.ok(&["create", "configmap", "later"], "");
        assert!(next().starts_with("later"));
        kubectl.ok(&["patch", "cm", "later", "-p", r#"{"data":{"a":"b"}}"#], "");
        assert!(next().starts_with("later     1"));
        watch.kill().unwrap();
        watch.wait().unwrap();
    })
    .await;
}

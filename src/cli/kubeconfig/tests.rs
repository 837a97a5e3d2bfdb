use serde_json::{Value, json};

use super::edit::{self, Edited};
use super::emit;
use super::entries::{Entries, Request, parse};
use super::*;
use test_support::TempDir;

const FROM: &str = "\
apiVersion: v1
kind: Config
# the cluster at work
clusters:
- name: eks
  cluster:
    server: https://api.eks.example
    certificate-authority-data: UEVN
    proxy-url: http://corp:3128
    extensions: [{name: client.authentication.k8s.io/exec, extension: {audience: a}}]
contexts:
- name: work
  context: {cluster: eks, user: me, namespace: team-a}
current-context: work
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: ./bin/get-token
      args: [eks, get-token, --cluster-name, 'yes']
      env: [{name: AWS_PROFILE, value: \"0123\"}]
    future-field: {a: [1, 2.5, null, true]}
- name: files
  user: {client-certificate: me.crt, client-key: keys/me.key, tokenFile: token}
";

fn request() -> Request {
    Request {
        name: "work-audit".into(),
        server: "https://proxy:7443".into(),
        certificate_authority: None,
        tls_server_name: None,
        embed: false,
    }
}

fn entries(dir: &TempDir, text: &str, request: &Request) -> anyhow::Result<Entries> {
    let path = dir.write("config", text);
    let source = KubeconfigSource::find(Some(("--from", &path)));
    let selection = Selection::current(Peer::ApiServer);
    Entries::read(request, &source.load()?.selected(selection)?)
}

fn merged(text: &str, entries: &Entries, use_context: bool) -> Edited {
    edit::merge(text, entries, use_context).unwrap()
}

#[test]
fn credentials_are_kept_and_the_way_to_the_api_server_is_not() {
    let dir = TempDir::new();
    let ca = dir.write("ca.crt", "-----BEGIN CERTIFICATE-----\n");
    let request = Request { certificate_authority: Some(ca.clone()), ..request() };
    let document = entries(&dir, FROM, &request).unwrap().document();
    assert_eq!(
        document["clusters"],
        json!([{"name": "work-audit", "cluster": {
            "server": "https://proxy:7443", "certificate-authority": ca,
            "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}],
        }}])
    );
    assert_eq!(
        document["contexts"],
        json!([{"name": "work-audit", "context": {
            "cluster": "work-audit", "user": "me", "namespace": "team-a"}}])
    );
    let user = &document["users"][0]["user"];
    assert_eq!(user["exec"]["command"], json!(dir.path().join("bin/get-token")));
    assert_eq!(user["exec"]["env"][0]["value"], "0123");
    assert_eq!(user["future-field"], json!({"a": [1, 2.5, null, true]}));
    let text = emit::document(&document);
    assert_eq!(parse(&text).unwrap(), document, "{text}");
    assert!(text.contains("    - \"yes\"\n") || text.contains("- \"yes\"\n"), "{text}");
}

#[test]
fn paths_are_made_absolute_or_files_embedded() {
    let dir = TempDir::new();
    dir.write("me.crt", "CERT");
    dir.write("keys/me.key", "KEY");
    let text = FROM.replace("user: me,", "user: files,");
    let user = |request: &Request| {
        let document = entries(&dir, &text, request).unwrap().document();
        document["users"][0]["user"].clone()
    };
    let path = |name: &str| json!(dir.path().join(name));
    let (certificate, key, token) = (path("me.crt"), path("keys/me.key"), path("token"));
    assert_eq!(
        user(&request()),
        json!({"client-certificate": certificate, "client-key": key, "tokenFile": token})
    );
    assert_eq!(
        user(&Request { embed: true, ..request() }),
        json!({"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ", "tokenFile": token})
    );
    std::fs::remove_file(dir.path().join("keys/me.key")).unwrap();
    let error = entries(&dir, &text, &Request { embed: true, ..request() }).unwrap_err();
    let wanted = format!(
        "{}: users[files].user.client-key: cannot read {}",
        dir.path().join("config").display(),
        dir.path().join("keys/me.key").display()
    );
    assert_eq!(error.to_string(), wanted);
    let ca = dir.write("ca.crt", "nothing");
    let error = entries(&dir, FROM, &Request { certificate_authority: Some(ca), ..request() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ca.crt: has no certificate; PEM text is expected"), "{error}");
}

#[test]
fn merging_keeps_everything_else_and_is_idempotent() {
    let dir = TempDir::new();
    let mut entries = entries(&dir, FROM, &request()).unwrap();
    entries.use_existing_user();
    let first = merged(FROM, &entries, false);
    assert!(!first.is_rewritten);
    for line in FROM.lines() {
        assert!(first.text.contains(line), "{line} is gone:\n{}", first.text);
    }
    let document = parse(&first.text).unwrap();
    assert_eq!(document["current-context"], "work");
    assert_eq!(document["contexts"][1]["context"]["cluster"], "work-audit");
    assert_eq!(document["users"].as_array().unwrap().len(), 2);
    assert_eq!(merged(&first.text, &entries, false).text, first.text);
    let current = merged(&first.text, &entries, true);
    assert_eq!(parse(&current.text).unwrap()["current-context"], "work-audit");
    // An older one of that name is replaced.
    let older = first.text.replace("https://proxy:7443", "https://old:1");
    assert_eq!(merged(&older, &entries, false).text, first.text);
}

#[test]
fn all_styles_of_yaml_can_be_merged_into() {
    let dir = TempDir::new();
    let entries = entries(&dir, FROM, &request()).unwrap();
    for (text, is_rewritten) in [
        ("", false),
        ("kind: Config\nclusters: []\ncontexts: null\nusers:\n# none yet\n", false),
        (
            "clusters:\n  - name: a # first\n    cluster: {server: 'https://a'}\n\n# end\nx: 1",
            false,
        ),
        ("{\"clusters\": [{\"name\": \"a\", \"cluster\": {}}]}", true),
        ("clusters: [{name: a, cluster: {}}]\nx: # y\n  - 1\n", true),
        ("---\nusers:\n- {name: me, user: {token: \"a\\nb\"}}\ncurrent-context: ''\n", false),
    ] {
        let mut entries = entries.clone();
        entries.rename_user_if_taken(text).unwrap();
        let edited = merged(text, &entries, false);
        assert_eq!(edited.is_rewritten, is_rewritten, "{text}\n{}", edited.text);
        let document = parse(&edited.text).unwrap();
        let old = parse(text).unwrap();
        for (name, value) in old.as_object().unwrap() {
            match (value, name.as_str()) {
                (Value::Array(items), "clusters" | "contexts" | "users") => {
                    let new = document[name].as_array().unwrap();
                    assert_eq!(new[..items.len()], items[..], "{text}");
                }
                (Value::Null, _) | (_, "clusters" | "current-context") => {}
                _ => assert_eq!(&document[name], value, "{text}"),
            }
        }
        assert_eq!(document["current-context"], "work-audit", "{text}");
        let user =
            document["contexts"].as_array().unwrap().last().unwrap()["context"]["user"].clone();
        let taken = text.contains("name: me");
        assert_eq!(user, if taken { "work-audit" } else { "me" }, "{text}");
        assert_eq!(merged(&edited.text, &entries, false).text, edited.text);
    }
    let error = edit::merge("users: {token: hunter2", &entries, false).err().unwrap().to_string();
    assert!(error.starts_with("line ") && !error.contains("hunter2"), "{error}");
    let error = edit::merge("- 1", &entries, false).err().unwrap().to_string();
    assert!(error.starts_with("is not a kubeconfig"), "{error}");
}

#[test]
fn strings_are_quoted_where_yaml_would_read_something_else() {
    for text in
        ["yes", "0x1F", "1e3", "", " a", "a: b", "a #b", "~", "null", "2030-01-01", "é\n\"", "-a"]
    {
        let value = json!({ "a": text, "b": [text, {text: [[text]]}], "c": {}, "d": [] });
        let written = emit::document(&value);
        assert_eq!(parse(&written).unwrap(), value, "{written}");
        assert!(written.starts_with("a: \""), "{written}");
    }
    let plain = json!({"server": "https://a.example:6443/x", "name": "arn_a.b/c@d-e"});
    let text = "name: arn_a.b/c@d-e\nserver: https://a.example:6443/x\n";
    assert_eq!(emit::document(&plain), text);
}

#[test]
fn files_are_replaced_atomically_and_locked() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = TempDir::new();
    let real = dir.write("real", "old");
    let link = dir.path().join("config");
    symlink("real", &link).unwrap();
    let lock = write::Lock::take(&link).unwrap();
    let error = write::Lock::take(&link).err().unwrap().to_string();
    assert!(error.contains("config is locked: another process"), "{error}");
    write::replace(&link, "new").unwrap();
    drop(lock);
    drop(write::Lock::take(&link).unwrap());
    assert_eq!(std::fs::read_to_string(&real).unwrap(), "new");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&real).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

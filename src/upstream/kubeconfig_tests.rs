use super::*;

const PATH: &str = "/etc/kap/kubeconfig.yaml";

fn read(text: &str, context: Option<&str>) -> Result<UpstreamConfig, String> {
    let path = Path::new(PATH);
    Reader { path, folder: path.parent().unwrap(), peer: Peer::ApiServer }
        .read(text, context)
        .map_err(|error| error.to_string())
}

/// A kubeconfig with one cluster and one user; each a YAML flow mapping.
fn one(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
preferences: {{}}
current-context: c
contexts:
- name: c
  context: {{cluster: k, user: u, namespace: x}}
clusters:
- name: k
  cluster: {cluster}
users:
- name: u
  user: {user}
"
    )
}

#[test]
fn the_usual_one() {
    let text = one(
        "{server: 'https://10.0.0.1:6443', certificate-authority-data: 'UEVN', tls-server-name: kubernetes}",
        "{client-certificate: pki/c.crt, client-key: /pki/c.key, token: abc}",
    );
    let config = read(&text, None).unwrap();
    assert_eq!(config.server.authority.as_str(), "10.0.0.1:6443");
    assert!(matches!(&config.trust, Trust::Ca(Pem::Data { bytes, .. }) if bytes == b"PEM"));
    assert_eq!(config.tls_server_name, Some("kubernetes".try_into().unwrap()));
    let certificate = config.client_certificate.as_ref().unwrap();
    assert!(
        matches!(&certificate.certificate, Pem::File { path, .. } if path == Path::new("/etc/kap/pki/c.crt"))
    );
    assert!(matches!(&certificate.key, Pem::File { path, .. } if path == Path::new("/pki/c.key")));
    assert_eq!(config.credentials.as_ref().unwrap().header(), "Bearer abc");
    let debug = format!("{config:?}");
    assert!(!debug.contains("abc"), "{debug}");
}

#[test]
fn context_by_name_and_plain_http_without_a_user() {
    let text = "current-context: other
contexts:
- {name: other, context: {cluster: none, user: none}}
- {name: here, context: {cluster: here}}
clusters:
- {name: here, cluster: {server: 'http://127.0.0.1:8080'}}
";
    let config = read(text, Some("here")).unwrap();
    assert_eq!(config.server.port, 8080);
    assert!(config.credentials.is_none() && config.client_certificate.is_none());
}

#[test]
fn username_and_password() {
    let text = one("{server: 'http://a'}", "{username: admin, password: 'pass'}");
    let header = read(&text, None).unwrap().credentials.unwrap().header();
    assert_eq!(header, "Basic YWRtaW46cGFzcw==");
}

#[test]
fn folded_base64_is_read() {
    let text = one("{server: 'https://a', certificate-authority-data: \"UE\\nVN \"}", "{}");
    assert!(
        matches!(read(&text, None).unwrap().trust, Trust::Ca(Pem::Data { bytes, .. }) if bytes == b"PEM")
    );
}

#[test]
fn insecure_is_taken_at_its_word() {
    let text = one("{server: 'https://a', insecure-skip-tls-verify: true}", "{}");
    assert!(matches!(read(&text, None).unwrap().trust, Trust::Insecure));
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    let https = "{server: 'https://a', certificate-authority: ca.crt}";
    for (text, wanted) in [
        (one("{}", "{}"), "clusters[k].cluster.server: is missing; give a URL"),
        (one("{server: 'a:6443'}", "{}"), "clusters[k].cluster.server: the scheme is missing"),
        (one("{server: 'https://a', proxy-url: 'http://p'}", "{}"), "proxy-url: is not supported; put"),
        (
            one("{server: 'https://a', certificate-authority-data: '%%'}", "{}"),
            "clusters[k].cluster.certificate-authority-data: is not base64",
        ),
        (
            one("{server: 'https://a', certificate-authority: x, insecure-skip-tls-verify: true}", "{}"),
            "insecure-skip-tls-verify: cannot stand beside certificate-authority; remove one",
        ),
        (
            one("{server: 'https://a', tls-server-name: 'a b'}", "{}"),
            "tls-server-name: \"a b\" is no DNS name",
        ),
        (one(https, "{exec: {command: aws}}"), "users[u].user.exec: is not supported; give the proxy"),
        (one(https, "{auth-provider: {name: gcp}}"), "users[u].user.auth-provider: is not supported"),
        (one(https, "{as: root}"), "users[u].user.as: is not supported"),
        (one(https, "{client-certificate: c}"), "client-certificate: needs client-key"),
        (one(https, "{client-key: c}"), "client-key: needs client-certificate"),
        (one(https, "{token: t, username: u}"), "username: cannot stand beside a token"),
        (one(https, "{tokenFile: nowhere}"), "users[u].user.tokenFile: cannot read /etc/kap/nowhere"),
        (
            "contexts:\n- {name: a, context: {cluster: k}}\n- {name: b, context: {cluster: k}}\n".into(),
            "current-context: is not set; set it, or choose with --context one of a, b",
        ),
        ("current-context: x\n".into(), "contexts: has no \"x\"; choose with --context one of none"),
        (
            "current-context: a\ncontexts:\n- {name: a, context: {cluster: k, user: u}}\n".into(),
            "contexts[a].context.cluster: \"k\" is not in clusters; there are none",
        ),
        (
            "current-context: a\ncontexts:\n- {name: a, context: {cluster: k, user: u}}\nclusters:\n- {name: k, cluster: {server: 'http://a'}}\n".into(),
            "contexts[a].context.user: \"u\" is not in users; there are none",
        ),
    ] {
        let error = read(&text, None).map(|_| ()).expect_err(wanted);
        assert!(error.starts_with(PATH), "{error}");
        assert!(error.contains(wanted), "{error}\nhas no\n{wanted}");
    }
}

#[test]
fn yaml_errors_have_a_place_and_no_secrets() {
    let text = one("{server: [1]}", "{token: hunter2}").replace("kind: Config", "kind: Config\n");
    let error = read(&text, None).map(|_| ()).unwrap_err();
    assert_eq!(error, "/etc/kap/kubeconfig.yaml:11:21: expected string scalar");
    assert!(!error.contains("hunter2"), "{error}");
    let broken = "users:\n- name: u\n  user: {token: hunter2, client-key-data: {a: hunter2}\n";
    let error = read(broken, None).map(|_| ()).unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn empty_lists_may_be_null() {
    let text = "contexts: null\nclusters: null\nusers: null\ncurrent-context: ''\n";
    let error = read(text, None).map(|_| ()).unwrap_err();
    assert!(error.contains("current-context: is not set"), "{error}");
}

#[test]
fn a_missing_file_names_the_flag() {
    let error = UpstreamConfig::from_kubeconfig(Path::new("/nowhere/config"), None).unwrap_err();
    assert!(
        error.to_string().starts_with("--kubeconfig: cannot read /nowhere/config: "),
        "{error}"
    );
}

#[test]
fn a_receivers_kubeconfig_speaks_of_a_receiver_and_trusts_the_system() {
    let dir = crate::test_dir::TestDir::new();
    let read = |text: &str| {
        let path = dir.write("webhook.conf", text);
        let config = UpstreamConfig::of_receiver(&path);
        config.map_err(|error| error.to_string().replace(&path.display().to_string(), "w.conf"))
    };
    let config = read(&one("{server: 'https://audit.example.com/events'}", "{}")).unwrap();
    assert!(matches!(config.trust, Trust::System));
    let config = read(&one("{server: 'http://127.0.0.1:1/events'}", "{}")).unwrap();
    assert!(!config.server.is_https());
    let server = "{server: 'https://audit.example.com'}";
    for (text, expected) in [
        (
            one("{}", "{}"),
            "w.conf: clusters[k].cluster.server: is missing; give a URL like https://audit",
        ),
        (
            one("{server: 'https://a', proxy-url: 'ftp://p'}", "{}"),
            "w.conf: clusters[k].cluster.proxy-url: has a scheme that is not supported; give",
        ),
        (
            one(server, "{exec: {command: x}}"),
            "w.conf: users[u].user.exec: is not supported; give the proxy credentials of its own: a token (tokenFile)",
        ),
        (
            one(server, "{as: jane}"),
            "w.conf: users[u].user.as: is not supported; give a user without",
        ),
        (
            one(server, "{}").replace("current-context: c", "current-context: d"),
            "w.conf: contexts: has no \"d\"; set current-context to one of c",
        ),
        (
            one(server, "{}").replace("current-context: c", ""),
            "w.conf: current-context: is not set; set it to one of c",
        ),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("API server") && !error.contains("--"), "{error}");
    }
    let error = UpstreamConfig::of_receiver(Path::new("/nowhere/w.conf")).unwrap_err().to_string();
    assert!(
        error.starts_with("the webhook's kubeconfig: cannot read /nowhere/w.conf: "),
        "{error}"
    );
}

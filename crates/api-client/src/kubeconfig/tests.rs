use super::*;

const PATH: &str = "/etc/kap/kubeconfig.yaml";

fn read_for(text: &str, context: Option<&str>, peer: Peer) -> Result<ClientConfig, String> {
    let kubeconfig = Kubeconfig::parse(text, Path::new(PATH)).map_err(|error| error.to_string())?;
    let selection = Selection { context, ..Selection::current(peer) };
    kubeconfig.client_config(selection).map_err(|error| error.to_string())
}

fn read(text: &str, context: Option<&str>) -> Result<ClientConfig, String> {
    read_for(text, context, Peer::ApiServer)
}

fn pem_pair(certificate: &ClientCertificate) -> (&Pem, &Pem) {
    match certificate {
        ClientCertificate::Pem { certificate, key } => (certificate, key),
        ClientCertificate::Plugin(_) => panic!("not from a plugin"),
    }
}

/// Returns a kubeconfig with one cluster and one user; each a YAML flow mapping.
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
    let (certificate, key) = pem_pair(certificate);
    assert!(
        matches!(certificate, Pem::File { path, .. } if path == Path::new("/etc/kap/pki/c.crt"))
    );
    assert!(matches!(key, Pem::File { path, .. } if path == Path::new("/pki/c.key")));
    assert_eq!(config.credentials.as_ref().unwrap().header().unwrap(), "Bearer abc");
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
    assert_eq!(header.unwrap(), "Basic YWRtaW46cGFzcw==");
}

#[test]
fn folded_base64_is_read() {
    let text = one("{server: 'https://a', certificate-authority-data: \"UE\\nVN \"}", "{}");
    assert!(
        matches!(read(&text, None).unwrap().trust, Trust::Ca(Pem::Data { bytes, .. }) if bytes == b"PEM")
    );
}

#[test]
fn insecure_skips_verification() {
    let text = one("{server: 'https://a', insecure-skip-tls-verify: true}", "{}");
    assert!(matches!(read(&text, None).unwrap().trust, Trust::Insecure));
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    let https = "{server: 'https://a', certificate-authority: ca.crt}";
    for (text, wanted) in [
        (one("{}", "{}"), "clusters[k].cluster.server: is missing; give a URL"),
        (one("{server: 'a:6443'}", "{}"), "clusters[k].cluster.server: the scheme is missing"),
        (
            one("{server: 'https://a', proxy-url: 'ftp://p'}", "{}"),
            "proxy-url: has a scheme that is not supported; give",
        ),
        (
            one("{server: 'https://a', certificate-authority-data: '%%'}", "{}"),
            "clusters[k].cluster.certificate-authority-data: is not base64",
        ),
        (
            one("{server: 'https://a', certificate-authority: x, insecure-skip-tls-verify: true}", "{}"),
            "insecure-skip-tls-verify: cannot be combined with certificate-authority; remove one",
        ),
        (
            one("{server: 'https://a', tls-server-name: 'a b'}", "{}"),
            "tls-server-name: \"a b\" is not a DNS name",
        ),
        (
            one(https, "{auth-provider: {name: gcp}}"),
            "users[u].user.auth-provider: \"gcp\" is not supported, kubectl has removed it; install \
             gke-gcloud-auth-plugin",
        ),
        (one(https, "{auth-provider: {name: azure}}"), "kubelogin convert-kubeconfig"),
        (one(https, "{as: root}"), "users[u].user.as: is not supported"),
        (one(https, "{client-certificate: c}"), "client-certificate: needs client-key"),
        (one(https, "{client-key: c}"), "client-key: needs client-certificate"),
        (one(https, "{token: t, username: u}"), "username: cannot be combined with a token"),
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
fn a_webhooks_kubeconfig_does_not_mention_the_api_server() {
    let read = |text: &str| read_for(text, None, Peer::Webhook);
    let config = read(&one("{server: 'https://audit.example.com/events'}", "{}")).unwrap();
    assert!(matches!(config.trust, Trust::System));
    let config = read(&one("{server: 'http://127.0.0.1:1/events'}", "{}")).unwrap();
    assert!(!config.server.is_https());
    let server = "{server: 'https://audit.example.com'}";
    for (text, expected) in [
        (one("{}", "{}"), "clusters[k].cluster.server: is missing; give a URL like https://audit"),
        (
            one("{server: 'https://a', proxy-url: 'ftp://p'}", "{}"),
            "clusters[k].cluster.proxy-url: has a scheme that is not supported; give",
        ),
        (one(server, "{as: jane}"), "users[u].user.as: is not supported; give a user without"),
        (
            one(server, "{}").replace("current-context: c", "current-context: d"),
            "contexts: has no \"d\"; set current-context to one of c",
        ),
        (
            one(server, "{}").replace("current-context: c", ""),
            "current-context: is not set; set it to one of c",
        ),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.starts_with(&format!("{PATH}: {expected}")), "{error}");
        assert!(!error.contains("API server") && !error.contains("--"), "{error}");
    }
}

fn plugin(exec: &str) -> Result<ExecPlugin, String> {
    let cluster = "{server: 'https://a', certificate-authority-data: UEVN, \
                   tls-server-name: b, proxy-url: 'http://p', disable-compression: true, extensions: \
                   [{name: other, extension: 1}, \
                   {name: client.authentication.k8s.io/exec, extension: {audience: x}}]}";
    let config = read(&one(cluster, &format!("{{exec: {exec}}}")), None)?;
    assert!(matches!(config.client_certificate, Some(ClientCertificate::Plugin(_))));
    Ok(config.plugin().unwrap().plugin().clone())
}

#[test]
fn plugins_are_read_like_client_go_does() {
    let read = plugin(
        "{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, 'x y'], \
         env: [{name: A, value: '1'}], interactiveMode: IfAvailable, provideClusterInfo: true}",
    )
    .unwrap();
    assert_eq!((read.command.as_path(), read.args.len()), (Path::new("sh"), 2));
    assert_eq!(read.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(
        read.cluster.unwrap(),
        serde_json::json!({
            "server": "https://a", "tls-server-name": "b", "certificate-authority-data": "UEVN",
            "proxy-url": "http://p", "disable-compression": true, "config": {"audience": "x"},
        })
    );
    let read = plugin(
        "{apiVersion: client.authentication.k8s.io/v1beta1, command: ../../bin/sh, args: null}",
    )
    .unwrap();
    assert_eq!(read.command, Path::new("/bin/sh"));
    assert_eq!((read.api_version, read.cluster), (crate::exec::ApiVersion::V1Beta1, None));
    let v1 = "apiVersion: client.authentication.k8s.io/v1";
    for (exec, wanted) in [
        ("{}".to_owned(), "exec.command: is missing"),
        ("{command: sh}".to_owned(), "exec.apiVersion: is missing; set it to"),
        (
            "{command: sh, apiVersion: client.authentication.k8s.io/v1alpha1}".to_owned(),
            "exec.apiVersion: \"client.authentication.k8s.io/v1alpha1\" is not supported; use",
        ),
        (
            format!("{{command: sh, {v1}}}"),
            "exec.interactiveMode: is missing; client.authentication.k8s.io/v1 requires",
        ),
        (
            format!("{{command: sh, {v1}, interactiveMode: Always}}"),
            "exec.interactiveMode: Always is not supported: the proxy has no terminal",
        ),
        (
            format!("{{command: sh, {v1}, interactiveMode: maybe}}"),
            "exec.interactiveMode: \"maybe\" is not one of",
        ),
        (
            format!("{{command: sh, {v1}, interactiveMode: Never, env: [{{value: x}}]}}"),
            "exec.env[0].name: is missing",
        ),
        (
            format!("{{command: no-such, {v1}, interactiveMode: Never, installHint: 'get it'}}"),
            "exec.command: exec: executable no-such not found; it is a credential plugin: install \
             it: get it",
        ),
    ] {
        let error = plugin(&exec).unwrap_err();
        assert!(error.starts_with(&format!("{PATH}: users[u].user.{wanted}")), "{error}");
    }
}

#[test]
fn other_credentials_win_over_a_plugin() {
    let user = "{token: t, exec: {command: nowhere}}";
    let config = read(&one("{server: 'http://a'}", user), None).unwrap();
    assert_eq!(config.credentials.unwrap().header().unwrap(), "Bearer t");
}

#[test]
fn several_files_are_merged_like_kubectl_does() {
    let first = "current-context: ''
contexts: [{name: c, context: {cluster: k, user: u}}]
users: [{name: u, user: {tokenFile: nowhere}}]
";
    let second = "current-context: c
contexts: [{name: c, context: {cluster: other}}, {name: d, context: {cluster: k}}]
clusters: [{name: k, cluster: {server: 'https://a', certificate-authority: ca.crt}}]
users: [{name: u, user: {token: second}}]
";
    let mut merged = Kubeconfig::parse(first, Path::new("/one/config")).unwrap();
    merged.merge("", Path::new("/empty/config")).unwrap();
    merged.merge(second, Path::new("/two/config")).unwrap();
    assert!(!merged.is_empty());
    let selection = Selection::current(Peer::ApiServer);
    let error = merged.client_config(selection).unwrap_err().to_string();
    let wanted = "/one/config: users[u].user.tokenFile: cannot read /one/nowhere: ";
    assert!(error.starts_with(wanted), "{error}");
    let selected = merged.selected(selection).unwrap();
    assert_eq!(selected.cluster, ("k".to_owned(), "/two/config".into()));
    assert_eq!(selected.file, Path::new("/one/config"));
    let config = merged.client_config(Selection { context: Some("d"), ..selection }).unwrap();
    let Trust::Ca(Pem::File { path, .. }) = &config.trust else { panic!("no CA") };
    assert_eq!(path, Path::new("/two/ca.crt"));
    let error = merged.client_config(Selection { context: Some("x"), ..selection }).unwrap_err();
    let wanted = "/one/config, /empty/config, /two/config: contexts: has no \"x\"; choose with \
                  --context one of c, d";
    assert_eq!(error.to_string(), wanted);
}

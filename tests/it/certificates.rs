//! Certificates of real PKIs that kubectl and kube-apiserver accept, in each role that they can
//! have.

use rcgen::{DnType, ExtendedKeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::support::http1::Connection;
use crate::support::jwt::{Signer, now};
use crate::support::pki::{self, Authority, Identity};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, client, http1, wait_for};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Returns a server with this certificate.
async fn server(identity: &Identity) -> FakeUpstream {
    let addr = "127.0.0.1:0".parse().unwrap();
    let config = pki::server_config(identity);
    FakeUpstream::start_tls(addr, config, |_| async { json(200, "{}") }).await
}

async fn get(proxy: &Proxy, headers: &[&str]) -> u16 {
    http1::get(proxy.addr, Some("alice"), TARGET, headers).await.unwrap().head.status
}

/// Returns a root with critical policies, and a certificate below it.
fn federal(hosts: &[&str], name: &str) -> (Authority, Identity) {
    let root = Authority::root_with("Federal Root", pki::critical_policies);
    let hosts =
        rcgen::CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    let hosts = hosts.unwrap().subject_alt_names;
    let leaf = root.client(|params| {
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = hosts;
        params.distinguished_name.push(DnType::CommonName, name);
        pki::critical_policies(params);
    });
    (root, leaf)
}

#[tokio::test]
async fn the_api_server_may_have_any_certificate_that_kubectl_accepts() {
    let dir = TempDir::new();
    let own = pki::openssl_req_x509("api", &["127.0.0.1"]);
    let (root, below) = federal(&["127.0.0.1"], "api");
    for (identity, ca) in [(&own, pki::pem(&own.chain[0])), (&below, root.pem.clone())] {
        let upstream = server(identity).await;
        let ca = dir.write("upstream-ca.crt", &ca);
        let flag = format!("--upstream-ca-file={}", ca.display());
        let proxy = Builder::new(upstream.addr).flag(&flag).start().await;
        assert_eq!(get(&proxy, &[]).await, 200);
        assert_eq!(client::admin(proxy.admin, "/readyz").await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn errors_name_the_certificate_the_reason_and_the_remedy() {
    let dir = TempDir::new();
    let trusted = pki::openssl_req_x509("trusted", &["127.0.0.1"]);
    let ca = dir.write("upstream-ca.crt", &pki::pem(&trusted.chain[0]));
    let flag = format!("--upstream-ca-file={}", ca.display());
    let other = pki::openssl_req_x509("other", &["127.0.0.1"]);
    let elsewhere = pki::openssl_req_x509("elsewhere", &["api.example"]);
    let elsewhere_ca = dir.write("elsewhere.crt", &pki::pem(&elsewhere.chain[0]));
    let elsewhere_flag = format!("--upstream-ca-file={}", elsewhere_ca.display());
    for (identity, flag, expected) in [
        (&other, &flag, "certificate \"CN=other\" was issued by \"CN=other\", which does not lead"),
        (&other, &flag, "upstream-ca.crt; add that CA's certificate there"),
        (&elsewhere, &elsewhere_flag, "is not for \"127.0.0.1\" but for api.example"),
    ] {
        let upstream = server(identity).await;
        let proxy = Builder::new(upstream.addr).flag(flag).start().await;
        assert_eq!(get(&proxy, &[]).await, 503);
        let (status, said) = client::admin(proxy.admin, "/readyz").await.unwrap();
        assert_eq!(status, 500);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("Other"), "{said}");
    }
}

#[tokio::test]
async fn clients_may_have_any_certificate_that_kube_apiserver_accepts() {
    let upstream = ok_upstream().await;
    let own = pki::openssl_req_x509("own", &[]);
    let (root, below) = federal(&[], "below");
    let builder = Builder::new(upstream.addr);
    let cas = [pki::pem(&own.chain[0]), root.pem.clone()].concat();
    let cas = builder.dir().write("clients.crt", &cas);
    let proxy = builder
        .flag(&format!("--client-ca-file={}", cas.display()))
        .flag("--anonymous-auth=false")
        .flag("--log-level=debug")
        .start()
        .await;
    let stranger = pki::openssl_req_x509("own", &[]);
    for (identity, user) in [(&own, Some("own")), (&below, Some("below")), (&stranger, None)] {
        let id = format!("Audit-ID: {}", user.unwrap_or("stranger"));
        let mut connection = Connection::over(client::tls_as(proxy.addr, identity).await.unwrap());
        connection.send(&http1::request("GET", TARGET, &[&id], b"")).await.unwrap();
        let answer = connection.answer("GET").await.unwrap();
        assert_eq!(answer.head.status, if user.is_some() { 200 } else { 401 });
        if let Some(user) = user {
            let events = proxy.audit_log().wait_end(user).await;
            assert_eq!(events[0].text("/user/username"), user);
        }
    }
    let reason = "is not signed by the key of \"CN=own\"";
    proxy.process.logs(reason).await;
}

#[tokio::test]
async fn a_webhook_endpoint_may_have_a_ca_certificate_or_critical_policies() {
    let dir = TempDir::new();
    let own = pki::openssl_req_x509("siem", &["127.0.0.1"]);
    let (root, below) = federal(&["127.0.0.1"], "siem");
    for (identity, ca) in [(&own, pki::pem(&own.chain[0])), (&below, root.pem.clone())] {
        let (upstream, receiver) = (ok_upstream().await, server(identity).await);
        let ca = dir.write("siem.crt", &ca);
        let kubeconfig = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: r}}}}]\n\
             clusters: [{{name: r, cluster: {{server: \"https://{}/events\", \
             certificate-authority: \"{}\", insecure-skip-tls-verify: null}}}}]\n",
            receiver.addr,
            ca.display()
        );
        let file = dir.write("webhook.conf", &kubeconfig);
        let proxy = Builder::new(upstream.addr)
            .flag(&format!("--audit-webhook-config-file={}", file.display()))
            .flag("--audit-webhook-mode=blocking-strict")
            .start()
            .await;
        assert_eq!(get(&proxy, &[]).await, 200);
        assert!(!receiver.seen().is_empty());
    }
}

#[tokio::test]
async fn an_issuer_may_have_a_ca_certificate() {
    let dir = TempDir::new();
    let own = pki::openssl_req_x509("issuer", &["127.0.0.1"]);
    let signer = Signer::ec();
    let keys = json!({"keys": [signer.web_key("one")]}).to_string();
    let addr = "127.0.0.1:0".parse().unwrap();
    let issuer = FakeUpstream::start_tls(addr, pki::server_config(&own), move |request| {
        let keys = keys.clone();
        async move {
            let url = format!("https://{}", request.headers()["host"].to_str()?);
            match request.uri().path() {
                "/keys" => json(200, keys),
                _ => {
                    json(200, json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string())
                }
            }
        }
    })
    .await;
    let upstream = ok_upstream().await;
    let ca = dir.write("issuer.crt", &pki::pem(&own.chain[0]));
    let proxy = Builder::new(upstream.addr)
        .flag(&format!("--oidc-issuer-url=https://{}", issuer.addr))
        .flag("--oidc-client-id=kubernetes")
        .flag("--oidc-signing-algs=ES256")
        .flag(&format!("--oidc-ca-file={}", ca.display()))
        .start()
        .await;
    wait_for("the keys", || (issuer.seen().len() >= 2).then_some(())).await;
    let url = format!("https://{}", issuer.addr);
    let claims = json!({"iss": url, "aud": "kubernetes", "sub": "jane", "exp": now() + 600});
    let token = signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims);
    let lines = [format!("Authorization: Bearer {token}"), "Audit-ID: jane".to_owned()];
    let lines = lines.each_ref().map(String::as_str);
    let answer = http1::get(proxy.addr, None, TARGET, &lines).await.unwrap();
    assert_eq!(answer.head.status, 200);
}

#[tokio::test]
async fn the_proxy_itself_may_have_certificates_with_critical_policies() {
    let upstream = ok_upstream().await;
    let (root, below) = federal(&["localhost"], "proxy");
    let dir = TempDir::new();
    let certificate = dir.write("tls.crt", &pki::pem(&below.chain[0]));
    let key = dir.write("tls.key", &below.key_pem());
    let proxy = Builder::new(upstream.addr)
        .flag(&format!("--tls-cert-file={}", certificate.display()))
        .flag(&format!("--tls-private-key-file={}", key.display()))
        .start()
        .await;
    let shown = client::shown_by(proxy.addr).await;
    assert_eq!(shown, below.chain[0]);
    drop(root);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let key = dir.write("encrypted.key", encrypted);
    let (code, said) = Builder::new(upstream.addr)
        .flag(&format!("--tls-cert-file={}", certificate.display()))
        .flag(&format!("--tls-private-key-file={}", key.display()))
        .run_to_end()
        .await;
    assert_eq!(code, Some(1));
    assert!(said.contains("encrypted.key: the private key is encrypted"), "{said}");
    assert!(said.contains("openssl pkey"), "{said}");
    assert!(CertificateDer::from_pem_file(&certificate).is_ok());
}

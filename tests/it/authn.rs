//! Who requests are by, for credentials of every kind: what stands in the event, or the refusal.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::support::http1;
use crate::support::jwt::{Signer, now};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";

/// A credential and what is to become of it.
struct Case<'a> {
    what: &'a str,
    certificate: Option<&'a str>,
    /// Whole header lines.
    headers: Vec<String>,
    /// The event's `user`, or the refusal's code.
    expected: Result<Value, u16>,
}

fn case<'a>(
    what: &'a str,
    certificate: Option<&'a str>,
    headers: &[&str],
    expected: Result<Value, u16>,
) -> Case<'a> {
    let headers = headers.iter().map(ToString::to_string).collect();
    Case { what, certificate, headers, expected }
}

/// Sends each case and prints the table; panics if one is not as expected.
async fn table(proxy: &Proxy, cases: &[Case<'_>]) {
    let mut wrong = 0;
    for (index, case) in cases.iter().enumerate() {
        let id = format!("case-{index}-{}", case.what.replace(|c: char| !c.is_alphanumeric(), "-"));
        let mut lines: Vec<&str> = case.headers.iter().map(String::as_str).collect();
        let audit_id = format!("Audit-ID: {id}");
        lines.push(&audit_id);
        let answer = http1::get(proxy.addr, case.certificate, TARGET, &lines).await.unwrap();
        let user = match answer.head.status {
            // Refusals have one event, at another stage.
            200 => proxy.audit_log().wait_end(&id).await[0].value["user"].clone(),
            _ => Value::Null,
        };
        let got = match answer.head.status {
            200 => Ok(user),
            code => Err(code),
        };
        let shown = match &got {
            Ok(user) => user["username"].to_string(),
            Err(code) => code.to_string(),
        };
        println!("{:<60} {shown}", case.what);
        if got != case.expected {
            wrong += 1;
            println!("   expected {:?}\n   got      {got:?}", case.expected);
        }
    }
    assert_eq!(wrong, 0, "wrong lines in the table");
}

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

fn anonymous() -> Value {
    json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]})
}

fn alice() -> Value {
    let der = std::fs::read(crate::support::corpus::pki("alice.crt")).unwrap();
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(&der).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let id = format!("X509SHA256={hex}");
    json!({
        "username": "alice",
        "groups": ["dev", "team-a", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": [id]},
    })
}

fn carol() -> Value {
    let groups = json!(["dev", "team-b", "system:authenticated"]);
    json!({"username": "carol", "uid": "uid-carol", "groups": groups})
}

#[tokio::test]
async fn front_proxies() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr)
        .front_proxies()
        .flag("--requestheader-username-headers=X-Remote-User,X-Authenticated-As")
        .start()
        .await;
    let erin = |groups: &[&str]| {
        let groups: Vec<_> = groups.iter().chain(&["system:authenticated"]).collect();
        json!({"username": "erin", "groups": groups})
    };
    let from = Some("front-proxy-client");
    let user = "X-Remote-User: erin";
    let cases = [
        case("front proxy: user", from, &[user], Ok(erin(&[]))),
        case("front proxy: second user header", from, &["x-authenticated-as: erin"], Ok(erin(&[]))),
        case(
            "front proxy: groups",
            from,
            &[user, "X-Remote-Group: b", "X-Remote-Group:", "X-Remote-Group: a"],
            Ok(erin(&["b", "a"])),
        ),
        case(
            "front proxy: uid and extra",
            from,
            &[user, "X-Remote-Uid: 7", "X-Remote-Extra-Acme.com%2fKey: v", "X-Remote-Extra-a: w"],
            Ok(json!({
                "username": "erin", "uid": "7", "groups": ["system:authenticated"],
                "extra": {"a": ["w"], "acme.com/key": ["v"]},
            })),
        ),
        case(
            "front proxy: before a token",
            from,
            &[user, "Authorization: Bearer carol-token"],
            Ok(erin(&[])),
        ),
        // Its own certificate is of no user's authority.
        case("front proxy: nobody named", from, &[], Err(401)),
        case("front proxy: empty name", from, &["X-Remote-User:"], Err(401)),
        case(
            "front proxy: nobody named, but a token",
            from,
            &["Authorization: Bearer carol-token"],
            Ok(carol()),
        ),
        case("no certificate: user header", None, &[user], Ok(anonymous())),
        case(
            "no certificate: user header and a token",
            None,
            &[user, "Authorization: Bearer carol-token"],
            Ok(carol()),
        ),
        case("a user's certificate: user header", Some("alice"), &[user], Ok(alice())),
        case("rogue certificate: user header", Some("rogue"), &[user], Err(401)),
    ];
    table(&proxy, &cases).await;
    for seen in upstream.seen() {
        assert_eq!(seen.all("x-remote-user").len(), 1, "{seen:?}");
        assert!(seen.all("x-authenticated-as").is_empty(), "{seen:?}");
    }
}

#[tokio::test]
async fn front_proxies_of_another_name_are_none() {
    let upstream = ok_upstream().await;
    let ca = crate::support::corpus::pki("front-proxy-ca.crt").display().to_string();
    let proxy = Builder::new(upstream.addr)
        .flag(&format!("--requestheader-client-ca-file={ca}"))
        .flag("--requestheader-allowed-names=other,another")
        .start()
        .await;
    let from = Some("front-proxy-client");
    let cases = [case("front proxy: name not allowed", from, &["X-Remote-User: erin"], Err(401))];
    table(&proxy, &cases).await;
}

fn signed(claims: &Value) -> String {
    Signer::corpus().token(&json!({"alg": "RS256"}), claims)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

const ISSUER: &str = "https://kubernetes.default.svc";

/// Claims of the ServiceAccount `app`; `changes` replace some.
fn app_claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": [ISSUER], "sub": "system:serviceaccount:team-a:app", "jti": "j",
        "iat": now(), "nbf": now(), "exp": now() + 3600,
        "kubernetes.io": {
            "namespace": "team-a", "serviceaccount": {"name": "app", "uid": "u"},
            "pod": {"name": "app-0", "uid": "p"}, "node": {"name": "n", "uid": "m"},
        },
    });
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

fn app() -> Value {
    json!({
        "username": "system:serviceaccount:team-a:app", "uid": "u",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:team-a", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/credential-id": ["JTI=j"],
            "authentication.kubernetes.io/node-name": ["n"],
            "authentication.kubernetes.io/node-uid": ["m"],
            "authentication.kubernetes.io/pod-name": ["app-0"],
            "authentication.kubernetes.io/pod-uid": ["p"],
        },
    })
}

#[tokio::test]
async fn service_account_tokens() {
    let upstream = ok_upstream().await;
    let keys = crate::support::corpus::pki("sa.pub").display().to_string();
    let proxy = Builder::new(upstream.addr)
        .flag(&format!("--service-account-key-file={keys}"))
        .flag(&format!("--service-account-issuer={ISSUER}"))
        .flag("--service-account-issuer=https://old.example")
        .start()
        .await;
    let good = signed(&app_claims(json!({})));
    let tampered = {
        let (rest, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = rest.split_once('.').unwrap();
        let claims = app_claims(json!({"jti": "forged"})).to_string();
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
    };
    let unsigned = {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(json!({"alg": "none"})), part(app_claims(json!({}))))
    };
    let token = |what, changes: Value, expected| {
        case(what, None, &[&bearer(&signed(&app_claims(changes)))], expected)
    };
    let mut cases = vec![
        case("service account: good", None, &[&bearer(&good)], Ok(app())),
        case("service account: good, remembered", None, &[&bearer(&good)], Ok(app())),
        token(
            "service account: other issuer of ours",
            json!({"iss": "https://old.example"}),
            Ok(app()),
        ),
        token("service account: audience as text", json!({"aud": ISSUER}), Ok(app())),
        token("service account: expired within leeway", json!({"exp": now() - 30}), Ok(app())),
        token("service account: expired", json!({"exp": now() - 90}), Err(401)),
        token("service account: not yet valid", json!({"nbf": now() + 90}), Err(401)),
        token("service account: issued in the future", json!({"iat": now() + 90}), Err(401)),
        token("service account: other audience", json!({"aud": ["vault"]}), Err(401)),
        token("service account: other issuer", json!({"iss": "https://elsewhere"}), Err(401)),
        case("service account: tampered", None, &[&bearer(&tampered)], Err(401)),
        case("service account: alg none", None, &[&bearer(&unsigned)], Err(401)),
        case("service account: cut off", None, &[&bearer(&good[..good.len() - 4])], Err(401)),
        case("static token beside them", None, &[&bearer("carol-token")], Ok(carol())),
        case("unknown token beside them", None, &[&bearer("nonsense")], Err(401)),
    ];
    cases.push(case(
        "rogue certificate with a good token",
        Some("rogue"),
        &[&bearer(&good)],
        Ok(app()),
    ));
    table(&proxy, &cases).await;
    assert!(upstream.seen().iter().all(|seen| seen.all("authorization").is_empty()));
}

#[tokio::test]
async fn what_is_odd_about_a_token_is_in_all_its_events() {
    let upstream = ok_upstream().await;
    let keys = crate::support::corpus::pki("sa.pub").display().to_string();
    let proxy = Builder::new(upstream.addr)
        .flag(&format!("--service-account-key-file={keys}"))
        .flag(&format!("--service-account-issuer={ISSUER}"))
        .start()
        .await;
    let claims = app_claims(json!({"aud": null}));
    let token = bearer(&signed(&claims));
    for id in ["first", "remembered"] {
        let lines = [token.as_str(), &format!("Audit-ID: {id}")];
        http1::get(proxy.addr, None, TARGET, &lines).await.unwrap();
        for event in proxy.audit_log().wait_end(id).await {
            let expected = json!({"authentication.k8s.io/legacy-token": claims["sub"]});
            assert_eq!(event.value["annotations"], expected, "{}", event.line);
        }
    }
}

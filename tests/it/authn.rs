//! Who requests are by, for credentials of every kind: what stands in the event, or the refusal.

use serde_json::{Value, json};

use crate::support::http1;
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
    let certificate: rustls::pki_types::CertificateDer<'_> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&der).unwrap();
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

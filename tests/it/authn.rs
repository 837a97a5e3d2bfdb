//! The events of unusual tokens: users and annotations.

use serde_json::{Value, json};

use crate::support::http1;
use crate::support::jwt::{Signer, now};
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, json};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const ISSUER: &str = "https://kubernetes.default.svc";

#[tokio::test]
async fn unusual_properties_of_a_token_are_annotated_in_all_its_events() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let keys = crate::support::corpus::pki("sa.pub").display().to_string();
    let proxy = Builder::new(upstream.addr)
        .flag(&format!("--service-account-key-file={keys}"))
        .flag(&format!("--service-account-issuer={ISSUER}"))
        .start()
        .await;
    let claims: Value = json!({
        "iss": ISSUER, "sub": "system:serviceaccount:team-a:app", "exp": now() + 3600,
        "kubernetes.io": {"namespace": "team-a", "serviceaccount": {"name": "app", "uid": "u"}},
    });
    let token = Signer::corpus().token(&json!({"alg": "RS256"}), &claims);
    let token = format!("Authorization: Bearer {token}");
    for id in ["first", "remembered"] {
        let lines = [token.as_str(), &format!("Audit-ID: {id}")];
        http1::get(proxy.addr, None, TARGET, &lines).await.unwrap();
        for event in proxy.audit_log().wait_end(id).await {
            let expected = json!({"authentication.k8s.io/legacy-token": claims["sub"]});
            assert_eq!(event.value["annotations"], expected, "{}", event.line);
        }
    }
}

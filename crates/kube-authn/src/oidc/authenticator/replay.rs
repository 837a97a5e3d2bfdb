//! Replays `tests/corpus/authn-differences.jsonl`: configurations and tokens for which
//! kube-apiserver and an earlier version of this proxy had different results. Now the results are
//! equal, or the proxy is stricter for a reason that docs/authentication.md gives.

use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;
use crate::cel::{Expression, Input, Variable};
use crate::jwt::PublicKey;
use crate::jwt::tests::Signer;
use crate::structured::parse_configuration;
use crate::{UserInfo, jwk};

const CORPUS: &str = include_str!("../../../../../tests/corpus/authn-differences.jsonl");
const DOCS: &str = include_str!("../../../../../docs/authentication.md");
const ISSUER: &str = "https://127.0.0.1:22700/b";
/// When the corpus was recorded, in seconds since 1970.
const NOW: u64 = 1_795_890_310;
/// Stands for the escape of an unpaired surrogate, which `serde_json` rejects.
const HALF: &str = "half-a-pair";

/// Cases in which the proxy is stricter: a text in the row, and one in the documentation of the
/// reason.
const STRICTER: &[(&str, &str)] = &[
    ("\"u\": \"system:", "names that begin with `system:` are rejected"),
    ("\"u\": \"\"", "An empty user name"),
    ("\"u\": null", "An empty user name"),
    ("\"email\": \"\"", "An empty user name"),
    ("\"system:masters\"", "Groups of a token that begin with `system:` are dropped"),
    ("\"system:unauthenticated\"", "the group `system:unauthenticated` is rejected"),
    ("\"groups\": \"\"", "A group without a name"),
    ("\"groups\": [\"\"]", "A group without a name"),
    ("\"groups\": [\"a\", \"\"]", "A group without a name"),
    (
        "\"groups\": [\"a\", null]}, \"config\": {\"claimMappings\": {\"groups\": {\"claim\": \"groups\", \"prefix\": \"\"}",
        "A group without a name",
    ),
    ("a\\nb", "cannot be sent in a header"),
    ("\\u0000", "cannot be sent in a header"),
    ("\\r\\n", "cannot be sent in a header"),
    ("\": \" \"}", "cannot be sent in a header"),
    ("\" a \"", "cannot be sent in a header"),
    ("claims.s.find('o.')", "cannot be sent in a header"),
    (HALF, "An unpaired surrogate"),
    ("\\\\ud800", "An unpaired surrogate"),
    ("1e999", "A number that is too large for a double"),
    ("\"d\\\":[[[[", "nested deeper than 127 levels"),
    ("\"d\\\":{\\\"a\\\"", "nested deeper than 127 levels"),
    ("\"iss\\\":\\\"https://x\\\",\\\"iss", "occurs twice, or in different case"),
    ("\"aud\\\":\\\"x\\\",\\\"aud", "occurs twice, or in different case"),
    ("\"exp\\\":PAST,\\\"exp", "occurs twice, or in different case"),
    ("raw claims '{\\\"ISS", "occurs twice, or in different case"),
    ("\"exp\\\":PAST,\\\"EXP", "occurs twice, or in different case"),
    ("\"aud\\\":\\\"x\\\",\\\"AUD", "occurs twice, or in different case"),
    ("r1024", "RSA keys of fewer than 2048"),
    ("salt", "PSS signatures whose salt"),
    ("post nbsp", "White space within a token"),
    ("d-redir2", "Redirects are not followed"),
    ("url no host", "URLs without a host"),
    ("url opaque", "URLs without a host"),
    ("url lt", "URLs with characters"),
    ("quantity(", "`quantity`"),
    ("semver(", "`semver`"),
    ("url(", "`url`"),
    ("format.", "`format.*`"),
    ("--oidc-issuer-url=https://kubernetes.default.svc", "URLs of ServiceAccount issuers"),
];

struct Row {
    text: String,
    row: Value,
}

impl Row {
    fn get(&self, name: &str) -> &str {
        self.row[name].as_str().unwrap_or_default()
    }

    /// Returns the user that kube-apiserver authenticates; `None` if it rejects the token.
    fn expected(&self) -> Option<Value> {
        let kube = self.row["kube"].as_array()?;
        match kube[0].as_u64()? {
            201 => Some(json!(kube[1..])),
            // Authenticated, but not authorized.
            403 => Some(json!("forbidden")),
            _ => None,
        }
    }
}

fn rows() -> Vec<Row> {
    let halves =
        |line: &str| line.replace("\"\\ud800", &format!("\"{HALF}")).replace("\\\\udcff", HALF);
    let row = |line: &str| {
        let text = halves(line);
        Row { row: serde_json::from_str(&text).unwrap(), text }
    };
    CORPUS.lines().map(row).collect()
}

fn rich() -> Value {
    json!({
        "iss": ISSUER, "aud": "lab", "sub": "jane", "email": "jane@x.io", "n": 42, "neg": -7,
        "f": 1.5, "huge": 1e30, "tiny": 1e-7, "imax": i64::MAX, "s": "Hello World",
        "csv": "a,b,c", "es": "", "uni": "Žluť😀ß", "l": ["a", "b", "c"], "el": [],
        "groups": ["g1", "system:masters"], "o": {"a": "x", "b": {"c": "d"}},
    })
}

fn alt() -> Value {
    json!({
        "iss": ISSUER, "aud": "lab", "sub": "alt", "missing": "here", "groups": {"a": 1},
        "o": ["x"], "n": "str", "l": "one",
    })
}

/// Returns the default settings with `changes`.
fn settings(changes: &Value) -> JwtSettings {
    let mut jwt = json!({
        "issuer": {"url": ISSUER, "audiences": ["lab"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": "p:"}},
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("issuer", Value::Object(members)) => {
                members.iter().for_each(|(name, value)| jwt["issuer"][name] = value.clone());
            }
            _ => jwt[name] = value.clone(),
        }
    }
    configuration(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [jwt],
    }))
    .unwrap()
    .remove(0)
}

fn configuration(document: &Value) -> Result<Vec<JwtSettings>, String> {
    let text = document.to_string();
    let parsed = parse_configuration(text.as_bytes(), "a.yaml", &[]);
    parsed.map(|parsed| parsed.jwt).map_err(|error| error.to_string())
}

/// Returns the user of a token if it is accepted and the user can be forwarded.
async fn user(
    settings: JwtSettings,
    keys: &[(&str, PublicKey)],
    token: &str,
) -> Result<UserInfo, String> {
    let issuer = Issuer::with_keys(&settings.issuer.url, keys);
    let authenticator = JwtAuthenticator::new(settings, Some(issuer), Arc::default()).unwrap();
    let jwt = Jwt::parse(token.as_bytes()).ok_or("no token")?;
    if !authenticator.is_of(&jwt.issuer()) {
        return Err("another's".to_owned());
    }
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let user = authenticator.verify(&jwt, now).await.map_err(|error| error.to_string())?.user;
    Ok(user)
}

fn as_recorded(user: UserInfo) -> Value {
    json!([user.username, user.uid, user.groups, user.extra])
}

struct Keys {
    ec: Signer,
    rsa: [Signer; 2],
}

impl Keys {
    async fn of_claims(&self, row: &Row, claims: Value) -> Result<Value, String> {
        let text = claims.to_string().replace(HALF, "\\ud800");
        let token = self.ec.token_of(r#"{"alg":"ES256","kid":"k"}"#, &text);
        let keys = [("k", self.ec.public())];
        user(settings(&row.row["config"]), &keys, &token).await.map(as_recorded)
    }

    async fn token(&self, row: &Row) -> Result<Value, String> {
        let case = row.get("case");
        let plain = json!({"iss": ISSUER, "aud": "lab", "sub": "jane", "exp": NOW + 60});
        let mut header = r#"{"alg":"RS256","kid":"r1"}"#.to_owned();
        let mut claims = plain.to_string();
        if let Some(raw) = case.strip_prefix("raw header ") {
            header = raw.trim_matches('\'').to_owned();
        } else if let Some(raw) = case.strip_prefix("raw claims ") {
            claims = raw
                .trim_matches('\'')
                .replace("ISS", ISSUER)
                .replace("EXP", &(NOW + 60).to_string());
            claims = claims.replace(&format!("\"{ISSUER}\":"), "\"ISS\":");
            claims = claims.replace(&format!("\"{}\":", NOW + 60), "\"EXP\":").replace("PAST", "1");
            claims = claims.replace(HALF, "\\udcff");
            // The corpus contains only the beginnings.
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                if claims.ends_with(&open.repeat(3)) || claims.ends_with("{\"a\":{") {
                    let begun = claims.find("\"d\":").unwrap();
                    let nested = format!("{}1{}", open.repeat(200), close.repeat(200));
                    claims = format!("{}\"d\":{nested}}}", &claims[..begun]);
                }
            }
        } else {
            header = match case {
                "header critempty" => r#"{"alg":"RS256","kid":"r1","crit":[]}"#,
                "header b64f" => r#"{"alg":"RS256","kid":"r1","b64":false}"#,
                "header jwkbad" => r#"{"alg":"RS256","kid":"r1","jwk":{"kty":"x"}}"#,
                "header noncenum" => r#"{"alg":"RS256","kid":"r1","nonce":5}"#,
                // The test library cannot create such signatures, or not with such keys.
                _ => return Err("not verified by this library".to_owned()),
            }
            .to_owned();
        }
        let keys = [("r1", self.rsa[0].public())];
        let token = self.rsa[0].token_of(&header, &claims);
        user(settings(&json!({})), &keys, &token).await.map(as_recorded)
    }

    /// Verifies a token with a key set: `case` has the name of the set, and the signer, algorithm
    /// and key ID of the token, such as `r1 RS256 kid=0`.
    async fn web_keys(&self, row: &Row) -> Result<Value, String> {
        let (set, token) = row.get("case").split_once(": ").unwrap();
        let [signer, algorithm, kid] = token.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("{token}")
        };
        let signer = &self.rsa[usize::from(signer == "r2")];
        let own = if token.starts_with("r2") { "r2" } else { "r1" };
        let mut header = json!({"alg": algorithm});
        match kid.trim_start_matches("kid=") {
            "0" => header["kid"] = json!(own),
            "None" => {}
            other => header["kid"] = json!(other.trim_matches(['(', ')', ',', '\''])),
        }
        let keys = jwk::parse_set(self.set(set).as_bytes()).map_err(|error| error.to_string())?;
        let keys: Vec<_> = keys.iter().map(|key| (key.id.as_str(), key.key.clone())).collect();
        let claims = json!({"iss": ISSUER, "aud": "lab", "sub": "jane", "exp": NOW + 60});
        let token = signer.token_of(&header.to_string(), &claims.to_string());
        user(settings(&json!({})), &keys, &token).await.map(as_recorded)
    }

    fn set(&self, name: &str) -> String {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = |index: usize| {
            let PublicKey::Rsa { n, e } = self.rsa[index].public() else { unreachable!() };
            let kid = ["r1", "r2"][index];
            json!({"kty": "RSA", "kid": kid, "n": number(&n), "e": number(&e)})
        };
        let with = |mut key: Value, name: &str, value: Value| {
            key[name] = value;
            key
        };
        let anonymous = |mut key: Value| {
            key.as_object_mut().unwrap().remove("kid");
            key
        };
        let modulus = |engine: &dyn Fn(&[u8]) -> String| {
            let PublicKey::Rsa { n, .. } = self.rsa[0].public() else { unreachable!() };
            // A key that contains both characters in which the base64 alphabets differ.
            json!(engine(&[&[0xfb, 0xff, 0xfe][..], &n].concat()))
        };
        let both = |more: Value| json!({"keys": [key(0), key(1), more]});
        match name {
            "one" => json!({"keys": [anonymous(key(0))]}),
            "nokid" => json!({"keys": [anonymous(key(0)), anonymous(key(1))]}),
            "enc" | "enconly" => json!({"keys": [with(key(0), "use", json!("enc"))]}),
            "use" => json!({"keys": [
                with(key(0), "use", json!("whatever")), with(key(1), "use", json!("")),
            ]}),
            "junk" => both(json!({"kty": "OKP", "crv": "X25519", "x": number(&[1; 32])})),
            "junk2" => both(json!({})),
            "junk3" => both(json!(5)),
            "junk4" => both(json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"})),
            "junk6" => both(json!({"kty": "RSA", "n": "AA"})),
            "junk7" => both(json!(null)),
            "junk8" => both(with(key(0), "kid", json!(5))),
            "junk10" => both(with(key(0), "x5c", json!(["AAAA"]))),
            "junk11" => both(with(key(0), "n", json!("!"))),
            "priv" => {
                let private = ["d", "p", "q"].into_iter();
                let private = private.fold(key(0), |key, name| with(key, name, json!("AQ")));
                json!({"keys": [private]})
            }
            "upperkty" => json!({"keys": [with(key(0), "kty", json!("rsa"))]}),
            "pad" => json!({"keys": [with(key(0), "n", modulus(&|n| URL_SAFE.encode(n)))]}),
            "std" => json!({"keys": [with(key(0), "n", modulus(&|n| STANDARD_NO_PAD.encode(n)))]}),
            "casekeys" => {
                let upper = |key: Value| {
                    let members = key.as_object().unwrap().iter();
                    members.map(|(k, v)| (k.to_uppercase(), v.clone())).collect::<Map<_, _>>()
                };
                json!({"keys": [upper(key(0)), upper(key(1))]})
            }
            "dupkey" => {
                return format!("{{\"keys\": [{}], \"keys\": [{}]}}", key(0), key(1));
            }
            "trail" => return format!("{} x", both(key(0))),
            "bom" => return format!("\u{feff}{}", both(key(0))),
            "empty" => json!({"keys": []}),
            other => panic!("{other}"),
        }
        .to_string()
    }
}

fn cel_run(row: &Row) -> Result<Value, String> {
    let (claims, name) = match row.get("claims") {
        "ALT" => (alt(), "p:alt"),
        _ => (rich(), "p:jane"),
    };
    let expression =
        Expression::compile(row.get("case"), Variable::Claims).map_err(|e| e.to_string())?;
    let values = expression.texts(&Input::claims(claims.as_object().unwrap()));
    let values = values.map_err(|error| error.to_string())?;
    if values.iter().any(|value| value.ends_with(' ')) {
        return Err("cannot be sent".to_owned());
    }
    let mut extra = json!({});
    if !values.is_empty() {
        extra["x.io/v"] = json!(values);
    }
    if row.get("claims").starts_with("base") {
        extra["authentication.kubernetes.io/credential-id"] = json!(["JTI=J"]);
    }
    Ok(json!([name, "", ["system:authenticated"], extra]))
}

fn accepted(result: Result<(), String>) -> Result<Value, String> {
    result.map(|()| json!("accepted"))
}

fn compiled(row: &Row, is_rule: bool) -> Result<Value, String> {
    let result = Expression::compile(row.get("case"), Variable::Claims);
    accepted(match result {
        Ok(expression) if is_rule && !expression.is_bool() => Err("no rule".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
}

#[tokio::test]
async fn differences_to_kube_apiserver_are_gone_or_documented() {
    let keys = Keys { ec: Signer::ec(Algorithm::ES256), rsa: [Signer::rsa(), Signer::rsa()] };
    let mut reasons = vec![0; STRICTER.len()];
    let (mut elsewhere, mut equal) = (0, 0);
    let mut different = Vec::new();
    for row in rows() {
        let accepts = |yes: bool| yes.then(|| json!("accepted"));
        let (expected, found) = match row.get("kind") {
            "cel-compile" | "rule-compile" => {
                let result = compiled(&row, row.get("kind") == "rule-compile");
                (accepts(row.get("kube") == "accepted"), result)
            }
            "config-anon" => {
                let source = "claims.l.all(a, claims.l.all(b, a + b != ''))";
                let result = Expression::compile(source, Variable::Claims);
                (None, accepted(result.map(|_| ()).map_err(|error| error.to_string())))
            }
            "cel-run" => (row.expected(), cel_run(&row)),
            "user-run" => {
                let rule = Expression::compile(row.get("case"), Variable::User).unwrap();
                let user =
                    Input::user(&UserInfo { username: "p:jane".into(), ..Default::default() });
                (
                    row.expected(),
                    accepted(match rule.is_true(&user) {
                        Ok(true) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }),
                )
            }
            // Recorded by a reload of a server that was started without these settings, so not
            // comparable.
            "config" if row.get("case").starts_with("anon") => {
                elsewhere += 1;
                continue;
            }
            "config" => {
                let document: Value = serde_json::from_str(row.get("config")).unwrap();
                let mut document = document;
                document["jwt"][0]["issuer"]
                    .as_object_mut()
                    .unwrap()
                    .remove("certificateAuthority");
                let result = configuration(&document).map(|_| ());
                (accepts(row.row["kube"][0] == json!(true)), accepted(result))
            }
            "map" | "edge2" | "nbf-edge" if row.row["claims"].is_object() => {
                let mut claims =
                    json!({"iss": ISSUER, "aud": "lab", "sub": "jane", "exp": NOW + 60});
                for (name, value) in row.row["claims"].as_object().unwrap() {
                    claims[name] = match row.get("kind") {
                        "nbf-edge" => json!(NOW + value.as_u64().unwrap()),
                        _ => value.clone(),
                    };
                }
                (row.expected(), keys.of_claims(&row, claims).await)
            }
            "token" => (row.expected(), keys.token(&row).await),
            "jwks" => (row.expected(), keys.web_keys(&row).await),
            // Tested in `tests/it` and `config_tests`.
            "edge2" | "distributed" | "rotation" | "discovery" | "flags" | "flags-refused"
            | "anonymous" => {
                elsewhere += 1;
                continue;
            }
            other => panic!("{other}"),
        };
        let reason = STRICTER.iter().position(|(text, _)| row.text.contains(text));
        match (expected, found, reason) {
            (None, Err(_), _) => equal += 1,
            (Some(expected), Ok(found), _) if expected == found => equal += 1,
            (Some(_), Err(_), Some(reason)) => reasons[reason] += 1,
            // Only groups may be missing.
            (Some(expected), Ok(found), Some(reason))
                if without_reserved(&expected) == without_reserved(&found) =>
            {
                reasons[reason] += 1;
            }
            (expected, found, _) => {
                different.push(format!("{}\nkube: {expected:?}\nproxy: {found:?}", row.text));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let stricter: i32 = reasons.iter().sum();
    println!("{equal} equal, {stricter} stricter, {elsewhere} replayed elsewhere");
    for ((text, reason), _) in STRICTER.iter().zip(reasons) {
        assert!(DOCS.contains(reason), "docs/authentication.md does not have {reason:?} ({text})");
    }
}

fn without_reserved(user: &Value) -> Value {
    let mut user = user.clone();
    if let Some(groups) = user.get_mut(2).and_then(Value::as_array_mut) {
        groups.retain(|group| {
            let group = group.as_str().unwrap_or_default();
            !group.starts_with("system:") || group == "system:authenticated"
        });
    }
    user
}

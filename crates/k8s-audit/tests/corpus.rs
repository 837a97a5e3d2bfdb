//! Tests with recordings of a real kube-apiserver (`tests/corpus` of the repository): the policies
//! that it accepts, and the levels and stages at which it logs requests.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use http::Method;
use http::uri::PathAndQuery;
use k8s_audit::policy::{self, Diagnostic, InvalidPolicy};
use k8s_audit::{Level, Policy, RequestInfo, Stage, UserInfo};
use serde::Deserialize;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus")
}

fn lines(errors: &[Diagnostic]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[derive(Deserialize)]
struct Verdict {
    name: String,
    text: String,
    accepted: bool,
    error: Option<String>,
    warnings: Vec<String>,
}

#[test]
fn policies_are_accepted_and_rejected_like_by_kube_apiserver() {
    let verdicts = fs::read_to_string(corpus().join("policy-verdicts.jsonl")).unwrap();
    for line in verdicts.lines() {
        let verdict: Verdict = serde_json::from_str(line).unwrap();
        let (error, warnings) = match policy::parse_spec(verdict.text.as_bytes(), "policy.yaml") {
            Ok((_, warnings)) => (None, lines(&warnings)),
            Err(InvalidPolicy { errors, warnings }) => (Some(lines(&errors)), lines(&warnings)),
        };
        let name = &verdict.name;
        assert_eq!(error.is_none(), verdict.accepted, "{name}: {error:?}");
        assert_eq!(warnings.is_empty(), verdict.warnings.is_empty(), "{name}: {warnings}");
        if let (Some(ours), Some(theirs)) = (error, verdict.error) {
            let words = theirs.strip_prefix("loading audit policy file: ").unwrap();
            let words = words.strip_suffix(": from file POLICY").unwrap();
            // Omits Go source positions, Go struct tags, and the YAML parser's own sentences.
            let words = words.split(" in scheme ").next().unwrap();
            let words = words.split(" struct { ").next().unwrap();
            let words = words.split("found character that cannot").next().unwrap();
            assert!(ours.contains(words), "{name}: {ours} does not contain {words}");
        }
        for theirs in &verdict.warnings {
            let words = theirs.split("strict decoding error: ").nth(1).unwrap();
            let words = words.replace("yaml: unmarshal errors:", "already set in map");
            assert!(warnings.contains(&words), "{name}: {warnings} does not contain {words}");
        }
    }
    assert_eq!(verdicts.lines().count(), 59);
}

#[derive(Deserialize)]
struct Request {
    policy: String,
    name: String,
    user: Option<String>,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    level: String,
    stage: String,
}

impl Request {
    /// Returns the user that kube-apiserver authenticated (see the corpus' `pki/`); `None` if
    /// authentication failed.
    fn user(&self) -> Option<UserInfo> {
        let token =
            self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let token = token.and_then(|(_, value)| value.strip_prefix("Bearer "));
        let (name, groups): (&str, &[&str]) = match (self.user.as_deref(), token) {
            (Some("admin"), _) => ("kubernetes-admin", &["system:masters"]),
            (Some("alice"), _) => ("alice", &["dev", "team-a"]),
            (Some("bob"), _) => ("bob@example.com", &[]),
            (Some("node"), _) => ("system:node:node-1", &["system:nodes"]),
            (Some("controller"), _) => ("system:kube-controller-manager", &[]),
            (Some("front-proxy-client"), _) => ("front-proxy-client", &[]),
            (Some("sa-token"), _) => (
                "system:serviceaccount:team-a:default",
                &["system:serviceaccounts", "system:serviceaccounts:team-a"],
            ),
            (Some("rogue"), _) => return None,
            (_, Some("carol-token")) => ("carol", &["dev", "team-b"]),
            (_, Some("dave-token")) => ("dave", &[]),
            (_, None | Some("")) => return Some(UserInfo::anonymous()),
            _ => return None,
        };
        let user = UserInfo {
            username: name.into(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
            ..UserInfo::default()
        };
        Some(user.into_authenticated())
    }
}

/// 3108 requests with 14 policies.
#[test]
fn levels_and_stages_are_those_that_kube_apiserver_logged() {
    let decisions = fs::read_to_string(corpus().join("decisions.jsonl")).unwrap();
    let mut policies: HashMap<String, Policy> = HashMap::new();
    let mut logged = 0;
    for line in decisions.lines() {
        let request: Request = serde_json::from_str(line).unwrap();
        let policy = policies.entry(request.policy.clone()).or_insert_with(|| {
            let text = fs::read(corpus().join("policies").join(&request.policy)).unwrap();
            policy::parse(&text, &request.policy).unwrap().policy
        });
        let uri: http::Uri = request.uri.parse().unwrap();
        let target: PathAndQuery = uri.path_and_query().unwrap().clone();
        let method = Method::from_bytes(request.method.as_bytes()).unwrap();
        let Ok(info) = RequestInfo::new(&method, &target) else { continue };
        let user = request.user();
        let decision = policy.evaluate(user.as_ref(), &info);
        let about = format!("{} {}: {decision:?}", request.policy, request.name);
        for event in &request.events {
            assert_eq!(event.level, decision.level.as_str(), "{about}");
            let stage = Stage::from_name(&event.stage).unwrap();
            assert!(!decision.omit_stages.contains(stage), "{about}");
        }
        if request.events.is_empty() {
            let omitted = |stage| decision.omit_stages.contains(stage);
            // kube-apiserver never writes the last event of a patch that it cannot parse, and
            // writes only ResponseStarted if authentication fails.
            let lost = omitted(Stage::ResponseComplete) || request.method == "PATCH";
            let silent = match user {
                Some(_) => omitted(Stage::RequestReceived) && lost,
                None => omitted(Stage::ResponseStarted),
            };
            assert!(decision.level == Level::None || silent, "{about}");
        } else {
            logged += 1;
        }
    }
    assert_eq!(logged, 1676);
}

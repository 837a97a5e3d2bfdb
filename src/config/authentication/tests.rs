use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::tests::config;
use kube_authn::{ClaimRule, NameMapping, TokenReviewSettings};

#[test]
fn front_proxies_have_kube_apiservers_flags() {
    let file = "--requestheader-client-ca-file=front.crt";
    assert!(config(&[]).unwrap().authentication.request_header.is_none());
    let settings = config(&[file]).unwrap();
    assert!(settings.serving.tls.request_client_certificates);
    let proxies = settings.authentication.request_header.unwrap();
    assert_eq!(proxies.names.username, ["x-remote-user"]);
    assert_eq!(proxies.names.group, ["x-remote-group"]);
    assert_eq!(proxies.names.extra_prefix, ["x-remote-extra-"]);
    assert!(proxies.names.uid.is_empty() && proxies.allowed_names.is_empty());
    let error = config(&[file, "--requestheader-uid-headers=a b"]).unwrap_err();
    assert!(error.starts_with("--requestheader-uid-headers: \"a b\""), "{error}");
    let same = [file, "--client-ca-file=front.crt"];
    assert!(config(&same).unwrap_err().contains("could pose as a front proxy"));
    let named = [file, "--client-ca-file=front.crt", "--requestheader-allowed-names=a,b"];
    let proxies = config(&named).unwrap().authentication.request_header.unwrap();
    assert_eq!(proxies.allowed_names, ["a", "b"]);
}

#[test]
fn service_account_keys_and_issuers_go_together() {
    let key = "--service-account-key-file=sa.pub";
    assert!(config(&[key]).unwrap_err().contains("needs --service-account-issuer"));
    let error = config(&["--service-account-issuer=a"]).unwrap_err();
    assert!(error.contains("needs --service-account-key-file"), "{error}");
    let both = [
        key,
        "--service-account-key-file=old.pub",
        "--service-account-issuer=a",
        "--service-account-issuer=b",
        "--anonymous-auth=false",
    ];
    let settings = config(&both).unwrap().authentication;
    let tokens = settings.service_accounts.unwrap();
    assert_eq!(tokens.key_files, [PathBuf::from("sa.pub"), PathBuf::from("old.pub")]);
    assert_eq!(
        (tokens.issuers, settings.audiences),
        (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()])
    );
    let audiences = [&both[..], &["--api-audiences=x,y"]].concat();
    assert_eq!(config(&audiences).unwrap().authentication.audiences, ["x", "y"]);
    let fetched = "--service-account-keys-from-upstream";
    for more in [&["--anonymous-auth=false"][..], &[key], &["--service-account-issuer=a"]] {
        let settings = config(&[&[fetched], more].concat()).unwrap().authentication;
        assert!(settings.service_accounts.unwrap().keys_from_upstream, "{more:?}");
    }
}

#[test]
fn token_reviews_are_off_by_default() {
    assert!(config(&[]).unwrap().authentication.token_review.is_none());
    let on = "--authentication-token-review";
    let review = config(&[on, "--anonymous-auth=false"]).unwrap().authentication.token_review;
    let expected = TokenReviewSettings {
        audiences: Vec::new(),
        authenticated_ttl: Duration::from_secs(120),
        unauthenticated_ttl: Duration::from_secs(10),
        as_front_proxy: false,
        webhook: None,
    };
    assert_eq!(review, Some(expected));
    let file = "--authentication-token-webhook-config-file=hook.yaml";
    let review = config(&[file, "--authentication-token-webhook-cache-ttl=1m"]).unwrap();
    let review = review.authentication.token_review.unwrap();
    assert_eq!(review.unauthenticated_ttl, Duration::from_secs(60));
    let webhook = review.webhook.unwrap();
    assert_eq!(webhook.version.api_version(), "authentication.k8s.io/v1beta1");
    assert!(config(&[file, on]).unwrap_err().contains("mutually exclusive"));
    let front = [on, "--upstream-identity=request-header", "--api-audiences=a,b"];
    let review = config(&front).unwrap().authentication.token_review.unwrap();
    assert!(review.as_front_proxy);
    assert_eq!(review.audiences, ["a", "b"]);
}

#[test]
fn oidc_flags_are_kube_apiservers() {
    const URL: &str = "--oidc-issuer-url=https://login.example/realm";
    const ID: &str = "--oidc-client-id=kubernetes";
    let oidc = |more: &[&str]| {
        config(&[&[URL, ID], more].concat()).map(|config| match config.authentication.issuers {
            Issuers::Flags(issuer) => *issuer,
            other => panic!("{other:?}"),
        })
    };
    let by_claim = |claim: &str, prefix: &str| NameMapping::Claim {
        claim: claim.to_owned(),
        prefix: prefix.to_owned(),
    };
    let plain = oidc(&[]).unwrap();
    assert_eq!(plain.username, by_claim("sub", "https://login.example/realm#"));
    assert_eq!((plain.groups, plain.audiences), (None, vec!["kubernetes".to_owned()]));
    assert_eq!(plain.algorithms, [kube_authn::Algorithm::RS256]);
    let username = |more: &[&str]| oidc(more).unwrap().username;
    assert_eq!(username(&["--oidc-username-prefix=-"]), by_claim("sub", ""));
    assert_eq!(username(&["--oidc-username-claim=email"]), by_claim("email", ""));
    let both = ["--oidc-username-claim=email", "--oidc-username-prefix=o:"];
    assert_eq!(username(&both), by_claim("email", "o:"));
    let groups = ["--oidc-groups-claim=roles", "--oidc-groups-prefix=g:"];
    assert_eq!(oidc(&groups).unwrap().groups, Some(by_claim("roles", "g:")));
    let rules = oidc(&["--oidc-required-claim=hd=a=b", "--oidc-required-claim=x="]).unwrap();
    let required =
        |claim: &str, value: &str| ClaimRule::Required { claim: claim.into(), value: value.into() };
    assert_eq!(rules.claim_rules, [required("hd", "a=b"), required("x", "")]);

    let several = oidc(&["--oidc-required-claim=hd=x,he=y", "--oidc-required-claim= a = b "]);
    assert_eq!(several.unwrap().claim_rules, [required("a", "b"), required("hd", "x,he=y")]);
    let last = oidc(&["--oidc-required-claim=a=1", "--oidc-required-claim=a=2"]).unwrap();
    assert_eq!(last.claim_rules, [required("a", "2")]);
    assert_eq!(oidc(&["--oidc-signing-algs="]).unwrap().algorithms, plain.algorithms);
    assert!(config(&["--oidc-issuer-url=https://login.example/f?", ID]).is_ok());

    for flags in [
        &[URL][..],
        &[ID],
        &[URL, "--oidc-client-id="],
        &["--oidc-issuer-url=", ID],
        &["--oidc-username-claim=sub"],
        &["--oidc-username-prefix="],
        &["--oidc-groups-claim=g"],
        &["--oidc-groups-prefix="],
        &["--oidc-required-claim=a=b"],
        &["--oidc-signing-algs=ES256"],
        &["--oidc-signing-algs=RS256"],
        &["--oidc-ca-file=ca.crt"],
    ] {
        let error = config(flags).unwrap_err();
        assert!(error.contains("neither may be empty"), "{flags:?}: {error}");
    }
    let error = config(&["--oidc-issuer-url=https://kubernetes.default.svc", ID]).unwrap_err();
    assert!(error.contains("the issuer of ServiceAccount tokens"), "{error}");
    for url in
        ["http://a", "https://u@a", "https://a?b", "https://a#b", "login.example", "https:///"]
    {
        let error = config(&[&format!("--oidc-issuer-url={url}"), ID]).unwrap_err();
        assert!(error.contains("give the iss claim of the tokens"), "{url}: {error}");
    }
    for (flag, expected) in [
        ("--oidc-signing-algs=none", "\"none\" is not supported"),
        ("--oidc-signing-algs=RS256,HS256", "\"HS256\" is not supported"),
        ("--oidc-required-claim=hd", "not of the form claim=value"),
        ("--oidc-required-claim==x", "not of the form claim=value"),
        ("--oidc-signing-algs=RS256,", "\"\" is not supported"),
        ("--oidc-username-claim=", "--oidc-username-claim is empty"),
    ] {
        assert!(oidc(&[flag]).unwrap_err().contains(expected), "{flag}");
    }
    let account =
        ["--service-account-key-file=k", "--service-account-issuer=https://login.example/realm"];
    assert!(oidc(&account).unwrap_err().contains("different issuers"));
}

/// Replays the rows about flags in which an earlier version differed from kube-apiserver.
#[test]
fn oidc_flags_are_accepted_and_refused_as_recorded() {
    let plain = ["--oidc-issuer-url=https://127.0.0.1:22700/f", "--oidc-client-id=lab"];
    let corpus = include_str!("../../../tests/corpus/authn-differences.jsonl");
    let mut replayed = 0;
    for line in corpus.lines().filter(|line| line.contains("\"flags-refused\"")) {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let given: Vec<&str> =
            row["case"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect();
        let flags = match given.as_slice() {
            // These flags are tested alone, without an issuer.
            [one] if one.contains("groups-claim") || one.contains("=ES256") => given.clone(),
            _ => {
                let name = |flag: &str| flag.split('=').next().unwrap().to_owned();
                let others = plain.iter().filter(|flag| name(flag) != name(given[0]));
                others.copied().chain(given.iter().copied()).collect()
            }
        };
        assert_eq!(config(&flags).is_ok(), row["kube"] == true, "{line}");
        replayed += 1;
    }
    assert_eq!(replayed, 6);
}

#[test]
fn issuers_come_from_flags_or_from_a_file() {
    const FILE: &str = "--authentication-config=authentication.yaml";
    let issuers = |flags: &[&str]| config(flags).map(|config| config.authentication.issuers);
    assert_eq!(issuers(&[]), Ok(Issuers::None));
    assert_eq!(issuers(&[FILE]), Ok(Issuers::File("authentication.yaml".into())));
    assert!(issuers(&[FILE, "--anonymous-auth=false"]).is_ok(), "the file may name issuers later");
    for flag in [
        "--oidc-issuer-url=https://a",
        "--oidc-client-id=a",
        "--oidc-username-claim=email",
        "--oidc-username-prefix=-",
        "--oidc-groups-claim=groups",
        "--oidc-groups-prefix=g:",
        "--oidc-required-claim=a=b",
        "--oidc-signing-algs=ES256",
        "--oidc-ca-file=ca.crt",
    ] {
        let error = issuers(&[FILE, flag]).unwrap_err();
        assert!(error.contains("are mutually exclusive; write the issuer"), "{flag}: {error}");
    }
}

use proptest::prelude::*;

use super::*;
use crate::jwt::Algorithm;
use crate::oidc::{CaSource, ClaimRule, NameMapping, UidMapping};

const SAMPLE: &str = include_str!("../../../../../config/authentication.yaml");

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

fn verdict(text: &str) -> Result<AuthenticationConfiguration, String> {
    let accounts = ["https://kubernetes.default.svc".to_owned()];
    parse(text.as_bytes(), "a.yaml", &accounts).map_err(|error| error.to_string())
}

/// Returns a configuration with one issuer that is valid except for `issuer`, members of `issuer`,
/// and `rest`, other members.
fn with(issuer: &str, rest: &str) -> String {
    let mappings = "claimMappings: {username: {claim: sub, prefix: ''}}";
    let rest = if rest.contains("claimMappings") {
        rest.to_owned()
    } else {
        format!("{mappings}\n  {rest}")
    };
    format!("{HEAD}jwt:\n- issuer: {{{issuer}}}\n  {rest}\n")
}

fn issuer(members: &str) -> String {
    with(members, "")
}

const URL: &str = "url: 'https://a'";
const GOOD: &str = "url: 'https://a', audiences: [k]";

#[test]
fn the_sample_matches_its_description() {
    let sample = verdict(SAMPLE).unwrap();
    assert_eq!(sample.jwt.len(), 2);
    assert_eq!(
        sample.anonymous,
        Some(Anonymous::Paths(vec!["/healthz".into(), "/livez".into(), "/readyz".into()]))
    );
    assert_eq!(sample.warnings, []);
    let first = &sample.jwt[0];
    assert_eq!(first.algorithms, Algorithm::ALL);
    assert!(matches!(&first.username, NameMapping::Claim { claim, .. } if claim == "email"));
    assert_eq!(first.issuer.ca, CaSource::System);
    let second = &sample.jwt[1];
    assert!(matches!(&second.username, NameMapping::Expression(_)));
    assert!(matches!(&second.uid, Some(UidMapping::Claim(_))));
    assert_eq!((second.extra.len(), second.user_rules.len()), (1, 1));
    assert!(second.claim_rules.iter().any(|rule| matches!(rule, ClaimRule::Rule(_))));
}

#[test]
fn versions_and_forms() {
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let text = format!("apiVersion: apiserver.config.k8s.io/{version}\nkind: {KIND}\n");
        let loaded = verdict(&text).unwrap();
        assert_eq!((loaded.jwt, loaded.anonymous), (Vec::new(), None), "{version}");
    }
    let json = format!("{{\"apiVersion\": \"{GROUP}v1\", \"kind\": \"{KIND}\", \"jwt\": []}}");
    assert!(verdict(&json).is_ok());
    let good = verdict(&with(&format!("{GOOD}, egressSelectorType: cluster"), "")).unwrap();
    assert!(good.warnings[0].to_string().contains("no egress selectors"), "{:?}", good.warnings);
    for (text, expected) in [
        (
            "",
            "a.yaml:1:1: empty config data; begin with \"apiVersion: apiserver.config.k8s.io/v1\"",
        ),
        ("# nothing\n", "empty config data"),
        ("[]", "a.yaml:1:1: cannot unmarshal array into an object"),
        ("a: b: c", "a.yaml:1:"),
        ("kind: AuthenticationConfiguration", "Object 'apiVersion' is missing"),
        ("apiVersion: apiserver.config.k8s.io/v1", "Object 'kind' is missing"),
        (
            "apiVersion: apiserver.config.k8s.io/v2\nkind: AuthenticationConfiguration",
            "a.yaml:1:13: no kind \"AuthenticationConfiguration\" is registered for version \"apiserver.config.k8s.io/v2\"",
        ),
        (
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration",
            "a.yaml:2:7: no kind \"AuthorizationConfiguration\"",
        ),
    ] {
        let error = verdict(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn decoding_is_strict() {
    for (text, expected) in [
        (
            format!("{HEAD}jwts: []\n"),
            "a.yaml:3:1: strict decoding error: unknown field \"jwts\"; did you mean \"jwt\"?",
        ),
        (
            format!("{HEAD}kind: {KIND}\n"),
            "a.yaml:3:1: strict decoding error: key \"kind\" already set in map; remove this one or the one at 2:1",
        ),
        (
            issuer(&format!("{GOOD}, urll: b")),
            "a.yaml:4:46: strict decoding error: unknown field \"jwt[0].issuer.urll\"; did you mean \"url\"?",
        ),
        (
            with(GOOD, "audiences: [k]"),
            "unknown field \"jwt[0].audiences\"; it belongs to \"issuer\": mind the indentation",
        ),
        (
            with(GOOD, "signingAlgorithms: [EdDSA]"),
            "unknown field \"jwt[0].signingAlgorithms\"; there are issuer, claimValidationRules",
        ),
        (
            issuer("url: 7, audiences: [k]"),
            "a.yaml:4:17: jwt[0].issuer.url: failed decoding: json: cannot unmarshal number into Go struct field Issuer.jwt.issuer.url of type string; quote it: \"7\"",
        ),
        (
            issuer("url: 'https://a', audiences: k"),
            "jwt[0].issuer.audiences: failed decoding: json: cannot unmarshal string",
        ),
        (
            format!("{HEAD}anonymous: {{enabled: 'true'}}\n"),
            "cannot unmarshal string into Go struct field AnonymousAuthConfig.anonymous.enabled of type bool; write true or false, without quotes",
        ),
    ] {
        let error = verdict(&text).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn issuers_are_validated_like_by_kube_apiserver() {
    let many: String = (0..65).map(|n| format!("- issuer: {{url: 'https://{n}', audiences: [k]}}\n  claimMappings: {{username: {{claim: sub, prefix: ''}}}}\n")).collect();
    let two = |first: &str, second: &str| {
        let one = |members: &str| {
            format!(
                "- issuer: {{{members}, audiences: [k]}}\n  claimMappings: {{username: {{claim: sub, prefix: ''}}}}\n"
            )
        };
        format!("{HEAD}jwt:\n{}{}", one(first), one(second))
    };
    let bad_pem = "certificateAuthority: 'x'";
    for (text, expected) in [
        (format!("{HEAD}jwt:\n{many}"), "jwt: Too many: 65: must have at most 64 items"),
        (issuer("audiences: [k]"), "a.yaml:4:11: jwt[0].issuer.url: Required value"),
        (
            issuer("url: 'http://a', audiences: [k]"),
            "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https; give a plain https URL",
        ),
        (
            issuer("url: 'https://u:p@a', audiences: [k]"),
            "URL must not contain a username or password",
        ),
        (issuer("url: 'https://a?b=c', audiences: [k]"), "URL must not contain a query"),
        (issuer("url: 'https://a#b', audiences: [k]"), "URL must not contain a fragment"),
        (issuer("url: 'https:///x', audiences: [k]"), "not a URL of a server"),
        (
            issuer("url: 'https://kubernetes.default.svc', audiences: [k]"),
            "jwt[0].issuer.url: Invalid value: \"https://kubernetes.default.svc\": URL must not overlap with disallowed issuers: [https://kubernetes.default.svc]",
        ),
        (
            issuer(&format!("{GOOD}, discoveryURL: 'https://a/'")),
            "jwt[0].issuer.discoveryURL: Invalid value: \"https://a/\": discoveryURL must be different from URL",
        ),
        (
            issuer(&format!("{GOOD}, discoveryURL: 'http://b'")),
            "jwt[0].issuer.discoveryURL: Invalid value: \"http://b\": URL scheme must be https",
        ),
        (
            two("url: 'https://a'", "url: 'https://a'"),
            "a.yaml:6:17: jwt[1].issuer.url: Duplicate value: \"https://a\"",
        ),
        (
            two(
                "url: 'https://a', discoveryURL: 'https://d'",
                "url: 'https://b', discoveryURL: 'https://d'",
            ),
            "jwt[1].issuer.discoveryURL: Duplicate value: \"https://d\"",
        ),
        (
            issuer(&format!("{GOOD}, {bad_pem}")),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\"",
        ),
        (
            issuer(URL),
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ),
        (issuer(&format!("{URL}, audiences: ['']")), "jwt[0].issuer.audiences[0]: Required value"),
        (
            issuer(&format!("{URL}, audiences: [a, a], audienceMatchPolicy: MatchAny")),
            "jwt[0].issuer.audiences[1]: Duplicate value: \"a\"",
        ),
        (
            issuer(&format!("{URL}, audiences: [a, b]")),
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences; write \"audienceMatchPolicy: MatchAny\"",
        ),
        (
            issuer(&format!("{GOOD}, audienceMatchPolicy: MatchAll")),
            "audienceMatchPolicy must be empty or MatchAny for single audience",
        ),
        (
            issuer(&format!("{GOOD}, egressSelectorType: etcd")),
            "jwt[0].issuer.egressSelectorType: Invalid value: \"etcd\": egress selector must be either controlplane or cluster",
        ),
        (
            format!("{HEAD}anonymous: {{enabled: false, conditions: [{{path: /livez}}]}}\n"),
            "anonymous.conditions: Invalid value: [\"/livez\"]: enabled should be set to true when conditions are defined",
        ),
    ] {
        let error = verdict(&text).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
    }
    for good in [
        issuer(&format!("{URL}, audiences: [a, b], audienceMatchPolicy: MatchAny")),
        issuer(&format!("{GOOD}, audienceMatchPolicy: MatchAny")),
        issuer(&format!(
            "{GOOD}, discoveryURL: 'https://b:8443/x/.well-known/openid-configuration'"
        )),
    ] {
        assert!(verdict(&good).is_ok(), "{good}\n{:?}", verdict(&good));
    }
    for (text, expected) in [
        ("{enabled: true}", Anonymous::Everywhere),
        ("{enabled: true, conditions: []}", Anonymous::Everywhere),
        ("{enabled: false}", Anonymous::Nowhere),
        ("{}", Anonymous::Nowhere),
        ("{enabled: true, conditions: [{path: /livez}]}", Anonymous::Paths(vec!["/livez".into()])),
    ] {
        let loaded = verdict(&format!("{HEAD}anonymous: {text}\n")).unwrap();
        assert_eq!(loaded.anonymous, Some(expected), "{text}");
    }
}

#[test]
fn mappings_and_rules_are_validated_like_by_kube_apiserver() {
    let mappings = |text: &str| with(GOOD, &format!("claimMappings: {text}"));
    let name = |text: &str| mappings(&format!("{{username: {text}}}"));
    let more = |text: &str| mappings(&format!("{{username: {{claim: sub, prefix: ''}}, {text}}}"));
    let claim_rules = |text: &str| with(GOOD, &format!("claimValidationRules: {text}"));
    let user_rules = |text: &str| with(GOOD, &format!("userValidationRules: {text}"));
    let key = |key: &str| more(&format!("extra: [{{key: '{key}', valueExpression: claims.a}}]"));
    for (text, expected) in [
        (
            name("{}"),
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
        (
            mappings("{}"),
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
        (
            name("{claim: a, expression: b}"),
            "jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set",
        ),
        (
            name("{claim: a}"),
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing; add \"prefix: ''\"",
        ),
        (name("{claim: a, prefix: null}"), "username.prefix: Required value"),
        (
            name("{expression: claims.a, prefix: ''}"),
            "jwt[0].claimMappings.username.prefix: Invalid value: \"\": may not be specified when expression is set",
        ),
        (
            name("{expression: 'claims.'}"),
            "a.yaml:5:42: jwt[0].claimMappings.username.expression: Invalid value: \"claims.\": compilation failed: ERROR: <input>:1:8: ",
        ),
        (
            name("{expression: claim.sub}"),
            "ERROR: <input>:1:1: undeclared reference to 'claim' (in container ''); expressions here are about \"claims\", such as claims.sub",
        ),
        (
            name("{expression: claims.email}"),
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in",
        ),
        (
            name("{expression: \"claims.?email.orValue('')\"}"),
            "claims.email_verified must be used in",
        ),
        (more("groups: {claim: g}"), "jwt[0].claimMappings.groups.prefix: Required value"),
        (
            more("groups: {claim: g, prefix: '', expression: claims.g}"),
            "jwt[0].claimMappings.groups: Invalid value: \"\": claim and expression can't both be set",
        ),
        (
            more("groups: {expression: 'url(claims.g)'}"),
            "jwt[0].claimMappings.groups.expression: Invalid value: \"url(claims.g)\": compilation failed: ERROR: <input>:1:4: undeclared reference to 'url' (in container ''): this proxy does not support it",
        ),
        (
            more("uid: {claim: a, expression: claims.a}"),
            "jwt[0].claimMappings.uid: Invalid value: \"\": claim and expression can't both be set",
        ),
        (more("uid: {expression: '1 +'}"), "jwt[0].claimMappings.uid.expression: Invalid value"),
        (key(""), "jwt[0].claimMappings.extra[0].key: Required value"),
        (
            key("department"),
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"department\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
        (key("example.com/"), "must be a domain-prefixed path"),
        (
            key("exa_mple.com/a"),
            "extra[0].key: Invalid value: \"exa_mple.com\": a lowercase RFC 1123 subdomain",
        ),
        (key("example.com/a b"), "extra[0].key: Invalid value: \"a b\": Invalid path (regex"),
        (
            key("example.com/A"),
            "extra[0].key: Invalid value: \"example.com/A\": must be lowercase; write \"example.com/a\"",
        ),
        (
            key("kubernetes.io/a"),
            "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
        ),
        (
            key("x.k8s.io/a"),
            "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
        ),
        (
            more(
                "extra: [{key: e.com/a, valueExpression: claims.a}, {key: e.com/a, valueExpression: claims.b}]",
            ),
            "jwt[0].claimMappings.extra[1].key: Duplicate value: \"e.com/a\"",
        ),
        (
            more("extra: [{key: e.com/a}]"),
            "jwt[0].claimMappings.extra[0].valueExpression: Required value",
        ),
        (
            more("extra: [{key: e.com/a, valueExpression: 'user.uid'}]"),
            "undeclared reference to 'user'",
        ),
        (
            claim_rules("[{}]"),
            "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
        ),
        (
            claim_rules("[{claim: a, expression: 'true'}]"),
            "jwt[0].claimValidationRules[0]: Invalid value: \"a\": claim and expression can't both be set",
        ),
        (
            claim_rules("[{claim: a, requiredValue: b, message: c}]"),
            "jwt[0].claimValidationRules[0].message: Invalid value: \"c\": may not be specified when claim is set",
        ),
        (
            claim_rules("[{expression: 'true', requiredValue: b}]"),
            "jwt[0].claimValidationRules[0].requiredValue: Invalid value: \"b\": may not be specified when expression is set",
        ),
        (
            claim_rules("[{claim: a, requiredValue: b}, {claim: a, requiredValue: c}]"),
            "jwt[0].claimValidationRules[1].claim: Duplicate value: \"a\"",
        ),
        (
            claim_rules("[{expression: 'true'}, {expression: 'true'}]"),
            "jwt[0].claimValidationRules[1].expression: Duplicate value: \"true\"",
        ),
        (
            claim_rules("[{expression: claims.admin}]"),
            "jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.admin\": must evaluate to bool; compare it, as in \"claims.admin == true\"",
        ),
        (user_rules("[{message: a}]"), "jwt[0].userValidationRules[0].expression: Required value"),
        (
            user_rules("[{expression: 'true'}, {expression: 'true'}]"),
            "jwt[0].userValidationRules[1].expression: Duplicate value: \"true\"",
        ),
        (user_rules("[{expression: user.username}]"), "must evaluate to bool"),
        (
            user_rules("[{expression: \"user.name == 'a'\"}]"),
            "undefined field 'name'; expressions here are about \"user\": user.username",
        ),
    ] {
        let error = verdict(&text).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
        assert!(
            error.lines().all(|line| line.starts_with("a.yaml:") && line.contains("; ")),
            "{error}"
        );
    }
    for good in [
        name("{expression: \"claims.email_verified ? claims.email : claims.sub\"}"),
        with(
            GOOD,
            "claimMappings: {username: {expression: claims.email}}\n  claimValidationRules: [{expression: claims.email_verified == true}]",
        ),
        mappings(
            "{username: {expression: claims.email}, extra: [{key: e.com/v, valueExpression: 'string(claims.email_verified)'}]}",
        ),
        user_rules("[{expression: \"!user.username.startsWith('system:')\", message: nope}]"),
    ] {
        assert!(verdict(&good).is_ok(), "{good}\n{:?}", verdict(&good));
    }
}

proptest! {
    /// No file may cause a panic.
    #[test]
    fn no_file_breaks_the_reader(text in "[a-zA-Z0-9:\\[\\]{}'\", \n#&*!-]{0,200}", cut in 0..2000_usize) {
        let _ = verdict(&format!("{HEAD}{text}"));
        let end = SAMPLE.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(SAMPLE.len());
        let _ = verdict(&SAMPLE[..end]);
    }
}

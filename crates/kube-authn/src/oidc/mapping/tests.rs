use serde_json::json;

use super::*;
use crate::cel::{Expression, Variable};
use crate::jwt::Algorithm;
use crate::oidc::{CaSource, ExtraMapping, IssuerSettings};

const ISSUER: &str = "https://login.example";

fn settings() -> JwtSettings {
    JwtSettings {
        issuer: IssuerSettings { url: ISSUER.into(), discovery_url: None, ca: CaSource::System },
        audiences: vec!["kubernetes".into()],
        algorithms: Algorithm::ALL.to_vec(),
        claim_rules: Vec::new(),
        username: claim("sub", &format!("{ISSUER}#")),
        groups: Some(claim("groups", "")),
        uid: None,
        extra: Vec::new(),
        user_rules: Vec::new(),
    }
}

fn claim(claim: &str, prefix: &str) -> NameMapping {
    NameMapping::Claim { claim: claim.into(), prefix: prefix.into() }
}

fn cel(source: &str) -> Expression {
    Expression::compile(source, Variable::Claims).unwrap()
}

fn rule(source: &str, variable: Variable) -> Rule {
    let expression = Expression::compile(source, variable).unwrap();
    Rule { expression, message: "no".into() }
}

/// Returns the user of a token with these changes to its claims, as `name [uid] groups extra`.
fn verdict(settings: &JwtSettings, changes: Value) -> Result<String, OidcError> {
    let mut claims = json!({"iss": ISSUER, "aud": "kubernetes", "sub": "jane"});
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    let user = settings.user(claims.as_object().unwrap())?.user;
    let extra: Vec<_> = user.extra.values().flatten().cloned().collect();
    let uid = if user.uid.is_empty() { String::new() } else { format!("[{}] ", user.uid) };
    let text = format!("{} {uid}{} {}", user.username, user.groups.join(","), extra.join(","));
    Ok(text.trim().to_owned())
}

#[test]
fn claims_make_users() {
    let plain = settings();
    let (hd, domain) = ("hd".to_owned(), "example.com".to_owned());
    let email = JwtSettings {
        username: claim("email", ""),
        groups: Some(claim("groups", "oidc:")),
        claim_rules: vec![ClaimRule::Required { claim: hd, value: domain }],
        ..settings()
    };
    let claim = |name: &str, problem| Err(OidcError::Claim(name.into(), problem));
    let not_text = "is neither a string nor a list of strings";
    let jane = "https://login.example#jane";
    let all = "system:authenticated";
    let ok = |text: String| Ok(text);
    let mail = json!({"email": "j@example.com", "hd": "example.com"});
    let with = |changes: Value| {
        let mut claims = mail.clone();
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    };
    let cases = [
        (&plain, json!({}), ok(format!("{jane} {all}"))),
        (&plain, json!({"jti": "7"}), ok(format!("{jane} {all} JTI=7"))),
        (&plain, json!({"groups": "dev"}), ok(format!("{jane} dev,{all}"))),
        (&plain, json!({"groups": ["a", "b"]}), ok(format!("{jane} a,b,{all}"))),
        (&plain, json!({"groups": []}), ok(format!("{jane} {all}"))),
        (&plain, json!({"groups": ["a", "system:masters"]}), ok(format!("{jane} a,{all}"))),
        (&plain, json!({"groups": [1]}), claim("groups", not_text)),
        (&plain, json!({"groups": {"a": 1}}), claim("groups", not_text)),
        (&plain, json!({"sub": 7}), claim("sub", "is no string")),
        (&plain, json!({"email_verified": false}), ok(format!("{jane} {all}"))),
        (&email, mail.clone(), ok(format!("j@example.com {all}"))),
        (&email, with(json!({"email_verified": true})), ok(format!("j@example.com {all}"))),
        (&email, with(json!({"email_verified": false})), claim("email_verified", "is not true")),
        (&email, with(json!({"email_verified": "true"})), claim("email_verified", "is not true")),
        (
            &email,
            with(json!({"groups": "system:x"})),
            ok(format!("j@example.com oidc:system:x,{all}")),
        ),
        (&email, with(json!({"email": ""})), Err(OidcError::NoName)),
        (&plain, json!({"groups": null}), ok(format!("{jane} {all}"))),
        (
            &email,
            with(json!({"email": "system:admin"})),
            Err(OidcError::Reserved("system:admin".into())),
        ),
        (&email, with(json!({"hd": "elsewhere"})), claim("hd", "does not have the required value")),
        (&email, with(json!({"hd": ["example.com"]})), claim("hd", "is no string")),
    ];
    for (settings, changes, expected) in cases {
        assert_eq!(verdict(settings, changes.clone()), expected, "{changes}");
    }
}

#[test]
fn expressions_make_users() {
    let settings = JwtSettings {
        claim_rules: vec![
            ClaimRule::Rule(rule("claims.hd == 'example.com'", Variable::Claims)),
            ClaimRule::Required { claim: "kind".into(), value: "person".into() },
        ],
        username: NameMapping::Expression(cel("claims.sub.lowerAscii() + '@' + claims.hd")),
        groups: Some(NameMapping::Expression(cel(
            "claims.?roles.orValue('').split(',').map(r, r)",
        ))),
        uid: Some(UidMapping::Expression(cel("claims.uuid"))),
        extra: vec![
            ExtraMapping { key: "example.com/a".into(), value: cel("claims.?tenant.orValue('')") },
            ExtraMapping {
                key: "example.com/b".into(),
                value: cel("[string(claims.hd), '', string(claims.kind)]"),
            },
        ],
        user_rules: vec![rule("user.groups.size() < 3 && user.uid != 'x'", Variable::User)],
        ..settings()
    };
    let with = |changes: Value| {
        let mut claims = json!({
            "sub": "Jane", "hd": "example.com", "kind": "person", "uuid": "7", "jti": "t",
            "roles": "dev,,ops",
        });
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    };
    let failed = |expression: &str| {
        Err(OidcError::Rule { expression: expression.into(), message: "no".into() })
    };
    let wrong = |what, text: &str| {
        Err(OidcError::Expression(what, EvaluationError::Failed(text.to_owned())))
    };
    let user_rule = "user.groups.size() < 3 && user.uid != 'x'";
    let jane = "jane@example.com [7]";
    let rest = "JTI=t,example.com,person";
    let all = "system:authenticated";
    let cases = [
        (json!({}), Ok(format!("{jane} dev,ops,{all} {rest}"))),
        (json!({"roles": ""}), Ok(format!("{jane} {all} {rest}"))),
        (json!({"roles": "dev,system:masters"}), Ok(format!("{jane} dev,{all} {rest}"))),
        (
            json!({"tenant": "t1", "jti": 7}),
            Ok(format!("{jane} dev,ops,{all} t1,example.com,person")),
        ),
        (json!({"roles": "a,b,c"}), failed(user_rule)),
        (json!({"uuid": "x"}), failed(user_rule)),
        (json!({"hd": "elsewhere"}), failed("claims.hd == 'example.com'")),
        (
            json!({"kind": "robot"}),
            Err(OidcError::Claim("kind".into(), "does not have the required value")),
        ),
        (json!({"uuid": 7}), Err(OidcError::Expression("uid", EvaluationError::Type("a string")))),
        (
            json!({"sub": "system:admin", "hd": ""}),
            Err(OidcError::Reserved("system:admin@".into())),
        ),
        (json!({"roles": 7}), wrong("groups", "no such overload: split(double, string)")),
    ];
    for (changes, expected) in cases {
        assert_eq!(verdict(&settings, with(changes.clone())), expected, "{changes}");
    }
}

#[test]
fn reserved_names_are_accepted_only_if_configured() {
    let named = |username: NameMapping| JwtSettings { username, groups: None, ..settings() };
    let grouped = |groups: NameMapping| JwtSettings { groups: Some(groups), ..settings() };
    let by_cel = |source| NameMapping::Expression(cel(source));
    let masters = json!({"sub": "system:admin", "groups": ["system:masters", "dev"]});
    let reserved = |name: &str| Err(OidcError::Reserved(name.to_owned()));
    let all = "system:authenticated";
    let jane = format!("{ISSUER}#system:admin");
    for (settings, expected) in [
        (named(claim("sub", "")), reserved("system:admin")),
        (named(claim("sub", "sys")), Ok(format!("syssystem:admin {all}"))),
        (named(claim("sub", "system:oidc:")), Ok(format!("system:oidc:system:admin {all}"))),
        (named(by_cel("claims.sub")), reserved("system:admin")),
        (
            named(by_cel("claims.sub.startsWith('system:') ? claims.sub : 'x'")),
            reserved("system:admin"),
        ),
        (
            named(by_cel("'system:oidc:' + claims.sub")),
            Ok(format!("system:oidc:system:admin {all}")),
        ),
        // Only names that begin with the literal.
        (
            named(by_cel("claims.sub == 'x' ? 'system:node:x' : claims.sub")),
            reserved("system:admin"),
        ),
        (grouped(by_cel("claims.groups")), Ok(format!("{jane} dev,{all}"))),
        (
            grouped(by_cel("dyn(claims.groups).map(g, 'system:o:' + g)")),
            Ok(format!("{jane} system:o:system:masters,system:o:dev,{all}")),
        ),
        (
            grouped(claim("groups", "system:o:")),
            Ok(format!("{jane} system:o:system:masters,system:o:dev,{all}")),
        ),
    ] {
        assert_eq!(verdict(&settings, masters.clone()), expected, "{settings:?}");
    }
    let mapped = settings().user(masters.as_object().unwrap()).unwrap();
    assert_eq!(mapped.reserved_groups, ["system:masters"]);
}

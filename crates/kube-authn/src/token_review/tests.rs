use super::*;

fn read(text: &str, audiences: &[String]) -> Result<UserInfo, String> {
    let reviewed: Reviewed = serde_json::from_str(text).unwrap();
    user_of(reviewed.status, audiences)
}

#[test]
fn users_are_read_in_full() {
    let text = r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"jane",
        "uid":"42","groups":["dev"],"extra":{"k":["v","w"]}},"audiences":["api"]}}"#;
    let user = read(text, &["api".into()]).unwrap();
    assert_eq!((user.username.as_str(), user.uid.as_str()), ("jane", "42"));
    assert_eq!(user.groups, ["dev", "system:authenticated"]);
    assert_eq!(user.extra["k"], ["v", "w"]);
    let sparse = r#"{"status":{"authenticated":true,"user":{"username":"j","groups":null}}}"#;
    assert_eq!(read(sparse, &[]).unwrap().groups, ["system:authenticated"]);
}

#[test]
fn a_review_without_a_user_rejects_the_token() {
    for text in [
        r#"{}"#,
        r#"{"status":{"user":{"username":"jane"}}}"#,
        r#"{"status":{"authenticated":false,"user":{"username":"jane"},"error":"expired"}}"#,
        r#"{"status":{"authenticated":true}}"#,
        r#"{"status":{"authenticated":true,"user":{"username":""}}}"#,
    ] {
        assert!(read(text, &[]).is_err(), "{text}");
    }
}

#[test]
fn audiences_must_have_one_in_common() {
    let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let cases = [
        ("", "", "", true),
        ("", "b", "", true),
        ("a", "a", "", true),
        ("a", "b", "", false),
        ("a", "", "a", true),
        ("a", "", "b", false),
        ("a b", "b c", "", true),
    ];
    for (asked, answered, implicit, expected) in cases {
        let verdict = has_common_audience(&list(asked), &list(answered), &list(implicit));
        assert_eq!(verdict, expected, "{asked:?} {answered:?} {implicit:?}");
    }
}

#[test]
fn tokens_are_not_cached_beyond_their_expiry() {
    use base64::Engine;
    let now = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |exp: u64| {
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let (header, claims) = (r#"{"alg":"RS256"}"#, format!(r#"{{"exp":{exp}}}"#));
        format!("{}.{}.AAAA", part(header), part(&claims))
    };
    let left = time_left(&token(now + 100));
    assert!((90..=100).contains(&left.as_secs()), "{left:?}");
    assert_eq!(time_left(&token(now - 100)), Duration::ZERO);
    assert_eq!(time_left("opaque"), Duration::MAX);
}

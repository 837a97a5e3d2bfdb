use super::*;

fn parsed(claims: &str) -> Result<Registered, String> {
    Registered::parse(claims.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn times_are_numbers_also_in_quotes() {
    let expires = |json: &str| parsed(&format!("{{\"exp\": {json}}}")).map(|claims| claims.expires);
    for (json, expected) in [
        ("1700000000", 1_700_000_000),
        ("1700000000.9", 1_700_000_000),
        ("1.7e9", 1_700_000_000),
        ("\"1700000000\"", 1_700_000_000),
        ("-5", -5),
        // Like Go converts numbers out of range: a time long ago.
        ("1e300", i64::MIN),
        ("99999999999999999999", i64::MIN),
    ] {
        assert_eq!(expires(json), Ok(Some(expected)), "{json}");
    }
    for json in ["null", "true", "[]", "{}", "\"\"", "\"x\"", "\" 5\"", "\"0x5\"", "1e999"] {
        assert!(expires(json).is_err(), "{json}");
        assert!(parsed(&format!("{{\"iat\": {json}}}")).is_err(), "{json}");
    }
    assert_eq!(parsed("{\"nbf\": null}").unwrap().not_before, None);
    assert_eq!(parsed("{\"nbf\": 7}").unwrap().not_before, Some(7));
    assert!(parsed("{\"nbf\": true}").is_err());
}

#[test]
fn audiences_are_texts_or_lists() {
    let audiences = |json: &str| parsed(&format!("{{\"aud\": {json}}}")).map(|c| c.audiences);
    assert_eq!(audiences("\"a\"").unwrap(), ["a"]);
    assert_eq!(audiences("[\"a\", null, \"b\"]").unwrap(), ["a", "", "b"]);
    assert_eq!(audiences("null").unwrap(), [""]);
    for json in ["5", "{}", "[5]", "[[\"a\"]]", "true"] {
        assert!(audiences(json).is_err(), "{json}");
    }
}

#[test]
fn registered_claims_have_their_types() {
    for bad in [
        "{\"sub\": 5}",
        "{\"iss\": []}",
        "{\"nonce\": 5}",
        "{\"at_hash\": {}}",
        "{\"_claim_names\": 5}",
        "{\"_claim_names\": {\"groups\": 5}}",
        "{\"_claim_names\": {\"groups\": null}}",
        "{\"_claim_names\": {\"groups\": \"s\"}}",
        "{\"_claim_names\": {\"other\": \"s\"}, \"_claim_sources\": {}}",
        "{\"_claim_sources\": 5}",
        "{\"_claim_sources\": {\"s\": 5}}",
        "{\"_claim_sources\": {\"s\": {\"Endpoint\": 5}}}",
        "[]",
        "null",
        "5",
    ] {
        assert!(parsed(bad).is_err(), "{bad}");
    }
    for good in [
        "{}",
        "{\"sub\": null, \"nonce\": null, \"at_hash\": \"x\", \"n\": {\"sub\": 5}}",
        "{\"_claim_names\": null, \"_claim_sources\": null}",
        "{\"_claim_names\": {\"g\": \"s\"}, \"_claim_sources\": {\"s\": {\"endpoint\": \"e\"}}}",
        "{\"_claim_sources\": {\"s\": null}}",
    ] {
        assert!(parsed(good).is_ok(), "{good}: {:?}", parsed(good));
    }
}

/// kube-apiserver accepts some of these, and its libraries differ; here all are rejected.
#[test]
fn registered_claims_are_there_once_and_in_lower_case() {
    for bad in [
        "{\"exp\": 1, \"exp\": 2}",
        "{\"exp\": 1, \"EXP\": 2}",
        "{\"EXP\": 2}",
        "{\"Sub\": \"x\"}",
        "{\"ſub\": 5}",
        "{\"iſſ\": \"x\"}",
        "{\"NBF\": 5}",
        "{\"_CLAIM_NAMES\": {}}",
    ] {
        assert!(parsed(bad).unwrap_err().contains("twice, or in different case"), "{bad}");
    }
    assert!(parsed("{\"x\": 1, \"X\": 2, \"x\": 3}").is_ok());
}

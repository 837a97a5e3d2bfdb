use super::*;

const CONFIG_MAPS: Resource<'_> =
    Resource { group: b"", version: b"v1", resource: b"configmaps", subresource: b"" };
const PODS: Resource<'_> = Resource { resource: b"pods", ..CONFIG_MAPS };
const ROLE_BINDINGS: Resource<'_> = Resource {
    group: b"rbac.authorization.k8s.io",
    version: b"v1",
    resource: b"clusterrolebindings",
    subresource: b"",
};
const WIDGETS: Resource<'_> =
    Resource { group: b"example.com", version: b"v1", resource: b"widgets", subresource: b"" };

fn decoded(resource: &Resource<'_>, text: &[u8]) -> (String, String) {
    let decoded = object(text, resource).unwrap();
    (String::from_utf8(decoded.json.into_owned()).unwrap(), decoded.ambiguities.names())
}

/// Decodes a ConfigMap with these members.
fn config_map(members: &str) -> (String, String) {
    let text = format!("{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",{members}}}");
    let (json, names) = decoded(&CONFIG_MAPS, text.as_bytes());
    let rest = json.strip_prefix(r#"{"kind":"ConfigMap","apiVersion":"v1""#).unwrap();
    (rest.trim_start_matches(',').strip_suffix('}').unwrap().to_owned(), names)
}

#[test]
fn of_duplicate_keys_structs_and_maps_are_merged() {
    for (members, expected) in [
        (
            r#""metadata":{"labels":{"a":"b"}},"metadata":{"name":"x"}"#,
            r#""metadata":{"name":"x","labels":{"a":"b"}}"#,
        ),
        (r#""data":{"a":"1"},"data":{"b":"2"}"#, r#""data":{"a":"1","b":"2"}"#),
        (r#""data":{"a":"1"},"data":null"#, ""),
        (r#""metadata":{"name":"x"},"metadata":null"#, r#""metadata":{"name":"x"}"#),
        (r#""metadata":{"name":"x","name":null}"#, r#""metadata":{"name":"x"}"#),
        (r#""metadata":{"name":"x","name":"y"}"#, r#""metadata":{"name":"y"}"#),
    ] {
        assert_eq!(config_map(members), (expected.to_owned(), "duplicate-keys".to_owned()));
    }
}

#[test]
fn what_has_one_meaning_is_not_ambiguous() {
    for (members, expected) in [
        (r#""data":{"k":null}"#, r#""data":{"k":""}"#),
        (r#""binaryData":{"b":"aG\nk="}"#, r#""binaryData":{"b":"aGk="}"#),
        (r#""binaryData":{"b":"aGn="}"#, r#""binaryData":{"b":"aGk="}"#),
        (r#""binaryData":{"b":[104,105]}"#, r#""binaryData":{"b":"aGk="}"#),
        (
            r#""immutable":null,"METADATA":{"name":"x"},"new":[1,null],"n":1e400"#,
            r#""new":[1,null]"#,
        ),
    ] {
        assert_eq!(config_map(members), (expected.to_owned(), String::new()));
    }
}

#[test]
fn odd_characters_are_replaced() {
    let (json, names) = config_map(r#""data":{"k":"\ud800x"}"#);
    assert_eq!(json, "\"data\":{\"k\":\"\u{fffd}x\"}");
    assert_eq!(names, "unpaired-surrogate");
    let text = b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"data\":{\"k\":\"\xff\"}}";
    let (json, names) = decoded(&CONFIG_MAPS, text);
    assert!(json.ends_with("\"k\":\"\u{fffd}\"}}"), "{json}");
    assert_eq!(names, "invalid-utf8");
}

#[test]
fn the_type_ignores_case_and_defaults_to_the_resource() {
    let (json, _) = decoded(&CONFIG_MAPS, b"{\"metadata\":{\"name\":\"a\"}}");
    assert_eq!(json, r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}"#);
    assert_eq!(decoded(&CONFIG_MAPS, b"null").0, r#"{"kind":"ConfigMap","apiVersion":"v1"}"#);
    let (json, names) = decoded(&CONFIG_MAPS, br#"{"KIND":"ConfigMap","apiVersion":"v1"}"#);
    assert_eq!(json, r#"{"kind":"ConfigMap","apiVersion":"v1"}"#);
    assert_eq!(names, "case-variant-keys");
}

#[test]
fn elements_of_lists_are_decoded_where_earlier_ones_are() {
    let binding = br#"{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","subjects":[{"kind":"User","name":"a"},{"kind":"Group","name":"g"}],"subjects":[{"name":"b"}],"subjects":[{},{}]}"#;
    let (json, names) = decoded(&ROLE_BINDINGS, binding);
    assert!(
        json.contains(r#""subjects":[{"kind":"User","name":"b"},{"kind":"Group","name":"g"}]"#),
        "{json}"
    );
    assert_eq!(names, "duplicate-keys");
}

#[test]
fn wrong_types_are_errors_even_if_replaced() {
    for members in [
        r#""metadata":[]"#,
        r#""data":{"k":1},"data":{"k":"v"}"#,
        r#""immutable":"true""#,
        r#""metadata":{"generation":1.5,"name":null}"#,
        r#""metadata":{"creationTimestamp":"nonsense","name":null}"#,
    ] {
        let text = format!("{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",{members},\"x\":null}}");
        assert!(object(text.as_bytes(), &CONFIG_MAPS).is_err(), "{members}");
    }
    assert!(object(b"[]", &CONFIG_MAPS).is_err());
}

#[test]
fn custom_resources_have_no_schema() {
    let text = br#"{"kind":"Widget","apiVersion":"example.com/v1","metadata":{"name":"a"},"metadata":{"labels":{}},"n":1.50,"big":123456789012345678901}"#;
    let (json, names) = decoded(&WIDGETS, text);
    assert_eq!(
        json,
        r#"{"apiVersion":"example.com/v1","big":123456789012345680000,"kind":"Widget","metadata":{},"n":1.5}"#
    );
    assert_eq!(names, "duplicate-keys");
}

#[test]
fn the_metadata_of_custom_resources_is_typed() {
    let text = br#"{"kind":"Widget","apiVersion":"example.com/v1","metadata":{"Name":"decoy","name":"a","annotations":{"x":null}},"SPEC":{"Name":1}}"#;
    let (json, names) = decoded(&WIDGETS, text);
    assert_eq!(
        json,
        r#"{"SPEC":{"Name":1},"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","annotations":{"x":""}}}"#
    );
    assert_eq!(names, "");
}

/// A reader that ignores case would use the last one.
#[test]
fn names_in_another_case_are_left_out() {
    for members in [
        r#""roleRef":{"name":"cluster-admin","NAME":"viewer"}"#,
        r#""roleRef":{"name":"cluster-admin"},"RoleRef":{"name":"viewer"}"#,
        r#""roleRef":{"name":"cluster-admin"},"ROLEREF":{"name":"viewer"},"SUBJECTS":[]"#,
        "\"roleRef\":{\"name\":\"cluster-admin\"},\"\u{17f}ubjects\":[{\"name\":\"x\"}]",
    ] {
        let text = format!(
            r#"{{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1",{members}}}"#
        );
        let (json, _) = decoded(&ROLE_BINDINGS, text.as_bytes());
        assert_eq!(
            json,
            r#"{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","roleRef":{"name":"cluster-admin"}}"#
        );
    }
}

#[test]
fn ordinary_objects_are_recorded_as_they_are() {
    let text = br#"{"kind":"Pod", "apiVersion":"v1","metadata":{"name":"a"},"spec":{"x":[1.0]}}"#;
    let decoded = object(text, &PODS).unwrap();
    assert!(matches!(decoded.json, Cow::Borrowed(_)));
    assert_eq!(decoded.metadata.unwrap().name, "a");
}

#[test]
fn patches_are_recorded_as_they_are() {
    let text = br#"{"data":{"a":null,"a":1e400}}"#;
    let decoded = patch(text).unwrap();
    assert_eq!((&*decoded.json, decoded.ambiguities.names()), (&text[..], "duplicate-keys".into()));
    let decoded = patch(b"[{\"x\":\"\xff\"}]").unwrap();
    assert_eq!(&*decoded.json, "[{\"x\":\"\u{fffd}\"}]".as_bytes());
    assert!(patch(b"{").is_err());
}

mod surveyed {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::survey::{Hints, survey};
    use super::super::{plain, tape};
    use crate::object;

    const OBJECT: Hints =
        Hints { object: true, nulls: false, binary: None, binary_anywhere: false };
    /// Members of Kubernetes' types in another case.
    const VARIANTS: [&str; 5] = ["Kind", "NAME", "metaData", "\u{212a}ind", "host\u{17f}"];

    const USUAL: [&str; 7] =
        ["kind", "metadata", "name", "uid", "labels", "app.kubernetes.io/name", "caf\u{e9}"];
    const SCALARS: [&str; 9] =
        ["1", "-0", "1e3", "null", "true", "\"x\"", "\"a\\nb\"", "\"\\ud800\"", "\"\u{e9}\""];

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => select(&USUAL[..]).prop_map(str::to_owned),
            12 => "[a-c]{1,4}|setting-0[0-9]\\.properties|same-start-of-two-words-[xy]",
            1 => select(&VARIANTS[..]).prop_map(str::to_owned),
        ]
    }

    fn value() -> impl Strategy<Value = String> {
        let space = || select(vec!["", "", "", " ", "\n\t"]);
        select(&SCALARS[..]).prop_map(str::to_owned).prop_recursive(4, 60, 8, move |inner| {
            let member =
                (key(), space(), inner.clone(), space()).prop_map(|(key, before, value, after)| {
                    format!("\"{key}\"{before}:{before}{value}{after}")
                });
            prop_oneof![
                1 => vec(inner, 0..4).prop_map(|elements| format!("[{}]", elements.join(","))),
                4 => (space(), vec(member, 0..8)).prop_map(|(before, members)| {
                    format!("{{{before}{}}}", members.join(&format!(",{before}")))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// An object that passes the survey is also unambiguous for the complete decoder, with the
        /// same identity.
        #[test]
        fn what_passes_has_one_meaning(members in vec((key(), value()), 0..8)) {
            let members: String = members.iter().map(|(key, value)| format!(",\"{key}\":{value}")).collect();
            let text = format!("{{\"kind\":\"Pod\",\"apiVersion\":\"v1\"{members}}}");
            let Some(metadata) = survey(text.as_bytes(), OBJECT) else { return Ok(()) };
            let mut tape = tape::parse(text.as_bytes()).unwrap();
            plain::write(&mut tape, 0, plain::Style::Decoded, &mut Vec::new()).unwrap();
            prop_assert!(tape.ambiguities.is_empty(), "{}", text);
            prop_assert_eq!(Some(metadata), object::metadata(text.as_bytes()), "{}", &text);
            prop_assert!(VARIANTS.iter().all(|key| !text.contains(&format!("\"{key}\""))), "{}", text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Typical objects pass the survey.
        #[test]
        fn usual_objects_pass(settings in proptest::collection::btree_set("[a-z][a-z0-9.-]{0,30}/[a-z]", 0..80)) {
            let members: Vec<_> = settings.iter().map(|key| format!("\"{key}\":\"v\"")).collect();
            let text = format!(
                "{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"a\"}},\"data\":{{{}}}}}",
                members.join(",")
            );
            let metadata = survey(text.as_bytes(), OBJECT);
            prop_assert_eq!(metadata.map(|metadata| metadata.name), Some("a".to_owned()));
        }
    }
}

use http::HeaderName;

use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn user(lines: &[(&str, &str)]) -> UserInfo {
    parse_headers(&headers(lines)).unwrap().unwrap().into_user()
}

#[test]
fn headers_are_read_as_kube_apiserver_reads_them() {
    assert_eq!(parse_headers(&headers(&[("Accept", "a")])), Ok(None));
    assert_eq!(parse_headers(&headers(&[("Impersonate-User", "")])), Ok(None));
    let full = user(&[
        ("Impersonate-User", "alice"),
        ("Impersonate-User", "bob"),
        ("Impersonate-Uid", "u1"),
        ("Impersonate-Group", "a,b"),
        ("Impersonate-Group", ""),
        ("Impersonate-Extra-Example.com%2fEscaped%e1%9b%84Scopes", "s1"),
        ("Impersonate-Extra-almost%zzpercent%xxencoded", "x+y"),
        ("impersonate-extra-SCOPES", "1"),
        ("Impersonate-Extra-scopes", "2"),
    ]);
    assert_eq!((full.username.as_str(), full.uid.as_str()), ("alice", "u1"));
    assert_eq!(full.groups, ["a,b", "", "system:authenticated"]);
    let extra: Vec<_> = full.extra.iter().map(|(k, v)| (k.as_str(), v.join("|"))).collect();
    assert_eq!(
        extra,
        [
            ("almost%zzpercent%xxencoded", "x+y".to_owned()),
            ("example.com/escapedᛄscopes", "s1".to_owned()),
            ("scopes", "1|2".to_owned()),
        ]
    );
}

#[test]
fn groups_are_added_as_kubernetes_adds_them() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("alice", &[], &["system:authenticated"]),
        ("alice", &["g"], &["g", "system:authenticated"]),
        (
            "system:serviceaccount:foo:default",
            &[],
            &["system:serviceaccounts", "system:serviceaccounts:foo", "system:authenticated"],
        ),
        ("system:serviceaccount:foo:default", &["g"], &["g", "system:authenticated"]),
        ("system:serviceaccount:Foo:default", &[], &["system:authenticated"]),
        ("system:serviceaccount:foo:a:b", &[], &["system:authenticated"]),
        ("system:anonymous", &[], &["system:unauthenticated"]),
        ("x", &["system:unauthenticated"], &["system:unauthenticated"]),
        ("x", &["system:authenticated", "d"], &["system:authenticated", "d"]),
    ];
    for (name, groups, expected) in cases {
        let mut lines = vec![("Impersonate-User", *name)];
        lines.extend(groups.iter().map(|group| ("Impersonate-Group", *group)));
        assert_eq!(user(&lines).groups, *expected, "{name} {groups:?}");
    }
}

#[test]
fn a_user_name_is_needed() {
    let message = |lines: &[(&str, &str)]| {
        parse_headers(&headers(lines)).unwrap_err().status(Rules::Constrained).message
    };
    assert_eq!(
        message(&[("Impersonate-Group", "dev")]),
        r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"dev"}, Extra:map[string][]string(nil)} without impersonating a user name"#
    );
    assert_eq!(
        message(&[
            ("Impersonate-Uid", "u"),
            ("Impersonate-Extra-b", "1"),
            ("Impersonate-Extra-a", "2")
        ]),
        r#"requested &user.DefaultInfo{Name:"", UID:"u", Groups:[]string(nil), Extra:map[string][]string{"a":[]string{"2"}, "b":[]string{"1"}}} without impersonating a user name"#
    );
}

#[test]
fn a_user_name_is_needed_in_the_words_of_older_servers_too() {
    let lines = [
        ("Impersonate-Uid", "u"),
        ("Impersonate-Extra-a", "1"),
        ("Impersonate-Group", "g"),
        ("Impersonate-Group", "h"),
    ];
    let message =
        |lines| parse_headers(&headers(lines)).unwrap_err().status(Rules::LegacyOnly).message;
    assert_eq!(message(&lines[2..3]), "requested [{Group  g    }] without impersonating a user");
    assert_eq!(
        message(&lines),
        "requested [{Group  g    } {Group  h    } {UserExtra  1  authentication.k8s.io/v1  a} {UID  u  authentication.k8s.io/v1  }] without impersonating a user"
    );
}

#[test]
fn a_node_of_a_constrained_mode_is_in_the_group_of_nodes() {
    let node = parse_headers(&headers(&[("Impersonate-User", "system:node:n1")])).unwrap().unwrap();
    assert_eq!(node.clone().into_node().groups, ["system:nodes", "system:authenticated"]);
    assert_eq!(node.into_user().groups, ["system:authenticated"]);
}

#[test]
fn denials_of_the_api_server_are_distinguished_from_other_403s() {
    let caller = UserInfo { username: "ops".into(), ..UserInfo::default() };
    let refused = |message: &str| was_refused(&Status::forbidden(message, None), &caller);
    assert!(refused(
        r#"users "jane" is forbidden: User "ops" cannot impersonate resource "users" in API group "" at the cluster scope"#
    ));
    assert!(refused(
        r#"pods is forbidden: User "ops" cannot impersonate-on:user-info:create resource "pods" in API group "" in the namespace "a""#
    ));
    assert!(refused(
        r#"users.authentication.k8s.io "jane" is forbidden: User "ops" cannot impersonate:user-info resource "users""#
    ));
    assert!(!refused(r#"pods is forbidden: User "jane" cannot get resource "pods""#));
    assert!(!refused(r#"pods is forbidden: User "jane" cannot impersonate resource "users""#));
    let bad = parse_headers(&headers(&[("Impersonate-Group", "dev")])).unwrap_err();
    for rules in [Rules::LegacyOnly, Rules::Constrained] {
        assert!(was_refused(&bad.status(rules), &caller));
    }
}

use super::*;

fn requested(username: &str) -> UserInfo {
    UserInfo {
        username: username.into(),
        uid: "u1".into(),
        groups: vec!["a".into(), "b".into()],
        extra: [("acme.io/scopes".into(), vec!["read".into(), "write".into()])].into(),
    }
}

/// Returns the checks in short form.
fn asked(mode: Mode, rules: Rules, requested: &UserInfo) -> Vec<String> {
    let requester = UserInfo { username: "ops".into(), ..UserInfo::default() };
    let short = |asked: &Attributes<'_>| {
        let Object::Resource(about) = asked.object else { panic!("a resource") };
        let Resource { group, version, resource, subresource, namespace, name, .. } = about;
        assert_eq!(version, "v1");
        format!("{}: {group}|{resource}|{subresource}|{namespace}|{name}", asked.verb)
    };
    let text = |check: &Check<'_>| match check {
        Check::One(one) => short(one),
        Check::Many { all, each } => format!("{} or {}", short(all), each.len()),
        Check::Never(status) => status.message.clone(),
    };
    of(mode, rules, &requester, requested).iter().map(text).collect()
}

#[test]
fn each_part_is_checked_in_the_order_of_the_rules() {
    let account = requested("system:serviceaccount:prod:app");
    let legacy = [
        "impersonate: |serviceaccounts||prod|app",
        "impersonate: authentication.k8s.io|uids|||u1",
        "impersonate: |groups|||a",
        "impersonate: |groups|||b",
        "impersonate: authentication.k8s.io|userextras|acme.io/scopes||read",
        "impersonate: authentication.k8s.io|userextras|acme.io/scopes||write",
    ];
    assert_eq!(asked(Mode::Legacy, Rules::Constrained, &account), legacy);
    let older = [0, 2, 3, 4, 5, 1].map(|at| legacy[at]);
    assert_eq!(asked(Mode::Legacy, Rules::LegacyOnly, &account), older);
    assert_eq!(
        asked(Mode::UserInfo, Rules::Constrained, &requested("jane")),
        [
            "impersonate:user-info: authentication.k8s.io|users|||jane",
            "impersonate:user-info: authentication.k8s.io|uids|||u1",
            "impersonate:user-info: authentication.k8s.io|groups|||a",
            "impersonate:user-info: authentication.k8s.io|groups|||b",
            "impersonate:user-info: authentication.k8s.io|userextras|acme.io/scopes||read",
            "impersonate:user-info: authentication.k8s.io|userextras|acme.io/scopes||write",
        ]
    );
}

#[test]
fn users_are_checked_by_their_kind() {
    let first = |mode, name: &str| {
        let user = UserInfo { username: name.into(), ..UserInfo::default() };
        asked(mode, Rules::Constrained, &user).join(" ")
    };
    let node = "system:node:n1";
    assert_eq!(
        first(Mode::AssociatedNode, node),
        "impersonate:associated-node: authentication.k8s.io|nodes|||*"
    );
    assert_eq!(
        first(Mode::ArbitraryNode, node),
        "impersonate:arbitrary-node: authentication.k8s.io|nodes|||n1"
    );
    assert_eq!(first(Mode::Legacy, node), "impersonate: |users|||system:node:n1");
    assert_eq!(
        first(Mode::ServiceAccount, "system:serviceaccount:ns:app"),
        "impersonate:serviceaccount: authentication.k8s.io|serviceaccounts||ns|app"
    );
}

#[test]
fn a_wildcard_is_checked_first_for_many_values() {
    let texts = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let asked_of = |mode, groups: usize, values: &[usize]| {
        let extra = values.iter().enumerate().map(|(n, count)| (format!("a/{n}"), texts(*count)));
        let user = UserInfo {
            username: "jane".into(),
            uid: String::new(),
            groups: texts(groups),
            extra: extra.collect(),
        };
        asked(mode, Rules::Constrained, &user)[1..].to_vec()
    };
    let all_groups = "impersonate:user-info: authentication.k8s.io|groups|||* or 4";
    assert_eq!(asked_of(Mode::UserInfo, 4, &[]), [all_groups]);
    assert_eq!(asked_of(Mode::UserInfo, 3, &[]).len(), 3);
    assert_eq!(asked_of(Mode::Legacy, 4, &[]).len(), 4);
    let all_extra = "impersonate:user-info: authentication.k8s.io|userextras|*||* or 4";
    for values in [&[4][..], &[3, 1], &[1, 1, 1, 1]] {
        assert_eq!(asked_of(Mode::UserInfo, 0, values), [all_extra], "{values:?}");
        assert_eq!(asked_of(Mode::Legacy, 0, values).len(), 4, "{values:?}");
    }
    assert_eq!(asked_of(Mode::UserInfo, 0, &[2, 1]).len(), 3);
}

#[test]
fn some_things_are_never_granted_by_a_constrained_mode() {
    let refused = |groups: &[&str], extra: &[(&str, &[&str])]| {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let user = UserInfo {
            username: "jane".into(),
            uid: String::new(),
            groups: texts(groups),
            extra: extra.iter().map(|(key, values)| ((*key).into(), texts(values))).collect(),
        };
        assert!(asked(Mode::Legacy, Rules::Constrained, &user).len() > 1 || extra[0].1.is_empty());
        let mut asked = asked(Mode::UserInfo, Rules::Constrained, &user);
        assert_eq!(asked.len(), 2, "the user, and then a no: {asked:?}");
        asked.remove(1)
    };
    let no = |text: String| text.split_once("at the cluster scope: ").unwrap().1.to_owned();
    assert_eq!(
        refused(&["a", "system:masters"], &[]),
        r#"groups.authentication.k8s.io "system:masters" is forbidden: User "ops" cannot impersonate:user-info resource "groups" in API group "authentication.k8s.io" at the cluster scope: impersonating the system:masters group is not allowed"#
    );
    assert_eq!(no(refused(&[""], &[])), "impersonating the empty string group is not allowed");
    assert_eq!(
        refused(&[], &[("", &["v"])]),
        r#"userextras.authentication.k8s.io is forbidden: User "ops" cannot impersonate:user-info resource "userextras" in API group "authentication.k8s.io" at the cluster scope: impersonating the empty string key in extra is not allowed"#
    );
    assert_eq!(
        no(refused(&[], &[("scopes", &["v"])])),
        r#"impersonating an invalid key in extra is not allowed: extra.key: Invalid value: "scopes": must be a domain-prefixed path (such as "acme.io/foo")"#
    );
    assert_eq!(
        no(refused(&[], &[("a/B", &["v"])])),
        r#"impersonating a non-lowercase key in extra is not allowed: "a/B""#
    );
    assert_eq!(
        no(refused(&[], &[("a/b", &[])])),
        "impersonating empty values in extra is not allowed"
    );
    assert_eq!(
        no(refused(&[], &[("a/b", &["v", ""])])),
        "impersonating the empty string value in extra is not allowed"
    );
}

use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn input(claims: Json) -> Input {
    Input::claims(claims.as_object().unwrap())
}

fn jane() -> Json {
    json!({
        "sub": "jane", "email": "Jane@Example.com", "email_verified": true, "n": 7, "half": 0.5,
        "groups": ["dev", "ops", "system:masters"], "roles": "admin,reader", "none": null,
        "realm_access": {"roles": ["a", "b"], "a.b": "dotted"}, "odd.name": "x", "empty": "", "empty_list": [], "umlaut": "größe",
    })
}

fn compiled(source: &str) -> Expression {
    Expression::compile(source, Variable::Claims).unwrap_or_else(|e| panic!("{source}: {e}"))
}

#[test]
fn claims_become_texts() {
    let cases = [
        ("claims.sub", "jane"),
        ("'oidc:' + claims.sub", "oidc:jane"),
        ("claims['odd.name']", "x"),
        ("claims.email.split('@')[0]", "Jane"),
        ("claims.email.lowerAscii()", "jane@example.com"),
        ("claims.email.upperAscii()", "JANE@EXAMPLE.COM"),
        ("claims.email.replace('@', '-at-')", "Jane-at-Example.com"),
        ("claims.email.replace('e', '3', 1)", "Jan3@Example.com"),
        ("claims.email.replace('e', '3', -1)", "Jan3@Exampl3.com"),
        ("'ab'.replace('', '-')", "-a-b-"),
        ("claims.email.substring(0, claims.email.indexOf('@'))", "Jane"),
        ("claims.email.substring(claims.email.lastIndexOf('.') + 1)", "com"),
        ("claims.umlaut.substring(2, 4)", "öß"),
        ("claims.umlaut.charAt(2) + claims.umlaut.charAt(5)", "ö"),
        ("'  a b '.trim()", "a b"),
        ("claims.groups.join('|')", "dev|ops|system:masters"),
        ("claims.groups.join()", "devopssystem:masters"),
        ("claims.roles.split(',', 1)[0]", "admin,reader"),
        ("'abc'.split('').join('-')", "a-b-c"),
        ("'abc'.split('', 2).join('-')", "a-bc"),
        ("string(claims.n) + string(true)", "7true"),
        ("string(claims.n + 1.0) + string(int(claims.n) + 1)", "88"),
        ("[1, 2, 3].reverse().map(n, string(n)).join()", "321"),
        ("['b', 'a', 'b'].distinct().sort().join()", "ab"),
        ("lists.range(3).slice(1, 3).map(n, string(n)).join('-')", "1-2"),
        ("[['a'], ['b', 'c']].flatten().first().value()", "a"),
        ("string([1, 2].sum()) + string([0.5].sum()) + string([2u].sum())", "30.52"),
        ("strings.quote('a\\n\\'')", "\"a\\n'\""),
        ("claims.odd__dot__name + claims['odd.name']", "xx"),
        ("claims.realm_access.a__dot__b", "dotted"),
        ("type(claims.?sub) == optional_type ? 'optional' : ''", "optional"),
        ("claims.email.find('[a-z]+[.][a-z]+$')", "xample.com"),
        ("claims.email.findAll('[A-Z]').join()", "JE"),
        ("claims.email.findAll('[A-Z]', 1).join()", "J"),
        ("claims.?missing.orValue('fallback')", "fallback"),
        ("claims.?sub.orValue('fallback')", "jane"),
        ("claims.?realm_access.roles[0].orValue('none')", "a"),
        ("claims[?'sub'].value()", "jane"),
        ("claims.?sub.optMap(s, 'x-' + s).orValue('none')", "x-jane"),
        ("has(claims.missing) ? claims.missing : claims.sub", "jane"),
        ("dyn(claims.groups).exists(g, g == 'dev') ? 'developer' : 'other'", "developer"),
        ("string(claims.groups.indexOf('ops')) + claims.groups.max()", "1system:masters"),
        ("string(claims.groups.lastIndexOf('x')) + claims.groups.min()", "-1dev"),
        (
            "claims.email_verified && claims.email.endsWith('.com') ? claims.email : claims.sub",
            "Jane@Example.com",
        ),
    ];
    let input = input(jane());
    for (source, expected) in cases {
        assert_eq!(compiled(source).text(&input).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn claims_become_lists_and_booleans() {
    let input = input(jane());
    let lists: [(&str, &[&str]); 11] = [
        ("claims.groups", &["dev", "ops", "system:masters"]),
        (
            "dyn(claims.groups).map(g, 'oidc:' + g)",
            &["oidc:dev", "oidc:ops", "oidc:system:masters"],
        ),
        ("dyn(claims.groups).filter(g, !g.startsWith('system:'))", &["dev", "ops"]),
        ("dyn(claims.groups).map(g, g != 'dev', g + '!')", &["ops!", "system:masters!"]),
        ("claims.realm_access.roles + claims.roles.split(',')", &["a", "b", "admin", "reader"]),
        ("claims.sub", &["jane"]),
        ("claims.none", &[]),
        ("claims.empty", &[]),
        ("['', 'a', string(claims.empty)]", &["a"]),
        ("[type(claims.sub)]", &["string"]),
        ("[optional.of(claims.sub)]", &["jane"]),
    ];
    for (source, expected) in lists {
        assert_eq!(compiled(source).texts(&input).unwrap(), expected, "{source}");
    }
    let truths = [
        ("claims.n == 7 && claims.n > 6.5 && claims.half < 1", true),
        ("type(claims.n) == double && type(claims.half) == double", true),
        ("optional.ofNonZeroValue(claims.empty_list).hasValue()", true),
        ("optional.ofNonZeroValue(['a'].filter(x, x == 'b')).hasValue()", false),
        ("has(claims.sub.missing)", false),
        ("claims.exists(value, value == 'jane') && !claims.exists(name, name == 'sub')", true),
        ("{'a': 1, 'a': 2}.a == 2 && {string(claims.sub): 1}.jane == 1", true),
        ("claims.missing.?a.orValue('') == '' || true", true),
        ("dyn('x').orValue('y') == 'x'", true),
        ("optional.of('x').orValue(claims.missing) == 'x'", true),
        ("'dev' in claims.groups", true),
        ("dyn(claims.groups).all(g, g.matches('^[a-z:]+$'))", true),
        ("matches(claims.sub, 'J')", false),
        ("has(claims.none) && claims.none == null", true),
        ("has(claims.realm_access.roles) && size(claims.realm_access.roles) == 2", true),
        ("claims.groups.size() == 3 && claims.groups.isSorted()", true),
        ("dyn(claims.groups).exists_one(g, g.contains('m:m'))", true),
        (
            "sets.contains(claims.groups, ['dev']) && sets.intersects(['ops', 'x'], claims.groups)",
            true,
        ),
        ("sets.equivalent(['a', 'b', 'a'], claims.realm_access.roles)", true),
        ("claims.missing == 'x' || true", true),
        ("claims.missing == 'x' && false", false),
        ("optional.none().hasValue() || optional.of(1).hasValue()", true),
    ];
    for (source, expected) in truths {
        let expression = compiled(source);
        assert!(expression.is_bool(), "{source}");
        assert_eq!(expression.is_true(&input), Ok(expected), "{source}");
    }
}

#[test]
fn results_of_other_types_and_failures_are_errors() {
    let input = input(jane());
    let failed = |text: &str| EvaluationError::Failed(text.into());
    let text = EvaluationError::Type("a string");
    for (source, expected) in [
        ("claims.n", text.clone()),
        ("claims.none", text.clone()),
        ("claims.?sub", text.clone()),
        ("claims.missing", failed("no such key: missing")),
        ("claims.sub.split('@')[1]", failed("index out of bounds: 1")),
        ("claims.sub.substring(9)", failed("index out of range: 9")),
        ("claims.sub.substring(2, 1)", failed("invalid substring range. start: 2, end: 1")),
        ("claims.n.lowerAscii()", failed("no such overload: lowerAscii(double)")),
        ("string(1 / 0)", failed("division by zero")),
        ("string(claims.n + 1)", failed("no such overload: _+_(double, int)")),
        ("string('sub' in claims)", failed("no such overload: _in_(string, kubernetes.claims)")),
        (
            "claims.realm_access.?roles.?x.value()",
            failed("unsupported index type 'string' in list"),
        ),
        ("(['a'] + claims.realm_access)[0]", failed("no such overload: _+_(list, map)")),
        ("claims.sub.reverse()", failed("no such overload: reverse(string)")),
    ] {
        assert_eq!(compiled(source).text(&input), Err(expected), "{source}");
    }
    let list = EvaluationError::Type("a string or a list of strings");
    for source in [
        "claims.n",
        "[claims.sub, claims.n]",
        "claims.realm_access",
        "claims.?groups",
        "type(claims.sub)",
        "int",
        // kube-apiserver rejects lists that were created by these functions.
        "claims.roles.split(',')",
        "claims.sub.findAll('a')",
        "claims.map(value, value)",
    ] {
        assert_eq!(compiled(source).texts(&input), Err(list.clone()), "{source}");
    }
}

#[test]
fn what_is_wrong_is_found_before_anybody_calls() {
    let cases = [
        ("", "1:1: "),
        ("claims.", "1:8: "),
        ("claims.sub +", "1:13: "),
        ("foo", "1:1: undeclared reference to 'foo' (in container '')"),
        ("user.username", "1:1: undeclared reference to 'user' (in container '')"),
        ("'a' +\n  claim.sub", "2:3: undeclared reference to 'claim' (in container '')"),
        ("claims.sub.lower()", "undeclared reference to 'lower' (in container '')"),
        ("format('a')", "undeclared reference to 'format' (in container ''): this proxy does not"),
        ("'%s'.format([claims.sub])", "'format' (in container ''): this proxy does not support"),
        ("url(claims.iss).getHost() == 'x'", "'url' (in container ''): this proxy does not"),
        ("timestamp(claims.x) == null", "'timestamp' (in container ''): this proxy does not"),
        ("format.dns1123Label()", "'format.dns1123Label' (in container ''): this proxy does not"),
        ("[2, 1].sortBy(n, n)", "'sortBy' (in container ''): this proxy does not"),
        ("claims.groups.map(g, g)", "type 'any' cannot be range of a comprehension"),
        ("claims.?groups.orValue([]).map(g, g)", "type 'any' cannot be range of a comprehension"),
        ("['a', claims.sub]", "expected type 'string' but found 'any'"),
        ("{'a': 1, 'b': 'c'}.b", "expected type 'int' but found 'string'"),
        ("1 == 1.0", "found no matching overload for '_==_' applied to '(int, double)'"),
        ("int('0x10') == 16", "type conversion error from 'string' to 'int'"),
        ("string(bool('yes')) == ''", "type conversion error from 'string' to 'bool'"),
        ("claims.l.existsOne(x, x == 'a')", "undeclared reference to 'existsOne'"),
        ("[?claims.sub]", "expected type 'optional_type(any)' but found 'any'"),
        ("dyn(claims)[null]", "invalid index of type 'null'"),
        ("'abc'.reverse()", "found no matching overload for 'reverse' applied to 'string.()'"),
        ("claims.sub.startsWith()", "overload for 'startsWith' applied to 'any.()'"),
        ("'a'.startsWith(1)", "overload for 'startsWith' applied to 'string.(int)'"),
        ("'a' + 1", "found no matching overload for '_+_' applied to '(string, int)'"),
        (
            "true ? 'a' : 1",
            "found no matching overload for '_?_:_' applied to '(bool, string, int)'",
        ),
        ("['a', 1]", "expected type 'string' but found 'int'"),
        ("claims.sub.matches('(')", "invalid matches argument: \"(\" is not a regular expression"),
        (
            "claims.sub.find('(?x)a')",
            "invalid find argument: \"(?x)a\" is not a regular expression",
        ),
        ("'a'.b", "type 'string' does not support field selection"),
        ("1.map(x, x)", "type 'int' cannot be range of a comprehension"),
        ("kubernetes.UserInfo{username: 'a'}", "undeclared reference to 'kubernetes.UserInfo'"),
        ("dyn(claims.groups).map(g, g + h)", "undeclared reference to 'h'"),
    ];
    for (source, expected) in cases {
        let error = Expression::compile(source, Variable::Claims).unwrap_err().to_string();
        assert!(error.starts_with("compilation failed: ERROR: <input>:"), "{source}: {error}");
        assert!(error.contains(expected), "{source}: {error}");
    }
    let user = |source| Expression::compile(source, Variable::User);
    let error = user("user.name == 'a'").unwrap_err().to_string();
    assert!(error.contains("undefined field 'name'"), "{error}");
    assert!(user("user.username == 1").is_err());
    assert!(user("claims.sub == 'a'").is_err());
    let long = format!("claims.sub == '{}'", "a".repeat(MAX_LENGTH));
    assert_eq!(Expression::compile(&long, Variable::Claims), Err(CompileError::TooLong));
}

#[test]
fn nesting_ends_before_the_stack_does() {
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{'a': ", "1", "}"),
        ("-", "claims.n", ""),
        ("1+", "1", ""),
        ("", "claims", ".a"),
        ("true?1:", "1", ""),
        ("true||", "true", ""),
        ("[1].map(x,", "1", ")"),
    ] {
        // The deepest accepted expression leaves half of a thread's usual 2 MiB stack to its
        // callers.
        let most = (MAX_LENGTH - inner.len()) / (open.len() + close.len());
        let taken = [most, 500].into_iter().chain((1..100).rev());
        let taken = taken.map(|times| nested(open, inner, close, times));
        let deepest = taken.filter_map(|s| Expression::compile(&s, Variable::Claims).ok()).next();
        let deepest = deepest.expect("some are taken");
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let thread = thread.spawn(move || deepest.text(&input(jane())));
        let result = thread.unwrap().join().unwrap();
        assert_ne!(result, Err(EvaluationError::Panicked), "{open}");
    }
}

#[test]
fn user_rules_are_evaluated() {
    let user = UserInfo {
        username: "jane".into(),
        groups: vec!["dev".into()],
        extra: [("example.com/t".to_owned(), vec!["a".to_owned()])].into(),
        ..UserInfo::default()
    };
    let input = Input::user(&user);
    for source in [
        "!user.username.startsWith('system:')",
        "user.groups.all(g, !g.startsWith('system:'))",
        "user.uid == '' && user.groups == ['dev']",
        "user.extra['example.com/t'][0] == 'a' && !('x' in user.extra)",
    ] {
        let rule = Expression::compile(source, Variable::User).unwrap();
        assert!(rule.is_bool(), "{source}");
        assert_eq!(rule.is_true(&input), Ok(true), "{source}");
    }
    let claim = compiled("claims.admin");
    assert!(!claim.is_bool(), "what a claim is cannot be known");
}

#[test]
fn it_is_known_what_a_result_begins_with_and_what_is_read() {
    let beginnings = |source| compiled(source).beginnings().join(" ");
    for (source, expected) in [
        ("'system:node:' + claims.sub", "system:node:"),
        ("claims.x ? 'a' : 'b' + claims.sub", "a b"),
        ("claims.sub.startsWith('system:') ? claims.sub : 'x'", "x"),
        ("claims.sub + 'system:'", ""),
        ("dyn(claims.groups).map(g, 'system:' + g)", "system:"),
        ("dyn(claims.groups).map(g, g != 'a', 'x:' + g)", "x:"),
        ("claims.groups + ['system:a']", "system:a"),
        ("dyn(claims.groups).filter(g, g != 'system:masters')", ""),
    ] {
        assert_eq!(beginnings(source), expected, "{source}");
    }
    for source in ["claims.email", "has(claims.email) ? 'a' : 'b'", "claims.?email.orValue('')"] {
        assert!(compiled(source).reads_email(), "{source}");
        assert!(!compiled(source).reads_email_verified(), "{source}");
    }
    assert!(!compiled("claims.sub + claims.other.email").reads_email());
    assert!(compiled("[claims.a].all(x, claims.email_verified)").reads_email_verified());
}

#[test]
fn crafted_costly_claims_are_rejected_quickly() {
    let many: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let input = input(json!({"many": many, "a": "a".repeat(100_000), "b": "b".repeat(100_000)}));
    let start = Instant::now();
    for source in [
        "dyn(claims.many).all(a, dyn(claims.many).all(b, a != '' && b != ''))",
        "dyn(claims.many).exists(a, dyn(claims.many).exists(b, a == 'x')) || true",
        "claims.a.replace('', claims.b) == 'x'",
        "claims.a.replace('a', claims.b) == 'x' || true",
        "dyn(claims.many).map(m, claims.a + m).size() == 1",
        "claims.many.join(claims.a) == 'x'",
        "sets.intersects(claims.many, dyn(claims.many).map(m, m + 'x'))",
        "[claims.a].map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, \
         x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).size() == 1",
    ] {
        let result = compiled(source).is_true(&input);
        assert_eq!(result, Err(EvaluationError::TooCostly), "{source}");
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    assert_eq!(compiled("dyn(claims.many).all(a, a != '')").is_true(&input), Ok(true));
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Calls each function with arbitrary claims: it must return a result or an error, but not
    /// panic.
    #[test]
    fn no_claims_break_the_interpreter(a in any_json(), b in any_json(), c in any_json()) {
        let input = input(json!({"a": a, "b": b, "c": c}));
        let overloads = functions::names()
            .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '.'))
            .flat_map(|name| functions::overloads(name).unwrap().iter().map(move |o| (name, o)));
        for (name, overload) in overloads {
            let claims = ["claims.a", "claims.b", "claims.c", "claims.a"];
            let args = &claims[..overload.parameters.len()];
            let source = match args.split_first() {
                Some((target, rest)) if overload.is_member => {
                    format!("{target}.{name}({})", rest.join(", "))
                }
                _ => format!("{name}({})", args.join(", ")),
            };
            let result = compiled(&source).texts(&input);
            prop_assert_ne!(result, Err(EvaluationError::Panicked), "{}", source);
        }
        for operator in ["+", "-", "*", "/", "%", "==", "<", ">=", "in", "&&", "||"] {
            let result = compiled(&format!("claims.a {operator} claims.b")).texts(&input);
            prop_assert_ne!(result, Err(EvaluationError::Panicked), "{}", operator);
        }
        for source in ["claims.a[claims.b]", "claims.a[?claims.b]", "-claims.a", "claims.a.x.y"] {
            let result = compiled(source).texts(&input);
            prop_assert_ne!(result, Err(EvaluationError::Panicked), "{}", source);
        }
    }

    /// Any text must either compile or result in an error.
    #[test]
    fn no_text_breaks_the_compiler(source in "[a-z.()\\[\\]{}'\"?:+*! ,0-9&|<=>\\\\é-]{0,40}") {
        let _ = Expression::compile(&source, Variable::Claims);
    }
}

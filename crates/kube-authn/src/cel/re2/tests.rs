use super::*;

fn found(pattern: &str, text: &str) -> Vec<String> {
    let regex = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    regex.find_iter(text).map(|found| text[found.range()].to_owned()).collect()
}

/// The expected values are those of Go 1.26's `regexp.MustCompile(pattern).FindAllString(text,
/// -1)`.
#[test]
fn expressions_match_what_they_match_in_go() {
    let cases: [(&str, &str, &[&str]); 36] = [
        (r"\w+", "žofie a٣ K_1", &["ofie", "a", "K_1"]),
        (r"\d+", "١٢ 12", &["12"]),
        (r"\s", "a\u{b}b\u{a0}c\td", &["\t"]),
        (r"\S+", "a\u{a0}b c", &["a\u{a0}b", "c"]),
        (r"\W", "ž", &["ž"]),
        (r"\D", "٣", &["٣"]),
        (r"\bb", "éb", &["b"]),
        (r"\Bb", "éb", &[]),
        (r"\B", "aéb", &[]),
        (r"(?i)k", "Kk\u{212a}", &["K", "k", "\u{212a}"]),
        (r"(?i)[s-t]", "ſT", &["ſ", "T"]),
        (r"(?i)\w", "\u{212a}", &["\u{212a}"]),
        (r"\Qa.b\E+", "a.bb a.b", &["a.bb", "a.b"]),
        (r"\Qa.b", "a.b", &["a.b"]),
        (r"\<a\>", "<a>", &["<a>"]),
        (r"\x41\x{e9}\101\07", "AéA\u{7}", &["AéA\u{7}"]),
        (r"{", "{", &["{"]),
        (r"o{,3}", "o{,3}", &["o{,3}"]),
        (r"a{ 1}", "a{ 1}", &["a{ 1}"]),
        (r"a{01}", "a{01}", &["a{01}"]),
        (r"[a&&b]+", "a&b", &["a&b"]),
        (r"[[a]b]", "[b] ab]", &["[b]", "ab]"]),
        (r"[]a]+", "]a", &["]a"]),
        (r"[^]a]", "]ab", &["b"]),
        (r"[\d-z]+", "1-z9", &["1-z9"]),
        (r"[[:alpha:][:^ascii:]]+", "aé1", &["aé"]),
        (r"\p{Greek}\pL\p{^Lu}\p{letter}", "αβγδ", &["αβγδ"]),
        (r"[\p{Lu}\P{L}]+", "A1a", &["A1"]),
        (r"(?P<name>a)(?<other>b)", "ab", &["ab"]),
        (r"(?s).(?-s).", "\n\n\na", &["\na"]),
        (r"(?U)a+", "aaa", &["a", "a", "a"]),
        (r"(?m)^b$", "a\nb\nc", &["b"]),
        (r"b$", "b\n", &[]),
        (r"(?:)|(?i)x", "", &[""]),
        (r"^*", "a", &["", ""]),
        (r"(a|b|)", "ab", &["a", "b"]),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(found(pattern, text), expected, "{pattern} {text:?}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    for pattern in [
        "(",
        ")",
        "[",
        "[a",
        "[a--b]",
        "[z-a]",
        r"[a-\d]",
        r"[\b]",
        r"[\Q]",
        "[[:foo:]]",
        "*",
        "+a",
        "a|*",
        "(*)",
        "a**",
        "a+*",
        "a*{2}",
        "x{2}{3}",
        "a{1001}",
        "a{2,1}",
        "(a{10}){101}",
        "((a{5}){10}){21}",
        "(?x) a",
        "(?u)a",
        "(?-u:a)",
        "(?R)",
        "(?-)a",
        "(?i",
        "(?i-)a",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?>a)",
        "(?#a)",
        "(?P=n)",
        "(?P<>a)",
        "(?P<a b>a)",
        "(?P<n>a)(?P<n>b)",
        r"\C",
        r"\Z",
        r"\G",
        r"\K",
        r"\R",
        r"\X",
        r"\h",
        r"\u0041",
        r"\1",
        r"\8",
        r"\é",
        r"\x4",
        r"\x{110000}",
        r"\x{}",
        r"\",
        r"\p{Emoji}",
        r"\p{sc=Greek}",
        r"\p{Old_Italic}",
        r"\p{L",
        r"\p",
        r"\p{}",
    ] {
        assert!(compile(pattern).is_err(), "{pattern}");
    }
    for pattern in ["a{1000}", "(a{10}){100}", "((a{5}){10}){20}", "(a{0}){1000}", "(a*){1000}"] {
        assert!(compile(pattern).is_ok(), "{pattern}");
    }
}

/// These are stricter than Go, as documented.
#[test]
fn large_expressions_and_repeats_across_flags_are_refused() {
    for pattern in [r"\pL{1000}", "a(?i)*", r"a*\Q\E?"] {
        assert!(compile(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn groups_may_not_be_nested_too_deep() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(compile(&nested(50)).is_ok());
    assert!(compile(&nested(1000)).is_err());
}

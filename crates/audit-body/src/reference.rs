//! A simple implementation with a tree, to test the fast one against.

use proptest::collection::vec;
use proptest::prelude::*;

/// A JSON value: strings and numbers as spelled, members in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// A string, number or literal.
    Scalar(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// Parses JSON that serde_json accepts.
    pub(super) fn read(text: &str) -> Tree {
        let mut rest = text;
        let tree = read(&mut rest);
        assert_eq!(rest.trim_start(), "");
        tree
    }

    /// Returns compact JSON with HTML escaping.
    pub(super) fn compact(&self) -> String {
        match self {
            Tree::Scalar(text) => escape(text),
            Tree::Array(elements) => {
                let elements: Vec<_> = elements.iter().map(Tree::compact).collect();
                format!("[{}]", elements.join(","))
            }
            Tree::Object(members) => {
                let member =
                    |(key, value): &(String, Tree)| format!("{}:{}", escape(key), value.compact());
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }

    /// Prints the value with whitespace from `spaces` between tokens.
    pub(super) fn print(&self, spaces: &mut dyn Iterator<Item = &'static str>) -> String {
        let mut out = String::new();
        self.print_to(&mut out, spaces);
        out
    }

    fn print_to(&self, out: &mut String, spaces: &mut dyn Iterator<Item = &'static str>) {
        let space = |out: &mut String, spaces: &mut dyn Iterator<Item = &'static str>| {
            out.push_str(spaces.next().unwrap_or(""));
        };
        space(out, spaces);
        match self {
            Tree::Scalar(text) => out.push_str(text),
            Tree::Array(elements) => {
                out.push('[');
                space(out, spaces);
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    element.print_to(out, spaces);
                }
                out.push(']');
            }
            Tree::Object(members) => {
                out.push('{');
                space(out, spaces);
                for (at, (key, value)) in members.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    space(out, spaces);
                    out.push_str(key);
                    space(out, spaces);
                    out.push(':');
                    value.print_to(out, spaces);
                }
                out.push('}');
            }
        }
        space(out, spaces);
    }

    /// Removes `managedFields` from an object that is no Status and no DeleteOptions, from the
    /// items of a list, or from the rows of a Table.
    pub(super) fn omit_managed_fields(&mut self) {
        let kind = self.members_called("kind").last().map(|kind| match &**kind {
            Tree::Scalar(kind) => kind.trim_matches('"').to_owned(),
            _ => String::new(),
        });
        match kind.as_deref() {
            Some("Status" | "DeleteOptions") => {}
            Some("Table") => {
                self.omit_own();
                self.members_called("rows").into_iter().flat_map(Tree::elements).for_each(|row| {
                    row.members_called("object").into_iter().for_each(Tree::omit_own);
                });
            }
            _ => {
                self.omit_own();
                let items = self.members_called("items").into_iter().flat_map(Tree::elements);
                items.for_each(Tree::omit_own);
            }
        }
    }

    fn omit_own(&mut self) {
        for metadata in self.members_called("metadata") {
            if let Tree::Object(members) = metadata {
                members.retain(|(key, _)| unquote(key) != "managedFields");
            }
        }
    }

    fn members_called(&mut self, name: &str) -> Vec<&mut Tree> {
        let Tree::Object(members) = self else { return Vec::new() };
        let found = members.iter_mut().filter(|(key, _)| unquote(key) == name);
        found.map(|(_, value)| value).collect()
    }

    fn elements(&mut self) -> &mut [Tree] {
        match self {
            Tree::Array(elements) => elements,
            _ => &mut [],
        }
    }
}

fn unquote(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn read(rest: &mut &str) -> Tree {
    *rest = rest.trim_start();
    match rest.as_bytes()[0] {
        b'{' => {
            let mut members = Vec::new();
            many(rest, |rest| {
                let Tree::Scalar(key) = read(rest) else { panic!("a key is a string") };
                *rest = rest.trim_start().strip_prefix(':').unwrap();
                members.push((key, read(rest)));
            });
            Tree::Object(members)
        }
        b'[' => {
            let mut elements = Vec::new();
            many(rest, |rest| elements.push(read(rest)));
            Tree::Array(elements)
        }
        b'"' => {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            let (scalar, tail) = rest.split_at(end.unwrap() + 2);
            *rest = tail;
            Tree::Scalar(scalar.to_owned())
        }
        _ => {
            let is_end = |c: char| matches!(c, ',' | ']' | '}') || c.is_ascii_whitespace();
            let (scalar, tail) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
            *rest = tail;
            Tree::Scalar(scalar.to_owned())
        }
    }
}

fn many(rest: &mut &str, mut each: impl FnMut(&mut &str)) {
    *rest = rest[1..].trim_start();
    while !rest.starts_with([']', '}']) {
        each(rest);
        *rest = rest.trim_start();
        *rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    *rest = &rest[1..];
}

/// Strings with unusual spellings.
pub(super) fn string() -> impl Strategy<Value = String> {
    let plain = "[ -!#-\\[\\]-~é<>&\u{2028}\u{2029}\u{202a}😀\u{7f}]{0,12}";
    let escapes = prop::sample::select(vec![
        r"\n",
        r"\/",
        r"\\",
        "\\\"",
        r"\u00e9",
        r"\u2028",
        r"\ud83d\ude00",
        r"\u003C",
        r"\ud800",
    ]);
    (plain, escapes, any::<bool>()).prop_map(|(plain, escape, with_escape)| {
        format!("\"{plain}{}\"", if with_escape { escape } else { "" })
    })
}

/// Names that occur in paths, some spelled with escapes.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => string(),
        4 => prop::sample::select(vec![
            "\"metadata\"", "\"managedFields\"", r#""managed\u0046ields""#, "\"items\"",
            "\"rows\"", "\"object\"", r#""met\u0061data""#, "\"data\"", "\"stringData\"",
            "\"spec\"", "\"\"",
        ])
        .prop_map(str::to_owned),
    ]
}

pub(super) fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        string(),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
    ]
}

/// Any JSON value, likely with members that occur in paths.
pub(super) fn tree() -> impl Strategy<Value = Tree> {
    scalar().prop_map(Tree::Scalar).prop_recursive(6, 80, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Tree::Array),
            vec((key(), inner), 0..6).prop_map(Tree::Object),
        ]
    })
}

/// An object whose `kind` is first.
pub(super) fn kubernetes_object() -> impl Strategy<Value = Tree> {
    let kind = prop::sample::select(vec!["Pod", "PodList", "Table", "Status", "DeleteOptions"]);
    let metadata =
        vec((key(), scalar().prop_map(Tree::Scalar)), 0..6).prop_map(Tree::Object).boxed();
    let object = || {
        let metadata = metadata.clone();
        let key = prop::sample::select(vec!["\"metadata\"", r#""meta\u0064ata""#, "\"x\""]);
        vec((key.prop_map(str::to_owned), metadata), 0..3).prop_map(Tree::Object)
    };
    let row = (key(), object()).prop_map(|(key, object)| Tree::Object(vec![(key, object)]));
    let member = prop_oneof![
        vec(object(), 0..4).prop_map(|items| ("\"items\"".to_owned(), Tree::Array(items))),
        vec(row, 0..4).prop_map(|rows| ("\"rows\"".to_owned(), Tree::Array(rows))),
        metadata.clone().prop_map(|metadata| ("\"metadata\"".to_owned(), metadata)),
        (key(), tree()),
    ];
    (kind, vec(member, 0..6)).prop_map(|(kind, mut members)| {
        members.insert(0, ("\"kind\"".to_owned(), Tree::Scalar(format!("\"{kind}\""))));
        Tree::Object(members)
    })
}

/// Whitespace for [`Tree::print`].
pub(super) fn spaces() -> impl Strategy<Value = Vec<&'static str>> {
    vec(prop::sample::select(vec!["", "", " ", "\n  ", "\r\n", "\t"]), 0..40)
}

/// Sizes of pieces.
pub(super) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1usize..4, 1usize..40], 1..8)
}

/// Splits the text into pieces of these sizes, over and over.
pub(super) fn pieces<'t>(mut text: &'t [u8], cuts: &[usize]) -> Vec<&'t [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts.iter().cycle() {
        if text.is_empty() {
            break;
        }
        let (piece, rest) = text.split_at((*cut).min(text.len()));
        pieces.push(piece);
        text = rest;
    }
    pieces
}

//! Checks of everything that people read: comment width, phrases that the style of CONTRIBUTING.md
//! rules out, links between documents, and messages that documents quote.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::fs;
use std::path::{Path, PathBuf};

/// Phrases that are not used in comments, messages and documents, and what to write instead.
const AVOID: &[(&str, &str)] = &[
    ("nobody", "name the actor, such as \"no client\" or \"unauthenticated\""),
    ("nobody's", "\"invalid\" or \"unauthenticated\""),
    ("somebody", "name the actor, such as \"an attacker\" or \"another process\""),
    ("somebody's", "name the actor"),
    ("as by", "\"like\""),
    ("be it", "\"such as\" or \"whether\""),
    ("read again", "\"reloaded\""),
    ("in force", "\"active\""),
    ("anew", "\"again\", or \"recreate\""),
    ("no good", "\"invalid\""),
    ("mended", "\"repaired\""),
    ("remembered", "\"cached\""),
    ("judge", "\"evaluate\" or \"authorize\""),
    ("judged", "\"evaluated\" or \"authorized\""),
    ("judges", "\"evaluates\" or \"authorizes\""),
    ("believe", "\"trust\""),
    ("believed", "\"trusted\""),
    ("believes", "\"trusts\""),
    ("for ever", "\"forever\" or \"indefinitely\""),
    ("farther", "\"behind\" or \"after\""),
    ("in vain", "\"without success\""),
    ("lookalike", "\"similar\""),
    ("lookalikes", "\"similar names\""),
    ("is told", "\"receives\" or \"is notified\""),
    ("are told", "\"receive\" or \"are notified\""),
    ("was told", "\"received\" or \"was notified\""),
    ("is well", "\"is healthy\""),
    ("found out", "\"detected\" or \"determined\""),
    ("finds out", "\"detects\" or \"determines\""),
    ("find out", "\"detect\" or \"determine\""),
    ("ends TLS", "\"terminates TLS\""),
    ("tells of", "\"logs\" or \"reports\""),
    ("floor", "\"module\" or \"layer\""),
    ("house", "\"module\" or \"crate\""),
];

/// Columns of a comment, like rustfmt's `max_width`.
const WIDTH: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `directory` with one of the `extensions`.
fn files(directory: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let is_data = path.ends_with("tests/corpus") || path.ends_with("target");
            if path.is_dir() && !is_data {
                directories.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Rust sources, without generated ones and this file, which lists the phrases.
fn sources() -> Vec<PathBuf> {
    let directories = ["src", "crates", "tests", "benches", "fuzz", "tools"];
    let all = directories.iter().flat_map(|directory| files(directory, &["rs"]));
    all.filter(|path| !path.ends_with("generated.rs") && !path.ends_with("tests/language.rs"))
        .collect()
}

fn documents() -> Vec<PathBuf> {
    let names = ["README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY", "CHANGELOG"];
    let mut all: Vec<_> = names.iter().map(|name| root().join(format!("{name}.md"))).collect();
    for directory in ["docs", "deploy", "config", "benches", "crates"] {
        all.extend(files(directory, &["md", "yaml"]));
    }
    all
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// Replaces everything but comments and, if asked for, string literals with blanks; lines stay
/// lines.
fn prose(source: &str, with_strings: bool) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|r| r.len() - r.trim_start_matches('#').len());
        let (keep, len) = if rest.starts_with("//") {
            (true, rest.find('\n').unwrap_or(rest.len()))
        } else if let Some(hashes) = raw.filter(|hashes| rest[1 + hashes..].starts_with('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            (with_strings, rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()))
        } else if first == '"' {
            (with_strings, string_end(rest))
        } else if rest.starts_with("'\"'") {
            (false, 3)
        } else if rest.starts_with(r#"'\"'"#) {
            (false, 4)
        } else {
            (false, first.len_utf8())
        };
        let (part, tail) = rest.split_at(len);
        match keep {
            true => out.push_str(part),
            false => out.extend(part.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = tail;
    }
    out
}

/// The length of the string literal at the start of `text`.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether `text` has the phrase as words of its own, and not as a part of an identifier.
fn has_phrase(text: &str, phrase: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '\'');
    text.match_indices(phrase).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(is_word)
            && !text[at + phrase.len()..].chars().next().is_some_and(is_word)
    })
}

#[test]
fn comments_fit_into_100_columns() {
    let mut long = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let mut is_fenced = false;
        for (at, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!']).trim_start();
            is_fenced ^= comment.starts_with("```");
            // These cannot be wrapped: rows of tables, diagrams and samples, links.
            let is_fixed = is_fenced || comment.starts_with('|') || comment.contains("://");
            if !is_fixed && line.chars().count() > WIDTH {
                long.push(format!("{}:{}", name(&path), at + 1));
            }
        }
    }
    assert!(long.is_empty(), "comments of more than {WIDTH} columns:\n{}", long.join("\n"));
}

#[test]
fn phrases_to_avoid_do_not_occur() {
    let mut found = Vec::new();
    let mut check = |path: &Path, text: &str| {
        for (at, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for (phrase, instead) in AVOID.iter().filter(|(phrase, _)| has_phrase(&line, phrase)) {
                found.push(format!("{}:{}: {phrase:?}: write {instead}", name(path), at + 1));
            }
        }
    };
    for path in sources() {
        // Strings of tests are data, too, such as a user of that name.
        let with_strings = !["test", "benches"].iter().any(|part| name(&path).contains(part));
        check(&path, &prose(&fs::read_to_string(&path).unwrap(), with_strings));
    }
    for path in documents() {
        check(&path, &fs::read_to_string(&path).unwrap());
    }
    assert!(found.is_empty(), "{} phrases to avoid:\n{}", found.len(), found.join("\n"));
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let mut all: Vec<_> =
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect();
    let explicit = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    all.extend(explicit.map(str::to_owned));
    all
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    let mut links = 0;
    for path in documents().iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(path).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let is_there = match fragment {
                "" => file.exists(),
                _ => fs::read_to_string(&file)
                    .is_ok_and(|text| anchors(&text).iter().any(|known| known == fragment)),
            };
            if !is_there {
                broken.push(format!("{}: {target}", name(path)));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    assert!(links > 50, "{links}");
}

/// Log lines and errors in headings of the troubleshooting page, with `…` for values.
#[test]
fn quoted_messages_exist() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let mut code = String::new();
    for path in sources().iter().filter(|path| !name(path).contains("test")) {
        // Strings that continue on the next line are one text.
        let text = fs::read_to_string(path).unwrap();
        let mut pieces = text.split("\\\n");
        code.push_str(pieces.next().unwrap());
        pieces.for_each(|piece| code.push_str(piece.trim_start()));
        code.push('\n');
    }
    let mut missing = Vec::new();
    let mut quoted = 0;
    for heading in page.lines().filter(|line| line.starts_with("### ")) {
        let quotes = heading.split('`').skip(1).step_by(2);
        for quote in quotes.filter(|quote| quote.contains(' ')) {
            let parts = quote.split('…').map(|part| part.trim_matches([' ', ';', ':', '?']));
            for part in parts.filter(|part| part.len() > 3) {
                quoted += 1;
                if !code.contains(part) {
                    missing.push(format!("{part:?} of {quote:?}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in the code:\n{}", missing.join("\n"));
    assert!(quoted > 30, "{quoted}");
}

#[test]
fn prose_is_comments_and_strings() {
    let source = "let a = \"b\\\"c\"; // d\nlet nobody = '\"'; r#\"e\"f\"# g";
    assert_eq!(
        prose(source, true).split_whitespace().collect::<Vec<_>>(),
        ["\"b\\\"c\"", "//", "d", "r#\"e\"f\"#"]
    );
    assert!(has_phrase("of nobody.", "nobody") && !has_phrase("nobody_is", "nobody"));
}

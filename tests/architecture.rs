//! Compares the dependencies between crates, and between the modules of the proxy, with the tables
//! in ARCHITECTURE.md.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the rows of the table under `heading` in ARCHITECTURE.md, as cells without the backticks
/// and what is in parentheses.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect("the heading exists");
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<Vec<String>> = section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(cell).collect())
        .collect();
    assert!(!rows.is_empty(), "{heading}: no table");
    rows
}

fn cell(text: &str) -> String {
    text.split(" (").next().unwrap_or_default().replace('`', "").trim().to_owned()
}

/// Returns the crates of the workspace, and which of them each depends on in any way.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            (name(package), dependencies.filter(|d| d["path"].is_string()).map(name).collect())
        })
        .collect()
}

#[test]
fn crates_depend_on_each_other_as_documented() {
    let rows = table("Crates");
    let mut documented = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let uses: BTreeSet<String> =
            row[1].split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        for used in &uses {
            let below = rows[index + 1..].iter().any(|row| row[0] == *used);
            assert!(below, "{} uses {used}, which is not below it in the table", row[0]);
        }
        documented.insert(row[0].clone(), uses);
    }
    assert_eq!(crates(), documented, "left: Cargo.toml; right: ARCHITECTURE.md, \"Crates\"");
}

/// Returns the modules that src/lib.rs declares outside of tests.
fn modules() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("src/lib.rs"))
        .unwrap()
        .replace("\n#[cfg(test)]\nmod ", "\n");
    let declared = text.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    });
    declared.collect()
}

#[test]
fn modules_use_only_modules_below_them() {
    let order: Vec<String> =
        table("Modules of the proxy").into_iter().map(|row| row[0].clone()).collect();
    let modules = modules();
    assert_eq!(
        order.iter().cloned().collect::<BTreeSet<_>>(),
        modules,
        "left: ARCHITECTURE.md, \"Modules of the proxy\"; right: src/lib.rs"
    );
    let position = |name: &str| order.iter().position(|module| module == name).unwrap();
    for module in &modules {
        let mut files = Vec::new();
        source_files(&root().join("src").join(module), &mut files);
        let single = root().join("src").join(format!("{module}.rs"));
        files.extend(single.exists().then_some(single));
        for file in files {
            for used in used_modules(&code(&fs::read_to_string(&file).unwrap())) {
                if modules.contains(used) && position(used) < position(module) {
                    panic!(
                        "{} uses crate::{used}, which is above {module} in ARCHITECTURE.md",
                        file.display()
                    );
                }
            }
        }
    }
}

/// Collects the Rust files below `folder`, without those of unit tests.
fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "tests" {
                source_files(&path, files);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
            files.push(path);
        }
    }
}

/// Returns the text without comments and without the module of unit tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the names that follow `crate::`, also those in `crate::{…}`.
fn used_modules(code: &str) -> BTreeSet<&str> {
    let mut used = BTreeSet::new();
    for (at, text) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + text.len()..];
        match rest.strip_prefix('{') {
            None => {
                used.insert(identifier(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut starts_name = true;
                for (index, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => starts_name = true,
                        _ if character.is_whitespace() => {}
                        _ if starts_name => {
                            used.insert(identifier(&group[index..]));
                            starts_name = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn uses_are_found_in_all_their_forms() {
    let text = "use crate::a::B;\n// crate::comment\nfn f(c: crate::c::C) {}\nuse crate::{d, e::{x, \
                y},\n    f};\nk8s_crate::no();\n$crate::no!();\n#[cfg(test)]\nmod tests {\n    use \
                crate::only_in_tests;\n";
    assert_eq!(used_modules(&code(text)), BTreeSet::from(["a", "c", "d", "e", "f"]));
}

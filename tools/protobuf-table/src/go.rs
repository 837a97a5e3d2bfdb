//! The facts from Kubernetes' Go sources: struct tags say number, name, `omitempty` and embedding,
//! the Go types say pointer or value. Used to write `exceptions.txt`, not to write the table.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::model::{self, Empty, Field, Message, Model, Shape};

/// Name in a file → package.
type Imports = BTreeMap<String, String>;

/// A package's sources, parsed as far as needed.
#[derive(Default)]
struct Package {
    /// Type name → definition; `struct` for a struct, and whether it is a message although a slice.
    types: BTreeMap<String, (String, bool)>,
    /// Struct name → its tagged lines, with the imports of their file.
    structs: BTreeMap<String, Vec<(String, Imports)>>,
}

/// Reads `root`, laid out as `staging/src/k8s.io` of kubernetes/kubernetes.
pub(crate) fn read(root: &Path) -> Result<Model> {
    let mut folders = Vec::new();
    find(root, &mut folders)?;
    let mut packages = BTreeMap::new();
    let mut model = Model::default();
    for folder in &folders {
        let path = folder.strip_prefix(root)?.to_string_lossy().into_owned();
        let Some(name) = model::package(&path) else { continue };
        let mut package = Package::default();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            if !file.ends_with(".go") || file.ends_with("_test.go") || file.ends_with(".pb.go") {
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            if let Some(group) =
                quoted_after(&text, "GroupName = ").or(quoted_after(&text, "GroupName  = "))
            {
                let version = name.rsplit('/').next().unwrap_or_default();
                let group = if group.is_empty() { String::new() } else { format!("{group}/") };
                model.packages.insert(name.clone(), format!("{group}{version}"));
            }
            parse(&text, &name, &mut package);
        }
        packages.insert(name, package);
    }
    for (name, package) in &packages {
        for (structure, lines) in &package.structs {
            let id = format!("{name}.{}", structure.to_lowercase());
            // Outside the API versions there are only types with a JSON of their own.
            if model::special(&id).is_some() || !name.contains('/') {
                continue;
            }
            let message =
                message(name, lines, &packages).with_context(|| format!("{name}.{structure}"))?;
            model.messages.insert(id, message);
        }
    }
    Ok(model)
}

/// Folders with a `generated.proto`.
fn find(folder: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    if folder.join("generated.proto").exists() {
        found.push(folder.into());
    }
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn quoted_after(text: &str, before: &str) -> Option<String> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(rest.strip_prefix('"')?.split('"').next()?.into())
}

fn parse(text: &str, own: &str, package: &mut Package) {
    let mut imports = BTreeMap::from([(String::new(), own.to_owned())]);
    let mut inside: Option<String> = None;
    let mut nullable = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = &inside {
            if line.starts_with('}') {
                inside = None;
            } else if !trimmed.starts_with("//")
                && (trimmed.contains('`') || trimmed.contains("TypeMeta"))
            {
                let lines = package.structs.entry(name.clone()).or_default();
                lines.push((trimmed.into(), imports.clone()));
            }
        } else if let Some(rest) = line.strip_prefix("type ") {
            let Some((name, definition)) = rest.split_once(' ') else { continue };
            let definition = definition.strip_prefix("= ").unwrap_or(definition);
            let definition = definition.split("//").next().unwrap_or_default().trim();
            if definition == "struct {" {
                inside = Some(name.into());
            }
            let definition = definition.trim_end_matches([' ', '{', '}']);
            if definition == "struct" {
                package.structs.entry(name.into()).or_default();
            }
            package.types.insert(name.into(), (definition.into(), nullable));
        } else if line.starts_with(['\t', 'i'])
            && trimmed.ends_with('"')
            && trimmed.contains("k8s.io/")
        {
            let import = trimmed.trim_start_matches("import ");
            let (alias, path) = import.split_once('"').unwrap_or_default();
            let path = path.trim_end_matches('"').trim_start_matches("k8s.io/");
            let last = path.rsplit('/').next().unwrap_or_default();
            let alias = if alias.trim().is_empty() { last } else { alias.trim() };
            // Packages without a protobuf message are unknown to the model: names in them are
            // scalars.
            imports.insert(alias.into(), model::package(path).unwrap_or_else(|| path.into()));
        }
        nullable =
            trimmed.starts_with("//") && (nullable || trimmed.contains("+protobuf.nullable=true"));
    }
}

fn message(
    package: &str,
    lines: &[(String, Imports)],
    packages: &BTreeMap<String, Package>,
) -> Result<Message> {
    let mut message = Message::default();
    for (line, imports) in lines {
        let code = line.split('`').next().unwrap_or_default();
        if code.trim_start_matches("metav1.").trim_start_matches("v1.").trim() == "TypeMeta" {
            message.kind = true;
            continue;
        }
        let Some(protobuf) = tag(line, "protobuf").filter(|tag| *tag != "-") else { continue };
        let words: Vec<_> = code.split_whitespace().collect();
        let (embedded, of) = match words[..] {
            [of] => (true, of),
            [_, of] => (false, of),
            _ => bail!("no field: {line}"),
        };
        let mut options = tag(line, "json").unwrap_or_default().split(',');
        let name = options.next().unwrap_or_default();
        let options: Vec<_> = options.collect();
        let mut wire = protobuf.split(',');
        let kind = wire.next().unwrap_or_default();
        let number = wire.next().and_then(|n| n.parse().ok()).context("field number")?;
        let resolved = resolve(of, package, imports, packages, kind)?;
        let inline = options.contains(&"inline") || (embedded && name.is_empty());
        let zero = options.contains(&"omitzero");
        if zero && resolved.of != "time" && !resolved.pointer {
            bail!("omitzero of {}: teach the table what its zero value is", resolved.of);
        }
        let omit = options.contains(&"omitempty") || zero;
        let strings = resolved.of == "strings" && resolved.shape == Shape::One;
        let list = resolved.shape != Shape::One || resolved.of == "bytes" || strings;
        let structure = resolved.structure && !list && !zero;
        let empty = match (resolved.pointer, omit) {
            (true, true) => Empty::Pointer,
            (true, false) => Empty::Null,
            (false, true) if !structure => Empty::Omit,
            (false, false) if list && name == "items" => Empty::Zero,
            (false, false) if list => Empty::Null,
            _ => Empty::Zero,
        };
        let name = if inline { "-" } else { name }.to_owned();
        message.fields.push(Field { number, name, shape: resolved.shape, of: resolved.of, empty });
    }
    Ok(message)
}

struct Resolved {
    pointer: bool,
    shape: Shape,
    of: String,
    /// A Go struct, which `omitempty` does not omit.
    structure: bool,
}

fn resolve(
    of: &str,
    package: &str,
    imports: &Imports,
    packages: &BTreeMap<String, Package>,
    wire: &str,
) -> Result<Resolved> {
    let nested = |of: &str| resolve(of, package, imports, packages, wire);
    let scalar =
        |of: &str| Resolved { pointer: false, shape: Shape::One, of: of.into(), structure: false };
    if let Some(of) = of.strip_prefix('*') {
        return Ok(Resolved { pointer: true, ..nested(of)? });
    }
    if of == "[]byte" {
        return Ok(scalar("bytes"));
    }
    if let Some(of) = of.strip_prefix("[]") {
        return Ok(Resolved { pointer: false, shape: Shape::List, ..nested(of)? });
    }
    if let Some((_, of)) = of.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return Ok(Resolved { pointer: false, shape: Shape::Map, ..nested(of)? });
    }
    match of {
        "string" | "bool" => return Ok(scalar(of)),
        "int" | "int64" | "uint64" => return Ok(scalar("int")),
        "int8" | "int16" | "int32" | "uint8" | "uint16" | "uint32" => return Ok(scalar("int32")),
        "float64" => return Ok(scalar("double")),
        _ => {}
    }
    let (alias, name) = of.split_once('.').unwrap_or(("", of));
    let home = match alias {
        "" => package,
        alias => imports.get(alias).map_or("", |home| home),
    };
    let id = format!("{home}.{}", name.to_lowercase());
    if let Some(special) = model::special(&id) {
        return Ok(Resolved { structure: true, ..scalar(&special) });
    }
    let Some((definition, nullable)) = packages.get(home).and_then(|home| home.types.get(name))
    else {
        return match wire {
            "bytes" => Ok(scalar("string")),
            "varint" => Ok(scalar("int")),
            _ => bail!("{of} is not in the sources"),
        };
    };
    if *nullable && definition.starts_with("[]") {
        bail!("{id} is a message and a slice: add it to special()");
    }
    if definition == "struct" {
        return Ok(Resolved { structure: true, ..scalar(&id) });
    }
    let imports = packages[home]
        .structs
        .values()
        .flatten()
        .map(|(_, imports)| imports)
        .next()
        .unwrap_or(imports);
    resolve(definition, home, imports, packages, wire)
}

fn tag<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!("{name}:\""))? + name.len() + 2;
    line[start..].split('"').next()
}

//! The facts from the published crates: k8s-pb has the protobuf field numbers and types and the
//! order of the fields, k8s-openapi the JSON names, which fields are required, and the kinds.
//! Neither has the Go types, so pointer or value is a guess here, put right by `exceptions.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::model::{self, Empty, Field, Message, Model, Shape};

/// Reads the crates at the versions of `Cargo.lock`.
pub(crate) fn read() -> Result<Model> {
    let openapi = openapi(&source("k8s-openapi")?)?;
    let root = source("k8s-pb")?;
    let mut files = Vec::new();
    find(&root, &mut files)?;
    let mut model = Model { packages: openapi.packages, messages: BTreeMap::new() };
    for file in files {
        let module: Vec<_> = parts(file.strip_prefix(&root)?.parent().context("folder")?);
        let Some(package) = model::package(&module.join("/")) else { continue };
        if !package.contains('/') {
            continue;
        }
        let syntax = syn::parse_file(&fs::read_to_string(&file)?)
            .with_context(|| file.display().to_string())?;
        for item in syntax.items {
            let syn::Item::Struct(item) = item else { continue };
            let id = format!("{package}.{}", item.ident.to_string().to_lowercase());
            if model::special(&id).is_some() {
                continue;
            }
            let schema = openapi.schemas.get(&id);
            let mut message = Message::default();
            for field in &item.fields {
                message.fields.extend(read_field(field, &module, schema, &openapi.names)?);
            }
            message.kind =
                openapi.kinds.contains(&id) || message.fields.first().is_some_and(is_metadata);
            model.messages.insert(id, message);
        }
    }
    // An API group has one name in all its versions.
    let packages: BTreeSet<_> = model.messages.keys().filter_map(|id| id.split_once('.')).collect();
    for (package, _) in packages {
        let Some((folder, version)) = package.split_once('/') else { continue };
        let of_folder = |known: &&String| known.split_once('/').is_some_and(|(f, _)| f == folder);
        let Some(known) = model.packages.keys().find(of_folder) else { continue };
        let group = model.packages[known].rsplit_once('/').map(|(group, _)| format!("{group}/"));
        let api_version = group.unwrap_or_default() + version;
        model.packages.entry(package.into()).or_insert(api_version);
    }
    Ok(model)
}

fn is_metadata(field: &Field) -> bool {
    field.number == 1 && matches!(&field.of[..], "meta/v1.objectmeta" | "meta/v1.listmeta")
}

/// Where cargo keeps the sources of a dependency.
fn source(name: &str) -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version=1", "--manifest-path"])
        .arg(manifest)
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let package =
        packages.iter().find(|package| package["name"] == name).context("no such package")?;
    let manifest = Path::new(package["manifest_path"].as_str().context("manifest_path")?);
    Ok(manifest.parent().context("folder")?.join("src"))
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), found)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(())
}

fn parts(folder: &Path) -> Vec<String> {
    folder.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// A field of k8s-pb's struct; `None` if prost made no field of it.
fn read_field(
    field: &syn::Field,
    module: &[String],
    schema: Option<&BTreeMap<String, bool>>,
    names: &BTreeMap<String, String>,
) -> Result<Option<Field>> {
    let Some(prost) = attribute(field, "prost") else { return Ok(None) };
    let number = prost
        .split_once("tag=\"")
        .and_then(|(_, rest)| rest.split('"').next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no tag in {prost}"))?;
    let map =
        prost.split_once("map=\"").map(|(_, rest)| rest.split('"').next().unwrap_or_default());
    let wire = match map {
        Some(map) => map.split(',').nth(1).unwrap_or_default().trim(),
        None => prost.split([',', '=']).next().unwrap_or_default(),
    };
    let shape = match map {
        Some(_) => Shape::Map,
        None if prost.contains(",repeated") => Shape::List,
        None => Shape::One,
    };
    let of = match wire {
        "string" | "bytes" | "bool" | "double" => wire.to_owned(),
        "int32" | "uint32" => "int32".to_owned(),
        "int64" | "uint64" => "int".to_owned(),
        "message" => {
            let id = message_id(&field.ty, module).context("message type")?;
            model::special(&id).unwrap_or(id)
        }
        other => bail!("wire type {other}"),
    };

    let ident = field.ident.as_ref().context("unnamed field")?.to_string();
    let folded = fold(ident.trim_start_matches("r#"));
    let property = schema.and_then(|schema| schema.iter().find(|(name, _)| fold(name) == folded));
    let inline = property.is_none()
        && schema.is_some()
        && shape == Shape::One
        && of.contains('.')
        && !of.starts_with("schemaor");
    let name = match property {
        _ if inline => "-".into(),
        Some((name, _)) => name.clone(),
        None => {
            names.get(&folded).cloned().unwrap_or_else(|| camel(ident.trim_start_matches("r#")))
        }
    };
    let required = match property {
        Some((_, required)) => *required,
        None => !comment(field).contains("+optional"),
    };
    let list = shape != Shape::One || of == "bytes" || of == "strings";
    let message = !list && !matches!(&of[..], "string" | "bool" | "int" | "int32" | "double");
    let value = inline || ["metadata", "spec", "status"].contains(&&name[..]);
    let empty = match required {
        _ if list && name == "items" => Empty::Zero,
        true if list => Empty::Null,
        true => Empty::Zero,
        false if message && !value => Empty::Pointer,
        false if message => Empty::Zero,
        false => Empty::Omit,
    };
    Ok(Some(Field { number, name, shape, of, empty }))
}

/// The arguments of an attribute, without spaces outside the quotes that matter.
fn attribute(field: &syn::Field, name: &str) -> Option<String> {
    let attribute = field.attrs.iter().find(|attribute| attribute.path().is_ident(name))?;
    let list = attribute.meta.require_list().ok()?;
    Some(list.tokens.to_string().replace(' ', ""))
}

fn comment(field: &syn::Field) -> String {
    let docs = field.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
    docs.filter_map(|doc| match &doc.meta.require_name_value().ok()?.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value() + "\n"),
        _ => None,
    })
    .collect()
}

/// The message a type is of, whatever is around it: the last path in its angle brackets.
fn message_id(ty: &syn::Type, module: &[String]) -> Option<String> {
    let syn::Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    if let syn::PathArguments::AngleBracketed(arguments) = &last.arguments {
        let inner = arguments.args.iter().rev().find_map(|argument| match argument {
            syn::GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })?;
        return message_id(inner, module);
    }
    let mut home = module.to_vec();
    for segment in path.path.segments.iter().rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
        match segment.ident.to_string().as_str() {
            "super" => drop(home.pop()),
            name => home.push(name.into()),
        }
    }
    Some(format!("{}.{}", model::package(&home.join("/"))?, last.ident.to_string().to_lowercase()))
}

/// What k8s-openapi has: message → JSON name → required.
#[derive(Default)]
struct Openapi {
    packages: BTreeMap<String, String>,
    kinds: BTreeSet<String>,
    schemas: BTreeMap<String, BTreeMap<String, bool>>,
    /// Folded name → JSON name, for messages that it does not have.
    names: BTreeMap<String, String>,
}

/// Reads the generated code of every Kubernetes version: its `Serialize` has one
/// `serialize_field(&mut state, "NAME", …)` a property, under an `if let` unless required.
fn openapi(root: &Path) -> Result<Openapi> {
    let mut openapi = Openapi::default();
    let mut versions: Vec<_> =
        fs::read_dir(root)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    versions.retain(|path| path.is_dir());
    versions.sort();
    for version in versions {
        let mut files = Vec::new();
        find(&version, &mut files)?;
        for file in files {
            let folder = parts(file.strip_prefix(&version)?.parent().context("folder")?).join("/");
            let (Some(package), text) = (model::package(&folder), fs::read_to_string(&file)?)
            else {
                continue;
            };
            let Some(definition) = text.strip_prefix("// Generated from definition ") else {
                continue;
            };
            let name = definition.lines().next().and_then(|line| line.rsplit('.').next());
            let id = format!("{package}.{}", name.context("definition")?.to_lowercase());
            // Versions ascend: what a newer one has removed stays known.
            let mut schema = openapi.schemas.remove(&id).unwrap_or_default();
            let mut optional = false;
            for line in text.lines().map(str::trim) {
                if let Some(rest) = line.split("serialize_field(&mut state, \"").nth(1) {
                    let property = rest.split('"').next().unwrap_or_default();
                    openapi.names.insert(fold(property), property.into());
                    schema.insert(property.into(), !optional);
                } else if let Some(rest) = line.strip_prefix("const API_VERSION: &'static str = \"")
                {
                    let api_version = rest.trim_end_matches("\";");
                    openapi.packages.entry(package.clone()).or_insert_with(|| api_version.into());
                    openapi.kinds.insert(id.clone());
                }
                optional = line.starts_with("if let Some(");
            }
            if !schema.is_empty() {
                openapi.schemas.insert(id, schema);
            }
        }
    }
    Ok(openapi)
}

/// What is left of a name when only its spelling has changed.
fn fold(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| {
        let mut letters = part.chars();
        name + &letters.next().map(|c| c.to_ascii_uppercase().to_string()).unwrap_or_default()
            + letters.as_str()
    })
}

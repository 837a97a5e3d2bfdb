//! The model of all messages, and its text form (`exceptions.txt`).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// Everything, from one source or from several laid over each other.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Package (`rbac/v1`) → `apiVersion` of its kinds (`rbac.authorization.k8s.io/v1`).
    pub packages: BTreeMap<String, String>,
    /// `core/v1.podspec` → message. Lower case throughout: k8s-pb has respelled the names.
    pub messages: BTreeMap<String, Message>,
}

/// A protobuf message, which is a Go struct.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Message {
    /// Stands in an envelope of its own: the Go struct embeds `TypeMeta`.
    pub kind: bool,
    /// In the order of the Go struct, which is that of the JSON.
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub number: u32,
    /// JSON name; `-` for an embedded struct whose fields belong to the one around it.
    pub name: String,
    pub shape: Shape,
    /// `string`, `bytes`, `bool`, `int`, `double`, or the name of a message.
    pub of: String,
    pub empty: Empty,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    One,
    List,
    Map,
}

/// The JSON of a field that is unset or zero, which depends on the Go type and `omitempty`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Empty {
    /// Pointer with `omitempty`: there if it is on the wire.
    Pointer,
    /// Value, list or map with `omitempty`: there unless zero or empty.
    Omit,
    /// Pointer, list or map without `omitempty`: `null`.
    Null,
    /// Value without `omitempty`, or a struct: its zero value.
    Zero,
}

const EMPTY: [(Empty, &str); 4] = [
    (Empty::Pointer, "pointer"),
    (Empty::Omit, "omit"),
    (Empty::Null, "null"),
    (Empty::Zero, "zero"),
];
const SHAPE: [(Shape, &str); 3] = [(Shape::One, "one"), (Shape::List, "list"), (Shape::Map, "map")];

impl Field {
    pub(crate) fn text(&self) -> String {
        let shape = SHAPE.iter().find(|(shape, _)| *shape == self.shape).map_or("", |(_, t)| t);
        let empty = EMPTY.iter().find(|(empty, _)| *empty == self.empty).map_or("", |(_, t)| t);
        format!("{} {} {shape} {} {empty}", self.number, self.name, self.of)
    }

    fn parse(text: &str) -> Result<Field> {
        let words: Vec<_> = text.split_whitespace().collect();
        let [number, name, shape, of, empty] = words[..] else {
            bail!("want `number name shape type empty`, got {text:?}");
        };
        Ok(Field {
            number: number.parse().with_context(|| format!("field number {number:?}"))?,
            name: name.into(),
            shape: SHAPE.iter().find(|(_, t)| *t == shape).context("shape")?.0,
            of: of.into(),
            empty: EMPTY.iter().find(|(_, t)| *t == empty).context("empty")?.0,
        })
    }
}

/// Types whose JSON is not that of their message, by name: the table knows them by these words.
pub(crate) fn special(message: &str) -> Option<String> {
    let (package, name) = message.split_once('.')?;
    Some(match (package, name) {
        ("meta/v1", "time" | "microtime") => name.into(),
        ("resource", "quantity") | ("intstr", "intorstring") => name.into(),
        ("runtime", "rawextension") | ("meta/v1", "fieldsv1") => "raw".into(),
        ("apiextensions/v1" | "apiextensions/v1beta1", "json") => "raw".into(),
        (_, "jsonschemapropsorbool") => format!("schemaorbool:{package}.jsonschemaprops"),
        (_, "jsonschemapropsorarray") => format!("schemaorlist:{package}.jsonschemaprops"),
        (_, "jsonschemapropsorstringarray") => format!("schemaorstrings:{package}.jsonschemaprops"),
        (_, "verbs" | "extravalue" | "attestationvalue") => "strings".into(),
        _ => return None,
    })
}

/// The package of a source folder: its last two parts if it is an API version, else its last.
/// `None` for what kube-apiserver does not serve itself.
pub(crate) fn package(folder: &str) -> Option<String> {
    if folder.contains("metrics") || folder.contains("testapigroup") || folder.contains("example") {
        return None;
    }
    let mut parts = folder.rsplit('/');
    let last = parts.next()?;
    let versioned =
        last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    match versioned {
        true => Some(format!("{}/{last}", parts.next()?)),
        false => matches!(last, "resource" | "runtime" | "intstr").then(|| last.into()),
    }
}

/// The differences that must be applied to `base` to get `model`.
pub(crate) fn exceptions(base: &Model, model: &Model) -> Result<String> {
    let reachable = crate::emit::reachable(model)?;
    let mut text = String::new();
    for (package, api_version) in &model.packages {
        if base.packages.get(package) != Some(api_version) {
            text += &format!("package {package} {api_version}\n");
        }
    }
    for (name, message) in model.messages.iter().filter(|(name, _)| reachable.contains(&name[..])) {
        let known = base.messages.get(name);
        let fields = known.map_or(&[][..], |known| &known.fields);
        let mut lines: Vec<_> = message
            .fields
            .iter()
            .filter(|field| !fields.contains(field))
            .map(|f| f.text())
            .collect();
        let order: Vec<_> = message.fields.iter().map(|field| field.number).collect();
        let laid_over = overlay(known.unwrap_or(&Message::default()), message).fields;
        let numbers = laid_over.iter().map(|field| field.number);
        if numbers.filter(|number| order.contains(number)).ne(order.iter().copied()) {
            let order: Vec<_> = order.iter().map(u32::to_string).collect();
            lines.push(format!("order {}", order.join(" ")));
        }
        if message.kind && !known.is_some_and(|known| known.kind) {
            lines.push("kind".into());
        }
        if !lines.is_empty() || known.is_none() {
            text += &format!("{name}\n");
            lines.iter().for_each(|line| text += &format!("  {line}\n"));
        }
    }
    Ok(text)
}

/// `over`'s fields in place of `under`'s of the same numbers; new ones at the end.
fn overlay(under: &Message, over: &Message) -> Message {
    let mut message = under.clone();
    message.kind |= over.kind;
    for field in &over.fields {
        match message.fields.iter_mut().find(|known| known.number == field.number) {
            Some(known) => *known = field.clone(),
            None => message.fields.push(field.clone()),
        }
    }
    message
}

/// Lays a newer version's facts over an older one's, whose removed fields and kinds stay known.
pub(crate) fn merge(under: &mut Model, over: Model) {
    under.packages.extend(over.packages);
    for (name, message) in over.messages {
        let known = under.messages.entry(name).or_default();
        let gone = std::mem::replace(known, message);
        let numbers: Vec<_> = known.fields.iter().map(|field| field.number).collect();
        known.kind |= gone.kind;
        known.fields.extend(gone.fields.into_iter().filter(|f| !numbers.contains(&f.number)));
    }
}

/// Lays the exceptions of `text` over `model`.
pub(crate) fn apply(model: &mut Model, text: &str) -> Result<()> {
    let mut name = String::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        apply_line(model, &mut name, line)
            .with_context(|| format!("line {}: {line}", index + 1))?;
    }
    Ok(())
}

fn apply_line(model: &mut Model, name: &mut String, line: &str) -> Result<()> {
    if let Some(rest) = line.strip_prefix("package ") {
        let (package, api_version) =
            rest.split_once(' ').context("want `package NAME APIVERSION`")?;
        model.packages.insert(package.into(), api_version.into());
        return Ok(());
    }
    let Some(line) = line.strip_prefix("  ") else {
        *name = line.into();
        model.messages.entry(name.clone()).or_default();
        return Ok(());
    };
    let message = model.messages.get_mut(name).context("a field before the first message")?;
    if line == "kind" {
        message.kind = true;
    } else if let Some(order) = line.strip_prefix("order ") {
        let order: Vec<_> = order.split(' ').collect();
        // What the order does not name is gone from the Go struct: after the others.
        let place = |field: &Field| order.iter().position(|n| *n == field.number.to_string());
        message.fields.sort_by_key(|field| place(field).unwrap_or(usize::MAX));
    } else {
        let mut field = Field::parse(line)?;
        // The exceptions name no widths; those of the crates are right.
        let known = message.fields.iter().find(|known| known.number == field.number);
        if field.of == "int" && known.is_some_and(|known| known.of == "int32") {
            field.of = "int32".into();
        }
        let over = Message { kind: message.kind, fields: vec![field] };
        *message = overlay(message, &over);
    }
    Ok(())
}

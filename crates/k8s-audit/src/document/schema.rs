//! Checks a document against the Go types of a Kubernetes object, like kube-apiserver's decoder
//! does before it validates values.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::diagnostic::{Diagnostics, Help};
use super::tree::{Node, Number, Value};
use crate::go::quote;

/// The Go type of a value. The names are those of Go, for messages.
pub enum Type {
    /// A string type and its name, such as `string` or `Level`.
    String(&'static str),
    /// `bool`
    Bool,
    /// `int64`
    Integer,
    /// `metav1.Time`: an RFC 3339 string.
    Time,
    /// Any value.
    Anything,
    /// A slice.
    List(&'static Type),
    /// A map with string keys.
    Map(&'static Type),
    /// A struct.
    Struct(&'static Struct),
}

/// A Go struct.
pub struct Struct {
    /// The name of the type.
    pub name: &'static str,
    /// The JSON names of the fields and their types.
    pub members: &'static [(&'static str, Type)],
}

/// `string`
pub const STRING: Type = Type::String("string");
/// `[]string`
pub const STRINGS: Type = Type::List(&STRING);

/// Returns the help for an unknown member, given its name and the struct that lacks it.
pub type Advice = fn(&str, &Struct) -> String;

/// Checks the types of a whole document.
///
/// Adds wrong types to `errors`, and unknown members with the `advice` on them to `unknown`.
pub fn check(
    root: &Node,
    wanted: &'static Struct,
    errors: &mut Diagnostics,
    unknown: &mut Diagnostics,
    advice: Advice,
) {
    let path = Vec::new();
    let mut checker = Checker { path, within: wanted.name, errors, unknown, advice };
    checker.check_struct(root, wanted);
}

struct Checker<'c> {
    path: Vec<Segment<'c>>,
    /// The innermost Go struct.
    within: &'static str,
    errors: &'c mut Diagnostics,
    unknown: &'c mut Diagnostics,
    advice: Advice,
}

#[derive(Clone, Copy)]
enum Segment<'c> {
    Member(&'c str),
    Key(&'c str),
    Index(usize),
}

impl<'c> Checker<'c> {
    fn check(&mut self, node: &'c Node, wanted: &'static Type) {
        match (wanted, &node.value) {
            (_, Value::Null) | (Type::Anything, _) => {}
            (Type::String(_), Value::String(_)) | (Type::Bool, Value::Bool(_)) => {}
            (Type::Integer, Value::Number(number)) if is_integer(*number) => {}
            (Type::Time, Value::String(text)) => {
                if OffsetDateTime::parse(text, &Rfc3339).is_err() {
                    let message =
                        format!("failed decoding: parsing time {}", quote(text.as_bytes()));
                    let help = "write a time such as \"2006-01-02T15:04:05Z\"";
                    self.errors.add(node.at, message, Some(help.into()));
                }
            }
            (Type::List(element), Value::List(nodes)) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.within_segment(Segment::Index(index), |c| c.check(node, element));
                }
            }
            (Type::Map(member), Value::Map(entries)) => {
                for entry in entries.iter() {
                    let key = Segment::Key(&entry.key);
                    self.within_segment(key, |c| c.check(&entry.node, member));
                }
            }
            (Type::Struct(wanted), Value::Map(_)) => self.check_struct(node, wanted),
            _ => self.wrong_type(node, wanted),
        }
    }

    fn check_struct(&mut self, node: &'c Node, wanted: &'static Struct) {
        let around = std::mem::replace(&mut self.within, wanted.name);
        for entry in node.entries() {
            match wanted.members.iter().find(|(name, _)| *name == &*entry.key) {
                Some((name, member)) => {
                    self.within_segment(Segment::Member(name), |c| c.check(&entry.node, member));
                }
                None => {
                    let path = self.within_segment(Segment::Member(&entry.key), |c| c.path());
                    let message = format!("unknown field {}", quote(path.as_bytes()));
                    let help = (self.advice)(&entry.key, wanted);
                    self.unknown.add(entry.key_at, message, Some(help));
                }
            }
        }
        self.within = around;
    }

    fn within_segment<T>(&mut self, segment: Segment<'c>, run: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let result = run(self);
        self.path.pop();
        result
    }

    fn wrong_type(&mut self, node: &Node, wanted: &Type) {
        let members: Vec<&str> = self
            .path
            .iter()
            .filter_map(|s| if let Segment::Member(name) = s { Some(*name) } else { None })
            .collect();
        let message = format!(
            "{}: failed decoding: json: cannot unmarshal {} into Go struct field {}.{} of type {}",
            self.path(),
            node.value.kind(),
            self.within,
            members.join("."),
            wanted.go_name(),
        );
        self.errors.add(node.at, message, about_wrong(node, wanted));
    }

    fn path(&self) -> String {
        let mut text = String::new();
        for segment in &self.path {
            match segment {
                Segment::Index(index) => text.push_str(&format!("[{index}]")),
                Segment::Member(name) | Segment::Key(name) => {
                    text.push_str(if text.is_empty() { "" } else { "." });
                    text.push_str(name);
                }
            }
        }
        text
    }
}

impl Type {
    fn go_name(&self) -> String {
        match self {
            Type::String(name) => (*name).to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Integer => "int64".to_owned(),
            Type::Time => "v1.Time".to_owned(),
            Type::Anything => "v1.FieldsV1".to_owned(),
            Type::List(element) => format!("[]{}", element.go_name()),
            Type::Map(member) => format!("map[string]{}", member.go_name()),
            Type::Struct(wanted) => format!("v1.{}", wanted.name),
        }
    }
}

/// Returns whether Go's JSON encoder writes the number without a fraction or an exponent.
fn is_integer(number: Number) -> bool {
    match number {
        Number::Integer(_) => true,
        Number::Large(_) => false,
        Number::Float(value) => value.fract() == 0.0 && value.abs() < i64::MAX as f64,
    }
}

fn about_wrong(node: &Node, wanted: &Type) -> Help {
    let plain = node.plain.as_deref().unwrap_or_default();
    let written = if plain.is_empty() { node.text() } else { plain };
    Some(match (wanted, &node.value) {
        (Type::String(_) | Type::Time, Value::Bool(_)) if !matches!(plain, "true" | "false") => {
            format!("quote it: without quotes YAML reads {plain} as a boolean, write \"{plain}\"")
        }
        (Type::String(_) | Type::Time, Value::Bool(_) | Value::Number(_)) => {
            format!("quote it: \"{plain}\"")
        }
        (Type::String(_) | Type::Time, Value::List(_)) => "write one value, no list".to_owned(),
        (Type::String(_) | Type::Time, _) => "write a text here".to_owned(),
        (Type::Bool, Value::String(_)) => "write true or false, without quotes".to_owned(),
        (Type::Bool, _) => "write true or false".to_owned(),
        (Type::Integer, _) => "write an integer".to_owned(),
        (Type::List(Type::String(_)), Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            format!("write a list: [{}]", quote(written.as_bytes()))
        }
        (Type::List(_), Value::Map(_)) => "write a list: begin each element with \"- \"".to_owned(),
        (Type::List(_), _) => "write a list".to_owned(),
        (Type::Struct(wanted), _) => match wanted.members.first() {
            Some((member, _)) => format!("write members, such as \"{member}: …\""),
            None => "write members".to_owned(),
        },
        (Type::Map(_), _) => "write \"key: value\" pairs".to_owned(),
        (Type::Anything, _) => return None,
    })
}

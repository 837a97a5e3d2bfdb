//! Decodes JSON into a built-in Kubernetes type like `sigs.k8s.io/json`, and encodes it again.
//!
//! Go decodes each member into the existing value: for duplicate keys, structs are merged, maps are
//! merged by key, lists are merged element by element, and `null` changes nothing unless the value
//! is a pointer, a map or a list. So a value here is made from all values that were decoded into
//! the same place, in their order. Names match exactly. Members that the type does not have are
//! kept, because the API server may be newer than the table.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::fold::folds_to;
use super::plain::{self, Style};
use super::scalar;
use super::tape::{Kind, Node, Tape};
use crate::decode::ambiguity::Ambiguity;
use crate::decode::number::push_float;
use crate::protobuf::table::{self, Empty, Field, Shape, Type};
use k8s_audit::json::push_string;

/// Values that are nested deeper in types are not checked against their type.
const MAX_DEPTH: usize = 100;

type Written<T> = Result<T, &'static str>;

pub(super) struct Writer<'t, 'b, 'o> {
    pub(super) tape: &'t mut Tape<'b>,
    pub(super) out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'t, 'b, 'o> Writer<'t, 'b, 'o> {
    pub(super) fn new(tape: &'t mut Tape<'b>, out: &'o mut Vec<u8>) -> Writer<'t, 'b, 'o> {
        Writer { tape, out, depth: 0 }
    }

    /// Writes an object of the type given by the parameters, whatever its own `kind` and
    /// `apiVersion` are.
    pub(super) fn object(
        &mut self,
        message: &'static [Field],
        node: Node,
        kind: &[u8],
        api_version: &[u8],
    ) -> Written<()> {
        self.out.extend_from_slice(b"{\"kind\":");
        push_string(self.out, kind);
        self.out.extend_from_slice(b",\"apiVersion\":");
        push_string(self.out, api_version);
        self.members(message, &[node], &mut false, &["kind", "apiVersion"])?;
        self.out.push(b'}');
        Ok(())
    }

    /// Writes a message of the table.
    pub(super) fn message(&mut self, message: u16, node: Node) -> Written<()> {
        self.merged(Type::Message(message), message, &[node])
    }

    /// Writes an object without members.
    pub(super) fn empty(&mut self, kind: &[u8], api_version: &[u8]) -> Written<()> {
        self.out.extend_from_slice(b"{\"kind\":");
        push_string(self.out, kind);
        self.out.extend_from_slice(b",\"apiVersion\":");
        push_string(self.out, api_version);
        self.out.push(b'}');
        Ok(())
    }

    /// Writes the members of a struct from all objects that were decoded into it.
    fn members(
        &mut self,
        message: &'static [Field],
        nodes: &[Node],
        first: &mut bool,
        also: &[&str],
    ) -> Written<()> {
        let mut known: Vec<Vec<Node>> = Vec::new();
        let mut fields: Vec<&'static Field> = Vec::new();
        flatten(message, &mut fields);
        known.resize_with(fields.len(), Vec::new);
        let mut unknown: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
        for node in nodes {
            let mut seen = 0_u128;
            let members: Vec<_> = self.tape.members(*node).collect();
            for (key, value) in members {
                let (name, replaced) = self.tape.text(key);
                self.note(replaced, Ambiguity::UnpairedSurrogate);
                match fields.iter().position(|field| field.name.as_bytes() == &*name) {
                    Some(index) => {
                        let bit = 1_u128.checked_shl(index as u32).unwrap_or(0);
                        self.note(seen & bit != 0, Ambiguity::DuplicateKeys);
                        seen |= bit;
                        known[index].push(value);
                    }
                    None => {
                        let is_variant = also.iter().any(|known| folds_to(&name, known))
                            || fields.iter().any(|field| folds_to(&name, field.name));
                        // Go ignores members whose name has another case.
                        if !is_variant {
                            let before = unknown.insert(name.into_owned(), value);
                            self.note(before.is_some(), Ambiguity::DuplicateKeys);
                        }
                    }
                }
            }
        }
        for (field, values) in fields.iter().zip(&known) {
            self.member(field, values, first)?;
        }
        for (name, value) in unknown {
            let (start, was_first) = (self.out.len(), *first);
            self.separate(first);
            push_string(self.out, &name);
            self.out.push(b':');
            if plain::write(self.tape, value, Style::Decoded, self.out).is_err() {
                // It contains a number that no type accepts.
                self.out.truncate(start);
                *first = was_first;
            }
        }
        Ok(())
    }

    fn note(&mut self, is: bool, ambiguity: Ambiguity) {
        if is {
            self.tape.ambiguities.insert(ambiguity);
        }
    }

    fn separate(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
    }

    /// Writes one member with its name, unless it is left out.
    fn member(&mut self, field: &'static Field, values: &[Node], first: &mut bool) -> Written<()> {
        if values.is_empty() && field.empty != Empty::Null {
            // Go would write the zero value of some types, which the client has not sent.
            return Ok(());
        }
        let start = self.out.len();
        let was_first = *first;
        self.separate(first);
        self.out.push(b'"');
        self.out.extend_from_slice(field.name.as_bytes());
        self.out.extend_from_slice(b"\":");
        let value_start = self.out.len();
        match field.shape {
            Shape::List => self.list(field.of, values)?,
            Shape::Map => self.map(field.of, values)?,
            Shape::One => {
                let pointer = matches!(field.empty, Empty::Pointer | Empty::Null);
                self.one(field.of, values, pointer)?;
            }
        }
        let value = &self.out[value_start..];
        let is_empty = match field.empty {
            Empty::Omit => matches!(value, b"null" | b"\"\"" | b"0" | b"false" | b"[]" | b"{}"),
            Empty::Pointer | Empty::Null | Empty::Zero => value == b"null",
        };
        if is_empty {
            self.out.truncate(start);
            *first = was_first;
        }
        Ok(())
    }

    /// Writes the value of a place into which `values` were decoded.
    fn one(&mut self, of: Type, values: &[Node], pointer: bool) -> Written<()> {
        let is_null = |node: &Node| self.tape.kind(*node) == Kind::Null;
        let values: Cow<'_, [Node]> = if pointer || self.is_reset_by_null(of) {
            let from = values.iter().rposition(is_null).map_or(0, |at| at + 1);
            for value in &values[..from] {
                self.check(of, *value)?;
            }
            Cow::Borrowed(&values[from..])
        } else {
            Cow::Owned(values.iter().copied().filter(|node| !is_null(node)).collect())
        };
        let Some((last, earlier)) = values.split_last() else {
            let zero: &[u8] = match of {
                _ if pointer => b"null",
                Type::Text => b"\"\"",
                Type::Bool => b"false",
                Type::Int | Type::Int32 | Type::Double | Type::IntOrString => b"0",
                Type::Message(_) | Type::Item(_) | Type::Claim(_) => b"{}",
                Type::Quantity => b"\"0\"",
                _ => b"null",
            };
            self.out.extend_from_slice(zero);
            return Ok(());
        };
        if let Type::Message(message) | Type::Item(message) | Type::Claim(message) = of {
            return self.merged(of, message, &values);
        }
        for value in earlier {
            self.check(of, *value)?;
        }
        self.scalar(of, *last)
    }

    /// Whether `null` sets the value to its zero value, because of Go's method for the type or the
    /// kind of the field.
    fn is_reset_by_null(&self, of: Type) -> bool {
        matches!(of, Type::Bytes | Type::Time | Type::MicroTime | Type::Quantity | Type::Strings)
    }

    /// Checks a value that a later one replaces: Go rejects the body if it is invalid.
    fn check(&mut self, of: Type, value: Node) -> Written<()> {
        let length = self.out.len();
        let checked = match of {
            _ if self.tape.kind(value) == Kind::Null => Ok(()),
            Type::Message(message) | Type::Item(message) | Type::Claim(message) => {
                self.merged(of, message, &[value])
            }
            _ => self.scalar(of, value),
        };
        self.out.truncate(length);
        checked
    }

    fn merged(&mut self, of: Type, message: u16, values: &[Node]) -> Written<()> {
        if values.iter().any(|value| self.tape.kind(*value) != Kind::Object) {
            return Err("a member has another type than its kind requires");
        }
        if self.depth >= MAX_DEPTH {
            let [value] = values else { return Err("duplicate keys are nested too deep to merge") };
            return plain::write(self.tape, *value, Style::Decoded, self.out);
        }
        self.depth += 1;
        self.out.push(b'{');
        let mut first = true;
        if let Type::Claim(_) = of {
            self.out.extend_from_slice(b"\"kind\":\"PersistentVolumeClaim\",\"apiVersion\":\"v1\"");
            first = false;
        }
        let also: &[&str] =
            if matches!(of, Type::Claim(_)) { &["kind", "apiVersion"] } else { &[] };
        self.members(table::message(message), values, &mut first, also)?;
        self.out.push(b'}');
        self.depth -= 1;
        Ok(())
    }

    /// Writes a value that is not a struct: the last one that was decoded into its place.
    fn scalar(&mut self, of: Type, value: Node) -> Written<()> {
        let wrong = Err("a member has another type than its kind requires");
        let kind = self.tape.kind(value);
        match (of, kind) {
            (Type::Text, Kind::String) => plain::string(self.tape, value, self.out),
            (Type::Bool, Kind::True) => self.out.extend_from_slice(b"true"),
            (Type::Bool, Kind::False) => self.out.extend_from_slice(b"false"),
            (Type::Int, Kind::Number) => {
                let number = scalar::integer(self.tape.raw(value))?;
                self.out.extend_from_slice(number.to_string().as_bytes());
            }
            (Type::Int32, Kind::Number) => {
                let number = scalar::integer(self.tape.raw(value))?;
                let number = i32::try_from(number).map_err(|_| "a number is too large")?;
                self.out.extend_from_slice(number.to_string().as_bytes());
            }
            (Type::Double, Kind::Number) => {
                let number = scalar::float(self.tape.raw(value))?;
                push_float(self.out, number).ok_or("a number is too large")?;
            }
            (Type::Bytes, Kind::String) => {
                let (text, _) = self.tape.text(value);
                scalar::push_bytes(self.out, &text)?;
            }
            (Type::Bytes, Kind::Array) => {
                let elements: Vec<_> = self.tape.children(value).collect();
                let mut bytes = Vec::with_capacity(elements.len());
                for element in elements {
                    match self.tape.kind(element) {
                        Kind::Null => bytes.push(0),
                        Kind::Number => {
                            let number = scalar::integer(self.tape.raw(element))?;
                            bytes.push(u8::try_from(number).map_err(|_| "a byte is too large")?);
                        }
                        _ => return wrong,
                    }
                }
                scalar::push_base64(self.out, &bytes);
            }
            (Type::Time, Kind::String) => {
                scalar::push_time(self.out, &self.tape.text(value).0, false)?;
            }
            (Type::MicroTime, Kind::String) => {
                scalar::push_time(self.out, &self.tape.text(value).0, true)?;
            }
            (Type::Quantity, Kind::String) => plain::string(self.tape, value, self.out),
            // It is kept as the client has written it, like all quantities.
            (Type::Quantity, Kind::Number) => self.out.extend_from_slice(self.tape.raw(value)),
            (Type::IntOrString, Kind::String) => plain::string(self.tape, value, self.out),
            (Type::IntOrString, Kind::Number) => {
                let number = scalar::integer(self.tape.raw(value))?;
                let number = i32::try_from(number).map_err(|_| "an integer is too large")?;
                self.out.extend_from_slice(number.to_string().as_bytes());
            }
            (Type::Raw, _) => plain::write(self.tape, value, Style::Verbatim, self.out)?,
            (Type::Strings, Kind::Array) => self.list(Type::Text, &[value])?,
            (Type::SchemaOrBool(_), Kind::True) => self.out.extend_from_slice(b"true"),
            (Type::SchemaOrBool(_), Kind::False) => self.out.extend_from_slice(b"false"),
            (Type::SchemaOrList(schema), Kind::Array) => {
                self.list(Type::Message(schema), &[value])?;
            }
            (Type::SchemaOrStrings(_), Kind::Array) => self.list(Type::Text, &[value])?,
            // Go's methods ignore other values.
            (
                Type::SchemaOrList(_) | Type::SchemaOrStrings(_),
                Kind::String | Kind::Number | Kind::True | Kind::False,
            ) => self.out.extend_from_slice(b"null"),
            (
                Type::SchemaOrBool(schema)
                | Type::SchemaOrList(schema)
                | Type::SchemaOrStrings(schema),
                Kind::Object,
            ) => self.merged(Type::Message(schema), schema, &[value])?,
            _ => return wrong,
        }
        Ok(())
    }

    /// Writes a list from `values`, which were decoded into the same place: elements are merged
    /// with those of earlier lists.
    fn list(&mut self, of: Type, values: &[Node]) -> Written<()> {
        let mut elements: Vec<Vec<Node>> = Vec::new();
        let mut length = None;
        for value in values {
            match self.tape.kind(*value) {
                Kind::Null => {
                    elements.clear();
                    length = None;
                }
                Kind::Array => {
                    let children: Vec<_> = self.tape.children(*value).collect();
                    if children.is_empty() {
                        elements.clear();
                    }
                    length = Some(children.len());
                    for (index, child) in children.into_iter().enumerate() {
                        if index == elements.len() {
                            elements.push(Vec::new());
                        }
                        elements[index].push(child);
                    }
                }
                _ => return Err("a member has another type than its kind requires"),
            }
        }
        let Some(length) = length else {
            self.out.extend_from_slice(b"null");
            return Ok(());
        };
        self.out.push(b'[');
        let mut first = true;
        for (index, values) in elements.iter().enumerate() {
            let (start, was_first) = (self.out.len(), first);
            self.separate(&mut first);
            self.one(of, values, false)?;
            if index >= length {
                self.out.truncate(start);
                first = was_first;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// Writes a map from `values`, which were decoded into the same place: later values replace
    /// earlier ones.
    fn map(&mut self, of: Type, values: &[Node]) -> Written<()> {
        let mut entries: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
        let mut is_nil = true;
        for value in values {
            match self.tape.kind(*value) {
                Kind::Null => {
                    entries.clear();
                    is_nil = true;
                }
                Kind::Object => {
                    is_nil = false;
                    let before = entries.len();
                    let members: Vec<_> = self.tape.members(*value).collect();
                    let count = members.len();
                    for (key, value) in members {
                        let (name, replaced) = self.tape.text(key);
                        self.note(replaced, Ambiguity::UnpairedSurrogate);
                        if let Some(earlier) = entries.insert(name.into_owned(), value) {
                            self.check(of, earlier)?;
                        }
                    }
                    self.note(entries.len() - before < count, Ambiguity::DuplicateKeys);
                }
                _ => return Err("a member has another type than its kind requires"),
            }
        }
        if is_nil {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        self.out.push(b'{');
        let mut first = true;
        for (name, value) in entries {
            self.separate(&mut first);
            push_string(self.out, &name);
            self.out.push(b':');
            self.one(of, &[value], false)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Collects the fields of a message, including those of embedded structs.
fn flatten(message: &'static [Field], fields: &mut Vec<&'static Field>) {
    for field in message {
        match field.of {
            Type::Inline(inner) => flatten(table::message(inner), fields),
            _ => fields.push(field),
        }
    }
}

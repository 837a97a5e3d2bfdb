//! The values on which the functions and operators of this module work, and their sources: claims
//! and users.
//!
//! They correspond to the values that kube-apiserver creates from the same JSON. All numbers are
//! doubles, nested ones, too. Members of a claim can be selected by escaped names
//! (`claims.a__dot__b`), but not within the elements over which a macro iterates.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use crate::UserInfo;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(List),
    Map(Map),
    Optional(Option<Arc<Value>>),
    /// A type, by its name.
    Type(Arc<str>),
    /// `claims` or `user`, which are neither maps nor lists.
    Object(Arc<Object>),
}

/// A list.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) items: Arc<Vec<Value>>,
    pub(super) origin: Origin,
}

/// A map.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub(super) entries: Arc<HashMap<Key, Value>>,
    pub(super) origin: Origin,
}

/// The origin of a list or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Created by an expression, or an element of a claim over which a macro iterates.
    Expression,
    /// A claim, or a part of one.
    Claim,
    /// Created by `split` or `findAll`. Expressions can use such lists like lists of strings, but
    /// kube-apiserver accepts them neither as groups nor as extra values.
    Strings,
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

/// The variable of an expression.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) type_name: &'static str,
    pub(super) members: HashMap<Arc<str>, Value>,
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Value {
        Value::String(Arc::from(text.as_ref()))
    }

    pub(super) fn list(items: Vec<Value>) -> Value {
        Value::List(List { items: Arc::new(items), origin: Origin::Expression })
    }

    pub(super) fn empty_map() -> Value {
        Value::Map(Map { entries: Arc::default(), origin: Origin::Expression })
    }

    /// Returns the list that `split` and `findAll` return.
    pub(super) fn strings<T: AsRef<str>>(items: impl Iterator<Item = T>) -> Value {
        let items = items.map(Value::text).collect();
        Value::List(List { items: Arc::new(items), origin: Origin::Strings })
    }

    pub(super) fn some(inner: Value) -> Value {
        Value::Optional(Some(Arc::new(inner)))
    }

    /// Returns the name of the value's type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Object(object) => object.type_name,
        }
    }

    /// Marks lists and maps as part of a claim.
    fn in_claim(mut self) -> Value {
        match &mut self {
            Value::List(List { origin, .. }) | Value::Map(Map { origin, .. }) => {
                *origin = Origin::Claim;
            }
            _ => {}
        }
        self
    }

    /// Returns the texts of a text or a list of texts. Empty ones are omitted; `null` has none.
    ///
    /// Returns `None` for any other value.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let mut texts = match self {
            Value::Null => Vec::new(),
            Value::String(text) => vec![text.to_string()],
            Value::List(List { origin: Origin::Strings, .. }) => return None,
            Value::List(list) => {
                list.items.iter().map(Value::native_text).collect::<Option<_>>()?
            }
            _ => return None,
        };
        texts.retain(|text| !text.is_empty());
        Some(texts)
    }

    /// Converts an element of a list to text. Like in kube-apiserver, a type becomes its name, and
    /// an optional the value in it.
    fn native_text(&self) -> Option<String> {
        match self {
            Value::String(text) | Value::Type(text) => Some(text.to_string()),
            Value::Optional(Some(inner)) => inner.native_text(),
            _ => None,
        }
    }

    /// Returns whether the value is the zero value of its type. Lists and maps of claims never are.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Double(value) => *value == 0.0,
            Value::String(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::List(list) => list.origin != Origin::Claim && list.items.is_empty(),
            Value::Map(map) => map.origin != Origin::Claim && map.entries.is_empty(),
            Value::Optional(_) | Value::Type(_) | Value::Object(_) => false,
        }
    }

    /// Returns the approximate memory size of a copy in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl List {
    /// Returns the element at `index`, as `list[index]` returns it.
    pub(super) fn get(&self, index: usize) -> Option<Value> {
        let item = self.items.get(index)?.clone();
        Some(if self.origin == Origin::Claim { item.in_claim() } else { item })
    }

    /// Returns all elements, as `list[index]` returns them.
    pub(super) fn indexed(&self) -> impl DoubleEndedIterator<Item = Value> {
        (0..self.items.len()).filter_map(|index| self.get(index))
    }
}

impl Map {
    /// Returns the value of a key, as `map[key]` returns it.
    pub(super) fn find(&self, key: &Value) -> Option<Value> {
        if self.origin != Origin::Claim {
            return self.entries.get(&self.key(key)?).cloned();
        }
        let Value::String(name) = key else { return None };
        let name = unescape(name).unwrap_or_else(|| name.clone());
        self.entries.get(&Key::String(name)).cloned().map(Value::in_claim)
    }

    /// Returns whether the map has the key. Names are not unescaped here.
    pub(super) fn contains(&self, key: &Value) -> bool {
        self.key(key).is_some()
    }

    /// Returns the key of the map that equals `key`, even if it is a number of another type.
    fn key(&self, key: &Value) -> Option<Key> {
        let candidates = match key {
            Value::Bool(value) => vec![Key::Bool(*value)],
            Value::String(text) => vec![Key::String(text.clone())],
            Value::Int(value) => {
                let unsigned = u64::try_from(*value).ok().map(Key::Uint);
                [Some(Key::Int(*value)), unsigned].into_iter().flatten().collect()
            }
            Value::Uint(value) => {
                let signed = i64::try_from(*value).ok().map(Key::Int);
                [Some(Key::Uint(*value)), signed].into_iter().flatten().collect()
            }
            Value::Double(value) => {
                let signed = (*value as i64 as f64 == *value).then_some(Key::Int(*value as i64));
                let unsigned = (*value as u64 as f64 == *value).then_some(Key::Uint(*value as u64));
                [signed, unsigned].into_iter().flatten().collect()
            }
            _ => Vec::new(),
        };
        candidates.into_iter().find(|key| self.entries.contains_key(key))
    }
}

impl Object {
    /// Returns a member by its name, which may be escaped.
    pub(super) fn find(&self, name: &Arc<str>) -> Option<Value> {
        let unescaped = unescape_strictly(name)?;
        self.members.get(&unescaped).cloned().map(Value::in_claim)
    }
}

impl Key {
    pub(super) fn to_value(&self) -> Value {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(text) => Value::String(text.clone()),
        }
    }
}

/// Returns the unescaped name; `None` if it contains no escapes or invalid ones.
fn unescape(name: &Arc<str>) -> Option<Arc<str>> {
    unescape_strictly(name).filter(|unescaped| unescaped != name)
}

/// Like [`unescape`], but a name without escapes is returned unchanged.
fn unescape_strictly(name: &Arc<str>) -> Option<Arc<str>> {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let mut unescaped = String::new();
    let mut rest: &str = name;
    while let Some((start, contents)) = next_escape(rest) {
        let end = start + contents.len() + 4;
        unescaped.push_str(&rest[..start]);
        unescaped.push_str(match contents {
            "underscores" => "__",
            "dot" => ".",
            "dash" => "-",
            "slash" => "/",
            reserved if RESERVED.contains(&reserved) && end - start == name.len() => reserved,
            _ => return None,
        });
        rest = &rest[end..];
    }
    if unescaped.is_empty() && rest.len() == name.len() {
        return Some(name.clone());
    }
    unescaped.push_str(rest);
    Some(unescaped.into())
}

/// Returns the first `__contents__` whose contents have no underscore, and its position.
fn next_escape(text: &str) -> Option<(usize, &str)> {
    let mut from = 0;
    while let Some(found) = text[from..].find("__") {
        let start = from + found;
        let contents = &text[start + 2..];
        match contents.find('_') {
            Some(length) if length > 0 && contents[length..].starts_with("__") => {
                return Some((start, &contents[..length]));
            }
            _ => from = start + 1,
        }
    }
    None
}

/// Creates the variable `claims`.
pub(super) fn claims(claims: &JsonMap<String, Json>) -> Value {
    let members = claims.iter().map(|(name, value)| (Arc::from(name.as_str()), of_json(value)));
    Value::Object(Arc::new(Object { type_name: "kubernetes.claims", members: members.collect() }))
}

fn of_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::text(text),
        Json::Array(values) => Value::list(values.iter().map(of_json).collect()),
        Json::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| (Key::String(Arc::from(key.as_str())), of_json(value)));
            let entries = Arc::new(entries.collect());
            Value::Map(Map { entries, origin: Origin::Expression })
        }
    }
}

/// Creates the variable `user`. All members exist, even empty ones.
pub(super) fn user(user: &UserInfo) -> Value {
    let texts = |texts: &[String]| Value::list(texts.iter().map(Value::text).collect());
    let extra = user
        .extra
        .iter()
        .map(|(key, values)| (Key::String(Arc::from(key.as_str())), texts(values)));
    let extra = Map { entries: Arc::new(extra.collect()), origin: Origin::Expression };
    let members = HashMap::from([
        (Arc::from("username"), Value::text(&user.username)),
        (Arc::from("uid"), Value::text(&user.uid)),
        (Arc::from("groups"), texts(&user.groups)),
        (Arc::from("extra"), Value::Map(extra)),
    ]);
    Value::Object(Arc::new(Object { type_name: "kubernetes.UserInfo", members }))
}

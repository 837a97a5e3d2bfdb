//! From claims and users to CEL's values.

use std::collections::HashMap;

use ::cel::objects::Key;
use ::cel::{ExecutionError, Value};
use serde_json::{Map, Value as Json};

use crate::authn::UserInfo;

/// Claims as CEL sees them: whole numbers are `int`, others `double`, as with kube-apiserver.
pub(super) fn of_map(map: &Map<String, Json>) -> Value {
    let entries = map.iter().map(|(key, value)| (Key::from(key.clone()), of_json(value)));
    entries.collect::<HashMap<_, _>>().into()
}

fn of_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => text.clone().into(),
        Json::Array(values) => values.iter().map(of_json).collect::<Vec<_>>().into(),
        Json::Object(map) => of_map(map),
    }
}

/// A user as CEL sees it: all members are there, if need be empty.
pub(super) fn of_user(user: &UserInfo) -> Value {
    let texts = |texts: &[String]| Value::from(texts.to_vec());
    let extra: HashMap<Key, Value> =
        user.extra.iter().map(|(key, values)| (key.clone().into(), texts(values))).collect();
    HashMap::<Key, Value>::from([
        ("username".into(), user.username.clone().into()),
        ("uid".into(), user.uid.clone().into()),
        ("groups".into(), texts(&user.groups)),
        ("extra".into(), extra.into()),
    ])
    .into()
}

/// What went wrong, without the values that it went wrong with: they may be anything, and long.
pub(super) fn about(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to {name:?}"),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        ExecutionError::UnexpectedType { got, want } => format!("got {got}, want {want}"),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::DuplicateKey(_) => "a key is there twice".to_owned(),
        _ => "the types of the values do not fit".to_owned(),
    }
}

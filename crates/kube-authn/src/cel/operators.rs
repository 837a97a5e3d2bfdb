//! Operators, evaluated like in cel-go on values whose types are only known at evaluation.

use std::cmp::Ordering;
use std::sync::Arc;

use super::cost;
use super::value::{Key, List, Map, Origin, Value};

/// The result of an operator or function.
pub(super) type Outcome = Result<Value, Failure>;

/// Why there is no result. Contains types but not values, which may be secret and long.
pub(super) type Failure = String;

pub(super) fn no_overload(name: &str, args: &[Value]) -> Failure {
    let types: Vec<&str> = args.iter().map(Value::type_name).collect();
    format!("no such overload: {name}({})", types.join(", "))
}

/// Returns whether two values are equal.
///
/// # Errors
/// Returns an error if only one of them is `claims` or `user`.
pub(super) fn equal(one: &Value, other: &Value) -> Result<bool, Failure> {
    Ok(match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::String(one), Value::String(other)) => one == other,
        (Value::Bytes(one), Value::Bytes(other)) => one == other,
        (Value::Type(one), Value::Type(other)) => one == other,
        (Value::Object(one), Value::Object(other)) => Arc::ptr_eq(one, other),
        (Value::Object(_), _) | (_, Value::Object(_)) => {
            return Err("no such overload: claims and user equal nothing else".to_owned());
        }
        (Value::Optional(None), Value::Optional(other)) => other.is_none(),
        (Value::Optional(_), Value::Optional(None)) => false,
        (Value::Optional(Some(one)), Value::Optional(Some(other))) => equal(one, other)?,
        (Value::List(one), Value::List(other)) => {
            cost::charge_elements(one.items.len())?;
            one.items.len() == other.items.len()
                && all_equal(one.items.iter().zip(other.items.iter()))?
        }
        (Value::Map(one), Value::Map(other)) => maps_equal(one, other)?,
        (one, other) => numbers(one, other) == Some(Some(Ordering::Equal)),
    })
}

fn all_equal<'v>(mut pairs: impl Iterator<Item = (&'v Value, &'v Value)>) -> Result<bool, Failure> {
    pairs.try_fold(true, |equal_so_far, (one, other)| Ok(equal_so_far && equal(one, other)?))
}

fn maps_equal(one: &Map, other: &Map) -> Result<bool, Failure> {
    if one.entries.len() != other.entries.len() {
        return Ok(false);
    }
    cost::charge_elements(one.entries.len())?;
    for (key, value) in one.entries.iter() {
        match other.find(&key.to_value()) {
            Some(found) if equal(value, &found)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Compares two numbers. Returns `None` if one is not a number, `Some(None)` if one is NaN.
fn numbers(one: &Value, other: &Value) -> Option<Option<Ordering>> {
    Some(match (one, other) {
        (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
        (Value::Uint(one), Value::Uint(other)) => Some(one.cmp(other)),
        (Value::Int(one), Value::Uint(other)) => {
            Some(u64::try_from(*one).map_or(Ordering::Less, |one| one.cmp(other)))
        }
        (Value::Uint(one), Value::Int(other)) => {
            Some(u64::try_from(*other).map_or(Ordering::Greater, |other| one.cmp(&other)))
        }
        (one, other) => double(one)?.partial_cmp(&double(other)?),
    })
}

/// Converts a number to a double, like cel-go does for comparisons.
fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Uint(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        _ => None,
    }
}

/// Compares two values.
///
/// # Errors
/// Returns an error if the values have different types, a type without an order, or are NaN.
pub(super) fn compare(one: &Value, other: &Value) -> Result<Ordering, Failure> {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => Ok(one.cmp(other)),
        (Value::String(one), Value::String(other)) => Ok(one.cmp(other)),
        (Value::Bytes(one), Value::Bytes(other)) => Ok(one.cmp(other)),
        (one, other) => match numbers(one, other) {
            Some(Some(order)) => Ok(order),
            Some(None) => Err("NaN values cannot be ordered".to_owned()),
            None => Err(no_overload("compare", &[one.clone(), other.clone()])),
        },
    }
}

fn ordered(args: &[Value], wanted: impl Fn(Ordering) -> bool) -> Outcome {
    match args {
        [one, other] => Ok(Value::Bool(wanted(compare(one, other)?))),
        _ => Err(no_overload("compare", args)),
    }
}

pub(super) fn less(args: &[Value]) -> Outcome {
    ordered(args, Ordering::is_lt)
}

pub(super) fn less_or_equal(args: &[Value]) -> Outcome {
    ordered(args, Ordering::is_le)
}

pub(super) fn greater(args: &[Value]) -> Outcome {
    ordered(args, Ordering::is_gt)
}

pub(super) fn greater_or_equal(args: &[Value]) -> Outcome {
    ordered(args, Ordering::is_ge)
}

pub(super) fn equals(args: &[Value]) -> Outcome {
    match args {
        [one, other] => Ok(Value::Bool(equal(one, other)?)),
        _ => Err(no_overload("_==_", args)),
    }
}

pub(super) fn not_equals(args: &[Value]) -> Outcome {
    match args {
        [one, other] => Ok(Value::Bool(!equal(one, other)?)),
        _ => Err(no_overload("_!=_", args)),
    }
}

pub(super) fn add(args: &[Value]) -> Outcome {
    let overflow = || "integer overflow".to_owned();
    match args {
        [Value::Int(one), Value::Int(other)] => {
            one.checked_add(*other).map(Value::Int).ok_or_else(overflow)
        }
        [Value::Uint(one), Value::Uint(other)] => {
            one.checked_add(*other).map(Value::Uint).ok_or_else(overflow)
        }
        [Value::Double(one), Value::Double(other)] => Ok(Value::Double(one + other)),
        [Value::String(one), Value::String(other)] => Ok(Value::text([&**one, other].concat())),
        [Value::Bytes(one), Value::Bytes(other)] => {
            Ok(Value::Bytes([&**one, other].concat().into()))
        }
        [Value::List(one), Value::List(other)] => Ok(Value::List(joined(one, other))),
        _ => Err(no_overload("_+_", args)),
    }
}

/// Concatenates two lists. If one is empty, the result is the other one itself.
fn joined(one: &List, other: &List) -> List {
    if one.items.is_empty() {
        return other.clone();
    }
    if other.items.is_empty() {
        // Like in kube-apiserver, a list from a claim loses its origin here.
        let origin = match one.origin {
            Origin::Claim => Origin::Expression,
            origin => origin,
        };
        return List { items: one.items.clone(), origin };
    }
    let items = one.indexed().chain(other.indexed()).collect();
    List { items: Arc::new(items), origin: Origin::Expression }
}

/// Defines an operator that takes two numbers of the same type.
macro_rules! arithmetic {
    ($name:ident, $symbol:literal, $checked:ident, $operator:tt) => {
        pub(super) fn $name(args: &[Value]) -> Outcome {
            let failed = |by_zero: bool| {
                if by_zero { "division by zero" } else { "integer overflow" }.to_owned()
            };
            let divides = matches!($symbol, "_/_");
            match args {
                [Value::Int(one), Value::Int(other)] => one
                    .$checked(*other)
                    .map(Value::Int)
                    .ok_or_else(|| failed(divides && *other == 0)),
                [Value::Uint(one), Value::Uint(other)] => one
                    .$checked(*other)
                    .map(Value::Uint)
                    .ok_or_else(|| failed(divides && *other == 0)),
                [Value::Double(one), Value::Double(other)] => Ok(Value::Double(one $operator other)),
                _ => Err(no_overload($symbol, args)),
            }
        }
    };
}

arithmetic!(subtract, "_-_", checked_sub, -);
arithmetic!(multiply, "_*_", checked_mul, *);
arithmetic!(divide, "_/_", checked_div, /);

pub(super) fn modulo(args: &[Value]) -> Outcome {
    let failed = || "modulus by zero, or integer overflow".to_owned();
    match args {
        [Value::Int(one), Value::Int(other)] => {
            one.checked_rem(*other).map(Value::Int).ok_or_else(failed)
        }
        [Value::Uint(one), Value::Uint(other)] => {
            one.checked_rem(*other).map(Value::Uint).ok_or_else(failed)
        }
        _ => Err(no_overload("_%_", args)),
    }
}

pub(super) fn negate(args: &[Value]) -> Outcome {
    match args {
        [Value::Int(number)] => {
            number.checked_neg().map(Value::Int).ok_or_else(|| "integer overflow".to_owned())
        }
        [Value::Double(number)] => Ok(Value::Double(-number)),
        _ => Err(no_overload("-_", args)),
    }
}

pub(super) fn is_in(args: &[Value]) -> Outcome {
    match args {
        [element, Value::List(list)] => Ok(Value::Bool(contains(list, element))),
        [key, Value::Map(map)] => Ok(Value::Bool(map.contains(key))),
        _ => Err(no_overload("_in_", args)),
    }
}

/// Returns whether an element of the list equals `element`.
pub(super) fn contains(list: &List, element: &Value) -> bool {
    list.items.iter().any(|item| equal(item, element) == Ok(true))
}

/// Returns the value at `key`; `Ok(None)` if there is none.
fn lookup(of: &Value, key: &Value) -> Result<Option<Value>, Failure> {
    match of {
        Value::Object(object) => match key {
            Value::String(name) => Ok(object.find(name)),
            _ => Err(no_overload("_[_]", &[of.clone(), key.clone()])),
        },
        Value::Map(map) => Ok(map.find(key)),
        Value::List(list) => {
            let index = match key {
                Value::Int(index) => Some(*index),
                Value::Uint(index) => i64::try_from(*index).ok(),
                Value::Double(index) => (*index as i64 as f64 == *index).then_some(*index as i64),
                _ => None,
            };
            let index = index
                .ok_or_else(|| format!("unsupported index type '{}' in list", key.type_name()))?;
            Ok(usize::try_from(index).ok().and_then(|index| list.get(index)))
        }
        _ => Ok(None),
    }
}

fn missing(key: &Value) -> Failure {
    match key {
        Value::String(name) if name.len() <= 64 => format!("no such key: {name}"),
        Value::Int(index) => format!("index out of bounds: {index}"),
        _ => "no such key".to_owned(),
    }
}

/// `of[key]` and `of.key`.
pub(super) fn index(args: &[Value]) -> Outcome {
    match args {
        [Value::Optional(_), _] => optional_index(args),
        [of, key] => lookup(of, key)?.ok_or_else(|| missing(key)),
        _ => Err(no_overload("_[_]", args)),
    }
}

/// `of[?key]` and `of.?key`.
pub(super) fn optional_index(args: &[Value]) -> Outcome {
    match args {
        [Value::Optional(None), _] => Ok(Value::Optional(None)),
        [Value::Optional(Some(of)), key] => Ok(Value::Optional(lookup(of, key)?.map(Arc::new))),
        [of, key] => Ok(Value::Optional(lookup(of, key)?.map(Arc::new))),
        _ => Err(no_overload("_[?_]", args)),
    }
}

/// `has(of.key)`
pub(super) fn has(args: &[Value]) -> Outcome {
    match args {
        [Value::Optional(None), _] => Ok(Value::Bool(false)),
        [Value::Optional(Some(of)), key] => Ok(Value::Bool(lookup(of, key)?.is_some())),
        [of, key] => Ok(Value::Bool(lookup(of, key)?.is_some())),
        _ => Err(no_overload("has", args)),
    }
}

/// Returns the elements over which a macro iterates: those of a list, the keys of a map, or the
/// values of `claims`.
pub(super) fn range(value: &Value) -> Result<Vec<Value>, Failure> {
    match value {
        Value::List(list) => Ok(list.items.as_ref().clone()),
        Value::Map(map) => Ok(map.entries.keys().map(Key::to_value).collect()),
        Value::Object(object) => {
            Ok(object.members.keys().filter_map(|name| object.find(name)).collect())
        }
        other => Err(no_overload("comprehension", std::slice::from_ref(other))),
    }
}

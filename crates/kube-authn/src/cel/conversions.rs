//! Conversions between types, and optionals.

use std::sync::Arc;

use super::number;
use super::operators::{Outcome, no_overload};
use super::value::Value;

fn cannot(from: &Value, to: &str) -> String {
    format!("type conversion error from '{}' to '{to}'", from.type_name())
}

pub(super) fn size(args: &[Value]) -> Outcome {
    let size = match args {
        [Value::String(text)] => text.chars().count(),
        [Value::Bytes(bytes)] => bytes.len(),
        [Value::List(list)] => list.items.len(),
        [Value::Map(map)] => map.entries.len(),
        _ => return Err(no_overload("size", args)),
    };
    Ok(Value::Int(size as i64))
}

pub(super) fn type_of(args: &[Value]) -> Outcome {
    match args {
        [value] => Ok(Value::Type(Arc::from(value.type_name()))),
        _ => Err(no_overload("type", args)),
    }
}

/// Returns the type with this name, as in `type(claims.n) == double`.
pub(super) fn type_named(args: &[Value]) -> Outcome {
    match args {
        [Value::String(name)] => Ok(Value::Type(name.clone())),
        _ => Err(no_overload("type", args)),
    }
}

pub(super) fn to_dyn(args: &[Value]) -> Outcome {
    match args {
        [value] => Ok(value.clone()),
        _ => Err(no_overload("dyn", args)),
    }
}

pub(super) fn to_bool(args: &[Value]) -> Outcome {
    match args {
        [value @ Value::Bool(_)] => Ok(value.clone()),
        [value @ Value::String(text)] => {
            number::parse_bool(text).map(Value::Bool).ok_or_else(|| cannot(value, "bool"))
        }
        _ => Err(no_overload("bool", args)),
    }
}

pub(super) fn to_bytes(args: &[Value]) -> Outcome {
    match args {
        [value @ Value::Bytes(_)] => Ok(value.clone()),
        [Value::String(text)] => Ok(Value::Bytes(Arc::from(text.as_bytes()))),
        _ => Err(no_overload("bytes", args)),
    }
}

pub(super) fn to_double(args: &[Value]) -> Outcome {
    match args {
        [value @ Value::Double(_)] => Ok(value.clone()),
        [Value::Int(number)] => Ok(Value::Double(*number as f64)),
        [Value::Uint(number)] => Ok(Value::Double(*number as f64)),
        [value @ Value::String(text)] => {
            number::parse_double(text).map(Value::Double).ok_or_else(|| cannot(value, "double"))
        }
        _ => Err(no_overload("double", args)),
    }
}

pub(super) fn to_int(args: &[Value]) -> Outcome {
    let overflow = || "integer overflow".to_owned();
    match args {
        [value @ Value::Int(_)] => Ok(value.clone()),
        [Value::Uint(number)] => i64::try_from(*number).map(Value::Int).map_err(|_| overflow()),
        // Like in cel-go, the bounds themselves are rejected.
        [Value::Double(number)] if *number > i64::MIN as f64 && *number < i64::MAX as f64 => {
            Ok(Value::Int(*number as i64))
        }
        [Value::Double(_)] => Err(overflow()),
        [value @ Value::String(text)] => {
            number::parse_int(text).map(Value::Int).ok_or_else(|| cannot(value, "int"))
        }
        _ => Err(no_overload("int", args)),
    }
}

pub(super) fn to_uint(args: &[Value]) -> Outcome {
    let overflow = || "unsigned integer overflow".to_owned();
    match args {
        [value @ Value::Uint(_)] => Ok(value.clone()),
        [Value::Int(number)] => u64::try_from(*number).map(Value::Uint).map_err(|_| overflow()),
        [Value::Double(number)] if *number >= 0.0 && *number < u64::MAX as f64 => {
            Ok(Value::Uint(*number as u64))
        }
        [Value::Double(_)] => Err(overflow()),
        [value @ Value::String(text)] => {
            number::parse_uint(text).map(Value::Uint).ok_or_else(|| cannot(value, "uint"))
        }
        _ => Err(no_overload("uint", args)),
    }
}

pub(super) fn to_string(args: &[Value]) -> Outcome {
    match args {
        [value @ Value::String(_)] => Ok(value.clone()),
        [Value::Bool(value)] => Ok(Value::text(value.to_string())),
        [Value::Int(number)] => Ok(Value::text(number.to_string())),
        [Value::Uint(number)] => Ok(Value::text(number.to_string())),
        [Value::Double(number)] => Ok(Value::text(number::format(*number))),
        [Value::Bytes(bytes)] => std::str::from_utf8(bytes)
            .map(Value::text)
            .map_err(|_| "invalid UTF-8 in bytes, cannot convert to string".to_owned()),
        _ => Err(no_overload("string", args)),
    }
}

pub(super) fn optional_of(args: &[Value]) -> Outcome {
    match args {
        [value] => Ok(Value::some(value.clone())),
        _ => Err(no_overload("optional.of", args)),
    }
}

pub(super) fn optional_of_non_zero(args: &[Value]) -> Outcome {
    match args {
        [value] if value.is_zero() => Ok(Value::Optional(None)),
        [value] => Ok(Value::some(value.clone())),
        _ => Err(no_overload("optional.ofNonZeroValue", args)),
    }
}

pub(super) fn optional_none(_args: &[Value]) -> Outcome {
    Ok(Value::Optional(None))
}

pub(super) fn value(args: &[Value]) -> Outcome {
    match args {
        [Value::Optional(Some(inner))] => Ok(inner.as_ref().clone()),
        [Value::Optional(None)] => Err("optional.none() dereference".to_owned()),
        _ => Err(no_overload("value", args)),
    }
}

pub(super) fn has_value(args: &[Value]) -> Outcome {
    match args {
        [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
        _ => Err(no_overload("hasValue", args)),
    }
}

/// Returns whether `or` and `orValue` use their argument. A value that is not an optional counts as
/// present.
pub(super) fn is_none(args: &[Value]) -> Outcome {
    Ok(Value::Bool(matches!(args, [Value::Optional(None)])))
}

/// Returns the value of an optional for `orValue`, if there is one.
pub(super) fn inner(args: &[Value]) -> Outcome {
    match args {
        [Value::Optional(Some(inner))] => Ok(inner.as_ref().clone()),
        [value] => Ok(value.clone()),
        _ => Err(no_overload("orValue", args)),
    }
}

pub(super) fn not_called(args: &[Value]) -> Outcome {
    Err(no_overload("or", args))
}
